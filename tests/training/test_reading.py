"""Training readers: resumed and shared first steps give the same bytes, the loss is the sum of its parts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from skimrnn import kernels
from skimrnn.analysis.analyse import analyse
from skimrnn.analysis.subject import open_subject
from skimrnn.cli import app
from skimrnn.config import (
    BiDAFConfig,
    Config,
    LSTMAttConfig,
    ReaderConfig,
    SkimBiDAFConfig,
    SkimLSTMAttConfig,
    parse_config,
)
from skimrnn.data.prepare import Prepared
from skimrnn.data.questions import (
    SCORED_SPLIT,
    QuestionBatch,
    collate_questions,
    read_questions,
    read_scoring,
)
from skimrnn.errors import UserError
from skimrnn.files import read_json, read_tensors, write_json
from skimrnn.layers import SkimLSTM
from skimrnn.measures.flops import FlopReduction, flop_reduction, reader_operations
from skimrnn.measures.squad import normalise
from skimrnn.models import BiDAF as BiDAFReader
from skimrnn.models import Reader
from skimrnn.training.reading import answer_questions, build_reader, reading_loss
from skimrnn.training.record import load_reader, read_reading_record, reading_operations, write_reading_record
from skimrnn.training.train import temperature_at, train
from tests.conftest import Silent

STANDARD = LSTMAttConfig(architecture="lstm_att", hidden_size=16, ema_decay=0.8)
SKIM = SkimLSTMAttConfig(architecture="skim_lstm_att", hidden_size=16, small_size=4, gamma=0.1, ema_decay=0.8)
BIDAF = BiDAFConfig(architecture="bidaf", hidden_size=6, ema_decay=0.8)
SK_BIDAF = SkimBiDAFConfig(architecture="skim_bidaf", hidden_size=6, small_size=3, gamma=0.1, ema_decay=0.8)
NAMES = ["layer 1 forward", "layer 1 backward", "layer 2 forward", "layer 2 backward"]
BIDAF_NAMES = [
    f"{name} {direction}"
    for name in ("contextual", "modelling 1", "modelling 2", "output")
    for direction in ("forward", "backward")
]


@pytest.fixture
def config() -> Config:
    models = {
        "standard": STANDARD.model_dump(),
        "skim": SKIM.model_dump() | {"init_from": {"model": "standard", "step": 10}},
        "bidaf": BIDAF.model_dump(),
        "sk_bidaf": SK_BIDAF.model_dump() | {"init_from": {"model": "bidaf", "step": 10}},
    }
    return parse_config(
        {
            "scale": "test",
            "seeds": [0],
            "data": {"source": "embedded"},
            "vectors": {"source": "corpus", "dimension": 20, "min_count": 1},
            "datasets": {"squad": {"batch_size": 16, "context_limit": 60}},
            "models": models,
            "training": {"learning_rate": 0.003, "max_steps": 20, "validate_every": 5, "temperature_decay": 0.01},
        },
        "the test's config",
    )


def run(config: Config, squad: Prepared, folder: Path, model: str, **options: object) -> bytes:
    """Train and score, and give the bytes of the record."""
    train(config.run("squad", model, 0), squad, folder, Silent(), **options)
    write_reading_record(config.run("squad", model, 0), squad, folder, folder / "0.json")
    return (folder / "0.json").read_bytes()


@pytest.mark.parametrize(("standard", "skim"), [("standard", "skim"), ("bidaf", "sk_bidaf")])
def test_first_steps_are_shared_and_a_run_goes_on_from_its_own(
    standard: str, skim: str, config: Config, squad: Prepared, tmp_path: Path
) -> None:
    whole = run(config, squad, tmp_path / "whole", standard)
    train(config.run("squad", standard, 0), squad, tmp_path / "standard", Silent(), until=10)
    assert not (tmp_path / "standard" / "weights.safetensors").exists()
    first = tmp_path / "standard" / "step-10.safetensors"
    skimming = run(config, squad, tmp_path / "skim", skim, start=first)
    reporter = Silent()
    train(config.run("squad", standard, 0), squad, tmp_path / "standard", reporter)
    assert reporter.messages == ["goes on from step 10"]
    assert run(config, squad, tmp_path / "standard", standard) == whole
    for file in ("weights", "checkpoint"):
        weights = [read_tensors(tmp_path / folder / f"{file}.safetensors")[0] for folder in ("whole", "standard")]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert run(config, squad, tmp_path / "again", skim, start=first) == skimming
    kept = first.read_bytes()
    first.unlink()  # As Snakemake does with what is to be made anew.
    train(config.run("squad", standard, 0), squad, tmp_path / "standard", Silent(), until=10)
    assert first.read_bytes() == kept
    first.with_name("kept-step-10.safetensors").unlink()
    with pytest.raises(UserError, match=r"stands at step 20, past step 10: delete it"):
        train(config.run("squad", standard, 0), squad, tmp_path / "standard", Silent(), until=10)


def test_a_model_that_starts_from_another_wants_its_weights(config: Config, squad: Prepared, tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", config.model_dump(mode="json"))
    first = tmp_path / "standard" / "step-10.safetensors"

    def training(model: str, *options: str) -> str:
        command = ["train", "--config", tmp_path / "config.json", "--dataset", "squad", "--seed", "0", "--model", model]
        command += ["--prepared", squad.folder, "--output", tmp_path / model, *options]
        return CliRunner().invoke(app, [str(part) for part in command]).stderr

    assert "skim starts from step 10 of standard: give those weights with --start" in training("skim")
    train(config.run("squad", "standard", 1), squad, first.parent, Silent(), until=10)
    assert "no first steps of standard with this config, data, code and seed" in training("skim", "--start", str(first))
    assert not (tmp_path / "skim").exists()
    train(config.run("squad", "standard", 0), squad, first.parent, Silent(), until=10)
    training("skim", "--start", str(first))
    assert (tmp_path / "skim" / "weights.safetensors").exists()


@pytest.mark.parametrize(("name", "weight"), [("standard", "output.weight"), ("bidaf", "start.weight")])
def test_what_is_scored_and_kept_is_the_moving_average(
    name: str, weight: str, config: Config, squad: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.run("squad", name, 0)
    course: list[dict[str, torch.Tensor]] = []

    def loss(model: torch.nn.Module, *arguments: Any) -> torch.Tensor:
        course.append({name: tensor.detach().clone() for name, tensor in model.state_dict().items()})
        return reading_loss(model, *arguments)

    monkeypatch.setattr("skimrnn.training.reading.reading_loss", loss)
    train(settings, squad, tmp_path, Silent(), until=5)
    tensors, _ = read_tensors(tmp_path / "checkpoint.safetensors")
    last = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    expected = course[0]
    for weights in (*course[1:], last):
        expected = {name: 0.8 * expected[name] + 0.2 * tensor for name, tensor in weights.items()}
    kept, _ = read_tensors(tmp_path / "step-5.safetensors")
    assert kept.keys() == expected.keys()
    for key, tensor in kept.items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-5, atol=1e-6)
        assert torch.equal(tensor, tensors[f"best.{key}"]) and torch.equal(tensor, tensors[f"average.module.{key}"])
    assert not torch.equal(kept[weight], last[weight])
    model = build_reader({"standard": STANDARD, "bidaf": BIDAF}[name], squad.vectors(), squad.spellings())
    model.load_state_dict(kept)
    scores = answer_questions(model, read_questions(squad, SCORED_SPLIT), read_scoring(squad)).scores
    assert read_json(tmp_path / "training.json")["history"][-1]["validation"] == scores.model_dump()


def test_a_skimming_reader_starts_from_the_standard_ones_weights(
    config: Config, squad: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config.run("squad", "standard", 0), squad, tmp_path / "standard", Silent(), until=10)
    first = tmp_path / "standard" / "step-10.safetensors"
    started: list[dict[str, torch.Tensor]] = []

    def stop(model: torch.nn.Module, *_: object) -> None:
        started.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr("skimrnn.training.reading.reading_loss", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config.run("squad", "skim", 0), squad, tmp_path / "skim", Silent(), start=first)
    for name, tensor in read_tensors(first)[0].items():
        assert torch.equal(started[0][name], tensor)
    for changes in ({"num_layers": 1}, {"hidden_size": 2 * SKIM.hidden_size}):
        other = config.model_copy(update={"models": {"skim": SKIM.model_copy(update=changes)}})
        with pytest.raises(UserError, match="not those of this model's standard counterpart"):
            train(other.run("squad", "skim", 0), squad, tmp_path / "other", Silent(), start=first)


def test_an_unfinished_run_is_scored_as_one(config: Config, squad: Prepared, tmp_path: Path) -> None:
    settings = config.run("squad", "standard", 0)
    train(settings, squad, tmp_path, Silent(), until=10)
    with pytest.raises(UserError, match="the run is not finished: train on, or --unfinished"):
        write_reading_record(settings, squad, tmp_path, tmp_path / "0.json")
    course = read_json(tmp_path / "training.json")  # As training that goes on meanwhile may have left it.
    write_json(tmp_path / "training.json", course | {"steps": 5, "best_step": 5})
    write_reading_record(settings, squad, tmp_path, tmp_path / "0.json", unfinished=True)
    record = read_reading_record(tmp_path / "0.json")
    assert (record.training.stopped, record.training.steps) == ("unfinished", 10)
    assert record.test == max((entry.validation for entry in record.training.history), key=lambda scores: scores.f1)
    other = settings.model_copy(update={"batch_size": 2 * settings.batch_size})
    with pytest.raises(UserError, match=r"checkpoint\.safetensors: of another config or other data"):
        write_reading_record(other, squad, tmp_path, tmp_path / "0.json", unfinished=True)
    train(settings, squad, tmp_path, Silent())
    with pytest.raises(UserError, match="the run is finished: leave --unfinished out"):
        write_reading_record(settings, squad, tmp_path, tmp_path / "0.json", unfinished=True)


def test_a_checkpoint_that_is_written_while_it_is_analysed_is_refused(
    config: Config, squad: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.run("squad", "standard", 0)
    train(settings, squad, tmp_path, Silent(), until=10)
    assert not analyse(settings, squad, None, tmp_path, unfinished=True).finished

    def open_and_write(*arguments: Any) -> Any:
        subject = open_subject(*arguments)
        train(settings, squad, tmp_path, Silent(), until=20)
        return subject

    monkeypatch.setattr("skimrnn.analysis.analyse.open_subject", open_and_write)
    with pytest.raises(UserError, match=r"checkpoint\.safetensors: training wrote it anew while it was read"):
        analyse(settings, squad, None, tmp_path, unfinished=True)


def test_without_a_question_to_train_on_nothing_is_trained(config: Config, squad: Prepared, tmp_path: Path) -> None:
    settings = config.run("squad", "standard", 0).model_copy(update={"context_limit": 1})
    with pytest.raises(UserError, match="no question to train on has a context of at most 1 tokens"):
        train(settings, squad, tmp_path, Silent())


@pytest.mark.parametrize("model", ["skim", "sk_bidaf"])
def test_predictions_and_decisions_are_those_of_the_scores(
    model: str, config: Config, squad: Prepared, tmp_path: Path
) -> None:
    run(config, squad, tmp_path / "skim", model)
    record = read_reading_record(tmp_path / "skim" / "0.json")
    reader, split = load_reader(record.config, squad, tmp_path / "skim").model, read_questions(squad, SCORED_SPLIT)
    expected = reading_operations(reader, split, record.test.layer_skim_rates, squad)
    assert (record.operations, record.flop_reduction) == expected
    predictions = read_json(tmp_path / "skim" / "0.predictions.json")
    scoring = read_scoring(squad)
    assert list(predictions) == scoring.ids
    right = [
        any(normalise(predictions[key]) == normalise(answer) for answer in answers)
        for key, answers in zip(scoring.ids, scoring.answers, strict=True)
    ]
    assert sum(right) / len(right) == record.test.em
    decisions, metadata = read_tensors(tmp_path / "skim" / "decisions.safetensors")
    names = json.loads(metadata["sequences"])
    assert names == {"skim": NAMES, "sk_bidaf": BIDAF_NAMES}[model]
    assert list(record.test.layer_skim_rates) == names + ["question forward", "question backward"] * (model != "skim")
    assert decisions["read"].shape == (len(names), record.test.tokens)
    assert record.test.tokens == int(decisions["lengths"].sum())
    rates = 1 - decisions["read"].double().mean(dim=1)
    assert [record.test.layer_skim_rates[name] for name in names] == pytest.approx(rates.tolist(), abs=1e-12)
    assert record.test.skim_rate == pytest.approx(float(rates.mean()), abs=1e-12)
    assert str(tmp_path) not in (tmp_path / "skim" / "0.json").read_text()


def test_the_loss_is_two_cross_entropies_and_the_weighted_skim_loss(squad: Prepared) -> None:
    model = build_reader(SKIM, squad.vectors(), squad.spellings()).eval()
    batch = collate_questions(read_questions(squad, "train"), np.arange(8))
    start, end, decisions, _ = model(batch.questions, batch.contexts)
    expected = -sum(
        float(functional.log_softmax(logits, 1)[torch.arange(8), place].mean().detach())
        for logits, place in ((start, batch.first), (end, batch.last))
    )
    assert float(reading_loss(model, batch, 0).detach()) == pytest.approx(expected, rel=1e-5)
    with_skim = expected + 0.5 * float(decisions.skim_loss().detach())
    assert float(reading_loss(model, batch, 0.5).detach()) == pytest.approx(with_skim, rel=1e-5)


@pytest.mark.parametrize("name", ["skim", "sk_bidaf"])
def test_each_step_has_the_schedules_temperature_the_models_gamma_and_contexts_within_the_limit(
    name: str, config: Config, squad: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.run("squad", name, 0).model_copy(update={"context_limit": 40})
    assert read_questions(squad, "train").lengths.median() > 40
    seen: list[tuple[set[float], float]] = []

    def loss(model: Reader, batch: QuestionBatch, gamma: float) -> torch.Tensor:
        assert batch.contexts.lengths.max() <= 40
        seen.append(({layer.temperature for layer in model.children() if isinstance(layer, SkimLSTM)}, gamma))
        return reading_loss(model, batch, gamma)

    monkeypatch.setattr("skimrnn.training.reading.reading_loss", loss)
    train(settings, squad, tmp_path, Silent())
    assert seen == [({temperature_at(step, settings.training)}, 0.1) for step in range(20)]


@pytest.mark.parametrize("config", [STANDARD, SKIM, BIDAF, SK_BIDAF], ids=lambda config: config.architecture)
def test_dropout_acts_within_readers_and_between_their_layers_in_training_alone(
    config: ReaderConfig, squad: Prepared
) -> None:
    config = config.model_copy(update={"dropout": 0.3})
    model = build_reader(config, squad.vectors(), squad.spellings())
    assert model.dropout.p == 0.3
    layers = [layer for layer in model.children() if isinstance(layer, torch.nn.LSTM | SkimLSTM)]
    assert [layer.dropout for layer in layers if layer.num_layers == 2] == [0.3]
    batch = collate_questions(read_questions(squad, "train"), np.arange(8))
    for training in (True, False):
        model.train(training)
        passes = [model(batch.questions, batch.contexts).start for _ in range(2)]
        assert torch.equal(*passes) != training


def test_decisions_do_not_depend_on_the_batch(squad: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_reader(SKIM, squad.vectors(), squad.spellings())
    split, scoring = read_questions(squad, SCORED_SPLIT), read_scoring(squad)
    together = answer_questions(model, split, scoring, keep_decisions=True)
    monkeypatch.setattr("skimrnn.data.batches._EVALUATION_TOKENS", 100)
    apart = answer_questions(model, split, scoring, keep_decisions=True)
    assert together.predictions == apart.predictions
    assert together.read is not None and apart.read is not None
    assert torch.equal(together.read, apart.read)


@pytest.mark.parametrize("standard", [STANDARD.model_copy(update={"num_layers": 1}), STANDARD, BIDAF])
def test_operations_of_the_dense_model_are_those_that_torch_counts(
    standard: LSTMAttConfig | BiDAFConfig, squad: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch counts them one matrix product at a time, without kernels that it cannot look into: ours and oneDNN's."""
    monkeypatch.setattr(kernels, "KERNEL", "reference")
    model = build_reader(standard, squad.vectors(), squad.spellings()).eval()
    split = read_questions(squad, SCORED_SPLIT)
    lengths = Counter(split.lengths.tolist())
    same = (split.lengths == lengths.most_common(1)[0][0]).numpy().nonzero()[0]  # Padding would be counted.
    batch = collate_questions(split, same)
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        model(batch.questions, batch.contexts)
    ours = reader_operations(model, batch.questions.lengths, batch.contexts.lengths)
    assert batch.questions.lengths.unique().numel() == 1
    expected = ours.total
    if isinstance(model, BiDAFReader):  # Each distinct spelling is filtered once; the count is of each token.
        texts = (batch.questions, batch.contexts)
        distinct = sum(text.spellings.unique().numel() for text in texts)
        expected += ours.characters * (distinct / sum(text.spellings.numel() for text in texts) - 1)
        assert counter.get_flop_counts()["Global"][torch.ops.aten.convolution] == 2 * 100 * 16 * 5 * 12 * distinct
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("standard", "skim"), [(STANDARD, SKIM), (BIDAF, SK_BIDAF)])
def test_operations_of_a_skimming_model_follow_its_skim_rates(
    standard: LSTMAttConfig | BiDAFConfig, skim: SkimLSTMAttConfig | SkimBiDAFConfig, squad: Prepared
) -> None:
    plain, model = (build_reader(config, squad.vectors(), squad.spellings()) for config in (standard, skim))
    questions, contexts = torch.tensor([4, 5]), torch.tensor([30, 50])
    names = [*model.sequences, *model.question_sequences]
    dense = reader_operations(plain, questions, contexts)
    nothing = reader_operations(model, questions, contexts, dict.fromkeys(names, 0.0))
    assert nothing.model_copy(update={"decision": 0.0}) == dense
    assert nothing.decision == pytest.approx(dense.recurrent / (4 * skim.hidden_size))
    for rate in (0.3, 1.0):
        for convention in (False, True):
            rates = dict.fromkeys(names, rate)
            count = reader_operations(model, questions, contexts, rates, published_convention=convention)
            reduction = flop_reduction(rate, skim.hidden_size, skim.small_size)
            expected = reduction.published_convention if convention else reduction.exact_count
            assert dense.recurrent / (count.recurrent + count.decision) == pytest.approx(expected)


