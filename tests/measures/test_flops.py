import pytest

from skimrnn.measures.flops import flop_reduction
from skimrnn.published import PublishedValue, published_value, published_values

PRINTED = [
    row
    for row in published_values()
    if (row.table, row.system, row.metric) == ("classification", "skim_lstm", "flop_r")
]


def reduction(row: PublishedValue, change: float = 0):
    """Flop-r at the printed skim rate, changed by some percentage points."""
    assert row.hidden_size is not None and row.small_size is not None
    percent = published_value(row.dataset, row.system, "skim_rate", row.hidden_size, row.small_size, row.gamma)
    assert percent is not None
    return flop_reduction((percent + change) / 100, row.hidden_size, row.small_size)


def reproduced(convention: str) -> list[PublishedValue]:
    """The rows whose printed Flop-r follows from a skim rate that rounds to the printed one."""
    return [
        row
        for row in PRINTED
        if any(
            f"{getattr(reduction(row, change / 1000), convention):.1f}" == f"{row.value:.1f}"
            for change in range(-49, 50)
        )
    ]


def test_the_published_convention_gives_every_printed_value_to_the_printed_digit():
    assert len(PRINTED) == 16
    assert reproduced("published_convention") == PRINTED


def test_one_printed_value_hangs_on_the_rounding_of_its_skim_rate():
    at_the_printed_rate = [row for row in PRINTED if f"{reduction(row).published_convention:.1f}" == f"{row.value:.1f}"]
    (other,) = (row for row in PRINTED if row not in at_the_printed_rate)
    assert (other.dataset, other.small_size, other.gamma) == ("imdb", 10, 0.02)


def test_the_exact_count_gives_two_of_the_printed_values_and_stays_below_the_published_convention():
    assert len(reproduced("exact_count")) == 2
    assert all(reduction(row).exact_count < reduction(row).published_convention for row in PRINTED)


def test_imdb_at_its_highest_skim_rate_is_far_apart_in_the_two_conventions():
    (row,) = (row for row in PRINTED if (row.dataset, row.small_size, row.gamma) == ("imdb", 10, 0.02))
    assert row.value == 9.5
    assert reduction(row).exact_count == pytest.approx(5.4, abs=0.05)


@pytest.mark.parametrize("skim_rate", [0.0, 0.3, 1.0])
def test_skipping_costs_the_same_in_both_conventions(skim_rate: float):
    skipping = flop_reduction(skim_rate, 100, 0)
    assert skipping.exact_count == skipping.published_convention == pytest.approx(1 / (1 - skim_rate + 1 / 400))


def test_skimming_more_saves_more():
    reductions = [flop_reduction(rate / 10, 100, 5) for rate in range(11)]
    for convention in ("exact_count", "published_convention"):
        values = [getattr(value, convention) for value in reductions]
        assert values == sorted(set(values))
        assert values[0] < 1  # The decision itself costs something.
