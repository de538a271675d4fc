"""nltk's Treebank tokenizer and what finds its sentences. Import it where it is used: nltk takes seconds to import."""

from nltk.tokenize import TreebankWordTokenizer
from nltk.tokenize.punkt import PunktSentenceTokenizer

SENTENCES = PunktSentenceTokenizer()
"""Untrained: its rules need no download."""

WORDS = TreebankWordTokenizer()
