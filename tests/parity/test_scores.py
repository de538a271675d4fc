"""What a trained model scores does not depend on the kernel."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from skimrnn import kernels
from skimrnn.config import ReaderConfig, read_config
from skimrnn.data.batches import evaluation_batches
from skimrnn.data.prepare import Prepared, open_prepared
from skimrnn.data.questions import SCORED_SPLIT, collate_questions, read_questions
from skimrnn.data.registry import DATASETS
from skimrnn.files import read_tensors
from skimrnn.training import train as training
from skimrnn.training.classification import build_classifier
from skimrnn.training.reading import build_reader
from skimrnn.training.record import read_record, write_record
from tests.conftest import ROOT, Silent, small_config

Batch = tuple[tuple[Any, ...], Tensor]


@pytest.mark.skipif(kernels.KERNEL != "cpu", reason="the compiled kernels are not in use")
def test_the_kernels_give_one_record(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = small_config(max_steps=180).run("sst", "skim", 0)
    training.train(run, prepared, tmp_path, Silent())
    scores = {}
    for kernel in ("cpu", "reference"):
        monkeypatch.setattr(kernels, "KERNEL", kernel)
        write_record(run, prepared, tmp_path, tmp_path / f"{kernel}.json")
        scores[kernel] = read_record(tmp_path / f"{kernel}.json").test
    assert 0.1 < scores["cpu"].skim_rate < 0.9, scores
    assert scores["cpu"].accuracy == scores["reference"].accuracy
    assert scores["cpu"].skim_rate == scores["reference"].skim_rate
    assert scores["cpu"].loss == pytest.approx(scores["reference"].loss, rel=1e-6)


@pytest.mark.skipif(kernels.KERNEL != "cpu", reason="the compiled kernels are not in use")
@pytest.mark.parametrize("dataset", DATASETS)
def test_trained_weights_answer_alike_on_both_kernels(dataset: str, monkeypatch: pytest.MonkeyPatch):
    """On a sample of real texts, with the weights of a run at paper scale; SKIMRNN_RUNS names another checkout's."""
    checkout = Path(os.environ.get("SKIMRNN_RUNS", ROOT))
    weights = trained_weights(checkout / "runs" / "paper" / dataset)
    prepared = open_prepared(checkout / "data" / "prepared" / "paper" / dataset, dataset)
    model, batches = opened(checkout, dataset, weights, prepared)
    print(f"{weights.relative_to(checkout)}")
    for inputs, lengths in batches:
        answers = {}
        for kernel in ("cpu", "reference"):
            monkeypatch.setattr(kernels, "KERNEL", kernel)
            with torch.no_grad():
                answers[kernel] = model(*inputs)
        *fast, fast_decisions = list(answers["cpu"])[: 3 if dataset == "squad" else 2]
        *slow, slow_decisions = list(answers["reference"])[: 3 if dataset == "squad" else 2]
        for quick, exact in zip(fast, slow, strict=True):
            assert torch.equal(quick.argmax(dim=1), exact.argmax(dim=1))
            if slow_decisions is None:
                torch.testing.assert_close(quick, exact, rtol=1e-4, atol=1e-5)
        if slow_decisions is not None:  # A margin of rounding's size may fall on either side.
            decided = len(slow_decisions.read) * int(lengths.sum())
            assert (fast_decisions.read != slow_decisions.read).sum() <= 1e-4 * decided


def trained_weights(folder: Path) -> Path:
    """The weights of a run that ended or, where none did, of one's first steps; Skim-LSTMs come last by name."""
    for pattern in ("*sk*/*/weights.safetensors", "*sk*/*/step-*.safetensors", "*/*/weights.safetensors"):
        if found := sorted(folder.glob(pattern)):
            return found[-1]
    pytest.skip(f"no trained weights of {folder.name} at paper scale")


def opened(checkout: Path, dataset: str, weights: Path, prepared: Prepared) -> tuple[nn.Module, Iterator[Batch]]:
    """The model of a file of weights, and a sample of what it is scored on: its inputs, and their lengths."""
    run = read_config(checkout / "config" / "paper.yaml").run(
        dataset, weights.parent.parent.name, int(weights.parent.name)
    )
    vectors = torch.zeros_like(prepared.vectors())
    if isinstance(run.model, ReaderConfig):
        model: nn.Module = build_reader(run.model, vectors, prepared.spellings())
        split = read_questions(prepared, SCORED_SPLIT)
        sampled = (collate_questions(split, rows) for rows in np.array_split(np.arange(len(split)), 300)[::60])
        batches: Iterator[Batch] = (((b.questions, b.contexts), b.contexts.lengths) for b in sampled)
    else:
        model = build_classifier(run.model, vectors, len(prepared.manifest["classes"]), cloze=prepared.cloze)
        texts = islice(evaluation_batches(prepared.split("test"), 16), 0, None, 40)
        batches = ((batch.inputs, batch.lengths) for batch in texts)
    model.load_state_dict(read_tensors(weights)[0])
    return model.eval(), batches
