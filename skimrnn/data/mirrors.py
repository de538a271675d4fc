"""Mirrors of the hub on disk: what they hold, whether it is whole, and how one is made.

A mirror holds `<address>/<split>.parquet` with the hub's columns, and may hold `manifest.json`: for each file its rows,
the rows of the official release, whether it is complete, its size and its SHA-256.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from skimrnn.data.hub import open_hub
from skimrnn.data.registry import Dataset
from skimrnn.data.sources import checked_split, hold_against_manifest
from skimrnn.errors import UserError
from skimrnn.files import read_json, read_parquet, sha256_of_file, write_json, write_parquet

State = Literal["complete", "partial", "missing", "damaged"]


@dataclass(frozen=True)
class File:
    """One split in a mirror; `fault` says what is wrong with a damaged one."""

    dataset: Dataset
    split: str
    state: State
    rows: int = 0
    bytes: int = 0
    fault: str = ""


def inspect_mirror(mirror: Path, datasets: Iterable[Dataset], *, thorough: bool) -> list[File]:
    """The state of every split of `datasets` in `mirror`, as far as its file says.

    `thorough` reads the files, too: every check of a fetch, and digests where the mirror has a manifest.
    """
    if not mirror.is_dir():
        raise UserError(f"{mirror}: no such folder: give the folder of a mirror")
    return [_inspect(mirror, dataset, split, thorough) for dataset in datasets for split in dataset.rows]


def _inspect(mirror: Path, dataset: Dataset, split: str, thorough: bool) -> File:
    name = f"{dataset.address}/{split}.parquet"
    path = mirror / name
    if not path.is_file():
        return File(dataset, split, "missing")
    size = path.stat().st_size
    try:
        rows = pq.read_metadata(path).num_rows
        if thorough:
            hold_against_manifest(mirror, dataset, split, rows)
            checked_split(read_parquet(path), dataset, split, name)
    except UserError as error:
        return File(dataset, split, "damaged", 0, size, str(error))
    except Exception as error:  # Of parquet, for what is none.
        return File(dataset, split, "damaged", 0, size, str(error).splitlines()[0])
    return File(dataset, split, "complete" if rows == dataset.rows[split] else "partial", rows, size)


def make_mirror(mirror: Path, datasets: Iterable[Dataset], tell: Callable[[str], None]) -> None:
    """Download `datasets` from the hub into `mirror`; a dataset that the manifest lists already is left alone."""
    manifest: dict[str, Any] = read_json(mirror / "manifest.json") if (mirror / "manifest.json").exists() else {}
    for dataset in datasets:
        names = {split: f"{dataset.address}/{split}.parquet" for split in dataset.rows}
        if all(name in manifest and (mirror / name).is_file() for name in names.values()):
            tell(f"{dataset.name}: there already")
            continue
        revision, read = open_hub(dataset)
        for split, name in names.items():
            table = read(split)
            checked_split(table, dataset, split, f"{dataset.address} ({split}, from the hub)")
            write_parquet(mirror / name, table)
            manifest[name] = {
                "rows": table.num_rows,
                "official_rows": dataset.rows[split],
                "complete": table.num_rows == dataset.rows[split],
                "bytes": (mirror / name).stat().st_size,
                "sha256": sha256_of_file(mirror / name),
                "revision": revision,
            }
        write_json(mirror / "manifest.json", manifest)
        tell(f"{dataset.name}: {sum(manifest[name]['rows'] for name in names.values()):,} rows, revision {revision}")