@pytest.mark.parametrize(("standard", "skim"), [(STANDARD, SKIM), (BIDAF, SK_BIDAF)])
def test_flop_reduction_is_beside_the_standard_reader_of_100(
    standard: LSTMAttConfig | BiDAFConfig, skim: SkimLSTMAttConfig | SkimBiDAFConfig, squad: Prepared
) -> None:
    split = read_questions(squad, SCORED_SPLIT)
    hundred, fifty, skimming = (
        build_reader(config.model_copy(update={"hidden_size": size}), squad.vectors(), squad.spellings())
        for config, size in ((standard, 100), (standard, 50), (skim, 100))
    )
    dense, reduction = reading_operations(hundred, split, {}, squad)
    assert reduction == FlopReduction(published_convention=1, exact_count=1)
    smaller = reading_operations(fifty, split, {}, squad)[1]
    assert smaller.published_convention == smaller.exact_count > 1
    rates = dict.fromkeys([*skimming.sequences, *skimming.question_sequences], 0.3)
    exact, published = (
        reader_operations(skimming, split.question_lengths, split.lengths, rates, published_convention=convention)
        for convention in (False, True)
    )
    assert exact.total > published.total
    operations, reduction = reading_operations(skimming, split, rates, squad)
    assert operations == exact
    assert reduction.exact_count == pytest.approx(dense.total / exact.total, rel=1e-12)
    assert reduction.published_convention == pytest.approx(dense.total / published.total, rel=1e-12)


