"""Prepared questions: what training a reader needs, as safetensors and JSON, and batches of it.

`<split>.safetensors` holds the texts end to end: `tokens` (word numbers, int32), `spellings` (row of the table of
characters, int32), `starts` and `stops` (characters of each token in its text, int32) and `offsets` (texts + 1, int64);
and for each question `contexts` and `questions` (rows of the texts), `first` and `last` (tokens of the answer, -1 where
it is unusable), int64. `validation.json` holds ids, texts and answers of the questions that are scored.
`vectors.safetensors` holds `vectors` (V, E) and `characters` (spellings, 16): the first 16 characters of each token as
it stands in the text. Word and character 0 are padding, character 1 stands for every unknown one.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skimrnn.config import VectorsConfig
from skimrnn.data.batches import evaluation_rows
from skimrnn.data.prepare import PADDING, SCORING, UNKNOWN, Prepared, write_manifest
from skimrnn.data.registry import Dataset
from skimrnn.data.stages import read_manifest
from skimrnn.files import sha256_of_file, write_json, write_tensors

SCORED_SPLIT = "validation"
_WORD_LENGTH = 16
_RARE_CHARACTER = 50  # Characters of train that occur less often are unknown.


@dataclass(frozen=True)
class Questions:
    """The questions of one split in memory, with the texts that they refer to."""

    tokens: Tensor  # (total tokens,), int32
    spellings: Tensor  # (total tokens,), int32
    offsets: Tensor  # (texts + 1,), int64
    contexts: Tensor  # (N,), int64: row of the texts
    questions: Tensor  # (N,), int64: row of the texts
    first: Tensor  # (N,), int64: token of the context
    last: Tensor  # (N,), int64

    def __len__(self) -> int:
        return len(self.contexts)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each question's context (N)."""
        return self.offsets[self.contexts + 1] - self.offsets[self.contexts]

    @property
    def question_lengths(self) -> Tensor:
        """Tokens of each question (N)."""
        return self.offsets[self.questions + 1] - self.offsets[self.questions]

    def usable(self, context_limit: int | None) -> "Questions":
        """The questions that can be trained on: the answer is aligned, the context has at most so many tokens."""
        keep = self.first >= 0
        if context_limit is not None:
            keep &= self.lengths <= context_limit
        return self.at(keep)

    def at(self, rows: Tensor) -> "Questions":
        """Some of the questions, by their rows or a mask."""
        return Questions(
            self.tokens,
            self.spellings,
            self.offsets,
            *(values[rows] for values in (self.contexts, self.questions, self.first, self.last)),
        )


class Padded(NamedTuple):
    """Texts padded to the longest of them."""

    tokens: Tensor  # (B, T), int64
    spellings: Tensor  # (B, T), int64
    lengths: Tensor  # (B), int64

    def to(self, device: torch.device) -> "Padded":
        """The texts on a device; the lengths stay on the CPU, where layers want them."""
        return Padded(self.tokens.to(device), self.spellings.to(device), self.lengths)


class QuestionBatch(NamedTuple):
    """Questions with their contexts, and the first and last token of each answer (B, each)."""

    questions: Padded
    contexts: Padded
    first: Tensor
    last: Tensor

    def to(self, device: torch.device) -> "QuestionBatch":
        """The batch on a device, but for the lengths."""
        questions, contexts = self.questions.to(device), self.contexts.to(device)
        return QuestionBatch(questions, contexts, self.first.to(device), self.last.to(device))


@dataclass(frozen=True)
class Scoring:
    """What turns token spans of the scored split into answers: the texts and the places of their tokens."""

    ids: list[str]
    answers: list[list[str]]
    texts: list[str]
    starts: Tensor  # (total tokens,), int32
    stops: Tensor  # (total tokens,), int32

    def cut(self, split: Questions, row: int, first: int, last: int) -> str:
        """The characters of a context from its token `first` to its token `last`; nothing where these are crossed."""
        text = int(split.contexts[row])
        offset = int(split.offsets[text])
        return self.texts[text][int(self.starts[offset + first]) : int(self.stops[offset + last])]


def read_questions(prepared: Prepared, split: str) -> Questions:
    """Read one split."""
    names = Questions.__dataclass_fields__
    tensors = prepared.tensors(split, *names)
    return Questions(**{name: tensors[name] for name in names})


def read_scoring(prepared: Prepared) -> Scoring:
    """Read what scoring needs besides the questions of `SCORED_SPLIT`."""
    tensors = prepared.tensors(SCORED_SPLIT, "starts", "stops")
    return Scoring(**prepared.scoring(), starts=tensors["starts"], stops=tensors["stops"])


def collate_questions(split: Questions, rows: np.ndarray) -> QuestionBatch:
    """Pad the questions of `rows` (B) and their contexts to one batch."""
    return QuestionBatch(
        _padded(split, split.questions[rows]), _padded(split, split.contexts[rows]), split.first[rows], split.last[rows]
    )


def _padded(split: Questions, texts: Tensor) -> Padded:
    lengths = split.offsets[texts + 1] - split.offsets[texts]
    steps = torch.arange(int(lengths.max()))  # (T)
    places = (split.offsets[texts, None] + steps).clamp(max=len(split.tokens) - 1)  # (B, T)
    padding = steps >= lengths[:, None]  # (B, T)
    tokens, spellings = (
        values[places].long().masked_fill(padding, PADDING) for values in (split.tokens, split.spellings)
    )
    return Padded(tokens, spellings, lengths)


