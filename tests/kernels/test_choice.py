"""Which kernel a device's layers run on, as the records say."""

import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from skimrnn import kernels
from skimrnn.errors import UserError
from tests.workflow.conftest import copy_project, environment_of


@pytest.mark.parametrize(("interpreted", "named"), [(True, "triton"), (False, "reference")])
def test_triton_runs_on_the_cpu_by_its_interpreter_alone(interpreted: bool, named: str, monkeypatch):
    monkeypatch.setattr(kernels, "KERNEL", "triton")
    monkeypatch.setattr(kernels, "_gpu", SimpleNamespace(INTERPRETED=interpreted))
    assert kernels.kernel_text(torch.device("cpu")) == named
    assert kernels.kernel_text(torch.device("cuda")) == "triton"


@pytest.mark.parametrize("forced", ["", "triton"])
def test_a_gpu_whose_triton_cannot_build_its_driver_has_the_reference(forced: str, monkeypatch):
    gpu = pytest.importorskip("skimrnn.kernels.gpu", reason="Triton is not installed: pip install triton")

    def fail() -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify one")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "start_driver", fail)
    monkeypatch.setattr(kernels, "_FORCED", forced)
    said = r"Triton cannot be used \(Failed to find C compiler\.\): .* C compiler and Python's headers"
    if forced:
        with pytest.raises(UserError, match=said):
            kernels._load_gpu()
    else:
        with pytest.warns(RuntimeWarning, match=f"slow path on the GPU: {said}"):
            assert kernels._load_gpu() is None


@pytest.mark.parametrize("forced", ["", "triton"])
def test_a_gpu_of_amd_has_the_reference(forced: str, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(kernels, "_FORCED", forced)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if forced:
        pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
        with pytest.raises(UserError, match="no NVIDIA GPU here"):
            kernels._load_gpu()
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Nothing is missing that could be installed.
            assert kernels._load_gpu() is None


def test_kernels_of_other_sources_are_refused(tmp_path: Path):
    folder = copy_project(tmp_path)
    with (folder / "skimrnn" / "kernels" / "cpp" / "core.hpp").open("a") as file:
        file.write("// changed\n")

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder, env=environment_of(folder) | variables, capture_output=True, text=True, check=False,
        )  # fmt: skip

    bench = ("-m", "skimrnn", "bench", "--output", "cpu.json")
    process = run(*bench)
    assert process.returncode == 2
    assert process.stderr.startswith("error: ") and "cpp: the kernels were built from other sources" in process.stderr
    # What it advises helps, but times nothing.
    assert "or set SKIMRNN_KERNEL=reference" in process.stderr
    layer = "import torch, skimrnn; skimrnn.SkimLSTM(3, 4, small_size=2)(torch.zeros(5, 2, 3))"
    assert (done := run("-c", layer, SKIMRNN_KERNEL="reference")).returncode == 0, done.stderr
    process = run(*bench, SKIMRNN_KERNEL="reference")
    assert process.returncode == 2
    assert process.stderr.startswith("error: the compiled kernels are timed, and reference is in use")
