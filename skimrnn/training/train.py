"""The training loop: Adam, the skim loss, a falling temperature, early stopping, checkpoints."""

import math
import resource
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from skimrnn.config import LSTMConfig, RunConfig, SkimLSTMConfig, TrainingConfig
from skimrnn.data.batches import Batch, collate, training_rows
from skimrnn.data.prepare import Prepared
from skimrnn.errors import UserError
from skimrnn.files import digest_of, write_json, write_tensors
from skimrnn.layers import SkimLSTM
from skimrnn.models import Classifier, ClozeReader
from skimrnn.provenance import TRAINING_CODE, code_digest, environment
from skimrnn.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from skimrnn.training.evaluate import evaluate
from skimrnn.training.progress import Reporter


def build_classifier(
    config: LSTMConfig | SkimLSTMConfig, vectors: Tensor, classes: int, *, cloze: bool = False
) -> Classifier | ClozeReader:
    """A classifier as `config` says, on word vectors (V, E); weights come from torch's global random state.

    With `cloze` the classes are candidates that come with each text.
    """
    layer: nn.LSTM | SkimLSTM
    if isinstance(config, SkimLSTMConfig):
        layer = SkimLSTM(vectors.shape[1], config.hidden_size, config.small_size)
    else:
        layer = nn.LSTM(vectors.shape[1], config.hidden_size)
    return ClozeReader(vectors, layer) if cloze else Classifier(vectors, layer, classes)


def temperature_at(step: int, config: TrainingConfig) -> float:
    """Tau = max(floor, exp(-r step))."""
    return max(config.temperature_floor, math.exp(-config.temperature_decay * step))


def training_loss(model: Classifier | ClozeReader, batch: Batch, gamma: float) -> Tensor:
    """Cross-entropy, plus gamma times the mean -log p(skim) where the model skims (L' of the paper)."""
    logits, decisions = model(*batch.inputs)
    loss = functional.cross_entropy(logits, batch.labels)
    if decisions is not None:
        loss = loss + gamma * decisions.skim_loss()
    return loss


def train(run: RunConfig, prepared: Prepared, folder: Path, reporter: Reporter) -> None:
    """Train one model and write `weights.safetensors` (the best by validation), `training.json` and `timing.json`.

    The run stops when validation accuracy has not improved for `patience` steps, or at `max_steps`. It saves
    `checkpoint.safetensors` at each validation and goes on from there when it is started again; the result is the
    same as without the interruption. The test split is not read. A loss that is not finite is a `UserError`.
    """
    started = time.monotonic()
    config = run.training
    identity = digest_of([run.model_dump(mode="json"), prepared.manifest["digest"], code_digest(*TRAINING_CODE)])
    checkpoint = folder / "checkpoint.safetensors"
    torch.manual_seed(run.seed)
    train_split, validation = prepared.split("train"), prepared.split("validation")
    model = build_classifier(run.model, prepared.vectors(), len(prepared.manifest["classes"]), cloze=prepared.cloze)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    gamma = run.model.gamma if isinstance(run.model, SkimLSTMConfig) else 0.0

    best: dict[str, Tensor] = {}
    progress = Progress(step=0, best_step=0, history=[], seconds=0.0)
    if restored := load_checkpoint(checkpoint, identity, model, optimizer):
        best, progress = restored
        reporter.message(f"goes on from step {progress.step}")
    elif checkpoint.exists():
        reporter.message("starts anew: the checkpoint is of another config, data or code")

    history, best_step = progress.history, progress.best_step
    batches_per_epoch = math.ceil(len(train_split) / run.batch_size)
    epoch_rows = training_rows(train_split, run.batch_size, run.seed, progress.step // batches_per_epoch)
    loss_sum, step, status = 0.0, progress.step, ""
    while not _finished(step, best_step, config):
        if step % batches_per_epoch == 0:
            epoch_rows = training_rows(train_split, run.batch_size, run.seed, step // batches_per_epoch)
        batch = collate(train_split, epoch_rows[step % batches_per_epoch])
        model.train()
        if isinstance(model.layer, SkimLSTM):
            model.layer.temperature = temperature_at(step, config)
        loss = training_loss(model, batch, gamma)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        step += 1
        if not torch.isfinite(loss) or not torch.isfinite(norm):
            raise UserError(
                f"the loss or its gradient is not finite at step {step} of {run.scale}/{run.dataset}/{run.model_name}/"
                f"{run.seed}: lower training.learning_rate or training.clip_norm, or check the word vectors; "
                f"the checkpoint of step {history[-1]['step'] if history else 0} is kept"
            )
        optimizer.step()
        loss_sum += loss.item()
        if step % config.validate_every == 0 or step == config.max_steps:
            scores = evaluate(model, validation)
            steps_since = step - (history[-1]["step"] if history else 0)
            history.append(
                {
                    "step": step,
                    "temperature": temperature_at(step, config),
                    "training_loss": loss_sum / steps_since,
                    "validation": scores.model_dump(),
                }
            )
            loss_sum = 0.0
            if not best or scores.accuracy > _entry(history, best_step)["validation"]["accuracy"]:
                best_step = step
                best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            seconds = progress.seconds + time.monotonic() - started
            save_checkpoint(checkpoint, identity, model, optimizer, best, Progress(step, best_step, history, seconds))
            best_accuracy = _entry(history, best_step)["validation"]["accuracy"]
            status = f"loss {history[-1]['training_loss']:.3f}  val {scores.accuracy:.1%} (best {best_accuracy:.1%})"
            if gamma:
                status += f"  skim {scores.skim_rate:.1%}"
        reporter.update(step, min(best_step + config.patience, config.max_steps), status)

    write_tensors(folder / "weights.safetensors", best)
    write_json(
        folder / "training.json",
        {
            "steps": step,
            "best_step": best_step,
            "stopped": "max_steps" if step == config.max_steps else "patience",
            "history": history,
            "environment": environment().model_dump(),
        },
    )
    write_json(
        folder / "timing.json",
        {
            "wall_seconds": round(progress.seconds + time.monotonic() - started, 1),
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        },
    )


def _finished(step: int, best_step: int, config: TrainingConfig) -> bool:
    return step >= config.max_steps or step - best_step >= config.patience


def _entry(history: list[dict], step: int) -> dict:
    return next(entry for entry in history if entry["step"] == step)
