"""What a person sees when something is wrong: one line, exit code 2, no traceback, nothing half-written."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner

from skimrnn.cli import app
from skimrnn.config import read_config
from skimrnn.data.prepare import Prepared
from skimrnn.data.registry import DATASETS
from skimrnn.errors import UserError
from skimrnn.files import (
    atomic_folder,
    atomic_path,
    explain_parquet_errors,
    read_json,
    write_bytes,
    write_parquet,
    write_text,
)
from tests.command_line import error_of, skimrnn, train_command
from tests.conftest import small_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "sst3"}, "unknown dataset 'sst3': the test config has sst"),
        ({"model": "gru"}, "unknown model 'gru': for sst the test config has lstm, skim"),
        ({"prepared": "nowhere"}, "cannot read nowhere/manifest.json: no such file or folder"),
        ({"config": "nowhere.yaml"}, "cannot read nowhere.yaml: no such file or folder"),
    ],
)
def test_unknown_names_and_missing_files(
    changes: dict[str, str], message: str, config_file: Path, prepared: Prepared, tmp_path: Path
) -> None:
    command = train_command(config_file, prepared, tmp_path / "run", **changes)
    assert message in error_of(skimrnn(*command))
    assert not (tmp_path / "run").exists()


def test_a_mistake_in_the_config_is_one_line(config_file: Path, prepared: Prepared, tmp_path: Path) -> None:
    values = yaml.safe_load(config_file.read_text())
    values["models"]["skim"]["small_size"] = 100
    config_file.write_text(yaml.safe_dump(values))
    process = skimrnn(*train_command(config_file, prepared, tmp_path / "run"))
    assert len(process.stderr.strip().splitlines()) == 1
    assert "config.yaml: models.skim.skim_lstm: small_size 100 is larger than hidden_size 24" in error_of(process)


def test_a_full_disk_ends_training_and_keeps_the_checkpoint(
    config_file: Path, prepared: Prepared, small_disk: Path
) -> None:
    process = skimrnn(*train_command(config_file, prepared, small_disk / "run"))
    assert "the disk is full: free some space and run the same command again" in error_of(process)
    assert not any(small_disk.glob("run/*"))


def test_a_full_disk_keeps_the_old_file_whole(small_disk: Path) -> None:
    write_bytes(small_disk / "record.json", b"old")
    with pytest.raises(UserError, match=r"cannot write .*record\.json: the disk is full"):
        write_bytes(small_disk / "record.json", bytes(100_000))
    assert (small_disk / "record.json").read_bytes() == b"old"
    assert [path.name for path in small_disk.iterdir()] == ["record.json"]


def test_a_read_only_folder_is_named(small_disk: Path, config_file: Path, prepared: Prepared) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    process = skimrnn(*train_command(config_file, prepared, small_disk / "run"))
    assert "the file system is read-only: choose a folder that can be written" in error_of(process)


def test_a_file_where_a_folder_is_needed(config_file: Path, prepared: Prepared, tmp_path: Path) -> None:
    write_text(tmp_path / "results", "")
    assert "cannot write" in error_of(skimrnn(*train_command(config_file, prepared, tmp_path / "results" / "run")))


def test_without_network_the_hub_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    values = small_config().model_dump(mode="json") | {"data": {"source": "hub"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    process = skimrnn(
        *("fetch", "--config", tmp_path / "config.yaml", "--dataset", "sst", "--output", tmp_path / "raw"),
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path / "cache"),
    )
    message = error_of(process)
    assert "cannot download SetFit/sst2 from https://huggingface.co" in message
    assert "check the network, or set data.source to mirror" in message
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"test.parquet": b""}, "test.parquet: truncated or not a parquet file: delete it"),
        ({"manifest.json": b"[]"}, "manifest.json: not a mirror manifest of this version (the whole: "),
        ({"manifest.json": b'{"SetFit/sst2/train.parquet": {}}'}, "(SetFit/sst2/train.parquet.sha256: Field required)"),
        ({"manifest.json": b"\xff"}, "manifest.json: not a UTF-8 text"),
    ],
)
def test_a_damaged_mirror_leaves_what_was_fetched_before(
    damage: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    """Nothing of the new files stays, not even of the splits that were read before the fault was met."""
    mirror, raw = tmp_path / "mirror", tmp_path / "raw"
    for split in DATASETS["sst"].rows:
        write_parquet(mirror / f"SetFit/sst2/{split}.parquet", pa.table({"text": ["a film"], "label": [0]}))
    values = small_config().model_dump(mode="json") | {"data": {"source": "mirror", "mirror": str(mirror)}}
    write_text(tmp_path / "config.yaml", yaml.safe_dump(values))
    command = ("fetch", "--config", tmp_path / "config.yaml", "--dataset", "sst", "--output", raw)
    assert skimrnn(*command).returncode == 0
    before = {path.name: path.read_bytes() for path in raw.iterdir()}
    assert len(before) == 4
    write_parquet(mirror / "SetFit/sst2/train.parquet", pa.table({"text": ["another film"], "label": [0]}))
    for name, content in damage.items():
        write_bytes(mirror / (name if name == "manifest.json" else f"SetFit/sst2/{name}"), content)
    assert message in error_of(skimrnn(*command))
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "mirror", "raw"]


def test_a_folder_is_written_whole_and_other_files_in_it_stay(tmp_path: Path) -> None:
    write_text(tmp_path / "data" / "notes.txt", "mine")
    write_text(tmp_path / "data" / "manifest.json", "old")
    with pytest.raises(KeyError), atomic_folder(tmp_path / "data") as folder:
        write_text(folder / "manifest.json", "half")
        raise KeyError
    assert (tmp_path / "data" / "manifest.json").read_text() == "old"
    with atomic_folder(tmp_path / "data") as folder:
        write_text(folder / "manifest.json", "new")
        write_text(folder / "train.txt", "new")
        assert (tmp_path / "data" / "manifest.json").read_text() == "old"
    assert {path.name: path.read_text() for path in (tmp_path / "data").iterdir()} == {
        "notes.txt": "mine",
        "manifest.json": "new",
        "train.txt": "new",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_config_in_another_encoding_is_one_line(prepared: Prepared, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes("scale: café".encode("utf-16"))
    command = train_command(tmp_path / "config.yaml", prepared, tmp_path / "run")
    assert "config.yaml: not a UTF-8 text: give another file" in error_of(skimrnn(*command))


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")

    def interrupted() -> None:
        with atomic_path(tmp_path / "file") as temporary:
            temporary.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_preparation_waits_for_snakemake(signal_number: int, config_file: Path, tmp_path: Path) -> None:
    """Else it would leave its lock and its steps behind. A stand-in, which takes longer than Python gives it."""
    (tmp_path / "Snakefile").touch()
    (tmp_path / "snakemake").mkdir()
    (tmp_path / "snakemake" / "__init__.py").touch()
    (tmp_path / "snakemake" / "__main__.py").write_text(
        "import pathlib, time\ntry:\n    pathlib.Path('begun').touch()\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(1)\n    pathlib.Path('unlocked').touch()\n"
    )
    command = [sys.executable, "-m", "skimrnn", "data", "prepare", "--config", config_file]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # As in the background of a script.
    )
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "interrupted: run the same command to go on\n")
    assert (tmp_path / "unlocked").exists()


def test_every_verb_explains_itself() -> None:
    overview = skimrnn("--help").stdout
    runner = CliRunner()
    for command in app.registered_commands:
        assert command.callback is not None and command.callback.__doc__
        verb = command.callback.__name__.replace("_", "-")
        assert verb in overview
        assert runner.invoke(app, [verb, "--help"]).exit_code == 0


def test_a_folder_on_another_disk_is_written_through_its_link(tmp_path: Path):
    if not (shm := Path("/dev/shm")).is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as other:
        (tmp_path / "data").symlink_to(other)
        for text in ("old", "new"):
            with atomic_folder(tmp_path / "data") as folder:
                write_text(folder / "manifest.json", text)
        assert (Path(other) / "manifest.json").read_text() == "new"
        assert (tmp_path / "data").is_symlink() and [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_is_a_disk_of_its_own_is_written_from_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "data")
    with atomic_folder(tmp_path / "data") as folder:
        assert folder.parent == tmp_path / "data"
        write_text(folder / "manifest.json", "new")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("text", ["NaN", "[1, -Infinity]"])
def test_what_json_does_not_know_is_refused(text: str, tmp_path: Path):
    write_text(tmp_path / "x.json", text)
    with pytest.raises(UserError, match=r"x\.json: not JSON that can be read \(-?[A-Z]\w+ is no number\)"):
        read_json(tmp_path / "x.json")


def test_memory_that_arrow_lacks_is_no_damaged_file(tmp_path: Path):
    write_parquet(tmp_path / "x.parquet", pa.table({"x": [1]}))
    with pytest.raises(MemoryError), explain_parquet_errors(tmp_path / "x.parquet"):
        raise pa.ArrowMemoryError("malloc of size 64 failed")


def test_yaml_where_nothing_reads_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_text(tmp_path / "x.yaml", "scale: paper")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UserError, match=r"YAML needs PyYAML.*python -m skimrnn config --config .*x\.yaml"):
        read_config(tmp_path / "x.yaml")
