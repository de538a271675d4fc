"""The Triton kernels against the float64 reference: on a GPU where there is one, else by Triton's interpreter."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="Triton is not installed: pip install triton")
def test_the_checks_in_a_process_of_their_own() -> None:
    """Triton decides at its import whether it interprets, and the package which kernel it takes."""
    environment = os.environ | {"SKIMRNN_KERNEL": "triton", "OMP_NUM_THREADS": "1"}
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    process = subprocess.run(
        [*command, Path(__file__).with_name("gpu_checks.py")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr
    assert " passed" in process.stdout
