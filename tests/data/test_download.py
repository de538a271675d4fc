"""The archive of word vectors, from a loopback server that cuts, refuses, stalls and cheats."""

import fcntl
import hashlib
import io
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from skimrnn.data import download as module
from skimrnn.data import vectors
from skimrnn.data.download import Release, download
from skimrnn.data.vectors import download_glove
from skimrnn.errors import UserError
from tests.data import hub_server
from tests.data.hub_server import Hub, cut, refuse, running_hub, stall

PATH = "/glove.6B.zip"
CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        hub.archives[PATH] = CONTENT
        yield hub


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which are not made."""
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    return pauses


def release_of(hub: Hub, content: bytes = CONTENT) -> Release:
    return Release(hub.url + PATH, len(content), hashlib.sha256(content).hexdigest())


def test_the_archive_is_downloaded_once_and_read(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("glove.6B.3d.txt", "the 0.5 -1 2\n, 1 2 3\n")
    hub.archives[PATH] = file.getvalue()
    monkeypatch.setattr(vectors, "GLOVE", release_of(hub, file.getvalue()))
    for _ in range(2):
        words, table = download_glove(3, tmp_path / "glove.zip")
        assert words == ["the", ","]
        assert table.tolist() == [[0.5, -1, 2], [1, 2, 3]]
    assert hub.requests["GET", PATH] == 1
    with pytest.raises(UserError, match=r"no glove\.6B\.7d\.txt"):
        download_glove(7, tmp_path / "glove.zip")


def test_a_cut_connection_is_resumed_where_it_was_cut(hub: Hub, tmp_path: Path) -> None:
    hub.faults[PATH] = [cut(100_000), cut(50_000)]
    download(release_of(hub), tmp_path / "glove.zip", "do this")
    assert (tmp_path / "glove.zip").read_bytes() == CONTENT
    assert hub.ranges == ["bytes=100000-", "bytes=150000-"]
    assert hub.sent == len(CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["glove.zip"]


def test_a_killed_download_is_resumed_by_the_next_command(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "glove.zip.part").write_bytes(CONTENT[:200_000])
    download(release_of(hub), tmp_path / "glove.zip", "do this")
    assert (tmp_path / "glove.zip").read_bytes() == CONTENT
    assert hub.sent == 100_000


def test_two_processes_do_not_write_to_one_archive(hub: Hub, tmp_path: Path) -> None:
    part = tmp_path / "glove.zip.part"
    part.write_bytes(CONTENT[:200_000])
    with part.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"glove\.zip: another process downloads it: wait for it, or stop it$"):
            download(release_of(hub), tmp_path / "glove.zip", "do this")
    assert part.read_bytes() == CONTENT[:200_000]
    assert hub.sent == 0
    download(release_of(hub), tmp_path / "glove.zip", "do this")
    assert (tmp_path / "glove.zip").read_bytes() == CONTENT


def test_a_server_that_cannot_resume_is_read_from_the_start(hub: Hub, tmp_path: Path) -> None:
    hub.faults[PATH] = [cut(100_000), hub_server.replace(CONTENT)]
    download(release_of(hub), tmp_path / "glove.zip", "do this")
    assert (tmp_path / "glove.zip").read_bytes() == CONTENT


def test_a_busy_server_is_given_the_time_it_asks_for(hub: Hub, tmp_path: Path, no_waiting: list[float]) -> None:
    hub.faults[PATH] = [refuse(429, Retry_After="7"), refuse(503), refuse(503)]
    download(release_of(hub), tmp_path / "glove.zip", "do this")
    assert no_waiting == [7, 2, 4]


@pytest.mark.parametrize(
    ("fault", "attempts", "message"),
    [
        (refuse(404), 1, r"cannot download http://127.*: HTTP 404 Not Found: do this$"),
        (refuse(503), 5, r"cannot download http://127.*: HTTP 503 Service Unavailable: do this$"),
        (stall(1), 5, r"cannot download http://127.*: timed out: do this$"),
        (hub_server.replace(CONTENT[:-1]), 1, "the server offers 299,999 bytes, the release has 300,000: do this$"),
        (hub_server.replace(CONTENT[:-1] + b"?"), 1, "what came is not the release .its digest differs.: download"),
    ],
    ids=["404", "503", "slow", "size", "digest"],
)
def test_what_cannot_be_mended_is_one_line_and_leaves_no_archive(
    fault: hub_server.Fault, attempts: int, message: str, hub: Hub, tmp_path: Path
) -> None:
    hub.faults[PATH] = [fault] * 9
    started = time.monotonic()
    with pytest.raises(UserError, match=message):
        download(release_of(hub), tmp_path / "glove.zip", "do this", silence=0.1)
    assert time.monotonic() - started < 5
    assert hub.requests["GET", PATH] == attempts
    assert not (tmp_path / "glove.zip").exists()


def test_no_server_is_one_line(tmp_path: Path) -> None:
    nowhere = Release("http://127.0.0.1:9/glove.6B.zip", 10, "")
    with pytest.raises(UserError, match=r"cannot download http://127.*: .*[Rr]efused: do this$"):
        download(nowhere, tmp_path / "glove.zip", "do this")


def test_a_full_disk_is_named_and_what_came_is_kept(hub: Hub, small_disk: Path) -> None:
    with pytest.raises(UserError, match="the disk is full: free some space and run the same command again"):
        download(release_of(hub), small_disk / "glove.zip", "do this")
    part = small_disk / "glove.zip.part"
    assert 0 < part.stat().st_size < 65_537
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    download(release_of(hub), small_disk / "glove.zip", "do this")
    assert (small_disk / "glove.zip").read_bytes() == CONTENT


def test_a_part_of_another_file_is_not_kept(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "glove.zip.part").write_bytes(bytes(len(CONTENT) + 1))
    with pytest.raises(UserError, match="its digest differs"):
        download(release_of(hub), tmp_path / "glove.zip", "do this")
    download(release_of(hub), tmp_path / "glove.zip", "do this")
    assert (tmp_path / "glove.zip").read_bytes() == CONTENT
