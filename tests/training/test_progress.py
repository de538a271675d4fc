"""What a run says of itself where no bar is shown."""

import time

import pytest

from skimrnn.training.progress import ProgressReporter


def test_the_time_left_counts_from_the_first_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Not from before it, when data are read; a step takes 1 s here, and the run goes on from a checkpoint."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    reporter = ProgressReporter("sst lstm 0", bar=False)
    for step in (400, 410, 430):
        clock[0] = 600.0 + step
        reporter.update(step, 1000, "loss 0.7")
    assert capsys.readouterr().err.splitlines() == [
        "sst lstm 0: step 400 of 1000, loss 0.7, ETA unknown",
        "sst lstm 0: step 430 of 1000, loss 0.7, ETA 570 s",
    ]
