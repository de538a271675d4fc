"""The analysis of a run: it agrees with the scores of the record, and its parts agree with each other."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from pydantic import ValidationError
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from skimrnn.analysis.analyse import analyse
from skimrnn.analysis.artefact import THRESHOLDS, Analysis, CalibrationBin, Confidence, Packed, read_analysis
from skimrnn.analysis.forced import ForcedSkimLSTM
from skimrnn.analysis.words import KINDS, bands_of, deciles_of, kind_of
from skimrnn.cli import app
from skimrnn.config import Config
from skimrnn.data.batches import collate
from skimrnn.data.prepare import Prepared
from skimrnn.data.questions import SCORED_SPLIT, collate_questions, read_questions, read_scoring
from skimrnn.files import read_tensors, write_json, write_tensors, write_text
from skimrnn.layers import Decisions
from skimrnn.measures.flops import flop_reduction
from skimrnn.measures.squad import score_answers
from skimrnn.training.evaluate import evaluate
from skimrnn.training.reading import answer_questions
from skimrnn.training.record import load_classifier, load_reader
from tests.conftest import read_tokens, untrained


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


@pytest.mark.parametrize("changes", [{"data": "AAAA"}, {"data": "not base64"}, {"shape": [5, 14]}])
def test_packed_numbers_that_are_damaged_are_refused(changes: dict[str, object]):
    found = Packed.pack(np.zeros((5, 13)), "byte").model_dump(mode="json") | changes
    with pytest.raises(ValidationError, match="damaged"):
        Packed.model_validate(found)


@torch.no_grad()
def test_a_classifier(config: Config, prepared: Prepared, texts: Path, tmp_path: Path):
    run, folder = config.run("sst", "skim", 0), untrained(config, "sst", "skim", prepared, tmp_path)
    analysis = analyse(run, prepared, texts, folder)
    split, model = prepared.split("test"), load_classifier(run, prepared, folder)
    scores, batch = evaluate(model, split), collate(split, np.arange(len(split)))
    logits, decisions = model(*batch.inputs)
    assert analysis.outcomes["accuracy"].unpack().tolist() == (logits.argmax(dim=1) == batch.labels).tolist()
    skim = analysis.skim
    assert skim is not None and skim.directions == ["layer"]
    check_parts(analysis, scores.tokens, scores.skim_rate, decisions)
    middle = skim.sweep.points[THRESHOLDS.index(0.5)]
    assert middle.scores["accuracy"] == pytest.approx(scores.accuracy, abs=1e-9)  # All texts fit into the sweep.
    assert middle.flop_reduction == flop_reduction(middle.skim_rate, 24, 4)
    words, _ = read_tokens(texts / "test.parquet")
    assert all(sample.tokens == words[sample.row] for sample in skim.samples)


@pytest.mark.parametrize("name", ["skim_reader", "skim_bidaf"])
@torch.no_grad()
def test_a_reader(name: str, config: Config, squad: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the untrained reader says of every third question is right."""
    run, folder = config.run("squad", name, 0), untrained(config, "squad", name, squad, tmp_path)
    model, split, scoring = (
        load_reader(run, squad, folder).model,
        read_questions(squad, SCORED_SPLIT),
        read_scoring(squad),
    )
    said = list(answer_questions(model, split, scoring).predictions.values())
    answers = [right if row % 3 else [said[row]] for row, right in enumerate(scoring.answers)]
    scoring = replace(scoring, answers=answers)
    monkeypatch.setattr("skimrnn.analysis.subject.read_scoring", lambda _: scoring)
    analysis = analyse(run, squad, None, folder)
    scores = answer_questions(model, split, scoring).scores
    f1, em = zip(*(score_answers([text], [right]) for text, right in zip(said, answers, strict=True)), strict=True)
    assert analysis.outcomes["f1"].unpack() == pytest.approx(f1, abs=1e-5)
    assert analysis.outcomes["em"].unpack().tolist() == list(em)
    assert analysis.skim is not None and analysis.skim.directions == model.sequences
    rates = [scores.layer_skim_rates[sequence] for sequence in model.sequences]
    assert [c.skim_rate for c in analysis.skim.confidence] == pytest.approx(rates)
    batch = collate_questions(split, np.arange(len(split)))
    check_parts(analysis, scores.tokens, scores.skim_rate, model(batch.questions, batch.contexts).decisions)


