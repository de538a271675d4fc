"""`python -m skimrnn VERB`: what the rules of the workflow call, and what a person can call without Snakemake."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from skimrnn.allocator import take_memory_in_large_blocks
from skimrnn.config import LARGEST_SEED, read_config
from skimrnn.data.registry import Task
from skimrnn.errors import UserError, interrupt_on_termination, machine_failure
from skimrnn.files import atomic_folder

if TYPE_CHECKING:
    from skimrnn.data.registry import Dataset

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

data = typer.Typer(no_args_is_help=True, help="What data is there, and getting, checking and describing it.")
app.add_typer(data, name="data")

Verb = TypeVar("Verb", bound=Callable[..., None])
ConfigOption = Annotated[
    Path,
    typer.Option("--config", envvar="SKIMRNN_CONFIG", help="YAML file of the scale, such as config/paper.yaml."),
]
DatasetOption = Annotated[str, typer.Option(help="Name of the dataset, such as sst.")]
ModelOption = Annotated[str, typer.Option(help="Name of the model in the config.")]
SeedOption = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the run.")]
DeviceOption = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="CPU threads (results may differ in rounding between counts).")]
PreparedOption = Annotated[Path, typer.Option(help="Prepared folder of the dataset.")]
RunOption = Annotated[Path, typer.Option(help="Folder of the run: weights, history, checkpoint.")]
RunsOption = Annotated[Path, typer.Option(help="Folder of the runs: <dataset>/<model>/<seed>/weights.safetensors.")]
ResultsOption = Annotated[Path, typer.Option(help="Folder of the records: <scale>/<dataset>/<model>/<seed>.json.")]


def command_of(group: typer.Typer) -> Callable[[Verb], Verb]:
    """Makes commands of a group that end a `UserError`, or a machine that fails, with one line and exit code 2."""

    def command(function: Verb) -> Verb:
        @wraps(function)
        def wrapped(*arguments: Any, **options: Any) -> None:
            try:
                function(*arguments, **options)
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)
                raise typer.Exit(2) from None
            except KeyboardInterrupt:
                print("interrupted: run the same command to go on", file=sys.stderr)
                raise typer.Exit(130) from None
            except (MemoryError, OSError, RuntimeError) as error:
                if (failure := machine_failure(error)) is None:
                    raise
                print(f"error: {failure}", file=sys.stderr)
                raise typer.Exit(2) from None

        return group.command(function.__name__.removeprefix("data_").replace("_", "-"))(wrapped)  # type: ignore[return-value]

    return command


verb = command_of(app)
data_verb = command_of(data)


@verb
def fetch(
    config: ConfigOption,
    dataset: DatasetOption,
    output: Annotated[Path, typer.Option(help="Folder for the parquet files and their manifest.")],
) -> None:
    """Bring the raw texts of a dataset from the hub, a mirror or the embedded corpora."""
    from skimrnn.data.registry import get_dataset
    from skimrnn.data.sources import fetch_dataset

    data = read_config(config).data
    with atomic_folder(output) as folder:
        fetch_dataset(get_dataset(dataset), data.source, data.mirror, folder)


@verb
def tokenise(
    config: ConfigOption,
    dataset: DatasetOption,
    raw: Annotated[Path, typer.Option(help="Folder that fetch wrote.")],
    output: Annotated[Path, typer.Option(help="Folder for the tokenised splits.")],
    processes: Annotated[int, typer.Option(min=1, help="Processes to use.")] = 1,
) -> None:
    """Split texts into lower-cased tokens; set a validation split apart where the release has none; align answers."""
    from skimrnn.data.registry import get_dataset
    from skimrnn.data.squad import tokenise_questions
    from skimrnn.data.tokens import tokenise_dataset

    with atomic_folder(output) as folder:
        if get_dataset(dataset).task == "question_answering":
            tokenise_questions(get_dataset(dataset), raw, folder, processes)
        else:
            tokenise_dataset(get_dataset(dataset), raw, folder, read_config(config).data.seed, processes)


@verb
def vectors(
    config: ConfigOption,
    output: Annotated[Path, typer.Option(dir_okay=False, help="File for the words and their vectors.")],
    tokens: Annotated[list[Path] | None, typer.Option(help="Tokenised folders, for vectors.source corpus.")] = None,
) -> None:
    """Get word vectors: download GloVe, read a file, or train word2vec on the texts."""
    from skimrnn.data.vectors import make_vectors, write_vectors

    settings = read_config(config).vectors
    write_vectors(output, *make_vectors(settings, tokens or [], output.with_name("glove.6B.zip")))


@verb
def prepare(
    config: ConfigOption,
    dataset: DatasetOption,
    tokens: Annotated[Path, typer.Option(help="Folder that tokenise wrote.")],
    vectors: Annotated[Path, typer.Option(help="File that vectors wrote.")],
    output: Annotated[Path, typer.Option(help="Folder for the prepared data.")],
) -> None:
    """Make what training reads: word numbers, labels or answer spans, and word vectors."""
    from skimrnn.data.prepare import prepare_dataset
    from skimrnn.data.questions import prepare_questions
    from skimrnn.data.registry import get_dataset

    make = prepare_questions if get_dataset(dataset).task == "question_answering" else prepare_dataset
    with atomic_folder(output) as folder:
        make(get_dataset(dataset), tokens, vectors, read_config(config).vectors, folder)


@verb
def train(
    config: ConfigOption,
    dataset: DatasetOption,
    model: ModelOption,
    seed: SeedOption,
    prepared: PreparedOption,
    output: RunOption,
    threads: ThreadsOption = 1,
    start: Annotated[Path | None, typer.Option(help="Weights to start from, for a model with init_from.")] = None,
    until: Annotated[int | None, typer.Option(min=1, help="Stop at this step and keep its weights.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train one model; a run that was killed goes on from its checkpoint."""
    import torch

    from skimrnn.data.prepare import open_prepared
    from skimrnn.device import pick_device
    from skimrnn.training.progress import ProgressReporter
    from skimrnn.training.train import are_first_steps
    from skimrnn.training.train import train as train_run

    settings, where = read_config(config), pick_device(device)
    run, data = settings.run(dataset, model, seed), open_prepared(prepared, dataset)
    first = settings.first_steps(dataset, model)
    if first is None or first.model == model:
        if start is not None:
            raise UserError(f"{model} starts from no other model: leave --start out")
    elif start is None:
        raise UserError(f"{model} starts from step {first.step} of {first.model}: give those weights with --start")
    elif not are_first_steps(start, settings.run(dataset, first.model, seed), data):
        made = f"train {first.model} with --seed {seed} --until {first.step}"
        raise UserError(f"{start}: no first steps of {first.model} with this config, data, code and seed: {made}")
    torch.set_num_threads(threads)
    with ProgressReporter(f"{dataset} {model} {seed}") as reporter:
        train_run(
            run,
            data,
            output,
            reporter,
            start=start,
            until=until,
            device=where,
        )


