"""Makes text from a message safe for a terminal or a log."""


def printable(text: str, width: int = 40) -> str:
    """The text on one line, without control characters, cut to `width`."""
    safe = "".join(character if character.isprintable() else "?" for character in text)
    return safe if len(safe) <= width else safe[: width - 1] + "…"
