"""The dataset hub: files come through the `datasets` library, which resumes, retries and keeps them in its cache.

What it does not do is done here: contents are checked against the digests that the hub promises, the revision is
resolved to a commit, and whatever goes wrong becomes one line, and no more than one, that says what to do.
"""

import errno
import hashlib
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from skimrnn.data.registry import Dataset
from skimrnn.errors import UserError
from skimrnn.files import sha256_of_file

_NETWORK = "check the network, or set data.source to mirror and data.mirror to a folder that holds the parquet files"
_DISK = "free some space (HF_HOME names the folder of the cache) and run the same command again"
_CHANGED = "the dataset may have changed: pin an older hub_revision in the registry, or set data.source to mirror"
_AGAIN = "run the same command again to download it anew"


def open_hub(dataset: Dataset) -> tuple[str, Callable[[str], pa.Table]]:
    """Download what is not in the cache yet; give the commit that it is of, and what reads a split (memory-mapped).

    Offline (`HF_HUB_OFFLINE=1`, or no network) the cache alone is used. A hub that cannot be reached, that answers
    with an error, or whose files are not what it promises, and a full disk, are a `UserError`.
    """
    from datasets import load_dataset_builder  # Imported here: nothing else of the package needs it.
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()  # Its warnings announce each retry. Progress bars do not pass there.
    failure = f"cannot download {dataset.address} from {ENDPOINT}"
    with _explained(failure):
        builder = load_dataset_builder(dataset.hub_id, dataset.hub_config, revision=dataset.hub_revision)
        revision = str(builder.hash)
        if dataset.hub_revision not in (None, revision):
            raise UserError(
                f"{failure}: the cache holds revision {revision}, the registry pins {dataset.hub_revision}: {_NETWORK}"
            )
        for url in _file_urls(builder):
            _fetch_checked(url)
        builder.download_and_prepare()

    def read(split: str) -> pa.Table:
        with _explained(f"cannot read {dataset.address} ({split}) from the hub"):
            return builder.as_dataset(split).with_format("arrow")[:]

    return revision, read


def _file_urls(builder: Any) -> list[str]:
    """`hf://datasets/<id>@<commit>/<path>` of each data file; none where the cache is all there is."""
    return [str(url) for urls in (builder.config.data_files or {}).values() for url in urls]


def _fetch_checked(url: str) -> None:
    """Bring one file into the cache and compare it with its digest there.

    The cache names a file by the digest that the hub announces: SHA-256, or git's SHA-1 for small files. A file that
    differs is removed, so that it is not taken for good later.
    """
    from huggingface_hub import hf_hub_download

    repository, _, rest = url.removeprefix("hf://datasets/").partition("@")
    revision, _, name = rest.partition("/")
    linked = Path(hf_hub_download(repository, name, repo_type="dataset", revision=unquote(revision)))
    stored = linked.resolve()
    if _digest_like(stored.name, stored) != stored.name:
        stored.unlink()
        linked.unlink(missing_ok=True)
        raise UserError(f"{name} of {repository} is not what the hub promised (its digest differs): {_AGAIN}")


def _digest_like(name: str, path: Path) -> str:
    """The digest of a file, of the kind that `name` is."""
    if len(name) == 64:
        return sha256_of_file(path)
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() if len(name) == 40 else name


@contextmanager
def _explained(failure: str) -> Iterator[None]:
    """Turn any error of the client library into a `UserError` that gives its cause."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # The library raises many types, its dependencies' among them.
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
            chain.append(cause)
        if any(getattr(link, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for link in chain):
            raise UserError(f"{failure}: the disk is full: {_DISK}") from error
        # While it converts files the library says only that something went wrong; the error below says what.
        converting = type(error).__name__ == "DatasetGenerationError" and len(chain) > 1
        told = chain[1] if converting else error
        reason = textwrap.shorten(str(told), 240, placeholder=" ...") or type(told).__name__
        raise UserError(f"{failure}: {reason}: {_CHANGED if converting else _NETWORK}") from error
