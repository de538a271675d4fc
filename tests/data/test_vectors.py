"""Every file format gives the same vectors; a malformed one gives one clear line."""

import gzip
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from skimrnn.config import VectorsConfig
from skimrnn.data.vectors import GLOVE_LENGTH, download_glove, load_vector_file, make_vectors, train_vectors
from skimrnn.errors import UserError
from skimrnn.files import write_json, write_parquet

TEXT = "the 0.5 -1 2\n, 1 2 3\n. . . 4 5 6\n"
WORDS, TABLE = ["the", ",", ". . ."], np.array([[0.5, -1, 2], [1, 2, 3], [4, 5, 6]], np.float32)


def write(path: Path) -> Path:
    if path.suffix == ".npz":
        np.savez(path, words=np.array(WORDS), vectors=TABLE)
    else:
        with {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)(path, "wb") as file:
            file.write(TEXT.encode())
    return path


@pytest.mark.parametrize("name", ["v.txt", "v.txt.gz", "v.txt.xz", "v.npz"])
def test_every_format_gives_the_same(name: str, tmp_path: Path) -> None:
    words, table = load_vector_file(write(tmp_path / name), 3)
    assert words == WORDS
    assert np.array_equal(table, TABLE)


def test_quantised_vectors(tmp_path: Path) -> None:
    scale = np.abs(TABLE).max(axis=1)
    quantised = np.round(TABLE / scale[:, None] * 127).astype(np.int8)
    np.savez(tmp_path / "v.npz", words=np.array(WORDS), q=quantised, scale=scale)
    words, table = load_vector_file(tmp_path / "v.npz", 3)
    assert words == WORDS
    np.testing.assert_allclose(table, TABLE, atol=float(scale.max()) / 127 / 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 0.5 -1 2\nof 1 2\n", "line 2: 2 numbers where 3 are needed"),
        ("the 0.5 -1 two\n", "line 1: not a number"),
        ("", "no word vectors in it"),
        ("the 0.5 -1 2 3e-1\nof 1 2 3 4\n", "line 1: 4 numbers where 3 are needed: set vectors.dimension"),
    ],
)
def test_malformed_text(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text(content)
    with pytest.raises(UserError, match=message):
        load_vector_file(tmp_path / "v.txt", 3)


@pytest.mark.parametrize("name", ["v.txt.gz", "v.txt.xz", "v.npz"])
def test_truncated_files(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=name):
        load_vector_file(path, 3)


@pytest.mark.parametrize("kind", ["release", "npz"])
def test_damage_in_the_middle(kind: str, tmp_path: Path) -> None:
    """Wherever it is, it is one line, if it does not leave the vectors as they are."""
    path, read = tmp_path / "v.npz", lambda: load_vector_file(tmp_path / "v.npz", 3)
    table = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    words = [f"word{number}" for number in range(len(table))]
    if kind == "release":
        path, read = tmp_path / "glove.zip", lambda: download_glove(3, tmp_path / "glove.zip")
        lines = [f"{word} {' '.join(map(str, row))}" for word, row in zip(words, table.tolist(), strict=True)]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("glove.6B.3d.txt", "\n".join(lines))
    else:
        np.savez_compressed(path, words=np.array(words), vectors=table)
    whole, refused = path.read_bytes(), 0
    places = [(place, 40) for place in range(0, len(whole) - 40, 40)]
    places += [(place, 1) for ends in (range(60), range(len(whole) - 200, len(whole))) for place in ends]  # Headers.
    for place, size in places:
        path.write_bytes(whole[:place] + b"\x5a" * size + whole[place + size :])
        try:
            assert np.array_equal(read()[1], table)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 50


def test_a_word_may_hold_spaces(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("at 5 o'clock 0.5 -1 2\nin 7 1 2 3\n")
    assert load_vector_file(tmp_path / "v.txt", 3)[0] == ["at 5 o'clock", "in 7"]


def test_words_that_are_bytes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", words=np.array([b"the"]), vectors=np.zeros((1, 3), np.float32))
    with pytest.raises(UserError, match=r"needs arrays words and vectors.*: words are not text"):
        load_vector_file(tmp_path / "v.npz", 3)


def test_a_missing_file_and_a_wrong_dimension(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*v\.txt: no such file"):
        load_vector_file(tmp_path / "v.txt", 3)
    with pytest.raises(UserError, match=r"vectors of shape \(3, 3\) where \(3, 5\) is needed"):
        load_vector_file(write(tmp_path / "v.npz"), 5)


def test_trained_vectors_are_the_same_twice(prepared, tmp_path: Path) -> None:
    tokens = [prepared.folder.parent / "tokens"]
    words, table = train_vectors(tokens, 10, 5, 1, 1, seed=0)
    again_words, again = train_vectors(tokens, 10, 5, 1, 1, seed=0)
    assert words == again_words
    assert np.array_equal(table, again)
    assert not np.array_equal(table, train_vectors(tokens, 10, 5, 1, 1, seed=1)[1])


def test_vectors_are_trained_on_the_train_and_the_unlabelled_texts_alone(tmp_path: Path) -> None:
    for split, text in {"train": "a a", "validation": "b b", "test": "c c", "extra": "d d"}.items():
        write_parquet(tmp_path / f"{split}.parquet", pa.table({"tokens": [text], "label": [0]}))
    write_json(tmp_path / "manifest.json", {"dataset": "imdb", "unlabelled": "extra"})
    assert set(train_vectors([tmp_path], 2, 1, 1, 1, seed=0)[0]) == {"a", "d"}


def test_trained_vectors_are_as_long_as_gloves(prepared, tmp_path: Path) -> None:
    _, table = train_vectors([prepared.folder.parent / "tokens"], 10, 5, 1, 1, seed=0)
    assert len(table) < 10_000  # All of them count.
    assert np.linalg.norm(table, axis=1).mean() == pytest.approx(GLOVE_LENGTH, rel=1e-5)


def test_a_files_vectors_with_trained_ones_beside_them(prepared, tmp_path: Path) -> None:
    """`file+corpus`: each word has both vectors, one after the other, and zeros for one that it lacks."""
    tokens = prepared.folder.parent / "tokens"
    file = write(tmp_path / "v.npz")
    settings = VectorsConfig(source="file+corpus", path=file, dimension=10, file_dimension=3)
    words, table = make_vectors(settings, [tokens], tmp_path / "glove.zip")
    trained_words, trained = train_vectors([tokens], 7, 8, 4, 3, seed=0)
    assert set(words) == {*WORDS, *trained_words} and len(set(words)) == len(words)
    for word, vector in zip(words, table, strict=True):
        read = TABLE[WORDS.index(word)] if word in WORDS else np.zeros(3)
        of_corpus = trained[trained_words.index(word)] if word in trained_words else np.zeros(7)
        assert np.array_equal(vector, np.concatenate([read, of_corpus]))


def test_the_other_sources_give_what_they_name(prepared, tmp_path: Path) -> None:
    tokens, file = [prepared.folder.parent / "tokens"], write(tmp_path / "v.npz")
    with zipfile.ZipFile(tmp_path / "glove.zip", "w") as archive:
        archive.writestr("glove.6B.3d.txt", "the 7 8 9\n")
    expected = {
        "glove": (["the"], np.array([[7, 8, 9]])),
        "file": (WORDS, TABLE),
        "corpus": train_vectors(tokens, 3, 8, 4, 3, seed=0),
        "random": ([], np.zeros((0, 3))),
    }
    for source, (words, table) in expected.items():
        settings = VectorsConfig(source=source, dimension=3, path=file if source == "file" else None)
        found, vectors = make_vectors(settings, tokens, tmp_path / "glove.zip")
        assert found == words and np.array_equal(vectors, table) and vectors.dtype == np.float32
