"""The cloze reader: candidates are scored against the last state, and only real ones."""

import shutil
from pathlib import Path

import pytest
import torch

from skimrnn.config import VectorsConfig
from skimrnn.data.batches import evaluation_batches
from skimrnn.data.prepare import PADDING, Prepared, Split, open_prepared, prepare_dataset
from skimrnn.data.registry import DATASETS
from skimrnn.data.sources import fetch_dataset
from skimrnn.data.tokens import tokenise_dataset
from skimrnn.data.vectors import train_vectors, write_vectors
from skimrnn.layers import SkimLSTM
from skimrnn.models import ClozeReader
from skimrnn.training.evaluate import evaluate
from skimrnn.training.record import read_record, write_record
from skimrnn.training.train import train
from tests.conftest import Silent, small_config


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The embedded stand-in of CBT-CN, prepared with vectors of its own corpus."""
    folder = tmp_path_factory.mktemp("cbt")
    dataset = DATASETS["cbt_cn"]
    fetch_dataset(dataset, "embedded", None, folder / "raw")
    tokenise_dataset(dataset, folder / "raw", folder / "tokens", seed=0)
    write_vectors(folder / "v.safetensors", *train_vectors([folder / "tokens"], 50, 8, 4, 1, seed=0))
    settings = VectorsConfig(source="corpus", dimension=50, min_count=1)
    prepare_dataset(dataset, folder / "tokens", folder / "v.safetensors", settings, folder / "prepared")
    return open_prepared(folder / "prepared", "cbt_cn")


@pytest.fixture(params=["lstm", "skim"])
def reader(request: pytest.FixtureRequest, seed: int) -> ClozeReader:
    layer = torch.nn.LSTM(7, 12) if request.param == "lstm" else SkimLSTM(7, 12, small_size=3)
    return ClozeReader(torch.randn(30, 7), layer).eval()


TOKENS = torch.tensor([[4, 5, 6, 7, 8], [9, 10, 11, 0, 0]])
LENGTHS = torch.tensor([5, 3])
CANDIDATES = torch.tensor([[3, 4, 5, 6], [7, 8, 9, PADDING]])


@torch.no_grad()
def test_a_score_is_the_product_of_state_and_word_vector(reader: ClozeReader) -> None:
    logits = reader(TOKENS, LENGTHS, CANDIDATES).logits
    for row in range(2):
        inputs = reader.embedding(TOKENS[row, : LENGTHS[row]])
        state = reader.output(reader.layer(inputs)[1][0][0])
        for place in range(4 - row):
            expected = state @ reader.embedding.weight[CANDIDATES[row, place]]
            torch.testing.assert_close(logits[row, place], expected, rtol=0, atol=1e-5)
    assert logits[1, 3] == -torch.inf


@torch.no_grad()
def test_the_order_of_candidates_and_the_padding_of_texts_do_not_matter(reader: ClozeReader) -> None:
    logits = reader(TOKENS, LENGTHS, CANDIDATES).logits
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(reader(TOKENS, LENGTHS, CANDIDATES[:, order]).logits, logits[:, order])
    longer = torch.nn.functional.pad(TOKENS, (0, 9), value=12)
    longer[1, 3:] = 13
    torch.testing.assert_close(reader(longer, LENGTHS, CANDIDATES).logits, logits)


def test_gradients_stop_at_padding(reader: ClozeReader) -> None:
    logits = reader.train()(TOKENS, LENGTHS, CANDIDATES).logits
    torch.nn.functional.cross_entropy(logits, torch.tensor([1, 2])).backward()
    gradient = reader.embedding.weight.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert not gradient[PADDING].any()
    assert all(gradient[number].any() for number in (3, 4, 11, 9))


def test_candidates_that_look_alike_share_the_credit(reader: ClozeReader) -> None:
    """Words that training never saw have one number, so no reader can tell them apart."""
    split = Split(
        tokens=torch.tensor([4, 5, 6, 7], dtype=torch.int32),
        offsets=torch.tensor([0, 2, 4]),
        labels=torch.tensor([2, 0]),
        candidates=torch.tensor([[1, 1, 1, 1], [1, 1, 8, 8]], dtype=torch.int32),
    )
    second = reader(torch.tensor([[6, 7]]), torch.tensor([2]), torch.tensor([[1, 1, 8, 8]])).logits[0]
    expected = (1 / 4 + (1 / 2 if second[0] > second[2] else 0)) / 2
    assert evaluate(reader, split).accuracy == expected


def test_the_loop_trains_a_reader_and_its_record_is_a_classifiers(questions: Prepared, tmp_path: Path) -> None:
    config = small_config(max_steps=220, validate_every=110)
    small = small_config().models["skim"]
    skim = small.model_copy(update={"hidden_size": 100, "small_size": 5, "gamma": 0.02})
    config = config.model_copy(
        update={"datasets": {"cbt_cn": config.datasets["sst"]}, "models": config.models | {"skim": skim}}
    )
    run = config.run("cbt_cn", "skim", 0)
    without_test = shutil.copytree(questions.folder, tmp_path / "prepared")
    (without_test / "test.safetensors").unlink()
    train(run, Prepared(without_test, questions.manifest), tmp_path / "run", Silent())
    write_record(run, questions, tmp_path / "run", tmp_path / "0.json")
    record = read_record(tmp_path / "0.json")
    assert record.test.accuracy > 0.7  # Chance is 0.1; about 0.99 was seen.
    assert 0 < record.test.skim_rate < 1
    assert record.test.examples == len(questions.split("test"))
    batch = next(evaluation_batches(questions.split("test"), 16))
    assert batch.candidates is not None
    assert batch.candidates.shape == (16, 10)
