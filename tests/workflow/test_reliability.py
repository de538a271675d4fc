"""A pipeline that is killed at any point goes on to the same bytes; two in one folder do not mix.

`SKIMRNN_TEST_KILLS=10 pytest -s tests/workflow/test_reliability.py` kills training and evaluation at ten random points.

Deterministic are the data, the weights, the records, the figures, and, given the same times, the tables and the page.
Times differ between any two runs (`speed.json`, `<seed>.timing.json`, `benchmarks/`), so here the tables of both are
made with the same ones.
"""

import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from skimrnn.config import read_config
from skimrnn.reporting.records import read_task_results
from skimrnn.reporting.table_formats import write_tables
from tests.workflow.conftest import SHORT, copy_project, environment_of, holds_times, snakemake

KILLS = int(os.environ.get("SKIMRNN_TEST_KILLS", "0"))

# Half of a checkpoint is on the disk when the process dies, once; `KILL_IN_WRITE` names the file that says so.
KILL_IN_WRITE = """
import os, pathlib
_fsync, _mark = os.fsync, os.environ.get("KILL_IN_WRITE")
def _killed_in_write(file):
    path = pathlib.Path(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}").resolve()
    if path.name.startswith(".checkpoint.safetensors.") and not pathlib.Path(_mark).exists():
        os.truncate(path, path.stat().st_size // 2)
        pathlib.Path(_mark).write_text(str(path))
        os.kill(os.getpid(), 9)
    _fsync(file)
if _mark:
    os.fsync = _killed_in_write
"""


def start(folder: Path, *arguments: str, **environment: str) -> psutil.Popen:
    """Start snakemake in a copy of the project."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *SHORT, "--rerun-incomplete", *arguments]
    with (folder / "output.txt").open("a") as output:
        return psutil.Popen(command, cwd=folder, stdout=output, stderr=output, env=environment_of(folder) | environment)


def workers(process: psutil.Popen) -> list[psutil.Process]:
    """The commands of the package that a running snakemake has started."""
    found = []
    for child in process.children(recursive=True):
        try:
            if child.cmdline()[1:3] == ["-m", "skimrnn"]:
                found.append(child)
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], object], process: psutil.Popen) -> bool:
    """Wait for a condition; whether it came true before the process ended."""
    while process.poll() is None:
        if condition():
            return True
        time.sleep(0.01)
    return False


def kill_once(folder: Path, kind: str, chance: random.Random, targets: list[str]) -> str | None:
    """Run the pipeline, kill it or one of its workers, and say what was hit; None where it ended before that."""
    mark = folder / "killed-in-write"
    mark.unlink(missing_ok=True)
    process = start(folder, *targets, **({"KILL_IN_WRITE": str(mark)} if kind == "write" else {}))
    if kind == "write":
        process.wait()  # Snakemake goes on with what does not depend on the worker that died.
        return f"the writer of {mark.read_text().removeprefix(f'{folder}/')}" if mark.exists() else None
    if not wait_until(lambda: workers(process), process):
        return None
    delay = chance.uniform(0, 8)
    time.sleep(delay)
    if kind == "worker":
        wait_until(lambda: workers(process), process)
        victims = workers(process)
        if not victims:
            return None
        hit = " ".join(victims[0].cmdline()[3:10])
        victims[0].send_signal(signal.SIGKILL)
        process.wait()
        return f"{hit} after {delay:.1f} s"
    if process.poll() is not None:
        return None
    orphans = workers(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return f"snakemake after {delay:.1f} s, {len(orphans)} of its workers left running"


def unlock(folder: Path) -> None:
    """Remove the lock that a killed snakemake leaves, as its message says."""
    process = snakemake(folder, "--unlock", *SHORT)
    assert process.returncode == 0, process.stderr


def final(folder: Path, times: Path) -> dict[str, bytes]:
    """The bytes of records and weights, and of the tables made from them with another run's times."""
    results = folder / "results"
    for path in (times / "results").rglob("*.json"):
        if holds_times(path) and folder != times:
            shutil.copy(path, folder / path.relative_to(times))
    config = read_config(folder / SHORT[1])
    write_tables(read_task_results(config, "classification", results), folder / "tables")
    kept = [*(folder / "tables").iterdir(), *results.rglob("0.json"), *(folder / "runs").rglob("weights.safetensors")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


def assert_equal(folder: Path, finished: Path) -> None:
    """What lies in `folder` is what a run without a kill has made, byte for byte."""
    expected, found = final(finished, finished), final(folder, finished)
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []


def killable_copy(folder: Path, finished: Path) -> Path:
    """A copy of the project in which a checkpoint's write can be cut off."""
    copy_project(folder)
    shutil.copy(finished / SHORT[1], folder / "config")
    with (folder / "sitecustomize.py").open("a") as file:
        file.write(KILL_IN_WRITE)
    return folder


@pytest.mark.skipif(not KILLS, reason="takes minutes a kill: set SKIMRNN_TEST_KILLS to their number")
def test_kills_change_no_byte_of_the_result(finished: Path, tmp_path: Path, seed: int) -> None:
    """A worker dies in the middle of a checkpoint, snakemake or a worker at random points."""
    chance, kinds = random.Random(seed), itertools.cycle(["write", "snakemake", "worker", "snakemake"])
    folder, hits = killable_copy(tmp_path, finished), 0
    shutil.copytree(finished / "data", folder / "data")
    shutil.copytree(finished / ".snakemake", folder / ".snakemake")
    targets = [f"results/test/sst/{model}/0.json" for model in ("lstm", "skim")]
    while hits < KILLS:
        kind, started = next(kinds), time.monotonic()
        hit = kill_once(folder, kind, chance, targets)
        print(f"{kind}: {hit or 'the pipeline ended first'} ({time.monotonic() - started:.0f} s)", flush=True)
        hits += hit is not None
        if kind == "snakemake" and hit:
            unlock(folder)
        if hit is None:  # It has got to its end: begin again, to be killed at other points.
            assert_equal(folder, finished)
            for part in ("runs", "results"):
                shutil.rmtree(folder / part)
    assert start(folder, *targets).wait() == 0, (folder / "output.txt").read_text()[-5000:]
    assert_equal(folder, finished)


def test_two_pipelines_in_one_folder_refuse_each_other(finished: Path, tmp_path: Path) -> None:
    folder = killable_copy(tmp_path, finished)
    first = start(folder)
    locks = folder / ".snakemake" / "locks"
    assert wait_until(lambda: locks.is_dir() and len(list(locks.iterdir())) == 2, first)
    try:
        second = snakemake(folder, *SHORT)
        assert second.returncode != 0
        output = second.stdout + second.stderr
        assert "Error: Directory cannot be locked. Please make sure that no other Snakemake process" in output
        assert "Traceback" not in output
        assert first.poll() is None
    finally:
        for process in [*first.children(recursive=True), first]:
            process.kill()
