"""Where the raw texts come from: the dataset hub, a mirror of it on disk, or corpora that the package makes."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from skimrnn.data.embedded import embedded_split
from skimrnn.data.hub import open_hub
from skimrnn.data.registry import Dataset
from skimrnn.errors import UserError
from skimrnn.files import read_parquet, write_json, write_parquet

Read = Callable[[str], pa.Table]
"""Gives one split of a dataset, with at least the dataset's columns."""


def fetch_dataset(dataset: Dataset, source: str, mirror: Path | None, folder: Path) -> None:
    """Bring every split of `dataset` into `folder` as `<split>.parquet` (text, label), then `manifest.json`.

    The manifest says, for each split, the rows, the rows of the official release and a digest of the content; and
    whether the whole is complete. Missing, truncated or malformed data is a `UserError`.
    """
    revision, read = _open(dataset, source, mirror)
    splits = {}
    for split, official_rows in dataset.rows.items():
        table = _checked(read(split), dataset, split, source)
        write_parquet(folder / f"{split}.parquet", table)
        splits[split] = {"rows": table.num_rows, "official_rows": official_rows, "sha256": content_digest(table)}
    write_json(
        folder / "manifest.json",
        {
            "dataset": dataset.name,
            "source": source,
            "revision": revision,
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


def _open(dataset: Dataset, source: str, mirror: Path | None) -> tuple[str | None, Read]:
    """The revision of a dataset in its source, where that has one, and what reads its splits."""
    if source == "hub":
        return open_hub(dataset)
    if source == "embedded":
        return None, lambda split: embedded_split(dataset, split)
    if source == "mirror" and mirror is not None:
        return None, lambda split: read_parquet(mirror / dataset.hub_id / f"{split}.parquet")
    raise UserError(f"unknown data source {source!r}: choose hub, mirror (with its folder) or embedded")


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
