"""Downloading one large file: resumed where it was cut, retried, checked against its known size and digest."""

import errno
import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from skimrnn.errors import UserError, explain_os_errors
from skimrnn.files import lock, sha256_of_file

ATTEMPTS = 5
"""Attempts in a row that bring nothing before a download is given up."""

_CHUNK = 1 << 20
_SECONDS_OF_SILENCE = 60.0
_TRANSIENT = {408, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Release:
    """A file that never changes: where it is, and what it must be."""

    url: str
    bytes: int
    sha256: str


def download(release: Release, path: Path, advice: str, silence: float = _SECONDS_OF_SILENCE) -> None:
    """Bring `release` to `path`; what has come so far waits in `<path>.part` and is gone on from.

    A server that refuses, stays silent for `silence` seconds again and again, or offers a file of another size or
    digest, is a `UserError` that ends in `advice`; so is another process that downloads to the same path.
    """
    part = path.with_name(f"{path.name}.part")
    with explain_os_errors("write", path):
        if path.is_dir() or part.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        own = part.open("ab")
    with own:
        lock(own.fileno(), f"{path}: another process downloads it")
        _complete(release, part, path.name, advice, silence)
        if part.stat().st_size != release.bytes or sha256_of_file(part) != release.sha256:
            part.unlink()
            raise UserError(f"{release.url}: what came is not the release (its digest differs): download it again")
        with explain_os_errors("write", path):
            part.replace(path)


def _complete(release: Release, part: Path, name: str, advice: str, silence: float) -> None:
    """Bring what `part` lacks, in as many attempts as it takes while each brings something."""
    failures = 0
    with _progress(release, name) as show:
        while (have := part.stat().st_size) < release.bytes:
            wait = float(2**failures)
            try:
                _continue(release, part, advice, silence, show)
                reason = "the connection was cut"
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code} {error.reason}"
                if error.code not in _TRANSIENT:
                    raise UserError(f"cannot download {release.url}: {reason}: {advice}") from error
                asked = error.headers.get("Retry-After") or ""
                wait = float(asked) if asked.isdigit() else wait
            except (OSError, http.client.HTTPException) as error:  # Of the network: those of the disk are told.
                reason = str(getattr(error, "reason", None) or error)
            if (now := part.stat().st_size) >= release.bytes:
                break
            failures = 0 if now > have else failures + 1
            if failures == ATTEMPTS:
                raise UserError(f"cannot download {release.url}: {reason}: {advice}")
            if failures:
                print(f"{name}: {reason}: trying again in {wait:.0f} s", file=sys.stderr, flush=True)
                time.sleep(wait)


def _continue(release: Release, part: Path, advice: str, silence: float, show: Callable[[int], None]) -> None:
    """Ask for what `part` lacks and append what comes, until all is there or the server hangs up."""
    have = part.stat().st_size
    request = urllib.request.Request(release.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=silence) as response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start = have if resumed else 0
        length = response.headers["Content-Length"]
        if length is None:
            raise UserError(f"cannot download {release.url}: what answers does not say how much it sends: {advice}")
        offered = start + int(length)
        if offered != release.bytes:
            raise UserError(
                f"cannot download {release.url}: the server offers {offered:,} bytes, the release has "
                f"{release.bytes:,}: {advice}"
            )
        with explain_os_errors("write", part):
            file = part.open("ab" if resumed else "wb", buffering=0)
        with file:
            show(start)
            while chunk := response.read1(_CHUNK):
                with explain_os_errors("write", part):
                    file.write(chunk)
                show(file.tell())


@contextmanager
def _progress(release: Release, name: str) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, one line elsewhere; the block gets what moves it."""
    if not sys.stderr.isatty():
        print(f"downloading {release.url} ({release.bytes / 1e6:,.0f} MB)", file=sys.stderr, flush=True)
        yield lambda done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=release.bytes)
        yield lambda done: bar.update(task, completed=done)
