"""Datasets from a loopback hub that cuts, refuses, stalls and cheats; what comes out is data or one clear line."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from skimrnn.data.mirrors import inspect_mirror, make_mirror
from skimrnn.data.registry import DATASETS, Dataset
from skimrnn.data.sources import fetch_dataset
from skimrnn.errors import UserError
from skimrnn.files import read_json, read_parquet, sha256_of_file, write_json
from tests.conftest import small_config
from tests.data.hub_server import REVISION, Fault, Hub, cut, hang, parquet, refuse, running_hub, stall
from tests.data.hub_server import replace as cheat

TRAIN, TEST = "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"
Fetch = Callable[..., dict]


def rows(split: str, count: int = 300) -> dict[str, list]:
    """A few texts that differ between splits."""
    texts = [f"the {split} film number {number}" for number in range(count)]
    labels = [number % 2 for number in range(count)]
    return {"text": texts, "label": labels, "label_text": [("negative", "positive")[label] for label in labels]}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """One hub for all tests: the client library reads its address once, when it is imported."""
    assert "huggingface_hub" not in sys.modules, "imported before the tests could say where the hub is"
    with running_hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
        import datasets  # noqa: F401
        from huggingface_hub import constants

        patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # Ten megabytes, in which it also resumes.
        patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
        yield hub


@pytest.fixture
def dataset(hub: Hub, request: pytest.FixtureRequest) -> Dataset:
    """SST under a name of this test's own, so that the cache knows nothing of it."""
    name = f"tests/{abs(hash(request.node.name))}"
    hub.add(name, **{split: parquet(**rows(split)) for split in ("train", "validation", "test")})
    hub.faults.clear()
    hub.requests.clear()
    hub.ranges.clear()
    return replace(DATASETS["sst"], hub_id=name)


@pytest.fixture
def fetch(dataset: Dataset, tmp_path: Path) -> Fetch:
    """Fetch the dataset (with changed entries of the registry), and give the manifest."""

    def fetched(**changes: object) -> dict:
        fetch_dataset(replace(dataset, **changes), "hub", None, tmp_path / "raw")
        return read_json(tmp_path / "raw" / "manifest.json")

    return fetched


def test_a_good_download_is_recorded_with_its_revision_and_digests(fetch: Fetch, hub: Hub, tmp_path: Path) -> None:
    manifest = fetch()
    assert manifest["revision"] == REVISION
    assert hub.downloads() == 3
    for split in ("train", "validation", "test"):
        table = read_parquet(tmp_path / "raw" / f"{split}.parquet")
        assert table.to_pydict() == {name: rows(split)[name] for name in ("text", "label")}
        assert len(manifest["splits"][split]["sha256"]) == 64
    fetch()
    assert hub.downloads() == 3


def test_a_cut_connection_resumes(fetch: Fetch, hub: Hub) -> None:
    hub.faults[TRAIN] = [cut(1_500), cut(1_200)]
    assert fetch()["splits"]["train"]["rows"] == 300
    assert hub.ranges == ["bytes=1000-", "bytes=2000-"]


def test_a_busy_hub_is_given_the_time_it_asks_for(fetch: Fetch, hub: Hub) -> None:
    hub.faults[TRAIN] = [refuse(429, Retry_After="1")]
    started = time.monotonic()
    assert fetch()["splits"]["train"]["rows"] == 300
    assert time.monotonic() - started > 1
    assert hub.downloads() == 4


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (refuse(500), "Server error '500 Internal Server Error' .*: check the network"),
        (stall(0.6), "timed out: check the network, or set data.source to mirror"),
        (cheat(b"short"), "file should be of size .* but has size 5"),
        (lambda handler, content: handler.send(200, bytes(len(content))), "is not what the hub promised .*digest diff"),
    ],
    ids=["500", "slow", "size", "digest"],
)
def test_what_cannot_be_mended_is_one_line_and_the_next_command_starts_clean(
    fault: Fault, message: str, fetch: Fetch, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults[TRAIN] = [fault] * 9
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match=message) as error:
        fetch()
    assert "\n" not in str(error.value)
    assert not (tmp_path / "raw").exists()
    hub.faults.clear()
    assert fetch()["splits"]["train"]["rows"] == 300


def test_an_unknown_dataset_is_one_line(fetch: Fetch) -> None:
    with pytest.raises(
        UserError, match=r"cannot download tests/nothing from http://127.*: .* doesn't exist on the Hub"
    ):
        fetch(hub_id="tests/nothing")


def test_a_wrong_configuration_names_the_right_ones(fetch: Fetch) -> None:
    with pytest.raises(UserError, match=r"BuilderConfig 'NX' not found\. Available: \['default'\]"):
        fetch(hub_config="NX")


def test_a_missing_split_is_named(fetch: Fetch, hub: Hub, dataset: Dataset) -> None:
    del hub.files[f"{dataset.hub_id}/data/validation-00000-of-00001.parquet"]
    with pytest.raises(UserError, match=r"cannot read tests/.* \(validation\) from the hub: Unknown split"):
        fetch()


