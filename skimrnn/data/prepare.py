"""Prepared data: what training reads. A folder of safetensors and one JSON manifest, and nothing else is needed.

`<split>.safetensors` holds `tokens` (all texts end to end, int32), `offsets` (texts + 1, int64), `labels` (int64) and,
for a cloze dataset, `candidates` (texts, most candidates of a text; int32);
`vectors.safetensors` holds `vectors` (V, E). Word 0 is padding, word 1 stands for every unknown word.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skimrnn.config import VectorsConfig
from skimrnn.data.registry import Dataset
from skimrnn.data.stages import read_manifest
from skimrnn.errors import UserError
from skimrnn.files import digest_of, read_json, read_tensors, sha256_of_file, write_json, write_tensors

PADDING, UNKNOWN = 0, 1
SCORING = "validation.json"
"""File of what the answers to questions are scored by."""
_AGAIN = "copy or prepare the whole folder again"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """One split in memory: N texts end to end."""

    tokens: Tensor  # (total tokens,), int32
    offsets: Tensor  # (N + 1,), int64
    labels: Tensor  # (N,), int64
    candidates: Tensor | None = None  # (N, C), int32, padded: of a cloze dataset; a label is a place among them

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each text (N)."""
        return self.offsets[1:] - self.offsets[:-1]


