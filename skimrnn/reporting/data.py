"""What data there is, as text for a terminal."""

from collections.abc import Iterable

from tabulate import tabulate

from skimrnn.data.mirrors import File
from skimrnn.data.registry import DATASETS


def dataset_list() -> str:
    """One line a dataset: its name, title, address, rows of the release, licence."""
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
    return tabulate(rows, ["name", "dataset", "address", "rows", "licence"], "simple", disable_numparse=True)


def mirror_table(files: Iterable[File]) -> str:
    """One line a split: its state, rows and size."""
    rows = [
        [
            file.dataset.name,
            file.split,
            file.state,
            f"{file.rows:,} of {file.dataset.rows[file.split]:,}" if file.rows else "",
            f"{file.bytes / 1e6:.1f} MB" if file.bytes else "",
        ]
        for file in files
    ]
    return tabulate(rows, ["name", "split", "state", "rows", "size"], "simple", disable_numparse=True)
