"""The tables as the page shows them: printed and measured numbers stand in cells of their own, each with its origin."""

from dataclasses import dataclass
from pathlib import Path

from skimrnn.reporting.html.origins import Origin, Origins, Part, speed_facts
from skimrnn.reporting.records import Measured, Results
from skimrnn.reporting.table import NOTHING, Column, Document, Entry, Row, Table


@dataclass(frozen=True)
class Heading:
    """The heading of one measure, over a column `ours` and, where the paper prints the measure, one `paper`."""

    title: str
    convention: str
    printed: bool

    @property
    def name(self) -> str:
        """The title and the convention, on one line."""
        return f"{self.title}, {self.convention}" if self.convention else self.title


@dataclass(frozen=True)
class Cell:
    """What stands in a cell; `value` is what it is sorted by, `origin` the number of its origin."""

    text: str
    kind: str  # paper, ours or absent
    value: float | None = None
    origin: int | None = None


@dataclass(frozen=True)
class CellRow:
    """A system and its cells."""

    title: str
    cited: bool
    cells: list[Cell]


@dataclass(frozen=True)
class CellTable:
    """The table of one dataset."""

    dataset: str
    title: str
    caption: str
    headings: list[Heading]
    rows: list[CellRow]


@dataclass(frozen=True)
class TableMaker:
    """Makes the tables of one task, whose records lie in `folder`, and keeps the origin of each number."""

    results: Results
    document: Document
    folder: Path
    origins: Origins

    def tables(self) -> list[CellTable]:
        """The table of each dataset."""
        return [self._table(table) for table in self.document.tables]

    def _table(self, table: Table) -> CellTable:
        headings = [
            Heading(
                column.title, column.convention, any(row.entries[index].published is not None for row in table.rows)
            )
            for index, column in enumerate(table.columns)
        ]
        rows = []
        for row in table.rows:
            cells = []
            for heading, entry in zip(headings, row.entries, strict=True):
                title = f"{table.title}, {row.title}: {heading.name}"
                if heading.printed:
                    cells.append(self._paper_cell(entry, title))
                cells.append(self._our_cell(table.dataset, row, entry, title))
            rows.append(CellRow(row.title, row.model is None, cells))
        return CellTable(table.dataset, table.title, table.caption, headings, rows)

    def _paper_cell(self, entry: Entry, title: str) -> Cell:
        if entry.published is None:
            return Cell(NOTHING, "absent")
        task = self.document.name.replace("_", " ")
        note = f"Printed in the paper's table of {task}, one run (skimrnn/published/numbers.csv); not measured by us."
        origin = self.origins.add(Origin(f"{title}, paper", entry.paper_text, note))
        return Cell(entry.paper_text, "paper", entry.published, origin)

    def _our_cell(self, dataset: str, row: Row, entry: Entry, title: str) -> Cell:
        if entry.ours is None:
            return Cell(entry.ours_text, "absent")
        if isinstance(entry.ours, Measured):
            value, parts = entry.ours.mean, self._parts(dataset, row.name, entry.column)
            spread = "Mean ± sample standard deviation over {} seeds." if len(parts) > 1 else "One seed: no spread."
            note = spread.format(len(parts))
        else:
            value, note = entry.ours, "1 by definition: the standard LSTM is what the other rows are measured against."
            runs = self.results.of_model(dataset, row.name)
            parts = [Part(f"seed {run.record.config.seed}", "", self.origins.run(run)) for run in runs]
        origin = self.origins.add(Origin(f"{title}, ours", entry.ours_text, note, tuple(parts)))
        return Cell(entry.ours_text, "ours", value, origin)

    def _parts(self, dataset: str, model: str, column: Column) -> list[Part]:
        """The value of each seed and its file: a record or, for speed-ups, the `speed.json` of the dataset."""
        if column.value is not None:
            values = [
                (run.record.config.seed, column.value(run.record), self.origins.run(run))
                for run in self.results.of_model(dataset, model)
            ]
        else:
            speed = self.results.speeds[dataset]
            key = self.origins.source(
                self.folder / self.results.config.scale / dataset / "speed.json", speed_facts(speed)
            )
            values = [
                (seed, value, key)
                for seed, timed in sorted(speed.models[model].items())
                if (value := timed.speedup(column.way)) is not None
            ]
        return [Part(f"seed {seed}", f"{value:.2f}{column.unit}", key) for seed, value, key in values]
