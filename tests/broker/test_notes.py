"""What is committed beside an offset."""

import pytest

from broker.notes import Note, read_note, write_note


@pytest.mark.parametrize("topic_id", ["", "v4gEmXGgQkyMTpRgVB8fYw"])
@pytest.mark.parametrize("state_end", [None, 0, 12_345_678_901])
def test_what_is_written_is_read(topic_id: str, state_end: int | None) -> None:
    note = Note(topic_id, state_end)
    assert read_note(write_note(note)) == note


def test_without_state_it_is_the_topic_id_alone() -> None:
    assert write_note(Note("v4gEmXGgQkyMTpRgVB8fYw")) == "v4gEmXGgQkyMTpRgVB8fYw"


@pytest.mark.parametrize("metadata", [None, ""])
def test_nothing_says_nothing(metadata: str | None) -> None:
    assert read_note(metadata) == Note("")


@pytest.mark.parametrize("metadata", ["a note of somebody's", "id:", "id:-1", "id:²", "id:1.5"])
def test_of_what_others_wrote_nothing_is_taken_for_a_state(metadata: str) -> None:
    assert read_note(metadata) == Note(metadata)
