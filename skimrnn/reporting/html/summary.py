"""What the page says first: how much of the grid was run, and what came out, a line a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass

from skimrnn.config import SkimmingConfig
from skimrnn.reporting.records import Measured, Results
from skimrnn.reporting.table import NOT_RUN, NOTHING, Entry, Row, Table
from skimrnn.reporting.table_formats import document_of


@dataclass(frozen=True)
class Pair:
    """A range over rows of a table, the paper's and ours."""

    paper: str
    ours: str


@dataclass(frozen=True)
class Outcome:
    """What came out on one dataset: scores of standard and of skimming models, and the share of tokens skimmed."""

    dataset: str
    title: str
    anchor: str
    measure: str
    runs: str
    standard: Pair
    skimming: Pair
    skimmed: Pair


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
    return Outcome(
        table.dataset,
        table.title,
        f"{document}-{table.dataset}",
        table.columns[0].title,
        runs,
        _pair(standard, table.columns[0].metric),
        _pair(skimming, table.columns[0].metric),
        _pair(skimming, "skim_rate"),
    )


def _pair(rows: list[Row], metric: str) -> Pair:
    entries: list[Entry] = [entry for row in rows for entry in row.entries if entry.column.metric == metric]
    paper = [entry.published for entry in entries if entry.published is not None]
    ours = [entry.ours.mean for entry in entries if isinstance(entry.ours, Measured)]
    return Pair(_range(paper, NOTHING), _range(ours, NOT_RUN))


def _range(values: list[float], absent: str) -> str:
    texts = list(dict.fromkeys(f"{value:.1f}" for value in (min(values), max(values)))) if values else [absent]
    return " to ".join(texts)
