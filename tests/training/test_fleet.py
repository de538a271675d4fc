"""The fleet: the pipeline's records, from runs side by side, within a budget, with few libraries."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch

from skimrnn.analysis.analyse import analyse
from skimrnn.analysis.artefact import Analysis
from skimrnn.config import Config, RunConfig, read_config
from skimrnn.data.prepare import Prepared
from skimrnn.errors import UserError
from skimrnn.files import only_user, read_json, read_model, write_json
from skimrnn.fleet import fleet
from skimrnn.fleet.fleet import Job, Outcome, Places, missing_runs, run_fleet
from skimrnn.training.record import write_record
from skimrnn.training.together import Member, shape_of
from skimrnn.training.train import are_first_steps, train
from tests.conftest import ROOT, Silent, small_config
from tests.triton_process import run_under_triton

CPU = torch.device("cpu")


@pytest.fixture
def config() -> Config:
    return small_config(max_steps=8, validate_every=4).model_copy(update={"seeds": [0, 1]})


@pytest.fixture
def places(prepared: Prepared, tmp_path: Path) -> Places:
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "sst").symlink_to(prepared.folder)
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "sst").symlink_to(prepared.folder.parent / "tokens")
    return Places(tmp_path / "prepared", tmp_path / "runs", tmp_path / "results", tmp_path / "tokens")


def command(config: Config, places: Places, *options: str) -> list[str]:
    file = places.runs.with_name("config.json")
    write_json(file, config.model_dump(mode="json"))
    folders = ["--prepared", places.prepared, "--runs", places.runs, "--results", places.results]
    folders += ["--tokens", places.tokens]
    return ["--config", *map(str, [file, *folders]), "--device", "cpu", *options]


def test_records_are_those_of_the_runs_alone_to_the_byte(
    config: Config, places: Places, prepared: Prepared, tmp_path: Path
) -> None:
    """Two processes side by side, started as on a machine that has nothing but what training needs."""
    blocked = ("typer", "yaml", "snakemake", "rich", "datasets", "nltk", "gensim", "jinja2", "matplotlib")
    program = f"""
import sys
sys.modules.update(dict.fromkeys({blocked!r}))
from skimrnn.fleet.__main__ import main
if __name__ == "__main__":
    main({command(config, places, "--jobs", "2", "--seed", "1")!r})
