"""Claims on trial: synthetic records whose truth is known get the verdict that it asks for."""

import re
from pathlib import Path

import numpy as np
import pytest

from skimrnn.config import Config, read_config
from skimrnn.errors import UserError
from skimrnn.files import read_json, write_json
from skimrnn.reporting.claims import Finding, claims_markdown, try_claims
from skimrnn.reporting.confidence import Number, confidence_markdown, confidence_tables
from skimrnn.reporting.estimates import Estimate, estimate, over_examples, over_repeats
from skimrnn.reporting.evidence import read_evidence
from skimrnn.reporting.sweep_statistics import at_flops
from tests.conftest import ROOT
from tests.reporting.analyses import store_analysed
from tests.reporting.conftest import build_record, store_record


@pytest.fixture(scope="module")
def paper() -> Config:
    config = read_config(ROOT / "config" / "paper.yaml")
    kept = [
        *("lstm", "skim-5-0.01", "skim-5-0.02"),
        *("lstm_att", "lstm_att-1x100", "sk_lstm_att-0-0.1", "sk_lstm_att-20-0.1", "bidaf", "sk_bidaf-50-0.01"),
    ]
    values = config.model_dump() | {
        "datasets": {name: config.datasets[name] for name in ("sst", "squad")},
        "models": {name: config.models[name] for name in kept},
    }
    return Config.model_validate(values)


def findings(config: Config, folder: Path) -> dict[str, Finding]:
    """By statistic, on the one dataset that it is run on."""
    trials = try_claims(read_evidence(config, folder))
    return {f.part.statistic: f for t in trials for f in t.findings if f.estimate is not None}


