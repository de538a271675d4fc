"""What a trained classifier scores does not depend on the kernel."""

from pathlib import Path

import pytest

from skimrnn import kernels
from skimrnn.data.prepare import Prepared
from skimrnn.training import train as training
from skimrnn.training.record import read_record, write_record
from tests.conftest import Silent, small_config


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
