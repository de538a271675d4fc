"""Skim-LSTM: an LSTM that decides at each token whether to read it or to skim it."""

from collections.abc import Callable
from typing import ClassVar, Literal, Self, overload

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from skimrnn import kernels
from skimrnn.layers.skimming import Decisions, SkimmingLayer

LSTMState = tuple[Tensor, Tensor]


class SkimLSTM(SkimmingLayer):
    """Skim-LSTM, called like `torch.nn.LSTM`.

    The input is a padded batch (T, B, `input_size`), or (B, T, `input_size`) with `batch_first`, one sequence
    (T, `input_size`), or a `PackedSequence`; the result is `(output, (h_n, c_n))` in torch's shapes. In training mode
    each step is the Gumbel-softmax relaxation at `temperature` (an attribute that the training loop lowers); in
    evaluation mode each decision is hard and deterministic: a token is read when p_t(read) > `threshold`, an attribute
    that can be moved at any time and that no state dict holds (nor the temperature). With `small_size` 0 a token that
    is not read is skipped: the state is copied. A token whose p_t(read) is not a number is read: NaN spreads to
    all units, as in torch's layer.

    Skimming saves time in evaluation mode under `torch.no_grad()` (or where nothing requires a gradient). The packed
    weights are then kept between calls, and packed anew when the weights have changed. (Change a part of a weight under
    `torch.no_grad()`: a write of a few numbers through `.data` or NumPy can go unseen.)

    The fast kernels compute in float32, under autocast, too, and know first derivatives, backwards, alone;
    `SKIMRNN_KERNEL=reference` gives all derivatives that torch can.
    """

    _name = "LSTM"
    _gates = 4
    _run: ClassVar[Callable[..., kernels.SkimSequence]] = staticmethod(kernels.skim_lstm)
    _takes_models = True

    @classmethod
    def from_lstm(cls, lstm: nn.LSTM, small_size: int, *, threshold: float = 0.5) -> Self:
        """A Skim-LSTM whose big cell starts from a (trained) `nn.LSTM`; the small cell and the decision start anew."""
        return cls._from_torch(lstm, small_size, threshold)

    @overload
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: LSTMState | None = None,
        *,
        return_decisions: Literal[False] = False,
    ) -> tuple[Tensor | PackedSequence, LSTMState]: ...

    @overload
    def forward(
        self, input: Tensor | PackedSequence, hx: LSTMState | None = None, *, return_decisions: Literal[True]
    ) -> tuple[Tensor | PackedSequence, LSTMState, Decisions]: ...

    def forward(
        self, input: Tensor | PackedSequence, hx: LSTMState | None = None, *, return_decisions: bool = False
    ) -> tuple[Tensor | PackedSequence, LSTMState] | tuple[Tensor | PackedSequence, LSTMState, Decisions]:
        """Run over a batch, from zeros or from `hx` (h_0, c_0; layers times directions, B, `hidden_size` each).

        With `return_decisions` a third value holds the probabilities and decisions of every token.
        """
        output, (hidden, cell), decisions = self._forward(input, hx)
        return (output, (hidden, cell), decisions) if return_decisions else (output, (hidden, cell))
