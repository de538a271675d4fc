"""Peak memory of a piece of work, measured in a process of its own."""

import ctypes
import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

_STATUS = Path("/proc/self/status")


def peak_memory_mib(prepare: Callable[..., Callable[[], object]], *arguments: Any) -> float | None:
    """How far the resident memory rises while `prepare(*arguments)()` runs, in MiB; None where it cannot be read.

    What `prepare` itself takes does not count. The work runs once before, so that libraries are loaded.
    """
    if not _STATUS.exists():
        return None
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_rise, prepare, arguments).result()


def _rise(prepare: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> float:
    torch.set_num_threads(1)
    run = prepare(*arguments)
    run()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # What the first run left with the allocator would hide the second one's need.
    Path("/proc/self/clear_refs").write_text("5")  # The peak starts again from here.
    before = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - before) / 1024


def _resident(key: str) -> int:
    """A line of the process's status, in KiB."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1])
