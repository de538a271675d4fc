"""Questions whose answers are spans of a text (SQuAD v1.1): checks, tokens with places, and answers as token spans.

Each context is tokenised once, though several questions ask about it.
"""

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from skimrnn.data.offsets import Token, tokenise_with_offsets
from skimrnn.data.registry import Alignment, Dataset
from skimrnn.data.schemas import require_columns
from skimrnn.data.stages import read_manifest
from skimrnn.data.tokens import announced_leaks, map_texts
from skimrnn.errors import UserError
from skimrnn.files import read_parquet, write_json, write_parquet

_TEXT_COLUMNS = ("id", "context", "question")


def checked_questions(table: pa.Table, place: str) -> pa.Table:
    """The columns id, context, question, answers (list of text) and starts (list of characters), after every check.

    `table` has the hub's columns, in which `answers` holds `text` and `answer_start`.
    """
    require_columns(table, (*_TEXT_COLUMNS, "answers"), place)
    try:
        answers = table["answers"].combine_chunks()
        checked = pa.table(
            {
                **{column: table[column].cast(pa.string()) for column in _TEXT_COLUMNS},
                "answers": answers.field("text").cast(pa.list_(pa.string())),
                "starts": answers.field("answer_start").cast(pa.list_(pa.int64())),
            }
        )
        checked.validate(full=True)
    except MemoryError:  # Of Arrow, too.
        raise
    except (pa.ArrowException, KeyError, AttributeError) as error:
        raise UserError(
            f"{place}: id, context and question must be text (UTF-8), and answers must hold text and answer_start: "
            "fetch the file again"
        ) from error
    if any(checked[column].null_count for column in checked.column_names):
        raise UserError(f"{place}: an id, a context, a question or an answer is missing: fetch the file again")
    seen: set[str] = set()
    for row in checked.select(["id", "answers", "starts"]).to_pylist():
        if row["id"] in seen:
            raise UserError(f"{place}: two questions have the id {row['id']!r}: fetch the file again")
        seen.add(row["id"])
        if not row["answers"] or len(row["answers"]) != len(row["starts"]) or None in row["answers"] + row["starts"]:
            raise UserError(
                f"{place}: question {row['id']!r} has {len(row['answers'])} answers and {len(row['starts'])} starts: "
                "each answer needs its text and its start; fetch the file again"
            )
    return checked


def questions_digest(table: pa.Table) -> str:
    """SHA-256 of all checked columns, whatever the file format or its version."""
    digest = hashlib.sha256()
    for row in table.to_pylist():
        digest.update(json.dumps(list(row.values()), ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def align(context: str, tokens: Sequence[Token], answer: str, start: int) -> tuple[int, int, Alignment]:
    """The first and the last token of an answer that begins at character `start`; -1, -1 where it is unusable."""
    stop = start + len(answer)
    if not answer.strip() or start < 0 or context[start:stop] != answer:
        return -1, -1, "unusable"
    first = bisect_right(tokens, start, key=lambda token: token.stop)
    last = bisect_left(tokens, stop, key=lambda token: token.start) - 1
    exact = tokens[first].start == start and tokens[last].stop == stop
    return first, last, "exact" if exact else "widened"


def tokenise_questions(dataset: Dataset, raw: Path, folder: Path, processes: int = 1) -> None:
    """Write, for each split, `<split>.parquet`, the texts, and `<split>.questions.parquet`, which refers to them.

    A text, context or question, stands there once: text, tokens (joined by spaces), starts and stops (characters of
    each token). A question has id, context and question (rows of the texts), answers, first and last (tokens of its
    first answer, -1 where there are none). The manifest counts how the first answers could be aligned, and the texts
    that stand in two splits, which are announced, too.
    """
    manifest = read_manifest(raw, dataset.name, "splits")
    tables: dict[str, pa.Table] = {}
    alignment: dict[str, dict[Alignment, int]] = {}
    for split in dataset.rows:
        rows = read_parquet(raw / f"{split}.parquet", "context", "question", "answers").to_pylist()
        texts = list(dict.fromkeys(row[kind] for kind in ("context", "question") for row in rows))
        number = {text: index for index, text in enumerate(texts)}
        tokens = map_texts(tokenise_with_offsets, texts, processes)
        spans = [
            align(row["context"], tokens[number[row["context"]]], row["answers"][0], row["starts"][0]) for row in rows
        ]
        alignment[split] = {"exact": 0, "widened": 0, "unusable": 0}
        for *_, kind in spans:
            alignment[split][kind] += 1
        tables[split] = pa.table(
            {
                "text": texts,
                "tokens": [" ".join(token.word for token in tokens_) for tokens_ in tokens],
                "starts": pa.array([[token.start for token in tokens_] for tokens_ in tokens], pa.list_(pa.int32())),
                "stops": pa.array([[token.stop for token in tokens_] for tokens_ in tokens], pa.list_(pa.int32())),
            }
        )
        write_parquet(folder / f"{split}.parquet", tables[split])
        write_parquet(
            folder / f"{split}.questions.parquet",
            pa.table(
                {
                    "id": [row["id"] for row in rows],
                    "context": pa.array([number[row["context"]] for row in rows], pa.int64()),
                    "question": pa.array([number[row["question"]] for row in rows], pa.int64()),
                    "answers": pa.array([row["answers"] for row in rows], pa.list_(pa.string())),
                    "first": pa.array([first for first, _, _ in spans], pa.int64()),
                    "last": pa.array([last for _, last, _ in spans], pa.int64()),
                }
            ),
        )
    leaks = announced_leaks(dataset, tables)
    write_json(folder / "manifest.json", {**manifest, "unlabelled": None, "alignment": alignment, "leaks": leaks})
