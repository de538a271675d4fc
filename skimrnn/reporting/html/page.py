"""The report as one HTML page that needs nothing else: no network, no other file."""

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from skimrnn.analysis.artefact import TRAINED_FOR
from skimrnn.counts import count_of
from skimrnn.data.registry import get_dataset
from skimrnn.errors import explain_os_errors
from skimrnn.files import write_text
from skimrnn.reporting.claims import INTRODUCTION
from skimrnn.reporting.confidence import LEGEND
from skimrnn.reporting.evidence import Evidence
from skimrnn.reporting.figures import figures_of
from skimrnn.reporting.html.cells import CellTable, TableMaker
from skimrnn.reporting.html.certainty import confidence_by_dataset
from skimrnn.reporting.html.corpora import read_corpora
from skimrnn.reporting.html.origins import STOPPED_BY, Origins, duration
from skimrnn.reporting.html.pictures import Picture
from skimrnn.reporting.html.speed import read_benchmark
from skimrnn.reporting.html.summary import summarise
from skimrnn.reporting.html.texts import TextMaker
from skimrnn.reporting.html.verdicts import MARKS, score_claims
from skimrnn.reporting.records import Results, Run
from skimrnn.reporting.systems import skims, system_titles
from skimrnn.reporting.table import NOTHING
from skimrnn.reporting.table_formats import document_of
from skimrnn.training.record import Record, read_timing


@dataclass(frozen=True)
class Task:
    """What the page says about one task."""

    name: str
    title: str
    about: str
    legend: str
    tables: list[CellTable]
    pictures: list[Picture]


@dataclass(frozen=True)
class Missing:
    """Runs of the grid that have no record."""

    dataset: str
    title: str
    model: str
    seeds: str


def write_page(evidence: Evidence, folder: Path, figures: Path, path: Path) -> None:
    """Write the page to `path`, from what was run, read from `folder`; `figures` holds the figures."""
    environment = Environment(
        loader=PackageLoader("skimrnn.reporting.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    origins, texts = Origins(), TextMaker()
    tasks = list(evidence.results.values())
    documents = [document_of(results) for results in tasks]
    parts = [
        Task(
            document.name,
            document.title,
            _about(results),
            document.legend,
            TableMaker(results, document, folder, origins).tables(),
            [
                Picture.inline(kind.title, kind.caption_of(results), kind.alt, _read(figures / f"{kind.name}.svg"))
                for kind in figures_of(results)
            ],
        )
        for results, document in zip(tasks, documents, strict=True)
    ]
    libraries = texts.libraries(evidence)
    scorecard = score_claims(evidence, folder, origins)
    page = environment.get_template("index.html.j2").render(
        scale=evidence.config.scale,
        warning=documents[0].warning,
        datasets=[(name, get_dataset(name).title) for results in tasks for name in results.config.datasets],
        summary=summarise(tasks),
        scorecard=scorecard,
        marks=MARKS,
        introduction=INTRODUCTION,
        tasks=parts,
        certainties=confidence_by_dataset(evidence, folder, origins),
        confidence_legend=LEGEND,
        libraries=libraries,
        trained_for=TRAINED_FOR,
        benchmark=read_benchmark(folder / "benchmark" / "cpu.json"),
        corpora=read_corpora(folder / evidence.config.scale / "datasets.json", origins),
        missing=[missing for results in tasks for missing in _missing(results)],
        provenance=[
            (dataset, _provenance(run, system_titles(results.config)))
            for results in tasks
            for dataset in results.config.datasets
            for run in results.of_dataset(dataset)
        ],
        data=origins.as_json() | {"texts": texts.swept},
    )
    write_text(path, page)


def _about(results: Results) -> str:
    """What the scale plans for a task: its grid and where its texts and word vectors come from."""
    config = results.config
    texts = "synthetic corpora that the package makes" if results.synthetic else "the real datasets"
    if not results.synthetic and (own := [d for d in config.datasets if not get_dataset(d).on_hub]):
        texts += f" and {count_of(len(own), 'stand-in')} of ours"
    counts = [len(config.models_of(dataset)) for dataset in config.datasets]
    planned = sum(config.planned(dataset) for dataset in config.datasets)
    fewest, most = min(counts), max(counts)
    models = count_of(most, "model") if fewest == most else f"{fewest} to {count_of(most, 'model')}"
    runs = [config.run(d, next(iter(config.models_of(d))), config.seeds_of(d)[0]) for d in config.datasets]

    def each(setting: str) -> str:
        return " or ".join(f"{value:,}" for value in sorted({getattr(run.training, setting) for run in runs}))

    if config.tasks == ["question_answering"]:
        measure, scored = "F1 on the development set", "keeps the weights that were best by it"
    else:
        measure, scored = (
            "validation accuracy",
            "scores the test split once, with the best weights by validation accuracy",
        )
    return (
        f"The {config.scale} scale plans {models} on "
        f"{count_of(len(config.datasets), 'dataset')}, {count_of(planned, 'run')} over seeds, on {texts}. "
        f"Each run trains with Adam at a learning rate of {each('learning_rate')}, stops when {measure} has not "
        f"improved for {each('patience')} steps (at most {each('max_steps')} in all), and {scored}."
    )


def _read(path: Path) -> bytes:
    with explain_os_errors("read", path):
        return path.read_bytes()


def _missing(results: Results) -> list[Missing]:
    """What was not run: a line a model, or one for a dataset without any record."""
    titles, missing = system_titles(results.config), []
    for dataset in results.config.datasets:
        title = get_dataset(dataset).title
        if not results.of_dataset(dataset):
            seeds = ", ".join(map(str, results.config.seeds_of(dataset)))
            missing.append(Missing(dataset, title, "all models", seeds))
            continue
        for model in results.config.models_of(dataset):
            if seeds := ", ".join(map(str, results.missing_seeds(dataset, model))):
                missing.append(Missing(dataset, title, titles[model], seeds))
    return missing


def _provenance(run: Run, titles: dict[str, str]) -> list[str]:
    record, timing = run.record, read_timing(run.path)
    environment = record.training.environment
    return [
        get_dataset(record.config.dataset).title,
        titles[record.config.model_name],
        str(record.config.seed),
        f"{100 * (record.test.accuracy if isinstance(record, Record) else record.test.f1):.1f} %",
        f"{100 * record.test.skim_rate:.1f} %" if skims(record.config.model) else NOTHING,
        f"{record.training.steps:,} (best {record.training.best_step:,})",
        STOPPED_BY[record.training.stopped],
        duration(timing.wall_seconds),
        str(environment.threads),
        environment.gpu or environment.cpu,
        environment.commit_text(8),
        record.data.digest[:8],
    ]
