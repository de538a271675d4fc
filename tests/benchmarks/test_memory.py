from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from skimrnn.benchmarks import memory
from skimrnn.benchmarks.memory import peak_memory_mib


def filling(mebibytes: int) -> Callable[[], object]:
    return lambda: torch.ones(mebibytes << 18)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process cannot read its memory here")
@pytest.mark.parametrize("mebibytes", [0, 96])
def test_the_peak_is_what_the_work_takes(mebibytes: int):
    assert peak_memory_mib(filling, mebibytes) == pytest.approx(mebibytes, abs=4)


def test_there_is_no_peak_where_memory_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    assert peak_memory_mib(filling, 1) is None
