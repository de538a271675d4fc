"""Memory comes in large blocks, and what is freed serves again."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

_FAULTS = """
import random, resource, sys
from skimrnn.allocator import take_memory_in_large_blocks

if sys.argv[1] == "in large blocks":
    take_memory_in_large_blocks()

import torch

random.seed(0)
for turn in range(20):
    if turn == 5:  # By then the first have found their places.
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.zeros(random.randint(5, 60) << 20, dtype=torch.uint8) for _ in range(4)]
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    command = [sys.executable, "-c", _FAULTS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists()
    or "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(),
    reason="this system gives no huge pages",
)
def test_pages_are_asked_for_seldom() -> None:
    assert 3 * _faults("in large blocks") < _faults("as they come")
