"""Figures inside the page."""

import base64
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Picture:
    """A figure as a `data:` address."""

    title: str
    caption: str
    alt: str
    source: str

    @classmethod
    def inline(cls, title: str, caption: str, alt: str, svg: bytes) -> Self:
        """The figure that an SVG holds."""
        return cls(title, caption, alt, f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}")
