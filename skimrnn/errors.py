"""The one exception that means "the user can fix this"."""

import errno
import signal
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager


class UserError(Exception):
    """Bad input or a broken environment: one line that says what, where and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class InUseError(UserError):
    """Another process has what this one needs."""


def interrupt_on_termination() -> None:
    """Have SIGTERM, which `kill`, `timeout` and Slurm send, end a command as Ctrl-C does: nothing is left half-done."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EFBIG: "a limit on the size of files (ulimit -f) is reached: raise it and run the same command again",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    errno.EACCES: "permission denied: check the permissions or choose another folder",
    errno.EPERM: "permission denied: check the permissions or choose another folder",
    errno.ENOENT: "no such file or folder: check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder: check the path",
    errno.EEXIST: "this is a file, a folder is needed: check the path",
    errno.EISDIR: "this is a folder, a file is needed: check the path",
}


@contextmanager
def explain_os_errors(action: str, path: object) -> Iterator[None]:
    """Turn an `OSError` inside the block into a `UserError` that names the action and the path."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, error.strerror or str(error))
        raise UserError(f"cannot {action} {path}: {advice}") from error


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Whether torch, Triton or cuBLAS found no memory on the GPU."""
    text = str(error)
    causes = (
        "CUDA out of memory",
        "CUDA error: out of memory",
        "Triton Error [CUDA]: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
    )
    return isinstance(error, RuntimeError) and any(cause in text for cause in causes)


def is_lost_gpu(error: BaseException) -> bool:
    """Whether a GPU failed for another reason than its memory."""
    causes = ("CUDA error", "Triton Error [CUDA]", "cuDNN error", "No CUDA GPUs are available")
    failed = isinstance(error, RuntimeError) and any(cause in str(error) for cause in causes)
    return failed and not is_out_of_gpu_memory(error)


def machine_failure(error: BaseException) -> str | None:
    """One line about an error that means that the machine fails: no memory, a lost GPU, a file; None for any other."""
    text = str(error)
    reason = text.strip().split("\n")[0]
    if is_out_of_gpu_memory(error):
        return f"out of memory on the GPU ({reason}): free some of it or lower batch_size; {_GO_ON}"
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return f"out of memory: free some, raise the limit or lower batch_size; {_GO_ON}"
    if isinstance(error, BrokenExecutor):
        return f"a worker process was killed, as where memory runs out: free some, or have fewer side by side; {_GO_ON}"
    if is_lost_gpu(error):
        return f"the GPU failed ({reason}): check it with nvidia-smi; {_GO_ON}"
    if isinstance(error, OSError):  # Where nothing more is known of it.
        return f"{error}: check the path and the machine"
    return None


_GO_ON = "what is finished is kept, and a training run has its checkpoint: run the same command again"
