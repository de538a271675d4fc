"""Checks of what runs on Triton: on a GPU where there is one, else in Triton's interpreter."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


def run_under_triton(checks: Path) -> str:
    """Run a file of tests, all of which must pass, and give what pytest printed.

    In a process of their own: Triton decides at its import whether it interprets, the package which kernel it takes.
    """
    if not importlib.util.find_spec("triton"):
        pytest.skip("Triton is not installed: pip install triton")
    environment = os.environ | {"SKIMRNN_KERNEL": "triton", "OMP_NUM_THREADS": "1"}
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
        numpy = tuple(map(int, importlib.metadata.version("numpy").split(".")[:2]))
        if importlib.metadata.version("triton").startswith("3.5.") and numpy >= (2, 4):
            pytest.skip("the interpreter of Triton 3.5 needs numpy<2.4")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(checks)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr
    return process.stdout