@dataclass(frozen=True)
class Prepared:
    """A prepared folder: its manifest, and its splits and vectors read on demand."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def cloze(self) -> bool:
        """Whether each text comes with candidates of its own."""
        return bool(self.manifest.get("cloze", False))

    def split(self, name: str) -> Split:
        """Read one split."""
        needed = ("tokens", "offsets", "labels", *(["candidates"] if self.cloze else []))
        tensors = self.tensors(name, *needed)
        return Split(**{name: tensors[name] for name in needed})

    def vectors(self) -> Tensor:
        """The word vectors (V, E)."""
        return self.tensors("vectors", "vectors")["vectors"]

    def spellings(self) -> Tensor:
        """The numbers of the characters of each spelling (spellings, 16), of questions."""
        return self.tensors("vectors", "characters")["characters"]

    def tensors(self, name: str, *needed: str) -> dict[str, Tensor]:
        """Read a split or the vectors; a file that the manifest is not of is a `UserError`."""
        path = self.folder / f"{name}.safetensors"
        stated = self.manifest["vectors"] if name == "vectors" else self.manifest["splits"][name]
        if sha256_of_file(path) != stated["sha256"]:
            raise UserError(f"{path}: damaged, or of another preparation than its manifest: {_AGAIN}")
        return read_tensors(path, *needed)[0]

    def scoring(self) -> dict[str, Any]:
        """Read what the answers to questions are scored by, of which the manifest has the digest of all alone."""
        values: dict[str, Any] = read_json(self.folder / SCORING)
        if data_digest(self.folder, self.manifest["splits"]) != self.manifest["digest"]:
            raise UserError(f"{self.folder / SCORING}: damaged, or of another preparation than its manifest: {_AGAIN}")
        return values


def open_prepared(folder: Path, dataset: str) -> Prepared:
    """Open a prepared folder; a folder of another dataset is a `UserError`."""
    return Prepared(folder, read_manifest(folder, dataset, "digest"))


def data_digest(folder: Path, splits: Iterable[str]) -> str:
    """One digest of all that training and scoring read of a prepared folder; `SCORING` is there for questions alone."""
    files = [folder / f"{name}.safetensors" for name in (*splits, "vectors")]
    return digest_of([sha256_of_file(file) for file in [*files, *folder.glob(SCORING)]])


def prepare_dataset(
    dataset: Dataset, tokens_folder: Path, vectors_file: Path, settings: VectorsConfig, folder: Path
) -> None:
    """Write the prepared folder from tokenised texts and word vectors.

    The vocabulary is every word of the train split, most frequent first; all other words are one unknown word. But the
    answers of a cloze text are often names of its own book, so there the words of the other splits that have a vector
    follow, which training never changes. The manifest keeps rows, mean lengths, the share of running tokens that have a
    word vector, and one digest of all that training reads.
    """
    # Imported here, so that training needs none of what tokenising and reading vectors needs.
    from skimrnn.data.vectors import read_vectors, vectors_for

    source = read_manifest(tokens_folder, dataset.name, "unlabelled")
    paths = {split: tokens_folder / f"{split}.parquet" for split in SPLITS}
    words, vectors = read_vectors(vectors_file)
    counts = _count_words(paths["train"])
    vocabulary = ["<pad>", "<unk>", *sorted(counts, key=lambda word: (-counts[word], word))]
    seen = len(vocabulary)
    if dataset.cloze:
        others = set(_count_words(paths["validation"])) | set(_count_words(paths["test"]))
        vocabulary += sorted((others & set(words)) - set(counts))
    index = {word: number for number, word in enumerate(vocabulary)}

    table, known = vectors_for(vocabulary, words, vectors, settings.seed)
    table[[PADDING, UNKNOWN]] = 0
    known[[PADDING, UNKNOWN]] = False
    write_tensors(folder / "vectors.safetensors", {"vectors": torch.from_numpy(table)})
    write_json(folder / "vocabulary.json", vocabulary)

    splits = {}
    for split, path in paths.items():
        numbered = _numbered(path, index)
        target = folder / f"{split}.safetensors"
        write_tensors(target, numbered)
        splits[split] = {
            "rows": len(numbered["labels"]),
            "tokens": len(numbered["tokens"]),
            "mean_length": len(numbered["tokens"]) / len(numbered["labels"]),
            "vector_coverage": float(known[numbered["tokens"].numpy()].mean()),
            "sha256": sha256_of_file(target),
        }
    own = {"classes": list(dataset.classes), "cloze": dataset.cloze, "leaks": source.get("leaks", {})}
    write_manifest(folder, source, splits, settings, table[:seen], known[:seen], **own)


def write_manifest(
    folder: Path,
    source: dict[str, Any],
    splits: dict[str, Any],
    settings: VectorsConfig,
    table: np.ndarray,
    known: np.ndarray,
    **own: Any,
) -> None:
    """Write the manifest of a prepared folder, whose other files are there; `own` is what one task alone adds.

    `source` is the manifest of the tokens; `table` (V, E) and `known` (V) are about padding, the unknown word and the
    words of train.
    """
    write_json(
        folder / "manifest.json",
        {
            **{key: source[key] for key in ("dataset", "source", "revision", "complete")},
            "release": source["splits"],
            "splits": splits,
            "vocabulary_size": len(known) - 2,
            "vectors": {
                "source": settings.source,
                "settings": settings.settings(),
                "dimension": int(table.shape[1]),
                "words": int(known.sum()),
                "sha256": sha256_of_file(folder / "vectors.safetensors"),
            },
            "digest": data_digest(folder, splits),
            **own,
        },
    )


def _count_words(path: Path) -> Counter[str]:
    """How often each word stands in the texts of one tokenised split; a word that is a candidate alone counts zero."""
    from skimrnn.data.tokens import token_batches

    counts: Counter[str] = Counter()
    for batch in token_batches(path):
        for text in batch["tokens"].to_pylist():
            counts.update(text.split(" "))
        if "candidates" in batch.schema.names:
            for row in batch["candidates"].to_pylist():
                counts.update(dict.fromkeys(row, 0))
    return counts


def _numbered(path: Path, index: dict[str, int]) -> dict[str, Tensor]:
    """The tensors of one tokenised split, words replaced by their numbers."""
    from skimrnn.data.tokens import token_batches

    tokens, lengths, labels, candidates = [], [np.zeros(1, np.int64)], [], []
    for batch in token_batches(path):
        lists = [text.split(" ") for text in batch["tokens"].to_pylist()]
        lengths.append(np.fromiter(map(len, lists), np.int64))
        tokens.append(np.fromiter((index.get(token, UNKNOWN) for words in lists for token in words), np.int32))
        labels.append(batch["label"].to_numpy())
        if "candidates" in batch.schema.names:
            candidates += [[index.get(word, UNKNOWN) for word in row] for row in batch["candidates"].to_pylist()]
    tensors = {
        "tokens": torch.from_numpy(np.concatenate(tokens)),
        "offsets": torch.from_numpy(np.cumsum(np.concatenate(lengths))),
        "labels": torch.from_numpy(np.concatenate(labels).astype(np.int64)),
    }
    if candidates:
        most = max(map(len, candidates))
        padded = [row + [PADDING] * (most - len(row)) for row in candidates]
        tensors["candidates"] = torch.tensor(padded, dtype=torch.int32)
    return tensors
