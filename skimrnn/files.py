"""Reading and writing files: atomic writes, digests, JSON and safetensors."""

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from skimrnn.errors import InUseError, UserError, explain_os_errors

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from torch import Tensor

Model = TypeVar("Model", bound=BaseModel)


class Closed(BaseModel):
    """What is read and written as it is declared: a key that is not is refused, and no value changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` and rename it to `path` when the block succeeds.

    A reader sees the old file or the whole new one, never a part; a failed block leaves nothing behind.
    """
    path = Path(path)
    with explain_os_errors("write", path):
        if path.is_symlink():
            path = path.resolve()  # What it points to is written, not the link itself.
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: it is there and not a file: choose another path")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _part_of(path, path.parent)
        try:
            temporary.touch(0o600, exist_ok=False)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _part_of(path: Path, folder: Path) -> Path:
    """A name for what is not whole yet: no file yet, which an interruption would leave before it can be removed."""
    return folder / f".{path.name}.{secrets.token_hex(4)}.part"


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder; when the block succeeds its files move to `folder`, `manifest.json` last.

    A failed block leaves `folder` as it was. Other files in `folder` stay.
    """
    folder = Path(folder)
    with explain_os_errors("write", folder):
        if folder.is_symlink():
            folder = folder.resolve()  # Maybe on another disk, where files cannot be moved to.
        beside = folder if os.path.ismount(folder) else folder.parent
        beside.mkdir(parents=True, exist_ok=True)
    temporary = _part_of(folder, beside)
    try:
        with explain_os_errors("write", folder):
            temporary.mkdir(0o700)
        yield temporary
        with explain_os_errors("write", folder):
            folder.mkdir(exist_ok=True)
            (folder / "manifest.json").unlink(missing_ok=True)  # It must not speak of files that are replaced now.
            for path in sorted(temporary.iterdir(), key=lambda path: path.name == "manifest.json"):
                path.replace(folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def only_user(folder: Path, use: str) -> Iterator[None]:
    """Keep a folder to this process inside the block; where another one has it, an `InUseError` names its `use`.

    The system lets go of it when the process ends, however it does. What earlier writes left half-done is removed.
    """
    folder = Path(folder)
    with explain_os_errors("write", folder):
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        if lock(handle, f"{folder}: another process {use} there"):
            for part in folder.glob(".*.part"):
                part.unlink(missing_ok=True)
        yield
    finally:
        if is_new:
            with suppress(OSError):  # It is not empty.
                folder.rmdir()
        os.close(handle)


def lock(handle: int, taken: str) -> bool:
    """Lock an open file or folder until it is closed; False where the file system knows no such locks.

    Where another process has it, that is an `InUseError` which begins with `taken`.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InUseError(f"{taken}: wait for it, or stop it") from error
    except OSError:
        return False
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON that is the same for equal values; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: Path) -> str:
    """Read a UTF-8 text; a missing file or another encoding is a `UserError`."""
    with explain_os_errors("read", path):
        try:
            return Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not a UTF-8 text: give another file, or make it again") from error


def read_json(path: Path) -> Any:
    """Read one JSON value; a missing or malformed file is a `UserError`."""
    text = read_text(path)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON (line {error.lineno}): mend it, or make it again") from error
    except (ValueError, RecursionError) as error:  # NaN, a number of thousands of digits, or brackets within brackets.
        raise UserError(f"{path}: not JSON that can be read ({error}): mend it, or make it again") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def read_model(path: Path, model: type[Model]) -> Model:
    """Read one JSON value and check it against a pydantic model; a malformed one is a `UserError`."""
    values = read_json(path)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole"
        message = message_of(first)
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", model.__name__).lower()
        raise UserError(f"{path}: not a {kind} of this version ({key}: {message}): make it again") from error


def message_of(error: "ErrorDetails") -> str:
    """What pydantic found wrong, in words of the file."""
    if error["type"] in ("model_type", "dict_type"):
        return "must be keys with values" if error["input"] is not None else "is empty"
    return error["msg"].removeprefix("Value error, ")


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors (and text metadata) to one safetensors file, atomically."""
    from safetensors.torch import save as tensors_to_bytes  # Imported here: it imports torch.

    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, tensors_to_bytes(contiguous, dict(metadata) if metadata else None))


def read_tensors(path: Path, *needed: str) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Read the tensors and the metadata of a safetensors file (memory-mapped); those `needed` must be there."""
    with explain_os_errors("read", path):
        if not Path(path).is_file():
            raise UserError(f"cannot read {path}: no such file: run the step that makes it")
        try:
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                _require(needed, names, path, "tensor")
                return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
        except SafetensorError as error:
            raise UserError(f"{path}: truncated or not a safetensors file: delete it and make it again") from error


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table to a parquet file, atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_parquet(path: Path, *needed: str) -> pa.Table:
    """Read a parquet file; a missing or truncated one, or one without the columns that are needed, is a `UserError`."""
    with explain_parquet_errors(path):
        table = pq.read_table(path)
    _require(needed, table.column_names, path, "column")
    return table


@contextmanager
def explain_parquet_errors(path: Path) -> Iterator[None]:
    """Turn what a missing or damaged parquet file raises inside the block into a `UserError`."""
    with explain_os_errors("read", path):
        if not Path(path).is_file():
            raise UserError(f"cannot read {path}: no such file: run the step that makes it, or copy it there")
        try:
            yield
        except MemoryError:  # Of Arrow, too.
            raise
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            # What a damaged file raises is an `ArrowException`, or an `OSError` that no system call gave.
            raise UserError(f"{path}: truncated or not a parquet file: delete it and fetch or make it again") from error


def _require(needed: Iterable[str], names: Iterable[str], path: Path, kind: str) -> None:
    """Refuse a file that lacks columns or tensors: most likely it is another step's."""
    if missing := [name for name in needed if name not in names]:
        raise UserError(f"{path}: no {kind} {missing[0]!r} in it: give the file of the right step")


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with explain_os_errors("read", path), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value, the same for equal values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
