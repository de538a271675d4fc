"""What data there is, as text for a terminal."""

from collections.abc import Iterable
from pathlib import Path

from tabulate import tabulate

from skimrnn.data.mirrors import File
from skimrnn.data.registry import DATASETS

_LICENCE_WIDTH = 40


def dataset_list() -> str:
    """One entry a dataset: its name, title, address, rows of the release, licence (folded where it is long)."""
    rows = [
        [
            dataset.name,
            dataset.title,
            dataset.address if dataset.on_hub else f"{dataset.address} (not on the hub)",
            " / ".join(f"{rows:,}" for rows in dataset.rows.values()),
            dataset.licence,
        ]
        for dataset in DATASETS.values()
    ]
    columns = ["name", "dataset", "address", "rows", "licence"]
    return tabulate(rows, columns, "simple", disable_numparse=True, maxcolwidths=[None] * 4 + [_LICENCE_WIDTH])


def mirror_table(files: Iterable[File], mirror: Path) -> str:
    """One line a split of a mirror: its state, its rows of those of the release, its size, its file."""
    rows = [
        [
            file.dataset.name,
            file.split,
            file.state,
            _rows(file),
            _size(file.bytes) if file.bytes else "",
            file.path.relative_to(mirror),
        ]
        for file in files
    ]
    return tabulate(rows, ["name", "split", "state", "rows", "size", "file"], "simple", disable_numparse=True)


def _rows(file: File) -> str:
    release = f"of {file.dataset.rows[file.split]:,}"
    if file.rows is not None:
        return f"{file.rows:,} {release}"
    return f"? {release}" if file.state == "unread" else ""


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
