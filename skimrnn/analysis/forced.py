"""A Skim-LSTM in which single decisions can be reversed, to see what hangs on them."""

from typing import Self

import torch
from torch import Tensor

from skimrnn.kernels import CellWeights, DecisionWeights, SkimSequence, State
from skimrnn.layers import SkimLSTM

_FORCE = 1e6
"""Added to the logit of reading: far beyond any that is learned."""


class ForcedSkimLSTM(SkimLSTM):
    """A Skim-LSTM that takes some decisions from `force` (L, T, B): 1 reads, -1 skims, 0 decides as learned.

    The decision cell gets one more input, with a weight that outvotes all others, so that the recurrence still runs on
    the kernel in use. The log probabilities of forced tokens say that they are forced. With `texts` (B; their lengths)
    only sequences of these lengths are forced: BiDAF's contextual layer reads the questions, too.
    """

    force: Tensor | None = None
    texts: Tensor | None = None
    _takes_models = False  # Each direction has a force of its own.

    @classmethod
    def of(cls, layer: SkimLSTM) -> Self:
        """A copy of a trained layer."""
        copy = cls._like(layer, layer.get_parameter("weight_ih_l0"), layer.small_size, layer.threshold)
        copy.load_state_dict(layer.state_dict())
        return copy

    def _run_direction(self, inputs: Tensor, lengths: Tensor, state: State, suffix: str) -> SkimSequence:
        if self.force is None or not (self.texts is None or torch.equal(self.texts, lengths.cpu())):
            return super()._run_direction(inputs, lengths, state, suffix)
        suffixes = [name for layer in range(self.num_layers) for name in self._suffixes(layer)]
        force = self.force[suffixes.index(suffix)].to(inputs)  # (T, B)

        def widened(prefix: str, reading: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """The weights of a cell with a column for `force`, in which only the row of reading is not zero."""
            weight, *others = self._weights(prefix, suffix)
            column = weight.new_zeros(len(weight), 1)
            column[:1] = reading
            first, second, third = others
            return torch.cat([weight, column], dim=1), first, second, third

        return type(self)._run(
            torch.cat([inputs, force[..., None]], dim=2),
            lengths,
            state,
            CellWeights(*widened("", 0.0)),
            CellWeights(*widened("small_", 0.0)),
            DecisionWeights(*widened("decision_", _FORCE)),
            threshold=self.threshold,
            reverse=suffix.endswith("_reverse"),
        )
