"""Questions of the Children's Book Test: every form they come in, and what is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skimrnn.config import VectorsConfig
from skimrnn.data.batches import collate
from skimrnn.data.cloze import checked_cloze, cloze_digest, read_cbtest
from skimrnn.data.prepare import PADDING, UNKNOWN, open_prepared, prepare_dataset
from skimrnn.data.registry import DATASETS
from skimrnn.data.sources import fetch_dataset
from skimrnn.data.tokens import tokenise_dataset
from skimrnn.data.vectors import write_vectors
from skimrnn.errors import UserError
from skimrnn.files import read_json

CBT = DATASETS["cbt_ne"]

# In the format of CBTest.tgz: made up, not taken from it.
TEXT = """\
1 The Fox met a Hen .
2 `` Good day , '' said the Fox .
3 The XXXXX ran home .\tHen\t\tFox|Hen|day

1 One sentence alone .
2 It was XXXXX .\tsentence\t\tOne|sentence
"""
ROWS = [
    {
        "sentences": ["The Fox met a Hen .", "`` Good day , '' said the Fox ."],
        "question": "The XXXXX ran home .",
        "answer": "Hen",
        "options": ["Fox", "Hen", "day"],
    },
    {
        "sentences": ["One sentence alone ."],
        "question": "It was XXXXX .",
        "answer": "sentence",
        "options": ["One", "sentence"],
    },
]


def write_cbtest(mirror: Path) -> Path:
    folder = mirror / "CBTest" / "data"
    folder.mkdir(parents=True)
    for name in ("train", "valid_2000ex", "test_2500ex"):
        (folder / f"cbtest_NE_{name}.txt").write_text(TEXT)
    return folder


def test_the_text_of_the_release_gives_the_rows_of_the_hub(tmp_path: Path) -> None:
    folder = write_cbtest(tmp_path / "text")
    assert read_cbtest(folder / "cbtest_NE_train.txt").to_pylist() == ROWS
    (tmp_path / "hub" / "cam-cst" / "cbt" / "NE").mkdir(parents=True)
    for split in CBT.rows:
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "hub" / "cam-cst" / "cbt" / "NE" / f"{split}.parquet")
    for mirror in ("text", "hub"):
        fetch_dataset(CBT, "mirror", tmp_path / mirror, tmp_path / "raw" / mirror)
    manifests = [read_json(tmp_path / "raw" / mirror / "manifest.json") for mirror in ("text", "hub")]
    assert manifests[0] == manifests[1]
    assert manifests[0]["complete"] is False
    assert pq.read_table(tmp_path / "raw" / "text" / "test.parquet").to_pylist() == ROWS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2 `` Good", "4 `` Good", "line 2: not sentence 2: unpack"),
        ("1 One", "One", "line 5: not sentence 1: unpack"),
        ("\tHen\t\t", "\tHen\t", "line 3: 3 fields where query, answer, an empty one and options are needed"),
        ("\tsentence\t\tOne|sentence", "", "line 6: ends inside a question"),
        ("Hen .", "Hen \udcff.", "line 1: not UTF-8"),
    ],
)
def test_a_damaged_text_is_one_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cbtest_NE_train.txt"
    path.write_bytes(TEXT.replace(old, new).encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=rf"cbtest_NE_train\.txt, {message}"):
        read_cbtest(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": None}, "a part of a question is missing"),
        ({"answer": "Cow"}, r"the answer 'Cow' does not stand among Fox, Hen, day \(1 rows\)"),
        ({"options": ["Hen", " "]}, r"the answer 'Hen' does not stand among Hen \(1 rows\)"),
        ({"question": "The Hen ran home ."}, r"no XXXXX in 'The Hen ran home \.' \(1 rows\)"),
        ({"sentences": "The Fox met a Hen ."}, "sentences and options must be lists of texts"),
        ({"question": b"\xff XXXXX"}, r"question and answer texts \(UTF-8\)"),
    ],
)
def test_malformed_questions_are_refused(changes: dict, message: str) -> None:
    rows = [ROWS[0] | changes] if isinstance(changes.get("sentences"), str) else [ROWS[1], ROWS[0] | changes]
    if isinstance(changes.get("question"), bytes):
        rows = [ROWS[0] | changes]
    with pytest.raises(UserError, match=f"cbt: .*{message}"):
        checked_cloze(pa.Table.from_pylist(rows), CBT, "cbt")


def test_blank_options_are_dropped_and_the_digest_follows_the_content_alone() -> None:
    row = ROWS[0] | {"options": ["", "Fox", "Hen", " ", "day"], "extra": 1}
    table = checked_cloze(pa.Table.from_pylist([row]), CBT, "cbt")
    assert table.to_pylist() == ROWS[:1]
    assert cloze_digest(table) == cloze_digest(pa.Table.from_pylist(ROWS[:1]).cast(table.schema))
    moved = ROWS[0] | {"options": ["Hen", "Fox", "day"]}
    assert cloze_digest(table) != cloze_digest(pa.Table.from_pylist([moved]).cast(table.schema))


def test_prepared_questions_are_the_questions(tmp_path: Path) -> None:
    write_cbtest(tmp_path)
    (tmp_path / "CBTest/data/cbtest_NE_test_2500ex.txt").write_text(TEXT.replace("|day", "|Cow|Yak"))
    fetch_dataset(CBT, "mirror", tmp_path, tmp_path / "raw")
    tokenise_dataset(CBT, tmp_path / "raw", tmp_path / "tokens", seed=0)
    write_vectors(tmp_path / "v.safetensors", ["fox", "cow"], np.ones((2, 3), np.float32))
    prepare_dataset(
        CBT, tmp_path / "tokens", tmp_path / "v.safetensors", VectorsConfig(dimension=3), tmp_path / "prepared"
    )
    prepared = open_prepared(tmp_path / "prepared", "cbt_ne")
    assert prepared.cloze
    vocabulary = read_json(prepared.folder / "vocabulary.json")
    batch = collate(prepared.split("train"), np.array([0, 1]))
    assert batch.candidates is not None
    for place, row in enumerate(ROWS):
        words = [vocabulary[number] for number in batch.tokens[place, : batch.lengths[place]]]
        assert words == " ".join([*row["sentences"], row["question"]]).lower().split()
        candidates = [vocabulary[number] for number in batch.candidates[place] if number != PADDING]
        assert candidates == [option.lower() for option in row["options"]]
        assert candidates[batch.labels[place]] == row["answer"].lower()
    test = collate(prepared.split("test"), np.array([0]))
    assert test.candidates is not None
    # A word that training never saw is known where it has a vector.
    assert test.candidates[0].tolist() == [*map(vocabulary.index, ("fox", "hen", "cow")), UNKNOWN]
    assert vocabulary[-1] == "cow"
    assert prepared.vectors()[-1].tolist() == [1, 1, 1]
    assert prepared.manifest["vocabulary_size"] == len(vocabulary) - 3
    assert "yak" not in vocabulary


@pytest.mark.parametrize("name", ["cbt_mini_ne", "cbt_mini_cn"])
def test_the_stand_in_comes_from_a_mirror_alone(name: str, mirror: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{name} is not on the hub: set data.source to mirror"):
        fetch_dataset(DATASETS[name], "hub", None, tmp_path / "hub")
    fetch_dataset(DATASETS[name], "mirror", mirror, tmp_path)
    assert read_json(tmp_path / "manifest.json")["complete"] is True
    assert "Test" not in DATASETS[name].title
