"""The metadata committed with an offset."""

import pytest

from broker.notes import Note, read_note, write_note


@pytest.mark.parametrize("topic_id", ["", "v4gEmXGgQkyMTpRgVB8fYw"])
@pytest.mark.parametrize("state_end", [None, 0, 12_345_678_901])
def test_a_note_survives_a_round_trip(topic_id: str, state_end: int | None) -> None:
    note = Note(topic_id, state_end)
    assert read_note(write_note(note)) == note


def test_without_state_a_note_is_only_the_topic_id() -> None:
    assert write_note(Note("v4gEmXGgQkyMTpRgVB8fYw")) == "v4gEmXGgQkyMTpRgVB8fYw"


@pytest.mark.parametrize("metadata", [None, ""])
def test_empty_metadata_is_an_empty_note(metadata: str | None) -> None:
    assert read_note(metadata) == Note("")


@pytest.mark.parametrize("metadata", ["a note of somebody's", "id:", "id:-1", "id:²", "id:1.5"])
def test_metadata_of_others_is_never_taken_for_a_state_end(metadata: str) -> None:
    assert read_note(metadata) == Note(metadata)
