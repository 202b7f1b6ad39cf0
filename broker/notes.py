"""What is committed beside an offset: which topic it is of, and where the patients' state of that moment ends."""

from typing import Final, NamedTuple

_BETWEEN: Final = ":"  # is in no topic ID


class Note(NamedTuple):
    """`topic_id` is '' where the brokers did not tell it; `state_end` None where no state belongs to the offset."""

    topic_id: str
    state_end: int | None = None
    """The offset behind the partition's last record of the state topic, 0 where it has none yet."""


def write_note(note: Note) -> str:
    """The metadata of a committed offset."""
    return note.topic_id if note.state_end is None else f"{note.topic_id}{_BETWEEN}{note.state_end}"


def read_note(metadata: str | None) -> Note:
    """What `write_note` wrote. Of anything else, all of it is the topic's ID."""
    text = metadata or ""
    topic_id, between, end = text.rpartition(_BETWEEN)
    return Note(topic_id, int(end)) if between and end.isascii() and end.isdigit() else Note(text)
