"""Fixtures that several test folders share."""

import os
import random
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from skimrnn.config import Config, VectorsConfig, parse_config
from skimrnn.data.prepare import Prepared, open_prepared, prepare_dataset
from skimrnn.data.questions import prepare_questions
from skimrnn.data.registry import DATASETS
from skimrnn.data.sources import fetch_dataset
from skimrnn.data.squad import tokenise_questions
from skimrnn.data.tokens import tokenise_dataset
from skimrnn.data.vectors import train_vectors, write_vectors
from skimrnn.files import read_parquet, write_json, write_tensors
from skimrnn.provenance import environment
from skimrnn.training.checkpoint import run_digest
from skimrnn.training.classification import build_classifier
from skimrnn.training.reading import build_reader

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def seed() -> int:
    """A fresh seed, shown when the test fails; SKIMRNN_TEST_SEED repeats one."""
    seed = int(os.environ.get("SKIMRNN_TEST_SEED") or random.SystemRandom().randrange(2**31))
    print(f"SKIMRNN_TEST_SEED={seed}")
    torch.manual_seed(seed)
    return seed


@pytest.fixture(scope="session")
def mirror() -> Path:
    """A mirror of the hub with the real datasets; tests that need it are skipped where there is none."""
    folder = Path(os.environ.get("SKIMRNN_MIRROR", ROOT.parent / "shared" / "data"))
    if not (folder / "SetFit" / "sst2").is_dir():
        pytest.skip("no mirror of the datasets: set SKIMRNN_MIRROR to its folder")
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The embedded stand-in of SST, prepared with vectors of its own corpus."""
    folder = tmp_path_factory.mktemp("sst")
    dataset = DATASETS["sst"]
    fetch_dataset(dataset, "embedded", None, folder / "raw")
    tokenise_dataset(dataset, folder / "raw", folder / "tokens", seed=0)
    write_vectors(folder / "vectors.safetensors", *train_vectors([folder / "tokens"], 50, 8, 4, 1, seed=0))
    settings = VectorsConfig(source="corpus", dimension=50, min_count=1)
    prepare_dataset(dataset, folder / "tokens", folder / "vectors.safetensors", settings, folder / "prepared")
    return open_prepared(folder / "prepared", "sst")


@pytest.fixture(scope="session")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The embedded stand-in of SQuAD, prepared with vectors of its own corpus."""
    folder = tmp_path_factory.mktemp("squad")
    fetch_dataset(DATASETS["squad"], "embedded", None, folder / "raw")
    tokenise_questions(DATASETS["squad"], folder / "raw", folder / "tokens")
    write_vectors(folder / "vectors.safetensors", *train_vectors([folder / "tokens"], 20, 8, 4, 1, seed=0))
    settings = VectorsConfig(source="corpus", dimension=20, min_count=1)
    prepare_questions(DATASETS["squad"], folder / "tokens", folder / "vectors.safetensors", settings, folder / "out")
    return open_prepared(folder / "out", "squad")


@pytest.fixture
def config() -> Config:
    """A scale of short runs of small models: classifiers on SST, readers on SQuAD."""
    values = small_config().model_dump()
    values["datasets"]["squad"] = {"batch_size": 16}
    values["models"] |= {
        "reader": {"architecture": "lstm_att", "hidden_size": 16},
        "skim_reader": {"architecture": "skim_lstm_att", "hidden_size": 16, "small_size": 4, "gamma": 0.1},
        "skim_bidaf": {"architecture": "skim_bidaf", "hidden_size": 6, "small_size": 3, "gamma": 0.1},
    }
    return parse_config(values, "the test's config")


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """The file of a scale of short runs."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(small_config().model_dump(mode="json")))
    return path


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def read_tokens(path: Path) -> tuple[list[list[str]], list[int]]:
    """The token lists and the labels of one tokenised split."""
    columns = read_parquet(path, "tokens", "label").to_pydict()
    return [tokens.split(" ") for tokens in columns["tokens"]], columns["label"]


def small_config(**training: object) -> Config:
    """A scale of short runs of small models on SST."""
    return parse_config(
        {
            "scale": "test",
            "seeds": [0],
            "data": {"source": "embedded"},
            "vectors": {"source": "corpus", "dimension": 50, "min_count": 1},
            "datasets": {"sst": {"batch_size": 32}},
            "models": {
                "lstm": {"architecture": "lstm", "hidden_size": 24},
                "skim": {"architecture": "skim_lstm", "hidden_size": 24, "small_size": 4, "gamma": 0.05},
            },
            "training": {
                "learning_rate": 0.002,
                "patience": 1000,
                "max_steps": 60,
                "validate_every": 20,
                "temperature_decay": 0.005,
                **training,
            },
            "speed": {"tokens": 300, "rounds": 5},
        },
        "the test's config",
    )


def untrained(config: Config, dataset: str, model: str, prepared: Prepared, folder: Path) -> Path:
    """The folder of a run whose weights are drawn from a fixed seed, large, so that decisions and answers differ.

    The vectors of so small a corpus are nearly equal: their mean is taken off.
    """
    torch.manual_seed(0)
    settings = config.models[model]
    if settings.task == "classification":
        network = build_classifier(settings, prepared.vectors(), len(prepared.manifest["classes"]))
    else:
        network = build_reader(settings, prepared.vectors(), prepared.spellings())
        training = {"steps": 1, "best_step": 1, "stopped": "max_steps", "history": []}
        write_json(folder / "training.json", training | {"environment": environment().model_dump()})
        write_json(folder / "timing.json", {"wall_seconds": 1.0, "peak_memory_mib": 1})
    weights = {name: 4 * tensor for name, tensor in network.state_dict().items()}
    weights["embedding.weight"] -= weights["embedding.weight"].mean(dim=0)
    write_tensors(folder / "weights.safetensors", weights, {"run": run_digest(config.run(dataset, model, 0), prepared)})
    return folder


class Silent:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.messages: list[str] = []

    def update(self, step: int, expected_steps: int, status: str) -> None:
        self.steps.append(step)

    def message(self, text: str) -> None:
        self.messages.append(text)
