"""SQuAD: tokens know their places, answers become spans, and nothing that is wrong passes unseen."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

from skimrnn.cli import app
from skimrnn.config import BiDAFConfig, LSTMAttConfig, ReaderConfig, SkimBiDAFConfig, SkimLSTMAttConfig, VectorsConfig
from skimrnn.data.offsets import Token, tokenise_with_offsets
from skimrnn.data.prepare import Prepared, open_prepared
from skimrnn.data.questions import (
    SCORED_SPLIT,
    evaluation_questions,
    prepare_questions,
    read_questions,
    read_scoring,
)
from skimrnn.data.registry import DATASETS
from skimrnn.data.sources import fetch_dataset
from skimrnn.data.squad import align, tokenise_questions
from skimrnn.data.vectors import write_vectors
from skimrnn.errors import UserError
from skimrnn.files import read_json, read_parquet, write_parquet
from skimrnn.training.reading import answer_questions, build_reader
from tests.conftest import ROOT

SQUAD = DATASETS["squad"]
PIECES = [
    *"ab cd.\"\"''``-–/,;:?!()[]$%&*…‘’“”\n\t\u00a0\u200b\u2028\x85İß😀שם",
    "cannot",
    "n't",
    "...",
    "''",
    ". ",
    "A. ",
]


def question(number: object, context: str, answers: list[tuple[str, int]], text: str = "Who is it?") -> dict:
    both = {"text": [answer for answer, _ in answers], "answer_start": [start for _, start in answers]}
    return {"id": f"q{number}", "title": "t", "context": context, "question": text, "answers": both}


def mirror_of(folder: Path, train: list[dict], validation: list[dict] | None = None) -> Path:
    for split, rows in (("train", train), ("validation", validation or train)):
        write_parquet(folder / "rajpurkar" / "squad" / f"{split}.parquet", pa.Table.from_pylist(rows))
    return folder


def prepare(
    folder: Path, train: list[dict], validation: list[dict] | None = None, who: tuple[float, ...] = (1, 1, 1)
) -> Prepared:
    fetch_dataset(SQUAD, "mirror", mirror_of(folder / "hub", train, validation), folder / "raw")
    tokenise_questions(SQUAD, folder / "raw", folder / "tokens")
    write_vectors(folder / "vectors.safetensors", ["is", "who"], np.array([(1, 1, 1), who], np.float32))
    settings = VectorsConfig(source="corpus", dimension=3)
    prepare_questions(SQUAD, folder / "tokens", folder / "vectors.safetensors", settings, folder / "prepared")
    return open_prepared(folder / "prepared", "squad")


def test_tokens_stand_in_the_text_in_order_and_leave_out_space_alone(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(2000):
        text = "".join(random.choice(PIECES, random.integers(1, 20)))
        place = 0
        for word, start, stop in tokenise_with_offsets(text):
            if word == "<empty>":
                assert not text.strip()
                continue
            assert not text[place:start].strip() and start < stop
            assert text[start:stop].lower() == word or (word in ("``", "''") and text[start:stop] in ('"', "``", "''"))
            place = stop
        assert not text[place:].strip()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('She said "no" twice.', ["she", "said", "``", "no", "''", "twice", "."]),
        ("Of ''Nigeria'' can't", ["of", "``", "nigeria", "''", "ca", "n't"]),
        ("It fell. In 1990-1991 km/h.", ["it", "fell", ".", "in", "1990", "-", "1991", "km", "/", "h", "."]),
        ("\u201cIt\u201d", ["\u201c", "it", "\u201d"]),
        (" \n", ["<empty>"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert [token.word for token in tokenise_with_offsets(text)] == words


def test_an_answer_becomes_the_tokens_that_it_begins_and_ends_in() -> None:
    context = 'Born in 1990-1991, "Ann" 😀 שלום lived.'
    tokens = tokenise_with_offsets(context)

    def aligned(answer: str, start: int | None = None) -> tuple[str, str]:
        first, last, kind = align(context, tokens, answer, context.index(answer) if start is None else start)
        return (context[tokens[first].start : tokens[last].stop] if kind != "unusable" else "", kind)

    for answer in ("1990", "1990-1991", "Ann", '"Ann"', "😀 שלום", "שלום", context):
        assert aligned(answer) == (answer, "exact")
    assert aligned("nn") == ("Ann", "widened")
    assert aligned(" in 19") == ("in 1990", "widened")
    for answer, start in (("1990", 7), ("1990", -1), ("Bob", 0), ("", 3), (" ", 4), ("lived.", 500)):
        assert aligned(answer, start) == ("", "unusable")
    assert align("", [Token("<empty>", 0, 0)], "x", 0) == (-1, -1, "unusable")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([question(1, "Ann", [("Ann", 0)])] * 2, "two questions have the id 'q1'"),
        ([question(1, "Ann", [])], "question 'q1' has 0 answers and 0 starts"),
        (
            [question(1, "Ann", [("Ann", 0)]) | {"answers": {"text": ["Ann"], "answer_start": [0, 1]}}],
            "1 answers and 2",
        ),
        ([{"id": "1", "context": "x", "question": "y"}], "no column 'answers'"),
        ([question(1, "Ann", [("Ann", 0)]) | {"answers": "Ann"}], "answers must hold text and answer_start"),
        (
            [question(1, "Ann", [("Ann", 0)]), question(2, "Ann", [("Ann", 0)]) | {"context": None}],
            "a context, .* missing",
        ),
    ],
)
def test_malformed_questions_are_one_line(rows: list[dict], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"rajpurkar/squad \(train, from the mirror\): .*{message}"):
        fetch_dataset(SQUAD, "mirror", mirror_of(tmp_path / "hub", rows), tmp_path / "raw")


def test_a_context_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    mirror = mirror_of(tmp_path / "hub", [question(1, "Ann", [("Ann", 0)])])
    file = mirror / "rajpurkar" / "squad" / "train.parquet"
    table = read_parquet(file)
    wrong = pa.array([b"Ann caf\xe9"]).view(pa.string())
    write_parquet(file, table.set_column(table.column_names.index("context"), "context", wrong))
    with pytest.raises(UserError, match=r"\(train, from the mirror\): id, context and question must be text .UTF-8.,"):
        fetch_dataset(SQUAD, "mirror", mirror, tmp_path / "raw")


def test_texts_that_stand_in_both_splits_are_counted_and_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = [question(number, f"Ann {number}", [("Ann", 0)], f"Who is {number}?") for number in range(3)]
    validation = [train[0], train[1] | {"context": "Ann alone"}, question(4, "Ann", [("Ann", 0)], "Who?")]
    fetch_dataset(SQUAD, "mirror", mirror_of(tmp_path / "hub", train, validation), tmp_path / "raw")
    tokenise_questions(SQUAD, tmp_path / "raw", tmp_path / "tokens")
    assert read_json(tmp_path / "tokens" / "manifest.json")["leaks"] == {"validation that stand in train": 3}
    assert capsys.readouterr().err == "warning: squad: 3 texts of validation that stand in train\n"


def test_unusable_answers_and_long_contexts_leave_training_and_are_counted(tmp_path: Path) -> None:
    long = "Ann " * 5000
    rows = [
        question(1, "It is Ann here.", [("Ann", 6)]),
        question(2, "It is Ann here.", [("Ann", 5)]),  # A wrong offset is no reason to look elsewhere.
        question(3, " ", [("Ann", 0)]),
        question(4, long, [("Ann", 4)]),
        question(5, "It isn't Annabel.", [("Anna", 9)]),
    ]
    prepared = prepare(tmp_path, rows)
    assert prepared.manifest["splits"]["train"]["alignment"] == {"exact": 2, "widened": 1, "unusable": 2}
    split = read_questions(prepared, "train")
    assert split.lengths.tolist() == [5, 5, 1, 5000, 5]
    assert len(split.usable(None)) == 3
    assert split.usable(400).contexts.tolist() == split.contexts[[0, 4]].tolist()


def test_every_question_is_evaluated_in_batches_of_bounded_size(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = [question(n, "Ann " * int(k), [("Ann", 0)]) for n, k in enumerate(random.integers(0, 900, 150))]
    rows.append(question("long", "Ann " * 20_000, [("Ann", 0)]))
    split = read_questions(prepare(tmp_path, rows), SCORED_SPLIT)
    seen = []
    for batch_rows, batch in evaluation_questions(split):
        seen += batch_rows.tolist()
        assert batch.contexts.tokens.numel() <= 16_000 or len(batch_rows) == 1
        assert torch.equal(batch.contexts.lengths, split.lengths[batch_rows])
        for texts, padded in ((split.questions, batch.questions), (split.contexts, batch.contexts)):
            for text, *row in zip(texts[batch_rows].tolist(), padded.tokens, padded.spellings, strict=True):
                span = slice(int(split.offsets[text]), int(split.offsets[text + 1]))
                for values, place in zip((split.tokens, split.spellings), row, strict=True):
                    expected = values[span].tolist()
                    assert place.tolist() == expected + [0] * (len(place) - len(expected))
    assert sorted(seen) == list(range(151))


def test_spans_are_cut_out_of_the_text_as_they_stand_there(tmp_path: Path) -> None:
    context = 'Then “It”  was\u00a0"Ann\tLee" 😀.'
    prepared = prepare(tmp_path, [question(1, "x Ann", [("Ann", 2)]), question(2, context, [("It", 6)])])
    split, scoring = read_questions(prepared, SCORED_SPLIT), read_scoring(prepared)
    tokens = tokenise_with_offsets(context)
    for first in range(len(tokens)):
        for last in range(first, len(tokens)):
            assert scoring.cut(split, 1, first, last) == context[tokens[first].start : tokens[last].stop]
    assert scoring.cut(split, 1, 5, 2) == ""
    assert scoring.ids == ["q1", "q2"] and scoring.answers == [["Ann"], ["It"]]


def test_each_text_is_kept_once_and_characters_are_those_of_the_text(tmp_path: Path) -> None:
    rows = [question(n, "It is Ann here, Ann" + " Ann" * 60, [("Ann", 6)], f"Who {n}?") for n in range(3)]
    prepared = prepare(tmp_path, rows)
    split = read_questions(prepared, "train")
    assert split.contexts.tolist() == [0, 0, 0] and len(split.offsets) == 1 + 1 + 3
    vocabulary = read_json(prepared.folder / "vocabulary.json")
    assert [vocabulary[word] for word in split.tokens[:3]] == ["it", "is", "ann"]
    from skimrnn.files import read_tensors

    characters = read_tensors(prepared.folder / "vectors.safetensors")[0]["characters"]
    ann, here = (characters[int(split.spellings[place])] for place in (2, 3))
    assert (ann != 0).sum() == 3 and ann[1] == ann[2] != ann[0]
    assert here[:4].tolist() == [1, 1, 1, 1]  # Rarer than is worth a vector.


def test_words_without_a_vector_differ_but_unknown_ones_and_padding_say_nothing(tmp_path: Path) -> None:
    crowd = " ".join(f"Ann{number}" for number in range(100))
    prepared = prepare(tmp_path, [question(1, f"It is Ann here, {crowd}", [("Ann", 6)])], who=(5, 6, 7))
    vectors = dict(zip(read_json(prepared.folder / "vocabulary.json"), prepared.vectors(), strict=True))
    assert (vectors["is"].tolist(), vectors["who"].tolist()) == ([1, 1, 1], [5, 6, 7])
    assert not vectors["<pad>"].any() and not vectors["<unk>"].any()
    noise = torch.stack([vectors[word] for word in vectors if word not in ("is", "who", "<pad>", "<unk>")])
    assert len(noise) >= 100 and len(torch.unique(noise, dim=0)) == len(noise)
    # Components as large as the known vectors', whose mean square is 113/6: it lies within five standard errors.
    assert float((noise**2).mean()) == pytest.approx(113 / 6, rel=5 * (2 / noise.numel()) ** 0.5)


def test_the_development_sets_own_words_differ_and_change_nothing_for_those_of_train(tmp_path: Path) -> None:
    train = [question(1, "It is Ann here", [("Ann", 6)], "Is it here?")]
    alone = prepare(tmp_path / "alone", train)
    prepared = prepare(
        tmp_path / "more", train, [question(2, "Bob, who is Eve", [("Eve", 12)], "Is Bob Eve?")], (5, 6, 7)
    )
    vocabulary, before = (read_json(p.folder / "vocabulary.json") for p in (prepared, alone))
    assert before == ["<pad>", "<unk>", "here", "is", "it", "?", "ann"]
    assert vocabulary == [*before, ",", "bob", "eve", "who"]
    vectors = prepared.vectors()
    assert torch.equal(vectors[: len(before)], alone.vectors())
    assert vectors[vocabulary.index("who")].tolist() == [5, 6, 7]
    assert len(torch.unique(vectors[len(before) :], dim=0)) == 4 and vectors[len(before) :].any(dim=1).all()
    split = read_questions(prepared, SCORED_SPLIT)
    assert [vocabulary[word] for word in split.tokens] == ["bob", ",", "who", "is", "eve", "is", "bob", "eve", "?"]
    assert [prepared.manifest["vocabulary_size"], prepared.manifest["vectors"]["words"]] == [len(before) - 2, 1]


def test_the_digest_follows_vectors_and_answers(tmp_path: Path) -> None:
    ann, is_ann = (question(1, "It is Ann here", answers) for answers in ([("Ann", 6)], [("is Ann", 3)]))
    either = question(1, "It is Ann here", [("Ann", 6), ("is Ann", 3)])
    prepared = [
        prepare(tmp_path / "first", [ann], [ann]),
        prepare(tmp_path / "vectors", [ann], [ann], (5, 6, 7)),
        prepare(tmp_path / "train", [is_ann], [ann]),
        prepare(tmp_path / "scored", [ann], [is_ann]),
        prepare(tmp_path / "gold", [ann], [either]),
    ]
    assert len({data.manifest["digest"] for data in prepared}) == len(prepared)


def test_the_embedded_corpus_asks_for_what_stands_in_the_text(tmp_path: Path) -> None:
    fetch_dataset(SQUAD, "embedded", None, tmp_path / "raw")
    tokenise_questions(SQUAD, tmp_path / "raw", tmp_path / "tokens")
    alignment = read_json(tmp_path / "tokens" / "manifest.json")["alignment"]
    assert alignment["train"] == {"exact": 1600, "widened": 0, "unusable": 0}
    assert alignment["validation"] == {"exact": 100, "widened": 0, "unusable": 0}


def test_a_part_of_the_real_release_aligns(mirror: Path, tmp_path: Path) -> None:
    from skimrnn.files import read_parquet

    path = mirror / "rajpurkar" / "squad" / "train.parquet"
    if not path.exists():
        pytest.skip("the mirror has no SQuAD")
    table = read_parquet(path).slice(0, 2000)
    prepared = prepare(tmp_path, table.to_pylist(), table.slice(0, 50).to_pylist())
    counts = prepared.manifest["splits"]["train"]["alignment"]
    assert counts["unusable"] == 0 and counts["exact"] >= 1980


@pytest.mark.parametrize(
    "config",
    [
        LSTMAttConfig(architecture="lstm_att", hidden_size=4),
        SkimLSTMAttConfig(architecture="skim_lstm_att", hidden_size=4, small_size=2, gamma=0.1),
        BiDAFConfig(architecture="bidaf", hidden_size=4),
        SkimBiDAFConfig(architecture="skim_bidaf", hidden_size=4, small_size=2, gamma=0.1),
    ],
    ids=lambda config: config.architecture,
)
def test_awkward_texts_are_answered_by_what_stands_in_them(config: ReaderConfig, tmp_path: Path, seed: int) -> None:
    contexts = {
        "empty": "",
        "space": " \n",
        "one": "Ann",
        "long": "Ann met Bob . " * 1250,
        "right": "\u05e9\u05dc\u05d5\u05dd\u200f \u0645\u0631\u062d\u0628\u0627 Ann",
        "emoji": "Ann \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301 \U0001f1e9\U0001f1ea.",
    }
    rows = [question(name, context, [("Ann", max(0, context.find("Ann")))]) for name, context in contexts.items()]
    rows.append(question("silent", "Ann", [("Ann", 0)], ""))
    prepared = prepare(tmp_path, [question(1, "It is Ann.", [("Ann", 6)])], rows)
    assert prepared.manifest["splits"][SCORED_SPLIT]["alignment"] == {"exact": 5, "widened": 0, "unusable": 2}
    split = read_questions(prepared, SCORED_SPLIT)
    assert split.lengths.max() == 5000
    model = build_reader(config, prepared.vectors(), prepared.spellings())
    answers = answer_questions(model, split, read_scoring(prepared))
    for name, context in (contexts | {"silent": "Ann"}).items():
        answer = answers.predictions[f"q{name}"]
        assert answer in context and bool(answer) == bool(context.strip())


def test_a_malformed_release_ends_the_command_in_one_line(tmp_path: Path) -> None:
    hub = mirror_of(tmp_path / "hub", [question(1, "Ann", [("Ann", 0)])] * 2)
    config = (ROOT / "config" / "paper.yaml").read_text().replace("source: hub", f"source: mirror\n  mirror: {hub}")
    (tmp_path / "config.yaml").write_text(config)
    arguments = ["fetch", "--config", str(tmp_path / "config.yaml"), "--dataset", "squad"]
    ended = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "raw")])
    assert ended.exit_code == 2
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    assert "two questions have the id 'q1': fetch the file again" in ended.stderr
    assert not list(tmp_path.glob("raw/*.parquet"))
