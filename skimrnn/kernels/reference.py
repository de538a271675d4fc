"""The Skim-LSTM's equations over a whole sequence, in plain torch: slow, exact, and what faster kernels are held to.

Symbols of the paper: d = `hidden_size` (D), d' = `small_size` (S), tau = `temperature`, p_t = softmax of the decision.
Index 0 of a decision is "read", index 1 is "skim" (the paper counts from 1).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class CellWeights(NamedTuple):
    """Weights of one LSTM cell with n outputs, gates in torch's order (input, forget, candidate, output)."""

    input: Tensor  # (4n, E)
    hidden: Tensor  # (4n, D)
    bias: Tensor  # (4n)


class DecisionWeights(NamedTuple):
    """Weights of the linear layer that decides between reading and skimming."""

    input: Tensor  # (2, E)
    hidden: Tensor  # (2, D)
    bias: Tensor  # (2)


class SkimSequence(NamedTuple):
    """What a Skim-LSTM gives for a batch of sequences. Positions past a sequence's length hold zeros."""

    outputs: Tensor  # (T, B, D): h_t
    hidden: Tensor  # (B, D): h after each sequence's last token
    cell: Tensor  # (B, D): c after each sequence's last token
    log_probabilities: Tensor  # (T, B, 2): log p_t, read first
    read: Tensor  # (T, B), bool: the hard decision p_t(read) > threshold


def skim_lstm(
    inputs: Tensor,
    lengths: Tensor,
    state: tuple[Tensor, Tensor],
    big: CellWeights,
    small: CellWeights,
    decision: DecisionWeights,
    *,
    threshold: float = 0.5,
    noise: Tensor | None = None,
    temperature: float = 1.0,
) -> SkimSequence:
    """Run a Skim-LSTM over `inputs` (T, B, E), `lengths` (B) tokens of each sequence, from `state` (h, c; B, D each).

    Without `noise` each decision is hard: the token is read when p_t(read) > `threshold`, else skimmed. With `noise`
    (T, B, 2; standard Gumbel) the step is the relaxed one of training: both cells run and their states are mixed by
    r_t = softmax((log p_t + noise_t) / temperature). Skimming keeps h_{t-1}[S:] and c_{t-1}[S:] as
    they are (Eq. 3 and its counterpart for the memory cell). Both cells are computed here for every token; the
    kernels that save time compute only the chosen one.
    """
    hidden, cell = state
    sizes = [big.bias.shape[0], small.bias.shape[0], 2]  # 4D, 4S, 2
    small_size = sizes[1] // 4
    weight_input = torch.cat([big.input, small.input, decision.input])  # (4D + 4S + 2, E)
    weight_hidden = torch.cat([big.hidden, small.hidden, decision.hidden]).t()  # (D, 4D + 4S + 2)
    projected = functional.linear(inputs, weight_input, torch.cat([big.bias, small.bias, decision.bias]))
    hiddens, cells, log_probabilities, reads = [], [], [], []
    for step, projected_step in enumerate(projected.unbind()):
        gates = torch.addmm(projected_step, hidden, weight_hidden)  # (B, 4D + 4S + 2)
        big_gates, small_gates, logits = gates.split(sizes, dim=1)
        log_p = functional.log_softmax(logits, dim=1)  # (B, 2)
        read = log_p[:, :1].exp() > threshold  # (B, 1)
        read_state = _lstm_cell(big_gates, cell)
        small_state = _lstm_cell(small_gates, cell[:, :small_size])
        skim_state = [
            torch.cat([new, old[:, small_size:]], dim=1) for new, old in zip(small_state, (hidden, cell), strict=True)
        ]
        if noise is None:
            hidden, cell = (torch.where(read, *states) for states in zip(read_state, skim_state, strict=True))
        else:
            read_share = torch.softmax((log_p + noise[step]) / temperature, dim=1)[:, :1]  # (B, 1): r_t(read)
            hidden, cell = (torch.lerp(s, r, read_share) for r, s in zip(read_state, skim_state, strict=True))
        hiddens.append(hidden)
        cells.append(cell)
        log_probabilities.append(log_p)
        reads.append(read[:, 0])
    # What the loop did past a sequence's end is dropped here; it cannot reach back into real tokens.
    valid = torch.arange(inputs.shape[0], device=inputs.device)[:, None] < lengths[None, :]  # (T, B)
    outputs = torch.stack(hiddens)  # (T, B, D)
    last = (lengths - 1, torch.arange(inputs.shape[1], device=inputs.device))
    return SkimSequence(
        outputs.masked_fill(~valid[..., None], 0.0),
        outputs[last],
        torch.stack(cells)[last],
        torch.stack(log_probabilities).masked_fill(~valid[..., None], 0.0),
        torch.stack(reads) & valid,
    )


def _lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One LSTM update from gate pre-activations (B, 4n) and the memory cell (B, n): the new (h, c)."""
    input_gate, forget_gate, candidate, output_gate = gates.chunk(4, dim=1)
    new_cell = torch.sigmoid(forget_gate) * cell + torch.sigmoid(input_gate) * torch.tanh(candidate)
    return torch.sigmoid(output_gate) * torch.tanh(new_cell), new_cell
