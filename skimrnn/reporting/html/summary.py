"""What the page says first: how much of the grid was run, and what came out, a line a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass

from skimrnn.benchmarks.speedup import WHOLE
from skimrnn.config import SkimmingConfig
from skimrnn.reporting.records import Measured, Results
from skimrnn.reporting.table import NOT_RUN, NOTHING, Row, Table
from skimrnn.reporting.table_formats import document_of

Ways = tuple[str, ...]
"""How a speed-up was timed; an empty one for what is not timed."""


@dataclass(frozen=True)
class Pair:
    """A range over rows of a table, the paper's and ours."""

    paper: str
    ours: str


@dataclass(frozen=True)
class Outcome:
    """What came out on one dataset: scores of standard and of skimming models, what these skim, their speed-ups.

    Standard models are those that differ from one that skims in that alone. `speedup` is in NumPy, in which our readers
    are not timed, `fast_speedup` with our kernels.
    """

    dataset: str
    title: str
    anchor: str
    measure: str
    runs: str
    standard: Pair
    skimming: Pair
    skimmed: Pair
    speedup: Pair
    fast_speedup: str


@dataclass(frozen=True)
class Summary:
    """Runs with a record, runs that the grid plans, datasets of which all are there, and what came out on each."""

    runs: int
    planned: int
    complete: int
    outcomes: list[Outcome]


def summarise(tasks: Sequence[Results]) -> Summary:
    """Sum up the results of all tasks."""
    outcomes, found, planned = [], [], []
    for results in tasks:
        document = document_of(results)
        for table in document.tables:
            runs = results.of_dataset(table.dataset)
            found.append(len(runs))
            planned.append(results.config.planned(table.dataset))
            unfinished = sum(run.record.training.stopped == "unfinished" for run in runs)
            remark = f" ({unfinished} not finished)" if unfinished else ""
            outcomes.append(_outcome(table, document.name, f"{found[-1]} of {planned[-1]}{remark}"))
    return Summary(
        sum(found), sum(planned), sum(run == wanted for run, wanted in zip(found, planned, strict=True)), outcomes
    )


def _outcome(table: Table, document: str, runs: str) -> Outcome:
    skimming = [row for row in table.rows if isinstance(row.model, SkimmingConfig)]
    standard = [row for row in table.rows if row.model is not None and row not in skimming]
    kinds = {_kind(row) for row in skimming or standard}
    standard = [row for row in standard if _kind(row) in kinds]
    return Outcome(
        table.dataset,
        table.title,
        f"{document}-{table.dataset}",
        table.columns[0].title,
        runs,
        _pair(standard, table.columns[0].metric),
        _pair(skimming, table.columns[0].metric),
        _pair(skimming, "skim_rate"),
        _pair(skimming, "speedup", ("numpy", WHOLE), ("numpy",)),
        _pair(skimming, "speedup", ("numpy", WHOLE), ("demand", WHOLE)).ours,
    )


def _kind(row: Row) -> tuple[str, int, int]:
    """What a skimming model shares with the standard one that it stands beside: name, d and the number of layers."""
    assert row.model is not None
    return row.model.architecture.removeprefix("skim_"), row.model.hidden_size, getattr(row.model, "num_layers", 1)


def _pair(rows: list[Row], metric: str, paper_ways: Ways = ("",), our_ways: Ways = ("",)) -> Pair:
    """Ranges over the rows that have both numbers or, where there is none, over those that have either."""
    pairs = [(_value(row, metric, paper_ways)[0], _value(row, metric, our_ways)[1]) for row in rows]
    pairs = [(paper, ours) for paper, ours in pairs if paper is not None and ours is not None] or pairs
    papers, own = [paper for paper, _ in pairs if paper is not None], [ours for _, ours in pairs if ours is not None]
    return Pair(_range(papers, NOTHING), _range(own, NOT_RUN))


def _value(row: Row, metric: str, ways: Ways) -> tuple[float | None, float | None]:
    """The paper's value of a row and ours."""
    for entry in row.entries:
        if entry.column.metric == metric and entry.column.way in ways:
            return entry.published, entry.ours.mean if isinstance(entry.ours, Measured) else None
    return None, None


def _range(values: list[float], absent: str) -> str:
    texts = list(dict.fromkeys(f"{value:.1f}" for value in (min(values), max(values)))) if values else [absent]
    return " to ".join(texts)
