"""The content of the classification table: for each dataset the rows, their entries `paper | ours`, and a caption."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skimrnn.config import ModelConfig
from skimrnn.counts import count_of
from skimrnn.data.registry import get_dataset
from skimrnn.published import published_value
from skimrnn.reporting.records import Measured, Results, training_kernel
from skimrnn.reporting.systems import CITED, in_paper, paper_value, skims, system_titles
from skimrnn.training.record import DataRecord, Record

NOT_RUN = "not run"
NOTHING = "-"


@dataclass(frozen=True)
class Column:
    """A measure; `value` takes ours from a record (percent or ratio), or `way` says which speed-up it is."""

    title: str
    metric: str
    convention: str = ""
    unit: str = ""
    value: Callable[[Any], float] | None = None
    way: str = ""

    @property
    def printed(self) -> bool:
        """Whether the paper's number stands here: it prints one Flop-r, in its convention, and one Sp, of NumPy."""
        return self.convention in ("", "published convention", "NumPy")

    @property
    def heading(self) -> str:
        """The title and, on a line of its own, the convention."""
        return f"{self.title}\n{self.convention}" if self.convention else self.title


COLUMNS = (
    Column("Acc (%)", "accuracy", value=lambda record: 100 * record.test.accuracy),
    Column("Sk (%)", "skim_rate", value=lambda record: 100 * record.test.skim_rate),
    Column("Flop-r", "flop_r", "published convention", "x", lambda record: record.flop_reduction.published_convention),
    Column("Flop-r", "flop_r", "exact count", "x", lambda record: record.flop_reduction.exact_count),
    Column("Sp", "speedup", "NumPy", "x", way="numpy"),
    Column("Sp", "speedup", "ours, on demand", "x", way="demand"),
    Column("Sp", "speedup", "ours, folded", "x", way="folded"),
)


@dataclass(frozen=True)
class Entry:
    """One cell of the table: a number of the paper and one of ours, never mixed.

    `ours` is measured over seeds, or a float where it holds by definition; where it is None, `absent` says why.
    """

    column: Column
    published: float | None
    ours: Measured | float | None
    absent: str = NOT_RUN

    @property
    def paper_text(self) -> str:
        """The paper's number as printed."""
        return NOTHING if self.published is None else f"{self.published:.1f}{self.column.unit}"

    @property
    def ours_text(self) -> str:
        """`mean ± sd (n)`, or why there is none."""
        if self.ours is None:
            return self.absent
        if isinstance(self.ours, float):
            return f"{self.ours:.1f}{self.column.unit}"
        spread = "" if self.ours.sd is None else f" ± {self.ours.sd:.1f}"
        return f"{self.ours.mean:.1f}{self.column.unit}{spread} ({len(self.ours.values)})"

    def __str__(self) -> str:
        if self.paper_text == self.ours_text == NOTHING:
            return NOTHING
        return f"{self.paper_text} | {self.ours_text}"


