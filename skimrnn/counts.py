"""Numbers with their nouns, for people to read."""


def count_of(number: int, noun: str) -> str:
    """A number with a regular noun in the singular or plural: `1 seed`, `2 seeds`, `12,000 steps`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
