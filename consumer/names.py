"""Checks that messages have the model's features, which would never be found under other names."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from broker.errors import SettingsError
from schemas.contract import EVENT_TIME, PATIENT_ID
from schemas.lookalike import look_alikes
from schemas.messages import Message
from schemas.names import Names
from schemas.printable import printable

FIRST_MESSAGES: Final = 100  # of which one must have a feature
_MOST: Final = 30  # names listed in the error
_LONGEST: Final = 60  # characters of a name


class NoFeatureError(SettingsError):
    """None of the first messages has any of the model's features."""


class NameCheck:
    """Collects the field names in messages, and whether one of them is a feature's, whatever its value.

    Rejected messages do not count, but their names do.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._told: set[tuple[str, str]] = set()
        self.found = not names.wanted
        self.restart()

    def restart(self) -> None:
        """Start counting again, because the counted messages will be read again."""
        self._messages = 0
        self._fields: Counter[str] = Counter()

    @property
    def doubts(self) -> bool:
        """Whether messages arrived but none has had a feature yet, in which case the worker will stop."""
        return not self.found and self._messages > 0 and not self._names.coded

    def look(self, messages: Iterable[Message], *, accepted: int) -> None:
        """Count a chunk's messages and how many of them were accepted."""
        self._messages += accepted
        for message in messages:
            self._fields.update(self._names.of(message))
        self.found = self.found or not self._fields.keys().isdisjoint(self._names.wanted)

    def look_alikes(self) -> list[tuple[str, str]]:
        """Names that resemble a wanted name that no message has, each with that name, unless reported before."""
        new = [pair for pair in look_alikes(self._fields, self._names.wanted) if pair not in self._told]
        self._told.update(new)
        return new

    def require(self) -> None:
        """Raise NoFeatureError if at least 100 messages have been accepted and no message has had any feature."""
        if not self.found and self._messages >= FIRST_MESSAGES and not self._names.coded:
            raise NoFeatureError(self._sentence())

    def foreign_codes(self) -> str | None:
        """A sentence, once, if the first messages have none of the mapping's codes; others may still have them."""
        if self.found or self._messages < FIRST_MESSAGES or not self._names.coded:
            return None
        self.found = True
        seen = _listed([name for name, _ in self._fields.most_common()], nothing="no codes")
        return (
            f"none of the first {self._messages:,} messages has a code of the mapping, so none was scored: the "
            f"messages have {seen}, the mapping says {_listed(self._names.wanted)}; correct the mapping, unless these "
            "messages are for others"
        )

    def _sentence(self) -> str:
        fields = [name for name, _ in self._fields.most_common() if name not in (PATIENT_ID, EVENT_TIME)]
        if self._names.mapped:
            return (
                f"--mapping: none of the first {self._messages:,} messages has anything at the paths of the "
                f"model's features, so nobody would be scored: the messages have {_listed(fields)}, the mapping says "
                f"{_listed(self._names.wanted)}; correct its paths, then start again; uncommitted messages are "
                "then read again"
            )
        return (
            f"--model: none of the first {self._messages:,} messages has any of the model's features, so nobody would "
            f"be scored: the messages have {_listed(fields)}, the model wants {_listed(self._names.wanted)}; "
            "rename the fields at the sender, or fit the model on columns with the fields' names, then start "
            "again; uncommitted messages are then read again"
        )


def _listed(names: Sequence[str], nothing: str = f"nothing but {PATIENT_ID} and {EVENT_TIME}") -> str:
    """Names on one line, without control characters."""
    shown = [printable(name, _LONGEST) for name in names[:_MOST]]
    more = f" and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
    return ", ".join(shown) + more if shown else nothing