@dataclass(frozen=True)
class Row:
    """A system on one dataset; `model` is None for a system that is only cited."""

    title: str
    name: str
    model: ModelConfig | None
    seeds: tuple[int, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Table:
    """The table of one dataset."""

    dataset: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: list[Row]


@dataclass(frozen=True)
class Document:
    """The tables of one task, and what is said about all of them; `name` is that of its files."""

    name: str
    title: str
    warning: str | None
    legend: str
    tables: list[Table]


def classification_document(results: Results[Record]) -> Document:
    """The classification table of each dataset."""
    tables = [
        Table(
            dataset, get_dataset(dataset).title, table_caption(results, dataset), COLUMNS, table_rows(results, dataset)
        )
        for dataset in results.config.datasets
    ]
    return Document("classification", scale_title(results), WARNING if results.synthetic else None, LEGEND, tables)


def table_rows(results: Results, dataset: str) -> list[Row]:
    """The rows of one dataset: the config's models in their order, then the systems that the paper cites for it."""
    titles = system_titles(results.config)
    rows = [_model_row(results, dataset, name, titles[name]) for name in results.config.models_of(dataset)]
    if not in_paper(dataset):
        return rows
    for system, title in CITED.items():
        entries = (Entry(column, _cited_value(dataset, system, column), None, NOTHING) for column in COLUMNS)
        rows.append(Row(title, system, None, (), tuple(entries)))
    return rows


def _model_row(results: Results, dataset: str, name: str, title: str) -> Row:
    model = results.config.models[name]
    runs = results.of_model(dataset, name)
    entries = []
    for column in COLUMNS:
        published = paper_value(dataset, model, column.metric) if column.printed else None
        if column.way and skims(model):
            entries.append(Entry(column, published, results.speedup(dataset, name, column.way)))
        elif column.value and (skims(model) or column.metric == "accuracy"):
            entries.append(Entry(column, published, results.measured(dataset, name, column.value)))
        elif column.metric == "skim_rate":
            entries.append(Entry(column, published, None, NOTHING))
        else:
            # The standard LSTM is what Flop-r and Sp are relative to.
            printed = column.printed and paper_value(dataset, model, "accuracy") is not None
            entries.append(Entry(column, 1.0 if printed else None, 1.0 if runs else None))
    return Row(title, name, model, tuple(run.record.config.seed for run in runs), tuple(entries))


def _cited_value(dataset: str, system: str, column: Column) -> float | None:
    return published_value(dataset, system, column.metric) if column.printed else None


def table_caption(results: Results, dataset: str) -> str:
    """What the numbers of one dataset come from: data, word vectors, seeds, records, kernel, commits."""
    return provenance_text(results, dataset, "test")


def provenance_text(results: Results, dataset: str, scored_split: str) -> str:
    """What the numbers of one dataset come from; `scored_split` is the split that they are about."""
    runs = results.of_dataset(dataset)
    note = _note(dataset)
    if not runs:
        return "No records: not run." + note
    data = runs[0].record.data
    vectors = data.vectors
    settings = "".join(f", {key.replace('_', ' ')} {value}" for key, value in vectors.settings.items())
    parts = [
        f"Data: {data.source}, {_completeness(data)}",
        f"Word vectors: {vectors.source} ({count_of(vectors.dimension, 'dimension')}{settings}), "
        f"{100 * data.splits[scored_split].vector_coverage:.1f} % of {scored_split} tokens covered",
        f"Seeds: {', '.join(map(str, sorted({run.record.config.seed for run in runs})))}",
        f"Records: {len(runs)} of {results.config.planned(dataset)}",
        f"Kernel: {', '.join(sorted({training_kernel(run.record) for run in runs}))}",
        f"Commits: {', '.join(sorted({run.record.training.environment.commit_text(8) for run in runs}))}",
    ]
    if speed := results.speeds.get(dataset):
        processor = ", ".join(filter(None, [speed.environment.cpu, speed.isa]))
        parts.append(f"Sp: {count_of(speed.texts, 'text')}, {processor}, commit {speed.environment.commit_text(8)}")
    return ". ".join(parts) + "." + note


def _note(dataset: str) -> str:
    """What keeps the numbers of a dataset from standing beside the paper's, where something does."""
    if not get_dataset(dataset).on_hub:
        return " A stand-in of ours, cut from ten books; it is not the Children's Book Test."
    return "" if in_paper(dataset) else " The paper prints no result for this dataset."


def _completeness(data: DataRecord) -> str:
    if data.source == "embedded":
        return f"synthetic, {count_of(data.splits['train'].rows, 'training row')}"
    if data.complete:
        return "complete"
    missing = [
        f"{name} {split.rows:,} of {split.official_rows:,} rows"
        for name, split in data.release.items()
        if split.rows != split.official_rows
    ]
    return f"incomplete ({', '.join(missing)})"


def scale_title(results: Results) -> str:
    """The heading of everything made from one scale."""
    kind = "synthetic stand-in corpora" if results.synthetic else "paper and ours"
    return f"Text classification, {results.config.scale} scale: {kind}"


WARNING = (
    "The corpora of this scale are synthetic stand-ins that the package generates; they only carry the names of the "
    "real datasets. The paper's numbers are about the real datasets and are shown for orientation only: "
    "they cannot be compared with ours."
)

LEGEND = (
    "Ours is the mean ± sample standard deviation over n seeds, on the test split, as "
    "mean ± sd (n). Sk is the share of real tokens skimmed. Flop-r counts a skimmed token as (d'/d)² of a read one "
    "in the published convention, the only one the paper prints, and as d'/d in the exact count; it is no speed-up. "
    "Sp is the measured speed-up over a standard LSTM of the same size: batch 1, one CPU thread, a sample of the test "
    "texts, each one call; in NumPy as in the paper, and with our kernels, inputs projected on demand or folded (their "
    "projections kept per word), beside our own standard LSTM in the same setting. Rows: Skim d'/γ; the last rows are "
    "systems that the paper cites. "
    "'not run': no record; '-': nothing printed in the paper, or nothing to measure here."
)
