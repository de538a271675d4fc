"""Bad data gives one clear line and leaves nothing behind."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skimrnn.data.embedded import embedded_split, lexicon
from skimrnn.data.registry import DATASETS, get_dataset
from skimrnn.data.sources import fetch_dataset
from skimrnn.errors import UserError
from skimrnn.files import read_json

SST = DATASETS["sst"]


@pytest.fixture
def small_mirror(tmp_path: Path) -> Path:
    """A mirror that holds SST alone, with a few rows."""
    folder = tmp_path / "mirror" / SST.hub_id
    folder.mkdir(parents=True)
    for split in SST.rows:
        table = pa.table({"text": ["a fine film", "a dull film"], "label": [1, 0], "label_text": ["p", "n"]})
        pq.write_table(table, folder / f"{split}.parquet")
    return tmp_path / "mirror"


def fetch_from(mirror: Path, output: Path) -> dict:
    fetch_dataset(SST, "mirror", mirror, output)
    return read_json(output / "manifest.json")


def test_a_mirror_is_read_and_its_incompleteness_is_said(small_mirror: Path, tmp_path: Path) -> None:
    manifest = fetch_from(small_mirror, tmp_path / "raw")
    assert manifest["complete"] is False
    assert manifest["splits"]["train"]["rows"] == 2
    assert manifest["splits"]["train"]["official_rows"] == 6_920
    assert pq.read_table(tmp_path / "raw" / "train.parquet").column_names == ["text", "label"]


def test_the_digest_follows_the_content_alone(small_mirror: Path, tmp_path: Path) -> None:
    path = small_mirror / SST.hub_id / "train.parquet"
    before = fetch_from(small_mirror, tmp_path / "raw")["splits"]["train"]["sha256"]
    pq.write_table(pq.read_table(path), path, compression="gzip")
    assert fetch_from(small_mirror, tmp_path / "raw")["splits"]["train"]["sha256"] == before
    pq.write_table(pa.table({"text": ["a fine film", "a dull film."], "label": [1, 0]}), path)
    assert fetch_from(small_mirror, tmp_path / "raw")["splits"]["train"]["sha256"] != before


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sentence": ["x"], "label": [0]}, "no column 'text' among sentence, label"),
        ({"text": ["x"], "class": [0]}, "no column 'label' among text, class"),
        ({"text": ["x", "y"], "label": [0, 2]}, r"label 2 is not among 0, 1 \(1 rows\)"),
        ({"text": ["x"], "label": [-1]}, "label -1 is not among 0, 1"),
        ({"text": ["x"], "label": ["positive"]}, r"must be text \(UTF-8\) and 'label' a whole number"),
        ({"text": ["x"], "label": [0.5]}, r"must be text \(UTF-8\) and 'label' a whole number"),
        ({"text": ["x", None], "label": [0, 1]}, "a text or a label is missing"),
        ({"text": pa.array([b"caf\xe9"]), "label": [0]}, r"must be text \(UTF-8\)"),
        ({"text": pa.array([b"caf\xe9"]).view(pa.string()), "label": [0]}, r"must be text \(UTF-8\)"),
        ({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())}, "no rows"),
    ],
)
def test_malformed_tables_are_refused(table: dict, message: str, small_mirror: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table(table), small_mirror / SST.hub_id / "test.parquet")
    with pytest.raises(UserError, match=rf"SetFit/sst2 \(test, from the mirror\): .*{message}"):
        fetch_from(small_mirror, tmp_path / "raw")
    assert not (tmp_path / "raw" / "manifest.json").exists()


def test_a_missing_file_is_named(small_mirror: Path, tmp_path: Path) -> None:
    (small_mirror / SST.hub_id / "validation.parquet").unlink()
    with pytest.raises(UserError, match=r"cannot read .*validation\.parquet: no such file"):
        fetch_from(small_mirror, tmp_path / "raw")


def test_a_truncated_file_is_named(small_mirror: Path, tmp_path: Path) -> None:
    path = small_mirror / SST.hub_id / "train.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"train\.parquet: truncated or not a parquet file"):
        fetch_from(small_mirror, tmp_path / "raw")


def test_a_file_with_a_damaged_middle_is_named(small_mirror: Path, tmp_path: Path) -> None:
    path = small_mirror / SST.hub_id / "train.parquet"
    content = bytearray(path.read_bytes())
    content[20:60] = b"\xff" * 40
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"train\.parquet: truncated or not a parquet file: delete it and fetch"):
        fetch_from(small_mirror, tmp_path / "raw")


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown dataset 'sst3': choose one of sst, rotten_tomatoes, imdb, ag_news"):
        get_dataset("sst3")
    with pytest.raises(UserError, match="unknown data source 'disk': choose hub, mirror"):
        fetch_dataset(SST, "disk", None, tmp_path)


CUED = [name for name, dataset in DATASETS.items() if dataset.task == "classification" and not dataset.cloze]


@pytest.mark.parametrize("name", CUED)
def test_cue_words_alone_decide_embedded_labels(name: str) -> None:
    dataset = DATASETS[name]
    words = lexicon(dataset)
    cue_words = {word for cues in words.cues for word in cues}
    assert not cue_words & set(words.fillers)
    table = embedded_split(dataset, "train")
    assert table.equals(embedded_split(dataset, "train"))
    assert not table.equals(embedded_split(dataset, "test"))
    assert set(table["label"].to_pylist()) == set(range(len(dataset.classes)))
    for text, label in zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True):
        tokens = text.split()
        counts = [sum(token in cues for token in tokens) for cues in words.cues]
        assert counts[label] == max(counts)
        assert counts.count(max(counts)) == 1
        assert all(token in cue_words or token in words.fillers for token in tokens)


@pytest.mark.parametrize("name", ["sst", "rotten_tomatoes", "imdb", "ag_news", "squad", "cbt_mini_ne", "cbt_mini_cn"])
def test_the_mirror_holds_what_its_manifest_says(name: str, mirror: Path, tmp_path: Path) -> None:
    dataset = DATASETS[name]
    fetch_dataset(dataset, "mirror", mirror, tmp_path)
    manifest = read_json(tmp_path / "manifest.json")
    listed = read_json(mirror / "manifest.json")
    rows = {split: listed[f"{dataset.address}/{split}.parquet"]["rows"] for split in dataset.rows}
    assert {split: manifest["splits"][split]["rows"] for split in dataset.rows} == rows
    assert manifest["complete"] == (rows == dataset.rows)
