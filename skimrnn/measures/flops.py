"""Flop-r: how many times fewer float operations a skimming model needs than the standard one, in two conventions.

Only matrix products count; gates and biases, linear in d, are left out, as in the paper.
"""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from skimrnn.layers import SkimLSTM
from skimrnn.models import LSTMAtt, Reader


class FlopReduction(BaseModel):
    """The standard model's float operations over the skimming model's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    published_convention: float
    exact_count: float


def flop_reduction(skim_rate: float, hidden_size: int, small_size: int) -> FlopReduction:
    """Flop-r of one recurrent layer at a skim rate (0 to 1) over real tokens.

    Both conventions charge each token for the decision: a choice between two needs one dot product (the difference
    of the two logits) where the big cell needs 4d. They differ in the price of a skimmed token.

    - Published convention: (d'/d)^2 of the big cell. At the printed skim rates it gives 15 of the 16 printed values of
      the classification table, and the last one (IMDb, Skim 10/.02) within the rounding of its skim rate.
    - Exact count: d'/d of the big cell, because the small cell reads the whole of x_t and h_{t-1} (Eq. 3): 4d' rows
      where the big cell has 4d, of the same length.
    """
    ratio = small_size / hidden_size
    decision = 1 / (4 * hidden_size)
    return FlopReduction(
        published_convention=1 / ((1 - skim_rate) + skim_rate * ratio**2 + decision),
        exact_count=1 / ((1 - skim_rate) + skim_rate * ratio + decision),
    )


class Operations(BaseModel):
    """Float operations (a multiplication and an addition are two) of the parts of a reader, over some questions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attention: float
    recurrent: float
    decision: float
    output: float

    @property
    def total(self) -> float:
        """Of the whole model."""
        parts: dict[str, float] = self.model_dump()
        return sum(parts.values())


def reader_operations(
    model: Reader,
    question_lengths: Tensor,
    context_lengths: Tensor,
    skim_rates: Mapping[str, float] | None = None,
    *,
    published_convention: bool = False,
) -> Operations:
    """Float operations of `model` on questions (N) about contexts (N) of so many tokens, at its measured skim rates.

    `skim_rates` holds one rate for each of the reader's sequences. The exact count charges a skimmed token for the
    small cell as it is; the published convention for (d'/d)^2 of the big one. The parameters say how large each product
    is: a weight of r rows and c columns costs 2 r c a token.
    """
    assert isinstance(model, LSTMAtt)
    tokens = int(context_lengths.sum())
    size = model.embedding.embedding_dim
    recurrent, decision = _recurrent(model.layer, model.sequences, tokens, skim_rates or {}, published_convention)
    return Operations(
        # Each word of a context with each of its question: the similarity, and the average.
        attention=2 * 2 * size * float((question_lengths * context_lengths).sum()),
        recurrent=recurrent,
        decision=decision,
        output=2 * model.output.weight.numel() * tokens,
    )


def _recurrent(
    layer: nn.LSTM | SkimLSTM,
    sequences: Sequence[str],
    tokens: int,
    skim_rates: Mapping[str, float],
    published_convention: bool,
) -> tuple[float, float]:
    """Float operations of the cells and of the decisions of a layer over some tokens."""
    recurrent, decision = 0.0, 0.0
    for sequence, suffix in zip(sequences, _directions(layer), strict=True):
        big = _cell(layer, "", suffix)
        if not isinstance(layer, SkimLSTM):
            recurrent += big * tokens
            continue
        skimmed = skim_rates[sequence] * tokens
        ratio = layer.small_size / layer.hidden_size
        small = ratio**2 * big if published_convention else _cell(layer, "small_", suffix)
        recurrent += big * (tokens - skimmed) + small * skimmed
        decision += _cell(layer, "decision_", suffix) / 2 * tokens  # The difference of two logits is one row.
    return recurrent, decision


def _directions(layer: nn.LSTM | SkimLSTM) -> list[str]:
    """The endings of the names of each layer's and direction's weights, in the order of h_n."""
    return [name.removeprefix("weight_ih") for name, _ in layer.named_parameters() if name.startswith("weight_ih")]


def _cell(layer: nn.LSTM | SkimLSTM, prefix: str, suffix: str) -> float:
    """Float operations of one token in one cell."""
    return 2 * sum(layer.get_parameter(f"{prefix}weight_{kind}{suffix}").numel() for kind in ("ih", "hh"))
