"""A dataset hub on the loopback interface: the part of its protocol that the client library uses, and its faults."""

import hashlib
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

REVISION = "0123456789abcdef0123456789abcdef01234567"

Fault = Callable[["Handler", bytes], None]
"""Answers a GET of a file (whose content it is given) in the place of the hub."""


def parquet(**columns: object) -> bytes:
    """A parquet file with these columns."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


class Hub:
    """A running hub. `files` maps `<org>/<name>/<path>` to contents; `archives` maps other paths.

    `faults[path]` answers, one after the other, the first GETs of a file; then it is served as it should be.
    `requests` counts what was asked, by method and path; `sent` the bytes of files that went out. While it is
    `down`, it answers everything with 503.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.archives: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.requests: Counter[tuple[str, str]] = Counter()
        self.ranges: list[str] = []
        self.sent = 0
        self.down = False
        self.url = ""

    def add(self, repository: str, **splits: bytes) -> None:
        """A dataset whose splits lie in `data/<split>-00000-of-00001.parquet`, as the hub writes them."""
        for split, content in splits.items():
            self.files[f"{repository}/data/{split}-00000-of-00001.parquet"] = content

    def downloads(self) -> int:
        """How many times the content of a data file was asked for."""
        return sum(count for (method, path), count in self.requests.items() if method == "GET" and "parquet" in path)

    def in_repository(self, repository: str, below: str = "") -> dict[str, bytes]:
        """The files of a dataset below a folder, by their path in the repository."""
        start = f"{repository}/{below}/" if below else f"{repository}/"
        return {path[len(repository) + 1 :]: content for path, content in self.files.items() if path.startswith(start)}


class Handler(BaseHTTPRequestHandler):
    """One request to the hub."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def send(self, status: int, content: bytes = b"", **headers: str) -> None:
        """A whole answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def cut(self, content: bytes, after: int, start: int = 0) -> None:
        """Promise the whole content from `start` on, send `after` bytes of it, and hang up."""
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.hub.sent += after
        self.wfile.write(content[start : start + after])
        self.wfile.flush()
        self.close_connection = True

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests[self.command, path] += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        parts = path.strip("/").split("/")
        if self.hub.down:
            self.send(503)
        elif parts[0] == "datasets" and "resolve" in parts:
            repository, rest = path[len("/datasets/") :].split("/resolve/")
            revision, _, name = rest.partition("/")
            if revision in ("main", REVISION):
                self._file(repository, name)
            else:
                self.send(404, X_Error_Code="RevisionNotFound")
        elif parts[:2] == ["api", "datasets"]:
            self._api("/".join(parts[2:4]), parts[4:], body)
        elif path in self.hub.archives:
            self._content(path, self.hub.archives[path], {})
        else:
            self.send(404)

    def _api(self, repository: str, rest: list[str], body: str) -> None:
        files = self.hub.in_repository(repository)
        if not files:
            self.send(404, X_Error_Code="RepoNotFound")
        elif not rest or rest[0] == "revision":
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": repository, "sha": REVISION, "siblings": siblings, "private": False, "tags": []})
        elif rest[0] == "paths-info":
            asked = parse_qs(body).get("paths", [])
            self._json([self._entry(repository, path) for path in files if path in asked])
        elif rest[0] == "tree":
            self._tree(repository, "/".join(rest[2:]), "recursive=true" in self.path.lower())
        else:
            self.send(404)

    def _tree(self, repository: str, folder: str, recursive: bool) -> None:
        files = self.hub.in_repository(repository, folder)
        if folder and not files:
            self.send(404, X_Error_Code="EntryNotFound")
            return
        depth = len(folder.split("/")) if folder else 0
        folders = {"/".join(path.split("/")[: depth + 1]) for path in files if path.count("/") > depth}
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        entries += [self._entry(repository, path) for path in files if recursive or path.count("/") == depth]
        self._json(entries)

    def _entry(self, repository: str, path: str) -> dict:
        content = self.hub.files[f"{repository}/{path}"]
        large = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return {"type": "file", "path": path, "oid": "0" * 40, "size": len(content), "lfs": large}

    def _json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), Content_Type="application/json")

    def _file(self, repository: str, path: str) -> None:
        if not self.hub.in_repository(repository):
            self.send(404, X_Error_Code="RepoNotFound")
        elif (content := self.hub.files.get(f"{repository}/{path}")) is None:
            self.send(404, X_Error_Code="EntryNotFound", X_Repo_Commit=REVISION)
        else:
            digest = hashlib.sha256(content).hexdigest()
            self._content(path, content, {"ETag": f'"{digest}"', "X_Repo_Commit": REVISION})

    def _content(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        if self.command == "GET" and (faults := self.hub.faults.get(path)):
            faults.pop(0)(self, content)
            return
        start = self.range_start()
        self.hub.sent += max(0, len(content) - start) if self.command == "GET" else 0
        if start >= len(content) > 0:
            self.send(416, Content_Range=f"bytes */{len(content)}")
        elif start:
            headers |= {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            self.send(206, content[start:], Accept_Ranges="bytes", **headers)
        else:
            self.send(200, content, Accept_Ranges="bytes", **headers)

    def range_start(self) -> int:
        """The first byte that is asked for."""
        asked = self.headers.get("Range")
        if asked is None:
            return 0
        self.hub.ranges.append(asked)
        return int(asked.removeprefix("bytes=").split("-")[0])


def cut(after: int) -> Fault:
    """Hang up after some bytes."""
    return lambda handler, content: handler.cut(content, after, handler.range_start())


def hang(after: int) -> Fault:
    """Send some bytes, then nothing, until the other side hangs up."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.cut(content, after, handler.range_start())
        with suppress(ConnectionError):
            handler.connection.recv(1)

    return fault


def refuse(status: int, **headers: str) -> Fault:
    """Answer with an error status."""
    return lambda handler, content: handler.send(status, HTTPStatus(status).phrase.encode(), **headers)


def replace(content: bytes) -> Fault:
    """Send something else, as if it were whole."""
    return lambda handler, _: handler.send(200, content)


def stall(seconds: float) -> Fault:
    """Say nothing for a while, then hang up."""

    def fault(handler: Handler, content: bytes) -> None:
        threading.Event().wait(seconds)
        handler.close_connection = True

    return fault


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of the loopback interface, until the block ends."""
    hub = Hub()
    handler = type("HubHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
