"""Skim-LSTM: an LSTM that decides at each token whether to read it or to skim it."""

import math
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from skimrnn.kernels.reference import CellWeights, DecisionWeights, skim_lstm

State = tuple[Tensor, Tensor]


class Decisions(NamedTuple):
    """The decisions of one layer about a batch. Positions past a sequence's length are zero and False."""

    log_probabilities: Tensor  # (T, B, 2): log p_t, read first
    read: Tensor  # (T, B), bool: p_t(read) > threshold
    lengths: Tensor  # (B), int64: real tokens of each sequence

    def skim_loss(self) -> Tensor:
        """Mean over sequences of (1/T) sum_t -log p_t(skim) over their T real tokens (the skim term of the loss)."""
        return (-self.log_probabilities[..., 1].sum(dim=0) / self.lengths).mean()


class SkimLSTM(nn.Module):
    """One layer of Skim-LSTM, called like `torch.nn.LSTM` with `batch_first=False`.

    The input is a padded batch (T, B, `input_size`) or a `PackedSequence`; the result is `(output, (h_n, c_n))` in
    torch's shapes. In training mode each step is the Gumbel-softmax relaxation at `temperature` (an attribute that
    the training loop lowers); in evaluation mode each decision is hard and deterministic: a token is read when
    p_t(read) > `threshold`. With `small_size` 0 a token that is not read is skipped: the state is copied.

    Parameters carry torch's names (`weight_ih_l0`, ...) for the big cell, with the prefix `small_` for the small cell
    and `decision_` for the decision, so a state dict shows which is which.
    """

    temperature: float

    def __init__(self, input_size: int, hidden_size: int, small_size: int, *, threshold: float = 0.5) -> None:
        super().__init__()
        if not 0 <= small_size <= hidden_size:
            raise ValueError(f"small_size must lie between 0 and hidden_size ({hidden_size}), not {small_size}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.small_size = small_size
        self.threshold = threshold
        self.temperature = 1.0
        for prefix, rows in (("", 4 * hidden_size), ("small_", 4 * small_size), ("decision_", 2)):
            self.register_parameter(f"{prefix}weight_ih_l0", nn.Parameter(torch.empty(rows, input_size)))
            self.register_parameter(f"{prefix}weight_hh_l0", nn.Parameter(torch.empty(rows, hidden_size)))
            self.register_parameter(f"{prefix}bias_ih_l0", nn.Parameter(torch.empty(rows)))
            self.register_parameter(f"{prefix}bias_hh_l0", nn.Parameter(torch.empty(rows)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights uniformly from +-1/sqrt(hidden_size), as `torch.nn.LSTM` does."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    @overload
    def forward(
        self, input: Tensor | PackedSequence, state: State | None = None, *, return_decisions: Literal[False] = False
    ) -> tuple[Tensor | PackedSequence, State]: ...

    @overload
    def forward(
        self, input: Tensor | PackedSequence, state: State | None = None, *, return_decisions: Literal[True]
    ) -> tuple[Tensor | PackedSequence, State, Decisions]: ...

    def forward(
        self, input: Tensor | PackedSequence, state: State | None = None, *, return_decisions: bool = False
    ) -> tuple[Tensor | PackedSequence, State] | tuple[Tensor | PackedSequence, State, Decisions]:
        """Run over a batch, from zeros or from `state` (h_0, c_0; 1, B, `hidden_size` each).

        With `return_decisions` a third value holds the probabilities and decisions of every token.
        """
        if isinstance(input, PackedSequence):
            padded, lengths = pad_packed_sequence(input)
        else:
            padded, lengths = input, torch.full((input.shape[1],), input.shape[0])
        lengths = lengths.to(padded.device)
        if state is None:
            zeros = padded.new_zeros(1, padded.shape[1], self.hidden_size)
            state = (zeros, zeros)
        noise = None
        if self.training:
            noise = -torch.empty(*padded.shape[:2], 2, dtype=padded.dtype, device=padded.device).exponential_().log()
        sequence = skim_lstm(
            padded,
            lengths,
            (state[0][0], state[1][0]),
            CellWeights(*self._weights("")),
            CellWeights(*self._weights("small_")),
            DecisionWeights(*self._weights("decision_")),
            threshold=self.threshold,
            noise=noise,
            temperature=self.temperature,
        )
        output: Tensor | PackedSequence = sequence.outputs
        if isinstance(input, PackedSequence):
            output = pack_padded_sequence(sequence.outputs, lengths.cpu(), enforce_sorted=False)
        last_state = (sequence.hidden[None], sequence.cell[None])
        if return_decisions:
            return output, last_state, Decisions(sequence.log_probabilities, sequence.read, lengths)
        return output, last_state

    def extra_repr(self) -> str:
        """What `print(layer)` shows."""
        return f"{self.input_size}, {self.hidden_size}, small_size={self.small_size}, threshold={self.threshold}"

    def _weights(self, prefix: str) -> tuple[Tensor, Tensor, Tensor]:
        return (
            self.get_parameter(f"{prefix}weight_ih_l0"),
            self.get_parameter(f"{prefix}weight_hh_l0"),
            self.get_parameter(f"{prefix}bias_ih_l0") + self.get_parameter(f"{prefix}bias_hh_l0"),
        )
