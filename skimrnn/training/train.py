"""The training loop: Adam, the skim loss, a falling temperature, early stopping, checkpoints."""

import math
import resource
import time
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from skimrnn.config import RunConfig, TrainingConfig
from skimrnn.data.batches import training_rows
from skimrnn.data.prepare import Prepared
from skimrnn.device import CPU
from skimrnn.errors import UserError
from skimrnn.files import digest_of, only_user, read_tensors, sha256_of_file, write_json, write_tensors
from skimrnn.layers.skimming import SkimmingLayer
from skimrnn.provenance import TRAINING_CODE, code_digest, environment
from skimrnn.training.checkpoint import Progress, load_checkpoint, run_digest, save_checkpoint
from skimrnn.training.classification import classification_task
from skimrnn.training.optimizer import Adam
from skimrnn.training.progress import Reporter
from skimrnn.training.reading import reading_task
from skimrnn.training.task import Task


def temperature_at(step: int, config: TrainingConfig) -> float:
    """Tau = max(floor, exp(-r step)).

    A model that starts from another's first steps counts its own: tau falls from 1 when skimming begins, where the
    paper counts the global step.
    """
    return max(config.temperature_floor, math.exp(-config.temperature_decay * step))


class Step(NamedTuple):
    """What a run asks for: that its parameters are moved along the gradient of its task's loss on some rows."""

    task: Task
    rows: np.ndarray
    taken: int  # steps before this one
    optimizer: Adam
    clip_norm: float


class Outcome(NamedTuple):
    """The loss of a step that was taken, and the norm that its gradient had."""

    loss: float
    norm: float


def take_step(step: Step) -> Outcome:
    """Take a step of one run."""
    step.optimizer.zero_grad()
    loss = step.task.loss(step.rows)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(step.task.model.parameters(), step.clip_norm)
    step.optimizer.step()
    return Outcome(*torch.stack([loss.detach(), norm]).tolist())  # On a GPU each look at a number is a wait.


def train(
    run: RunConfig,
    prepared: Prepared,
    folder: Path,
    reporter: Reporter,
    *,
    start: Path | None = None,
    until: int | None = None,
    device: torch.device = CPU,
    deadline: float = math.inf,
) -> bool:
    """Train one model and write `weights.safetensors` (the best by validation), `training.json` and `timing.json`.

    The run stops when the validation score has not improved for `patience` steps, or at `max_steps`. It saves
    `checkpoint.safetensors` at each validation and goes on from there when it is started again; the result is the
    same as without the interruption. A run that ended at its `max_steps` goes on where these are raised, if they were a
    multiple of `validate_every`. The test split is not read. A loss that is not finite is a `UserError`.

    Where the task asks for an average of the weights, that is what is validated and written.

    `start` holds weights of another model, which those of the same name start from. With `until` the run goes no
    further than that step and writes `step-<until>.safetensors`, its weights there (and a copy that it makes them from
    where it has gone on since); started again without, it goes on.
    At `deadline` (of `time.monotonic`) it saves a checkpoint and stops. Gives whether it came to its end.
    """
    steps = training_steps(run, prepared, folder, reporter, start=start, until=until, device=device, deadline=deadline)
    try:
        step = next(steps)
        while True:
            step = steps.send(take_step(step))
    except StopIteration as end:
        return bool(end.value)
    finally:
        steps.close()  # Not when Python gets to it: the run keeps its folder to itself until then.


def training_steps(
    run: RunConfig,
    prepared: Prepared,
    folder: Path,
    reporter: Reporter,
    *,
    start: Path | None = None,
    until: int | None = None,
    device: torch.device = CPU,
    deadline: float = math.inf,
) -> Generator[Step, Outcome, bool]:
    """What `train` does, apart from taking the steps: each is asked for and answered by its outcome."""
    with only_user(folder, "trains this run"):
        return (yield from _training_steps(run, prepared, folder, reporter, start, until, device, deadline))


