"""Where words stand in a text."""

import re

LETTER = "[^\\W\u2e80-\uffff]"  # of scripts that write spaces between words


def find_words(text: str, words: str) -> list[tuple[int, int]]:
    """Every place [first, end) where these words stand in a text, in capitals or small, not as a part of a longer word.

    White space between them may be any.
    """
    inside = r"\s+".join(map(re.escape, words.split()))
    return [found.span() for found in re.finditer(f"(?<!{LETTER}){inside}(?!{LETTER})", text, re.IGNORECASE)]


def words_of(text: str) -> list[str]:
    """The words of a text, each once."""
    return list(dict.fromkeys(re.findall(r"\w+(?:['-]\w+)*", text)))