@verb
def evaluate(
    config: ConfigOption,
    dataset: DatasetOption,
    model: ModelOption,
    seed: SeedOption,
    prepared: PreparedOption,
    run: RunOption,
    output: Annotated[Path, typer.Option(dir_okay=False, help="File for the record (JSON).")],
    threads: ThreadsOption = 1,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Score a reader as far as it was trained; the record says so.")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Score a trained model on the test split, once (on the development set for SQuAD), and write its record."""
    import torch

    from skimrnn.data.prepare import open_prepared
    from skimrnn.device import pick_device
    from skimrnn.training.record import write_reading_record, write_record

    settings = read_config(config).run(dataset, model, seed)
    torch.set_num_threads(threads)
    where, data = pick_device(device), open_prepared(prepared, dataset)
    if settings.model.task == "question_answering":
        write_reading_record(settings, data, run, output, unfinished=unfinished, device=where)
    elif unfinished:
        raise UserError("only a reader can be scored before it is finished: leave --unfinished out")
    else:
        write_record(settings, data, run, output, device=where)


@verb
def analyse(
    config: ConfigOption,
    dataset: DatasetOption,
    prepared: PreparedOption,
    runs: RunsOption,
    output: Annotated[Path, typer.Option(help="Folder for <dataset>/<model>/<seed>.analysis.json.")],
    tokens: Annotated[Path | None, typer.Option(help="Tokenised folder, of a dataset of texts.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model; all of the dataset if none is named.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="A seed; all of the dataset if none is named.")] = None,
    threads: ThreadsOption = 1,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Analyse readers as far as they were trained; the analyses say so.")
    ] = False,
) -> None:
    """Read the scored split again with trained weights: threshold sweep, confidence, what is skimmed, sample texts."""
    import torch

    from skimrnn.analysis.analyse import analyse as analyse_run
    from skimrnn.data.prepare import open_prepared
    from skimrnn.files import write_json

    settings = read_config(config)
    torch.set_num_threads(threads)
    for name in model or settings.models_of(dataset):
        for number in settings.seeds_of(dataset) if seed is None else seed:
            run, place = settings.run(dataset, name, number), Path(dataset) / name / str(number)
            print(f"analysing {place}", file=sys.stderr, flush=True)
            analysis = analyse_run(run, open_prepared(prepared, dataset), tokens, runs / place, unfinished=unfinished)
            write_json(output / place.with_name(f"{number}.analysis.json"), analysis.model_dump(mode="json"))


@verb
def speed(
    config: ConfigOption,
    dataset: DatasetOption,
    prepared: PreparedOption,
    runs: RunsOption,
    output: Annotated[Path, typer.Option(dir_okay=False, help="File for the measurements (JSON).")],
) -> None:
    """Time the trained models of a dataset that skim beside standard ones of their size, on real texts (Sp)."""
    from skimrnn.benchmarks.reader_speed import measure_reader_speed
    from skimrnn.benchmarks.speedup import measure_speed
    from skimrnn.data.prepare import open_prepared
    from skimrnn.data.registry import get_dataset
    from skimrnn.files import write_json
    from skimrnn.training.record import weights_of

    settings, opened = read_config(config), open_prepared(prepared, dataset)
    timing = settings.speed
    weights = {
        name: {seed: runs / dataset / name / str(seed) / "weights.safetensors" for seed in settings.seeds_of(dataset)}
        for name in settings.timed_models(dataset)
    }
    for name, files in weights.items():
        for seed, path in files.items():
            weights_of(settings.run(dataset, name, seed), opened, path)  # Others are refused before hours of timing.
    if get_dataset(dataset).task == "question_answering":
        models = settings.models_of(dataset)
        measured = measure_reader_speed(opened, models, weights, timing.context_tokens, timing.rounds)
    else:
        measured = measure_speed(opened, weights, timing.tokens, timing.rounds)
    write_json(output, measured.model_dump(mode="json"))


MirrorArgument = Annotated[Path, typer.Argument(help="Folder of the mirror: <org>/<name>/[<config>/]<split>.parquet.")]
NamesArgument = Annotated[list[str] | None, typer.Argument(help="Datasets; all that the hub has if none is named.")]


@data_verb
def data_list(
    mirror: Annotated[Path | None, typer.Option(help="Say what this mirror holds of each.")] = None,
) -> None:
    """The datasets, their size, address and licence and, with --mirror, what it holds of them."""
    from skimrnn.data.registry import DATASETS
    from skimrnn.reporting.data import dataset_list, mirror_table

    print(dataset_list())
    if mirror is not None:
        from skimrnn.data.mirrors import inspect_mirror

        print(f"\n{mirror_table(inspect_mirror(mirror, DATASETS.values(), thorough=False), mirror)}")


@data_verb
def data_fetch(mirror: MirrorArgument, datasets: NamesArgument = None) -> None:
    """Make or complete a mirror: download datasets from the hub. What is there already is left alone."""
    from skimrnn.data.mirrors import make_mirror

    make_mirror(mirror, _named(datasets), lambda line: print(line, file=sys.stderr, flush=True))


@data_verb
def data_prepare(
    config: ConfigOption,
    datasets: Annotated[
        list[str] | None, typer.Argument(help="Datasets; all that the config has and its source, if none is named.")
    ] = None,
    cores: Annotated[int, typer.Option(min=1, help="Cores to use.")] = 1,
) -> None:
    """Run the steps that make what training reads (fetch, tokenise, vectors, prepare), as far as they are not done."""
    import signal
    import subprocess

    if not Path("Snakefile").is_file():
        raise UserError("no Snakefile here: run this in the project's folder")
    settings = read_config(config)
    if unknown := [name for name in datasets or [] if name not in settings.datasets]:
        raise UserError(f"unknown dataset {', '.join(unknown)}: the config has {', '.join(settings.datasets)}")
    targets = [f"data/prepared/{settings.scale}/{name}" for name in datasets or settings.available]
    # Targets first: snakemake takes whatever follows --configfile for more of them.
    command = [sys.executable, "-m", "snakemake", *targets, "--cores", str(cores), "--configfile", str(config)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell starts what ends with `&` without one.
    with subprocess.Popen(command) as process:
        try:
            failed = process.wait()
        except KeyboardInterrupt:  # Snakemake is to end its steps and to unlock the folder, however long that takes.
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    if failed:
        raise UserError("the preparation did not end well: see the step that failed above")


@data_verb
def data_verify(
    mirror: MirrorArgument,
    datasets: Annotated[
        list[str] | None, typer.Argument(help="Datasets that must be whole; what is there of all if none is named.")
    ] = None,
) -> None:
    """Read every file of a mirror, with all the checks of a fetch; exit code 2 where one is damaged or missing."""
    from rich.console import Console
    from rich.progress import track

    from skimrnn.data.mirrors import inspect_mirror
    from skimrnn.data.registry import DATASETS
    from skimrnn.reporting.data import mirror_table

    checked = _named(datasets) if datasets else list(DATASETS.values())
    bar = track(
        inspect_mirror(mirror, checked, thorough=True),
        "reading",
        total=sum(len(dataset.rows) for dataset in checked),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    files = list(bar)
    print(mirror_table(files, mirror))
    if damaged := [file for file in files if file.state == "damaged"]:
        raise UserError(damaged[0].fault + (f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""))
    missing = [file for file in files if file.state == "missing"]
    if missing and (datasets or len(missing) == len(files)):
        raise UserError(f"{missing[0].path}: no such file: data fetch downloads what is missing")


@data_verb
def data_stats(
    config: ConfigOption,
    raw: Annotated[Path, typer.Option(help="Folder of what fetch wrote, one folder a dataset.")],
    words: Annotated[Path, typer.Option(help="The words of glove.6B, one a line (.txt, .gz or .xz).")],
    output: Annotated[Path, typer.Option(dir_okay=False, help="File for the counts (JSON).")],
    report: Annotated[Path, typer.Option(help="Folder for datasets.md, .csv and .tex.")],
    tokens: Annotated[
        Path | None, typer.Option(help="Folder of what tokenise wrote, one folder a dataset: SQuAD is counted there.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes to use.")] = 1,
) -> None:
    """Count the fetched datasets as the paper's table of datasets does, paper against ours, and print it."""
    from skimrnn.data.statistics import count_datasets
    from skimrnn.data.vectors import read_words
    from skimrnn.files import write_json
    from skimrnn.reporting.datasets import dataset_markdown, write_dataset_tables

    counted = count_datasets(raw, tokens, read_config(config).data.seed, read_words(words), processes)
    write_json(output, [entry.model_dump() for entry in counted])
    write_dataset_tables(counted, report)
    print(dataset_markdown(counted))


def _named(names: list[str] | None) -> "list[Dataset]":
    from skimrnn.data.registry import DATASETS, get_dataset

    return [get_dataset(name) for name in names] if names else [item for item in DATASETS.values() if item.on_hub]


@verb
def bench(
    output: Annotated[Path, typer.Option(dir_okay=False, help="File for the measurements (JSON, with raw samples).")],
    only: Annotated[list[str] | None, typer.Option(help="Run this benchmark alone (may be given again).")] = None,
    rounds: Annotated[int, typer.Option(min=5, help="Rounds; each times every function of a task once.")] = 30,
) -> None:
    """Time the layers beside each other and beside other libraries' LSTMs."""
    from skimrnn.benchmarks.latency import BENCHMARKS, run_benchmarks
    from skimrnn.files import write_json

    names = only or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        raise UserError(f"no such benchmark: {', '.join(unknown)} (there are {', '.join(BENCHMARKS)})")
    report = run_benchmarks(names, rounds, lambda line: print(line, file=sys.stderr, flush=True))
    write_json(output, report.model_dump(mode="json"))


@verb
def bench_gpu(
    output: Annotated[Path, typer.Option(dir_okay=False, help="File for the measurements (JSON, with raw samples).")],
    rounds: Annotated[int, typer.Option(min=5, help="Rounds; each times every function of a setting once.")] = 30,
) -> None:
    """Time training on a GPU: a step beside cuDNN's and the reference's, and packs beside one run after another."""
    from skimrnn.benchmarks.gpu import measure_gpu
    from skimrnn.device import pick_device
    from skimrnn.files import write_json

    report = measure_gpu(pick_device("cuda"), rounds, lambda line: print(line, file=sys.stderr, flush=True))
    write_json(output, report.model_dump(mode="json"))


@verb
def bench_gpu_report(
    measurements: Annotated[Path, typer.Option(help="File that bench-gpu wrote.")],
    output: Annotated[Path, typer.Option(dir_okay=False, help="File for the table (Markdown).")],
) -> None:
    """Make the table of the GPU's benchmark."""
    from skimrnn.benchmarks.gpu import GPUReport
    from skimrnn.files import read_model
    from skimrnn.reporting.gpu_benchmark import write_gpu_benchmark

    write_gpu_benchmark(read_model(measurements, GPUReport), output)


@verb
def bench_report(
    measurements: Annotated[
        Path, typer.Option(help="File that bench wrote, such as cpu.json; cpu-*.json beside it: other machines' runs.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for benchmark.md and the figures.")],
) -> None:
    """Make the benchmark's table and figures."""
    from skimrnn.reporting.benchmark import read_runs, write_benchmark

    write_benchmark(output, *read_runs(measurements))


@verb
def table(
    config: ConfigOption,
    results: ResultsOption,
    output: Annotated[Path, typer.Option(help="Folder for the tables: classification.md, .csv, .tex and so on.")],
) -> None:
    """Make the table of each task, paper against ours, from the records, and print it; that of datasets, if counted."""
    from skimrnn.reporting.datasets import read_counts, write_dataset_tables
    from skimrnn.reporting.records import read_task_results
    from skimrnn.reporting.table_formats import terminal, write_tables

    settings = read_config(config)
    found = [read_task_results(settings, task, results) for task in settings.tasks]
    for each in found:
        write_tables(each, output)
    if counted := read_counts(results / settings.scale / "datasets.json"):
        write_dataset_tables(counted, output)
    print("\n\n".join(terminal(each) for each in found))


@verb
def figures(
    config: ConfigOption,
    results: ResultsOption,
    output: Annotated[Path, typer.Option(help="Folder for the figures (SVG, PDF and PNG).")],
    task: Annotated[Task | None, typer.Option(help="Those of one task; of all if none is named.")] = None,
) -> None:
    """Draw the figures from the records."""
    from skimrnn.reporting.figures import write_figures
    from skimrnn.reporting.records import read_task_results

    settings = read_config(config)
    if task is not None and task not in settings.tasks:
        raise UserError(f"{config}: no datasets of the task {task}: it has some of {', '.join(settings.tasks)}")
    tasks = settings.tasks if task is None else [task]
    write_figures([read_task_results(settings, name, results, speeds=False) for name in tasks], output)


@verb
def claims(
    config: ConfigOption,
    results: ResultsOption,
    output: Annotated[Path, typer.Option(help="Folder for claims.md and confidence.md.")],
) -> None:
    """Try the paper's claims on the records and the analyses beside them; tabulate the confidence of each LSTM."""
    from skimrnn.reporting.claims import write_claims
    from skimrnn.reporting.confidence import write_confidence
    from skimrnn.reporting.evidence import read_evidence

    evidence = read_evidence(read_config(config), results)
    write_claims(evidence, output)
    write_confidence(evidence, output)


@verb
def compare(
    left: Annotated[str, typer.Argument(metavar="A", help="Records: a folder, a file or a quoted glob.")],
    right: Annotated[str, typer.Argument(metavar="B", help="The records to compare them with.")],
) -> None:
    """Set two groups of records side by side: scores, skim rate and Flop-r, B less A with intervals and a test."""
    from rich.console import Console

    from skimrnn.reporting.compare import compare_records, comparison_tables

    Console().print(*comparison_tables(compare_records(left, right)))


@verb
def page(
    config: ConfigOption,
    results: ResultsOption,
    figures: Annotated[Path, typer.Option(help="Folder that figures wrote.")],
    output: Annotated[Path, typer.Option(dir_okay=False, help="File for the page (HTML).")],
) -> None:
    """Make one self-contained HTML page from the records and the figures."""
    from skimrnn.reporting.evidence import read_evidence
    from skimrnn.reporting.html.page import write_page

    write_page(read_evidence(read_config(config), results), results, figures, output)


@verb
def plan(
    config: ConfigOption,
    results: ResultsOption,
    workers: Annotated[
        list[int] | None, typer.Option(min=1, help="Runs at a time: cores or GPUs (may be given again).")
    ] = None,
) -> None:
    """What the grid costs: hours that were spent and that are left, measured or estimated from the records."""
    import os

    from skimrnn.reporting.costs import leave_one_out, make_plans, read_measured
    from skimrnn.reporting.plan import plan_text

    settings = read_config(config)
    measured = read_measured(settings, results)
    if not measured:
        raise UserError(f"{results / settings.scale}: no record with times beside it: nothing can be estimated yet")
    plans = make_plans(settings, results, measured)
    print(plan_text(plans, leave_one_out(measured), workers or [1, os.cpu_count() or 1, 16, 64]))


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def fleet(context: typer.Context) -> None:
    """Train all runs that have no record yet, packed, within a time budget (--help lists its options)."""
    from skimrnn.fleet.__main__ import main

    main(context.args, "python -m skimrnn fleet")


@verb
def config(
    config: ConfigOption,
    output: Annotated[Path, typer.Option(dir_okay=False, help="File for the config (JSON).")],
) -> None:
    """Write a config as JSON, for a fleet on a machine without PyYAML."""
    from skimrnn.files import write_json

    write_json(output, read_config(config).model_dump(mode="json", exclude_defaults=True))


@verb
def schema(
    output: Annotated[Path, typer.Option(dir_okay=False, help="File for the JSON schema.")] = Path(
        "workflow/schemas/config.schema.json"
    ),
) -> None:
    """Write the JSON schema of the config, generated from the config model."""
    from skimrnn.config import Config
    from skimrnn.files import write_json

    write_json(output, Config.model_json_schema())


def main() -> None:
    """Entry point of `python -m skimrnn`."""
    take_memory_in_large_blocks()
    interrupt_on_termination()
    app()
