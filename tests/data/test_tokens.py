import os
import signal
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from skimrnn.data.registry import DATASETS
from skimrnn.data.tokens import LONGEST, MANY, carve, map_texts, split_spaces, split_treebank, tokenise_dataset
from skimrnn.files import read_json, write_json, write_parquet
from tests.conftest import read_tokens


def test_treebank_tokens() -> None:
    text = "It isn't bad.<br /><br />In fact, it's GREAT! (See it.)"
    expected = ["it", "is", "n't", "bad", ".", "in", "fact", ",", "it", "'s", "great", "!", "(", "see", "it", ".", ")"]
    assert split_treebank(text).split(" ") == expected


def test_tokenised_texts_are_split_at_spaces_alone() -> None:
    assert split_spaces("  It is n't   bad .\n") == "it is n't bad ."


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("sst", "it isn't bad."),
        ("rotten_tomatoes", "it isn't bad."),
        ("imdb", "it is n't bad ."),
        ("ag_news", "it is n't bad ."),
    ],
)
def test_each_dataset_has_its_tokeniser(name: str, tokens: str, tmp_path: Path) -> None:
    for split in DATASETS[name].rows:
        write_parquet(tmp_path / f"{split}.parquet", pa.table({"text": ["It isn't bad."] * 4, "label": [0] * 4}))
    write_json(tmp_path / "manifest.json", {"dataset": name, "splits": {}})
    tokenise_dataset(DATASETS[name], tmp_path, tmp_path / "tokens", seed=0)
    for path in (tmp_path / "tokens").glob("*.parquet"):
        assert {" ".join(text) for text in read_tokens(path)[0]} == {tokens}


@pytest.mark.parametrize(("rows", "size"), [(25_000, 3_857), (120_000, 18_149), (41_664, 6_301), (10, 3)])
def test_carving_takes_exactly_the_papers_rows_and_keeps_the_mix(rows: int, size: int) -> None:
    labels = np.random.default_rng(rows).integers(0, 4, rows)
    table = pa.table({"tokens": [str(i) for i in range(rows)], "label": labels})
    rest, carved = carve(table, size / rows, seed=0)
    assert carved.num_rows == size
    assert sorted(rest["tokens"].to_pylist() + carved["tokens"].to_pylist()) == sorted(table["tokens"].to_pylist())
    for label in range(4):
        share = (labels == label).sum() * size / rows
        assert abs((carved["label"].to_numpy() == label).sum() - share) < 1
    assert carved.equals(carve(table, size / rows, seed=0)[1])
    assert not carved.equals(carve(table, size / rows, seed=1)[1])


def test_a_text_without_tokens_becomes_one_token(tmp_path: Path) -> None:
    dataset = DATASETS["sst"]
    for split in dataset.rows:
        write_parquet(tmp_path / f"{split}.parquet", pa.table({"text": ["  ", "a film"], "label": [0, 1]}))
    write_json(tmp_path / "manifest.json", {"dataset": dataset.name, "splits": {}})
    tokenise_dataset(dataset, tmp_path, tmp_path / "tokens", seed=0)
    assert read_tokens(tmp_path / "tokens" / "test.parquet") == ([["<empty>"], ["a", "film"]], [0, 1])


def test_more_processes_give_the_same_tokens(tmp_path: Path) -> None:
    dataset = DATASETS["imdb"]
    texts = [f"No, {i}." for i in range(10_001)]
    for split, rows in {"train": 10_001, "test": 10, "unsupervised": 10}.items():
        write_parquet(tmp_path / f"{split}.parquet", pa.table({"text": texts[:rows], "label": [0] * rows}))
    write_json(tmp_path / "manifest.json", {"dataset": dataset.name, "splits": {}})
    for processes in (1, 2):
        tokenise_dataset(dataset, tmp_path, tmp_path / str(processes), seed=0, processes=processes)
    for split in ("train", "validation", "test", "unsupervised"):
        assert read_tokens(tmp_path / "1" / f"{split}.parquet") == read_tokens(tmp_path / "2" / f"{split}.parquet")


def test_texts_that_stand_in_two_splits_are_counted_announced_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = DATASETS["sst"]
    texts = {"train": ["one", "Two", "two"], "validation": ["three", "one"], "test": ["two", "TWO ", "four", ""]}
    for split, rows in texts.items():
        write_parquet(tmp_path / f"{split}.parquet", pa.table({"text": rows, "label": [0] * len(rows)}))
    write_json(tmp_path / "manifest.json", {"dataset": dataset.name, "splits": {}})
    tokenise_dataset(dataset, tmp_path, tmp_path / "tokens", seed=0)
    manifest = read_json(tmp_path / "tokens" / "manifest.json")
    assert manifest["leaks"] == {"validation that stand in train": 1, "test that stand in train": 2}
    assert manifest["rows"] == {"train": 3, "validation": 2, "test": 4}
    assert manifest["empty"] == {"train": 0, "validation": 0, "test": 1}
    assert "warning: sst: 2 texts of test that stand in train" in capsys.readouterr().err


def test_an_endless_review_is_cut_to_its_last_words(tmp_path: Path) -> None:
    dataset = DATASETS["sst"]
    words = [f"w{number}" for number in range(200_000)]
    for split in dataset.rows:
        rows = [" ".join(words), " ".join(words[:LONGEST]), " ".join(words[: LONGEST + 1])]
        write_parquet(tmp_path / f"{split}.parquet", pa.table({"text": rows, "label": [0] * 3}))
    write_json(tmp_path / "manifest.json", {"dataset": dataset.name, "splits": {}})
    tokenise_dataset(dataset, tmp_path, tmp_path / "tokens", seed=0)
    texts, _ = read_tokens(tmp_path / "tokens" / "test.parquet")
    assert texts[0] == words[-LONGEST:]
    assert texts[1] == words[:LONGEST]
    assert texts[2] == words[1 : LONGEST + 1]
    assert read_json(tmp_path / "tokens" / "manifest.json")["cut"]["test"] == 2


def test_many_texts_come_back_in_their_order() -> None:
    texts = [str(number) for number in range(MANY + 1)]
    assert map_texts(int, texts, 2) == list(range(MANY + 1))


def _die_at_the_last(text: str) -> None:
    if text == str(MANY):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_not_waited_for() -> None:
    with pytest.raises(BrokenProcessPool):
        map_texts(_die_at_the_last, [str(number) for number in range(MANY + 1)], 2)
