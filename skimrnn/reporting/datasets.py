"""The table of datasets: what the paper prints of each, and what we count, in Markdown, CSV and LaTeX."""

import csv
import io
from pathlib import Path

from pydantic import RootModel
from tabulate import tabulate

from skimrnn.counts import count_of
from skimrnn.data.registry import DATASETS, Dataset, get_dataset
from skimrnn.data.statistics import DatasetStatistics
from skimrnn.files import read_model, write_text
from skimrnn.published import published_value

NOT_AT_HAND = "not at hand"
"""What stands in place of a count where there was nothing to count."""

_SPLITS = ("train", "validation", "test")


class DatasetCounts(RootModel[list[DatasetStatistics]]):
    """The file that `data stats` writes."""


def read_counts(path: Path) -> list[DatasetStatistics]:
    """The counts at `path`, where `data stats` wrote any; a malformed file is a `UserError`."""
    return read_model(path, DatasetCounts).root if path.exists() else []


def write_dataset_tables(counted: list[DatasetStatistics], folder: Path) -> None:
    """Write `datasets.md`, `.csv` and `.tex` into `folder`."""
    write_text(folder / "datasets.md", dataset_markdown(counted))
    write_text(folder / "datasets.csv", _csv(counted))
    write_text(folder / "datasets.tex", _latex(counted))


def best_convention(counted: list[DatasetStatistics], measure: str) -> tuple[str, float | None]:
    """The convention whose counts lie nearest to the paper's, and its mean relative distance (0 to 1).

    Over the datasets that are complete and that the paper prints: where there is none, the first convention, and None.
    `measure` is `vocabulary` or `mean_length`.
    """
    distances = {}
    for name in getattr(counted[0], measure):
        printed = [(getattr(entry, measure)[name], _printed(entry, measure)) for entry in counted if entry.complete]
        relative = [abs(ours - paper) / paper for ours, paper in printed if paper is not None]
        if relative:
            distances[name] = sum(relative) / len(relative)
    if not distances:
        return next(iter(getattr(counted[0], measure))), None
    return min(distances.items(), key=lambda item: item[1])


def dataset_markdown(counted: list[DatasetStatistics]) -> str:
    """The table, what was counted how, and what is incomplete or stands in two splits."""
    vocabulary, distance = best_convention(counted, "vocabulary")
    length, length_distance = best_convention(counted, "mean_length")
    nearest = ""
    if length_distance is not None and distance is not None:
        nearest = (
            ": of the conventions below these lie nearest to the paper's figures (mean distance over the complete "
            f"datasets {_percent(length_distance)} and {_percent(distance)})"
        )
    parts = [
        "# Datasets: paper and ours",
        "Each cell is paper | ours; '-': nothing printed; 'not at hand': no copy of the dataset to count. Mean length: "
        f"tokens of a text over all labelled splits, {length} (of a question, those of its context); vocabulary: "
        f"distinct words of train, {vocabulary}{nearest}.",
        _markdown_table(_headings(), _rows(counted, vocabulary, length)),
        *(["\n".join(f"- {remark}" for remark in remarks)] if (remarks := dataset_remarks(counted)) else []),
        "## Conventions",
        "Paper, then each count with its distance from the paper's figure. GloVe: the 400,000 words of glove.6B.",
        *(_convention_table(counted, measure) for measure in ("vocabulary", "mean_length")),
    ]
    return "\n\n".join(parts) + "\n"


def _headings() -> list[str]:
    return ["Dataset", *(name.capitalize() for name in _SPLITS), "Mean length", "Vocabulary", "Classes", "Licence"]


def _rows(counted: list[DatasetStatistics], vocabulary: str, length: str) -> list[list[str]]:
    """A row for each dataset that was counted, and for each other one that the paper has."""
    entries = {entry.dataset: entry for entry in counted}
    return [
        _row(dataset, entries.get(name), vocabulary, length)
        for name, dataset in DATASETS.items()
        if name in entries or dataset.on_hub
    ]


