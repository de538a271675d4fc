"""Skim-GRU: a GRU that decides at each token whether to read it or to skim it."""

from typing import Literal, Self, overload

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from skimrnn import kernels
from skimrnn.layers.skimming import Decisions, SkimmingLayer


class SkimGRU(SkimmingLayer):
    """Skim-GRU, called like `torch.nn.GRU`: all that `SkimLSTM` says holds, with h for a state."""

    _name = "GRU"
    _gates = 3
    _run = staticmethod(kernels.skim_gru)

    @classmethod
    def from_gru(cls, gru: nn.GRU, small_size: int, *, threshold: float = 0.5) -> Self:
        """A Skim-GRU whose big cell starts from a (trained) `nn.GRU`; the small cell and the decision start anew."""
        return cls._from_torch(gru, small_size, threshold)

    @overload
    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None, *, return_decisions: Literal[False] = False
    ) -> tuple[Tensor | PackedSequence, Tensor]: ...

    @overload
    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None, *, return_decisions: Literal[True]
    ) -> tuple[Tensor | PackedSequence, Tensor, Decisions]: ...

    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None, *, return_decisions: bool = False
    ) -> tuple[Tensor | PackedSequence, Tensor] | tuple[Tensor | PackedSequence, Tensor, Decisions]:
        """Run over a batch, from zeros or from `hx` (h_0; layers times directions, B, `hidden_size`).

        With `return_decisions` a third value holds the probabilities and decisions of every token.
        """
        output, (hidden,), decisions = self._forward(input, None if hx is None else (hx,))
        return (output, hidden, decisions) if return_decisions else (output, hidden)
