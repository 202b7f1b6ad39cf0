"""Telemetry: the worker tells what happened, and whoever wants to know listens."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from consumer.errors import Action
from schemas.contract import Reason
from schemas.lookalike import difference
from schemas.metrics import ChunkMetrics
from schemas.printable import printable

log = logging.getLogger("vitalstream.worker")

FIRST_ROWS = 1000  # in which every feature should have been seen
RESTORING_S = 5.0
_LONGEST_NAME = 60  # characters that are shown of it


class Step(StrEnum):
    """Points on a block's way, in this order; from `FLUSHED` on they belong to its transaction."""

    COLLECTED = "collected"
    SCORED = "scored"
    PRODUCING = "producing"  # the results are handed over, the chunks' metrics are not
    PRODUCED = "produced"
    FLUSHED = "flushed"
    OFFSETS_SENT = "offsets_sent"
    COMMITTED = "committed"


class Observer:
    """Hears everything and does nothing. Subclasses override what they care for, and never raise."""

    def reached(self, step: Step) -> None:
        """A block, or its transaction, passed a point."""

    def started(self, *, worker: str, model: str, features: Sequence[str], path: str, decision: str) -> None:
        """The worker has its model and clients and joins the group.

        `path` is the way it scores, `decision` what risk and label mean.
        """

    def model_ready(self, *, model: str, path: str) -> None:
        """Another model is pinned, and can take over. Told, like the next three, by the thread that prepares it."""

    def model_awaited(self, why: str) -> None:
        """Model file, pin and card are not of one model: perhaps they are being replaced. The old one scores."""

    def model_refused(self, why: str) -> None:
        """Another model is pinned and can't be used. The old one scores."""

    def model_kept(self) -> None:
        """After one of the two, the pinned model is again the one that scores."""

    def model_changed(self, *, model: str, features: Sequence[str], path: str, decision: str) -> None:
        """The model that was ready scores from now on. What the old one scored is committed, or is read again."""

    def assigned(self, partitions: Sequence[int]) -> None:
        """Partitions were given to this worker."""

    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        """Partitions were taken from this worker; when `lost`, without asking."""

    def restoring(self, partitions: Sequence[int], *, patients: int) -> None:
        """The patients' state of these partitions is being read; none of their messages is until that is done.

        `patients` are all whose state is in memory. Told several times a second.
        """

    def restored(self, partition: int, *, patients: int, size: int, seconds: float) -> None:
        """The state of a partition is read: so many patients, bytes and seconds. Its messages are read now."""

    def late(self, rows: int) -> None:
        """So many rows of the block being scored came too late for a step of their patient's windows."""

    def kept(self, *, patients: int, size: int) -> None:
        """With the transaction that was just committed, so many patients' state is in memory, in so many bytes."""

    def behind(self, lags: Mapping[int, int]) -> None:
        """So many messages of each assigned partition can be read and are not collected yet.

        Told about once a second, and by a worker that ends, which then counts what it has not committed, too.
        """

    def collected(self, *, oldest: float | None, waited: float) -> None:
        """A block is about to be scored; `oldest` is its earliest source timestamp, in seconds since 1970.

        `waited` is for how many seconds its first row has waited for others.
        """

    def rejected(self, partition: int, offset: int, reason: Reason, field: str) -> None:
        """A message goes to the dead-letter topic."""

    def looks_alike(self, name: str, wanted: str, *, mapped: bool) -> None:
        """The messages have a name that only looks like a wanted one, and not that one itself.

        Wanted are the features or, with `mapped`, the mapping's paths or codes.
        """

    def foreign_codes(self, sentence: str) -> None:
        """None of the first messages has a code of the mapping; the sentence has both lists."""

    def unseen(self, features: Sequence[str]) -> None:
        """None of the first rows had a number for these features; told once at most."""

    def keyed_otherwise(self) -> None:
        """The keys of the first messages are not the patients' ids; told once at most."""

    def waited(self, milliseconds: NDArray[np.float64]) -> None:
        """From source timestamp to now, of the rows of the chunks that `scored` tells next."""

    def scored(self, metrics: ChunkMetrics) -> None:
        """A chunk was scored; it is not committed yet."""

    def committed(self, *, chunks: int, rows: int, seconds: float) -> None:
        """A transaction was committed; `seconds` is what committing it took."""

    def failed(self, operation: str, error_name: str, action: Action) -> None:
        """A Kafka call failed and the worker recovers."""

    def waiting(self, reason: str) -> None:
        """What the worker can't do without does not answer; it asks again. All that is scored is committed."""

    def renewed(self) -> None:
        """The producer was dropped for a new one."""

    def kafka_error(self, error_name: str) -> None:
        """A client reports trouble that it deals with itself."""

    def stopped(self) -> None:
        """The worker has left the group."""


