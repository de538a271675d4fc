"""Mirrors of the hub on disk: what they hold, whether it is whole, and how one is made.

A mirror holds `<address>/<split>.parquet` with the hub's columns, and may hold `manifest.json`: for each file its rows,
the rows of the official release, whether it is complete, its size and its SHA-256. The Children's Book Test may lie
there as its release has it instead, CBTest.tgz unpacked: `CBTest/data/cbtest_<config>_<split>.txt`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from skimrnn.data.hub import open_hub
from skimrnn.data.registry import DATASETS, Dataset
from skimrnn.data.sources import MirrorManifest, checked_split, listed_file, mirrored_file, read_mirrored
from skimrnn.errors import UserError
from skimrnn.files import only_user, read_json, read_model, read_parquet, sha256_of_file, write_json, write_parquet

_REVISION = b"hub_revision"  # In the metadata of a file that came from the hub.

State = Literal["complete", "partial", "unread", "missing", "damaged"]
"""Of a split: as many rows as the release; another number; there, but to be read whole before its rows are known; not
there; not what it should be."""


@dataclass(frozen=True)
class File:
    """One split in a mirror; `rows` is None where they are not known, `fault` says what is wrong with a damaged one."""

    dataset: Dataset
    split: str
    path: Path
    state: State
    rows: int | None = None
    bytes: int = 0
    fault: str = ""


def inspect_mirror(mirror: Path, datasets: Iterable[Dataset], *, thorough: bool) -> Iterator[File]:
    """The state of every split of `datasets` in `mirror`, as far as its file says; each as soon as it is known.

    `thorough` reads the files, too: every check of a fetch, and digests where the mirror has a manifest.
    """
    if not mirror.is_dir():
        raise UserError(f"{mirror}: no such folder: give the folder of a mirror")
    return (_inspect(mirror, dataset, split, thorough) for dataset in datasets for split in dataset.rows)


def _inspect(mirror: Path, dataset: Dataset, split: str, thorough: bool) -> File:
    path = mirrored_file(mirror, dataset, split)
    if not path.is_file():
        if thorough and listed_file(mirror, dataset, split):
            fault = f"{path}: the manifest lists it, and it is not there: copy the mirror again"
            return File(dataset, split, path, "damaged", None, 0, fault)
        return File(dataset, split, path, "missing")
    size = path.stat().st_size
    try:
        if thorough:
            rows = checked_split(read_mirrored(mirror, dataset, split), dataset, split, str(path)).num_rows
        elif path.suffix == ".txt":
            return File(dataset, split, path, "unread", None, size)
        else:
            rows = pq.read_metadata(path).num_rows
    except UserError as error:
        return File(dataset, split, path, "damaged", None, size, str(error))
    except MemoryError:  # Of Arrow, too.
        raise
    except (pa.ArrowException, OSError) as error:
        return File(dataset, split, path, "damaged", None, size, f"{path}: {error}")
    return File(dataset, split, path, "complete" if rows == dataset.rows[split] else "partial", rows, size)


def make_mirror(mirror: Path, datasets: Iterable[Dataset], tell: Callable[[str], None]) -> None:
    """Download from the hub into `mirror` what it lacks of `datasets`.

    Files of any dataset that lie there and are not in its manifest are checked, and listed in it.
    """
    with only_user(mirror, "fetches data"):
        _complete(mirror, list(datasets), tell)


def _complete(mirror: Path, datasets: list[Dataset], tell: Callable[[str], None]) -> None:
    manifest: dict[str, Any] = {}
    if (path := mirror / "manifest.json").exists():
        read_model(path, MirrorManifest)
        manifest = read_json(path)  # With what else it says of each file.
    unlisted = {
        name: (dataset, split)
        for dataset in {dataset.name: dataset for dataset in (*DATASETS.values(), *datasets)}.values()
        for split in dataset.rows
        if (name := dataset.file(split)) not in manifest and (mirror / name).is_file()
    }
    for name, (dataset, split) in unlisted.items():
        table = read_parquet(mirror / name)
        checked_split(table, dataset, split, str(mirror / name))
        revision = (table.schema.metadata or {}).get(_REVISION)  # Where a download was killed before it was listed.
        manifest[name] = _entry(mirror / name, table.num_rows, dataset.rows[split], revision and revision.decode())
        tell(f"{name}: there already, and now in the manifest")
    if unlisted:
        write_json(mirror / "manifest.json", manifest)
    for dataset in datasets:
        if not dataset.on_hub:
            raise UserError(f"{dataset.name} is not on the hub: README says where it comes from")
        names = {split: dataset.file(split) for split in dataset.rows}
        lacking = [split for split, name in names.items() if not (name in manifest and (mirror / name).is_file())]
        if not lacking:
            tell(f"{dataset.name}: there already")
            continue
        revision, read = open_hub(dataset)
        for split in lacking:
            table, path = read(split), mirror / names[split]
            checked_split(table, dataset, split, f"{dataset.address} ({split}, from the hub)")
            metadata = {**(table.schema.metadata or {}), _REVISION: revision}
            write_parquet(path, table.replace_schema_metadata(metadata))
            manifest[names[split]] = _entry(path, table.num_rows, dataset.rows[split], revision)
            write_json(mirror / "manifest.json", manifest)
        fetched = sum(manifest[names[split]]["rows"] for split in lacking)
        tell(f"{dataset.name}: {fetched:,} rows of {', '.join(lacking)}, revision {revision}")


def _entry(path: Path, rows: int, official_rows: int, revision: str | None) -> dict[str, Any]:
    return {
        "rows": rows,
        "official_rows": official_rows,
        "complete": rows == official_rows,
        "bytes": path.stat().st_size,
        "sha256": sha256_of_file(path),
        "revision": revision,
    }
