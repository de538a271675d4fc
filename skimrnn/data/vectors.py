"""Word vectors: downloaded, read from a file, trained on the texts at hand, both of these side by side, or random.

Every source ends as the same `.safetensors` file: `words` (UTF-8 bytes, one word a line) and `vectors` (words, E).
"""

import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from tokenize import TokenError
from typing import TextIO

import numpy as np
import torch
from numpy.typing import NDArray

from skimrnn.config import VectorsConfig
from skimrnn.data.download import Release, download
from skimrnn.data.stages import read_manifest
from skimrnn.data.tokens import token_batches
from skimrnn.errors import UserError, explain_os_errors
from skimrnn.files import read_tensors, write_tensors

GLOVE = Release(
    "https://nlp.stanford.edu/data/glove.6B.zip",
    862_182_613,
    "617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb",
)
"""GloVe 6B (Wikipedia 2014 + Gigaword 5): 400,000 lower-cased words in 50, 100, 200 and 300 dimensions."""

GLOVE_LENGTH = np.float32(5.8)
"""Mean length of GloVe 6B's vectors (100 dimensions) of its 10,000 most frequent words."""

_FREQUENT = 10_000
_NO_HEADER = (SyntaxError, TokenError)  # What NumPy lets through of an array's.
_DAMAGE = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError)  # Of a text, packed or not.

Vectors = NDArray[np.float32]


def write_vectors(path: Path, words: Sequence[str], vectors: Vectors) -> None:
    """Write words and their vectors (words, E) to one file."""
    text = np.frombuffer("\n".join(words).encode(), np.uint8).copy()
    write_tensors(path, {"words": torch.from_numpy(text), "vectors": torch.from_numpy(vectors)})


def read_vectors(path: Path) -> tuple[list[str], Vectors]:
    """Read what `write_vectors` wrote."""
    tensors, _ = read_tensors(path, "words", "vectors")
    text = bytes(tensors["words"].numpy()).decode()
    words, vectors = (text.split("\n") if text else []), tensors["vectors"].numpy()
    if len(words) != len(vectors):
        raise UserError(f"{path}: {len(words)} words for {len(vectors)} vectors: make it again")
    return words, vectors


def make_vectors(settings: VectorsConfig, token_folders: Sequence[Path], archive: Path) -> tuple[list[str], Vectors]:
    """The words and vectors of the source that a config names; `archive` is where GloVe's download is kept."""
    of_file = settings.file_dimension or 0
    if settings.source == "glove":
        return download_glove(settings.dimension, archive)
    if settings.source == "random":
        return [], np.zeros((0, settings.dimension), np.float32)
    if settings.source == "file":
        return load_vector_file(settings.file, settings.dimension)
    words, vectors = train_vectors(
        token_folders,
        settings.dimension - of_file,
        settings.window,
        settings.epochs,
        settings.min_count,
        settings.seed,
    )
    if settings.source == "file+corpus":
        return join_vectors(*load_vector_file(settings.file, of_file), words, vectors)
    return words, vectors


def download_glove(dimension: int, cache: Path) -> tuple[list[str], Vectors]:
    """GloVe 6B vectors of `dimension`; the archive is kept at `cache` (862 MB) so that it is downloaded once."""
    if not cache.is_file():
        download(GLOVE, cache, "check the network, or set vectors.source to file (with vectors.path) or corpus")
    member = f"glove.6B.{dimension}d.txt"
    try:
        with explain_os_errors("read", cache), zipfile.ZipFile(cache) as archive, archive.open(member) as file:
            return _parse_glove(io.TextIOWrapper(file, "utf-8"), dimension, f"{cache}:{member}")
    except (zipfile.BadZipFile, RuntimeError, ValueError, *_DAMAGE) as error:
        raise UserError(f"{cache}: truncated or not a zip archive: delete it and run again") from error
    except KeyError as error:
        raise UserError(f"{cache}: no {member}: GloVe 6B has 50, 100, 200 and 300 dimensions") from error


def load_vector_file(path: Path, dimension: int) -> tuple[list[str], Vectors]:
    """Vectors from a GloVe-format text (`.txt`, `.gz` or `.xz`) or from an `.npz`.

    The `.npz` holds `words` and either `vectors` (words, E) or, quantised to 8 bits, `q` (words, E) and `scale`
    (words), the largest absolute component: a vector is `q * scale / 127`.
    """
    with explain_os_errors("read", path):
        if path.suffix == ".npz":
            return _parse_npz(path, dimension)
        try:
            with _open_text(path) as file:
                return _parse_glove(file, dimension, str(path))
        except _DAMAGE as error:
            raise UserError(f"{path}: truncated or not a text of word vectors: copy the file again") from error


