"""Reversing single decisions: the same as copying the other cell's state there by hand, and nothing else changes."""

import pytest
import torch

from skimrnn.analysis.forced import ForcedSkimLSTM
from skimrnn.layers import SkimLSTM


@pytest.mark.parametrize("small_size", [0, 3])
def test_a_forced_token_takes_the_other_cell_and_the_rest_decides_as_learned(seed: int, small_size: int):
    layer = SkimLSTM(5, 8, small_size=small_size).eval()
    forced = ForcedSkimLSTM.of(layer)
    inputs = torch.randn(9, 1, 5) * 4
    with torch.no_grad():
        _, _, decisions = layer(inputs, return_decisions=True)
        for token in range(9):
            way = -1 if decisions.read[0, token, 0] else 1
            forced.force = torch.zeros(1, 9, 1)
            forced.force[0, token] = way
            outputs, _, found = forced(inputs, return_decisions=True)
            # By hand: the token alone is given a threshold that leaves no choice.
            state = None
            expected, read = [], []
            for start, stop, threshold in ((0, token, 0.5), (token, token + 1, (1 - way) / 2), (token + 1, 9, 0.5)):
                if start < stop:
                    layer.threshold = threshold
                    part, state, part_decisions = layer(inputs[start:stop], state, return_decisions=True)
                    expected.append(part)
                    read.append(part_decisions.read[0])
            layer.threshold = 0.5
            torch.testing.assert_close(outputs, torch.cat(expected), rtol=1e-5, atol=1e-5)
            assert torch.equal(found.read[0], torch.cat(read))


def test_without_force_nothing_changes_in_any_layer_or_direction(seed: int):
    layer = SkimLSTM(5, 8, 2, small_size=3, bidirectional=True).eval()
    forced = ForcedSkimLSTM.of(layer)
    inputs = torch.randn(7, 3, 5) * 4
    with torch.no_grad():
        expected = layer(inputs, return_decisions=True)
        forced.force = torch.zeros(4, 7, 3)
        found = forced(inputs, return_decisions=True)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(found[2].read, expected[2].read)


def test_each_token_of_each_sequence_is_read_or_skimmed_as_told(seed: int):
    forced = ForcedSkimLSTM.of(SkimLSTM(5, 8, 2, small_size=3, bidirectional=True).eval())
    forced.force = torch.randint(0, 2, (4, 7, 3)) * 2.0 - 1
    lengths = torch.tensor([7, 4, 1])
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(7, 3, 5), lengths)
    with torch.no_grad():
        _, _, decisions = forced(packed, return_decisions=True)
    real = torch.arange(7)[:, None] < lengths
    assert torch.equal(decisions.read, (forced.force > 0) & real)


def test_sequences_of_other_lengths_are_left_to_the_model(seed: int):
    layer = SkimLSTM(5, 8, small_size=3).eval()
    forced = ForcedSkimLSTM.of(layer)
    forced.force, forced.texts = torch.ones(1, 7, 2), torch.tensor([7, 4])
    for lengths in ([7, 4], [7, 5], [3, 2]):
        inputs = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(max(lengths), 2, 5) * 4, torch.tensor(lengths))
        with torch.no_grad():
            read = forced(inputs, return_decisions=True)[2].read
            as_learned = layer(inputs, return_decisions=True)[2].read
        real = torch.arange(max(lengths))[:, None] < torch.tensor(lengths)
        assert torch.equal(read[0], real if lengths == [7, 4] else as_learned[0])
