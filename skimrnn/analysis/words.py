"""Ways in which tokens are alike: kind of word, frequency in training, place in the text."""

import numpy as np

_FUNCTION_WORDS = """
a an the this that these those some any no every each either neither both all such
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves one who whom whose which what there here
and or but nor so yet if because although though while whereas unless until since when where why how whether than as
of in on at by for with about against between into through during before after above below to from up down out off
over under again further then once upon within without along across behind beyond toward towards
am is are was were be been being have has had having do does did doing will would shall should can could may might
must ought not only very too just also n't 's 're 've 'll 'd 'm
"""
"""Stop words: the closed classes of English (determiners, pronouns, conjunctions, prepositions, auxiliaries, a few
adverbs), and the endings that the Treebank tokenizer cuts off."""
_STOP_WORDS = frozenset(_FUNCTION_WORDS.split())

KINDS = ("punctuation", "number", "stop word", "capitalised", "other")
BANDS = ("100 most frequent", "101 to 1,000", "1,001 to 10,000", "rarer", "not in training")
DECILES = tuple(f"{10 * tenth} to {10 * (tenth + 1)} %" for tenth in range(10))
_BAND_ENDS = (100, 1_000, 10_000)


def kind_of(token: str) -> int:
    """The place in `KINDS` of a token, which is `capitalised` only where the text keeps its case."""
    if not any(letter.isalnum() for letter in token):
        return 0
    if any(letter.isdigit() for letter in token):
        return 1
    if token.lower() in _STOP_WORDS:
        return 2
    return 3 if token[0].isupper() else 4


def bands_of(words: np.ndarray, vocabulary_size: int) -> np.ndarray:
    """The places in `BANDS` of word numbers: 2 is the most frequent word of train, 1 an unknown one.

    Words from `vocabulary_size` + 2 on are in the vocabulary without having been seen in training.
    """
    ranks = words.astype(np.int64) - 1
    bands = np.searchsorted(np.array(_BAND_ENDS), ranks, side="left")
    unseen = (ranks < 1) | (ranks > vocabulary_size)
    return np.asarray(np.where(unseen, len(BANDS) - 1, bands))


def deciles_of(lengths: np.ndarray) -> np.ndarray:
    """The places in `DECILES` of the tokens of texts of so many tokens, end to end."""
    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.asarray(10 * position // np.repeat(lengths, lengths))
