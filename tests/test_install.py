"""Installing where nothing can be compiled."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT

_LAYER = """
import sys
import torch
from skimrnn import SkimLSTM, kernels

torch.manual_seed(0)
layer = SkimLSTM(6, 8, small_size=3).eval()
torch.save({"kernel": kernels.KERNEL, "output": layer(torch.randn(5, 2, 6))[0]}, sys.argv[1])
"""


def _run(folder: Path, made: Path, **environment: str) -> tuple[dict, str]:
    """What a layer of the package in `folder` gives in a new process, and what the process said.

    Without `site`, whose hooks would find the package that is installed for development.
    """
    path = os.pathsep.join([str(folder), sysconfig.get_paths()["purelib"]])
    process = subprocess.run(
        [sys.executable, "-S", "-c", _LAYER, str(made)],
        capture_output=True, text=True, cwd=made.parent, env=os.environ | {"PYTHONPATH": path} | environment,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return torch.load(made, weights_only=True), process.stderr


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler is installed")
def test_with_a_compiler_there_are_compiled_kernels() -> None:
    from skimrnn.kernels import cpu

    assert "plain" in cpu.SUPPORTED_ISAS


@pytest.mark.slow
def test_without_a_compiler_it_installs_says_so_and_works(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    process = subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
            "--target", str(folder), "--config-settings", f"build-dir={tmp_path / 'build'}", str(ROOT),
        ],
        capture_output=True, text=True, env=os.environ | {"CC": "/bin/false", "CXX": "/bin/false"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert not list(folder.rglob("_cpu*.so"))
    assert (folder / "skimrnn" / "py.typed").exists()

    made, said = _run(folder, tmp_path / "installed.pt")
    assert made["kernel"] == "reference"
    assert said.count("installed without its compiled kernels: its layers run on the slow path") == 1
    here, _ = _run(ROOT, tmp_path / "here.pt", SKIMRNN_KERNEL="reference")
    assert torch.equal(made["output"], here["output"])


def test_the_layers_are_named_and_commands_say_what_they_lack():
    program = (
        "import sys, skimrnn; assert {'SkimLSTM', 'SkimGRU'} <= set(dir(skimrnn)); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    program = "import runpy, sys; sys.modules['typer'] = None; runpy.run_module('skimrnn', run_name='__main__')"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    said = "error: typer is not installed: the commands need pip install '.[pipeline]'\n"
    assert (process.returncode, process.stderr) == (1, said)
