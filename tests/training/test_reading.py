"""Training readers: resumed and shared first steps give the same bytes, the loss is the sum of its parts."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from skimrnn.config import Config, LSTMAttConfig, SkimLSTMAttConfig, VectorsConfig, parse_config
from skimrnn.data.prepare import Prepared, open_prepared
from skimrnn.data.questions import (
    SCORED_SPLIT,
    collate_questions,
    prepare_questions,
    read_questions,
    read_scoring,
)
from skimrnn.data.registry import DATASETS
from skimrnn.data.sources import fetch_dataset
from skimrnn.data.squad import tokenise_questions
from skimrnn.data.vectors import train_vectors, write_vectors
from skimrnn.errors import UserError
from skimrnn.files import read_json, read_tensors
from skimrnn.measures.flops import flop_reduction, reader_operations
from skimrnn.measures.squad import normalise
from skimrnn.training.reading import answer_questions, build_reader, reading_loss
from skimrnn.training.record import read_reading_record, write_reading_record
from skimrnn.training.train import train
from tests.conftest import Silent

STANDARD = LSTMAttConfig(architecture="lstm_att", hidden_size=16)
SKIM = SkimLSTMAttConfig(architecture="skim_lstm_att", hidden_size=16, small_size=4, gamma=0.1)
NAMES = ["layer 1 forward", "layer 1 backward", "layer 2 forward", "layer 2 backward"]


@pytest.fixture(scope="module")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("squad")
    fetch_dataset(DATASETS["squad"], "embedded", None, folder / "raw")
    tokenise_questions(DATASETS["squad"], folder / "raw", folder / "tokens")
    write_vectors(folder / "vectors.safetensors", *train_vectors([folder / "tokens"], 20, 8, 4, 1, seed=0))
    settings = VectorsConfig(source="corpus", dimension=20, min_count=1)
    prepare_questions(DATASETS["squad"], folder / "tokens", folder / "vectors.safetensors", settings, folder / "out")
    return open_prepared(folder / "out", "squad")


@pytest.fixture
def config() -> Config:
    init = {"model": "standard", "step": 10}
    return parse_config(
        {
            "scale": "test",
            "seeds": [0],
            "data": {"source": "embedded"},
            "vectors": {"source": "corpus", "dimension": 20, "min_count": 1},
            "datasets": {"squad": {"batch_size": 16, "context_limit": 60}},
            "models": {"standard": STANDARD.model_dump(), "skim": SKIM.model_dump() | {"init_from": init}},
            "training": {"learning_rate": 0.003, "max_steps": 20, "validate_every": 5, "temperature_decay": 0.01},
        },
        "the test's config",
    )


def run(config: Config, squad: Prepared, folder: Path, model: str, **options: object) -> bytes:
    """Train and score, and give the bytes of the record."""
    train(config.run("squad", model, 0), squad, folder, Silent(), **options)
    write_reading_record(config.run("squad", model, 0), squad, folder, folder / "0.json")
    return (folder / "0.json").read_bytes()


def test_first_steps_are_shared_and_a_run_goes_on_from_its_own(config: Config, squad: Prepared, tmp_path: Path) -> None:
    whole = run(config, squad, tmp_path / "whole", "standard")
    train(config.run("squad", "standard", 0), squad, tmp_path / "standard", Silent(), until=10)
    assert not (tmp_path / "standard" / "weights.safetensors").exists()
    first = tmp_path / "standard" / "step-10.safetensors"
    skim = run(config, squad, tmp_path / "skim", "skim", start=first)
    reporter = Silent()
    train(config.run("squad", "standard", 0), squad, tmp_path / "standard", reporter)
    assert reporter.messages == ["goes on from step 10"]
    assert run(config, squad, tmp_path / "standard", "standard") == whole
    assert run(config, squad, tmp_path / "again", "skim", start=first) == skim
    with pytest.raises(UserError, match=r"stands at step 20, past step 10: delete it"):
        train(config.run("squad", "standard", 0), squad, tmp_path / "standard", Silent(), until=10)


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
    narrow = config.model_copy(update={"models": {"skim": SKIM.model_copy(update={"num_layers": 1})}})
    with pytest.raises(UserError, match="not those of this model's standard counterpart"):
        train(narrow.run("squad", "skim", 0), squad, tmp_path / "narrow", Silent(), start=first)


def test_an_unfinished_run_is_scored_as_one(config: Config, squad: Prepared, tmp_path: Path) -> None:
    settings = config.run("squad", "standard", 0)
    train(settings, squad, tmp_path, Silent(), until=10)
    with pytest.raises(UserError, match="the run is not finished: train on, or --unfinished"):
        write_reading_record(settings, squad, tmp_path, tmp_path / "0.json")
    write_reading_record(settings, squad, tmp_path, tmp_path / "0.json", unfinished=True)
    record = read_reading_record(tmp_path / "0.json")
    assert (record.training.stopped, record.training.steps) == ("unfinished", 10)
    assert record.test == max((entry.validation for entry in record.training.history), key=lambda scores: scores.f1)
    train(settings, squad, tmp_path, Silent())
    with pytest.raises(UserError, match="the run is finished: leave --unfinished out"):
        write_reading_record(settings, squad, tmp_path, tmp_path / "0.json", unfinished=True)


def test_predictions_and_decisions_are_those_of_the_scores(config: Config, squad: Prepared, tmp_path: Path) -> None:
    train(config.run("squad", "standard", 0), squad, tmp_path, Silent(), until=10)
    run(config, squad, tmp_path / "skim", "skim", start=tmp_path / "step-10.safetensors")
    record = read_reading_record(tmp_path / "skim" / "0.json")
    predictions = read_json(tmp_path / "skim" / "0.predictions.json")
    scoring = read_scoring(squad)
    assert list(predictions) == scoring.ids
    right = [
        any(normalise(predictions[key]) == normalise(answer) for answer in answers)
        for key, answers in zip(scoring.ids, scoring.answers, strict=True)
    ]
    assert sum(right) / len(right) == record.test.em
    decisions, metadata = read_tensors(tmp_path / "skim" / "decisions.safetensors")
    assert decisions["read"].shape == (4, record.test.tokens) == (4, int(decisions["lengths"].sum()))
    rates = 1 - decisions["read"].double().mean(dim=1)
    assert json.loads(metadata["sequences"]) == list(record.test.layer_skim_rates) == NAMES
    assert list(record.test.layer_skim_rates.values()) == pytest.approx(rates.tolist(), abs=1e-12)
    assert record.test.skim_rate == pytest.approx(float(rates.mean()), abs=1e-12)
    assert str(tmp_path) not in (tmp_path / "skim" / "0.json").read_text()


def test_the_loss_is_two_cross_entropies_and_the_weighted_skim_loss(squad: Prepared) -> None:
    model = build_reader(SKIM, squad.vectors()).eval()
    batch = collate_questions(read_questions(squad, "train"), np.arange(8))
    start, end, decisions, _ = model(batch.questions, batch.contexts)
    expected = -sum(
        float(functional.log_softmax(logits, 1)[torch.arange(8), place].mean().detach())
        for logits, place in ((start, batch.first), (end, batch.last))
    )
    assert float(reading_loss(model, batch, 0).detach()) == pytest.approx(expected, rel=1e-5)
    with_skim = expected + 0.5 * float(decisions.skim_loss().detach())
    assert float(reading_loss(model, batch, 0.5).detach()) == pytest.approx(with_skim, rel=1e-5)


def test_decisions_do_not_depend_on_the_batch(squad: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_reader(SKIM, squad.vectors())
    split, scoring = read_questions(squad, SCORED_SPLIT), read_scoring(squad)
    together = answer_questions(model, split, scoring, keep_decisions=True)
    monkeypatch.setattr("skimrnn.data.questions._EVALUATION_TOKENS", 100)
    apart = answer_questions(model, split, scoring, keep_decisions=True)
    assert together.predictions == apart.predictions
    assert together.read is not None and apart.read is not None
    assert torch.equal(together.read, apart.read)


@pytest.mark.parametrize("layers", [1, 2])
def test_operations_of_the_dense_model_are_those_that_torch_counts(layers: int, squad: Prepared) -> None:
    """Torch counts them one matrix product at a time, without oneDNN's LSTM, which it cannot look into."""
    model = build_reader(STANDARD.model_copy(update={"num_layers": layers}), squad.vectors()).eval()
    split = read_questions(squad, SCORED_SPLIT)
    lengths = Counter(split.lengths.tolist())
    same = (split.lengths == lengths.most_common(1)[0][0]).numpy().nonzero()[0]  # Padding would be counted.
    batch = collate_questions(split, same)
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        model(batch.questions, batch.contexts)
    ours = reader_operations(model, batch.questions.lengths, batch.contexts.lengths)
    assert batch.questions.lengths.unique().numel() == 1
    assert counter.get_total_flops() == ours.total


