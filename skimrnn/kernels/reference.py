"""The equations of Skim-LSTM and Skim-GRU over a whole sequence, in plain torch: slow, exact, what others are held to.

Symbols of the paper: d = `hidden_size` (D), d' = `small_size` (S), tau = `temperature`, p_t = softmax of the decision.
Index 0 of a decision is "read", index 1 is "skim" (the paper counts from 1). G is the number of a cell's gates.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

State = tuple[Tensor, ...]
"""What a cell carries from token to token, (B, D) each: (h, c) for an LSTM, (h,) for a GRU."""


class CellWeights(NamedTuple):
    """Weights of one cell with n outputs: G = 4 gates for an LSTM, 3 for a GRU, in torch's order."""

    input: Tensor  # (G n, E)
    hidden: Tensor  # (G n, D)
    input_bias: Tensor  # (G n)
    hidden_bias: Tensor  # (G n)


class DecisionWeights(NamedTuple):
    """Weights of the linear layer that decides between reading and skimming."""

    input: Tensor  # (2, E)
    hidden: Tensor  # (2, D)
    input_bias: Tensor  # (2)
    hidden_bias: Tensor  # (2)


class SkimSequence(NamedTuple):
    """What a skimming layer gives for a batch of sequences. Positions past a sequence's length hold zeros."""

    outputs: Tensor  # (T, B, D): h_t
    state: State  # after each sequence's last token
    log_probabilities: Tensor  # (T, B, 2): log p_t, read first
    read: Tensor  # (T, B), bool: the hard decision p_t(read) > threshold


def skim_lstm(
    inputs: Tensor,
    lengths: Tensor,
    state: State,
    big: CellWeights,
    small: CellWeights,
    decision: DecisionWeights,
    *,
    threshold: float = 0.5,
    noise: Tensor | None = None,
    temperature: float = 1.0,
    reverse: bool = False,
) -> SkimSequence:
    """Run a Skim-LSTM over `inputs` (T, B, E), `lengths` (B) tokens of each sequence, from `state` (h, c).

    Without `noise` each decision is hard: the token is read when p_t(read) > `threshold` (or not a number), else
    skimmed. With `noise` (T, B, 2; standard Gumbel) the step is the relaxed one of training: both cells run and their
    states are mixed by r_t = softmax((log p_t + noise_t) / temperature). Skimming keeps h_{t-1}[S:] and c_{t-1}[S:] as
    they are (Eq. 3 and its counterpart for the memory cell). With `reverse` each sequence is read from its last token
    to its first; results stay at their tokens' places. Both cells are computed here for every token; the kernels that
    save time compute only the chosen one.
    """
    sizes = [len(weights.input) for weights in (big, small, decision)]  # 4D, 4S, 2
    small_size = sizes[1] // 4
    weight_input = torch.cat([big.input, small.input, decision.input])  # (4D + 4S + 2, E)
    weight_hidden = torch.cat([big.hidden, small.hidden, decision.hidden]).t()  # (D, 4D + 4S + 2)
    bias = torch.cat([weights.input_bias + weights.hidden_bias for weights in (big, small, decision)])

    def step(projected: Tensor, state: State) -> "tuple[State, State, Tensor]":
        hidden, cell = state
        big_gates, small_gates, logits = torch.addmm(projected, hidden, weight_hidden).split(sizes, dim=1)
        return _lstm_cell(big_gates, cell), _lstm_cell(small_gates, cell[:, :small_size]), logits

    projected = functional.linear(inputs, weight_input, bias)  # (T, B, 4D + 4S + 2)
    return _run(step, projected, lengths, state, threshold, noise, temperature, reverse)


def skim_gru(
    inputs: Tensor,
    lengths: Tensor,
    state: State,
    big: CellWeights,
    small: CellWeights,
    decision: DecisionWeights,
    *,
    threshold: float = 0.5,
    noise: Tensor | None = None,
    temperature: float = 1.0,
    reverse: bool = False,
) -> SkimSequence:
    """Run a Skim-GRU, with the equations of `torch.nn.GRU`, as `skim_lstm` does; `state` is (h,)."""
    sizes = [len(weights.input) for weights in (big, small, decision)]  # 3D, 3S, 2
    small_size = sizes[1] // 3
    weight_input = torch.cat([big.input, small.input, decision.input])  # (3D + 3S + 2, E)
    weight_hidden = torch.cat([big.hidden, small.hidden, decision.hidden])  # (3D + 3S + 2, D)
    input_bias = torch.cat([big.input_bias, small.input_bias, decision.input_bias])
    hidden_bias = torch.cat([big.hidden_bias, small.hidden_bias, decision.hidden_bias])

    def step(projected: Tensor, state: State) -> "tuple[State, State, Tensor]":
        (hidden,) = state
        big_input, small_input, input_logits = projected.split(sizes, dim=1)
        big_hidden, small_hidden, hidden_logits = functional.linear(hidden, weight_hidden, hidden_bias).split(
            sizes, dim=1
        )
        new = _gru_cell(big_input, big_hidden, hidden)
        return new, _gru_cell(small_input, small_hidden, hidden[:, :small_size]), input_logits + hidden_logits

    projected = functional.linear(inputs, weight_input, input_bias)  # (T, B, 3D + 3S + 2)
    return _run(step, projected, lengths, state, threshold, noise, temperature, reverse)


