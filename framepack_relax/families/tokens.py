"""What of a prompt a model does not read."""

import string
from collections.abc import Mapping
from textwrap import shorten
from typing import Any

PROMPT_TOKENS = 256  # of a prompt; encode_prompt's max_sequence_length


def unread_parts(tokenizer: Any, prompt: str) -> list[str]:
    """Words that a word-level tokenizer maps to its unknown token, and what `encode_prompt` cuts off a long prompt."""

    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    said, unknown = [], tokenizer.unk_token_id
    words = dict.fromkeys(word.strip(string.punctuation) for word in prompt.split() if unknown is not None)
    if unread := [word for word in words if word and unknown in tokens(word)]:
        said.append(f"does not know {', '.join(unread)}")
    count = len(tokens(prompt))
    if count > PROMPT_TOKENS:
        said.append(f"reads the first {PROMPT_TOKENS} of {count} tokens")
    return said


def unread_notes(unread: Mapping[str, list[str]]) -> list[str]:
    """What is not read of prompts, a line each."""
    return [f"the model {' and '.join(parts)} in {shorten(prompt, 60)!r}" for prompt, parts in unread.items()]