def test_each_sequence_is_charged_for_its_own_tokens_and_cells(squad: Prepared) -> None:
    questions, contexts = torch.tensor([4, 5]), torch.tensor([30, 50])
    sizes = {  # Inputs of the cells of hidden size 16 and 6.
        SKIM: {"layer 1 forward": 60, "layer 2 backward": 32},
        SK_BIDAF: {
            "contextual forward": 120,
            "question backward": 120,
            "modelling 1 backward": 48,
            "modelling 2 forward": 12,
            "output backward": 84,
        },
    }
    for config, inputs in sizes.items():
        model = build_reader(config, squad.vectors(), squad.spellings())
        rates = dict.fromkeys([*model.sequences, *model.question_sequences], 0.0)
        nothing = reader_operations(model, questions, contexts, rates)
        for name, size in inputs.items():
            count = reader_operations(model, questions, contexts, rates | {name: 1.0})
            big = 2 * 4 * config.hidden_size * (size + config.hidden_size)
            tokens = 9 if name.startswith("question") else 80
            saved = tokens * big * (1 - config.small_size / config.hidden_size)
            assert nothing.recurrent - count.recurrent == pytest.approx(saved)


def test_the_record_says_what_was_run(config: Config, squad: Prepared, tmp_path: Path) -> None:
    run(config, squad, tmp_path, "standard")
    record = read_reading_record(tmp_path / "0.json")
    assert record.config == config.run("squad", "standard", 0)
    assert record.data.digest == squad.manifest["digest"]
    assert (record.test.examples, record.test.skim_rate, record.test.layer_skim_rates) == (100, 0.0, {})
    broken = json.loads((tmp_path / "0.json").read_text())
    del broken["test"]["f1"]
    (tmp_path / "0.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match=r"0\.json: not a reading record of this version \(test\.f1"):
        read_reading_record(tmp_path / "0.json")