def test_operations_of_a_skimming_model_follow_its_skim_rates(squad: Prepared) -> None:
    standard, skim = (build_reader(config, squad.vectors()) for config in (STANDARD, SKIM))
    questions, contexts = torch.tensor([4, 5]), torch.tensor([30, 50])
    dense = reader_operations(standard, questions, contexts)
    nothing = reader_operations(skim, questions, contexts, dict.fromkeys(NAMES, 0.0))
    assert nothing.model_copy(update={"decision": 0.0}) == dense
    assert nothing.decision == pytest.approx(dense.recurrent / (4 * SKIM.hidden_size))
    for rate in (0.3, 1.0):
        for convention in (False, True):
            count = reader_operations(
                skim, questions, contexts, dict.fromkeys(NAMES, rate), published_convention=convention
            )
            reduction = flop_reduction(rate, SKIM.hidden_size, SKIM.small_size)
            expected = reduction.published_convention if convention else reduction.exact_count
            assert dense.recurrent / (count.recurrent + count.decision) == pytest.approx(expected)
    second = reader_operations(skim, questions, contexts, dict.fromkeys(NAMES, 0.0) | {"layer 2 forward": 1.0})
    big = 2 * 4 * 16 * (2 * 16 + 16)  # One cell of the second layer.
    assert nothing.recurrent - second.recurrent == 80 * big * (1 - 4 / 16)


def test_the_record_says_what_was_run(config: Config, squad: Prepared, tmp_path: Path) -> None:
    run(config, squad, tmp_path, "standard")
    record = read_reading_record(tmp_path / "0.json")
    assert record.config == config.run("squad", "standard", 0)
    assert record.data.digest == squad.manifest["digest"]
    assert (record.test.examples, record.test.skim_rate, record.test.layer_skim_rates) == (400, 0.0, {})
    broken = json.loads((tmp_path / "0.json").read_text())
    del broken["test"]["f1"]
    (tmp_path / "0.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match=r"0\.json: not a reading record of this version \(test\.f1"):
        read_reading_record(tmp_path / "0.json")
