"""Figures inside the page."""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote

_NOT_SHOWN = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")  # Figures keep what the cuts below must not touch, their labels, between tags.
_COORDINATE = re.compile(r"\b([1-9]\d*\.\d\d)\d+")
_QUOTED_FONT = re.compile(r"(?<=font-family: )'([^']*)'")
_PLAIN = " /:;=,.()'?!*+-_~@|"
"""What stands for itself in an address, and in HTML between quotation marks: percent signs for the rest are fewer bytes
than base64."""


@dataclass(frozen=True)
class Picture:
    """A figure as a `data:` address, which HTML need not escape."""

    title: str
    caption: str
    alt: str
    source: str

    @classmethod
    def inline(cls, title: str, caption: str, alt: str, svg: bytes) -> Self:
        """The figure that an SVG holds, its coordinates cut to hundredths of a point."""
        text = _TAG.sub(lambda tag: _COORDINATE.sub(r"\1", tag.group()), _NOT_SHOWN.sub("", svg.decode()))
        text = _QUOTED_FONT.sub(r"\1", text).replace("'", "&apos;").replace('"', "'")
        text = quote(" ".join(text.split()), safe=_PLAIN)
        return cls(title, caption, alt, f"data:image/svg+xml,{text}")
