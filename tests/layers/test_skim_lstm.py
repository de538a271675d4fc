"""The layer: torch's shapes, packed and padded input, training against evaluation, the skim loss."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skimrnn import SkimLSTM

T, B, E, D, S = 7, 4, 5, 8, 3
LENGTHS = torch.tensor([3, 7, 1, 5])


@pytest.fixture
def layer() -> SkimLSTM:
    torch.manual_seed(0)
    return SkimLSTM(E, D, small_size=S).eval()


def test_shapes_are_those_of_torchs_lstm(layer: SkimLSTM) -> None:
    inputs, state = torch.randn(T, B, E), (torch.randn(1, B, D), torch.randn(1, B, D))
    ours, (h, c), decisions = layer(inputs, state, return_decisions=True)
    expected, (expected_h, expected_c) = nn.LSTM(E, D)(inputs, state)
    assert (ours.shape, h.shape, c.shape) == (expected.shape, expected_h.shape, expected_c.shape)
    assert decisions.log_probabilities.shape == (1, T, B, 2)
    assert decisions.read.shape == (1, T, B)


def test_packed_input_equals_padded_input(layer: SkimLSTM) -> None:
    inputs = torch.randn(T, B, E)
    output, (h, c), decisions = layer(
        pack_padded_sequence(inputs, LENGTHS, enforce_sorted=False), return_decisions=True
    )
    unpacked, lengths = pad_packed_sequence(output)
    assert torch.equal(lengths, LENGTHS)
    for b, length in enumerate(LENGTHS):
        alone, (alone_h, alone_c), alone_decisions = layer(inputs[:length, b : b + 1], return_decisions=True)
        torch.testing.assert_close(unpacked[:length, b], alone[:, 0], rtol=0, atol=1e-6)
        torch.testing.assert_close(h[0, b], alone_h[0, 0], rtol=0, atol=1e-6)
        torch.testing.assert_close(c[0, b], alone_c[0, 0], rtol=0, atol=1e-6)
        assert torch.equal(decisions.read[:, :length, b], alone_decisions.read[:, :, 0])


def test_evaluation_is_deterministic_and_training_draws(layer: SkimLSTM) -> None:
    inputs = torch.randn(T, B, E)
    assert torch.equal(layer(inputs)[0], layer(inputs)[0])
    layer.train()
    assert not torch.equal(layer(inputs)[0], layer(inputs)[0])


def test_gumbel_noise_samples_the_probabilities() -> None:
    """argmax of log p + noise is a sample of p: at a low temperature the share of reads is p(read)."""
    torch.manual_seed(1)
    layer = SkimLSTM(1, 4, small_size=0)
    layer.temperature = 1e-4
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.decision_bias_ih_l0.copy_(torch.tensor([0.3, 0.7]).log())
        layer.bias_ih_l0[8:12] = 5.0  # The candidate: a read changes the state, a skip leaves zeros.
    outputs, _ = layer(torch.zeros(1, 20_000, 1))
    share = float((outputs[0, :, 0] > 0.01).double().mean())
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / 20_000) ** 0.5


def test_threshold_moves_without_training(layer: SkimLSTM) -> None:
    inputs = torch.randn(T, B, E)
    reads = []
    for threshold in (0.0, 0.4, 0.5, 0.6, 1.0):
        layer.threshold = threshold
        reads.append(int(layer(inputs, return_decisions=True)[2].read.sum()))
    assert reads[0] == T * B
    assert reads[-1] == 0
    assert len(set(reads)) > 2


def test_skim_loss_is_the_mean_over_real_tokens(layer: SkimLSTM) -> None:
    inputs = torch.randn(T, B, E)
    packed = pack_padded_sequence(inputs, LENGTHS, enforce_sorted=False)
    decisions = layer(packed, return_decisions=True)[2]
    by_hand = [
        sum(-decisions.log_probabilities[0, t, b, 1].item() for t in range(length)) / int(length)
        for b, length in enumerate(LENGTHS)
    ]
    assert float(decisions.skim_loss()) == pytest.approx(sum(by_hand) / B, rel=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_skim_rate_is_the_share_of_real_tokens(bidirectional: bool) -> None:
    layer = SkimLSTM(E, D, small_size=S, bidirectional=bidirectional).eval()
    packed = pack_padded_sequence(torch.randn(T, B, E), LENGTHS, enforce_sorted=False)
    decisions = layer(packed, return_decisions=True)[2]
    skimmed = [not r for read in decisions.read for b, length in enumerate(LENGTHS) for r in read[:length, b].tolist()]
    assert 0 < sum(skimmed) < len(skimmed)
    assert float(decisions.skim_rate()) == pytest.approx(sum(skimmed) / len(skimmed), rel=1e-6)
    alone = layer(torch.randn(T, E), return_decisions=True)[2]
    assert float(alone.skim_rate()) == pytest.approx(1 - alone.read.double().mean().item(), rel=1e-6)


def test_policy_learns_from_the_task_alone(layer: SkimLSTM) -> None:
    layer.train()
    layer(torch.randn(T, B, E))[1][0].sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("small_size", [-1, D + 1])
def test_small_size_out_of_range_is_refused(small_size: int) -> None:
    with pytest.raises(ValueError, match="small_size must lie between 0 and hidden_size"):
        SkimLSTM(E, D, small_size=small_size)
