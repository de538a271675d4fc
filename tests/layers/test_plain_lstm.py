"""`padded_lstm` gives what `nn.LSTM` gives for a packed batch, gradients included."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skimrnn import kernels
from skimrnn.layers.plain_lstm import padded_lstm


@pytest.mark.parametrize("kernel", ["cpu", "reference"])
@pytest.mark.parametrize(("layers", "bidirectional", "bias"), [(1, False, True), (2, True, True), (3, True, False)])
def test_outputs_and_gradients_are_those_of_a_packed_batch(
    layers: int, bidirectional: bool, bias: bool, kernel: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel == "cpu" and kernels.KERNEL != "cpu":
        pytest.skip("the compiled kernels are not in use")
    monkeypatch.setattr(kernels, "KERNEL", kernel)
    lstm = nn.LSTM(5, 4, layers, bias=bias, bidirectional=bidirectional)
    lengths = torch.tensor([7, 1, 4])
    width = 8 if bidirectional else 4
    upstream, upstream_last = torch.randn(7, 3, width), torch.randn(3, width)
    results = []
    for packed in (True, False):
        inputs = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        if packed:
            outputs, (hidden, _) = lstm(pack_padded_sequence(inputs, lengths, enforce_sorted=False))
            outputs, last = (
                pad_packed_sequence(outputs)[0],
                hidden.unflatten(0, (layers, -1))[-1].transpose(0, 1).flatten(1),
            )
        else:
            outputs, last = padded_lstm(lstm, inputs, lengths)
        loss = (outputs * upstream).sum() + (last * upstream_last).sum()
        results.append([outputs, last, *torch.autograd.grad(loss, [inputs, *lstm.parameters()])])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_dropout_acts_between_layers_in_training_alone(seed: int) -> None:
    lstm = nn.LSTM(5, 4, 2, dropout=0.5, bidirectional=True)
    inputs, lengths = torch.randn(6, 2, 5), torch.tensor([6, 6])
    assert not torch.equal(padded_lstm(lstm, inputs, lengths)[0], padded_lstm(lstm, inputs, lengths)[0])
    lstm.eval()
    torch.testing.assert_close(padded_lstm(lstm, inputs, lengths)[0], lstm(inputs)[0])
