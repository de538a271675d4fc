"""The pipeline on a Slurm cluster of one node: a job that is cancelled and one that lacks memory are run again."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tests.workflow.conftest import SHORT, assert_same_results, copy_project, environment_of

CLUSTER = Path(__file__).with_name("slurm_cluster.sh")
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        missing := [name for name in NEEDED if not shutil.which(name)],
        reason=f"no Slurm here: {', '.join(missing)} not found (Debian: slurm-wlm and munge)",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="the daemons of a cluster are started by root"),
    pytest.mark.skipif(
        find_spec("snakemake_executor_plugin_slurm") is None,
        reason="no snakemake-executor-plugin-slurm here: see README, On a cluster",
    ),
]


@pytest.fixture
def cluster() -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands talk to a cluster on this machine."""
    folder = Path(f"/tmp/slurm-{os.getpid()}")
    process = subprocess.run(["bash", CLUSTER, "start", folder], capture_output=True, text=True, check=False)
    try:
        assert process.returncode == 0, process.stderr
        yield {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    finally:
        subprocess.run(["bash", CLUSTER, "stop", folder], check=True)
        shutil.rmtree(folder)


def test_the_pipeline_survives_a_cancelled_job_and_one_that_lacks_memory(
    cluster: dict[str, str], finished: Path, tmp_path: Path
) -> None:
    folder = copy_project(tmp_path)
    shutil.copy(finished / SHORT[1], folder / "config")
    environment = environment_of(folder)
    environment |= cluster | {"PATH": f"{Path(sys.executable).parent}:{cluster['PATH']}"}
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm", *SHORT, "--cores", "2"]
    command += ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"]
    # Training gets too little at its first attempt, enough at the second; there, one job is cancelled.
    command += ["--seconds-between-status-checks", "2", "--set-resources", "train_model:mem_mb=250*attempt**4"]
    with (folder / "output.txt").open("w") as output:
        process = psutil.Popen(command, cwd=folder, stdout=output, stderr=output, env=environment)
    cancelled = None
    while process.poll() is None:
        time.sleep(0.5)
        if cancelled is None and (job := second_attempt(environment)):
            subprocess.run(["scancel", job], env=environment, check=True)
            cancelled = job
    output = (folder / "output.txt").read_text()
    jobs, daemon = (Path(cluster["SLURM_CONF"]).with_name(name).read_text() for name in ("jobs.log", "slurmd.log"))
    print(output, jobs, sep="\n")
    assert process.returncode == 0, output
    assert cancelled is not None
    assert re.search(rf"^JobId={cancelled} .* JobState=CANCELLED ", jobs, re.MULTILINE)
    assert "exceeded memory limit" in daemon and " JobState=FAILED " in jobs
    assert output.count("Trying to restart job") >= 3  # Two lacked memory, one was cancelled.
    assert_same_results(folder, finished)
    assert (folder / "reports/test/index.html").exists()


def second_attempt(environment: dict[str, str]) -> str | None:
    """The number of a training job that runs with the memory of a second attempt."""
    listed = subprocess.run(
        ["squeue", "--noheader", "--states=running", "--format=%i %m %k"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    ).stdout
    found = re.search(r"^(\d+) (4000M|3.9\d*G) rule_train_model", listed, re.MULTILINE)
    return found[1] if found else None