def lstm(
    inputs: Tensor, lengths: Tensor, state: State, weights: CellWeights, *, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Run a plain LSTM over `inputs` (T, B, E): outputs (T, B, D), zero past each length, and the last h (B, D).

    Torch's kernel, which reads the padding, too: in training on the CPU a packed batch takes it three times as long.
    """
    if reverse:
        order = reversal(lengths, len(inputs))
        outputs, last = lstm(reorder(inputs, order), lengths, state, weights)
        return reorder(outputs, order), last
    hidden, cell = state
    training = torch.is_grad_enabled()
    outputs = torch.lstm(inputs, (hidden[None], cell[None]), list(weights), True, 1, 0.0, training, False, False)[0]
    valid = torch.arange(len(inputs), device=inputs.device)[:, None] < lengths[None, :]  # (T, B)
    last = outputs[lengths - 1, torch.arange(inputs.shape[1], device=inputs.device)]
    return outputs.masked_fill(~valid[..., None], 0.0), last


def _run(
    step: Callable[[Tensor, State], tuple[State, State, Tensor]],
    projected: Tensor,
    lengths: Tensor,
    state: State,
    threshold: float,
    noise: Tensor | None,
    temperature: float,
    reverse: bool,
) -> SkimSequence:
    """Decide and mix at each token; `step` gives the big state, the small one (B, S each) and the logits (B, 2)."""
    if reverse:
        order = reversal(lengths, len(projected))
        projected = reorder(projected, order)
        noise = None if noise is None else reorder(noise, order)
        return in_order(_run(step, projected, lengths, state, threshold, noise, temperature, False), order)
    limit = as_tensor(threshold, projected).log()  # Probabilities themselves may be too small for 0.
    states, log_probabilities, reads = [], [], []
    for position, projected_step in enumerate(projected.unbind()):
        read_state, small_state, logits = step(projected_step, state)
        log_p = functional.log_softmax(logits, dim=1)  # (B, 2)
        read = ~(log_p[:, :1] <= limit)  # (B, 1); NaN is read, and so spreads as in a plain layer.
        skim_state = [
            torch.cat([new, old[:, new.shape[1] :]], dim=1) for new, old in zip(small_state, state, strict=True)
        ]
        pairs = zip(read_state, skim_state, strict=True)
        if noise is None:
            state = tuple(torch.where(read, *pair) for pair in pairs)
        else:
            read_share = torch.softmax((log_p + noise[position]) / temperature, dim=1)[:, :1]  # (B, 1): r_t(read)
            state = tuple(torch.lerp(skimmed, fully_read, read_share) for fully_read, skimmed in pairs)
        states.append(state)
        log_probabilities.append(log_p)
        reads.append(read[:, 0])
    # What the loop did past a sequence's end is dropped here; it cannot reach back into real tokens.
    valid = torch.arange(len(projected), device=projected.device)[:, None] < lengths[None, :]  # (T, B)
    history = [torch.stack(values) for values in zip(*states, strict=True)]  # (T, B, D) each
    last = (lengths - 1, torch.arange(projected.shape[1], device=projected.device))
    return SkimSequence(
        history[0].masked_fill(~valid[..., None], 0.0),
        tuple(values[last] for values in history),
        torch.stack(log_probabilities).masked_fill(~valid[..., None], 0.0),
        torch.stack(reads) & valid,
    )


def margin_at(threshold: float) -> float:
    """The logit of reading less that of skimming at which p(read) is `threshold`; beyond all others at 0 and at 1."""
    if threshold <= 0:
        return -math.inf
    return math.inf if threshold >= 1 else math.log(threshold / (1 - threshold))


def as_tensor(number: float, like: Tensor) -> Tensor:
    """A setting of a layer as a 0-d tensor on another's device: with a float, `torch.compile` compiles for each anew.

    Of what makes a tensor of a number, arithmetic alone is compiled once for all numbers.
    """
    return like.new_ones((), dtype=torch.float64) * number


def reversal(lengths: Tensor, steps: int) -> Tensor:
    """For each position (T, B) the one that swaps with it when the real tokens are read backwards."""
    position = torch.arange(steps, device=lengths.device)[:, None]
    return torch.where(position < lengths, lengths - 1 - position, position)


def reorder(values: Tensor, order: Tensor) -> Tensor:
    """Values (T, B, ...) in an order (T, B) of the positions of each sequence."""
    return values[order, torch.arange(order.shape[1], device=order.device)]


def in_order(sequence: SkimSequence, order: Tensor) -> SkimSequence:
    """What a layer gave for tokens in an order (T, B), put at the tokens' places by the order that undoes it."""
    outputs, state, log_p, read = sequence
    return SkimSequence(reorder(outputs, order), state, reorder(log_p, order), reorder(read, order))


def _lstm_cell(gates: Tensor, cell: Tensor) -> State:
    """One LSTM update from gate pre-activations (B, 4n) and the memory cell (B, n): the new (h, c)."""
    input_gate, forget_gate, candidate, output_gate = gates.chunk(4, dim=1)
    new_cell = torch.sigmoid(forget_gate) * cell + torch.sigmoid(input_gate) * torch.tanh(candidate)
    return torch.sigmoid(output_gate) * torch.tanh(new_cell), new_cell


def _gru_cell(input_gates: Tensor, hidden_gates: Tensor, hidden: Tensor) -> State:
    """One GRU update from the two sides' pre-activations (B, 3n) and the old state (B, n): the new (h,)."""
    reset_input, update_input, new_input = input_gates.chunk(3, dim=1)
    reset_hidden, update_hidden, new_hidden = hidden_gates.chunk(3, dim=1)
    reset = torch.sigmoid(reset_input + reset_hidden)
    update = torch.sigmoid(update_input + update_hidden)
    new = torch.tanh(new_input + reset * new_hidden)
    return (new + update * (hidden - new),)
