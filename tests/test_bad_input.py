"""Wrong folders, damaged files and absurd values: one line that says what and where, exit code 2, nothing written."""

import errno
import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from typer.testing import CliRunner, Result

from skimrnn.cli import app
from skimrnn.data import download
from skimrnn.data.cloze import checked_cloze
from skimrnn.data.prepare import Prepared
from skimrnn.data.registry import DATASETS
from skimrnn.errors import UserError
from skimrnn.files import atomic_path, read_json, sha256_of_file, write_json, write_parquet, write_tensors, write_text
from tests.conftest import small_config

Damage = Callable[[Path], None]


@pytest.fixture
def stages(prepared: Prepared, tmp_path: Path) -> Path:
    """A folder of its own with what each step made of SST, and a config."""
    shutil.copytree(prepared.folder.parent, tmp_path / "sst")
    values = small_config().model_dump(mode="json")
    values["datasets"]["rotten_tomatoes"] = values["datasets"]["sst"]
    write_text(tmp_path / "config.yaml", yaml.safe_dump(values))
    return tmp_path


def run(stages: Path, *command: str, config: str = "config.yaml") -> Result:
    """Run a verb with a config of the folder, which `@` stands for."""
    verb, *options = (part.replace("@", f"{stages}/") for part in command)
    return CliRunner().invoke(app, [verb, "--config", str(stages / config), *options])


def refusal_of(stages: Path, *command: str, config: str = "config.yaml") -> str:
    """The one line of a command that fails and writes nothing."""
    before = sorted(stages.rglob("*"))
    result = run(stages, *command, config=config)
    assert result.exit_code == 2, (result.output, result.exception)
    assert sorted(stages.rglob("*")) == before
    (line,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    return line


RUN = ("--dataset", "sst", "--model", "lstm", "--seed", "0", "--prepared", "@sst/prepared")
TRAIN = ["train", *RUN, "--output", "@out"]
EVALUATE = ["evaluate", *RUN, "--run", "@out", "--output", "@0.json"]
TOKENISE = ["tokenise", "--dataset", "sst", "--raw", "@sst/raw", "--output", "@out"]
VECTORS = ("--vectors", "@sst/vectors.safetensors")
PREPARE = ["prepare", "--dataset", "sst", "--tokens", "@sst/tokens", *VECTORS, "--output", "@out"]


def changed(command: list[str], **options: str) -> list[str]:
    """The command with other values of some options."""
    command = list(command)
    for name, value in options.items():
        command[command.index(f"--{name}") + 1] = value
    return command


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (changed(PREPARE, dataset="rotten_tomatoes"), "sst/tokens: holds 'sst', not 'rotten_tomatoes'"),
        (changed(TOKENISE, dataset="rotten_tomatoes"), "sst/raw: holds 'sst', not 'rotten_tomatoes'"),
        (changed(PREPARE, tokens="@sst/raw"), "sst/raw: another step's folder (its manifest has no 'unlabelled')"),
        (changed(PREPARE, vectors="@sst/prepared/vectors.safetensors"), "no tensor 'words' in it"),
        (changed(TOKENISE, raw="@sst/tokens"), "train.parquet: no column 'text' in it"),
        (changed(TRAIN, prepared="@sst/tokens"), "sst/tokens: another step's folder (its manifest has no 'digest')"),
        (["vectors", "--tokens", "@sst/raw", "--output", "@out"], "sst/raw: another step's folder"),
        (["vectors", "--output", "@out"], "vectors.source corpus needs texts to train on: give --tokens"),
        (
            ["analyse", "--dataset", "sst3", "--prepared", "x", "--tokens", "x", "--runs", "x", "--output", "@out"],
            "unknown dataset 'sst3': the test config has",
        ),
        (
            ["speed", "--dataset", "imdb", "--prepared", "@sst/prepared", "--runs", "x", "--output", "@out"],
            "holds 'sst', not 'imdb'",
        ),
        (
            ["figures", "--results", "@", "--output", "@out", "--task", "question_answering"],
            "no datasets of the task question_answering: it has some of classification",
        ),
        ([*TRAIN, "--start", "@nothing"], "lstm starts from no other model: leave --start out"),
        (changed(TRAIN, output="@config.yaml"), "config.yaml: this is a file, a folder is needed"),
    ],
)
def test_another_steps_folder(command: list[str], message: str, stages: Path) -> None:
    assert message in refusal_of(stages, *command)


def test_a_folder_in_a_files_place_is_told_before_the_work(stages: Path) -> None:
    result = run(stages, *changed(EVALUATE, output="@sst", run="@nowhere"))
    assert result.exit_code == 2 and "Invalid value for '--output'" in result.output


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def without_digest(path: Path) -> None:
    values = read_json(path)
    del values["digest"]
    write_json(path, values)


