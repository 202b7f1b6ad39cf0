"""Stops the worker if so many messages are rejected that the messages are unlikely to be at fault."""

from collections import Counter, deque
from collections.abc import Sequence

from broker.errors import VitalstreamError
from schemas.vitals import Reject

# A false alarm stops scoring for everyone; late detection only means more to replay. Err on the late side.
WINDOW = 1000
ENOUGH = 500


class TooManyRejectedError(VitalstreamError):
    """Too large a share of the messages is rejected; nothing of the open transaction is committed."""


class RejectLimit:
    """Stops a worker that would drain its topic into dead letters.

    Raises if more than `ratio` of the last 1,000 messages were rejected (of at least 500), or all of the last 500.
    With a `ratio` of 1 it never does. It takes one step per chunk: the window is the fewest whole chunks that hold
    1,000 messages, and consecutive rejects are counted back from the end of a chunk.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self.restart()

    def restart(self) -> None:
        """Start counting again, because the counted messages will be read again."""
        self._chunks: deque[tuple[int, Sequence[Reject]]] = deque()
        self._rows = 0
        self._rejected = 0
        self._in_a_row = 0

    def update(self, rows: int, rejects: Sequence[Reject]) -> None:
        """Count a chunk; `rejects` are in order of position.

        Raises:
            TooManyRejectedError: with the reasons and their counts.
        """
        self._chunks.append((rows, rejects))
        self._rows += rows
        self._rejected += len(rejects)
        while self._rows - self._chunks[0][0] >= WINDOW:
            gone, with_them = self._chunks.popleft()
            self._rows -= gone
            self._rejected -= len(with_them)
        if not self._rejected:
            self._in_a_row = 0
            return
        trailing = _trailing(rows, rejects)
        self._in_a_row = trailing + (self._in_a_row if trailing == rows else 0)
        if self._ratio < 1 and self._too_many():
            raise TooManyRejectedError(self._sentence())

    def _too_many(self) -> bool:
        share_is_too_large = self._rows >= ENOUGH and self._rejected > self._ratio * self._rows
        return share_is_too_large or self._in_a_row >= ENOUGH

    def _sentence(self) -> str:
        counts = Counter(
            f"{one.reason} {one.field}".rstrip() for _, rejects in self._chunks for one in rejects
        )
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())
        return (
            f"{self._rejected:,} of the last {self._rows:,} messages were rejected, {self._in_a_row:,} in a row "
            f"({reasons}): more than a share of {self._ratio:g}, or {ENOUGH} in a row, stops the worker, so "
            "that the topic does not drain into dead letters; uncommitted messages are read again at the next "
            "start: correct the sender or the model, or raise --max-dead-letter-ratio (1 never stops), then start again"
        )


def _trailing(rows: int, rejects: Sequence[Reject]) -> int:
    """The number of consecutive rejects at the end of a chunk."""
    count = 0
    while count < len(rejects) and rejects[-1 - count].position == rows - 1 - count:
        count += 1
    return count
