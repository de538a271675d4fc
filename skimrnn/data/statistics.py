"""What the paper's table of datasets counts, under the conventions that its figures may follow."""

import sys
from collections import Counter
from collections.abc import Set
from dataclasses import replace
from pathlib import Path

from skimrnn.data.registry import DATASETS, Dataset
from skimrnn.data.tokens import EMPTY, count_leaks, tokenised_splits
from skimrnn.errors import UserError
from skimrnn.files import Closed, read_json, read_parquet


class DatasetStatistics(Closed):
    """One dataset as it was counted. `vocabulary` and `mean_length` have a value for each convention."""

    dataset: str
    source: str
    revision: str | None
    complete: bool
    digests: dict[str, str]
    rows: dict[str, int]
    fetched_rows: dict[str, int]
    mean_length: dict[str, float]
    vocabulary: dict[str, int]
    leaks: dict[str, int]
    empty: int


def count_datasets(
    raw: Path, tokens: Path | None, seed: int, with_vector: Set[str], processes: int = 1
) -> list[DatasetStatistics]:
    """Count every dataset that has a folder in `raw` or, if it asks questions, in `tokens`; stderr says which.

    That there is none is a `UserError`.
    """
    counted = []
    for dataset in DATASETS.values():
        asks = dataset.task == "question_answering"
        base = tokens if asks else raw
        if base is None or not (base / dataset.name / "manifest.json").exists():
            continue
        print(f"counting {dataset.name}", file=sys.stderr, flush=True)
        if asks:
            counted.append(count_questions(dataset, base / dataset.name, with_vector))
        else:
            counted.append(count_dataset(dataset, base / dataset.name, seed, with_vector, processes))
    if not counted:
        raise UserError(f"{raw}: no dataset in it: fetch one first")
    return counted


def count_dataset(
    dataset: Dataset, raw: Path, seed: int, with_vector: Set[str], processes: int = 1
) -> DatasetStatistics:
    """Count one dataset that was fetched into `raw`; `with_vector` are the words of a release of word vectors.

    Mean lengths are over the texts of all labelled splits, vocabularies over train alone unless they say otherwise.
    """
    labelled = replace(dataset, rows={split: dataset.rows[split] for split in dataset.labelled_splits})
    tables = tokenised_splits(labelled, raw, seed, processes, keep_case=True)
    counts: dict[str, Counter[str]] = {split: Counter() for split in tables}
    empty = 0
    for split, table in tables.items():
        for text in table["tokens"].to_pylist():
            counts[split].update(text.split(" "))
        empty += counts[split].pop(EMPTY, 0)
    whole = sum(counts.values(), Counter())
    texts = sum(table.num_rows for table in tables.values())
    return _statistics(
        dataset,
        raw,
        counts,
        with_vector,
        rows={split: table.num_rows for split, table in tables.items()},
        mean_length={
            "all tokens": sum(whole.values()) / texts,
            "without punctuation": sum(n for word, n in whole.items() if _is_word(word)) / texts,
        },
        leaks=count_leaks(tables),
        empty=empty,
    )


def count_questions(dataset: Dataset, tokens: Path, with_vector: Set[str]) -> DatasetStatistics:
    """Count one dataset of questions that was tokenised into `tokens`, where the texts have kept their case.

    A mean length is that of the contexts, each as often as there are questions about it; the vocabulary is that of
    contexts and questions, each of which is counted once. Leaks are contexts or questions.
    """
    counts: dict[str, Counter[str]] = {}
    tables, rows = {}, {}
    lengths = {"all tokens": 0, "without punctuation": 0}
    for split in dataset.rows:
        tables[split] = read_parquet(tokens / f"{split}.parquet")
        contexts = read_parquet(tokens / f"{split}.questions.parquet")["context"].to_pylist()
        rows[split] = len(contexts)
        asked = Counter(contexts)
        counts[split] = Counter()
        for number, text in enumerate(tables[split].to_pylist()):
            words = text["tokens"].split(" ")
            counts[split].update(
                cased if (cased := text["text"][start:stop]).lower() == word else word
                for word, start, stop in zip(words, text["starts"], text["stops"], strict=True)
            )
            lengths["all tokens"] += asked[number] * len(words)
            lengths["without punctuation"] += asked[number] * sum(map(_is_word, words))
    empty = sum(count.pop(EMPTY, 0) for count in counts.values())
    questions = sum(rows.values())
    return _statistics(
        dataset,
        tokens,
        counts,
        with_vector,
        rows=rows,
        mean_length={name: total / questions for name, total in lengths.items()},
        leaks=count_leaks(tables),
        empty=empty,
    )


def _statistics(
    dataset: Dataset,
    folder: Path,
    counts: dict[str, Counter[str]],
    with_vector: Set[str],
    *,
    rows: dict[str, int],
    mean_length: dict[str, float],
    leaks: dict[str, int],
    empty: int,
) -> DatasetStatistics:
    """The counts of a dataset, from those of its words as they are spelled; `folder` has the manifest of the fetch."""
    manifest = read_json(folder / "manifest.json")
    cased = counts["train"]
    train, everything = _lowered(cased), _lowered(sum(counts.values(), Counter()))
    return DatasetStatistics(
        dataset=dataset.name,
        source=manifest["source"],
        revision=manifest["revision"],
        complete=manifest["complete"],
        digests={split: entry["sha256"] for split, entry in manifest["splits"].items()},
        rows={split: rows[split] for split in ("train", "validation", "test") if split in rows},
        fetched_rows={split: entry["rows"] for split, entry in manifest["splits"].items()},
        mean_length=mean_length,
        vocabulary={
            "lower-cased": len(train),
            "case kept": len(cased),
            "without punctuation": sum(map(_is_word, train)),
            "at least twice": sum(n > 1 for n in train.values()),
            "at least five times": sum(n > 4 for n in train.values()),
            "with a GloVe vector": len(train.keys() & with_vector),
            "all splits, lower-cased": len(everything),
            "all splits, with a GloVe vector": len(everything.keys() & with_vector),
        },
        leaks=leaks,
        empty=empty,
    )


def _lowered(counts: Counter[str]) -> Counter[str]:
    lowered: Counter[str] = Counter()
    for word, count in counts.items():
        lowered[word.lower()] += count
    return lowered


def _is_word(token: str) -> bool:
    return any(map(str.isalnum, token))
