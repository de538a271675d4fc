"""The cost of the grid: measured, estimated or unknown, and how good estimates are."""

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from skimrnn.config import Config, LSTMAttConfig
from skimrnn.files import read_json, write_json
from skimrnn.reporting.costs import (
    Plan,
    Planned,
    TimedRun,
    estimate,
    leave_one_out,
    make_plans,
    read_measured,
)
from skimrnn.reporting.plan import plan_text
from skimrnn.training.record import Record
from tests.command_line import error_of, skimrnn


def counts(dataset: str, mean: float, validation_rows: int) -> dict[str, object]:
    """What `data stats` writes about a dataset."""
    return {
        "dataset": dataset,
        "source": "mirror",
        "revision": None,
        "complete": True,
        "digests": {},
        "rows": {"train": 1000, "validation": validation_rows},
        "fetched_rows": {},
        "mean_length": {"all tokens": mean},
        "vocabulary": {},
        "leaks": {},
        "empty": 0,
    }


def measured(config: Config, dataset: str = "sst", model: str = "lstm", seed: int = 0, **changes: object) -> TimedRun:
    run = config.run(dataset, model, seed)
    base = TimedRun(run, "a processor", False, "cpu", 5000, True, 100.0, 1000.0)
    return replace(base, **changes)


def plan_of(grid: Path, config: Config) -> Plan:
    (plan,) = make_plans(config, grid, read_measured(config, grid))
    return plan


def row_of(plan: Plan, dataset: str, model: str) -> Planned:
    return next(row for row in plan.rows if (row.dataset, row.model) == (dataset, model))


def test_finished_runs_cost_nothing_more(grid: Path, config: Config) -> None:
    row = row_of(plan_of(grid, config), "sst", "lstm")
    assert (row.finished, row.seeds, row.left, row.source) == (3, 3, (), "measured")
    assert row.spent == pytest.approx(3 * 80.5)


def test_a_run_counts_for_the_machine_that_trained_it(grid: Path, config: Config) -> None:
    """Whatever scored it."""
    path = grid / "paper/sst/lstm/0.json"
    record = read_json(path)
    record["training"]["environment"] |= {"gpu": "a GPU", "kernel": "triton"}
    write_json(path, record | {"kernel": "cpu"})
    found = {(m.hardware, m.gpu, m.kernel) for m in read_measured(config, grid) if m.run.model_name == "lstm"}
    assert found == {("a GPU", True, "triton"), ("some processor, 2 cores", False, "reference")}


def test_a_run_on_two_threads_takes_two_cores(grid: Path, config: Config) -> None:
    """But a GPU's run takes one GPU, however many threads feed it."""
    before = row_of(plan_of(grid, config), "sst", "lstm").spent
    for seed, gpu in ((0, None), (1, "a GPU")):
        path = grid / f"paper/sst/lstm/{seed}.json"
        record = read_json(path)
        record["training"]["environment"] |= {"threads": 2, "gpu": gpu}
        write_json(path, record)
    processor, accelerator = make_plans(config, grid, read_measured(config, grid))
    assert row_of(processor, "sst", "lstm").spent == pytest.approx(before)
    assert row_of(accelerator, "sst", "lstm").spent == pytest.approx(before / 3)


def test_missing_seeds_take_what_the_other_seeds_took(grid: Path, config: Config) -> None:
    record = read_json(grid / "paper/sst/skim-5-0.02/1.json")
    write_json(grid / "paper/sst/skim-5-0.02/1.timing.json", {"wall_seconds": 500.0, "peak_memory_mib": 1})
    row = row_of(plan_of(grid, config), "sst", "skim-5-0.02")
    assert row.left == pytest.approx((500.0, 500.0))
    assert row.source == f"sst skim-5-0.02 (reference, 1), {record['training']['steps']:,} steps as sst skim-5-0.02"


def test_a_model_without_a_run_is_estimated_from_the_nearest_one(grid: Path, config: Config) -> None:
    row = row_of(plan_of(grid, config), "sst", "skim-10-0.02")
    assert row.source.startswith("sst skim-10-0.01 (reference, 3), ")
    assert row.left == pytest.approx((80.5,) * 3, rel=0.5)


def test_another_dataset_is_scaled_by_the_tokens_of_a_step(grid: Path, config: Config) -> None:
    assert row_of(plan_of(grid, config), "imdb", "lstm").left is None
    assert plan_of(grid, config).unknown == 3 * 5
    write_json(grid / "paper" / "datasets.json", [counts("imdb", mean=200.0, validation_rows=9000)])
    plan = plan_of(grid, config)
    row = row_of(plan, "imdb", "lstm")
    # SST: 32 texts of 19 tokens, and a third of 100 texts of 19 tokens every 200 steps. IMDb: 128 of 200, 9000 of 200.
    ratio = (128 * 200 + 9000 * 200 / 200 / 3) / (32 * 19 + 100 * 19 / 200 / 3)
    records = [read_json(grid / f"paper/sst/lstm/{seed}.json") for seed in config.seeds]
    steps = sorted(record["training"]["steps"] for record in records)
    per_step = 80.5 / steps[1]  # The median of three.
    assert row.left == pytest.approx((ratio * per_step * steps[1],) * 3)
    assert "sst lstm (reference, 3), by tokens, " in row.source
    assert plan.unknown == 0
    assert plan.left == pytest.approx(sum(sum(row.left or ()) for row in plan.rows))


