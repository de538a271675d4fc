"""The pipeline on Kubernetes, by the profile: pods that share nothing but a volume, and one that is killed.

Each pod starts in an empty folder and brings its inputs from the volume: a file that a rule does not declare would not
be there. The cluster's API is a stand-in on this machine; executor, storage and profile are the real ones.
"""

import shutil
import sys
import time
import zipfile
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.workflow.conftest import SHORT, assert_same_results, copy_project, environment_of

NEEDED = ("snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_fs", "flask")

if not (missing := [name for name in NEEDED if find_spec(name) is None]):
    from tests.workflow.kubernetes_cluster import Cluster, container_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)} here: pip install '.[kubernetes]' flask"),
    pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync here (Debian: rsync)"),
]


def wheel_of(package: str, folder: Path) -> None:
    """Pack an installed package of pure Python as pip downloads it."""
    installed = distribution(package)
    name = f"{package.replace('-', '_')}-{installed.version}-py3-none-any.whl"
    with zipfile.ZipFile(folder / name, "w") as wheel:
        for file in installed.files or []:
            if "__pycache__" not in file.parts:
                wheel.write(file.locate(), str(file))


def trains(job: dict[str, Any]) -> bool:
    return "train_model" in container_of(job)["args"][1]


def test_the_pipeline_runs_in_pods_and_survives_a_killed_one(finished: Path, tmp_path: Path) -> None:
    folder, image, wheels, volume = (tmp_path / name for name in ("project", "image", "wheels", "volume"))
    for path in (folder, image, wheels, volume):
        path.mkdir()
    copy_project(folder)
    shutil.copy(finished / SHORT[1], folder / "config")
    copy_project(image)
    wheel_of("snakemake-storage-plugin-fs", wheels)
    profile = yaml.safe_load((folder / "profiles/kubernetes/config.yaml").read_text())
    programs = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": programs, "PYTHONPATH": str(image), "PYTHONSAFEPATH": "1", "HOME": str(tmp_path)}
    images = {profile["container-image"]: environment}
    with Cluster(tmp_path / "cluster", images, {"/opt/wheels": wheels}) as cluster:
        command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/kubernetes", *SHORT]
        command += ["--default-storage-prefix", str(volume / "skimrnn")]
        command += ["--jobs", "2", "--seconds-between-status-checks", "1"]
        with (tmp_path / "output.txt").open("w") as file:
            process = psutil.Popen(
                command,
                cwd=folder,
                stdout=file,
                stderr=file,
                env=environment_of(folder) | {"KUBECONFIG": str(cluster.kubeconfig)},
            )
        killed = None
        while process.poll() is None:
            time.sleep(0.2)
            training = [pod for pod in list(cluster.pods.values()) if trains(pod.job)]
            if killed is None and training:
                killed = training[0]
                killed.kill()
    output = (tmp_path / "output.txt").read_text()
    print(output)
    assert process.returncode == 0
    assert killed is not None and output.count("Trying to restart job") == 1
    assert not cluster.pods and not cluster.secrets
    claim, _ = profile["kubernetes-persistent-volumes"].split(":")
    for job in cluster.jobs:
        claims = [volume.get("persistentVolumeClaim") for volume in job["spec"]["template"]["spec"]["volumes"]]
        assert {"claimName": claim} in claims
    memory = [container_of(job)["resources"]["requests"]["memory"] for job in cluster.jobs if trains(job)]
    assert sorted(memory) == ["3000M", "3000M", "6000M"]  # Two runs, and the second attempt of one.
    assert_same_results(volume / "skimrnn", finished)
    assert (volume / "skimrnn/reports/test/index.html").exists()
