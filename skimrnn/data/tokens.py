"""From raw texts to tokens, and the validation split where the release has none."""

import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skimrnn.data.cloze import tokenise_cloze
from skimrnn.data.registry import Dataset
from skimrnn.data.stages import read_manifest
from skimrnn.errors import UserError
from skimrnn.files import explain_parquet_errors, read_parquet, write_json, write_parquet

Tokenised = TypeVar("Tokenised")

LONGEST = 10_000
"""Most tokens of a text. No text of the datasets has half as many; a longer one would take a batch's memory."""

MANY = 10_000
"""Up to so many texts one process is as quick as several."""

EMPTY = "<empty>"
"""The token of a text without tokens."""

_MARKUP = re.compile(r"<br\s*/?>", re.IGNORECASE)


def split_spaces(text: str, *, keep_case: bool = False) -> str:
    """The tokens of a text that comes tokenised: lower-cased, joined by single spaces."""
    return " ".join((text if keep_case else text.lower()).split())


def split_treebank(text: str, *, keep_case: bool = False) -> str:
    """The Treebank tokens of a text: lower-cased, joined by single spaces; HTML line breaks are dropped.

    The Treebank rules split a full stop off at the end of a sentence only, so sentences are found first.
    """
    from skimrnn.data.treebank import SENTENCES, WORDS

    sentences = SENTENCES.tokenize(_MARKUP.sub(" ", text))
    tokens = " ".join(token for sentence in sentences for token in WORDS.tokenize(sentence))
    return tokens if keep_case else tokens.lower()


def tokenise_dataset(dataset: Dataset, raw: Path, folder: Path, seed: int, processes: int = 1) -> None:
    """Write `<split>.parquet` (tokens joined by spaces, label) for train, validation, test and any unlabelled split.

    Cloze texts have the candidates besides. The manifest counts the texts of more than `LONGEST` tokens, which are cut
    to their last ones, those without tokens, and those that stand in two splits; the latter are kept, and announced.
    Where the release has no validation split, the paper's share of train is set apart, stratified by label and the
    same for every run. A text without tokens becomes the single token `<empty>`.
    """
    manifest = read_manifest(raw, dataset.name, "splits")
    tables = tokenised_splits(dataset, raw, seed, processes)
    cut = {}
    for split, table in tables.items():
        tables[split], cut[split] = _cut_long(table)
        write_parquet(folder / f"{split}.parquet", tables[split])
    leaks = announced_leaks(
        dataset, {split: table for split, table in tables.items() if split != dataset.unlabelled_split}
    )
    write_json(
        folder / "manifest.json",
        {
            **manifest,
            "unlabelled": dataset.unlabelled_split,
            "rows": {split: t.num_rows for split, t in tables.items()},
            "cut": cut,
            "empty": {split: pc.sum(pc.equal(t["tokens"], EMPTY)).as_py() for split, t in tables.items()},
            "leaks": leaks,
        },
    )


def tokenised_splits(
    dataset: Dataset, raw: Path, seed: int, processes: int = 1, *, keep_case: bool = False
) -> dict[str, pa.Table]:
    """The splits of a fetched dataset as tokens and labels, with a validation split where the release has none."""
    split_text = partial(split_spaces if dataset.tokenised else split_treebank, keep_case=keep_case)
    tables = {}
    for split in dataset.rows:
        table = read_parquet(raw / f"{split}.parquet", *(() if dataset.cloze else ("text", "label")))
        if dataset.cloze:
            tables[split] = tokenise_cloze(table, keep_case=keep_case)
        else:
            tables[split] = _tokenise(table, split_text, processes)
    if dataset.validation_rows is not None:
        share = dataset.validation_rows / dataset.rows["train"]
        if not round(share * len(tables["train"])):
            raise UserError(f"{raw}: too few rows in train to set a validation split apart: fetch more of them")
        tables["train"], tables["validation"] = carve(tables["train"], share, seed)
    return tables