def evaluation_questions(split: Questions) -> Iterator[tuple[np.ndarray, QuestionBatch]]:
    """Every question once, with its row, in batches of contexts of similar length."""
    for rows in evaluation_rows(split.lengths.numpy()):
        yield rows, collate_questions(split, rows)


def prepare_questions(
    dataset: Dataset, tokens_folder: Path, vectors_file: Path, settings: VectorsConfig, folder: Path
) -> None:
    """Write the prepared folder from tokenised questions and word vectors.

    The vocabulary is every word of the texts of train, most frequent first; then, as in a cloze text, come the other
    splits' own words, which training never changes: names, mostly, that a question asks about. The manifest keeps the
    number of questions and of the tokens in their contexts, how the answers could be aligned, the share of running
    tokens that have a word vector, and one digest of all that training reads.
    """
    # Imported here, so that training needs none of what reading vectors needs.
    from skimrnn.data.vectors import read_vectors, vectors_for
    from skimrnn.files import read_parquet

    source = read_manifest(tokens_folder, dataset.name, "alignment")
    texts = {split: read_parquet(tokens_folder / f"{split}.parquet").to_pydict() for split in dataset.rows}
    words = {split: [tokens.split(" ") for tokens in columns["tokens"]] for split, columns in texts.items()}
    counts = Counter(word for tokens in words["train"] for word in tokens)
    vocabulary = ["<pad>", "<unk>", *sorted(counts, key=lambda word: (-counts[word], word))]
    seen = len(vocabulary)
    vocabulary += sorted({word for tokens in words[SCORED_SPLIT] for word in tokens} - counts.keys())
    index = {word: number for number, word in enumerate(vocabulary)}
    table, known = vectors_for(vocabulary, *read_vectors(vectors_file), settings.seed)
    # A reader finds the words of a question in the text by their vectors: those that have none must differ, too. They
    # get noise as long as the others' vectors.
    if known[:seen].any():
        spread = np.sqrt(np.mean(table[:seen][known[:seen]] ** 2))
        table[~known] = np.random.default_rng(settings.seed).normal(0, spread, table[~known].shape)
    table[[PADDING, UNKNOWN]] = 0
    known[[PADDING, UNKNOWN]] = False

    numbers, spellings = _spellings(texts)
    characters, alphabet = _character_table(numbers, spellings["train"])
    write_tensors(
        folder / "vectors.safetensors",
        {"vectors": torch.from_numpy(table), "characters": torch.from_numpy(characters)},
    )
    write_json(folder / "vocabulary.json", vocabulary)

    splits = {}
    for split, columns in texts.items():
        questions = read_parquet(tokens_folder / f"{split}.questions.parquet").to_pydict()
        ids = np.fromiter((index[word] for tokens in words[split] for word in tokens), np.int32)
        offsets = np.cumsum([0, *map(len, words[split])], dtype=np.int64)
        lengths = np.diff(offsets)[questions["context"]]
        path = folder / f"{split}.safetensors"
        write_tensors(
            path,
            {
                "tokens": torch.from_numpy(ids),
                "spellings": torch.from_numpy(spellings[split]),
                "starts": torch.tensor([start for starts in columns["starts"] for start in starts], dtype=torch.int32),
                "stops": torch.tensor([stop for stops in columns["stops"] for stop in stops], dtype=torch.int32),
                "offsets": torch.from_numpy(offsets),
                "contexts": torch.tensor(questions["context"]),
                "questions": torch.tensor(questions["question"]),
                "first": torch.tensor(questions["first"]),
                "last": torch.tensor(questions["last"]),
            },
        )
        splits[split] = {
            "rows": len(lengths),
            "tokens": int(lengths.sum()),
            "mean_length": float(lengths.mean()),
            "alignment": source["alignment"][split],
            "vector_coverage": float(known[ids].mean()),
            "sha256": sha256_of_file(path),
        }
        if split == SCORED_SPLIT:
            scoring = {"ids": questions["id"], "answers": questions["answers"], "texts": columns["text"]}
            write_json(folder / SCORING, scoring)
    write_manifest(folder, source, splits, settings, table[:seen], known[:seen], alphabet_size=alphabet)


def _spellings(texts: dict[str, dict[str, Any]]) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """The number of each spelling of a token in the texts, and the numbers of those of each split (total tokens)."""
    numbers = {"": PADDING}
    spellings = {
        split: np.array(
            [
                numbers.setdefault(text[start:stop], len(numbers))
                for text, starts, stops in zip(columns["text"], columns["starts"], columns["stops"], strict=True)
                for start, stop in zip(starts, stops, strict=True)
            ],
            np.int32,
        )
        for split, columns in texts.items()
    }
    return numbers, spellings


def _character_table(spelling: dict[str, int], train: np.ndarray) -> tuple[np.ndarray, int]:
    """Character numbers (spellings, 16) of each spelling, and how many characters are known."""
    occurrences = np.bincount(train, minlength=len(spelling))
    counts: Counter[str] = Counter()
    for text, row in spelling.items():
        for character in text:
            counts[character] += int(occurrences[row])
    common = sorted((c for c, n in counts.items() if n >= _RARE_CHARACTER), key=lambda c: (-counts[c], c))
    index = {character: number for number, character in enumerate(common, 2)}
    table = np.full((len(spelling), _WORD_LENGTH), PADDING, np.int16)
    for text, row in spelling.items():
        numbers = [index.get(character, UNKNOWN) for character in text[:_WORD_LENGTH]]
        table[row, : len(numbers)] = numbers
    return table, len(common)
