"""Batches of texts of similar length."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from skimrnn.data.prepare import PADDING, Split

_BATCHES_PER_BUCKET = 50
_EVALUATION_TOKENS = 16_000  # Of a batch, padding included: bounds the memory.


class Lengths(Protocol):
    """Texts, in as far as batches are planned: how many there are, and how long each is."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> Tensor:
        """Tokens of each text (N)."""


class Batch(NamedTuple):
    """Texts padded to the longest of them."""

    tokens: Tensor  # (B, T), int64
    lengths: Tensor  # (B), int64
    labels: Tensor  # (B), int64
    candidates: Tensor | None = None  # (B, C), int64, of a cloze dataset

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What a model is called with."""
        texts = (self.tokens, self.lengths)
        return texts if self.candidates is None else (*texts, self.candidates)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; the lengths stay on the CPU, where layers want them."""
        candidates = None if self.candidates is None else self.candidates.to(device)
        return Batch(self.tokens.to(device), self.lengths, self.labels.to(device), candidates)


def collate(split: Split, rows: np.ndarray) -> Batch:
    """Pad the texts of `rows` (B) to one batch."""
    lengths = split.lengths[rows]
    tokens = torch.full((len(rows), int(lengths.max())), PADDING)
    for place, row in enumerate(rows):
        start, stop = split.offsets[row], split.offsets[row + 1]
        tokens[place, : stop - start] = split.tokens[start:stop]
    candidates = None if split.candidates is None else split.candidates[rows].long()
    return Batch(tokens, lengths, split.labels[rows], candidates)


def training_rows(split: Lengths, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The rows of each batch of an epoch: a function of `seed` and `epoch` alone, so a resumed run sees the same.

    Rows are shuffled, sorted by length within buckets of 50 batches, cut into batches, and the batches shuffled.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(split))
    lengths = split.lengths.numpy()
    bucket = batch_size * _BATCHES_PER_BUCKET
    batches: list[np.ndarray] = []
    for start in range(0, len(order), bucket):
        rows = order[start : start + bucket]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches.extend(rows[first : first + batch_size] for first in range(0, len(rows), batch_size))
    return [batches[place] for place in random.permutation(len(batches))]


def evaluation_rows(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each batch of texts of similar length (N), the longest first: a batch is as long as its first."""
    order = np.argsort(lengths, kind="stable")[::-1]
    start = 0
    while start < len(order):
        size = max(1, _EVALUATION_TOKENS // int(lengths[order[start]]))
        yield order[start : start + size].copy()
        start += size


def evaluation_batches(split: Split, batch_size: int) -> Iterator[Batch]:
    """Every text once, in batches of similar length."""
    order = np.argsort(split.lengths.numpy(), kind="stable")
    for start in range(0, len(order), batch_size):
        yield collate(split, order[start : start + batch_size])
