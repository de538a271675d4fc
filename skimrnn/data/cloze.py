"""Questions of the Children's Book Test: twenty sentences, a query with one word missing, candidates for it."""

import hashlib
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from skimrnn.data.registry import Dataset
from skimrnn.data.schemas import require_columns
from skimrnn.errors import UserError, explain_os_errors

BLANK = "XXXXX"
"""What stands in the query for the missing word."""

_ROWS_AT_ONCE = 5_000
_SCHEMA = {
    "sentences": pa.list_(pa.string()),
    "question": pa.string(),
    "answer": pa.string(),
    "options": pa.list_(pa.string()),
}
_LINE = re.compile(r"(\d+) (.*)")


def checked_cloze(table: pa.Table, dataset: Dataset, place: str) -> pa.Table:
    """The columns sentences (list), question, answer, options (list; the blank ones dropped), after every check.

    The query must hold the blank, and the answer must stand among at least two options.
    """
    require_columns(table, dataset.columns, place)
    try:
        checked = pa.table({name: table[name].cast(kind) for name, kind in _SCHEMA.items()})
        checked.validate(full=True)
    except MemoryError:  # Of Arrow, too.
        raise
    except pa.ArrowException as error:
        raise UserError(
            f"{place}: sentences and options must be lists of texts, question and answer texts (UTF-8): "
            "fetch the file again"
        ) from error
    if any(column.null_count for column in [*checked.columns, pc.list_flatten(checked["sentences"])]):
        raise UserError(f"{place}: a part of a question is missing: fetch the file again")
    without = pc.filter(checked["question"], pc.invert(pc.match_substring(checked["question"], BLANK)))
    if len(without):
        raise UserError(f"{place}: no {BLANK} in {without[0].as_py()!r} ({len(without)} rows): fetch the file again")
    options = [[text for text in row if text and text.strip()] for row in checked["options"].to_pylist()]
    wrong = [
        (answer, row)
        for answer, row in zip(checked["answer"].to_pylist(), options, strict=True)
        if len(row) < 2 or answer not in row
    ]
    if wrong:
        answer, row = wrong[0]
        raise UserError(
            f"{place}: the answer {answer!r} does not stand among {', '.join(row) or 'no options'} "
            f"({len(wrong)} rows): fetch the file again"
        )
    return checked.set_column(3, "options", pa.array(options, _SCHEMA["options"]))


def cloze_digest(table: pa.Table) -> str:
    """SHA-256 of the questions, whatever the file format or its version."""
    digest = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        for row in batch.to_pylist():
            for part in (*row["sentences"], row["question"], row["answer"], *row["options"]):
                encoded = part.encode()
                digest.update(b"%d " % len(encoded))
                digest.update(encoded)
    return digest.hexdigest()


def tokenise_cloze(table: pa.Table, *, keep_case: bool = False) -> pa.Table:
    """Columns tokens (context, then query; joined by spaces), label (the answer's place), candidates (list).

    Texts come tokenised; all is lower-cased, as in the other datasets.
    """
    cased = str if keep_case else str.lower
    chunks = []
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        rows = batch.to_pylist()
        chunks.append(
            pa.table(
                {
                    "tokens": [" ".join(cased(" ".join([*r["sentences"], r["question"]])).split()) for r in rows],
                    "label": pa.array([r["options"].index(r["answer"]) for r in rows], pa.int64()),
                    "candidates": [[cased(option) for option in r["options"]] for r in rows],
                }
            )
        )
    return pa.concat_tables(chunks)


def read_cbtest(path: Path) -> pa.Table:
    """Questions from a file in CBTest's own format, as `checked_cloze` takes them.

    A question is numbered lines: sentences, then a last one that holds query, answer, an empty field, and the options
    joined by bars, separated by tabs; an empty line follows.
    """
    columns: dict[str, list] = {name: [] for name in _SCHEMA}
    sentences: list[str] = []
    number = 0
    with explain_os_errors("read", path), path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UserError(f"{path}, line {number}: not UTF-8: unpack CBTest.tgz again") from error
            if not line.strip():
                continue
            found = _LINE.fullmatch(line)
            if found is None or int(found[1]) != len(sentences) + 1:
                raise UserError(f"{path}, line {number}: not sentence {len(sentences) + 1}: unpack CBTest.tgz again")
            if "\t" not in line:
                sentences.append(found[2])
                continue
            fields = found[2].split("\t")
            if len(fields) != 4:
                raise UserError(
                    f"{path}, line {number}: {len(fields)} fields where query, answer, an empty one and options are "
                    "needed: unpack CBTest.tgz again"
                )
            question = {"sentences": sentences, "question": fields[0], "answer": fields[1]}
            for name, value in (question | {"options": fields[3].split("|")}).items():
                columns[name].append(value)
            sentences = []
    if sentences:
        raise UserError(f"{path}, line {number}: ends inside a question: unpack CBTest.tgz again")
    return pa.table({name: pa.array(columns[name], kind) for name, kind in _SCHEMA.items()})
