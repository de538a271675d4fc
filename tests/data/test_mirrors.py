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


def line_of(dataset: str, split: str, output: str) -> str:
    """What the table of a mirror says of one split, single-spaced."""
    lines = [" ".join(line.split()) for line in output.splitlines()]
    return next(line for line in lines if line.startswith(f"{dataset} {split} ")).removeprefix(f"{dataset} {split} ")


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
        ("test", "missing", None),
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
    assert result.stderr == f"error: {path}: truncated or not a parquet file: delete it and fetch or make it again\n"
    assert line_of("sst", "train", result.stdout).startswith("partial 3 of 6,920")
    assert line_of("sst", "test", result.stdout).startswith("damaged")
    assert "Traceback" not in result.output
    result = CliRunner().invoke(app, ["data", "verify", str(small_mirror / "nowhere")])
    assert result.exit_code == 2
    assert "no such folder" in result.output


def test_verify_misses_what_was_named_or_everything(small_mirror: Path, tmp_path: Path) -> None:
    (small_mirror / "manifest.json").unlink()
    (tmp_path / "empty").mkdir()
    arguments = [(small_mirror,), (small_mirror, "sst"), (small_mirror, "sst", "imdb"), (tmp_path / "empty",)]
    results = [CliRunner().invoke(app, ["data", "verify", *map(str, given)]) for given in arguments]
    assert [result.exit_code for result in results] == [0, 0, 2, 2]
    assert results[2].stderr.endswith("train.parquet: no such file: data fetch downloads what is missing\n")


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """A mirror with CBT-NE as CBTest.tgz has it: the official size in validation, two questions in the other splits."""
    folder = tmp_path / "CBTest" / "data"
    folder.mkdir(parents=True)
    question = "1 A hen sat .\n2 The XXXXX ran .\then\t\tfox|hen\n\n"
    for name, rows in (("train", 2), ("valid_2000ex", 2_000), ("test_2500ex", 2)):
        (folder / f"cbtest_NE_{name}.txt").write_text(question * rows)
    return tmp_path


def test_the_list_says_that_the_text_of_the_release_is_there_and_how_large(unpacked: Path) -> None:
    result = CliRunner().invoke(app, ["data", "list", "--mirror", str(unpacked)])
    assert result.exit_code == 0
    file = unpacked / "CBTest" / "data" / "cbtest_NE_train.txt"
    size = f"{file.stat().st_size / 1e3:.1f} kB"
    assert line_of("cbt_ne", "train", result.stdout) == f"unread ? of 108,719 {size} CBTest/data/cbtest_NE_train.txt"
    assert line_of("cbt_cn", "train", result.stdout) == "missing cam-cst/cbt/CN/train.parquet"


def test_verify_counts_the_questions_of_the_text_of_the_release(unpacked: Path) -> None:
    result = CliRunner().invoke(app, ["data", "verify", str(unpacked), "cbt_ne"])
    assert result.exit_code == 0
    assert line_of("cbt_ne", "train", result.stdout).startswith("partial 2 of 108,719 ")
    assert line_of("cbt_ne", "validation", result.stdout).startswith("complete 2,000 of 2,000 ")
    assert line_of("cbt_ne", "test", result.stdout).startswith("partial 2 of 2,500 ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2 The XXXXX ran .\then\t\tfox|hen\n\n", "", "line 2: not sentence 2: unpack CBTest.tgz again"),
        ("fox|hen", "fox|cow", "the answer 'hen' does not stand among fox, cow (1 rows): fetch the file again"),
        ("hen sat", "hen \udcff sat", "line 1: not UTF-8: unpack CBTest.tgz again"),
    ],
)
def test_verify_names_what_is_wrong_with_a_text_of_the_release(
    old: str, new: str, message: str, unpacked: Path
) -> None:
    file = unpacked / "CBTest" / "data" / "cbtest_NE_train.txt"
    file.write_bytes(file.read_text().replace(old, new, 1).encode(errors="surrogateescape"))
    result = CliRunner().invoke(app, ["data", "verify", str(unpacked), "cbt_ne"])
    assert result.exit_code == 2
    assert line_of("cbt_ne", "train", result.stdout).startswith("damaged")
    assert line_of("cbt_ne", "validation", result.stdout).startswith("complete")
    assert result.stderr.startswith(f"error: {file}") and result.stderr.endswith(f"{message}\n")
    assert result.stderr.count("\n") == 1


def test_the_list_names_every_dataset_and_its_licence() -> None:
    result = CliRunner().invoke(app, ["data", "list"])
    lines = result.stdout.splitlines()
    licences = " ".join(line[lines[0].index("licence") :].strip() for line in lines)
    for dataset in DATASETS.values():
        assert dataset.name in result.stdout and dataset.licence in licences
    assert "cbt-mini/NE (not on the hub)" in result.stdout


def test_the_real_mirror_is_what_it_says(mirror: Path) -> None:
    files = inspect_mirror(mirror, [DATASETS[name] for name in ("sst", "ag_news", "cbt_mini_ne")], thorough=True)
    found = {(file.dataset.name, file.split): file.state for file in files}
    assert found.pop(("ag_news", "train")) == "partial"
    assert set(found.values()) == {"complete"}
