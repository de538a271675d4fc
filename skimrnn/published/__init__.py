"""The paper's numbers, as data (`numbers.csv`), each with the table it is printed in.

Accuracies, F1, EM and skim rates are in percent; `flop_r` and `speedup` are ratios to the standard LSTM.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class PublishedValue:
    """One printed number; `hidden_size` is d, `small_size` is d'."""

    table: str
    dataset: str
    system: str
    hidden_size: int | None
    small_size: int | None
    gamma: float | None
    metric: str
    value: float


@cache
def published_values() -> tuple[PublishedValue, ...]:
    """Every number of the paper's tables, in their order."""
    text = resources.files(__name__).joinpath("numbers.csv").read_text(encoding="utf-8")
    return tuple(
        PublishedValue(
            table=row["table"],
            dataset=row["dataset"],
            system=row["system"],
            hidden_size=int(row["d"]) if row["d"] else None,
            small_size=int(row["d_small"]) if row["d_small"] else None,
            gamma=float(row["gamma"]) if row["gamma"] else None,
            metric=row["metric"],
            value=float(row["value"]),
        )
        for row in csv.DictReader(text.splitlines())
    )


def published_value(
    dataset: str,
    system: str,
    metric: str,
    hidden_size: int | None = None,
    small_size: int | None = None,
    gamma: float | None = None,
) -> float | None:
    """The number that the paper prints for a system with exactly these settings, or None where it prints none."""
    return _values_by_key().get((dataset, system, metric, hidden_size, small_size, gamma))


@cache
def _values_by_key() -> dict[tuple[str, str, str, int | None, int | None, float | None], float]:
    return {
        (row.dataset, row.system, row.metric, row.hidden_size, row.small_size, row.gamma): row.value
        for row in published_values()
    }
