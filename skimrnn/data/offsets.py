"""Tokens that know where in the text they stand, so that a span of tokens can be cut out of the text unchanged."""

import re
from typing import NamedTuple

from skimrnn.data.tokens import EMPTY

_QUOTES = ("``", "''")
_JOINTS = re.compile(r"([-‐‑‒–—−/~“”„«»])")  # An answer often ends within a compound, as in 1990-1991 or km/h.


class Token(NamedTuple):
    """A token as the vocabulary spells it, and its characters `text[start:stop]`."""

    word: str
    start: int
    stop: int


def tokenise_with_offsets(text: str) -> list[Token]:
    """The Treebank tokens of a text, lower-cased, with their places.

    Compounds are split at hyphens and slashes, curved quotes off their words. The Treebank rules write quotes (", ``
    and '') as `` where they open and '' where they close, which is how they stand in the vocabulary; all other tokens
    are their own characters. A text without tokens becomes the single token `EMPTY` of no characters.
    """
    from skimrnn.data.treebank import SENTENCES, WORDS

    tokens = []
    for begin, end in SENTENCES.span_tokenize(text):
        place = begin
        for word in WORDS.tokenize(text[begin:end]):
            while text[place].isspace():
                place += 1
            length = 1 if word in _QUOTES and text[place] == '"' else len(word)
            assert word in _QUOTES or text.startswith(word, place), (word, text[place : place + 20])
            parts = [part for part in _JOINTS.split(word) if part]
            for part in parts:
                width = length if len(parts) == 1 else len(part)
                tokens.append(Token(part.lower(), place, place + width))
                place += width
    return tokens or [Token(EMPTY, 0, 0)]
