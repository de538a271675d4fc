"""The reference against torch's layers and finite differences."""

import pytest
import torch
from torch import nn

from skimrnn.kernels import reference
from tests.parity.cases import CELLS, SIZES, error, make_case, values


@pytest.mark.parametrize("relaxed", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_gradcheck(cell, relaxed, seed):
    case = make_case(cell, (3, 4, 2, 3, 2)).to(torch.float64, requires_grad=True)

    def function(*leaves):
        case.inputs, case.state, case.weights = leaves[0], leaves[1 : len(leaves) - 12], list(leaves[-12:])
        return tuple(values(case.run(reference, noise=case.noise if relaxed else None, temperature=0.8)))

    assert torch.autograd.gradcheck(function, case.leaves())


@pytest.mark.parametrize("sizes", SIZES[:2])
@pytest.mark.parametrize("cell", CELLS)
def test_reading_all_is_torchs_layer(cell, sizes, seed):
    case = make_case(cell, sizes)
    layer = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](sizes[0], sizes[1]).double()
    layer.load_state_dict(dict(zip(layer.state_dict(), case.weights[:4], strict=True)))
    packed = nn.utils.rnn.pack_padded_sequence(case.inputs, case.lengths, enforce_sorted=False)
    state = tuple(s[None] for s in case.state)
    output, last = layer(packed, state if cell == "lstm" else state[0])
    output, _ = nn.utils.rnn.pad_packed_sequence(output)
    sequence = case.run(reference, threshold=0.0)
    assert sequence.read.sum() == case.lengths.sum()
    assert error(sequence.outputs, output) < 1e-12
    for actual, expected in zip(sequence.state, last if cell == "lstm" else (last,), strict=True):
        assert error(actual, expected[0]) < 1e-12


@pytest.mark.parametrize("cell", CELLS)
def test_in_reverse_each_sequence_is_read_from_its_end(cell, seed):
    case = make_case(cell, SIZES[0])
    backwards = case.run(reference, noise=case.noise, temperature=0.7, reverse=True)
    inputs, noise, lengths, state = case.inputs, case.noise, case.lengths, case.state
    for n, length in enumerate(lengths.tolist()):
        own = slice(length), slice(n, n + 1)
        case.inputs, case.lengths = inputs[own].flip(0), lengths[n : n + 1]
        case.state = tuple(s[n : n + 1] for s in state)
        alone = case.run(reference, noise=noise[own].flip(0), temperature=0.7)
        assert torch.equal(backwards.read[own], alone.read.flip(0))
        assert error(backwards.outputs[own], alone.outputs.flip(0)) < 1e-12
        assert error(backwards.log_probabilities[own], alone.log_probabilities.flip(0)) < 1e-12
        assert not backwards.outputs[length:, n].any()
        assert all(error(a[n], b[0]) < 1e-12 for a, b in zip(backwards.state, alone.state, strict=True))
