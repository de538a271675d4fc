"""What a mirror holds is said truly: complete, partial, missing or damaged."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from skimrnn.cli import app
from skimrnn.data.mirrors import inspect_mirror
from skimrnn.data.registry import DATASETS, Dataset
from skimrnn.data.sources import fetch_dataset
from skimrnn.errors import UserError
from skimrnn.files import read_json, sha256_of_file

SST = replace(DATASETS["sst"], rows={"train": 3, "validation": 2, "test": 2})


@pytest.fixture
def small_mirror(tmp_path: Path) -> Path:
    """A mirror with SST alone, whose release has three rows, two and two."""
    mirror = tmp_path / "mirror"
    for split, rows in SST.rows.items():
        write(mirror, split, [f"{split} film {number}" for number in range(rows)])
    write_manifest(mirror)
    return mirror


def write(mirror: Path, split: str, texts: list[str]) -> Path:
    path = mirror / SST.address / f"{split}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts, "label": [0] * len(texts)}), path)
    return path


def write_manifest(mirror: Path, **claims: bool) -> None:
    entries = {}
    for split, official in SST.rows.items():
        path = mirror / SST.address / f"{split}.parquet"
        rows = pq.read_metadata(path).num_rows
        entries[f"{SST.address}/{split}.parquet"] = {
            "rows": rows,
            "complete": claims.get(split, rows == official),
            "sha256": sha256_of_file(path),
        }
    (mirror / "manifest.json").write_text(json.dumps(entries))


def states(mirror: Path, dataset: Dataset = SST) -> dict[str, str]:
    return {file.split: file.state for file in inspect_mirror(mirror, [dataset], thorough=True)}


def test_a_whole_mirror_is_complete(small_mirror: Path, tmp_path: Path) -> None:
    assert states(small_mirror) == dict.fromkeys(SST.rows, "complete")
    fetch_dataset(SST, "mirror", small_mirror, tmp_path / "raw")
    assert read_json(tmp_path / "raw" / "manifest.json")["complete"] is True


def test_missing_rows_are_said_by_the_mirror_and_by_what_is_made_from_it(small_mirror: Path, tmp_path: Path) -> None:
    write(small_mirror, "train", ["one film"])
    (small_mirror / SST.address / "test.parquet").unlink()
    files = inspect_mirror(small_mirror, [SST], thorough=False)
    assert [(file.split, file.state, file.rows) for file in files] == [
        ("train", "partial", 1),
        ("validation", "complete", 2),
        ("test", "missing", 0),
    ]
    write(small_mirror, "test", ["a", "b"])
    write_manifest(small_mirror)
    fetch_dataset(SST, "mirror", small_mirror, tmp_path / "raw")
    assert read_json(tmp_path / "raw" / "manifest.json")["complete"] is False


@pytest.mark.parametrize("claim", [True, False])
def test_a_manifest_that_hides_missing_rows_is_refused(claim: bool, small_mirror: Path, tmp_path: Path) -> None:
    if claim:
        write(small_mirror, "train", ["one film"])
    write_manifest(small_mirror, train=claim)
    message = f"says complete: {str(claim).lower()}, but it has {1 if claim else 3} of the release's 3 rows"
    with pytest.raises(UserError, match=message):
        fetch_dataset(SST, "mirror", small_mirror, tmp_path / "raw")
    assert states(small_mirror)["train"] == "damaged"


def test_a_file_that_is_not_the_manifests_is_refused(small_mirror: Path, tmp_path: Path) -> None:
    write(small_mirror, "validation", ["another film", "and another"])
    with pytest.raises(UserError, match=r"validation\.parquet: its digest is not the manifest's: copy the file again"):
        fetch_dataset(SST, "mirror", small_mirror, tmp_path / "raw")
    assert states(small_mirror)["validation"] == "damaged"
    assert not (tmp_path / "raw" / "manifest.json").exists()


def test_a_file_that_the_manifest_does_not_list_is_refused(small_mirror: Path, tmp_path: Path) -> None:
    (small_mirror / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="the mirror's manifest does not list it"):
        fetch_dataset(SST, "mirror", small_mirror, tmp_path / "raw")


def test_verify_ends_with_the_first_fault_and_exit_code_2(small_mirror: Path) -> None:
    path = write(small_mirror, "test", ["a", "b"])
    path.write_bytes(path.read_bytes()[:-30])
    (small_mirror / "manifest.json").unlink()
    result = CliRunner().invoke(app, ["data", "verify", str(small_mirror), "sst"])
    assert result.exit_code == 2
    assert "test" in result.stdout and "damaged" in result.stdout
    assert "partial" in result.stdout  # The train split has 3 of 6,920 rows.
    assert "Traceback" not in result.output
    result = CliRunner().invoke(app, ["data", "verify", str(small_mirror / "nowhere")])
    assert result.exit_code == 2
    assert "no such folder" in result.output


def test_the_list_names_every_dataset_and_its_licence() -> None:
    result = CliRunner().invoke(app, ["data", "list"])
    for dataset in DATASETS.values():
        assert dataset.name in result.stdout and dataset.licence in result.stdout
    assert "cbt-mini/NE (not on the hub)" in result.stdout


def test_the_real_mirror_is_what_it_says(mirror: Path) -> None:
    files = inspect_mirror(mirror, [DATASETS[name] for name in ("sst", "ag_news", "cbt_mini_ne")], thorough=True)
    found = {(file.dataset.name, file.split): file.state for file in files}
    assert found.pop(("ag_news", "train")) == "partial"
    assert set(found.values()) == {"complete"}