def test_a_changed_schema_says_so(fetch: Fetch, hub: Hub, dataset: Dataset, tmp_path: Path) -> None:
    hub.add(dataset.hub_id, test=parquet(sentence=["a film"], label=[0]))
    with pytest.raises(UserError, match=r"Couldn't cast .* column names don't match: the dataset may have changed"):
        fetch()
    assert not (tmp_path / "raw").exists()


def test_a_schema_that_changed_everywhere_names_the_columns(fetch: Fetch, hub: Hub, dataset: Dataset) -> None:
    hub.add(dataset.hub_id, **{split: parquet(sentence=["x"], label=[0]) for split in ("train", "validation", "test")})
    with pytest.raises(UserError, match=r"train, from the hub.: no column 'text' among sentence, label"):
        fetch()


def test_a_pinned_revision_is_asked_for(fetch: Fetch, hub: Hub) -> None:
    assert fetch(hub_revision=REVISION)["revision"] == REVISION
    assert not any("/resolve/main/" in path for _, path in hub.requests)


def test_an_unknown_revision_is_one_line(fetch: Fetch) -> None:
    with pytest.raises(UserError, match=f"Revision '{'f' * 40}' doesn't exist for dataset"):
        fetch(hub_revision="f" * 40)


def test_while_the_hub_is_down_the_cache_serves_but_no_other_revision(
    fetch: Fetch, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = fetch()
    monkeypatch.setattr(hub, "down", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert fetch() == manifest
    with pytest.raises(UserError, match=f"the cache holds revision {REVISION}, the registry pins {'f' * 40}"):
        fetch(hub_revision="f" * 40)


def test_a_mirror_is_made_by_one_command_and_once(dataset: Dataset, hub: Hub, tmp_path: Path) -> None:
    small = replace(dataset, rows={"train": 300, "validation": 300, "test": 301})
    told: list[str] = []
    for _ in range(2):
        make_mirror(tmp_path / "mirror", [small], told.append)
    assert told == [f"sst: 900 rows of train, validation, test, revision {REVISION}", "sst: there already"]
    assert hub.downloads() == 3
    states = [file.state for file in inspect_mirror(tmp_path / "mirror", [small], thorough=True)]
    assert states == ["complete", "complete", "partial"]
    for source, output in (("hub", "a"), ("mirror", "b")):
        fetch_dataset(small, source, tmp_path / "mirror", tmp_path / output)
    manifests = [read_json(tmp_path / name / "manifest.json") for name in ("a", "b")]
    assert manifests[0] == manifests[1] | {"source": "hub"}


def test_a_file_that_was_not_listed_before_a_kill_is_listed_with_its_revision(
    dataset: Dataset, hub: Hub, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    make_mirror(mirror, [dataset], lambda _: None)
    whole = read_json(mirror / "manifest.json")
    write_json(mirror / "manifest.json", dict(list(whole.items())[:-1]))
    make_mirror(mirror, [dataset], lambda _: None)
    assert read_json(mirror / "manifest.json") == whole
    assert {entry["revision"] for entry in whole.values()} == {REVISION}
    assert hub.downloads() == 3


def test_what_lies_in_a_mirror_without_a_manifest_is_kept_and_listed(
    dataset: Dataset, hub: Hub, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    small, imdb = replace(dataset, rows={"train": 300, "validation": 300, "test": 301}), DATASETS["imdb"]
    own = {}
    for one, split in ((small, "validation"), (small, "test"), (imdb, "test")):
        path = mirror / one.address / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        own[path] = parquet(**rows("own", 7))
        path.write_bytes(own[path])
    make_mirror(mirror, [small], lambda _: None)
    assert all(path.read_bytes() == content for path, content in own.items())
    manifest = read_json(mirror / "manifest.json")
    assert {name: entry["rows"] for name, entry in manifest.items()} == {
        f"{small.address}/train.parquet": 300,
        f"{small.address}/validation.parquet": 7,
        f"{small.address}/test.parquet": 7,
        f"{imdb.address}/test.parquet": 7,
    }
    fetch_dataset(small, "mirror", mirror, tmp_path / "raw")
    fetched = read_json(tmp_path / "raw" / "manifest.json")
    assert fetched["complete"] is False and fetched["revision"] is None  # Its files are of more than one origin.


def command(hub: Hub, folder: Path, output: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`skimrnn fetch` of SST in a process of its own, with a cache in `folder`."""
    config = small_config().model_dump(mode="json") | {"data": {"source": "hub"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = ["fetch", "--config", folder / "config.yaml", "--dataset", "sst", "--output", folder / output]
    return subprocess.run(
        [sys.executable, "-m", "skimrnn", *map(str, arguments)],
        env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "cache")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_offline_a_warm_cache_is_enough(tmp_path: Path) -> None:
    with running_hub() as hub:
        hub.add("SetFit/sst2", **{split: parquet(**rows(split)) for split in ("train", "validation", "test")})
        assert (process := command(hub, tmp_path, "first")).returncode == 0, process.stderr
    process = command(hub, tmp_path, "second", HF_HUB_OFFLINE="1")
    assert process.returncode == 0, process.stderr
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("first", "second")]
    assert manifests[0] == manifests[1]
    assert manifests[0]["revision"] == REVISION


def start_data_fetch(mirror: Path, endpoint: str, *program: str, **environment: str) -> subprocess.Popen[str]:
    """`skimrnn data fetch` of SST in a process of its own (or `program` in its place), with a cache beside `mirror`."""
    return subprocess.Popen(
        [sys.executable, *(program or ("-m", "skimrnn")), "data", "fetch", str(mirror), "sst"],
        env=os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(mirror.parent / "cache")} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_a_killed_download_leaves_is_not_taken_as_whole(tmp_path: Path) -> None:
    mirror, cache = tmp_path / "mirror", tmp_path / "cache"
    columns = {split: rows(split, count) for split, count in DATASETS["sst"].rows.items()}
    columns["test"]["text"] = [random.randbytes(4_000).hex() for _ in columns["test"]["text"]]
    half = 10 << 20  # What the client reads before it writes.
    with running_hub() as hub:
        hub.add("SetFit/sst2", **{split: parquet(**values) for split, values in columns.items()})
        hub.faults[TEST] = [hang(half)]
        killed = start_data_fetch(mirror, hub.url, HF_HUB_DOWNLOAD_TIMEOUT="900")
        try:
            while hub.downloads() < 3 or not [path for path in parts(cache) if path.stat().st_size == half]:
                assert killed.poll() is None, "it ended by itself"
                time.sleep(0.05)
        finally:
            killed.kill()
            killed.communicate()
        assert not any(mirror.glob("*"))
        assert {path.name for path in cache.rglob("snapshots/*/data/*")} == {
            Path(TRAIN).name,
            "validation-00000-of-00001.parquet",
        }
        blobs = [path for path in cache.rglob("blobs/*") if path not in parts(cache)]
        assert [sha256_of_file(path) for path in blobs] == [path.name for path in blobs]

        again = start_data_fetch(mirror, hub.url, TQDM_POSITION="-1")  # With bars, though this is no terminal.
        _, told = again.communicate()
        assert again.returncode == 0, told
        assert hub.downloads() == 4
    assert f"{Path(TEST).name}: 100%" in told
    assert [file.state for file in inspect_mirror(mirror, [DATASETS["sst"]], thorough=True)] == ["complete"] * 3
    for split, values in columns.items():
        file = mirror / "SetFit" / "sst2" / f"{split}.parquet"
        assert read_parquet(file).to_pydict() == values
        assert read_json(mirror / "manifest.json")[f"SetFit/sst2/{split}.parquet"]["sha256"] == sha256_of_file(file)


def parts(cache: Path) -> list[Path]:
    """The files of the cache that are still being downloaded, or never will be."""
    return list(cache.rglob("*.incomplete"))


def test_a_file_that_was_cut_short_in_the_cache_is_not_taken_as_whole(fetch: Fetch, hub: Hub, dataset: Dataset) -> None:
    from huggingface_hub import try_to_load_from_cache

    fetch()
    kept = try_to_load_from_cache(dataset.hub_id, TRAIN, repo_type="dataset")
    assert isinstance(kept, str)
    Path(kept).write_bytes(Path(kept).read_bytes()[:1_000])
    with pytest.raises(UserError, match=r"is not what the hub promised .its digest differs.: run the same command"):
        fetch()
    assert fetch()["splits"]["train"]["rows"] == 300
    assert hub.downloads() == 4


def test_no_network_is_one_line(tmp_path: Path) -> None:
    # The client waits half a minute in all between its attempts: not here.
    program = "import time; time.sleep = lambda seconds: None; from skimrnn.cli import main; main()"
    process = start_data_fetch(tmp_path / "mirror", "http://127.0.0.1:9", "-c", program)
    _, told = process.communicate()
    assert process.returncode == 2
    assert told.startswith("error: cannot download SetFit/sst2 from http://127.0.0.1:9: Couldn't reach 'SetFit/sst2'")
    assert told.endswith(
        ": check the network, or set data.source to mirror and data.mirror to a folder that holds the parquet files\n"
    )
    assert told.count("\n") == 1
    assert not (tmp_path / "mirror").exists()


def test_a_full_disk_is_named_and_leaves_no_data(hub: Hub, dataset: Dataset, small_disk: Path) -> None:
    hub.add("SetFit/sst2", **{split: parquet(**rows(split, 30_000)) for split in ("train", "validation", "test")})
    process = command(hub, small_disk, "raw")
    assert process.returncode == 2
    assert (
        process.stderr.strip()
        .splitlines()[-1]
        .startswith(f"error: cannot download SetFit/sst2 from {hub.url}: the disk is full: free some space (HF_HOME")
    )
    assert "Traceback" not in process.stderr
    assert not (small_disk / "raw").exists()
