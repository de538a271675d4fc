"""Fixtures that several test folders share."""

import os
import random
import subprocess
from pathlib import Path

import pytest
import torch

from skimrnn.config import Config, VectorsConfig, parse_config
from skimrnn.data.prepare import Prepared, open_prepared, prepare_dataset
from skimrnn.data.registry import DATASETS
from skimrnn.data.sources import fetch_dataset
from skimrnn.data.tokens import tokenise_dataset
from skimrnn.data.vectors import train_vectors, write_vectors

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


class Silent:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.messages: list[str] = []

    def update(self, step: int, expected_steps: int, status: str) -> None:
        self.steps.append(step)

    def message(self, text: str) -> None:
        self.messages.append(text)
