"""The table of datasets as the page shows it: what the paper prints of each, and what we count."""

from dataclasses import dataclass
from pathlib import Path

from skimrnn.data.registry import get_dataset
from skimrnn.data.statistics import DatasetStatistics
from skimrnn.published import published_value
from skimrnn.reporting.datasets import best_convention, dataset_remarks, read_counts
from skimrnn.reporting.html.cells import Cell
from skimrnn.reporting.html.origins import Origin, Origins, Part
from skimrnn.reporting.table import NOTHING

_MEASURES = {
    "train_examples": "Train",
    "validation_examples": "Validation",
    "test_examples": "Test",
    "mean_length": "Mean length",
    "vocabulary_size": "Vocabulary",
}
_PRINTED = "Printed in the paper's table of datasets (skimrnn/published/numbers.csv)."


@dataclass(frozen=True)
class Corpus:
    """One dataset: its paper and our count of each measure, in turn."""

    dataset: str
    title: str
    cells: list[Cell]
    licence: str


@dataclass(frozen=True)
class Corpora:
    """All datasets that were counted."""

    measures: list[str]
    note: str
    rows: list[Corpus]
    remarks: list[str]


def read_corpora(path: Path, origins: Origins) -> Corpora | None:
    """The counts that lie at `path`; None where there are none."""
    if not (counted := read_counts(path)):
        return None
    vocabulary, distance = best_convention(counted, "vocabulary")
    length, _ = best_convention(counted, "mean_length")
    note = (
        f"Mean length: tokens of a text over all labelled splits, {length}. Vocabulary: distinct words, {vocabulary}."
    )
    if distance is not None:
        note += " Of the conventions that were counted these lie nearest to the paper's figures."
    rows = [
        Corpus(
            entry.dataset,
            get_dataset(entry.dataset).title,
            _cells(entry, length, vocabulary, path, origins),
            get_dataset(entry.dataset).licence,
        )
        for entry in counted
    ]
    return Corpora(list(_MEASURES.values()), note, rows, dataset_remarks(counted))


def _cells(entry: DatasetStatistics, length: str, vocabulary: str, path: Path, origins: Origins) -> list[Cell]:
    """The paper's number and ours of each measure, in turn."""
    facts = {
        "Source": f"{entry.source}{'' if entry.complete else ', incomplete'}",
        "Revision": entry.revision or NOTHING,
        **{f"SHA-256, {split}": digest for split, digest in entry.digests.items()},
    }
    parts = (Part(entry.dataset, "", origins.source(path, facts, entry.dataset)),)
    counts = {f"{split}_examples": float(rows) for split, rows in entry.rows.items()}
    counts |= {"mean_length": entry.mean_length[length], "vocabulary_size": float(entry.vocabulary[vocabulary])}
    cells = []
    for metric, title in _MEASURES.items():
        name = f"{get_dataset(entry.dataset).title}: {title.lower()}"
        for side, value, note, sources in (
            ("paper", published_value(entry.dataset, "", metric), _PRINTED, ()),
            ("ours", counts.get(metric), "Counted in the texts as they were fetched.", parts),
        ):
            if value is None:
                cells.append(Cell(NOTHING, "absent"))
            else:
                text = f"{value:,.0f}"
                cells.append(Cell(text, side, value, origins.add(Origin(f"{name}, {side}", text, note, sources))))
    return cells
