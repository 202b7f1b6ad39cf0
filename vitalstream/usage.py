"""Rewords typer's errors about a command line to match all our other errors."""

import re
from typing import Any, Final

import typer

# click's class, or that of typer's own copy of click: this finds either.
UsageError: Final[Any] = typer.BadParameter.__mro__[1]

_WORDS: Final = (
    (r"^Invalid value for '([^']+)': ", r"\1: "),
    (r"Value error, ", ""),
    (r"Input should be a valid integer.*", "must be a whole number"),
    (r"Input should be a valid number.*", "must be a number"),
    (r"Input should be greater than or equal to ", "must be at least "),
    (r"Input should be less than or equal to ", "must be at most "),
)


def in_our_words(error: Any) -> str:
    """One line; the help for a group without a command."""
    text: str = error.format_message()
    if text.startswith("Usage:"):
        return text
    for theirs, ours in _WORDS:
        text = re.sub(theirs, ours, text)
    text = re.sub(r"^[A-Z](?=[a-z])", lambda first: first[0].lower(), text).rstrip(".")
    return f"vitalstream: {text}"
