"""The tables of one task as Markdown, LaTeX, tidy CSV, and text for a terminal."""

import csv
import io
import textwrap
from pathlib import Path

from tabulate import tabulate

from skimrnn.config import SkimmingConfig
from skimrnn.files import write_text
from skimrnn.reporting.reading_table import reading_document
from skimrnn.reporting.records import Measured, Results
from skimrnn.reporting.table import Document, Entry, Row, Table, classification_document

_CELLS = "Each cell is paper | ours. "
_TERMINAL_WIDTH = 118
_TITLE_WIDTH = 28
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
    """Write the tables of a task into `folder`, named after it: `.md`, `.csv` and `.tex`."""
    name = document_of(results).name
    write_text(folder / f"{name}.md", markdown(results))
    write_text(folder / f"{name}.csv", tidy_csv(results))
    write_text(folder / f"{name}.tex", latex(results))


def document_of(results: Results) -> Document:
    """The tables of the task that the results are about."""
    if results.config.tasks == ["question_answering"]:
        return reading_document(results)
    return classification_document(results)


def markdown(results: Results) -> str:
    """One table a dataset, each with its caption below."""
    document = document_of(results)
    parts = [
        f"# {document.title}",
        *([f"**{document.warning}**"] if document.warning else []),
        _CELLS + document.legend,
    ]
    for table in document.tables:
        # A bar would end the cell, a line break the row.
        headings, *rows = ([cell.replace("|", "\\|").replace("\n", "<br>") for cell in row] for row in _cells(table))
        text = tabulate(rows, headings, tablefmt="github", disable_numparse=True)
        parts += [f"## {table.title}", text, table.caption]
    return "\n\n".join(parts) + "\n"


def terminal(results: Results) -> str:
    """The tables for a terminal of some 120 columns."""
    document = document_of(results)
    parts = [document.title, *([document.warning] if document.warning else [])]
    for table in document.tables:
        headings, *rows = _cells(table)
        text = tabulate(rows, headings, tablefmt="simple", disable_numparse=True, maxcolwidths=[_TITLE_WIDTH])
        parts += [f"{table.title}\n{text}", table.caption]
    parts.append(_CELLS + document.legend)
    return "\n\n".join(part if "\n" in part else textwrap.fill(part, _TERMINAL_WIDTH) for part in parts)


def latex(results: Results) -> str:
    r"""One `table` environment a dataset, for `\input` in a document that uses booktabs."""
    document = document_of(results)
    parts = [r"% Needs \usepackage{booktabs} in the preamble."]
    for table in document.tables:
        headings, *rows = _cells(table)
        text = tabulate(rows, headings, tablefmt="latex_booktabs", disable_numparse=True).translate(_LATEX_SIGNS)
        for heading in headings:
            if "\n" in heading:
                stacked = heading.replace("\n", r" \\ ")
                text = text.replace(heading, rf"\shortstack[l]{{{stacked}}}")
        warning = f"{document.warning} " if document.warning else ""
        caption = f"{table.title}. {warning}{table.caption} {_CELLS}{document.legend}"
        parts.append(
            "\\begin{table}\n"
            "\\centering\\scriptsize\\setlength{\\tabcolsep}{4pt}\n"
            f"{text}\n"
            f"\\caption{{{caption.translate(_LATEX_SPECIAL).translate(_LATEX_SIGNS)}}}\n"
            "\\end{table}"
        )
    return "\n\n".join(parts) + "\n"


def tidy_csv(results: Results) -> str:
    """One line a number: percent for accuracy, F1, EM and skim rate, ratios for the rest.

    A value that holds by definition (the standard LSTM's ratios) has no n and no seeds.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    for table in document_of(results).tables:
        for row in table.rows:
            for entry in row.entries:
                writer.writerow([table.dataset, row.name, *_settings(row), *_values(entry)])
    return file.getvalue()


def _cells(table: Table) -> list[list[str]]:
    """The headings, then the rows, as text."""
    headings = ["System", *(column.heading for column in table.columns)]
    return [headings, *([row.title, *map(str, row.entries)] for row in table.rows)]


def _settings(row: Row) -> list[int | float | str]:
    if row.model is None:
        return ["", "", ""]
    if isinstance(row.model, SkimmingConfig):
        return [row.model.hidden_size, row.model.small_size, row.model.gamma]
    return [row.model.hidden_size, "", ""]


def _values(entry: Entry) -> list[str]:
    column = entry.column
    known = [column.metric, column.convention, _number(entry.published)]
    if not isinstance(entry.ours, Measured):
        return [*known, _number(entry.ours), "", "", ""]
    ours = entry.ours
    return [*known, _number(ours.mean), _number(ours.sd), str(len(ours.values)), " ".join(map(str, ours.seeds))]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
