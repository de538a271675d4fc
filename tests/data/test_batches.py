from itertools import pairwise

import numpy as np
import pytest
import torch

from skimrnn.data.batches import _EVALUATION_TOKENS, collate, evaluation_batches, evaluation_rows, training_rows
from skimrnn.data.prepare import PADDING, Prepared


def test_an_epoch_holds_each_row_once_and_depends_on_seed_and_epoch_alone(prepared: Prepared) -> None:
    split = prepared.split("train")
    rows = training_rows(split, 32, seed=3, epoch=2)
    assert sorted(np.concatenate(rows)) == list(range(len(split)))
    again = training_rows(split, 32, seed=3, epoch=2)
    assert all(np.array_equal(a, b) for a, b in zip(rows, again, strict=True))
    for other in (training_rows(split, 32, seed=4, epoch=2), training_rows(split, 32, seed=3, epoch=3)):
        assert not np.array_equal(np.concatenate(rows), np.concatenate(other))


def test_batches_hold_texts_of_similar_length(prepared: Prepared) -> None:
    split = prepared.split("train")
    lengths = split.lengths.numpy()
    waste = [lengths[rows].max() / lengths[rows].mean() for rows in training_rows(split, 32, seed=0, epoch=0)]
    random = np.random.default_rng(0).permutation(len(split))[: 32 * 40].reshape(40, 32)
    assert np.mean(waste) < 1.1 < np.mean([lengths[rows].max() / lengths[rows].mean() for rows in random])


def test_collated_rows_are_the_texts(prepared: Prepared) -> None:
    split = prepared.split("validation")
    rows = np.array([5, 0, 17])
    batch = collate(split, rows)
    for place, row in enumerate(rows):
        text = split.tokens[split.offsets[row] : split.offsets[row + 1]]
        assert torch.equal(batch.tokens[place, : batch.lengths[place]], text.long())
        assert (batch.tokens[place, batch.lengths[place] :] == PADDING).all()
    assert torch.equal(batch.labels, split.labels[rows])


def test_evaluation_sees_each_text_once(prepared: Prepared) -> None:
    split = prepared.split("test")
    seen = [
        (text[:length].tolist(), label)
        for batch in evaluation_batches(split, 64)
        for text, length, label in zip(batch.tokens, batch.lengths, batch.labels.tolist(), strict=True)
    ]
    texts = split.tokens.split(split.lengths.tolist())
    labels = split.labels.tolist()
    assert sorted(seen) == sorted((text.tolist(), label) for text, label in zip(texts, labels, strict=True))


@pytest.mark.parametrize("longest", [30, 900, 3 * _EVALUATION_TOKENS])
def test_evaluation_rows_are_each_there_once_in_full_batches_within_the_bound(longest: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    for number in (0, 1, 2, *random.integers(3, 3_000, 20)):
        lengths = random.integers(1, longest, number, endpoint=True)
        batches = list(evaluation_rows(lengths))
        assert sorted(row for rows in batches for row in rows) == list(range(number))
        for rows in batches:
            cost = lengths[rows].max()  # Of each row, padded.
            assert len(rows) == 1 or len(rows) * cost <= _EVALUATION_TOKENS
            assert rows is batches[-1] or (len(rows) + 1) * cost > _EVALUATION_TOKENS
        for longer, shorter in pairwise(batches):
            assert lengths[longer].min() >= lengths[shorter].max()