def store_classifiers(config: Config, folder: Path, lost: float, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    for seed in seeds:
        store_analysed(folder, config, "sst", "lstm", seed, 0.8)
        for model in ("skim-5-0.01", "skim-5-0.02"):
            store_analysed(folder, config, "sst", model, seed, 0.8 - lost)


def store_readers(config: Config, folder: Path, skim: float, skip: float) -> None:
    for seed in (0, 1):
        for model in ("lstm_att", "lstm_att-1x100"):
            store_analysed(folder, config, "squad", model, seed, 0.6)
        store_analysed(folder, config, "squad", "sk_lstm_att-20-0.1", seed, 0.7, at_one=skim)
        store_analysed(folder, config, "squad", "sk_lstm_att-0-0.1", seed, 0.7, at_one=skip)


@pytest.mark.parametrize(("lost", "verdict"), [(-0.1, "supported"), (0.2, "contradicted"), (0.0, "inconclusive")])
def test_accuracy_that_is_kept_or_lost(lost: float, verdict: str, paper: Config, tmp_path: Path):
    store_classifiers(paper, tmp_path, lost)
    found = findings(paper, tmp_path)["accuracy_kept"]
    assert found.estimate.value == pytest.approx(-100 * lost) and found.estimate.count == 3
    assert found.verdict == verdict
    assert found.estimate.runs[:2] == ("sst/skim-5-0.01/0", "sst/lstm/0")


def test_one_seed_is_too_little(paper: Config, tmp_path: Path):
    store_classifiers(paper, tmp_path, -0.1, seeds=(1,))
    found = findings(paper, tmp_path)["accuracy_kept"]
    assert found.verdict == "not tested" and "(1 seed); too little data, needs 2 seeds" in found.numbers


def test_nothing_run_is_not_tested(paper: Config, tmp_path: Path):
    trials = try_claims(read_evidence(paper, tmp_path))
    assert {trial.verdict for trial in trials} == {"not tested"}
    assert {finding.numbers for trial in trials for finding in trial.findings} == {"not run"}


@pytest.mark.parametrize(("skim", "skip", "verdict"), [(0.7, 0.2, "supported"), (0.2, 0.7, "contradicted")])
def test_readers_at_equal_flops(skim: float, skip: float, verdict: str, paper: Config, tmp_path: Path):
    store_readers(paper, tmp_path, skim, skip)
    for path in (tmp_path / "paper" / "squad").glob("sk_*/*.analysis.json"):
        analysis = read_json(path)
        for point in analysis["skim"]["sweep"]["points"]:
            point["flop_reduction"]["published_convention"] **= 2
        write_json(path, analysis)
    found = findings(paper, tmp_path)
    assert found["skimming_beats_skipping"].verdict == verdict
    # The curves run from Flop-r 1 to 10 in 14 equal steps of its logarithm; without their ends, where all is read or
    # skimmed, they are compared at nine equal values of Flop-r.
    share = np.log10(np.linspace(10 ** (1 / 14), 10 ** (13 / 14), 9)).mean()
    assert found["skimming_beats_skipping"].estimate.value == pytest.approx(100 * (skim - skip) * share, abs=0.5)
    # By the published convention both are compared at the squares of these values; and all that once more at nine
    # numbers of operations.
    shares = [
        np.log10(np.linspace(100 ** (1 / 14), 100 ** (13 / 14), 9)).mean() / 2,
        -np.log10(np.linspace(10 ** (-1 / 14), 10 ** (-13 / 14), 9)).mean(),
        -np.log10(np.linspace(100 ** (-1 / 14), 100 ** (-13 / 14), 9)).mean() / 2,
    ]
    noted = re.findall(r"(?:convention|operations) (\S+) \[", found["skimming_beats_skipping"].estimate.note)
    assert [*map(float, noted)] == pytest.approx([100 * (skim - skip) * share for share in shares], abs=0.5)
    # The smaller reader has an F1 of 60 where the skimming one is on its line from 70 to `skim`.
    (small, _) = read_evidence(paper, tmp_path).results["question_answering"].of_model("squad", "lstm_att-1x100")
    place = np.log10(small.record.flop_reduction.exact_count)
    expected = 100 * (0.7 + (skim - 0.7) * place - 0.6)
    assert found["skimming_beats_fewer_layers"].estimate.value == pytest.approx(expected, abs=0.5)
    assert found["layer_confidence"].verdict == found["layer_skim_rate"].verdict == "supported"
    assert found["layer_skim_rate"].estimate.note == (
        "over settings [+20.0, +20.0]; sk_lstm_att-0-0.1 +20.0 [+20.0, +20.0], sk_lstm_att-20-0.1 +20.0 [+20.0, +20.0]"
    )
    each = re.findall(r"(sk_lstm_att-\d+)-0.1 (\S+) \[", found["layer_confidence"].estimate.note)
    assert [model for model, _ in each] == ["sk_lstm_att-0", "sk_lstm_att-20"]
    mean = np.mean([float(value) for _, value in each])
    assert mean == pytest.approx(found["layer_confidence"].estimate.value, abs=0.06)
    assert found["threshold_moves_flops"].estimate.value == pytest.approx(10 ** (12 / 14))
    assert found["threshold_is_smooth"].estimate.value < -1


@pytest.mark.parametrize(("surer", "verdict"), [(0.02, "supported"), (-0.02, "contradicted")])
def test_bidafs_modelling_layers_are_judged_apart_from_those_of_lstm_att(
    surer: float, verdict: str, paper: Config, tmp_path: Path
):
    for seed in (0, 1, 2):
        store_analysed(tmp_path, paper, "squad", "sk_bidaf-50-0.01", seed, 0.7, surer=surer)
    found = findings(paper, tmp_path)
    assert found["modelling_layer_confidence"].verdict == verdict
    assert found["modelling_layer_skim_rate"].verdict == "supported"  # 0.6 and 0.7 above 0.4 and 0.5.
    assert found["modelling_layer_skim_rate"].estimate.value == pytest.approx(20)
    assert not {"layer_confidence", "layer_skim_rate"} & set(found)
    evidence = read_evidence(paper, tmp_path)
    (tests,) = (t for t in confidence_tables(evidence, "squad") if "second layer" in t.caption)
    assert {row[1] for row in tests.rows} == {"modelling 2 less modelling 1"}
    mean = np.mean([row[3].value for row in tests.rows])
    assert mean == pytest.approx(found["modelling_layer_confidence"].estimate.value)


def test_every_number_of_the_tables_of_confidence_is_the_one_that_its_text_says(paper: Config, tmp_path: Path):
    store_classifiers(paper, tmp_path, 0.0)
    store_readers(paper, tmp_path, 0.7, 0.2)
    evidence = read_evidence(paper, tmp_path)
    tables = [table for dataset in ("sst", "squad") for table in confidence_tables(evidence, dataset)]
    assert len(tables) == 3 + 4
    for table in tables:
        assert table.rows and all(len(row) == len(table.headings) for row in table.rows)
        for cell in (cell for row in table.rows for cell in row if isinstance(cell, Number)):
            assert cell.runs
            if not cell.text.startswith("<"):
                shown = cell.text.split()[0].replace(",", "")
                assert cell.value == pytest.approx(float(shown), abs=0.5 * 10 ** -len(shown.partition(".")[2]) + 1e-9)


def test_of_a_lone_decision_no_error_is_given(paper: Config, tmp_path: Path):
    store_analysed(tmp_path, paper, "sst", "skim-5-0.01", 0, 0.8)
    path = tmp_path / "paper/sst/skim-5-0.01/0.analysis.json"
    values = read_json(path)
    values["skim"]["confidence"][0]["calibration"][0] |= {"decisions": 1, "reading_gain_error": None}
    write_json(path, values)
    tables = confidence_tables(read_evidence(paper, tmp_path), "sst")
    (calibration,) = (table for table in tables if "reversing" in table.caption)
    assert [row[4].text for row in calibration.rows[:2]] == ["-0.4000", "-0.3000 ± 0.0500"]


def test_a_reader_that_is_not_finished_does_not_count(paper: Config, tmp_path: Path):
    store_readers(paper, tmp_path, 0.7, 0.2)
    for path in tmp_path.rglob("[01].json"):
        values = read_json(path)
        values["training"]["stopped"] = "unfinished"
        write_json(path, values)
    assert findings(paper, tmp_path) == {}


def test_an_analysis_of_other_weights_is_refused(paper: Config, tmp_path: Path):
    store_classifiers(paper, tmp_path, 0.0)
    path = tmp_path / "paper/sst/lstm/0.json"
    record = build_record(paper, "sst", "lstm", 0)
    store_record(tmp_path, record)
    with pytest.raises(UserError, match=r"lstm/0\.analysis\.json: of other weights"):
        read_evidence(paper, tmp_path)
    path.with_suffix(".analysis.json").rename(tmp_path / "paper/sst/lstm/1.analysis.json")
    with pytest.raises(UserError, match=r"lstm/1\.analysis\.json: of another config"):
        read_evidence(paper, tmp_path)


def test_a_claim_is_contradicted_by_any_part_and_supported_by_all_that_could_be_tested(paper: Config, tmp_path: Path):
    (first, *_) = try_claims(read_evidence(paper, tmp_path))
    part = first.findings[0].part

    def trial(*ends: tuple[float, float] | None):
        estimates = [None if end is None else Estimate(sum(end) / 2, end, 3, "seed") for end in ends]
        return type(first)(first.claim, tuple(Finding(part, "sst", each) for each in estimates)).verdict

    good, bad, open_, none = (0.0, 1.0), (-3.0, -2.0), (-2.0, 1.0), None
    assert trial(good, none) == "supported" and trial(good, bad, open_) == "contradicted"
    assert trial(good, open_) == "inconclusive" and trial(none, none) == "not tested"


def test_the_documents_name_verdicts_numbers_and_records(paper: Config, tmp_path: Path):
    store_classifiers(paper, tmp_path, -0.1)
    store_readers(paper, tmp_path, 0.7, 0.2)
    evidence = read_evidence(paper, tmp_path)
    text = claims_markdown(evidence, try_claims(evidence))
    assert "| 1  |" in text and "**supported**" in text and "`sst/lstm/{0,1,2}`" in text
    table = confidence_markdown(evidence)
    assert "layer 2 backward" in table and "stop word" in table
    (tests,) = (t for t in confidence_tables(evidence, "squad") if "second layer" in t.caption)
    assert len(tests.rows) == 4
    for title, layers, seed, difference, p, questions in tests.rows:
        assert layers == "layer 2 less layer 1" and questions.text == "400"
        assert difference.value == pytest.approx(10, abs=1) and difference.text.startswith("+") and p.text == "< 1e-6"
        d_small = 0 if " 0/" in title else 20
        assert difference.runs == p.runs == (f"squad/sk_lstm_att-{d_small}-0.1/{seed}",)


def test_intervals_are_those_of_the_textbook():
    values = [1.0, 2.0, 4.0]
    low, high = over_repeats(values)
    half = 4.302653 * np.std(values, ddof=1) / np.sqrt(3)  # t of 0.975 with two degrees of freedom
    assert (low, high) == pytest.approx((7 / 3 - half, 7 / 3 + half), rel=1e-6)
    assert over_repeats([1.0]) is None and over_repeats([2.0, 2.0]) == (2.0, 2.0)
    normal = np.random.default_rng(0).normal(3, 1, 2_000)
    low, high = over_examples(normal)
    error = 1.96 * normal.std() / np.sqrt(2_000)
    assert (low, high) == pytest.approx((normal.mean() - error, normal.mean() + error), abs=0.005)
    both = estimate([3.0, 3.01], "seed", [], [normal, normal])
    assert both.interval[0] <= low and both.interval[1] >= high


def test_curves_are_interpolated_at_equal_flops():
    outcomes = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    found = at_flops(np.array([1.0, 2.0, 4.0]), outcomes, np.array([1.5, 2.0, 3.0]))
    assert found.tolist() == [[0.5, 0.0], [0.0, 0.0], [0.0, 0.5]]
