"""Figures inside the page."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import quote

_PLAIN = " /:;=,.()'?&!*+-_~@|"
"""What stands for itself in an address: percent signs for the rest are fewer bytes than base64."""


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
        text = quote(" ".join(svg.decode().split()), safe=_PLAIN)
        return cls(title, caption, alt, f"data:image/svg+xml,{text}")
