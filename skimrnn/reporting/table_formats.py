"""The classification table as Markdown, LaTeX, tidy CSV, and text for a terminal."""

import csv
import io
import textwrap
from pathlib import Path

from tabulate import tabulate

from skimrnn.config import SkimLSTMConfig
from skimrnn.data.registry import get_dataset
from skimrnn.files import write_text
from skimrnn.reporting.records import Measured, Results
from skimrnn.reporting.table import (
    COLUMNS,
    LEGEND,
    WARNING,
    Entry,
    Row,
    scale_title,
    table_caption,
    table_rows,
)

_TERMINAL_WIDTH = 118
_CSV_HEADER = [
    *("dataset", "model", "d", "d_small", "gamma", "metric", "convention"),
    *("published", "measured_mean", "measured_sd", "n", "seeds"),
]
_LATEX_SPECIAL = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
)
_LATEX_SIGNS = str.maketrans({"|": "$|$", "±": r"$\pm$", "γ": r"$\gamma$", "²": "$^2$"})


def write_tables(results: Results, folder: Path) -> None:
    """Write `classification.md`, `.csv` and `.tex` into `folder`."""
    write_text(folder / "classification.md", markdown(results))
    write_text(folder / "classification.csv", tidy_csv(results))
    write_text(folder / "classification.tex", latex(results))


def markdown(results: Results) -> str:
    """One table a dataset, each with its caption below."""
    parts = [f"# {scale_title(results)}", *([f"**{WARNING}**"] if results.synthetic else []), LEGEND]
    for dataset in results.config.datasets:
        # A bar would end the cell, a line break the row.
        headings, *rows = (
            [cell.replace("|", "\\|").replace("\n", "<br>") for cell in row] for row in _cells(results, dataset)
        )
        table = tabulate(rows, headings, tablefmt="github", disable_numparse=True)
        parts += [f"## {get_dataset(dataset).title}", table, table_caption(results, dataset)]
    return "\n\n".join(parts) + "\n"


def terminal(results: Results) -> str:
    """The tables for a terminal of some 120 columns."""
    parts = [scale_title(results), *([WARNING] if results.synthetic else [])]
    for dataset in results.config.datasets:
        headings, *rows = _cells(results, dataset)
        table = tabulate(rows, headings, tablefmt="simple", disable_numparse=True)
        parts += [f"{get_dataset(dataset).title}\n{table}", table_caption(results, dataset)]
    return "\n\n".join(part if "\n" in part else textwrap.fill(part, _TERMINAL_WIDTH) for part in [*parts, LEGEND])


def latex(results: Results) -> str:
    r"""One `table` environment a dataset, for `\input` in a document that uses booktabs."""
    parts = [r"% Needs \usepackage{booktabs} in the preamble."]
    for dataset in results.config.datasets:
        headings, *rows = _cells(results, dataset)
        table = tabulate(rows, headings, tablefmt="latex_booktabs", disable_numparse=True).translate(_LATEX_SIGNS)
        for heading in headings:
            if "\n" in heading:
                stacked = heading.replace("\n", r" \\ ")
                table = table.replace(heading, rf"\shortstack[l]{{{stacked}}}")
        warning = f"{WARNING} " if results.synthetic else ""
        caption = f"{get_dataset(dataset).title}. {warning}{table_caption(results, dataset)} {LEGEND}"
        parts.append(
            "\\begin{table}\n"
            "\\centering\\scriptsize\\setlength{\\tabcolsep}{4pt}\n"
            f"{table}\n"
            f"\\caption{{{caption.translate(_LATEX_SPECIAL).translate(_LATEX_SIGNS)}}}\n"
            "\\end{table}"
        )
    return "\n\n".join(parts) + "\n"


def tidy_csv(results: Results) -> str:
    """One line a number: percent for accuracy and skim rate, ratios for the rest.

    A value that holds by definition (the standard LSTM's ratios) has no n and no seeds.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    for dataset in results.config.datasets:
        for row in table_rows(results, dataset):
            for entry in row.entries:
                writer.writerow([dataset, row.name, *_settings(row), *_values(entry, row.seeds)])
    return file.getvalue()


def _cells(results: Results, dataset: str) -> list[list[str]]:
    """The headings, then the rows, as text."""
    headings = ["System", *(column.heading for column in COLUMNS)]
    return [headings, *([row.title, *map(str, row.entries)] for row in table_rows(results, dataset))]


def _settings(row: Row) -> list[int | float | str]:
    if row.model is None:
        return ["", "", ""]
    if isinstance(row.model, SkimLSTMConfig):
        return [row.model.hidden_size, row.model.small_size, row.model.gamma]
    return [row.model.hidden_size, "", ""]


def _values(entry: Entry, seeds: tuple[int, ...]) -> list[str]:
    column = entry.column
    known = [column.metric, column.convention, _number(entry.published)]
    if not isinstance(entry.ours, Measured):
        return [*known, _number(entry.ours), "", "", ""]
    ours = [_number(entry.ours.mean), _number(entry.ours.sd), str(len(seeds)), " ".join(map(str, seeds))]
    return [*known, *ours]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