def check_parts(analysis: Analysis, tokens: int, skim_rate: float, decisions: Decisions) -> None:
    skim = analysis.skim
    assert skim is not None
    assert [point.threshold for point in skim.sweep.points] == list(THRESHOLDS)
    assert skim.sweep.points[0].skim_rate == 0 and skim.sweep.points[-1].skim_rate == 1
    for name, packed in skim.sweep.outcomes.items():
        means = packed.unpack().mean(axis=1)
        assert means == pytest.approx([point.scores[name] for point in skim.sweep.points], abs=1e-5)
        own = analysis.outcomes[name].unpack()[skim.sweep.included.unpack() == 1]
        assert packed.unpack()[THRESHOLDS.index(0.5)] == pytest.approx(own, abs=1e-5)
    assert np.mean([confidence.skim_rate for confidence in skim.confidence]) == pytest.approx(skim_rate)
    for place, confidence in enumerate(skim.confidence):
        assert sum(confidence.histogram) == confidence.tokens == tokens
        assert sum(point.decisions for point in confidence.calibration) > 0
        log_probabilities = decisions.log_probabilities[place].double()
        check_confidence(confidence, [log_probabilities[:length, row] for row, length in enumerate(decisions.lengths)])
    for grouping in ("position", "kind", "frequency"):
        groups = [group for group in skim.groups if group.grouping == grouping]
        assert sum(group.tokens for group in groups) == tokens
        for place, confidence in enumerate(skim.confidence):
            assert sum(g.skimmed[place] for g in groups) == pytest.approx(confidence.skim_rate * tokens, abs=0.01)
    assert skim.samples
    for sample in skim.samples:
        assert sample.points[THRESHOLDS.index(0.5)].answer == sample.right_answer
        for point in sample.points:
            for p_read, read in zip(point.p_read, point.read, strict=True):
                p = np.frombuffer(bytes.fromhex(p_read), np.uint8) / 255
                assert len(p) == len(read) == len(sample.tokens)
                clear = abs(p - point.threshold) > 1 / 255
                assert ["01"[int(value)] for value in (p > point.threshold)[clear]] == list(np.array([*read])[clear])


def check_confidence(found: Confidence, texts: list[torch.Tensor]) -> None:
    """`texts` holds the log probabilities (T, 2) of each text; p is kept in float32, to 6e-8 where it is near 1."""
    by_text = [float(log_p.amax(dim=1).exp().mean()) for log_p in texts]
    assert found.by_example.unpack() == pytest.approx(by_text, abs=0.25 / 255 + 1e-6)  # Half a step of a byte.
    log_p = torch.cat(texts)
    surest = log_p.amax(dim=1).exp()
    assert found.mean == pytest.approx(float(surest.mean()), abs=1e-6)
    assert found.entropy == pytest.approx(-float((log_p.exp() * log_p).sum(dim=1).mean()) / math.log(2), abs=2e-6)
    assert found.beyond_90 == pytest.approx(float((surest > 0.9).double().mean()), abs=1.5 / len(surest))


def test_pooled_bins_are_the_bin_of_all_their_decisions() -> None:
    groups = [np.array(group) for group in ([0.5, -0.25, 1.0], [], [2.0, 0.0, 0.25, -3.0])]
    pooled = CalibrationBin.pooled([bin_of(group) for group in groups])
    gains = np.concatenate(groups)
    assert (pooled.low, pooled.high, pooled.decisions) == (0.1, 0.2, 7)
    assert pooled.reading_gain == pytest.approx(gains.mean(), rel=1e-12)
    assert pooled.answers_changed == pytest.approx((gains < 0).mean(), rel=1e-12)
    # The groups' means are independent, each with its share as its weight.
    variance = 3 / 49 * groups[0].var(ddof=1) + 4 / 49 * groups[2].var(ddof=1)
    assert pooled.reading_gain_error == pytest.approx(np.sqrt(variance), rel=1e-12)
    assert CalibrationBin.pooled([bin_of(groups[0]), bin_of(np.array([1.0]))]).reading_gain_error is None
    assert CalibrationBin.pooled([bin_of(groups[1])]) == bin_of(groups[1])


