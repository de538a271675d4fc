"""The report as one HTML page that needs nothing else: no network, no other file."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from skimrnn.config import SkimLSTMAttConfig, SkimLSTMConfig
from skimrnn.data.registry import get_dataset
from skimrnn.errors import explain_os_errors
from skimrnn.files import write_text
from skimrnn.reporting.figures import figures_of
from skimrnn.reporting.records import Results, Run
from skimrnn.reporting.systems import system_titles
from skimrnn.reporting.table import NOTHING, Document, commit_text
from skimrnn.reporting.table_formats import document_of
from skimrnn.training.record import Record, read_timing


@dataclass(frozen=True)
class Picture:
    """A figure as a `data:` address."""

    title: str
    caption: str
    alt: str
    source: str


@dataclass(frozen=True)
class Part:
    """What the page says about one task."""

    document: Document
    about: str
    pictures: list[Picture]


def write_page(tasks: Sequence[Results], figures: Path, path: Path) -> None:
    """Write the page to `path`, from the results of each task; `write_figures` has filled the folder `figures`."""
    environment = Environment(
        loader=PackageLoader("skimrnn.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts, provenance, missing = [], [], []
    for results in tasks:
        config, document = results.config, document_of(results)
        pictures = [
            Picture(kind.title, kind.caption, kind.alt, _inline(figures / f"{kind.name}.svg"))
            for kind in figures_of(results)
        ]
        parts.append(Part(document, _about(results), pictures))
        titles = system_titles(config)
        for dataset in config.datasets:
            provenance += [_provenance(run, titles) for run in results.of_dataset(dataset)]
            missing += [
                (get_dataset(dataset).title, titles[model], seeds)
                for model in config.models
                if (seeds := results.missing_seeds(dataset, model))
            ]
    page = environment.get_template("index.html.j2").render(
        title=f"Skim-RNN, {tasks[0].config.scale} scale",
        warning=parts[0].document.warning,
        parts=parts,
        provenance=provenance,
        missing=missing,
    )
    write_text(path, page)


def _about(results: Results) -> str:
    """What the scale plans for a task: its grid and where its texts and word vectors come from."""
    config = results.config
    texts = "synthetic corpora that the package makes" if results.synthetic else "the real datasets"
    planned = len(config.models) * sum(len(config.seeds_of(dataset)) for dataset in config.datasets)
    dataset, model = next(iter(config.datasets)), next(iter(config.models))
    training = config.run(dataset, model, 0).training
    if config.tasks == ["question_answering"]:
        measure, scored = "F1 on the development set", "keeps the weights that were best by it"
    else:
        measure, scored = (
            "validation accuracy",
            "scores the test split once, with the best weights by validation accuracy",
        )
    return (
        f"The {config.scale} scale plans {len(config.models)} models on {len(config.datasets)} "
        f"dataset{'s' * (len(config.datasets) > 1)}, {planned} runs over seeds, on {texts}. Each run trains with Adam "
        f"at a learning rate of {training.learning_rate:g}, stops when {measure} has not improved for "
        f"{training.patience:,} steps (at most {training.max_steps:,} steps in all), and {scored}. This page is made "
        "from the records of the runs and the paper's published numbers alone."
    )


def _inline(path: Path) -> str:
    with explain_os_errors("read", path):
        return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _provenance(run: Run, titles: dict[str, str]) -> list[str]:
    record, timing = run.record, read_timing(run.path)
    minutes, seconds = divmod(round(timing.wall_seconds), 60)
    environment = record.training.environment
    skims = isinstance(record.config.model, SkimLSTMConfig | SkimLSTMAttConfig)
    return [
        get_dataset(record.config.dataset).title,
        titles[record.config.model_name],
        str(record.config.seed),
        f"{100 * (record.test.accuracy if isinstance(record, Record) else record.test.f1):.1f} %",
        f"{100 * record.test.skim_rate:.1f} %" if skims else NOTHING,
        f"{record.training.steps:,} (best {record.training.best_step:,})",
        {"patience": "patience", "max_steps": "step limit", "unfinished": "not finished"}[record.training.stopped],
        f"{minutes}:{seconds:02d}",
        str(environment.threads),
        environment.gpu or environment.cpu,
        commit_text(run),
        record.data.digest[:8],
    ]
