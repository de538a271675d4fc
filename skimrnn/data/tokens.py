"""From raw texts to tokens, and the validation split where the release has none."""

import re
from collections.abc import Callable
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import pyarrow as pa
from nltk.tokenize import TreebankWordTokenizer
from nltk.tokenize.punkt import PunktSentenceTokenizer

from skimrnn.data.registry import Dataset
from skimrnn.files import read_json, read_parquet, write_json, write_parquet

_MARKUP = re.compile(r"<br\s*/?>", re.IGNORECASE)
_sentences = PunktSentenceTokenizer()  # Untrained: its rules need no download.
_words = TreebankWordTokenizer()


def split_spaces(text: str) -> str:
    """The tokens of a text that comes tokenised: lower-cased, joined by single spaces."""
    return " ".join(text.lower().split())


def split_treebank(text: str) -> str:
    """The Treebank tokens of a text: lower-cased, joined by single spaces; HTML line breaks are dropped.

    The Treebank rules split a full stop off at the end of a sentence only, so sentences are found first.
    """
    sentences = _sentences.tokenize(_MARKUP.sub(" ", text))
    return " ".join(token for sentence in sentences for token in _words.tokenize(sentence)).lower()


def tokenise_dataset(dataset: Dataset, raw: Path, folder: Path, seed: int, processes: int = 1) -> None:
    """Write `<split>.parquet` (tokens joined by spaces, label) for train, validation, test and any unlabelled split.

    Where the release has no validation split, the paper's share of train is set apart, stratified by label and the
    same for every run. A text without tokens becomes the single token `<empty>`.
    """
    manifest = read_json(raw / "manifest.json")
    split_text = split_spaces if dataset.tokenised else split_treebank
    tables = {split: _tokenise(raw / f"{split}.parquet", split_text, processes) for split in dataset.rows}
    if dataset.validation_rows is not None:
        share = dataset.validation_rows / dataset.rows["train"]
        tables["train"], tables["validation"] = carve(tables["train"], share, seed)
    for split, table in tables.items():
        write_parquet(folder / f"{split}.parquet", table)
    write_json(
        folder / "manifest.json",
        {
            **manifest,
            "unlabelled": dataset.unlabelled_split,
            "rows": {split: t.num_rows for split, t in tables.items()},
        },
    )


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


def read_texts(path: Path) -> list[list[str]]:
    """The token lists of one tokenised split."""
    return [tokens.split(" ") for tokens in read_parquet(path)["tokens"].to_pylist()]


def read_tokens(path: Path) -> tuple[list[list[str]], list[int]]:
    """The token lists and the labels of one tokenised split."""
    return read_texts(path), read_parquet(path)["label"].to_pylist()


def _tokenise(path: Path, split_text: Callable[[str], str], processes: int) -> pa.Table:
    table = read_parquet(path)
    texts = table["text"].to_pylist()
    if processes > 1 and len(texts) > 10_000:
        with Pool(processes) as pool:
            tokens = pool.map(split_text, texts, chunksize=500)
    else:
        tokens = [split_text(text) for text in texts]
    return pa.table({"tokens": [text or "<empty>" for text in tokens], "label": table["label"]})