@pytest.mark.parametrize("absent", ["reading_gain", "answers_changed"])
def test_a_bin_has_means_just_where_it_has_decisions(absent: str) -> None:
    some, none = bin_of(np.array([1.0, 2.0])).model_dump(), bin_of(np.array([])).model_dump()
    for values in ({**some, absent: None}, {**none, absent: 0.5}):
        with pytest.raises(ValidationError, match="mean"):
            CalibrationBin.model_validate(values)


def bin_of(gains: np.ndarray) -> CalibrationBin:
    """Decisions whose reversal changes the answer where reading loses."""
    count = len(gains)
    return CalibrationBin(
        low=0.1,
        high=0.2,
        decisions=count,
        reading_gain=gains.mean() if count else None,
        reading_gain_error=gains.std(ddof=1) / np.sqrt(count) if count > 1 else None,
        answers_changed=(gains < 0).mean() if count else None,
    )


def test_calibration_is_what_the_reversed_decisions_of_an_lstm_cost(config: Config, squad: Prepared, tmp_path: Path):
    """Where both cells of one LSTM do the same, reversing its decisions changes nothing; reversing others' does."""
    folder = untrained(config, "squad", "skim_reader", squad, tmp_path)
    weights, metadata = read_tensors(folder / "weights.safetensors")
    for name in list(weights):  # Both cells write zeros: the output gate is shut.
        if name.startswith(("layer.weight", "layer.bias", "layer.small_")) and name.endswith("_l0"):
            weights[name] = torch.zeros_like(weights[name])
    write_tensors(folder / "weights.safetensors", weights, metadata)
    found = analyse(config.run("squad", "skim_reader", 0), squad, None, folder).skim.confidence
    first, *others = ([point for point in one.calibration if point.decisions] for one in found)
    assert all(abs(point.reading_gain) < 1e-6 and point.answers_changed == 0 for point in first)
    assert len(others) == 3 and all(any(point.reading_gain for point in points) for points in others)


@torch.no_grad()
def test_the_gain_of_reading_is_what_skimming_adds_to_the_loss(
    config: Config, prepared: Prepared, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With every decision drawn: each text again, once for each of its tokens, whose decision is reversed."""
    monkeypatch.setattr("skimrnn.analysis.analyse._FLIPS", {False: 10**6})
    run, folder = config.run("sst", "skim", 0), untrained(config, "sst", "skim", prepared, tmp_path)
    found = analyse(run, prepared, texts, folder).skim.confidence[0].calibration
    model, split = load_classifier(run, prepared, folder).eval(), prepared.split("test")
    model.layer = ForcedSkimLSTM.of(model.layer)
    p_read, gains, changes = [], [], []
    for row, length in enumerate(split.lengths.tolist()):
        batch = collate(split, np.full(length, row))
        model.layer.force = None
        own, decisions = model(*batch.inputs)
        read = decisions.read[0, :, 0]
        model.layer.force = torch.diag(torch.where(read, -1.0, 1.0))[None]
        other, _ = model(*batch.inputs)
        before, after = (cross_entropy(logits.double(), batch.labels, reduction="none") for logits in (own, other))
        p_read.append(decisions.log_probabilities[0, :, 0, 0].exp().double())
        gains.append(torch.where(read, after - before, before - after))
        changes.append(own.argmax(dim=1) != other.argmax(dim=1))
    p, gain, changed = map(torch.cat, (p_read, gains, changes))
    for point in found:
        inside = (p >= point.low) & (p < point.high)
        assert point.decisions == inside.sum() > 1
        assert point.reading_gain == pytest.approx(float(gain[inside].mean()), abs=1e-6)
        assert point.reading_gain_error == pytest.approx(float(gain[inside].std() / point.decisions**0.5), abs=1e-6)
        assert point.answers_changed == pytest.approx(float(changed[inside].double().mean()))


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
