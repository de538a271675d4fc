"""What `test_fleet` runs in a process of its own: packs on the Triton kernels, against the same runs alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional

from skimrnn.data.batches import Batch
from skimrnn.data.prepare import Prepared
from skimrnn.errors import UserError
from skimrnn.files import read_json, read_tensors, sha256_of_file, write_tensors
from skimrnn.kernels import gpu
from skimrnn.layers import SkimLSTM
from skimrnn.models import Classifier, ClozeReader
from skimrnn.training.classification import training_loss
from skimrnn.training.optimizer import Adam
from skimrnn.training.task import Task
from skimrnn.training.together import Member, Pack, Randomness, train_together
from skimrnn.training.train import Outcome, Step, take_step, train
from tests.conftest import Silent, small_config

DEVICE = torch.device("cpu" if gpu.INTERPRETED else "cuda")


@pytest.fixture
def few(prepared: Prepared, tmp_path: Path) -> Prepared:
    """The first words of the first texts: the interpreter is slow."""
    for name, count in (("train", 6), ("validation", 2)):
        split = prepared.split(name)
        lengths = torch.arange(count) % 3 + 3
        tokens = [split.tokens[start : start + length] for start, length in zip(split.offsets, lengths, strict=False)]
        offsets = functional.pad(lengths.cumsum(0), (1, 0)).to(split.offsets)
        tensors = {"tokens": torch.cat(tokens), "offsets": offsets, "labels": split.labels[:count]}
        write_tensors(tmp_path / "few" / f"{name}.safetensors", tensors)
    write_tensors(tmp_path / "few" / "vectors.safetensors", {"vectors": prepared.vectors()})
    files = {
        name: {"sha256": sha256_of_file(tmp_path / "few" / f"{name}.safetensors")} for name in ("train", "validation")
    }
    return Prepared(tmp_path / "few", prepared.manifest | {"splits": files})


@pytest.mark.parametrize("model", ["lstm", "skim"])
def test_a_run_in_a_pack_is_the_run_alone(model: str, few: Prepared, tmp_path: Path) -> None:
    """Other seeds, other gammas, one two steps ahead at first, one that ends earlier: to the kernel's rounding."""
    runs = [small_config(max_steps=4, validate_every=2).run("sst", model, seed) for seed in range(3)]
    runs = [run.model_copy(update={"batch_size": 4}) for run in runs]  # The last batch of an epoch is smaller.
    runs[2] = runs[2].model_copy(update={"training": runs[2].training.model_copy(update={"max_steps": 3})})
    if model == "skim":
        runs[1] = runs[1].model_copy(update={"model": runs[1].model.model_copy(update={"gamma": 0.5})})
    members = [Member(run, tmp_path / "pack" / str(run.seed), Silent()) for run in runs]
    train(runs[0], few, members[0].folder, Silent(), until=2, device=DEVICE)
    launches = []
    launch = gpu._launch_forward
    gpu._launch_forward = lambda *arguments: launches.append(arguments[0].shape[:-3]) or launch(*arguments)
    try:
        assert train_together(members, few, DEVICE) == [True] * 3
    finally:
        gpu._launch_forward = launch
    assert [models for models in launches if models] == [(2,), (2,), (3,), (2,)]  # One model alone is validation.
    for run, member in zip(runs, members, strict=True):
        folder = tmp_path / "alone" / str(run.seed)
        train(run, few, folder, Silent(), device=DEVICE)
        alone, packed = (read_tensors(place / "weights.safetensors")[0] for place in (folder, member.folder))
        assert alone.keys() == packed.keys()
        for name, tensor in alone.items():
            torch.testing.assert_close(packed[name], tensor, rtol=0, atol=1e-5)
        histories = [read_json(place / "training.json")["history"] for place in (folder, member.folder)]
        for one, other in zip(*histories, strict=True):
            assert one["step"] == other["step"]
            assert one["training_loss"] == pytest.approx(other["training_loss"], rel=1e-5)
            assert one["validation"] == pytest.approx(other["validation"], rel=1e-5)


def test_a_run_that_fails_leaves_the_others(few: Prepared, tmp_path: Path) -> None:
    runs = [small_config(max_steps=2, validate_every=1).run("sst", "lstm", seed) for seed in range(3)]
    members = [Member(run, tmp_path / "pack" / str(run.seed), Silent()) for run in runs]
    for seed, fault in ((0, "no checkpoint"), (2, "")):
        members[seed].folder.mkdir(parents=True)
        if fault:
            (members[seed].folder / "checkpoint.safetensors").write_text(fault)
    # A loss that is not finite, at the second step of the last one.
    take_steps = Pack.take_steps

    def third_diverges(self: Pack, steps: list[Step]) -> list[Outcome]:
        outcomes = take_steps(self, steps)
        return [*outcomes[:-1], Outcome(float("nan"), 1.0)] if steps[0].taken == 1 else outcomes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pack, "take_steps", third_diverges)
        first, second, third = train_together(members, few, DEVICE)
    assert second is True and (members[1].folder / "weights.safetensors").exists()
    assert isinstance(first, UserError) and "truncated" in str(first)
    assert isinstance(third, UserError) and "not finite at step 2" in str(third)


@pytest.mark.parametrize("cloze", [False, True])
def test_a_step_of_a_pack_is_a_step_of_each(cloze: bool, seed: int) -> None:
    """Losses, norms of gradients and moved parameters; texts of unequal lengths, and candidates with padding."""

    def step(number: int) -> Step:
        torch.manual_seed(seed + number)
        layer, vectors = SkimLSTM(3, 4, small_size=2), torch.randn(9, 3)
        model = (ClozeReader(vectors, layer) if cloze else Classifier(vectors, layer, 3)).to(DEVICE)
        lengths = torch.tensor([3 + number, 2])
        tokens = torch.randint(1, 9, (2, 3 + number)) * (torch.arange(3 + number) < lengths[:, None])
        candidates = torch.tensor([[1, 2, 3], [4, 5, 0]]) if cloze else None
        batch, gamma = Batch(tokens, lengths, torch.tensor([2, 1]), candidates), 0.1 * number

        def loss(rows: np.ndarray) -> Tensor:
            return training_loss(model, batch.to(DEVICE), gamma)

        def validate(model: nn.Module) -> BaseModel:
            raise NotImplementedError

        task = Task(model, batch, loss, validate, "accuracy", batch=lambda rows: batch, gamma=gamma)
        return Step(task, np.arange(2), 0, Adam(model.parameters(), 0.01), clip_norm=0.1)

    def chance(number: int) -> Randomness:
        torch.manual_seed(seed - number)
        return Randomness(DEVICE)

    alone, together = ([step(number) for number in range(3)] for _ in range(2))
    chances, pack = [chance(number) for number in range(3)], Pack(together, [chance(number) for number in range(3)])
    for _ in range(2):
        for one, other, own, outcome in zip(alone, together, chances, pack.take_steps(together), strict=True):
            with own.in_use():
                expected = take_step(one)
            assert outcome == pytest.approx(expected, rel=1e-5)
            assert expected.norm > one.clip_norm
            packed = dict(other.task.model.named_parameters())
            for name, parameter in one.task.model.named_parameters():
                torch.testing.assert_close(packed[name], parameter, rtol=0, atol=1e-5)
