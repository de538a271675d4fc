"""Whether a call is made at all."""

from collections.abc import Iterable

import torch
from torch import Tensor


def is_recorded(tensors: Iterable[Tensor]) -> bool:
    """Whether something records the calls about these tensors, or only pretends to make them.

    It sees torch's operators alone, and the tensors may have no memory.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or torch._C._len_torch_dispatch_stack() > 0
        or any(type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__ for tensor in tensors)
    )
