"""Comparing two sets of records: paired where it can be, and one clear line where it cannot."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skimrnn.cli import app
from skimrnn.config import Config
from skimrnn.errors import UserError
from skimrnn.files import read_json, write_json
from skimrnn.reporting.compare import Difference, compare_records
from skimrnn.training.record import read_record
from tests.reporting.analyses import store_analysed
from tests.reporting.conftest import build_config, build_record, changed, store_record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = build_config()
    for seed in (0, 1, 2):
        store_analysed(tmp_path, config, "sst", "lstm", seed, 0.75 + seed / 400)
        store_analysed(tmp_path, config, "sst", "skim-5-0.01", seed, 0.85 + [0, 2, 1][seed] / 400)
    return tmp_path / "paper" / "sst"


def accuracy(left: Path | str, right: Path | str) -> Difference:
    return next(d for d in compare_records(str(left), str(right)) if d.measure == "accuracy (%)")


def test_equal_seeds_are_paired_by_seed_and_example(folder: Path):
    found = accuracy(folder / "lstm", f"{folder}/skim-5-0.01/*.json")
    assert found.paired == "seed, example" and found.difference == pytest.approx(10)
    assert found.interval[0] > 0 and found.p < 0.01
    turned = accuracy(folder / "skim-5-0.01", folder / "lstm")
    assert turned.interval == pytest.approx((-found.interval[1], -found.interval[0]), abs=0.5)


def test_a_glob_may_match_folders(folder: Path):
    folders = accuracy(f"{folder}/l*", f"{folder}/s*")
    assert folders == accuracy(folder / "lstm", folder / "skim-5-0.01")
    assert accuracy(f"{folder}/l*/[01].json", f"{folder}/s*").left[1] == 2


def test_a_model_is_no_better_than_itself(folder: Path):
    for found in compare_records(str(folder / "lstm"), str(folder / "lstm")):
        assert found.difference == 0 and found.interval == (0, 0) and found.p in (None, 1.0)


def test_without_analyses_seeds_are_paired_and_other_seeds_are_not(folder: Path, config: Config, tmp_path: Path):
    for path in folder.rglob("*.analysis.json"):
        path.unlink()
    assert accuracy(folder / "lstm", folder / "skim-5-0.01").paired == "seed"
    for seed in (0, 1):
        store_record(tmp_path / "other", build_record(config, "sst", "lstm", seed))
    other = accuracy(folder / "lstm", tmp_path / "other")
    assert other.paired == "no" and other.interval is not None and other.right[1] == 2
    alone = accuracy(folder / "lstm" / "0.json", tmp_path / "other" / "paper/sst/lstm/1.json")
    assert alone.interval is None and alone.p is None


@pytest.mark.filterwarnings("error")
def test_what_never_varies_is_not_tested(folder: Path, config: Config, tmp_path: Path):
    for seed in (3, 4):
        store_record(tmp_path / "other", build_record(config, "sst", "lstm", seed))
    found = compare_records(str(folder / "lstm"), str(tmp_path / "other"))
    skimmed = next(each for each in found if each.measure == "skimmed (%)")
    assert (skimmed.difference, skimmed.interval, skimmed.p) == (0, (0, 0), None)


def test_models_are_compared_by_their_names(folder: Path, tmp_path: Path):
    other = Path(shutil.copytree(folder, tmp_path / "other" / "sst"))
    for path in sorted(other.rglob("skim-5-0.01/*.json")):
        record = read_json(path)
        if "test" in record:
            write_json(path, changed(read_record(path), "test.accuracy", 0.5).model_dump(mode="json"))
        else:
            path.unlink()
    found = [d for d in compare_records(str(folder), str(other)) if d.measure == "accuracy (%)"]
    assert [(d.models, d.paired) for d in found] == [
        (("lstm", "lstm"), "seed, example"),
        (("skim-5-0.01", "skim-5-0.01"), "seed"),
    ]
    assert found[0].difference == 0 and found[1].difference == pytest.approx(50 - 85.25)
    shutil.rmtree(other / "lstm")
    (other / "skim-5-0.01").rename(other / "renamed")
    for path in (other / "renamed").iterdir():
        write_json(path, changed(read_record(path), "config.model_name", "renamed").model_dump(mode="json"))
    with pytest.raises(UserError, match="sst: no model in common: name one on each side"):
        compare_records(str(folder), str(other))
    assert accuracy(folder / "lstm", other).models == ("lstm", "renamed")


def test_other_texts_are_not_compared(folder: Path):
    path = folder / "lstm" / "0.json"
    record = read_json(path)
    record["data"]["release"]["test"]["sha256"] = "0" * 64
    write_json(path, record)
    with pytest.raises(UserError, match="are scored on different texts"):
        compare_records(str(folder / "lstm" / "0.json"), str(folder / "skim-5-0.01"))


@pytest.mark.parametrize("text", ['{"config": null}', '{"config": {"dataset": ["sst"]}}', "[]"])
def test_what_is_no_record_is_told(text: str, folder: Path):
    (folder / "lstm" / "9.json").write_text(text)
    with pytest.raises(UserError, match=r"9\.json: not a record"):
        compare_records(str(folder / "lstm"), str(folder / "skim-5-0.01"))


def test_an_analysis_of_other_weights_is_refused(folder: Path, config: Config):
    store_record(folder.parent.parent, changed(build_record(config, "sst", "lstm", 0), "test.accuracy", 0.5))
    with pytest.raises(UserError, match=r"of other weights than 0\.json"):
        compare_records(str(folder / "lstm"), str(folder / "skim-5-0.01"))


def test_what_cannot_be_compared_says_why(folder: Path, config: Config, tmp_path: Path):
    with pytest.raises(UserError, match="no records"):
        compare_records(str(tmp_path / "nothing"), str(folder))
    store_record(tmp_path / "other", build_record(config, "imdb", "lstm", 0))
    with pytest.raises(UserError, match="no dataset in common"):
        compare_records(str(folder), str(tmp_path / "other"))
    run = CliRunner().invoke
    bad = run(app, ["compare", str(folder), str(tmp_path / "other")])
    assert bad.exit_code == 2 and bad.output.count("\n") == 1
    good = run(app, ["compare", str(folder / "lstm"), str(folder / "skim-5-0.01")])
    assert good.exit_code == 0 and "+10.00" in good.output and "seed, example" in good.output
