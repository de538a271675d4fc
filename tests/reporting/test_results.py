import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from skimrnn.benchmarks.speedup import ModelSpeed
from skimrnn.benchmarks.timing import summarise
from skimrnn.config import Config
from skimrnn.errors import UserError
from skimrnn.files import write_json
from skimrnn.reporting.costs import read_measured
from skimrnn.reporting.records import Measured, read_results
from skimrnn.training.record import Record
from tests.reporting.conftest import build_speed

MakeRecord = Callable[..., Record]
Store = Callable[..., Path]
Change = Callable[[Record, str, object], Record]


def test_the_grid_is_grouped_and_what_is_missing_is_known(config: Config, grid: Path):
    results = read_results(config, grid)
    assert [run.record.config.seed for run in results.of_model("sst", "lstm")] == [0, 1, 2]
    assert results.missing_seeds("sst", "skim-5-0.02") == [0, 2]
    assert results.of_dataset("imdb") == []
    assert results.measured("imdb", "lstm", lambda record: record.test.accuracy) is None
    planned = len(config.datasets) * len(config.models) * len(config.seeds)
    run = sum(len(results.of_dataset(dataset)) for dataset in config.datasets)
    missing = sum(len(results.missing_seeds(dataset, model)) for dataset in config.datasets for model in config.models)
    assert (run, run + missing) == (10, planned)


def test_a_dataset_can_have_seeds_of_its_own(make_config: Callable[..., Config], tmp_path: Path):
    datasets = {"sst": {"batch_size": 32, "seeds": [3, 4]}, "imdb": {"batch_size": 128}}
    results = read_results(make_config(datasets=datasets), tmp_path)
    assert results.missing_seeds("sst", "lstm") == [3, 4]
    assert results.missing_seeds("imdb", "lstm") == [0, 1, 2]


def test_mean_and_sd_are_those_of_the_sample(config: Config, grid: Path):
    results = read_results(config, grid)
    for model in config.models:
        accuracies = [run.record.test.accuracy for run in results.of_model("sst", model)]
        measured = results.measured("sst", model, lambda record: record.test.accuracy)
        if measured is None:
            assert not accuracies
        else:
            assert measured.mean == pytest.approx(statistics.mean(accuracies))
            assert measured.sd == (pytest.approx(statistics.stdev(accuracies)) if len(accuracies) > 1 else None)


def test_sd_divides_by_one_less_than_n():
    assert Measured((1.0, 3.0)).sd == pytest.approx(2**0.5)


@pytest.mark.parametrize(
    ("key", "value"),
    [("data.vectors.sha256", "other"), ("data.digest", "other"), ("data.release.test.rows", 7)],
)
@pytest.mark.parametrize("model", ["lstm", "skim-5-0.01"])
def test_records_of_different_data_never_share_a_table(
    key: str,
    value: object,
    model: str,
    config: Config,
    make_record: MakeRecord,
    store: Store,
    change: Change,
    tmp_path: Path,
):
    first = store(make_record(config, "sst", "lstm", 0))
    other = store(change(make_record(config, "sst", model, 1), key, value))
    with pytest.raises(UserError, match="make one of them again") as error:
        read_results(config, tmp_path)
    assert (
        str(first) in str(error.value) and str(other) in str(error.value) and key.partition(".")[2] in str(error.value)
    )


@pytest.mark.parametrize(
    ("dataset", "model", "seed"), [("imdb", "lstm", 0), ("sst", "skim-5-0.01", 0), ("sst", "lstm", 1)]
)
def test_a_record_at_another_runs_path_is_refused(
    dataset: str, model: str, seed: int, config: Config, make_record: MakeRecord, store: Store, tmp_path: Path
):
    place = tmp_path / "paper" / "sst" / "lstm" / "0.json"
    store(make_record(config, dataset, model, seed), place)
    with pytest.raises(UserError, match="move it to its place") as error:
        read_results(config, tmp_path)
    assert str(place) in str(error.value)


def test_a_record_of_another_scale_is_refused(
    config: Config, make_record: MakeRecord, store: Store, change: Change, tmp_path: Path
):
    store(change(make_record(config, "sst", "lstm", 0), "config.scale", "smoke"), tmp_path / "paper/sst/lstm/0.json")
    with pytest.raises(UserError, match="scale smoke"):
        read_results(config, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("config.training.patience", 700), ("config.batch_size", 7), ("config.model.small_size", 7)]
)
def test_a_record_of_another_config_is_refused(
    key: str, value: int, config: Config, make_record: MakeRecord, store: Store, change: Change, tmp_path: Path
):
    store(change(make_record(config, "sst", "skim-5-0.01", 0), key, value))
    with pytest.raises(UserError, match=f"{key.removeprefix('config.')}: 7"):
        read_results(config, tmp_path)


def test_a_speed_up_without_its_record_does_not_count(config: Config, grid: Path):
    timing = summarise([1.0])
    timed = ModelSpeed(skim_rate=0.5, lstm={"folded": timing}, skim={"folded": timing})
    digest = read_results(config, grid).of_dataset("sst")[0].record.data.digest
    speed = build_speed(
        "sst", {model: {0: timed, 1: timed} for model in ("skim-5-0.01", "skim-5-0.02", "skim-10-0.02")}
    )
    write_json(grid / "paper/sst/speed.json", speed.model_copy(update={"data_digest": digest}).model_dump(mode="json"))
    results = read_results(config, grid)
    timed_seeds = {model: list(seeds) for model, seeds in results.speeds["sst"].models.items()}
    assert timed_seeds == {"skim-5-0.01": [0, 1], "skim-5-0.02": [1]}  # Of which seeds there are records.
    write_json(grid / "paper/sst/speed.json", speed.model_dump(mode="json"))
    with pytest.raises(UserError, match="measure it again"):
        read_results(config, grid)
    # Figures and costs, which need none, do not wait for it.
    assert read_measured(config, grid) and read_results(config, grid, speeds=False).runs == results.runs


def test_synthetic_and_real_corpora_never_mix(
    config: Config, make_record: MakeRecord, store: Store, change: Change, tmp_path: Path
):
    store(change(make_record(config, "sst", "lstm", 0), "data.source", "embedded"))
    with pytest.raises(UserError, match="embedded"):
        read_results(config, tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 2}', "\0"])
def test_a_malformed_record_is_a_user_error_that_names_it(content: str, config: Config, tmp_path: Path):
    path = tmp_path / "paper" / "sst" / "lstm" / "0.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UserError) as error:
        read_results(config, tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_folder_is_a_user_error(config: Config, tmp_path: Path):
    with pytest.raises(UserError, match="no such folder"):
        read_results(config, tmp_path / "absent")
