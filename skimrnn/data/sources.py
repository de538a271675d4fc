"""Where the raw texts come from: the dataset hub, a mirror of it on disk, or corpora that the package makes."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, RootModel

from skimrnn.data.cloze import checked_cloze, cloze_digest, read_cbtest
from skimrnn.data.embedded import embedded_cloze, embedded_questions, embedded_split
from skimrnn.data.hub import open_hub
from skimrnn.data.registry import Dataset
from skimrnn.data.schemas import require_columns
from skimrnn.data.squad import checked_questions, questions_digest
from skimrnn.errors import UserError
from skimrnn.files import read_model, read_parquet, sha256_of_file, write_json, write_parquet


class MirroredFile(BaseModel):
    """What the manifest of a mirror says of one file, as far as it matters here."""

    sha256: str
    complete: bool | None
    revision: str | None = None


class MirrorManifest(RootModel[dict[str, MirroredFile]]):
    """The manifest of a mirror, by the names of the files."""


Read = Callable[[str], pa.Table]
"""Gives one split of a dataset, with at least the dataset's columns."""


def fetch_dataset(dataset: Dataset, source: str, mirror: Path | None, folder: Path) -> None:
    """Bring every split of `dataset` into `folder` as `<split>.parquet`, then `manifest.json`.

    The columns are text and label or, for a cloze dataset and for question answering, those that `checked_cloze` and
    `checked_questions` give. The manifest says, for each split, the rows, the rows of the official release and a digest
    of the content; and whether the whole is complete. Missing, truncated or malformed data is a `UserError`.
    """
    revision, read = _open(dataset, source, mirror)
    splits = {}
    for split, official_rows in dataset.rows.items():
        table = checked_split(read(split), dataset, split, f"{dataset.address} ({split}, from the {source})")
        digest = _digest(dataset)(table)
        write_parquet(folder / f"{split}.parquet", table)
        splits[split] = {"rows": table.num_rows, "official_rows": official_rows, "sha256": digest}
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


def checked_split(table: pa.Table, dataset: Dataset, split: str, place: str) -> pa.Table:
    """The columns of one split that count, after every check; `place` names it where one fails."""
    if dataset.task == "question_answering":
        return checked_questions(table, place)
    return checked_cloze(table, dataset, place) if dataset.cloze else _checked(table, dataset, split, place)


def _digest(dataset: Dataset) -> Callable[[pa.Table], str]:
    if dataset.task == "question_answering":
        return questions_digest
    return cloze_digest if dataset.cloze else content_digest


def content_digest(table: pa.Table) -> str:
    """SHA-256 of the texts and labels, whatever the file format or its version."""
    digest = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=10_000):
        for text, label in zip(batch["text"].to_pylist(), batch["label"].to_pylist(), strict=True):
            encoded = text.encode()
            digest.update(b"%d %d " % (label, len(encoded)))
            digest.update(encoded)
    return digest.hexdigest()


def _open(dataset: Dataset, source: str, mirror: Path | None) -> tuple[str | None, Read]:
    """The revision of a dataset in its source, where that has one, and what reads its splits."""
    if source == "hub":
        if not dataset.on_hub:
            raise UserError(
                f"{dataset.name} is not on the hub: set data.source to mirror, and data.mirror to its folder"
            )
        return open_hub(dataset)
    if source == "embedded":
        made = embedded_cloze if dataset.cloze else embedded_split
        if dataset.task == "question_answering":
            made = embedded_questions
        return None, lambda split: made(dataset, split)
    if source == "mirror" and mirror is not None:
        return _mirrored_revision(mirror, dataset), lambda split: read_mirrored(mirror, dataset, split)
    raise UserError(f"unknown data source {source!r}: choose hub, mirror (with its folder) or embedded")


def mirrored_file(mirror: Path, dataset: Dataset, split: str) -> Path:
    """Where a mirror has a split: `<address>/<split>.parquet` or, for CBT, the file of the unpacked CBTest.tgz."""
    if dataset.hub_id == "cam-cst/cbt":
        name = {"train": "train", "validation": "valid_2000ex", "test": "test_2500ex"}[split]
        text = mirror / "CBTest" / "data" / f"cbtest_{dataset.hub_config}_{name}.txt"
        if text.exists():
            return text
    return mirror / dataset.file(split)


def read_mirrored(mirror: Path, dataset: Dataset, split: str) -> pa.Table:
    """One split of a mirror as its file has it; a parquet file must be the one in the mirror's manifest."""
    path = mirrored_file(mirror, dataset, split)
    if path.suffix == ".txt":
        return read_cbtest(path)
    table = read_parquet(path)
    _hold_against_manifest(mirror, dataset, split, table.num_rows)
    return table


def listed_file(mirror: Path, dataset: Dataset, split: str) -> MirroredFile | None:
    """What the manifest of a mirror says of a split; None where there is no manifest, or it does not list the split."""
    if not (mirror / "manifest.json").is_file():
        return None
    return read_model(mirror / "manifest.json", MirrorManifest).root.get(dataset.file(split))


def _mirrored_revision(mirror: Path, dataset: Dataset) -> str | None:
    """The hub's revision that all files of a dataset in a mirror are of, where its manifest says so."""
    entries = [listed_file(mirror, dataset, split) for split in dataset.rows]
    revisions = {entry.revision if entry else None for entry in entries}
    return revisions.pop() if len(revisions) == 1 else None


def _hold_against_manifest(mirror: Path, dataset: Dataset, split: str, rows: int) -> None:
    """Refuse a file that is not the one in the mirror's manifest, and a manifest that hides that rows are missing."""
    if not (mirror / "manifest.json").is_file():
        return
    name = dataset.file(split)
    entry = listed_file(mirror, dataset, split)
    if entry is None:
        raise UserError(f"{mirror / name}: the mirror's manifest does not list it: make the mirror again")
    if entry.sha256 != sha256_of_file(mirror / name):
        raise UserError(f"{mirror / name}: its digest is not the manifest's: copy the file again")
    if entry.complete is not None and entry.complete != (rows == dataset.rows[split]):
        raise UserError(
            f"{mirror / name}: the manifest says complete: {str(entry.complete).lower()}, but it has {rows:,} of "
            f"the release's {dataset.rows[split]:,} rows: mend the manifest"
        )


def _checked(table: pa.Table, dataset: Dataset, split: str, place: str) -> pa.Table:
    """The two columns that count, as `text` (string) and `label` (int64), after every check."""
    text_column, label_column = dataset.columns
    require_columns(table, dataset.columns, place)
    try:
        checked = pa.table(
            {"text": table[text_column].cast(pa.string()), "label": table[label_column].cast(pa.int64())}
        )
        checked.validate(full=True)
    except MemoryError:  # Of Arrow, too.
        raise
    except pa.ArrowException as error:
        raise UserError(
            f"{place}: {text_column!r} must be text (UTF-8) and {label_column!r} a whole number: fetch the file again"
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
