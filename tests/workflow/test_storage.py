"""Without a shared file system: every rule names all that it reads and writes.

Each stage runs in a fresh copy of the project, as in a pod, and brings its inputs from a storage: a folder, or a bucket
of a server on this machine, as the profile for Kubernetes has it. A file that a rule does not declare would not be
there.
"""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.workflow.conftest import SHORT, copy_project, snakemake

STAGES = (
    "data/tokens/embedded/sst",
    "data/prepared/test/sst",
    "runs/test/sst/skim/0/weights.safetensors",
    "results/test/sst/skim/0.analysis.json",
    "results/test/sst/skim/0.json",
)


class Storage(NamedTuple):
    """Snakemake's options for a storage, and how to read a file of it."""

    options: list[str]
    read: Callable[[Path], bytes]


def need(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture(params=["fs", "s3"])
def storage(request: pytest.FixtureRequest) -> Storage:
    return request.getfixturevalue(f"{request.param}_storage")


@pytest.fixture
def fs_storage(tmp_path: Path) -> Storage:
    need("snakemake_storage_plugin_fs")
    if shutil.which("rsync") is None:
        pytest.skip("needs rsync")
    folder = tmp_path / "storage"
    options = ["--default-storage-provider", "fs", "--default-storage-prefix", str(folder)]
    return Storage(options, lambda path: (folder / path).read_bytes())


@pytest.fixture
def s3_storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    need("snakemake_storage_plugin_s3", "moto", "flask")  # flask: moto[server]
    import boto3
    from moto.server import ThreadedMotoServer

    for key in ("ACCESS_KEY", "SECRET_KEY"):
        monkeypatch.setenv(f"SNAKEMAKE_STORAGE_S3_{key}", "testing")
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client(
        "s3", "us-east-1", endpoint_url=address, aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    client.create_bucket(Bucket="bucket")
    options = ["--default-storage-provider", "s3", "--default-storage-prefix", "s3://bucket/skimrnn"]
    yield Storage(
        [*options, "--storage-s3-endpoint-url", address],
        lambda path: client.get_object(Bucket="bucket", Key=f"skimrnn/{path}")["Body"].read(),
    )
    server.stop()


def test_files_travel_through_a_storage_alone(finished: Path, storage: Storage, tmp_path: Path) -> None:
    options = [*storage.options, "--shared-fs-usage", "none", "--rerun-triggers", "mtime"]
    for number, target in enumerate(STAGES):
        folder = tmp_path / f"pod-{number}"
        folder.mkdir()
        copy_project(folder)
        shutil.copy(finished / SHORT[1], folder / "config")
        process = snakemake(folder, *SHORT, *options, "--", target)
        assert process.returncode == 0, process.stdout + process.stderr
        assert not any((folder / part).exists() for part in ("data", "results"))
    for name in ("0.json", "0.analysis.json"):
        path = Path("results/test/sst/skim") / name
        assert storage.read(path) == (finished / path).read_bytes()
