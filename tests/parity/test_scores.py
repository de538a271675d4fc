"""What a trained classifier scores does not depend on the kernel."""

import os
from itertools import islice
from pathlib import Path

import pytest
import torch

from skimrnn import kernels
from skimrnn.config import read_config
from skimrnn.data.batches import evaluation_batches
from skimrnn.data.prepare import Prepared, open_prepared
from skimrnn.training import train as training
from skimrnn.training.record import load_classifier, read_record, write_record
from tests.conftest import ROOT, Silent, small_config

CLASSIFIED = ["sst", "rotten_tomatoes", "imdb", "ag_news", "cbt_ne", "cbt_cn", "cbt_mini_ne", "cbt_mini_cn"]


@pytest.mark.skipif(kernels.KERNEL != "cpu", reason="the compiled kernels are not in use")
def test_the_kernels_give_one_record(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = small_config(max_steps=100).run("sst", "skim", 0)
    training.train(run, prepared, tmp_path, Silent())
    scores = {}
    for kernel in ("cpu", "reference"):
        monkeypatch.setattr(kernels, "KERNEL", kernel)
        write_record(run, prepared, tmp_path, tmp_path / f"{kernel}.json")
        scores[kernel] = read_record(tmp_path / f"{kernel}.json").test
    assert 0.1 < scores["cpu"].skim_rate < 0.9
    assert scores["cpu"].accuracy == scores["reference"].accuracy
    assert scores["cpu"].skim_rate == scores["reference"].skim_rate
    assert scores["cpu"].loss == pytest.approx(scores["reference"].loss, rel=1e-6)


@pytest.mark.skipif(kernels.KERNEL != "cpu", reason="the compiled kernels are not in use")
@pytest.mark.parametrize("dataset", CLASSIFIED)
def test_trained_weights_answer_alike_on_both_kernels(dataset: str, monkeypatch: pytest.MonkeyPatch):
    """On a sample of real texts, with the weights of a run at paper scale; SKIMRNN_RUNS names another checkout's."""
    checkout = Path(os.environ.get("SKIMRNN_RUNS", ROOT))
    found = sorted((checkout / "runs" / "paper" / dataset).glob("*/*/weights.safetensors"), reverse=True)
    if not found:
        pytest.skip(f"no trained weights of {dataset} at paper scale")
    folder = found[0].parent  # Skim-LSTMs come last by name.
    prepared = open_prepared(checkout / "data" / "prepared" / "paper" / dataset, dataset)
    run = read_config(checkout / "config" / "paper.yaml").run(dataset, folder.parent.name, int(folder.name))
    model = load_classifier(run, prepared, folder).eval()
    for batch in islice(evaluation_batches(prepared.split("test"), 16), 0, None, 40):
        answers = {}
        for kernel in ("cpu", "reference"):
            monkeypatch.setattr(kernels, "KERNEL", kernel)
            with torch.no_grad():
                answers[kernel] = model(*batch.inputs)
        (fast, fast_decisions), (slow, slow_decisions) = answers["cpu"], answers["reference"]
        assert torch.equal(fast.argmax(dim=1), slow.argmax(dim=1))
        if slow_decisions is None:
            torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
        else:  # A margin of rounding's size may fall on either side.
            assert (fast_decisions.read != slow_decisions.read).sum() <= 1e-4 * int(batch.lengths.sum())