def _row(dataset: Dataset, entry: DatasetStatistics | None, vocabulary: str, length: str) -> list[str]:
    def cell(metric: str, ours: float | None) -> str:
        shown = NOT_AT_HAND if entry is None else _number(ours)
        return f"{_number(published_value(dataset.name, '', metric))} | {shown}"

    classes = "a span of the text" if dataset.task == "question_answering" else str(len(dataset.classes))
    return [
        dataset.title,
        *(cell(f"{split}_examples", entry.rows.get(split) if entry else None) for split in _SPLITS),
        cell("mean_length", entry.mean_length[length] if entry else None),
        cell("vocabulary_size", entry.vocabulary[vocabulary] if entry else None),
        "10 candidates" if dataset.cloze else classes,
        dataset.licence,
    ]


def dataset_remarks(counted: list[DatasetStatistics]) -> list[str]:
    """What is incomplete, a stand-in, in two splits, or empty."""
    remarks = []
    for entry in counted:
        dataset = get_dataset(entry.dataset)
        if not entry.complete:
            missing = [
                f"{split} holds {rows:,} of {dataset.rows[split]:,} rows"
                for split, rows in entry.fetched_rows.items()
                if rows != dataset.rows[split]
            ]
            remarks.append(f"{dataset.title} is incomplete: {', '.join(missing)}.")
        if not dataset.on_hub:
            remarks.append(f"{dataset.title}: a stand-in of ours; it is not the Children's Book Test.")
        remarks += [
            f"{dataset.title}: {count_of(count, 'text')} of {pair.replace(' that stand in ', ' also in ')}."
            for pair, count in entry.leaks.items()
        ]
        if entry.empty:
            remarks.append(f"{dataset.title}: {count_of(entry.empty, 'text')} without a token.")
    return remarks


def _convention_table(counted: list[DatasetStatistics], measure: str) -> str:
    rows = []
    for name in getattr(counted[0], measure):
        cells = []
        for entry in counted:
            ours, paper = getattr(entry, measure)[name], _printed(entry, measure)
            cells.append(_number(ours) + ("" if paper is None else f" ({100 * (ours - paper) / paper:+.0f} %)"))
        rows.append([name, *cells])
    printed = ["paper", *(_number(_printed(entry, measure)) for entry in counted)]
    title = {"vocabulary": "Vocabulary", "mean_length": "Mean length"}[measure]
    return _markdown_table([title, *(get_dataset(entry.dataset).title for entry in counted)], [printed, *rows])


def _csv(counted: list[DatasetStatistics]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["dataset", "metric", "convention", "published", "ours"])
    for entry in counted:
        for split in _SPLITS:
            printed = published_value(entry.dataset, "", f"{split}_examples")
            writer.writerow([entry.dataset, f"{split}_examples", "", _plain(printed), _plain(entry.rows.get(split))])
        for measure, metric in (("mean_length", "mean_length"), ("vocabulary", "vocabulary_size")):
            for name, ours in getattr(entry, measure).items():
                writer.writerow([entry.dataset, metric, name, _plain(_printed(entry, measure)), _plain(ours)])
    return file.getvalue()


def _latex(counted: list[DatasetStatistics]) -> str:
    vocabulary, _ = best_convention(counted, "vocabulary")
    length, _ = best_convention(counted, "mean_length")
    rows = [row[:-1] for row in _rows(counted, vocabulary, length)]
    table = tabulate(rows, _headings()[:-1], "latex_booktabs", disable_numparse=True).replace("|", "$|$")
    incomplete = [get_dataset(entry.dataset).title for entry in counted if not entry.complete]
    missing = f" Incomplete: {', '.join(incomplete)}." if incomplete else ""
    caption = f"Datasets, paper $|$ ours. Mean length: {length}. Vocabulary: {vocabulary}.{missing}"
    return (
        "% Needs \\usepackage{booktabs} in the preamble.\n\n\\begin{table}\n\\centering\\scriptsize\n"
        f"{table}\n\\caption{{{caption}}}\n\\end{{table}}\n"
    )


def _markdown_table(headings: list[str], rows: list[list[str]]) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(escaped, headings, "github", disable_numparse=True)


def _printed(entry: DatasetStatistics, measure: str) -> float | None:
    return published_value(entry.dataset, "", {"vocabulary": "vocabulary_size", "mean_length": measure}[measure])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"