def carve(table: pa.Table, share: float, seed: int) -> tuple[pa.Table, pa.Table]:
    """Split `table` in two, the second holding `round(share * rows)` rows with the same mix of labels.

    Largest remainders decide which labels round up, so the second part has exactly that size.
    """
    labels = table["label"].to_numpy()
    classes, counts = np.unique(labels, return_counts=True)
    quotas = counts * (round(share * len(labels)) / len(labels))
    sizes = np.floor(quotas).astype(int)
    missing = round(share * len(labels)) - sizes.sum()
    sizes[np.argsort(sizes - quotas, kind="stable")[:missing]] += 1
    random = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    for label, size in zip(classes, sizes, strict=True):
        chosen[random.permutation(np.flatnonzero(labels == label))[:size]] = True
    return table.filter(pa.array(~chosen)), table.filter(pa.array(chosen))


def count_leaks(tables: dict[str, pa.Table]) -> dict[str, int]:
    """How many texts of a later split stand in an earlier one, too, word for word: `test that stand in train`: n.

    Whether a letter is a capital does not count.
    """
    names = [split for split in ("train", "validation", "test") if split in tables]
    seen = {split: set(_hashes(tables[split])) for split in names}
    leaks = {}
    for later in range(1, len(names)):
        for earlier in range(later):
            if count := sum(text in seen[names[earlier]] for text in _hashes(tables[names[later]])):
                leaks[f"{names[later]} that stand in {names[earlier]}"] = count
    return leaks


def announced_leaks(dataset: Dataset, tables: dict[str, pa.Table]) -> dict[str, int]:
    """What `count_leaks` counts, with a warning on stderr for each pair of splits that share texts."""
    leaks = count_leaks(tables)
    for pair, count in leaks.items():
        print(f"warning: {dataset.name}: {count:,} texts of {pair}", file=sys.stderr)
    return leaks


def _hashes(table: pa.Table) -> Iterator[int]:
    for batch in table.to_batches(max_chunksize=5_000):
        yield from (hash(tokens.lower()) for tokens in batch["tokens"].to_pylist())


def token_batches(path: Path, rows: int = 2_000) -> Iterator[pa.RecordBatch]:
    """The rows of one tokenised split, some at a time: the texts of a large one do not fit the memory as words."""
    with explain_parquet_errors(path), pq.ParquetFile(path) as file:
        if "tokens" not in file.schema_arrow.names:
            raise UserError(f"{path}: no column 'tokens' in it: give the folder of the tokenised texts")
        yield from file.iter_batches(rows)


def map_texts(function: Callable[[str], Tokenised], texts: Sequence[str], processes: int) -> list[Tokenised]:
    """What a function makes of each text; of many texts, in so many processes."""
    if processes == 1 or len(texts) <= MANY:
        return [function(text) for text in texts]
    # Not multiprocessing's own pool, which waits for ever for a worker that was killed, as where memory runs out.
    with ProcessPoolExecutor(processes, initializer=_leave_signals_to_the_parent) as pool:
        return list(pool.map(function, texts, chunksize=500))


def _leave_signals_to_the_parent() -> None:
    """Ctrl-C reaches workers, too, and a fork has its parent's handler: the parent says what happened and ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _tokenise(table: pa.Table, split_text: Callable[[str], str], processes: int) -> pa.Table:
    tokens = map_texts(split_text, table["text"].to_pylist(), processes)
    return pa.table({"tokens": [text or EMPTY for text in tokens], "label": table["label"]})


def _cut_long(table: pa.Table) -> tuple[pa.Table, int]:
    """The table with texts of more than `LONGEST` tokens cut to their last ones, and how many were cut."""
    long = pc.greater(pc.count_substring(table["tokens"], " "), LONGEST - 1)
    count = pc.sum(long).as_py() or 0
    if not count:
        return table, 0
    texts = [" ".join(text.split(" ")[-LONGEST:]) for text in table["tokens"].to_pylist()]
    return table.set_column(table.column_names.index("tokens"), "tokens", pa.array(texts)), count
