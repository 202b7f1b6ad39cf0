"""The note committed with an offset: its topic's ID, and where the patients' state ended at that moment."""

from typing import Final, NamedTuple

_BETWEEN: Final = ":"  # never part of a topic ID


class Note(NamedTuple):
    """`topic_id` is '' if the brokers did not report it; `state_end` is None if no state belongs to the offset."""

    topic_id: str
    state_end: int | None = None
    """The offset after the last record in the partition of the state topic, 0 if it has none yet."""


def write_note(note: Note) -> str:
    """Encode a note as a committed offset's metadata."""
    return note.topic_id if note.state_end is None else f"{note.topic_id}{_BETWEEN}{note.state_end}"


def read_note(metadata: str | None) -> Note:
    """Decode what `write_note` wrote. Any other text is a topic ID as a whole."""
    text = metadata or ""
    topic_id, between, end = text.rpartition(_BETWEEN)
    return Note(topic_id, int(end)) if between and end.isascii() and end.isdigit() else Note(text)
