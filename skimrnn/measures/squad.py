"""Exact match and F1 of answers, as the official evaluation of SQuAD v1.1 defines them."""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class AnswerScores(NamedTuple):
    """Means over questions (0 to 1)."""

    f1: float
    em: float


def score_answers(predictions: Iterable[str], answers: Iterable[Sequence[str]]) -> AnswerScores:
    """Score one prediction for each question against all answers that its annotators gave; the best one counts."""
    pairs = [
        (max(f1(prediction, a) for a in golds), max(exact_match(prediction, a) for a in golds))
        for prediction, golds in zip(predictions, answers, strict=True)
    ]
    return AnswerScores(*(sum(values) / len(pairs) for values in zip(*pairs, strict=True)))


@cache  # The same answers are asked for at every validation.
def normalise(text: str) -> str:
    """Lower-cased, without ASCII punctuation and English articles, words joined by single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1 where both are the same text once normalised, else 0."""
    return float(normalise(prediction) == normalise(answer))


def f1(prediction: str, answer: str) -> float:
    """Harmonic mean of precision and recall over the words of the normalised texts, as multisets; 0 without any."""
    predicted, expected = normalise(prediction).split(), normalise(answer).split()
    common = (Counter(predicted) & Counter(expected)).total()
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(expected)
    return 2 * precision * recall / (precision + recall)
