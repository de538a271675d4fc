"""A mirror with the Children's Book Test at its official size, made up: `python -m tests.data.official_cbt MIRROR`.

For measuring what preparing it costs where the real files are not at hand; see `test_cloze.py` for what it must be.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skimrnn.data.cloze import BLANK
from skimrnn.data.registry import DATASETS, Dataset

MEAN_LENGTH = 480
"""Tokens of a question with its context; the paper's table of datasets has 461 (NE) and 500 (CN)."""

_VOCABULARY = 53_000
_SENTENCES = 20
_OPTIONS = 10
_ROWS_AT_ONCE = 5_000


def write_official_cbt(mirror: Path, dataset: Dataset) -> None:
    """Write every split of `dataset`, as many rows as its release has.

    As in the real one, a text is a window of a book that moves on by a sentence, so each sentence stands in twenty.
    """
    random = np.random.default_rng(len(dataset.name))
    words = np.array([f"w{number:x}" for number in range(_VOCABULARY)])
    frequency = 1 / np.arange(1, _VOCABULARY + 1)
    frequency /= frequency.sum()
    folder = mirror / dataset.address
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in dataset.rows.items():
        lengths = random.poisson(MEAN_LENGTH / (_SENTENCES + 1), rows + _SENTENCES).clip(1)
        tokens = words[random.choice(_VOCABULARY, lengths.sum(), p=frequency)]
        book = [" ".join(part) for part in np.split(tokens, lengths.cumsum()[:-1])]
        writer = None
        for start in range(0, rows, _ROWS_AT_ONCE):
            table = pa.Table.from_pylist(
                [_question(book, row, words, random) for row in range(start, min(start + _ROWS_AT_ONCE, rows))]
            )
            writer = writer or pq.ParquetWriter(folder / f"{split}.parquet", table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()


def _question(book: list[str], row: int, words: np.ndarray, random: np.random.Generator) -> dict[str, object]:
    options = words[random.choice(_VOCABULARY, _OPTIONS, replace=False)].tolist()
    place = int(random.integers(_OPTIONS))
    sentence = book[row + _SENTENCES].split(" ")
    sentence[int(random.integers(len(sentence)))] = BLANK
    return {
        "sentences": book[row : row + _SENTENCES],
        "question": " ".join(sentence),
        "answer": options[place],
        "options": options,
    }


def main(mirror: Path, share: float = 1.0) -> None:
    """Make both sets, or a share of them."""
    for name in ("cbt_ne", "cbt_cn"):
        dataset = DATASETS[name]
        write_official_cbt(
            mirror, replace(dataset, rows={split: round(share * rows) for split, rows in dataset.rows.items()})
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