"""
    script = tmp_path / "blocked.py"  # A file, since worker processes import it again, with what it blocks.
    script.write_text(program)
    process = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "2 runs without a record, on cpu" in process.stderr
    assert process.stderr.endswith("2 recorded\n")
    for model in config.models:
        run = config.run("sst", model, 1)
        train(run, prepared, tmp_path / "alone" / model, Silent())
        write_record(run, prepared, tmp_path / "alone" / model, tmp_path / f"{model}.json")
        assert places.record(run).read_bytes() == (tmp_path / f"{model}.json").read_bytes()
        alone = analyse(run, prepared, places.tokens / "sst", tmp_path / "alone" / model)
        assert read_model(places.record(run).with_suffix(".analysis.json"), Analysis) == alone
    assert {run.seed for run in missing_runs(config, places, [], [], [])} == {0}


def test_a_budget_ends_it_and_it_goes_on_to_the_same_bytes(
    config: Config, places: Places, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = missing_runs(config, places, [], ["skim"], [0])
    late = iter([0.0] * 6)  # The clock strikes in the middle, between two validations.
    real = time.monotonic
    monkeypatch.setattr("skimrnn.training.train.time.monotonic", lambda: real() + next(late, 1e6))
    outcome = run_fleet(config, runs, places, CPU, deadline=real() + 1e5)
    monkeypatch.setattr("skimrnn.training.train.time.monotonic", real)
    assert (outcome.recorded, outcome.left) == (0, 1)
    assert (places.folder(runs[0]) / "checkpoint.safetensors").exists()
    assert not (places.folder(runs[0]) / "weights.safetensors").exists()
    outcome = run_fleet(config, runs, places, CPU)
    assert (outcome.recorded, outcome.left) == (1, 0)
    train(runs[0], prepared, tmp_path / "alone", Silent())
    write_record(runs[0], prepared, tmp_path / "alone", tmp_path / "0.json")
    assert places.record(runs[0]).read_bytes() == (tmp_path / "0.json").read_bytes()


def test_one_failure_does_not_keep_the_others_from_running(config: Config, places: Places) -> None:
    runs = missing_runs(config, places, [], ["lstm"], [])
    folder = places.folder(runs[0])
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_text("no checkpoint")
    with pytest.raises(UserError, match=r"checkpoint\.safetensors: truncated or not a safetensors file"):
        run_fleet(config, runs, places, CPU)
    assert [places.record(run).exists() for run in runs] == [False, True]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("Triton Error [CUDA]: out of memory")],
)
def test_a_pack_that_does_not_fit_goes_on_as_two(
    error: RuntimeError, places: Places, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [config.run("sst", "lstm", seed) for seed in range(5)]
    trained, written, said = [], [], []

    def train_two(members: list[Member], *_: object) -> list[bool]:
        if len(members) > 2:
            raise error
        trained.append([member.run.seed for member in members])
        return [True] * len(members)

    monkeypatch.setattr(fleet, "train_together", train_two)
    monkeypatch.setattr(fleet, "_write_results", lambda run, *_: written.append(run.seed))
    assert fleet._train_pack([Job(run) for run in runs], places, CPU, math.inf, said.append) == []
    assert (trained, written) == ([[0, 1], [2], [3, 4]], [0, 1, 2, 3, 4])
    assert said[0] == "the GPU has no memory for 5 runs together: on with 2 and 3"
    monkeypatch.setattr(fleet, "train_together", lambda *_: train_two([None] * 3))
    (failure,) = fleet._train_pack([Job(runs[0])], places, CPU, math.inf, said.append)
    assert str(failure).startswith("sst lstm 0: out of memory on the GPU")


@pytest.mark.parametrize("lost", [False, True])
def test_a_run_that_lacks_memory_leaves_the_others_and_a_lost_gpu_none(
    lost: bool, config: Config, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def train_or_fail(run: RunConfig, *_: object, **__: object) -> bool:
        begun.append(run.model_name)
        if run.model_name == "lstm":
            raise RuntimeError("CUDA error: unspecified launch failure") if lost else MemoryError()
        return False

    monkeypatch.setattr(fleet, "train", train_or_fail)
    runs = missing_runs(config, places, [], [], [0])
    with pytest.raises(RuntimeError if lost else UserError, match="launch failure" if lost else "sst lstm 0: out of"):
        run_fleet(config, runs, places, CPU)
    assert begun == (["lstm"] if lost else ["lstm", "skim"])


def test_texts_that_cannot_be_analysed_are_told_before_training(config: Config, places: Places) -> None:
    (places.tokens / "sst").unlink()
    (places.tokens / "sst").symlink_to(places.prepared / "sst")
    with pytest.raises(UserError, match="another step's folder"):
        run_fleet(config, missing_runs(config, places, [], [], []), places, CPU)
    assert not places.runs.exists()


def test_a_run_waits_for_its_own_first_steps_alone(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers: a run that starts from nothing does not wait, and what starts from first steps follows them."""
    paper = read_config(ROOT / "config" / "paper.yaml")
    names = ("lstm_att", "sk_lstm_att-0-0.1", "sk_lstm_att-20-0.1", "lstm_att-2x50")
    runs = [paper.run("squad", name, 0) for name in names]
    submitted, begun, others_begun = [], [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int, **_: object) -> None:
            super().__init__(workers)

        def submit(self, do: Callable[..., None], job: Job, *rest: object) -> Future:
            submitted.append(job.title)
            return super().submit(do, job, *rest)

    def do(job: Job, *_: object) -> None:
        begun.append(job.title)
        if job.until:
            assert others_begun.wait(30)
            begun.append("its end")
        elif job.run.model_name == "lstm_att-2x50":
            others_begun.set()

    monkeypatch.setattr(fleet, "_do", do)
    monkeypatch.setattr(fleet, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(Places, "data", lambda *_: None)
    run_fleet(paper, runs, places, CPU, jobs=2)
    at_once = ["squad lstm_att 0 to step 5000", "squad lstm_att-2x50 0"]
    rest = ["squad lstm_att 0", "squad sk_lstm_att-0-0.1 0", "squad sk_lstm_att-20-0.1 0"]
    assert submitted == [*at_once, *rest]
    # Of two that are submitted together, either may begin first.
    assert (sorted(begun[:2]), begun[2], sorted(begun[3:])) == (at_once, "its end", rest)


@pytest.mark.parametrize("jobs", [1, 2])
def test_nothing_starts_from_first_steps_that_failed(
    jobs: int, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though such steps of another config lie there."""
    paper = read_config(ROOT / "config" / "paper.yaml")
    runs = [paper.run("squad", name, seed) for seed in (0, 1) for name in ("lstm_att", "sk_lstm_att-0-0.1")]
    done = []

    def do(job: Job, *_: object) -> None:
        if job.until and job.run.seed == 0:
            raise UserError("the disk is full")
        done.append(job.title)

    monkeypatch.setattr(fleet, "_do", do)
    monkeypatch.setattr(fleet, "ProcessPoolExecutor", lambda workers, **_: ThreadPoolExecutor(workers))
    monkeypatch.setattr(fleet, "are_first_steps", lambda *_: False)
    monkeypatch.setattr(Places, "data", lambda *_: None)
    with pytest.raises(UserError, match=r"the disk is full$"):
        run_fleet(paper, runs, places, CPU, jobs=jobs)
    assert done == ["squad lstm_att 1 to step 5000", "squad lstm_att 1", "squad sk_lstm_att-0-0.1 1"]


def test_fleets_share_a_grid(config: Config, places: Places) -> None:
    """One leaves to another what that one trains, and what it has finished meanwhile."""
    runs, told = missing_runs(config, places, [], ["lstm"], []), []
    with only_user(places.folder(runs[0]), "trains this run"):
        assert run_fleet(config, runs, places, CPU, report=told.append) == Outcome(recorded=1, left=1)
    assert told == [f"{places.folder(runs[0])}: another process trains this run there: wait for it, or stop it"]
    trained = places.folder(runs[1]) / "checkpoint.safetensors"
    trained.unlink()  # Trained again it would be there.
    assert run_fleet(config, runs, places, CPU) == Outcome(recorded=2, left=0)
    assert not trained.exists()
    fleet._do(Job(runs[1], until=4), places, CPU, math.inf)  # What others start from is made all the same.
    assert (places.folder(runs[1]) / "step-4.safetensors").exists()


def test_every_failure_is_told(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = read_config(ROOT / "config" / "paper.yaml")

    def fail(job: Job, *_: object) -> None:
        raise UserError(f"{job.title}: the disk is full")

    monkeypatch.setattr(fleet, "_do", fail)
    monkeypatch.setattr(Places, "data", lambda *_: None)
    told: list[str] = []
    with pytest.raises(UserError, match=r"^squad lstm_att-2x50 2: the disk is full$"):
        run_fleet(paper, [paper.run("squad", "lstm_att-2x50", n) for n in range(3)], places, CPU, report=told.append)
    assert told == [f"error: squad lstm_att-2x50 {n}: the disk is full" for n in range(2)]


def test_a_run_that_others_start_from_keeps_its_first_steps(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = read_config(ROOT / "config" / "paper.yaml")
    monkeypatch.setattr(fleet, "are_first_steps", lambda *_: False)
    monkeypatch.setattr(Places, "data", lambda *_: None)
    first_steps, later = fleet._jobs(paper, [paper.run("squad", "lstm_att", 0)], places)
    assert [job.title for job in (*first_steps, *later)] == ["squad lstm_att 0 to step 5000", "squad lstm_att 0"]
    assert later[0].start is None


INTERRUPTED = """
import os, signal, sys, time
from pathlib import Path
from skimrnn.errors import interrupt_on_termination
from skimrnn.fleet import fleet
from skimrnn.fleet.__main__ import main
begun = Path(sys.argv[1])
def do(job, *_):
    (begun / f"{job.title} {os.getpid()}").touch()
    time.sleep(2)
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt_on_termination()
    fleet._do = do
    main(sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("sent", "whole_group"), [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, False)]
)
def test_an_interruption_ends_it(
    sent: signal.Signals, whole_group: bool, config: Config, places: Places, tmp_path: Path
) -> None:
    """What has not begun does not begin, whoever hears of it."""
    (script := tmp_path / "interrupted.py").write_text(INTERRUPTED)
    (begun := tmp_path / "begun").mkdir()
    many = config.model_copy(update={"seeds": list(range(6))})
    arguments = [str(begun), *command(many, places, "--jobs", "2")]
    process = subprocess.Popen(
        [sys.executable, script, *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while len(list(begun.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    (os.killpg if whole_group else os.kill)(process.pid, sent)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted: run the same command to go on" in said
    assert len(list(begun.iterdir())) < 4


def test_workers_end_with_a_fleet_that_is_killed(config: Config, places: Places, tmp_path: Path) -> None:
    (script := tmp_path / "interrupted.py").write_text(INTERRUPTED.replace("time.sleep(2)", "time.sleep(600)"))
    (begun := tmp_path / "begun").mkdir()
    process = subprocess.Popen([sys.executable, script, str(begun), *command(config, places, "--jobs", "2")])
    while len(list(begun.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    workers = [Path("/proc") / path.name.split()[-1] for path in begun.iterdir()]
    end = time.monotonic() + 20
    while any(worker.exists() for worker in workers):
        assert time.monotonic() < end, "workers live on"
        time.sleep(0.05)


def test_a_result_that_cannot_be_written_does_not_keep_the_others_from_it(
    config: Config, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(run: RunConfig, *_: object) -> None:
        if run.seed == 0:
            raise UserError("the disk is full")
        written.append(run.seed)

    monkeypatch.setattr(fleet, "_write_results", write)
    monkeypatch.setattr(fleet, "train_together", lambda members, *_: [True for _ in members])
    pack = [Job(config.run("sst", "skim", seed)) for seed in (0, 1)]
    (failure,) = fleet._train_pack(pack, places, CPU, math.inf, print)
    assert str(failure) == "the disk is full" and written == [1]


def test_what_the_hub_lacks_is_not_asked_for(places: Places) -> None:
    paper = read_config(ROOT / "config" / "paper.yaml")
    asked = {run.dataset for run in missing_runs(paper, places, [], [], [])}
    assert asked == set(paper.available) and "cbt_mini_ne" not in asked
    assert {run.dataset for run in missing_runs(paper, places, ["cbt_mini_ne"], [], [])} == {"cbt_mini_ne"}


def test_first_steps_of_another_config_are_not_started_from(config: Config, places: Places) -> None:
    run = config.run("sst", "lstm", 0)
    first_steps = places.folder(run) / "step-5.safetensors"
    assert not are_first_steps(first_steps, run, places.data(run))
    train(run, places.data(run), places.folder(run), Silent(), until=5)
    assert are_first_steps(first_steps, run, places.data(run))
    changed = run.model_copy(update={"training": run.training.model_copy(update={"patience": 7})})
    assert not are_first_steps(first_steps, changed, places.data(run))


def test_a_record_counts_where_it_is_of_this_config_and_finished(config: Config, places: Places) -> None:
    runs = missing_runs(config, places, [], ["lstm"], [])
    run_fleet(config, runs, places, CPU)
    assert missing_runs(config, places, [], ["lstm"], []) == []
    record = read_json(places.record(runs[0]))
    record["training"]["stopped"] = "unfinished"
    write_json(places.record(runs[0]), record)
    assert missing_runs(config, places, [], ["lstm"], []) == runs[:1]
    longer = small_config(max_steps=12, validate_every=4).model_copy(update={"seeds": [0, 1]})
    with pytest.raises(UserError, match=r"lstm/0\.json: made with another config .*\(training\.max_steps: 8, 12\)"):
        missing_runs(longer, places, [], ["lstm"], [])
    write_json(places.record(runs[0]), {"config": None})
    with pytest.raises(UserError, match=r"lstm/0\.json: no record of a run"):
        missing_runs(config, places, [], ["lstm"], [])


def test_runs_of_one_shape(config: Config) -> None:
    skim, lstm = config.run("sst", "skim", 0), config.run("sst", "lstm", 0)
    other = skim.model_copy(update={"seed": 3, "model": skim.model.model_copy(update={"gamma": 0.9})})
    smaller = skim.model_copy(update={"model": skim.model.model_copy(update={"small_size": 2})})
    assert shape_of(skim) == shape_of(other)
    assert len({shape_of(run) for run in (skim, lstm, smaller)}) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dataset", "imdb"), "unknown dataset imdb: the test config has sst"),
        (("--model", "gru"), "unknown model gru: the test config has lstm, skim"),
        (("--seed", "99"), "the test config has no run of these datasets, models and seeds"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--prepared", "nowhere"), "cannot read nowhere/sst/manifest.json"),
        (("--jobs", "two"), "argument --jobs: must be a whole number from 1, not 'two'"),
        (("--jobs", "0"), "argument --jobs: must be a whole number from 1, not '0'"),
        (("--minutes", "ten"), "argument --minutes: must be a number from 0, not 'ten'"),
        (("--minutes", "nan"), "argument --minutes: must be a number from 0, not 'nan'"),
        (("--minutes=-1",), "argument --minutes: must be a number from 0, not '-1'"),
    ],
)
def test_mistakes_are_one_line(
    options: tuple[str, ...], message: str, config: Config, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    from skimrnn.fleet.__main__ import main

    with pytest.raises(SystemExit) as exit:
        main(command(config, places, *options))
    assert exit.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (BrokenProcessPool("A process in the process pool was terminated abruptly"), "a worker process was killed"),
        (PermissionError(13, "Permission denied", "results"), "Permission denied: 'results': check the path"),
    ],
)
def test_a_failing_machine_is_one_line(
    error: Exception,
    message: str,
    config: Config,
    places: Places,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from skimrnn.fleet.__main__ import main

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(fleet, "run_fleet", fail)
    with pytest.raises(SystemExit) as exit:
        main(command(config, places))
    assert exit.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and message in last


def test_the_command_line_has_it_too(config: Config, places: Places) -> None:
    arguments = command(config, places, "--minutes", "0")
    process = subprocess.run(
        [sys.executable, "-m", "skimrnn", "fleet", *arguments], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "0 recorded, 4 left: run the same command to go on" in process.stderr
    assert not places.results.exists()


def test_packs_in_a_process_of_their_own() -> None:
    assert "5 passed" in run_under_triton(Path(__file__).with_name("together_checks.py"))