class Observers(Observer):
    """Passes every event on to several observers."""

    def __init__(self, *observers: Observer) -> None:
        for event, nothing in vars(Observer).items():
            if not event.startswith("_"):
                listeners = [getattr(observer, event) for observer in observers]
                interested = [one for one in listeners if getattr(one, "__func__", one) is not nothing]
                setattr(self, event, _fan_out(interested))


def _fan_out(listeners: list[Callable[..., None]]) -> Callable[..., None]:
    def tell(*args: Any, **kwargs: Any) -> None:
        for listener in listeners:
            listener(*args, **kwargs)

    return tell


class LogObserver(Observer):
    """Writes what an operator wants to read: changes at once, numbers every `interval` seconds.

    Never a payload or a key. Of dead letters the first of each reason and field is named with its offset, the
    others are counted, once they are committed.
    """

    def __init__(self, *, interval: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._due = clock() + interval
        self._rows = 0
        self._lag = 0
        self._rejects: Counter[str] = Counter()
        self._uncommitted: Counter[str] = Counter()
        self._named: set[tuple[Reason, str]] = set()
        self._to_name: dict[tuple[Reason, str], tuple[int, int]] = {}  # not committed yet
        self._no_input = 0
        self._uncommitted_no_input = 0
        self._told_no_input = False
        self._waited = False
        self._restoring_due = clock() + RESTORING_S

    @override
    def started(self, *, worker: str, model: str, features: Sequence[str], path: str, decision: str) -> None:
        log.info("worker %s scores %s with model %s", worker, ", ".join(features), model[:12])
        log.info("scores with %s", path)
        log.info("%s", decision)

    @override
    def model_changed(self, *, model: str, features: Sequence[str], path: str, decision: str) -> None:
        log.info("scores %s with model %s from now on", ", ".join(features), model[:12])
        log.info("scores with %s", path)
        log.info("%s", decision)

    @override
    def model_awaited(self, why: str) -> None:
        log.warning("waits for the rest of a new model and goes on with the old one: %s", why)

    @override
    def model_refused(self, why: str) -> None:
        log.error(
            "refuses the pinned model and goes on with the old one, but could not start with it: %s", why
        )

    @override
    def model_kept(self) -> None:
        log.info("the pinned model is the one that scores")

    @override
    def assigned(self, partitions: Sequence[int]) -> None:
        log.info("assigned partitions %s", _listed(partitions))

    @override
    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        log.info("%s partitions %s", "lost" if lost else "revoked", _listed(partitions))

    @override
    def restoring(self, partitions: Sequence[int], *, patients: int) -> None:
        """Log progress every few seconds."""
        if partitions and self._clock() >= self._restoring_due:
            self._restoring_due = self._clock() + RESTORING_S
            log.info(
                "restoring the state of partitions %s: %d patients so far", _listed(partitions), patients
            )

    @override
    def restored(self, partition: int, *, patients: int, size: int, seconds: float) -> None:
        log.info(
            "restored the state of partition %d: %d patients, %.1f MB in %.1f s",
            partition,
            patients,
            size / 1e6,
            seconds,
        )

    @override
    def rejected(self, partition: int, offset: int, reason: Reason, field: str) -> None:
        """Name the first dead letter of each reason and field, once it is committed."""
        self._uncommitted[reason] += 1
        if (reason, field) not in self._named:
            self._to_name.setdefault((reason, field), (partition, offset))

    @override
    def looks_alike(self, name: str, wanted: str, *, mapped: bool) -> None:
        """Name the letters that differ: the names themselves would look the same."""
        log.warning(
            "the messages' field %s only looks like %s %s (%s), so the model scores without it: %s",
            printable(name, _LONGEST_NAME),
            "the mapping's" if mapped else "the model's feature",
            printable(wanted, _LONGEST_NAME),
            difference(name, wanted),
            "correct the mapping" if mapped else "rename it where it is sent",
        )

    @override
    def keyed_otherwise(self) -> None:
        """HL7 interfaces, for example, have no keys and use the message's own ID (MSH-10)."""
        log.warning(
            "the messages' keys are not the patients' ids: messages of one patient may be in several partitions, which "
            "are read in any order; let the sender use the patient's id as key if the order of results matters"
        )

    @override
    def foreign_codes(self, sentence: str) -> None:
        """The mapping is for another feed, or messages for others came first."""
        log.warning("%s", sentence)

    @override
    def unseen(self, features: Sequence[str]) -> None:
        """Usually a name or a unit differs between model and sender."""
        log.warning(
            "none of the first %s messages has a plausible number for %s, so the model scores without it; "
            "do the messages have these names and units?",
            f"{FIRST_ROWS:,}",
            ", ".join(features),
        )

    @override
    def scored(self, metrics: ChunkMetrics) -> None:
        """Count for the next line of numbers; the first chunk with messages without input is named."""
        self._uncommitted_no_input += metrics.no_input
        if self._waited:
            self._waited = False
            log.info("goes on: the schema registry answers")
        if metrics.no_input and not self._told_no_input:
            self._told_no_input = True
            log.warning(
                "chunk %s: %d of %d messages have too few of the model's features; their results have no risk and say "
                "no_input",
                metrics.chunk_id,
                metrics.no_input,
                metrics.rows,
            )

    @override
    def behind(self, lags: Mapping[int, int]) -> None:
        self._lag = sum(lags.values())

    @override
    def committed(self, *, chunks: int, rows: int, seconds: float) -> None:
        self._rows += rows
        self._rejects += self._uncommitted
        self._no_input += self._uncommitted_no_input
        for (reason, field), position in self._to_name.items():
            log.warning("dead letter at partition %d offset %d: %s %s", *position, reason, field)
        self._named.update(self._to_name)
        self._forget_uncommitted()
        if self._clock() >= self._due:
            self._numbers()

    @override
    def failed(self, operation: str, error_name: str, action: Action) -> None:
        self._forget_uncommitted()  # read again
        log.warning("%s failed with %s: %s", operation, error_name, action.value)

    @override
    def waiting(self, reason: str) -> None:
        self._forget_uncommitted()  # read again
        self._waited = True
        log.warning("%s; messages wait, and none is lost", reason)

    @override
    def kafka_error(self, error_name: str) -> None:
        log.debug("Kafka client: %s", error_name)

    @override
    def stopped(self) -> None:
        self._numbers()
        log.info("stopped")

    def _numbers(self) -> None:
        dead = ", ".join(f"{reason} {count}" for reason, count in self._rejects.items()) or "none"
        empty = f", {self._no_input} of them without input" if self._no_input else ""
        log.info("%d rows committed%s, lag %d, dead letters: %s", self._rows, empty, self._lag, dead)
        self._due = self._clock() + self._interval

    def _forget_uncommitted(self) -> None:
        self._uncommitted.clear()
        self._to_name.clear()
        self._uncommitted_no_input = 0


def _listed(partitions: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(partitions))) or "none"
