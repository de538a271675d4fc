"""A machine that runs out of memory or disk, or loses its GPU: one line that says so, and a run that goes on."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from skimrnn.cli import app
from skimrnn.data.prepare import Prepared
from skimrnn.training import classification
from skimrnn.training.train import train
from tests.command_line import error_of, skimrnn, train_command
from tests.conftest import Silent, small_config


@pytest.fixture(scope="module")
def whole(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of the run without a failure."""
    folder = tmp_path_factory.mktemp("whole")
    train(small_config().run("sst", "skim", 0), prepared, folder, Silent())
    return (folder / "weights.safetensors").read_bytes()


def failing_at(step: int, error: Exception) -> Callable[..., torch.Tensor]:
    """The training loss, but for one call."""
    calls, loss = iter(range(1, 1000)), classification.training_loss

    def failing(*arguments: object) -> torch.Tensor:
        if next(calls) == step:
            raise error
        return loss(*arguments)

    return failing


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "out of memory on the GPU"),
        (
            torch.AcceleratorError("CUDA error: unspecified launch failure\nCompile with"),
            "the GPU failed (CUDA error: ",
        ),
        (RuntimeError("CUDA error: GPU is lost"), "the GPU failed (CUDA error: GPU is lost)"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "out of memory on the GPU"),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors"), "out of memory on the GPU"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out of memory on the GPU"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "the GPU failed (cuDNN error: CUDNN_STATUS_EX"),
        (RuntimeError("No CUDA GPUs are available"), "the GPU failed (No CUDA GPUs are available)"),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), "the GPU failed (Triton Error"),
    ],
)
def test_a_failing_machine_is_one_line_and_the_run_goes_on(
    error: Exception,
    message: str,
    config_file: Path,
    prepared: Prepared,
    whole: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(classification, "training_loss", failing_at(35, error))
        result = CliRunner().invoke(app, train_command(config_file, prepared, tmp_path / "run", model="skim"))
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in line and "run the same command again" in line
    assert "Traceback" not in result.output
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoint.safetensors",
        "timing.json",
        "training.json",
    ]
    result = CliRunner().invoke(app, train_command(config_file, prepared, tmp_path / "run", model="skim"))
    assert result.exit_code == 0 and "goes on from step 20" in result.stderr
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == whole


def test_another_error_is_not_taken_for_a_failing_machine(
    config_file: Path, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classification, "training_loss", failing_at(3, RuntimeError("a mistake of ours")))
    result = CliRunner().invoke(app, train_command(config_file, prepared, tmp_path / "run", model="skim"))
    assert isinstance(result.exception, RuntimeError)


LIMITED = """
import resource, sys
import torch
from skimrnn import cli
from skimrnn.data import prepare, questions
from skimrnn.training import progress, train
torch.set_num_threads(1)
torch.zeros(8, 8).requires_grad_().square().sum().backward()  # Threads and libraries are there before the limit.
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 30_000_000, resource.RLIM_INFINITY))
cli.app(sys.argv[1:])
"""


def test_a_real_lack_of_memory_is_one_line(prepared: Prepared, tmp_path: Path) -> None:
    config = small_config().model_dump(mode="json")
    config["models"]["skim"] |= {"hidden_size": 1000}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = train_command(tmp_path / "config.yaml", prepared, tmp_path / "run", model="skim")
    process = subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True, check=False)
    assert "out of memory" in error_of(process)
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_a_disk_that_fills_up_keeps_the_checkpoint_and_the_run_goes_on(
    config_file: Path, prepared: Prepared, whole: bytes, small_disk: Path, tmp_path: Path
) -> None:
    train(small_config(max_steps=20).run("sst", "skim", 0), prepared, tmp_path / "first", Silent())
    size = (tmp_path / "first" / "checkpoint.safetensors").stat().st_size

    def resize(content: float) -> None:
        subprocess.run(["mount", "-o", f"remount,size={int(content)}", small_disk], check=True)

    resize(1.5 * size)  # Room for one checkpoint, not for the next beside it.
    process = skimrnn(*train_command(config_file, prepared, small_disk / "run", model="skim"))
    assert "the disk is full: free some space and run the same command again" in error_of(process)
    checkpoint = small_disk / "run" / "checkpoint.safetensors"
    assert checkpoint.stat().st_size == pytest.approx(size, rel=0.05)
    assert not list(checkpoint.parent.glob(".*.part"))
    resize(10 * size)
    process = skimrnn(*train_command(config_file, prepared, small_disk / "run", model="skim"))
    assert process.returncode == 0 and "goes on from step 20" in process.stderr
    assert (small_disk / "run" / "weights.safetensors").read_bytes() == whole


def test_a_limit_on_file_size_is_one_line(config_file: Path, prepared: Prepared, tmp_path: Path) -> None:
    arguments = train_command(config_file, prepared, tmp_path / "run", model="skim")
    process = subprocess.run(
        ["prlimit", "--fsize=30000", sys.executable, "-m", "skimrnn", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "a limit on the size of files (ulimit -f) is reached: raise it and run the same command again" in error_of(
        process
    )
    assert not any((tmp_path / "run").glob("*"))
