"""One file that holds all a killed run needs to go on as if it had not been killed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skimrnn.config import RunConfig
from skimrnn.data.prepare import Prepared
from skimrnn.errors import UserError
from skimrnn.files import digest_of, read_tensors, write_tensors
from skimrnn.training.optimizer import Adam


@dataclass(frozen=True)
class Progress:
    """Where a run stands, apart from its tensors."""

    step: int
    best_step: int
    history: list[dict[str, Any]]
    seconds: float
    peak_memory_mib: int
    environment: dict[str, Any]
    """Of the process that took the last step."""
    loss_sum: float = 0.0
    """Of the steps since the last validation."""

    def course(self, stopped: str) -> dict[str, Any]:
        """How training went, so far or in the end."""
        course = {"steps": self.step, "best_step": self.best_step, "stopped": stopped, "history": self.history}
        return {**course, "environment": self.environment}

    @property
    def timing(self) -> dict[str, Any]:
        """What training cost."""
        return {"wall_seconds": round(self.seconds, 1), "peak_memory_mib": self.peak_memory_mib}


def run_digest(run: RunConfig, prepared: Prepared) -> str:
    """What weights say of the run that they are of: a digest of its config and its data."""
    return digest_of([run.model_dump(mode="json"), prepared.manifest["digest"]])


def save_checkpoint(
    path: Path,
    identity: str,
    run: str,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: Adam,
    best: dict[str, Tensor],
    progress: Progress,
) -> None:
    """Write weights and their average, best weights, Adam's moments, the random state and the progress, atomically.

    `identity` is a digest of all that decides the run (config, data, code), `run` that of `run_digest`.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    tensors |= {f"adam.{name}": tensor for name, tensor in optimizer.state_dict().items()}
    tensors["random"] = torch.get_rng_state()
    if _on_gpu(model):
        tensors["random_gpu"] = torch.cuda.get_rng_state()
    write_tensors(path, tensors, {"identity": identity, "run": run, "progress": json.dumps(vars(progress))})


def load_checkpoint(
    path: Path, identity: str, model: nn.Module, average: nn.Module | None, optimizer: Adam
) -> tuple[dict[str, Tensor], Progress] | None:
    """Restore what `save_checkpoint` wrote and give the best weights and the progress.

    None where there is no checkpoint, or only one of another config, data or code.
    """
    if not path.exists():
        return None
    tensors, metadata = read_tensors(path)
    if metadata.get("identity") != identity:
        return None
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "best": {}, "adam": {}}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        if group in groups:
            groups[group][rest] = tensor
    try:
        model.load_state_dict(groups["model"])
        if average is not None:
            average.load_state_dict(groups["average"])
        optimizer.load_state_dict(groups["adam"])
        torch.set_rng_state(tensors["random"])
        if _on_gpu(model) and "random_gpu" in tensors:  # A run that began on a CPU has none yet.
            torch.cuda.set_rng_state(tensors["random_gpu"])
        return groups["best"], progress_of(metadata)
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a checkpoint of this run: delete it and train again") from error


def progress_of(metadata: dict[str, str]) -> Progress:
    """The progress that a checkpoint's metadata hold."""
    return Progress(**json.loads(metadata["progress"]))


def _on_gpu(model: nn.Module) -> bool:
    return next(model.parameters()).device.type == "cuda"
