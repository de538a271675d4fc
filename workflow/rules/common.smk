# The checked config, the grid, and what makes a rule run again.
import os
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from skimrnn.config import parse_config
from skimrnn.data.registry import DATASETS
from skimrnn.errors import UserError
from skimrnn.files import digest_of, sha256_of_file, write_text
from skimrnn.provenance import ANALYSIS_CODE, TRAINING_CODE, code_digest

try:
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


envvars:
    "SKIMRNN_CONFIG",


wildcard_constraints:
    dataset="|".join(DATASETS),
    model="[^/]+",
    seed=r"\d+",
    step=r"\d+",


# The hub does not have our own stand-ins.
AVAILABLE = [
    dataset
    for dataset in CONFIG.datasets
    if SOURCE != "hub" or DATASETS[dataset].on_hub
]
SPEEDS = [
    f"results/{SCALE}/{dataset}/speed.json"
    for dataset in AVAILABLE
    if CONFIG.timed_models(dataset)
]


def records_of(*tasks):
    """The records of all runs of some tasks."""
    return [
        f"results/{SCALE}/{dataset}/{model}/{seed}.json"
        for dataset in AVAILABLE
        if DATASETS[dataset].task in tasks
        for model in CONFIG.models_of(dataset)
        for seed in CONFIG.seeds_of(dataset)
    ]


def beside(records, kind):
    """What lies beside each record: its analysis, or its timing."""
    return [record.replace(".json", f".{kind}.json") for record in records]


RECORDS = records_of(*CONFIG.tasks)
ANALYSES = beside(RECORDS, "analysis")
TIMINGS = beside(RECORDS, "timing")


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


def digests_of(folder, *patterns):
    """What tells one content of the files in a folder from another."""
    files = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return {path.name: sha256_of_file(path)[:16] for path in files}
