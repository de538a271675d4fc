"""Where a command computes: on a GPU where there is one."""

import torch

from skimrnn.errors import UserError

CPU = torch.device("cpu")


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name: `cpu`, `cuda` (one that is not there is a `UserError`), or `auto` for the better one."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"unknown device {name!r}: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("no GPU that torch can use here: run this on a machine that has one")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
