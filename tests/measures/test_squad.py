"""EM and F1 as the official evaluation of SQuAD v1.1 defines them; expected values are worked out by hand."""

import random
import re
import string
from collections import Counter
from collections.abc import Sequence

import pytest

from skimrnn.measures.squad import exact_match, f1, normalise, score_answers


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Quick, brown FOX!", "quick brown fox"),
        ("a.b.c. an-other the\tend", "abc another end"),
        ("A the an", ""),
        ("", ""),
        ("theatre anthem Athens", "theatre anthem athens"),  # Articles are whole words.
        ("don't \u201cquote\u201d \u2013 stays", "dont \u201cquote\u201d \u2013 stays"),  # ASCII punctuation alone.
        (
            "\u00c9COLE\u00a0a\u2003\u05e9\u05dc\u05d5\u05dd \U0001f600",
            "\u00e9cole \u05e9\u05dc\u05d5\u05dd \U0001f600",
        ),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("prediction", "answer", "expected_f1", "expected_em"),
    [
        ("The Eiffel Tower", "eiffel tower.", 1.0, 1.0),
        ("tower Eiffel", "Eiffel Tower", 1.0, 0.0),
        ("big red dog", "red cat", 0.4, 0.0),  # precision 1/3, recall 1/2
        ("dog dog dog", "dog dog cat cat", 4 / 7, 0.0),  # two in common: 2/3 and 2/4
        ("", "cat", 0.0, 0.0),
        ("the", "a", 0.0, 1.0),  # Both are empty once normalised: the official script gives no F1, but a match.
    ],
)
def test_pairs(prediction: str, answer: str, expected_f1: float, expected_em: float) -> None:
    assert f1(prediction, answer) == pytest.approx(expected_f1, abs=1e-12)
    assert exact_match(prediction, answer) == expected_em


def test_the_best_of_several_answers_counts_for_each_measure_and_questions_are_averaged() -> None:
    scores = score_answers(["red dog", "x"], [["cat", "red cat", "a red dog here"], ["y", "z"]])
    assert scores.f1 == pytest.approx((0.8 + 0) / 2)
    assert scores.em == 0.0
    assert score_answers(["red dog", "x"], [["cat", "Red dog."], ["x"]]) == (1.0, 1.0)


def test_f1_is_symmetric_and_one_exactly_where_the_words_are_the_same(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(300):
        left, right = (
            " ".join(chance.choices(["dog", "cat", "Cat!", "the", "ox"], k=chance.randint(0, 4))) for _ in "lr"
        )
        assert f1(left, right) == pytest.approx(f1(right, left), abs=1e-15)
        same = sorted(normalise(left).split()) == sorted(normalise(right).split()) != []
        assert (f1(left, right) == pytest.approx(1.0, abs=1e-15)) == same


def official_scores(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> tuple[float, float]:
    """F1 and EM in percent, step for step as the official script of SQuAD v1.1 computes them."""

    def normalize_answer(text: str) -> str:
        text = "".join(character for character in text.lower() if character not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    def f1_score(prediction: str, ground_truth: str) -> float:
        prediction_tokens, truth_tokens = normalize_answer(prediction).split(), normalize_answer(ground_truth).split()
        same = sum((Counter(prediction_tokens) & Counter(truth_tokens)).values())
        if same == 0:
            return 0
        precision, recall = 1.0 * same / len(prediction_tokens), 1.0 * same / len(truth_tokens)
        return (2 * precision * recall) / (precision + recall)

    total_f1 = total_em = 0.0
    for prediction, truths in zip(predictions, answers, strict=True):
        total_f1 += max(f1_score(prediction, truth) for truth in truths)
        total_em += max(normalize_answer(prediction) == normalize_answer(truth) for truth in truths)
    return 100.0 * total_f1 / len(answers), 100.0 * total_em / len(answers)


def test_scores_are_those_of_the_official_script(seed: int) -> None:
    """On unicode, empty predictions, articles, punctuation, several answers."""
    chance = random.Random(seed)
    pieces = [
        *(
            "the",
            "A",
            "an",
            "dog",
            "Dog",
            "cat.",
            "1,000",
            "\u00c9cole",
            "e\u0301cole",
            "\u05e9\u05dc\u05d5\u05dd",
            "\U0001f600",
        ),
        *("\u201ccat\u201d", "it's", "\u00a0", "\u2003", "-", "\u2013", "\u0130", "\u00df", "\t", "", "!"),
    ]

    def text() -> str:
        return chance.choice(" \u00a0").join(chance.choices(pieces, k=chance.randint(0, 5)))

    answers = [[text() for _ in range(chance.randint(1, 5))] for _ in range(2000)]
    predictions = [chance.choice([text(), "", chance.choice(golds), f"the {golds[0]}."]) for golds in answers]
    f1_percent, em_percent = official_scores(predictions, answers)
    scores = score_answers(predictions, answers)
    assert 100 * scores.f1 == pytest.approx(f1_percent, abs=1e-9)
    assert 100 * scores.em == pytest.approx(em_percent, abs=1e-9)
    assert 10 < em_percent < 90