def _training_steps(
    run: RunConfig,
    prepared: Prepared,
    folder: Path,
    reporter: Reporter,
    start: Path | None,
    until: int | None,
    device: torch.device,
    deadline: float,
) -> Generator[Step, Outcome, bool]:
    started, here = time.monotonic(), environment(device).model_dump()
    config = run.training
    identity, digest = identity_of(run, prepared, start), run_digest(run, prepared)
    checkpoint = folder / "checkpoint.safetensors"
    torch.manual_seed(run.seed)
    task = (reading_task if run.model.task == "question_answering" else classification_task)(run, prepared, device)
    model = task.model
    if start:
        _start_from(model, start)
    average = None
    if task.ema_decay is not None:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(task.ema_decay))
        average.update_parameters(model)  # The first update copies: the average starts from the first weights.
    judged = model if average is None else average.module
    skimming = [module for module in model.modules() if isinstance(module, SkimmingLayer)]
    optimizer = Adam(model.parameters(), config.learning_rate)

    best: dict[str, Tensor] = {}
    progress = Progress(step=0, best_step=0, history=[], seconds=0.0, peak_memory_mib=0, environment=here)
    if restored := load_checkpoint(checkpoint, identity, model, average, optimizer):
        best, progress = restored
        limit = config.max_steps if until is None else until
        if progress.step > limit:
            if until is not None and _take_kept_steps(folder, until, identity):
                return True
            raise UserError(
                f"{checkpoint}: stands at step {progress.step}, past step {limit}: delete it to begin again"
            )
        reporter.message(f"goes on from step {progress.step}")
    elif checkpoint.exists():
        reporter.message("starts anew: the checkpoint is of another config, data or code")

    history, best_step = progress.history, progress.best_step
    batches_per_epoch = math.ceil(len(task.texts) / run.batch_size)
    epoch_rows = training_rows(task.texts, run.batch_size, run.seed, progress.step // batches_per_epoch)
    loss_sum, step, status = progress.loss_sum, progress.step, ""

    def progress_now() -> Progress:
        return Progress(
            step=step,
            best_step=best_step,
            history=history,
            seconds=progress.seconds + time.monotonic() - started,
            peak_memory_mib=max(progress.peak_memory_mib, _peak_memory_mib()),
            # A run that was at its end already was not made here.
            environment=here if step > progress.step else progress.environment,
            loss_sum=loss_sum,
        )

    def diverged(what: str) -> UserError:
        return UserError(
            f"{what} is not finite at step {step} of {run.scale}/{run.dataset}/{run.model_name}/{run.seed}: lower "
            "training.learning_rate or training.clip_norm, or check the word vectors; "
            f"the checkpoint of step {history[-1]['step'] if history else 0} is kept"
        )

    while not _finished(step, best_step, config) and step != until:
        if time.monotonic() >= deadline:
            save_checkpoint(checkpoint, identity, digest, model, average, optimizer, best, progress_now())
            reporter.message(f"stops for the time at step {step}: start it again to go on")
            return False
        if step % batches_per_epoch == 0:
            epoch_rows = training_rows(task.texts, run.batch_size, run.seed, step // batches_per_epoch)
        model.train()
        for layer in skimming:
            layer.temperature = temperature_at(step, config)
        rows = epoch_rows[step % batches_per_epoch]
        loss, norm = yield Step(task, rows, step, optimizer, config.clip_norm)
        step += 1
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise diverged("the loss or its gradient")
        if average is not None:
            average.update_parameters(model)
        loss_sum += loss
        if step % config.validate_every == 0 or step == config.max_steps:
            scores = task.validate(judged).model_dump()
            if not all(math.isfinite(value) for value in scores.values() if isinstance(value, float)):
                raise diverged("the validation loss")
            steps_since = step - (history[-1]["step"] if history else 0)
            history.append(
                {
                    "step": step,
                    "temperature": temperature_at(step, config),
                    "training_loss": loss_sum / steps_since,
                    "validation": scores,
                }
            )
            loss_sum = 0.0
            score = scores[task.measure]
            if not best or score > _entry(history, best_step)["validation"][task.measure]:
                best_step = step
                best = {name: tensor.clone() for name, tensor in judged.state_dict().items()}
            save_checkpoint(checkpoint, identity, digest, model, average, optimizer, best, progress_now())
            _write_course(folder, progress_now(), "unfinished")
            best_score = _entry(history, best_step)["validation"][task.measure]
            status = f"loss {history[-1]['training_loss']:.3f}  val {score:.1%} (best {best_score:.1%})"
            if skimming:
                status += f"  skim {scores['skim_rate']:.1%}"
        expected_steps = min(best_step + config.patience, config.max_steps)
        reporter.update(step, min(expected_steps, until) if until else expected_steps, status)

    stopped = "max_steps" if step == config.max_steps else "patience"
    if until is not None:
        if step != until:
            raise UserError(
                f"{run.scale}/{run.dataset}/{run.model_name}/{run.seed} stops learning at step {step}, before step "
                f"{until}, which other models start from: raise training.{stopped}, or let them start earlier"
            )
        for path in (_kept_steps(folder, until), _first_steps(folder, until)):
            write_tensors(path, judged.state_dict(), {"identity": identity})
        return True
    write_tensors(folder / "weights.safetensors", best, {"run": digest})
    _write_course(folder, progress_now(), stopped)
    return True


def _write_course(folder: Path, progress: Progress, stopped: str) -> None:
    """Write how training went, so far or in the end, and what it cost."""
    write_json(folder / "training.json", progress.course(stopped))
    write_json(folder / "timing.json", progress.timing)


def _peak_memory_mib() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _first_steps(folder: Path, until: int) -> Path:
    return folder / f"step-{until}.safetensors"


def _kept_steps(folder: Path, until: int) -> Path:
    """A second copy: Snakemake removes the first to have it made anew, and a run that went on cannot make it again."""
    return folder / f"kept-step-{until}.safetensors"


def _take_kept_steps(folder: Path, until: int, identity: str) -> bool:
    """Put the kept copy of first steps in their place, if it is there and of this config, data and code."""
    kept = _kept_steps(folder, until)
    if not kept.exists():
        return False
    weights, metadata = read_tensors(kept)
    if metadata.get("identity") != identity:
        return False
    write_tensors(_first_steps(folder, until), weights, metadata)
    return True


def identity_of(run: RunConfig, prepared: Prepared, start: Path | None) -> str:
    """A digest of all that decides a run: config, data, code and the weights that it starts from."""
    settings, config = run.model_dump(mode="json"), run.training
    if config.max_steps % config.validate_every == 0:
        del settings["training"]["max_steps"]  # It decides nothing before it: raised, the run goes on from there.
    start_digest = [sha256_of_file(start)] if start else []
    return digest_of([settings, prepared.manifest["digest"], code_digest(*TRAINING_CODE), *start_digest])


def are_first_steps(path: Path, source: RunConfig, prepared: Prepared) -> bool:
    """Whether the first steps of a run are there, and of the present config, data and code."""
    return path.exists() and read_tensors(path)[1].get("identity") == identity_of(source, prepared, None)


def _start_from(model: nn.Module, path: Path) -> None:
    """Load the weights of a standard model into one whose layers skim: small cells and decisions keep their own."""
    weights, _ = read_tensors(path)
    own = ("small_", "decision_")
    shared = {name: t.shape for name, t in model.state_dict().items() if not name.rpartition(".")[2].startswith(own)}
    if shared != {name: tensor.shape for name, tensor in weights.items()}:
        raise UserError(f"{path}: the weights are not those of this model's standard counterpart: train that again")
    model.load_state_dict(weights, strict=False)


def _finished(step: int, best_step: int, config: TrainingConfig) -> bool:
    return step >= config.max_steps or step - best_step >= config.patience


def _entry(history: list[dict], step: int) -> dict:
    return next(entry for entry in history if entry["step"] == step)
