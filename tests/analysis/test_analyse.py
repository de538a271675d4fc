"""The analysis of a run: it agrees with the scores of the record, and its parts agree with each other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from skimrnn.analysis.analyse import analyse
from skimrnn.analysis.artefact import THRESHOLDS, Analysis, Packed, read_analysis
from skimrnn.analysis.words import KINDS, bands_of, deciles_of, kind_of
from skimrnn.cli import app
from skimrnn.config import Config
from skimrnn.data.prepare import Prepared
from skimrnn.data.questions import SCORED_SPLIT, read_questions, read_scoring
from skimrnn.data.tokens import read_texts
from skimrnn.files import read_tensors, write_json, write_tensors, write_text
from skimrnn.measures.flops import flop_reduction
from skimrnn.training.evaluate import evaluate
from skimrnn.training.reading import answer_questions
from skimrnn.training.record import load_classifier, load_reader
from tests.analysis.conftest import untrained


@pytest.fixture(scope="module")
def texts(prepared: Prepared) -> Path:
    return prepared.folder.parent / "tokens"


def test_packed_numbers_come_back_within_half_a_step():
    random = np.random.default_rng(0)
    for kind, step in (("bit", 1), ("byte", 1 / 255), ("word", 1 / 65535)):
        values = random.random((5, 13))
        if kind == "bit":
            values = values.round()
        found = Packed.pack(3 * values - 1, kind, -1, 2)
        assert found.shape == (5, 13) and abs(found.unpack() - (3 * values - 1)).max() <= 3 * step / 2 + 1e-9
        assert Packed.model_validate_json(found.model_dump_json()) == found


def test_a_classifier(config: Config, prepared: Prepared, texts: Path, tmp_path: Path):
    run, folder = config.run("sst", "skim", 0), untrained(config, "sst", "skim", prepared, tmp_path)
    analysis = analyse(run, prepared, texts, folder)
    split = prepared.split("test")
    scores = evaluate(load_classifier(run, prepared, folder), split)
    assert analysis.outcomes["accuracy"].unpack().mean() == pytest.approx(scores.accuracy, abs=1e-9)
    skim = analysis.skim
    assert skim is not None and skim.directions == ["layer"]
    check_parts(analysis, scores.tokens, scores.skim_rate)
    middle = skim.sweep.points[THRESHOLDS.index(0.5)]
    assert middle.scores["accuracy"] == pytest.approx(scores.accuracy, abs=1e-9)  # All texts fit into the sweep.
    assert middle.flop_reduction == flop_reduction(middle.skim_rate, 24, 4)
    words = read_texts(texts / "test.parquet")
    assert skim.samples
    for sample in skim.samples:
        assert sample.tokens == words[sample.row] and sample.points[7].answer == sample.right_answer


@pytest.mark.parametrize("name", ["skim_reader", "skim_bidaf"])
def test_a_reader(name: str, config: Config, squad: Prepared, tmp_path: Path):
    run, folder = config.run("squad", name, 0), untrained(config, "squad", name, squad, tmp_path)
    analysis = analyse(run, squad, None, folder)
    model = load_reader(run, squad, folder)
    scores = answer_questions(model, read_questions(squad, SCORED_SPLIT), read_scoring(squad)).scores
    assert analysis.outcomes["f1"].unpack().mean() == pytest.approx(scores.f1, abs=1e-5)
    assert analysis.outcomes["em"].unpack().mean() == pytest.approx(scores.em, abs=1e-9)
    assert analysis.skim is not None and analysis.skim.directions == model.sequences
    rates = [scores.layer_skim_rates[sequence] for sequence in model.sequences]
    assert [c.skim_rate for c in analysis.skim.confidence] == pytest.approx(rates)
    check_parts(analysis, scores.tokens, scores.skim_rate)


def check_parts(analysis: Analysis, tokens: int, skim_rate: float) -> None:
    skim = analysis.skim
    assert skim is not None
    assert [point.threshold for point in skim.sweep.points] == list(THRESHOLDS)
    assert skim.sweep.points[0].skim_rate == 0 and skim.sweep.points[-1].skim_rate == 1
    for name, packed in skim.sweep.outcomes.items():
        means = packed.unpack().mean(axis=1)
        assert means == pytest.approx([point.scores[name] for point in skim.sweep.points], abs=1e-5)
        assert packed.shape[1] == skim.sweep.included.unpack().sum()
    assert np.mean([confidence.skim_rate for confidence in skim.confidence]) == pytest.approx(skim_rate)
    for confidence in skim.confidence:
        assert sum(confidence.histogram) == confidence.tokens == tokens
        assert 0.5 <= confidence.mean <= 1 and 0 <= confidence.entropy <= 1
        assert sum(point.decisions for point in confidence.calibration) > 0
    for grouping in ("position", "kind", "frequency"):
        groups = [group for group in skim.groups if group.grouping == grouping]
        assert sum(group.tokens for group in groups) == tokens
        for place, confidence in enumerate(skim.confidence):
            assert sum(g.skimmed[place] for g in groups) == pytest.approx(confidence.skim_rate * tokens, abs=0.01)
    for sample in skim.samples:
        for point in sample.points:
            for p_read, read in zip(point.p_read, point.read, strict=True):
                p = np.frombuffer(bytes.fromhex(p_read), np.uint8) / 255
                assert len(p) == len(read) == len(sample.tokens)
                clear = abs(p - point.threshold) > 1 / 255
                assert ["01"[int(value)] for value in (p > point.threshold)[clear]] == list(np.array([*read])[clear])


def test_calibration_is_what_the_reversed_decisions_cost(config: Config, prepared: Prepared, texts: Path, tmp_path):
    """Where both cells do the same, reversing a decision changes nothing."""
    folder = untrained(config, "sst", "skim", prepared, tmp_path)
    run = config.run("sst", "skim", 0)
    found = analyse(run, prepared, texts, folder).skim.confidence[0].calibration
    assert any(point.reading_gain for point in found if point.decisions)
    weights, metadata = read_tensors(folder / "weights.safetensors")
    for name in list(weights):  # Both cells write zeros: the output gate is shut.
        if name.startswith(("layer.weight", "layer.bias", "layer.small_")):
            weights[name] = torch.zeros_like(weights[name])
    write_tensors(folder / "weights.safetensors", weights, metadata)
    found = analyse(run, prepared, texts, folder).skim.confidence[0].calibration
    for point in found:
        assert not point.decisions or (abs(point.reading_gain) < 1e-6 and point.answers_changed == 0)


def test_a_standard_model_has_outcomes_alone(config: Config, prepared: Prepared, texts: Path, tmp_path: Path):
    folder = untrained(config, "sst", "lstm", prepared, tmp_path)
    analysis = analyse(config.run("sst", "lstm", 0), prepared, texts, folder)
    assert analysis.skim is None and analysis.outcomes["accuracy"].shape == (len(prepared.split("test")),)


def test_the_command_writes_the_same_bytes_again(config: Config, prepared: Prepared, texts: Path, tmp_path: Path):
    for model in ("lstm", "skim"):
        untrained(config, "sst", model, prepared, tmp_path / "sst" / model / "0")
    write_json(tmp_path / "config.json", config.model_dump(mode="json"))

    def analyse_runs(output: str, *options: str) -> Result:
        arguments = ["analyse", "--config", str(tmp_path / "config.json"), "--dataset", "sst", "--runs", str(tmp_path)]
        arguments += ["--prepared", str(prepared.folder), "--output", str(tmp_path / output), *options]
        return CliRunner().invoke(app, arguments)

    assert analyse_runs("all", "--tokens", str(texts)).exit_code == 0
    assert analyse_runs("one", "--tokens", str(texts), "--model", "skim", "--seed", "0").exit_code == 0
    skim, lstm = Path("sst", "skim", "0.analysis.json"), Path("sst", "lstm", "0.analysis.json")
    assert read_analysis(tmp_path / "all" / lstm).skim is None and not (tmp_path / "one" / lstm).exists()
    assert (tmp_path / "all" / skim).read_bytes() == (tmp_path / "one" / skim).read_bytes()

    done = analyse_runs("bad", "--model", "skim")
    assert done.exit_code == 2 and "--tokens" in done.output
    write_text(tmp_path / "sst" / "skim" / "0" / "weights.safetensors", "nothing")
    done = analyse_runs("bad", "--model", "skim", "--tokens", str(texts))
    assert done.exit_code == 2 and "not a safetensors file" in done.output and not (tmp_path / "bad").exists()


def test_kinds_bands_and_deciles():
    cases = {"...": 0, "n't": 2, "1,000": 1, "The": 2, "Ada": 3, "ada": 4, "'s": 2, "covid-19": 1}
    assert {token: kind_of(token) for token in cases} == cases and len(KINDS) == 5
    ids = np.array([1, 2, 101, 102, 1001, 1002, 10_001, 10_002, 12_001, 12_002, 12_003])
    assert bands_of(ids, 12_001).tolist() == [4, 0, 0, 1, 1, 2, 2, 3, 3, 3, 4]
    found = deciles_of(np.array([10, 1, 25]))
    assert found[:11].tolist() == [*range(10), 0] and found[11:].tolist() == sorted(found[11:]) and found[-1] == 9
