from pathlib import Path

import pytest
import torch

from skimrnn.benchmarks.reader_speed import _sample, measure_reader_speed
from skimrnn.benchmarks.speedup import WHOLE
from skimrnn.config import Config
from skimrnn.data.prepare import Prepared
from skimrnn.data.questions import SCORED_SPLIT, read_questions, read_scoring
from skimrnn.errors import UserError
from skimrnn.files import read_tensors, write_tensors
from skimrnn.training.reading import answer_questions, build_reader
from tests.benchmarks.conftest import Once
from tests.conftest import untrained


@pytest.mark.parametrize("model", ["skim_reader", "skim_bidaf"])
def test_the_skim_rate_is_that_of_the_evaluation(squad: Prepared, config: Config, model: str, tmp_path: Path):
    path = untrained(config, "squad", model, squad, tmp_path) / "weights.safetensors"
    speed = measure_reader_speed(squad, config.models, {model: {3: path}}, tokens=10**6, rounds=5)
    reader = build_reader(config.models[model], squad.vectors(), squad.spellings())
    reader.load_state_dict(read_tensors(path)[0])
    scores = answer_questions(reader, read_questions(squad, SCORED_SPLIT), read_scoring(squad)).scores
    timed = speed.models[model][3]
    assert (speed.texts, speed.tokens) == (scores.examples, scores.tokens)
    assert timed.skim_rate == pytest.approx(scores.skim_rate, abs=1e-9)
    assert 0.05 < timed.skim_rate < 0.95
    assert 0 < timed.speedup(WHOLE) < 100
    assert len(timed.lstm[WHOLE].samples) == len(timed.skim[WHOLE].samples) == 5


@pytest.mark.parametrize("model", ["skim_reader", "skim_bidaf"])
def test_each_time_is_that_of_the_reader_that_it_is_named_after(
    squad: Prepared,
    config: Config,
    model: str,
    once: Once,
    tmp_path: Path,
):
    path = untrained(config, "squad", model, squad, tmp_path) / "weights.safetensors"
    timed = measure_reader_speed(squad, config.models, {model: {0: path}}, tokens=200, rounds=1).models[model][0]
    assert (timed.lstm, timed.skim) == ({WHOLE: once.timings["lstm"]}, {WHOLE: once.timings["skim"]})
    (batch,) = _sample(squad, 200)
    for name, settings in (("lstm", config.models[model].standard), ("skim", config.models[model])):
        reader = build_reader(settings, squad.vectors(), squad.spellings()).eval()
        reader.load_state_dict(read_tensors(path)[0], strict=False)
        with torch.no_grad():
            expected = reader(batch.questions, batch.contexts)
        (result,) = once.results[name]
        assert (result.decisions is None) == (name == "lstm")
        assert torch.equal(result.start, expected.start)


def test_a_sample_is_no_longer_than_it_must_be_and_always_the_same(squad: Prepared, config: Config, tmp_path: Path):
    path = untrained(config, "squad", "skim_reader", squad, tmp_path) / "weights.safetensors"
    first, second = (
        measure_reader_speed(squad, config.models, {"skim_reader": {0: path}}, tokens=200, rounds=5) for _ in range(2)
    )
    assert 200 <= first.tokens < 200 + int(read_questions(squad, SCORED_SPLIT).lengths.max())
    assert (first.texts, first.tokens, first.models["skim_reader"][0].skim_rate) == (
        *(second.texts, second.tokens),
        second.models["skim_reader"][0].skim_rate,
    )


def test_weights_of_another_model_are_refused(squad: Prepared, config: Config, tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"embedding.weight": squad.vectors()})
    with pytest.raises(UserError, match="not the weights of the model that the config names"):
        measure_reader_speed(squad, config.models, {"skim_reader": {0: path}}, tokens=1, rounds=5)
