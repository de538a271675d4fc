"""Runs of untrained models, and what is prepared for them."""

from pathlib import Path

import pytest
import torch

from skimrnn.config import Config, parse_config
from skimrnn.data.prepare import Prepared
from skimrnn.files import write_json, write_tensors
from skimrnn.provenance import environment
from skimrnn.training.checkpoint import run_digest
from skimrnn.training.classification import build_classifier
from skimrnn.training.reading import build_reader
from tests.conftest import small_config
from tests.training.test_reading import squad  # noqa: F401


@pytest.fixture
def config() -> Config:
    values = small_config().model_dump()
    values["datasets"]["squad"] = {"batch_size": 16}
    values["models"] |= {
        "reader": {"architecture": "lstm_att", "hidden_size": 16},
        "skim_reader": {"architecture": "skim_lstm_att", "hidden_size": 16, "small_size": 4, "gamma": 0.1},
        "skim_bidaf": {"architecture": "skim_bidaf", "hidden_size": 6, "small_size": 3, "gamma": 0.1},
    }
    return parse_config(values, "the test's config")


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
    weights = {name: 4 * tensor for name, tensor in network.state_dict().items()}
    weights["embedding.weight"] -= weights["embedding.weight"].mean(dim=0)
    write_tensors(folder / "weights.safetensors", weights, {"run": run_digest(config.run(dataset, model, 0), prepared)})
    return folder
