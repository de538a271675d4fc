"""Where the raw texts come from: the dataset hub, a mirror of it on disk, or corpora that the package makes."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from skimrnn.data.embedded import ROWS as EMBEDDED_ROWS
from skimrnn.data.embedded import embedded_questions, embedded_split
from skimrnn.data.registry import Dataset
from skimrnn.data.squad import checked_questions, questions_digest
from skimrnn.errors import UserError
from skimrnn.files import read_parquet, write_json, write_parquet

Read = Callable[[Dataset, str], pa.Table]
"""Gives one split of a dataset, with at least the dataset's columns."""


def fetch_dataset(dataset: Dataset, source: str, mirror: Path | None, folder: Path) -> None:
    """Bring every split of `dataset` into `folder` as `<split>.parquet`, then `manifest.json`.

    The columns are text and label or, for question answering, those that `checked_questions` gives.

    The manifest says, for each split, the rows, the rows of the official release and a digest of the content; and
    whether the whole is complete. Missing, truncated or malformed data is a `UserError`.
    """
    read = _reader(source, mirror)
    splits = {}
    for split, official_rows in dataset.rows.items():
        raw = read(dataset, split)
        if dataset.task == "question_answering":
            table = checked_questions(raw, f"{dataset.hub_id} ({split}, from the {source})")
            digest = questions_digest(table)
        else:
            table = _checked(raw, dataset, split, source)
            digest = content_digest(table)
        write_parquet(folder / f"{split}.parquet", table)
        splits[split] = {"rows": table.num_rows, "official_rows": official_rows, "sha256": digest}
    write_json(
        folder / "manifest.json",
        {
            "dataset": dataset.name,
            "source": source,
            "revision": dataset.hub_revision,
            "complete": all(split["rows"] == split["official_rows"] for split in splits.values()),
            "splits": splits,
        },
    )


def content_digest(table: pa.Table) -> str:
    """SHA-256 of the texts and labels, whatever the file format or its version."""
    digest = hashlib.sha256()
    for text, label in zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True):
        encoded = text.encode()
        digest.update(b"%d %d " % (label, len(encoded)))
        digest.update(encoded)
    return digest.hexdigest()


def _reader(source: str, mirror: Path | None) -> Read:
    if source == "hub":
        return _read_hub
    if source == "embedded":
        return _read_embedded
    if source == "mirror" and mirror is not None:
        return lambda dataset, split: _read_mirror(mirror, dataset, split)
    raise UserError(f"unknown data source {source!r}: choose hub, mirror (with its folder) or embedded")


def _read_hub(dataset: Dataset, split: str) -> pa.Table:
    from datasets import load_dataset  # Imported here: nothing else of the package needs it.

    try:
        rows = load_dataset(dataset.hub_id, split=split, revision=dataset.hub_revision)
        return rows.with_format("arrow")[:]
    except Exception as error:  # The hub client raises many types; each means that this split cannot be had.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"cannot download {dataset.hub_id} ({split}) from the hub: {reason}: "
            "check the network, or set data.source to mirror and data.mirror to a folder that holds the parquet files"
        ) from error


def _read_mirror(mirror: Path, dataset: Dataset, split: str) -> pa.Table:
    return read_parquet(mirror / dataset.hub_id / f"{split}.parquet")


def _read_embedded(dataset: Dataset, split: str) -> pa.Table:
    assert split in EMBEDDED_ROWS
    return (
        embedded_questions(dataset, split) if dataset.task == "question_answering" else embedded_split(dataset, split)
    )


def _checked(table: pa.Table, dataset: Dataset, split: str, source: str) -> pa.Table:
    """The two columns that count, as `text` (string) and `label` (int64), after every check."""
    place = f"{dataset.hub_id} ({split}, from the {source})"
    text_column, label_column = dataset.columns
    for column in dataset.columns:
        if column not in table.column_names:
            raise UserError(
                f"{place}: no column {column!r} among {', '.join(table.column_names)}: "
                "the files do not follow the hub's schema; fetch them again"
            )
    if table.num_rows == 0:
        raise UserError(f"{place}: no rows: fetch the file again")
    try:
        checked = pa.table(
            {"text": table[text_column].cast(pa.string()), "label": table[label_column].cast(pa.int64())}
        )
    except pa.ArrowException as error:
        raise UserError(
            f"{place}: {text_column!r} must be text and {label_column!r} a whole number: fetch the file again"
        ) from error
    if checked["text"].null_count or checked["label"].null_count:
        raise UserError(f"{place}: a text or a label is missing: fetch the file again")
    allowed = [-1] if split == dataset.unlabelled_split else list(range(len(dataset.classes)))
    wrong = pc.filter(checked["label"], pc.invert(pc.is_in(checked["label"], pa.array(allowed, pa.int64()))))
    if len(wrong):
        raise UserError(
            f"{place}: label {wrong[0].as_py()} is not among {', '.join(map(str, allowed))} "
            f"({len(wrong)} rows): fetch the file again"
        )
    return checked
