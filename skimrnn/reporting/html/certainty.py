"""The tables of confidence as the page shows them: each number says which runs it comes from."""

from dataclasses import dataclass
from pathlib import Path

from skimrnn.data.registry import get_dataset
from skimrnn.reporting.confidence import ConfidenceTable, Number, confidence_tables
from skimrnn.reporting.evidence import Evidence
from skimrnn.reporting.html.cells import Cell
from skimrnn.reporting.html.origins import Origin, Origins, Part
from skimrnn.reporting.html.verdicts import source_of


@dataclass(frozen=True)
class CertaintyTable:
    """One table; `numeric` says of each column whether it is sorted by number."""

    caption: str
    headings: tuple[str, ...]
    numeric: list[bool]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Certainty:
    """The tables of one dataset."""

    dataset: str
    title: str
    tables: list[CertaintyTable]


def confidence_by_dataset(evidence: Evidence, folder: Path, origins: Origins) -> list[Certainty]:
    """The tables of each dataset of which a skimming model was analysed; `folder` holds the records."""
    found = []
    for dataset in evidence.config.datasets:
        title = get_dataset(dataset).title
        tables = [_table(title, table, evidence, folder, origins) for table in confidence_tables(evidence, dataset)]
        if tables:
            found.append(Certainty(dataset, title, tables))
    return found


def _table(title: str, table: ConfidenceTable, evidence: Evidence, folder: Path, origins: Origins) -> CertaintyTable:
    def cell_of(number: Number, name: str) -> Cell:
        note = f"{table.caption}. From what the analyses of these runs say."
        parts = tuple(Part(run, "", source_of(run, evidence, folder, origins)) for run in number.runs)
        return Cell(number.text, "ours", number.value, origins.add(Origin(name, number.text, note, parts)))

    rows = []
    for row in table.rows:
        labels = ", ".join(cell for cell in row if isinstance(cell, str))
        rows.append(
            [
                cell_of(cell, f"{title}, {labels}: {heading}") if isinstance(cell, Number) else Cell(cell, "label")
                for heading, cell in zip(table.headings, row, strict=True)
            ]
        )
    numeric = [isinstance(cell, Number) for cell in table.rows[0]]
    return CertaintyTable(table.caption, table.headings, numeric, rows)
