import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from skimrnn.config import VectorsConfig
from skimrnn.data.prepare import SPLITS, UNKNOWN, Prepared, open_prepared, prepare_dataset
from skimrnn.data.registry import DATASETS
from skimrnn.data.vectors import read_vectors, write_vectors
from skimrnn.errors import UserError
from skimrnn.files import read_json, write_json, write_parquet
from tests.conftest import read_tokens


def prepare(folder: Path, texts: dict[str, str], positive: str | None = None) -> Prepared:
    """One text a split, of which one may be positive."""
    for split, text in texts.items():
        write_parquet(folder / f"{split}.parquet", pa.table({"tokens": [text], "label": [int(split == positive)]}))
    manifest = {"dataset": "sst", "source": "mirror", "revision": None, "complete": True, "splits": {}}
    write_json(folder / "manifest.json", manifest | {"unlabelled": None})
    write_vectors(folder / "v.safetensors", ["novel", "film"], np.ones((2, 3), np.float32))
    settings = VectorsConfig(source="corpus", dimension=3)
    prepare_dataset(DATASETS["sst"], folder, folder / "v.safetensors", settings, folder / "prepared")
    return open_prepared(folder / "prepared", "sst")


def test_word_numbers_give_the_texts_back_and_only_train_words_have_one(prepared: Prepared) -> None:
    vocabulary = read_json(prepared.folder / "vocabulary.json")
    tokens_folder = prepared.folder.parent / "tokens"
    train_words = {token for text in read_tokens(tokens_folder / "train.parquet")[0] for token in text}
    assert set(vocabulary[2:]) == train_words
    for name in ("train", "validation", "test"):
        split = prepared.split(name)
        texts, labels = read_tokens(tokens_folder / f"{name}.parquet")
        assert split.labels.tolist() == labels
        for number, text in enumerate(texts):
            ids = split.tokens[split.offsets[number] : split.offsets[number + 1]].tolist()
            assert [vocabulary[i] for i in ids] == [word if word in train_words else "<unk>" for word in text]


def test_words_of_the_other_splits_stay_unknown(tmp_path: Path) -> None:
    """A word that train lacks is unknown, even where it has a vector."""
    prepared = prepare(
        tmp_path, {"train": "one fine fine film", "validation": "one fine novel", "test": "one dull film"}
    )
    assert read_json(prepared.folder / "vocabulary.json") == ["<pad>", "<unk>", "fine", "film", "one"]
    assert prepared.split("validation").tokens.tolist() == [4, 2, UNKNOWN]
    assert prepared.split("test").tokens.tolist() == [4, UNKNOWN, 3]
    assert prepared.manifest["splits"]["validation"]["vector_coverage"] == 0
    assert prepared.manifest["splits"]["test"]["vector_coverage"] == pytest.approx(1 / 3)


def test_the_digest_follows_the_labels_of_each_split(tmp_path: Path) -> None:
    texts = dict.fromkeys(SPLITS, "a film")
    positives = (None, *SPLITS)
    assert len({prepare(tmp_path / f"{split}", texts, split).manifest["digest"] for split in positives}) == 4


def test_vectors_reach_their_words_and_the_coverage_is_the_share_of_tokens(prepared: Prepared, tmp_path: Path) -> None:
    tokens = prepared.folder.parent / "tokens"
    words, table = read_vectors(prepared.folder.parent / "vectors.safetensors")
    kept = words[::2]
    write_vectors(tmp_path / "half.safetensors", kept, table[::2].copy())
    settings = VectorsConfig(source="corpus", dimension=50)
    prepare_dataset(DATASETS["sst"], tokens, tmp_path / "half.safetensors", settings, tmp_path / "prepared")
    half = open_prepared(tmp_path / "prepared", "sst")
    vocabulary, vectors = read_json(half.folder / "vocabulary.json"), half.vectors()
    for number in range(2, len(vocabulary), 7):
        expected = table[words.index(vocabulary[number])] if vocabulary[number] in kept else np.zeros(50)
        assert np.array_equal(vectors[number].numpy(), expected.astype(np.float32))
    assert not vectors[UNKNOWN].any()
    texts, _ = read_tokens(tokens / "test.parquet")
    covered = [word in kept and word in vocabulary for text in texts for word in text]
    assert half.manifest["splits"]["test"]["vector_coverage"] == pytest.approx(np.mean(covered))
    assert half.manifest["digest"] != prepared.manifest["digest"]


def test_random_vectors_follow_the_seed(prepared: Prepared, tmp_path: Path) -> None:
    write_vectors(tmp_path / "none.safetensors", [], np.zeros((0, 10), np.float32))
    tables = []
    for seed in (0, 0, 1):
        settings = VectorsConfig(source="random", dimension=10, seed=seed)
        folder = tmp_path / f"{len(tables)}"
        prepare_dataset(
            DATASETS["sst"], prepared.folder.parent / "tokens", tmp_path / "none.safetensors", settings, folder
        )
        tables.append(open_prepared(folder, "sst").vectors())
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    assert tables[0][2:].std() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("name", ["train", "vectors"])
def test_a_file_of_another_preparation_is_refused(name: str, prepared: Prepared, tmp_path: Path) -> None:
    copy = open_prepared(Path(shutil.copytree(prepared.folder, tmp_path / "copy")), "sst")
    content = bytearray((file := copy.folder / f"{name}.safetensors").read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}\.safetensors: damaged, or of another preparation than its manifest"):
        copy.vectors() if name == "vectors" else copy.split(name)
    copy.split("validation")


def test_a_folder_of_another_dataset_is_refused(prepared: Prepared) -> None:
    with pytest.raises(UserError, match="holds 'sst', not 'imdb'"):
        open_prepared(prepared.folder, "imdb")
