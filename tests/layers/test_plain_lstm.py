"""`padded_lstm` gives what `nn.LSTM` gives for a packed batch, gradients included."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skimrnn.layers.plain_lstm import padded_lstm


@pytest.mark.parametrize(("layers", "bidirectional", "bias"), [(1, False, True), (2, True, True), (3, True, False)])
def test_outputs_and_gradients_are_those_of_a_packed_batch(
    layers: int, bidirectional: bool, bias: bool, seed: int
) -> None:
    lstm = nn.LSTM(5, 4, layers, bias=bias, bidirectional=bidirectional)
    lengths = torch.tensor([7, 1, 4])
    upstream = torch.randn(7, 3, 8 if bidirectional else 4)
    upstream[torch.arange(7)[:, None] >= lengths] = 0
    results = []
    for packed in (True, False):
        inputs = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        if packed:
            outputs = pad_packed_sequence(lstm(pack_padded_sequence(inputs, lengths, enforce_sorted=False))[0])[0]
        else:
            outputs = padded_lstm(lstm, inputs, lengths)
        gradients = torch.autograd.grad((outputs * upstream).sum(), [inputs, *lstm.parameters()])
        results.append([outputs * (upstream != 0), *gradients])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_dropout_acts_between_layers_in_training_alone(seed: int) -> None:
    lstm = nn.LSTM(5, 4, 2, dropout=0.5, bidirectional=True)
    inputs, lengths = torch.randn(6, 2, 5), torch.tensor([6, 6])
    assert not torch.equal(padded_lstm(lstm, inputs, lengths), padded_lstm(lstm, inputs, lengths))
    lstm.eval()
    torch.testing.assert_close(padded_lstm(lstm, inputs, lengths), lstm(inputs)[0])