@pytest.mark.parametrize(
    ("command", "file", "damage", "message"),
    [
        (PREPARE, "tokens/validation.parquet", truncated, "truncated or not a parquet file"),
        (PREPARE, "tokens/train.parquet", emptied, "truncated or not a parquet file"),
        (PREPARE, "tokens/train.parquet", Path.unlink, "train.parquet: no such file"),
        (TRAIN, "prepared/manifest.json", lambda path: path.write_text("[]"), "not a manifest of this pipeline"),
        (TRAIN, "prepared/manifest.json", lambda path: path.write_text("null"), "not a manifest of this pipeline"),
        (TRAIN, "prepared/manifest.json", without_digest, "its manifest has no 'digest'"),
        (TRAIN, "prepared/manifest.json", lambda path: path.write_text("[" * 100_000), "not JSON that can be read"),
        (
            TRAIN,
            "prepared/train.safetensors",
            lambda path: write_tensors(path, {"vectors": torch.ones(2)}),
            "train.safetensors: damaged, or of another preparation than its manifest",
        ),
    ],
)
def test_a_damaged_file(command: list[str], file: str, damage: Damage, message: str, stages: Path) -> None:
    damage(stages / "sst" / file)
    line = refusal_of(stages, *command)
    assert message in line and (Path(file).name in line or str(Path(file).parent) in line)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scale: 2024-99-99", "not valid YAML"),
        ("scale: !!float abc", "not valid YAML"),
        (f"seeds: [{'9' * 5_000}]", "not valid YAML"),
        (f"seeds: {'[' * 5_000}", "not valid YAML"),
        ("scale: {{scale}}", "not valid YAML (line 1)"),
        ("[scale]: paper", "not valid YAML (line 1)"),
        ("scale: \x1b[1mpaper", "not valid YAML"),
        ("", "the whole: is empty"),
        ("- 1", "the whole: must be keys with values"),
        ("scale: one\nscale: two", "the key 'scale' is given twice"),
        ("models:\n  lstm: {hidden_size: 1, hidden_size: 2}", "the key 'hidden_size' is given twice"),
    ],
)
def test_a_config_that_cannot_be_read(text: str, message: str, stages: Path) -> None:
    write_text(stages / "bad.yaml", text)
    assert f"bad.yaml: {message}" in refusal_of(stages, *TRAIN, config="bad.yaml")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data", {"source": "embedded", "seed": 2**32}, "data.seed: Input should be less than or equal to 4294967295"),
        ("data", {"source": "hub", "mirror": "m"}, "data: mirror names a folder, but source is hub"),
        ("vectors", {"path": "v.txt"}, "vectors: path names a file, but source is glove"),
        ("seeds", [False], "the whole: seeds is true or false (in YAML yes or no)"),
        ("training", {"patience": True}, "training: patience is true or false"),
        ("vectors", {"source": "file", "path": "a\0b"}, "vectors: path holds the character NUL"),
        ("seeds", [2**32], "seeds: seeds must be distinct, not negative and at most 4294967295"),
    ],
)
def test_a_value_that_cannot_be(key: str, value: object, message: str, stages: Path) -> None:
    values = yaml.safe_load((stages / "config.yaml").read_text())
    write_text(stages / "config.yaml", yaml.safe_dump(values | {key: value}))
    assert f"config.yaml: {message}" in refusal_of(stages, *TRAIN)


def test_what_a_merge_brings_may_be_given_anew(stages: Path) -> None:
    text = (stages / "config.yaml").read_text() + "\n"
    text = text.replace(
        "models:\n", "models:\n  other: {<<: &base {architecture: lstm, hidden_size: 8}, hidden_size: 9}\n"
    )
    write_text(stages / "config.yaml", text)
    result = run(stages, "config", "--output", "@c.json")
    assert result.exit_code == 0, result.output
    assert read_json(stages / "c.json")["models"]["other"]["hidden_size"] == 9


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_a_seed_out_of_range(seed: str, stages: Path) -> None:
    result = run(stages, *changed(TRAIN, seed=seed))
    assert result.exit_code == 2 and "than or equal to" in result.output and not (stages / "out").exists()


def vector_file(stages: Path, name: str, write: Damage) -> list[str]:
    """A command that reads a file of word vectors in three dimensions."""
    write(stages / name)
    values = yaml.safe_load((stages / "config.yaml").read_text())
    values["vectors"] = {"source": "file", "path": str(stages / name), "dimension": 3}
    write_text(stages / "config.yaml", yaml.safe_dump(values))
    return ["vectors", "--output", "@out"]


def broken_archive(path: Path) -> None:
    numbers = np.random.default_rng(0).random((300, 3))
    packed = bytearray(gzip.compress("".join(f"word {a} {b} {c}\n" for a, b, c in numbers).encode()))
    packed[1_000:1_400] = bytes(400)
    path.write_bytes(packed)


