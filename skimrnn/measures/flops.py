"""Flop-r: how many times fewer float operations a Skim-LSTM needs than the standard LSTM, in two conventions."""

from pydantic import BaseModel, ConfigDict


class FlopReduction(BaseModel):
    """The standard LSTM's float operations over the Skim-LSTM's, for the recurrent layer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    published_convention: float
    exact_count: float


def flop_reduction(skim_rate: float, hidden_size: int, small_size: int) -> FlopReduction:
    """Flop-r at a skim rate (0 to 1) over real tokens.

    Both conventions charge each token for the decision: a choice between two needs one dot product (the difference
    of the two logits) where the big cell needs 4d. They differ in the price of a skimmed token.

    - Published convention: (d'/d)^2 of the big cell. At the printed skim rates it gives 15 of the 16 printed values of
      the classification table, and the last one (IMDb, Skim 10/.02) within the rounding of its skim rate.
    - Exact count: d'/d of the big cell, because the small cell reads the whole of x_t and h_{t-1} (Eq. 3): 4d' rows
      where the big cell has 4d, of the same length.

    Only matrix products count; gates and biases, linear in d, are left out, as in the paper.
    """
    ratio = small_size / hidden_size
    decision = 1 / (4 * hidden_size)
    return FlopReduction(
        published_convention=1 / ((1 - skim_rate) + skim_rate * ratio**2 + decision),
        exact_count=1 / ((1 - skim_rate) + skim_rate * ratio + decision),
    )
