"""Small corpora made from a seed: the same columns as the real datasets, with a known answer to "what matters?".

Every text is a run of filler words, drawn with Zipf-like frequencies, among which a few cue words are strewn. Each
class has cue words of its own; the class with the most cue words in a text is its label, so cue words decide the label
and filler words say nothing about it.

A cloze text holds names among filler words; the one that comes again and again is the answer.

Questions are about texts of facts, each a subject and its value among filler words and words that go with that subject
(without which word vectors could not tell the subjects apart); a question names a subject, its value is the answer.
"""

import zlib
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa

from skimrnn.data.registry import Dataset

ROWS = {"train": 1_600, "validation": 400, "test": 800, "unsupervised": 800}
"""Rows of each split that a dataset's release has."""

_CUES_PER_CLASS = 12
_FILLERS = 400
_MEAN_LENGTH = {"sst": 16, "rotten_tomatoes": 16, "imdb": 24, "ag_news": 18}
_QUESTION_ROWS = {"train": 1_600, "validation": 100}
_FACTS = 4  # Of a text, each with a question of its own.
_SUBJECTS, _COMPANIONS, _VALUES = 12, 6, 200
_NAMES = 24
_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"


@dataclass(frozen=True)
class Lexicon:
    """The words of one embedded corpus: cue words per class, and filler words."""

    cues: tuple[tuple[str, ...], ...]
    fillers: tuple[str, ...]


def lexicon(dataset: Dataset) -> Lexicon:
    """The words of the embedded stand-in of `dataset`; the same on every machine."""
    ordered = _invented_words(dataset, _CUES_PER_CLASS * len(dataset.classes) + _FILLERS)
    cues = tuple(
        tuple(ordered[index * _CUES_PER_CLASS : (index + 1) * _CUES_PER_CLASS]) for index in range(len(dataset.classes))
    )
    return Lexicon(cues, tuple(ordered[-_FILLERS:]))


def _invented_words(dataset: Dataset, needed: int) -> list[str]:
    random = np.random.default_rng([_seed(dataset), 0])
    words: dict[str, None] = {}
    while len(words) < needed:
        syllables = random.integers(2, 4)
        letters = (_CONSONANTS[random.integers(14)] + _VOWELS[random.integers(5)] for _ in range(syllables))
        words["".join(letters)] = None
    return list(words)


def embedded_split(dataset: Dataset, split: str) -> pa.Table:
    """One split of the embedded stand-in, with the columns `text` and `label` (-1 where unlabelled)."""
    words = lexicon(dataset)
    random = np.random.default_rng([_seed(dataset), 1 + list(ROWS).index(split)])
    frequency = 1 / np.arange(1, _FILLERS + 1)
    frequency /= frequency.sum()
    texts, labels = [], []
    for _ in range(ROWS[split]):
        label = int(random.integers(len(dataset.classes)))
        length = max(6, int(random.poisson(_MEAN_LENGTH[dataset.name])))
        tokens = [words.fillers[index] for index in random.choice(_FILLERS, size=length, p=frequency)]
        other = int(random.integers(len(dataset.classes)))
        own_cues = int(random.integers(2, 4))
        cue_classes = [label] * own_cues + [other] * int(random.integers(0, own_cues))
        for place, cue_class in zip(random.choice(length, len(cue_classes), replace=False), cue_classes, strict=True):
            tokens[place] = words.cues[cue_class][random.integers(_CUES_PER_CLASS)]
        texts.append(" ".join(tokens))
        labels.append(-1 if split == dataset.unlabelled_split else label)
    return pa.table({"text": pa.array(texts, pa.string()), "label": pa.array(labels, pa.int64())})


def embedded_questions(dataset: Dataset, split: str) -> pa.Table:
    """One split of the embedded stand-in of a span-answering dataset, with the hub's columns.

    A value has one or two words, some of them joined by a hyphen or in quotes, so answers begin and end at all kinds of
    places; the validation questions have a second answer, as the real ones have several.
    """
    words = iter(_invented_words(dataset, _SUBJECTS * (1 + _COMPANIONS) + _VALUES + _FILLERS))
    subjects = list(islice(words, _SUBJECTS))
    companions = [list(islice(words, _COMPANIONS)) for _ in subjects]
    values = [word.capitalize() for word in islice(words, _VALUES)]
    fillers = list(words)
    random = np.random.default_rng([_seed(dataset), 1 + list(_QUESTION_ROWS).index(split)])
    frequency = 1 / np.arange(1, _FILLERS + 1)
    frequency /= frequency.sum()
    rows = []
    for text in range(_QUESTION_ROWS[split] // _FACTS):
        context, found = "", []
        for subject in random.choice(_SUBJECTS, _FACTS, replace=False):
            before, after = (
                " ".join(
                    companions[subject][random.integers(_COMPANIONS)] if random.random() < 0.7 else fillers[index]
                    for index in random.choice(_FILLERS, int(random.integers(1, 5)), p=frequency)
                )
                for _ in range(2)
            )
            first, second = (values[index] for index in random.choice(_VALUES, 2, replace=False))
            answer = (first, f"{first} {second}", f"{first}-{second}")[random.integers(3)]
            opening, closing = ('"', '"') if random.random() < 0.2 else ("", "")
            context += f"{' ' if context else ''}{before.capitalize()} {subjects[subject]} is {opening}"
            found.append((subjects[subject], answer, len(context)))
            context += f"{answer}{closing} {after}."
        for number, (subject, answer, start) in enumerate(found):
            answers = [(answer, start)] * (1 if split == "train" else 2)
            rows.append(
                {
                    "id": f"{split}-{text}-{number}",
                    "context": context,
                    "question": f"What is {subject}?",
                    "answers": {"text": [a for a, _ in answers], "answer_start": [s for _, s in answers]},
                }
            )
    return pa.Table.from_pylist(rows)


def embedded_cloze(dataset: Dataset, split: str) -> pa.Table:
    """One split of the embedded stand-in of a cloze dataset, with the hub's columns.

    Twenty short sentences hold ten names among filler words: nine of them once, the answer eleven times.
    """
    words = _invented_words(dataset, _NAMES + _FILLERS)
    names, fillers = [word.capitalize() for word in words[:_NAMES]], words[_NAMES:]
    random = np.random.default_rng([_seed(dataset), 1 + list(ROWS).index(split)])
    frequency = 1 / np.arange(1, _FILLERS + 1)
    frequency /= frequency.sum()
    rows = []
    for _ in range(ROWS[split]):
        options = [names[index] for index in random.choice(_NAMES, 10, replace=False)]
        answer = options[random.integers(10)]
        said = [*options, *[answer] * 10]
        sentences = []
        for place in random.permutation(20):
            tokens = [fillers[index] for index in random.choice(_FILLERS, int(random.integers(1, 3)), p=frequency)]
            tokens.insert(int(random.integers(len(tokens) + 1)), said[place])
            sentences.append(" ".join([*tokens, "."]))
        rows.append({"sentences": sentences, "question": "It was XXXXX .", "answer": answer, "options": options})
    return pa.Table.from_pylist(rows)


def _seed(dataset: Dataset) -> int:
    return zlib.crc32(dataset.name.encode())
