"""Neural Speed Reading via Skim-RNN: layers, and the pipeline that reproduces the paper."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skimrnn.layers import Decisions, SkimGRU, SkimLSTM

__all__ = ["Decisions", "SkimGRU", "SkimLSTM"]
__version__ = "0.1.0"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """The layers, imported when they are asked for: many commands do not need torch, which takes seconds to import."""
    if name in __all__:
        return getattr(import_module("skimrnn.layers"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
