"""Prepared data: what training reads. A folder of safetensors and one JSON manifest, and nothing else is needed.

`<split>.safetensors` holds `tokens` (all texts end to end, int32), `offsets` (texts + 1, int64) and `labels` (int64);
`vectors.safetensors` holds `vectors` (V, E). Word 0 is padding, word 1 stands for every unknown word.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skimrnn.config import VectorsConfig
from skimrnn.data.registry import Dataset
from skimrnn.errors import UserError
from skimrnn.files import digest_of, read_json, read_tensors, sha256_of_file, write_json, write_tensors

PADDING, UNKNOWN = 0, 1
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """One split in memory: N texts end to end."""

    tokens: Tensor  # (total tokens,), int32
    offsets: Tensor  # (N + 1,), int64
    labels: Tensor  # (N,), int64

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

    def split(self, name: str) -> Split:
        """Read one split."""
        tensors, _ = read_tensors(self.folder / f"{name}.safetensors")
        return Split(tensors["tokens"], tensors["offsets"], tensors["labels"])

    def vectors(self) -> Tensor:
        """The word vectors (V, E)."""
        return read_tensors(self.folder / "vectors.safetensors")[0]["vectors"]


def open_prepared(folder: Path, dataset: str) -> Prepared:
    """Open a prepared folder; a folder of another dataset is a `UserError`."""
    manifest = read_json(folder / "manifest.json")
    if manifest.get("dataset") != dataset:
        raise UserError(f"{folder}: holds {manifest.get('dataset')!r}, not {dataset!r}: give the right folder")
    return Prepared(folder, manifest)


def prepare_dataset(
    dataset: Dataset, tokens_folder: Path, vectors_file: Path, settings: VectorsConfig, folder: Path
) -> None:
    """Write the prepared folder from tokenised texts and word vectors.

    The vocabulary is every word of the train split, most frequent first. The manifest keeps rows, mean lengths, the
    share of running tokens that have a word vector, and one digest of all that training reads.
    """
    # Imported here, so that training needs none of what tokenising and reading vectors needs.
    from skimrnn.data.tokens import read_tokens
    from skimrnn.data.vectors import read_vectors, vectors_for

    source = read_json(tokens_folder / "manifest.json")
    texts = {split: read_tokens(tokens_folder / f"{split}.parquet") for split in SPLITS}
    counts = Counter(token for tokens in texts["train"][0] for token in tokens)
    vocabulary = ["<pad>", "<unk>", *sorted(counts, key=lambda word: (-counts[word], word))]
    index = {word: number for number, word in enumerate(vocabulary)}

    table, known = vectors_for(vocabulary, *read_vectors(vectors_file), settings.seed)
    table[[PADDING, UNKNOWN]] = 0
    known[[PADDING, UNKNOWN]] = False
    write_tensors(folder / "vectors.safetensors", {"vectors": torch.from_numpy(table)})
    write_json(folder / "vocabulary.json", vocabulary)

    splits = {}
    for split, (lists, labels) in texts.items():
        ids = np.fromiter((index.get(token, UNKNOWN) for tokens in lists for token in tokens), np.int32)
        offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        path = folder / f"{split}.safetensors"
        write_tensors(
            path,
            {
                "tokens": torch.from_numpy(ids),
                "offsets": torch.from_numpy(offsets),
                "labels": torch.tensor(labels, dtype=torch.int64),
            },
        )
        splits[split] = {
            "rows": len(lists),
            "tokens": len(ids),
            "mean_length": len(ids) / len(lists),
            "vector_coverage": float(known[ids].mean()),
            "sha256": sha256_of_file(path),
        }
    vectors_digest = sha256_of_file(folder / "vectors.safetensors")
    write_json(
        folder / "manifest.json",
        {
            "dataset": dataset.name,
            "classes": list(dataset.classes),
            "source": source["source"],
            "revision": source["revision"],
            "complete": source["complete"],
            "release": source["splits"],
            "splits": splits,
            "vocabulary_size": len(vocabulary) - 2,
            "vectors": {
                "source": settings.source,
                "settings": settings.settings(),
                "dimension": int(table.shape[1]),
                "words": int(known.sum()),
                "sha256": vectors_digest,
            },
            "digest": digest_of([split["sha256"] for split in splits.values()] + [vectors_digest]),
        },
    )
