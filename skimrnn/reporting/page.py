"""The report as one HTML page that needs nothing else: no network, no other file."""

import base64
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from skimrnn.config import SkimLSTMConfig
from skimrnn.data.registry import get_dataset
from skimrnn.errors import explain_os_errors
from skimrnn.files import write_text
from skimrnn.reporting.figures import FIGURES
from skimrnn.reporting.records import Results, Run
from skimrnn.reporting.systems import system_titles
from skimrnn.reporting.table import (
    COLUMNS,
    LEGEND,
    NOTHING,
    WARNING,
    Row,
    commit_text,
    scale_title,
    table_caption,
    table_rows,
)
from skimrnn.training.record import read_timing


@dataclass(frozen=True)
class DatasetTable:
    """The table of one dataset."""

    title: str
    caption: str
    rows: list[Row]


@dataclass(frozen=True)
class Picture:
    """A figure as a `data:` address."""

    title: str
    caption: str
    alt: str
    source: str


def write_page(results: Results, figures: Path, path: Path) -> None:
    """Write the page to `path`; `figures` is the folder that `write_figures` wrote."""
    config = results.config
    environment = Environment(
        loader=PackageLoader("skimrnn.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    titles = system_titles(config)
    page = environment.get_template("index.html.j2").render(
        title=scale_title(results),
        warning=WARNING if results.synthetic else None,
        about=_about(results),
        legend=LEGEND,
        headings=[column.heading.split("\n") for column in COLUMNS],
        tables=[
            DatasetTable(get_dataset(dataset).title, table_caption(results, dataset), table_rows(results, dataset))
            for dataset in config.datasets
        ],
        pictures=[
            Picture(kind.title, kind.caption, kind.alt, _inline(figures / f"{kind.name}.svg")) for kind in FIGURES
        ],
        provenance=[_provenance(run, titles) for dataset in config.datasets for run in results.of_dataset(dataset)],
        missing=[
            (get_dataset(dataset).title, titles[model], seeds)
            for dataset in config.datasets
            for model in config.models
            if (seeds := results.missing_seeds(dataset, model))
        ],
    )
    write_text(path, page)


def _about(results: Results) -> str:
    """What the scale is: its grid and where its texts and word vectors come from."""
    config = results.config
    texts = "synthetic corpora that the package makes" if results.synthetic else "the real datasets"
    planned = len(config.models) * sum(len(config.seeds_of(dataset)) for dataset in config.datasets)
    return (
        f"The {config.scale} scale plans {len(config.models)} models on {len(config.datasets)} datasets, {planned} "
        f"runs over seeds, on {texts}. Each run trains with Adam at a learning rate of "
        f"{config.training.learning_rate:g}, stops when validation accuracy has not improved for "
        f"{config.training.patience:,} steps (at most {config.training.max_steps:,} steps in all), and scores the test "
        "split once, with the best weights by validation accuracy. This page is made from the records of the runs and "
        "the paper's published numbers alone."
    )


def _inline(path: Path) -> str:
    with explain_os_errors("read", path):
        return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _provenance(run: Run, titles: dict[str, str]) -> list[str]:
    record, timing = run.record, read_timing(run.path)
    minutes, seconds = divmod(round(timing.wall_seconds), 60)
    environment = record.training.environment
    return [
        get_dataset(record.config.dataset).title,
        titles[record.config.model_name],
        str(record.config.seed),
        f"{100 * record.test.accuracy:.1f} %",
        f"{100 * record.test.skim_rate:.1f} %" if isinstance(record.config.model, SkimLSTMConfig) else NOTHING,
        f"{record.training.steps:,} (best {record.training.best_step:,})",
        {"patience": "patience", "max_steps": "step limit"}[record.training.stopped],
        f"{minutes}:{seconds:02d}",
        str(environment.threads),
        environment.gpu or environment.cpu,
        commit_text(run),
        record.data.digest[:8],
    ]
