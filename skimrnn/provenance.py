"""Where a number came from: digests of the code, the git commit, package versions, the kernel, the hardware."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from skimrnn.counts import count_of
from skimrnn.files import Closed

if TYPE_CHECKING:
    import torch

PACKAGE = Path(__file__).parent
_RECORDED_PACKAGES = ("torch", "numpy", "safetensors", "pydantic", "pyarrow")


class Environment(Closed):
    """The code and the machine that made a record; `kernel` is that of the layers, with its instruction set."""

    git_commit: str | None
    git_dirty: bool | None
    code_digest: str
    python: str
    packages: dict[str, str]
    cpu: str
    gpu: str | None
    threads: int
    kernel: str | None = None

    def commit_text(self, digits: int | None = None) -> str:
        """The commit or its first digits, and whether files differed from it."""
        if self.git_commit is None:
            return "unknown"
        return self.git_commit[:digits] + (" with uncommitted changes" if self.git_dirty else "")


@cache
def code_digest(*parts: str) -> str:
    """SHA-256 over the source files of parts of the package: `training`, `files.py`, ...

    The rules of the workflow take it as a parameter, so that editing a part re-runs the rules that use it.
    """
    digest = hashlib.sha256()
    for part in parts:
        root = PACKAGE / part
        assert root.exists(), root
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.is_file() and not _is_left_over(path.relative_to(PACKAGE)):
                content = path.read_bytes()
                digest.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _is_left_over(path: Path) -> bool:
    """Whether a file below the package is no source: compiled, or an editor's or a desktop's."""
    hidden = any(part.startswith(".") for part in path.parts)
    return hidden or "__pycache__" in path.parts or path.suffix == ".so" or path.name.endswith("~")


TRAINING_CODE = (
    "config.py",
    "files.py",
    "data/batches.py",
    "data/prepare.py",
    "data/questions.py",
    "device.py",
    "kernels",
    "layers",
    "measures/squad.py",
    "models",
    "training",
)
"""The parts of the package that decide what a training run gives."""

ANALYSIS_CODE = (*TRAINING_CODE, "analysis", "measures/flops.py")
"""The parts of the package that decide what the analysis of a run says."""


def environment(device: "torch.device | None" = None) -> Environment:
    """Describe the code and the machine of this process, which computes on `device` (the CPU if none is given)."""
    import torch  # Imported here, with what imports it: the workflow needs none of it.

    from skimrnn.kernels import kernel_text

    commit, dirty = _git_state()
    return Environment(
        git_commit=commit,
        git_dirty=dirty,
        code_digest=code_digest(*TRAINING_CODE),
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in _RECORDED_PACKAGES},
        cpu=_cpu_name(),
        gpu=torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else None,
        threads=torch.get_num_threads(),
        kernel=kernel_text(device or torch.device("cpu")),
    )


@cache  # What is committed while a process runs is not the code that it runs.
def _git_state() -> tuple[str | None, bool | None]:
    """The commit of the checkout that the package lies in, and whether tracked files differ from it.

    Installed elsewhere, it is what its image was built from: SKIMRNN_COMMIT, as `git describe --dirty` has it.
    """

    def git(*arguments: str) -> str:
        # Optional locks off: asking must not write to a repository that somebody else may be using.
        command = ["git", "--no-optional-locks", "-C", str(PACKAGE), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        root = Path(git("rev-parse", "--show-toplevel"))
        if root == PACKAGE.parent:  # Not somebody else's repository, that it is installed inside.
            return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no", "--", "."))
    except (OSError, subprocess.CalledProcessError):
        pass
    commit = os.environ.get("SKIMRNN_COMMIT")
    return (commit.removesuffix("-dirty"), commit.endswith("-dirty")) if commit else (None, None)


def _cpu_name() -> str:
    cores = count_of(os.cpu_count() or 1, "core")
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {cores}"
    except OSError:
        pass
    return f"{platform.processor() or platform.machine()}, {cores}"