def words(*names: str) -> dict[str, np.ndarray]:
    return {"words": np.array(names), "vectors": np.ones((len(names), 3), np.float32)}


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("v.txt", lambda path: path.write_text("good 1 2 3\nbad 1 nan 3\n"), "the vector of 'bad' is not finite"),
        ("v.txt", lambda path: path.write_text("good 1 2 1e60\n"), "the vector of 'good' is not finite"),
        ("v.npz", lambda path: np.savez(path, **words("a\nb")), "holds a line break"),
        ("v.npz", lambda path: np.savez(path, **(words("a") | {"words": np.array("a")})), "needs arrays words and"),
        ("v.npz", lambda path: np.save(path.open("wb"), np.ones(3)), "needs arrays words and vectors"),
        ("v.gz", broken_archive, "truncated or not a text of word vectors"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_bad_word_vectors(name: str, write: Damage, message: str, stages: Path) -> None:
    assert message in refusal_of(stages, *vector_file(stages, name, write))


def test_no_word_is_frequent_enough(stages: Path) -> None:
    values = yaml.safe_load((stages / "config.yaml").read_text())
    values["vectors"]["min_count"] = 10_000_000
    write_text(stages / "config.yaml", yaml.safe_dump(values))
    message = "no word stands 10000000 times in the texts: lower vectors.min_count"
    assert message in refusal_of(stages, "vectors", "--tokens", "@sst/tokens", "--output", "@out")


def test_what_is_not_a_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: it is there and not a file"), atomic_path(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "through")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "through"


def test_a_path_that_is_too_long_is_one_line(stages: Path) -> None:
    assert "File name too long" in refusal_of(stages, *changed(TRAIN, output=f"@{'x' * 5_000}"))


def test_an_unfinished_classifier_is_not_scored(stages: Path) -> None:
    assert run(stages, *TRAIN, "--until", "20").exit_code == 0
    assert "out: the run is not finished: train on" in refusal_of(stages, *EVALUATE)


@pytest.mark.parametrize("text", ["null", "[]", '{"SetFit/sst2/test.parquet": {}}'])
def test_a_mirrors_manifest_that_is_none(text: str, tmp_path: Path) -> None:
    write_text(tmp_path / "manifest.json", text)
    result = CliRunner().invoke(app, ["data", "fetch", str(tmp_path), "sst"])
    assert result.exit_code == 2 and "manifest.json: not a mirror manifest of this version" in result.output


def test_weights_of_another_config_are_not_timed(stages: Path) -> None:
    run = stages / "runs" / "sst" / "skim" / "0"
    write_tensors(run / "weights.safetensors", {"embedding.weight": torch.ones(2, 2)}, {"run": "of another config"})
    command = ["speed", "--dataset", "sst", "--prepared", "@sst/prepared", "--runs", "@runs", "--output", "@out"]
    assert "weights.safetensors: of another config or other data" in refusal_of(stages, *command)


def test_a_mirror_that_lacks_what_its_manifest_lists_is_damaged(tmp_path: Path) -> None:
    listed = {}
    for name in (f"SetFit/sst2/{split}.parquet" for split in DATASETS["sst"].rows):
        write_parquet(tmp_path / name, pa.table({"text": ["a film"], "label": [0]}))
        listed[name] = {"sha256": sha256_of_file(tmp_path / name), "complete": None}
    write_json(tmp_path / "manifest.json", listed)
    verify = ["data", "verify", str(tmp_path), "sst"]
    assert CliRunner().invoke(app, verify).exit_code == 0
    (tmp_path / "SetFit/sst2/test.parquet").unlink()
    result = CliRunner().invoke(app, verify)
    assert result.exit_code == 2 and "test.parquet: the manifest lists it, and it is not there" in result.output
    result = CliRunner().invoke(app, ["data", "fetch", str(tmp_path), "cbt_mini_ne"])
    assert result.exit_code == 2 and "cbt_mini_ne is not on the hub" in result.output


def test_a_sentence_that_is_missing_from_a_question() -> None:
    row = {"sentences": [["A hen .", None]], "question": ["A XXXXX ."], "answer": ["hen"], "options": [["hen", "cow"]]}
    with pytest.raises(UserError, match="a part of a question is missing"):
        checked_cloze(pa.table(row), DATASETS["cbt_ne"], "here")


def test_a_mirror_too_small_to_set_a_validation_split_apart(tmp_path: Path) -> None:
    for split in DATASETS["imdb"].rows:
        label = -1 if split == DATASETS["imdb"].unlabelled_split else 0
        write_parquet(tmp_path / f"raw/{split}.parquet", pa.table({"text": ["a film"], "label": [label]}))
    write_json(tmp_path / "raw/manifest.json", {"dataset": "imdb", "splits": {}})
    write_text(tmp_path / "config.yaml", yaml.safe_dump(small_config().model_dump(mode="json")))
    command = changed(TOKENISE, dataset="imdb", raw="@raw")
    assert "too few rows in train to set a validation split apart" in refusal_of(tmp_path, *command)


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETDOWN])
def test_a_network_that_goes_down_is_tried_again(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def broken(*_: object) -> None:
        tries.append(1)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(download, "_continue", broken)
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    release = download.Release("http://localhost/file", 10, "0")
    with pytest.raises(UserError, match=f"cannot download http://localhost/file: .*{os.strerror(number)}"):
        download.download(release, tmp_path / "file", "check the network")
    assert len(tries) == download.ATTEMPTS
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="this is a folder, a file is needed"):
        download.download(release, tmp_path / "folder", "check the network")
