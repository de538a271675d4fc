"""One sequence of each recurrent cell: the reference, the fast paths that are held to it, and the choice among them.

On an NVIDIA GPU in float32 it is `triton`, on the CPU in float32 `cpu` (the compiled extension), and `reference`
elsewhere. The environment variable `SKIMRNN_KERNEL` forces one of them; what that one does not cover still runs on the
reference. `SKIMRNN_ISA` forces one of the extension's instruction sets, and `TRITON_INTERPRET=1` lets
`SKIMRNN_KERNEL=triton` run on the CPU, slowly.
"""

import os
import warnings
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd import forward_ad

from skimrnn.errors import UserError
from skimrnn.kernels import reference
from skimrnn.kernels.reference import CellWeights, DecisionWeights, SkimSequence, State

try:
    from skimrnn.kernels import cpu
except ImportError as error:  # Installed where no compiler was found.
    _missing: ImportError | None = error
else:
    _missing = None

__all__ = [
    "KERNEL",
    "CellWeights",
    "DecisionWeights",
    "SkimSequence",
    "State",
    "kernel_on",
    "kernel_text",
    "lstm",
    "runs_models_together",
    "skim_gru",
    "skim_lstm",
]

_FORCED = os.environ.get("SKIMRNN_KERNEL", "")


def _load_gpu() -> ModuleType | None:
    """The Triton kernels where they are of use: importing Triton takes a while."""
    # AMD's, which torch calls cuda, too, know neither the kernels' inline assembly nor their limit of registers.
    wanted, has_gpu = _FORCED == "triton", torch.cuda.is_available() and torch.version.hip is None
    if not wanted and (_FORCED or not has_gpu):
        return None
    try:
        from skimrnn.kernels import gpu

        if has_gpu:
            gpu.start_driver()
    except Exception as error:  # Without a compiler or Python's headers Triton fails in ways of its own.
        reason = str(error).strip().split("\n")[0]
        advice = (
            f"Triton cannot be used ({reason}): pip install triton; it wants a C compiler and Python's headers, too"
        )
        if wanted:
            raise UserError(f"SKIMRNN_KERNEL=triton: {advice}") from error
        warnings.warn(f"layers run on the slow path on the GPU: {advice}", RuntimeWarning, 3)
        return None
    if not has_gpu and not gpu.INTERPRETED:
        raise UserError("SKIMRNN_KERNEL=triton: no NVIDIA GPU here (with TRITON_INTERPRET=1 the CPU will do, slowly)")
    return gpu


def _choose() -> str:
    if _FORCED not in ("", "reference", "cpu", "triton"):
        raise UserError(f"SKIMRNN_KERNEL={_FORCED}: no such kernel (reference, cpu, triton)")
    if _FORCED == "cpu" and _missing:
        raise UserError(f"SKIMRNN_KERNEL=cpu: the extension was not built ({_missing}): install again with a compiler")
    if not _missing and _FORCED in ("", "cpu"):
        cpu.require_these_sources()
    if _missing and not _FORCED:
        warnings.warn(
            "skimrnn was installed without its compiled kernels: its layers run on the slow path "
            "(install again where a C++ compiler is found: pip install -v says what it lacked)",
            RuntimeWarning,
            stacklevel=2,
        )
    return _FORCED or ("reference" if _missing else "cpu")


KERNEL = _choose()
"""The kernel in use on the CPU: `cpu`, `reference` or, interpreted, `triton`."""

_gpu = _load_gpu()


def kernel_on(device: torch.device) -> str:
    """The kernel of layers in float32 on a device: `triton`, `cpu` or `reference`."""
    if device.type == "cuda":
        return "triton" if _gpu else "reference"
    if KERNEL == "triton" and not (_gpu and _gpu.INTERPRETED):
        return "reference"
    return KERNEL


def kernel_text(device: torch.device) -> str:
    """The kernel on a device with its instruction set, such as `cpu avx2`."""
    kernel = kernel_on(device)
    return f"cpu {cpu.isa()}" if kernel == "cpu" else kernel


def runs_models_together(*tensors: Tensor) -> bool:
    """Whether the LSTM kernels take these tensors with a leading dimension of models: see `skimrnn.kernels.gpu`."""
    if _gpu is None or kernel_on(tensors[0].device) != "triton" or _transformed():
        return False
    return bool(_gpu.covers(*tensors))


def _runs_compiled(*tensors: Tensor) -> bool:
    """Whether the compiled kernels take these tensors.

    Of torch.func's transforms and forward-mode differentiation they know nothing: the reference takes them.
    """
    return KERNEL == "cpu" and cpu.covers(*tensors) and not _transformed()


def _transformed() -> bool:
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


def skim_lstm(
    inputs: Tensor,
    lengths: Tensor,
    state: State,
    big: CellWeights,
    small: CellWeights,
    decision: DecisionWeights,
    *,
    threshold: float = 0.5,
    noise: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    reverse: bool = False,
) -> SkimSequence:
    """Run a Skim-LSTM on the kernel in use: see `skimrnn.kernels.reference.skim_lstm`.

    Where `runs_models_together`, every tensor may have a leading dimension of models, and the temperature be a tensor
    with one number for each.
    """
    run: Callable[..., SkimSequence] = reference.skim_lstm
    if runs_models_together(inputs, *state):
        assert _gpu is not None
        run = _gpu.skim_lstm
    elif _runs_compiled(inputs, *state):
        run = cpu.skim_lstm
    return run(
        inputs,
        lengths,
        state,
        big,
        small,
        decision,
        threshold=threshold,
        noise=noise,
        temperature=temperature,
        reverse=reverse,
    )


def skim_gru(
    inputs: Tensor,
    lengths: Tensor,
    state: State,
    big: CellWeights,
    small: CellWeights,
    decision: DecisionWeights,
    *,
    threshold: float = 0.5,
    noise: Tensor | None = None,
    temperature: float = 1.0,
    reverse: bool = False,
) -> SkimSequence:
    """Run a Skim-GRU on the kernel in use: see `skimrnn.kernels.reference.skim_gru`."""
    run = cpu.skim_gru if _runs_compiled(inputs, *state) else reference.skim_gru
    return run(
        inputs,
        lengths,
        state,
        big,
        small,
        decision,
        threshold=threshold,
        noise=noise,
        temperature=temperature,
        reverse=reverse,
    )


def lstm(
    inputs: Tensor, lengths: Tensor, state: State, weights: CellWeights, *, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Run a plain LSTM on the kernel in use: see `skimrnn.kernels.reference.lstm`."""
    run = reference.lstm
    if runs_models_together(inputs, *state):
        assert _gpu is not None
        run = _gpu.lstm
    elif _runs_compiled(inputs, *state):
        run = cpu.lstm
    return run(inputs, lengths, state, weights, reverse=reverse)
