"""EM and F1 as the official evaluation of SQuAD v1.1 defines them; expected values are worked out by hand."""

import random

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
