"""Without a shared file system: every rule names all that it reads and writes.

Each stage runs in a fresh copy of the project, as in a pod, and brings its inputs from a storage that Snakemake's
plugin for plain folders keeps. A file that a rule does not declare would not be there.
"""

import importlib.util
import shutil
from pathlib import Path

import pytest

from tests.workflow.conftest import SHORT, copy_project, snakemake

pytestmark = pytest.mark.skipif(
    shutil.which("rsync") is None or importlib.util.find_spec("snakemake_storage_plugin_fs") is None,
    reason="needs rsync and snakemake-storage-plugin-fs",
)

STAGES = (
    "data/tokens/embedded/sst",
    "data/prepared/test/sst",
    "runs/test/sst/skim/0/weights.safetensors",
    "results/test/sst/skim/0.analysis.json",
    "results/test/sst/skim/0.json",
)


def test_files_travel_through_a_storage_alone(finished: Path, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    options = [
        "--default-storage-provider",
        "fs",
        "--default-storage-prefix",
        str(storage),
        "--shared-fs-usage",
        "none",
    ]
    for number, target in enumerate(STAGES):
        folder = tmp_path / f"pod-{number}"
        folder.mkdir()
        copy_project(folder)
        shutil.copy(finished / SHORT[1], folder / "config")
        process = snakemake(folder, *SHORT, *options, "--rerun-triggers", "mtime", "--", target)
        assert process.returncode == 0, process.stdout + process.stderr
        assert not any((folder / part).exists() for part in ("data", "results"))
    for name in ("0.json", "0.analysis.json"):
        path = Path("results/test/sst/skim") / name
        assert (storage / path).read_bytes() == (finished / path).read_bytes()
