"""The reference against torch's own LSTM and against the equations, one property a test."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from skimrnn.kernels.reference import CellWeights, DecisionWeights, SkimSequence, skim_lstm

T, B, E, D, S = 9, 5, 6, 8, 3


def problem(seed: int, small_size: int = S, dtype: torch.dtype = torch.float64):
    """Random inputs (T, B, E), ragged lengths, a nonzero state and weights."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype) * 0.7

    lengths = torch.tensor([T, 1, 4, T - 1, 6])
    big = CellWeights(draw(4 * D, E), draw(4 * D, D), draw(4 * D), draw(4 * D))
    small = CellWeights(*(draw(4 * small_size, *width) for width in ((E,), (D,), (), ())))
    decision = DecisionWeights(draw(2, E), draw(2, D), draw(2), draw(2))
    return draw(T, B, E), lengths, (draw(B, D), draw(B, D)), big, small, decision


def assert_same(left: SkimSequence, right: SkimSequence, tolerance: float = 0.0) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", [0, 1])
def test_reading_everything_is_torchs_lstm(seed: int) -> None:
    inputs, lengths, state, big, small, decision = problem(seed)
    lstm = nn.LSTM(E, D).double()
    with torch.no_grad():
        for name, value in zip(lstm.state_dict(), big, strict=True):
            getattr(lstm, name).copy_(value)
    packed = pack_padded_sequence(inputs, lengths, enforce_sorted=False)
    expected, (hidden, cell) = lstm(packed, (state[0][None], state[1][None]))
    expected, _ = nn.utils.rnn.pad_packed_sequence(expected)
    ours = skim_lstm(inputs, lengths, state, big, small, decision, threshold=0.0)
    torch.testing.assert_close(ours.outputs, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(ours.state[0], hidden[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(ours.state[1], cell[0], rtol=0, atol=1e-14)
    assert int(ours.read.sum()) == int(lengths.sum())


def test_skimming_everything_leaves_the_rest_of_the_state_bit_equal() -> None:
    inputs, lengths, state, big, small, decision = problem(2, dtype=torch.float32)
    ours = skim_lstm(inputs, lengths, state, big, small, decision, threshold=1.0)
    assert torch.equal(ours.state[0][:, S:], state[0][:, S:])
    assert torch.equal(ours.state[1][:, S:], state[1][:, S:])
    assert not torch.equal(ours.state[0][:, :S], state[0][:, :S])
    assert not ours.read.any()


def test_a_skimmed_step_runs_the_small_cell_on_the_whole_state() -> None:
    inputs, _, state, big, small, decision = problem(3)
    ours = skim_lstm(inputs[:1], torch.ones(B, dtype=torch.int64), state, big, small, decision, threshold=1.0)
    gates = inputs[0] @ small.input.T + state[0] @ small.hidden.T + small.input_bias + small.hidden_bias
    i, f, g, o = gates[:, :S], gates[:, S : 2 * S], gates[:, 2 * S : 3 * S], gates[:, 3 * S :]
    cell = f.sigmoid() * state[1][:, :S] + i.sigmoid() * g.tanh()
    torch.testing.assert_close(ours.state[1][:, :S], cell, rtol=0, atol=1e-14)
    torch.testing.assert_close(ours.state[0][:, :S], o.sigmoid() * cell.tanh(), rtol=0, atol=1e-14)


def test_small_size_zero_skips() -> None:
    inputs, lengths, state, big, small, decision = problem(4, small_size=0)
    ours = skim_lstm(inputs, lengths, state, big, small, decision, threshold=1.0)
    assert torch.equal(ours.state[0], state[0])
    assert torch.equal(ours.state[1], state[1])


def test_the_decision_looks_at_the_token_and_the_state_before_it() -> None:
    inputs, _, state, big, small, decision = problem(5)
    ours = skim_lstm(inputs[:2], torch.full((B,), 2), state, big, small, decision)
    for step, hidden in enumerate((state[0], ours.outputs[0])):
        logits = torch.cat([inputs[step], hidden], 1) @ torch.cat([decision.input, decision.hidden], 1).T
        expected = torch.log_softmax(logits + decision.input_bias + decision.hidden_bias, dim=1)
        torch.testing.assert_close(ours.log_probabilities[step], expected, rtol=0, atol=1e-14)
        assert torch.equal(ours.read[step], expected[:, 0].exp() > 0.5)


def test_each_step_takes_the_cell_that_was_decided_on() -> None:
    inputs, lengths, state, big, small, decision = problem(6)
    ours = skim_lstm(inputs, lengths, state, big, small, decision)
    assert ours.read.any()
    assert not ours.read.all()
    hidden, cell = state
    for step in range(T):
        threshold = torch.where(ours.read[step], 0.0, 1.0)
        one_by_one = [
            skim_lstm(
                inputs[step : step + 1, b : b + 1],
                torch.ones(1, dtype=torch.int64),
                (hidden[b : b + 1], cell[b : b + 1]),
                big,
                small,
                decision,
                threshold=float(threshold[b]),
            )
            for b in range(B)
        ]
        running = step < lengths[:, None]
        hidden = torch.where(running, torch.cat([one.state[0] for one in one_by_one]), hidden)
        cell = torch.where(running, torch.cat([one.state[1] for one in one_by_one]), cell)
    torch.testing.assert_close(ours.state[0], hidden, rtol=0, atol=1e-14)
    torch.testing.assert_close(ours.state[1], cell, rtol=0, atol=1e-14)


@pytest.mark.parametrize("relaxed", [False, True])
def test_batched_equals_one_by_one_and_padding_changes_nothing(relaxed: bool) -> None:
    inputs, lengths, state, big, small, decision = problem(7)
    noise = torch.randn(T, B, 2, dtype=torch.float64) if relaxed else None
    poisoned = inputs.clone()
    for b, length in enumerate(lengths):
        poisoned[length:, b] = 1e3
    batched = skim_lstm(poisoned, lengths, state, big, small, decision, noise=noise, temperature=0.7)
    for b, length in enumerate(lengths):
        alone = skim_lstm(
            inputs[:length, b : b + 1],
            length[None],
            (state[0][b : b + 1], state[1][b : b + 1]),
            big,
            small,
            decision,
            noise=None if noise is None else noise[:length, b : b + 1],
            temperature=0.7,
        )
        torch.testing.assert_close(batched.outputs[:length, b], alone.outputs[:, 0], rtol=0, atol=1e-14)
        torch.testing.assert_close(batched.state[0][b], alone.state[0][0], rtol=0, atol=1e-14)
        torch.testing.assert_close(batched.state[1][b], alone.state[1][0], rtol=0, atol=1e-14)
        assert torch.equal(batched.read[:length, b], alone.read[:, 0])
        for padding in (batched.outputs, batched.log_probabilities, batched.read):
            assert not padding[length:, b].any()


def test_noise_that_settles_each_choice_gives_the_hard_steps() -> None:
    inputs, lengths, state, big, small, decision = problem(8)
    hard = skim_lstm(inputs, lengths, state, big, small, decision)
    certain = torch.where(hard.read[..., None], torch.tensor([1e4, -1e4]), torch.tensor([-1e4, 1e4])).double()
    relaxed = skim_lstm(inputs, lengths, state, big, small, decision, noise=certain)
    assert_same(relaxed, hard, tolerance=1e-14)


def test_the_relaxed_step_mixes_both_states_by_the_gumbel_softmax() -> None:
    inputs, _, state, big, small, decision = problem(9)
    one, tau = torch.ones(B, dtype=torch.int64), 0.6
    noise = torch.randn(1, B, 2, dtype=torch.float64)
    ours = skim_lstm(inputs[:1], one, state, big, small, decision, noise=noise, temperature=tau)
    read = skim_lstm(inputs[:1], one, state, big, small, decision, threshold=0.0)
    skim = skim_lstm(inputs[:1], one, state, big, small, decision, threshold=1.0)
    scores = ((read.log_probabilities[0] + noise[0]) / tau).exp()
    share = (scores / scores.sum(dim=1, keepdim=True))[:, :1]
    torch.testing.assert_close(ours.state[0], share * read.state[0] + (1 - share) * skim.state[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(ours.state[1], share * read.state[1] + (1 - share) * skim.state[1], rtol=0, atol=1e-14)


def test_gradients_of_the_relaxed_model() -> None:
    """Every gradient, the policy's among them, against finite differences."""
    inputs, lengths, state, big, small, decision = problem(10)
    noise = torch.randn(T, B, 2, dtype=torch.float64)
    tensors = [inputs, *state, *big, *small, *decision]

    def run(*values: Tensor):
        x, h, c, *rest = (value for value in values)
        sequence = skim_lstm(
            x,
            lengths,
            (h, c),
            CellWeights(*rest[:4]),
            CellWeights(*rest[4:8]),
            DecisionWeights(*rest[8:]),
            noise=noise,
            temperature=0.8,
        )
        return sequence.outputs, *sequence.state, sequence.log_probabilities

    leaves = [tensor.requires_grad_() for tensor in tensors]
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
    run(*leaves)[1].sum().backward()
    for tensor in decision:
        assert tensor.grad is not None
        assert tensor.grad.abs().max() > 1e-3
