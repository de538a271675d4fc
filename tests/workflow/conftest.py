"""A copy of the project to run pipelines in, and one in which a short pipeline has run."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, small_config

SHORT = ("--configfile", "config/short.yaml")


def environment_of(folder: Path) -> dict[str, str]:
    """The environment in which a copy of the project uses its own package; Python's own is not activated."""
    own = Path(sys.executable).parent
    others = [place for place in os.environ["PATH"].split(os.pathsep) if Path(place) != own]
    return os.environ | {"PYTHONPATH": str(folder), "PATH": os.pathsep.join(others)}


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run snakemake in a copy of the project, with the copy's package."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment_of(folder), check=False)


def copy_project(folder: Path) -> Path:
    """The project's sources, without data and results."""
    for part in ("Snakefile", "workflow", "profiles", "config", "skimrnn"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    if (extension := importlib.util.find_spec("skimrnn.kernels._cpu")) and extension.origin:
        shutil.copy(extension.origin, folder / "skimrnn" / "kernels")
    # The finder of an editable install would give the installed package; here the copy's own must win.
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'ScikitBuildRedirecting' not in type(f).__name__]\n"
    )
    return folder


def holds_times(path: Path) -> bool:
    """Whether a file of `results/` holds times: they differ between any two runs."""
    return path.name == "speed.json" or path.name.endswith(".timing.json")


def assert_same_results(folder: Path, finished: Path) -> None:
    """Records and analyses are those of the finished copy, byte for byte."""
    for path in (finished / "results").rglob("*.json"):
        if not holds_times(path):
            assert (folder / path.relative_to(finished)).read_bytes() == path.read_bytes()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which a short pipeline has run."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    config = small_config(max_steps=20, validate_every=10).model_dump(mode="json")
    (folder / "config" / "short.yaml").write_text(yaml.safe_dump(config))
    process = snakemake(folder, "--configfile", "config/short.yaml")
    assert process.returncode == 0, process.stdout + process.stderr
    return folder
