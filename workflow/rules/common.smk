# The checked config, the grid, and what makes a rule run again.
import os
import re
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

from skimrnn.config import parse_config, read_yaml
from skimrnn.data.registry import DATASETS
from skimrnn.data.sources import listed_file, mirrored_file
from skimrnn.errors import UserError
from skimrnn.files import digest_of, sha256_of_file, write_text
from skimrnn.provenance import ANALYSIS_CODE, TRAINING_CODE, code_digest
from skimrnn.training.record import is_recorded

try:
    for file in [*workflow.configfiles, *workflow.overwrite_configfiles]:
        read_yaml(Path(file))  # Of a key that stands twice Snakemake takes one.
    CONFIG = parse_config(config, "the workflow's config")
except UserError as error:
    raise WorkflowError(str(error))

SCALE = CONFIG.scale
SOURCE = CONFIG.data.source

# The commands read the config, with what `--config` has overridden, from a file that is named after its content: a
# second workflow in this folder cannot change it under the first.
_settings = CONFIG.model_dump(mode="json")
_config_file = Path(f"runs/{SCALE}/config-{digest_of(_settings)[:12]}.yaml")
if not _config_file.exists():
    write_text(_config_file, yaml.safe_dump(_settings, sort_keys=False))
os.environ["SKIMRNN_CONFIG"] = str(_config_file)


# Rules call `python`: the one that runs Snakemake, though its environment may not be activated; in an image, its own.
if DeploymentMethod.APPTAINER not in workflow.deployment_settings.deployment_method:
    shell.prefix(f'export PATH="{Path(sys.executable).parent}:$PATH"; ')


envvars:
    "SKIMRNN_CONFIG",


wildcard_constraints:
    dataset="|".join(DATASETS),
    model="|".join(map(re.escape, CONFIG.models)),
    seed=r"\d+",
    step=r"\d+",


def speed_of(dataset):
    """The speeds of a dataset's models, where some are timed."""
    return (
        [f"results/{SCALE}/{dataset}/speed.json"]
        if CONFIG.timed_models(dataset)
        else []
    )


def runs_of(dataset):
    """The settings of all runs on a dataset."""
    return [
        CONFIG.run(dataset, model, seed)
        for model in CONFIG.models_of(dataset)
        for seed in CONFIG.seeds_of(dataset)
    ]


def records_of_dataset(dataset):
    """The records of all runs on a dataset."""
    return [
        f"results/{SCALE}/{dataset}/{run.model_name}/{run.seed}.json"
        for run in runs_of(dataset)
    ]


def records_of(*tasks):
    """The records of all runs of some tasks."""
    return [
        record
        for dataset in CONFIG.available
        if DATASETS[dataset].task in tasks
        for record in records_of_dataset(dataset)
    ]


def beside(records, kind):
    """What lies beside each record: its analysis, or its timing."""
    return [record.replace(".json", f".{kind}.json") for record in records]


if not CONFIG.available:
    raise WorkflowError(
        f"the hub has none of {', '.join(CONFIG.datasets)}: give data.source mirror and a folder that has them"
    )

TASKS = [task for task in CONFIG.tasks if records_of(task)]
RECORDS = records_of(*TASKS)
ANALYSES = beside(RECORDS, "analysis")
TIMINGS = beside(RECORDS, "timing")
PREDICTIONS = beside(records_of("question_answering"), "predictions")
SPEEDS = [speed for dataset in CONFIG.available for speed in speed_of(dataset)]


def came_with_the_checkout(dataset):
    """Whether all results of a dataset are there, and nothing that they were made from."""
    root = Path()
    if storage := workflow.storage_settings.default_storage_provider:
        if storage != "fs":
            return False
        root = Path(workflow.storage_settings.default_storage_prefix)
    made_here = (f"data/prepared/{SCALE}/{dataset}", f"runs/{SCALE}/{dataset}")
    if any((root / folder).exists() for folder in made_here):
        return False
    records = records_of_dataset(dataset)
    kinds = ["analysis", "timing"]
    if DATASETS[dataset].task == "question_answering":
        kinds.append("predictions")
    found = [*records, *speed_of(dataset)]
    for kind in kinds:
        found += beside(records, kind)
    if not all((root / path).exists() for path in found):
        return False
    # All are read: one of another config is refused at once, as the report would refuse it when all else is done.
    recorded = [
        is_recorded(run, root / record)
        for record, run in zip(records, runs_of(dataset), strict=True)
    ]
    return all(recorded)


def to_be_run(task):
    """The datasets of a task whose results rules may make: those that came with the checkout count as finished.

    Else word vectors, which are made anew where nothing is prepared, would make all of them run again.
    """
    names = [
        dataset
        for dataset in CONFIG.datasets
        if DATASETS[dataset].task == task and not came_with_the_checkout(dataset)
    ]
    return "|".join(names) or "(?!)"


try:
    TO_BE_RUN = {task: to_be_run(task) for task in CONFIG.tasks}
except UserError as error:
    raise WorkflowError(str(error))


def growing(amount):
    """A resource: that much at the first attempt, twice as much at the second, and so on."""
    return lambda wildcards, attempt: amount * attempt


def first_steps(wildcards):
    """The weights that must be there before a run: the first steps of its own, or of the model it starts from."""
    first = CONFIG.first_steps(wildcards.dataset, wildcards.model)
    return (
        f"runs/{SCALE}/{wildcards.dataset}/{first.model}/{wildcards.seed}/step-{first.step}.safetensors"
        if first
        else []
    )


def start_option(wildcards, input):
    """A run that goes on with its own steps finds them in its checkpoint."""
    first = CONFIG.first_steps(wildcards.dataset, wildcards.model)
    return f"--start {input.first}" if first and first.model != wildcards.model else ""


def stamps_of(files):
    """What changes when files do: their paths, sizes and times."""
    return {
        str(path): [path.stat().st_size, path.stat().st_mtime_ns]
        for path in files
        if path.exists()
    }


def mirror_stamps(wildcards):
    """The stamps of a dataset's files in the mirror, and what its manifest says of them."""
    dataset, mirror = DATASETS[wildcards.dataset], CONFIG.data.mirror
    if wildcards.source != "mirror" or mirror is None:
        return {}
    try:
        listed = {split: listed_file(mirror, dataset, split) for split in dataset.rows}
    except UserError as error:
        raise WorkflowError(str(error))
    return {
        **stamps_of(mirrored_file(mirror, dataset, split) for split in dataset.rows),
        **{split: file.model_dump() for split, file in listed.items() if file},
    }


def digests_of(folder, *patterns):
    """What tells one content of the files in a folder from another."""
    files = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return {path.name: sha256_of_file(path)[:16] for path in files}