def test_an_unfinished_run_has_its_other_steps_left(config: Config) -> None:
    run = measured(config, steps=2000, finished=False, seconds=40.0)
    expected = estimate(run.run, 1000.0, [run])
    assert expected is not None
    assert expected.source == "sst lstm (cpu, 1), 100,000 steps, the limit"
    assert expected.seconds_per_step == pytest.approx(0.02)
    finished = measured(config, seed=1, steps=6000, seconds=120.0)
    expected = estimate(run.run, 1000.0, [run, finished])
    assert expected is not None and expected.steps == 6000


def test_the_fastest_kernel_sets_the_pace_and_any_kernel_the_steps(config: Config) -> None:
    slow = measured(config, kernel="reference", steps=4000, seconds=900.0)
    fast = measured(config, model="skim-5-0.01", steps=7000, seconds=70.0)
    expected = estimate(config.run("sst", "lstm", 2), 1000.0, [slow, fast])
    assert expected is not None
    assert expected.seconds == pytest.approx(4000 * 0.01)


def test_a_model_of_another_kind_says_nothing(config: Config) -> None:
    reader = config.run("sst", "lstm", 0).model_copy(
        update={"model": LSTMAttConfig(architecture="lstm_att", hidden_size=100)}
    )
    run = measured(config)
    assert estimate(run.run, 1000.0, [run]) is not None
    assert estimate(run.run, 1000.0, [replace(run, run=reader)]) is None
    assert estimate(run.run, None, [run]) is None


def test_a_gpu_has_a_plan_of_its_own(
    grid: Path, config: Config, make_record: Callable[..., Record], change: Callable[..., Record], store: Callable
) -> None:
    record = change(make_record(config, "sst", "lstm", 0), "training.environment.gpu", "some accelerator")
    store(record)
    plans = make_plans(config, grid, read_measured(config, grid))
    assert [(plan.hardware, plan.gpu) for plan in plans] == [
        ("some processor, 2 cores", False),
        ("some accelerator", True),
    ]
    assert [row_of(plan, "sst", "lstm").finished for plan in plans] == [3, 3]
    assert row_of(plans[1], "sst", "lstm").spent == pytest.approx(80.5)
    text = plan_text(plans, [], [2])
    assert "some accelerator, GPU-hours:" in text and "left (CPU-h)" in text
    assert "On a GPU: unknown" not in text
    assert "On a GPU: unknown, no record comes from one." in plan_text(plans[:1], [], [2])


def test_wall_time_lies_between_its_bounds(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(50):
        rows = [
            Planned("sst", str(index), 3, 0, 0.0, tuple(chance.uniform(1, 9) for _ in range(3)), release, "")
            for index, release in enumerate(chance.choices([0.0, 2.0], k=5))
        ]
        plan = Plan("a processor", False, rows)
        longest = max(row.first_steps + max(row.left or ()) for row in rows)
        # One worker waits for a release at most once, before anything else can start.
        assert plan.left - 1e-9 <= plan.wall_seconds(1) <= plan.left + 2.0 + 1e-9
        for workers in (1, 2, 5, 100):
            assert plan.wall_seconds(workers) >= max(plan.left / workers, longest) - 1e-9
            # Graham: no schedule without needless idling takes longer.
            assert plan.wall_seconds(workers) <= plan.left / workers + longest + 2.0 + 1e-9
        assert plan.wall_seconds(100) == pytest.approx(longest)


def test_the_check_predicts_each_finished_run_without_itself(config: Config) -> None:
    runs = [measured(config, seed=seed, steps=5000, seconds=seconds) for seed, seconds in enumerate((90.0, 100.0))]
    runs.append(measured(config, dataset="imdb", seed=0, seconds=1234.0, finished=False))
    checks = leave_one_out(runs)
    assert [check.run for check in checks] == runs[:2]
    assert [check.predicted for check in checks] == pytest.approx([100.0, 90.0])
    assert leave_one_out(runs[:1])[0].predicted is None
    instant = measured(config, seed=2, steps=5000, seconds=0.0)
    assert "sst" in plan_text([], leave_one_out([*runs, instant]), [1])
    text = plan_text([], checks, [1])
    assert re.search(r"^sst +2 +1\.01 +0\.90 to 1\.11$", text, re.MULTILINE), text


def test_a_plan_that_knows_nothing_of_what_is_left_names_no_hours() -> None:
    def text_of(*left: tuple[float, ...] | None) -> str:
        rows = [Planned("sst", f"model {n}", 3, 0, 0.0, times, 0.0, "") for n, times in enumerate(left)]
        return plan_text([Plan("some processor", False, rows)], [], [2])

    assert "What is left is 6 runs about which nothing can be said." in text_of(None, None)
    assert "What is left takes 2.00 h on 2 cores (and 3 runs about which" in text_of(None, (3600.0, 3600.0, 3600.0))
    assert "What is left takes 0.00 h on 2 cores." in text_of(())


def test_the_command_prints_the_table(grid: Path, config: Config, tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    process = skimrnn("plan", "--config", tmp_path / "paper.yaml", "--results", grid, "--workers", "4")
    assert process.returncode == 0, process.stderr
    assert re.search(r"^the whole grid +10 of 30 ", process.stdout, re.MULTILINE)
    assert re.search(r"What is left takes [\d.]+ h on 4 cores \(and 15 runs about which", process.stdout)
    write_json(grid / "paper" / "datasets.json", [{"dataset": "sst"}])
    damaged = skimrnn("plan", "--config", tmp_path / "paper.yaml", "--results", grid)
    assert "datasets.json: not a dataset counts of this version" in error_of(damaged)
    (tmp_path / "empty").mkdir()
    process = skimrnn("plan", "--config", tmp_path / "paper.yaml", "--results", tmp_path / "empty")
    assert "no record with times beside it: nothing can be estimated yet" in error_of(process)
