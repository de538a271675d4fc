from collections.abc import Callable

import pytest
import torch

from skimrnn.measures.memory import peak_memory_mib


def filling(mebibytes: int) -> Callable[[], object]:
    return lambda: torch.ones(mebibytes << 18)


@pytest.mark.parametrize("mebibytes", [0, 96])
def test_the_peak_is_what_the_work_takes(mebibytes: int):
    rise = peak_memory_mib(filling, mebibytes)
    assert rise is None or rise == pytest.approx(mebibytes, abs=4)