def train_vectors(
    token_folders: Sequence[Path], dimension: int, window: int, epochs: int, min_count: int, seed: int
) -> tuple[list[str], Vectors]:
    """Skip-gram vectors (word2vec) of the train and unlabelled texts in `token_folders`; never of its other splits.

    (A text of one dataset's training split may stand in another's test split: SST and Rotten Tomatoes share sentences.)
    They are scaled to the length of GloVe's, for which the paper chose its recipe: word2vec's are half as long, and
    with them models learn slowly and hardly skim. One worker thread, because with several the result is not the same
    twice.
    """
    from gensim.models import Word2Vec  # Imported here: only this source needs it.

    if not token_folders:
        raise UserError("vectors.source corpus needs texts to train on: give --tokens, a folder for each dataset")
    paths = []
    for folder in token_folders:
        unlabelled = read_manifest(folder, None, "unlabelled")["unlabelled"]
        paths += [folder / f"{split}.parquet" for split in ("train", unlabelled) if split]
    try:
        model = Word2Vec(
            _Texts(paths),
            vector_size=dimension,
            window=window,
            epochs=epochs,
            min_count=min_count,
            sg=1,
            seed=seed,
            workers=1,
        )
    except RuntimeError as error:
        if "vocabulary" not in str(error):
            raise
        raise UserError(f"no word stands {min_count} times in the texts: lower vectors.min_count") from error
    vectors = model.wv.vectors.astype(np.float32)
    length = np.linalg.norm(vectors[:_FREQUENT], axis=1).mean()
    return list(model.wv.index_to_key), vectors * (GLOVE_LENGTH / length)


def join_vectors(
    words: Sequence[str], vectors: Vectors, other_words: Sequence[str], other_vectors: Vectors
) -> tuple[list[str], Vectors]:
    """Each word of either list with both its vectors, one after the other; zeros where a list has none for it."""
    joined = list(dict.fromkeys([*words, *other_words]))
    tables = [vectors_for(joined, words, vectors, 0)[0], vectors_for(joined, other_words, other_vectors, 0)[0]]
    return joined, np.concatenate(tables, axis=1)


class _Texts:
    """The token lists of several files, one after the other, as often as asked; never all in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[list[str]]:
        for path in self._paths:
            for batch in token_batches(path):
                yield from (text.split(" ") for text in batch["tokens"].to_pylist())


def vectors_for(
    vocabulary: Sequence[str], words: Sequence[str], vectors: Vectors, seed: int
) -> tuple[Vectors, NDArray[np.bool_]]:
    """The vectors (V, E) of a vocabulary, and which of its words have one (V).

    The other words start at zero, which says nothing: noise there would be noise at test time too, in the vector of
    unknown words, which training never sees. Without any vectors (source `random`) all words get normal noise.
    """
    index = {word: position for position, word in enumerate(words)}
    rows = np.array([index.get(word, -1) for word in vocabulary])
    known = rows >= 0
    table = np.zeros((len(vocabulary), vectors.shape[1]), np.float32)
    if len(words):
        table[known] = vectors[rows[known]]
    else:
        table[:] = np.random.default_rng(seed).normal(0, 0.1, table.shape)
    return table, known


def read_words(path: Path) -> set[str]:
    """The first word of each line of a text (`.txt`, `.gz` or `.xz`): a list of words, or vectors in GloVe's format."""
    with explain_os_errors("read", path):
        try:
            with _open_text(path) as file:
                return {line.rstrip("\n").split(" ", 1)[0] for line in file}
        except _DAMAGE as error:
            raise UserError(f"{path}: truncated or not a text of words: copy the file again") from error


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _parse_glove(lines: Iterable[str], dimension: int, place: str) -> tuple[list[str], Vectors]:
    words, rows = [], []
    for number, line in enumerate(lines, 1):
        word, *values = line.rstrip("\n").rsplit(" ", dimension)  # A word may hold spaces.
        count = len(values) + (0 if number > 1 else _trailing_numbers(word))
        if count != dimension:
            raise UserError(
                f"{place}, line {number}: {count} numbers where {dimension} are needed: "
                "set vectors.dimension (or file_dimension) to the file's, or copy the file again"
            )
        try:
            rows.append(np.array(values, np.float32))
        except ValueError as error:
            raise UserError(f"{place}, line {number}: not a number: copy the file again") from error
        words.append(word)
    if not words:
        raise UserError(f"{place}: no word vectors in it: copy the file again")
    return words, _checked(words, np.stack(rows), place)


def _trailing_numbers(word: str) -> int:
    """How many numbers end what should be a word: the first of a file's vectors is longer than was said."""
    parts = word.split(" ")[1:]
    return len(list(takewhile(_is_number, reversed(parts))))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parse_npz(path: Path, dimension: int) -> tuple[list[str], Vectors]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if arrays["words"].dtype.kind != "U":
                raise ValueError("words are not text")
            words = [str(word) for word in arrays["words"]]
            if "vectors" in arrays:
                vectors = arrays["vectors"].astype(np.float32)
            else:
                vectors = arrays["q"].astype(np.float32) * (arrays["scale"].astype(np.float32)[:, None] / 127)
    except (
        AttributeError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        *_DAMAGE,
        *_NO_HEADER,
    ) as error:
        raise UserError(f"{path}: needs arrays words and vectors, or words, q and scale: {error}") from error
    if vectors.shape != (len(words), dimension):
        raise UserError(f"{path}: vectors of shape {vectors.shape} where ({len(words)}, {dimension}) is needed")
    return words, _checked(words, vectors, str(path))


def _checked(words: Sequence[str], vectors: Vectors, place: str) -> Vectors:
    """The vectors, if all are finite and no word would break its line."""
    if not np.isfinite(vectors).all():
        word = words[int(np.argmin(np.isfinite(vectors).all(axis=1)))]
        raise UserError(f"{place}: the vector of {word!r} is not finite: copy the file again, or leave the word out")
    if broken := next((word for word in words if "\n" in word), None):
        raise UserError(f"{place}: the word {broken!r} holds a line break: leave it out")
    return vectors
