"""Telemetry: the worker reports events to its observers."""

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

FIRST_ROWS = 1000  # every feature should have appeared in these
RESTORING_S = 5.0
_LONGEST_NAME = 60  # characters shown of a name


class Step(StrEnum):
    """Points that a block passes, in this order; from `FLUSHED` onwards they belong to its transaction."""

    COLLECTED = "collected"
    SCORED = "scored"
    PRODUCING = "producing"  # the results are queued, the chunks' metrics are not
    PRODUCED = "produced"
    FLUSHED = "flushed"
    OFFSETS_SENT = "offsets_sent"
    COMMITTED = "committed"


class Observer:
    """Receives all events and ignores them. Subclasses override those they need, and never raise."""

    def reached(self, step: Step) -> None:
        """A block, or its transaction, passed a point."""

    def started(self, *, worker: str, model: str, features: Sequence[str], path: str, decision: str) -> None:
        """The worker has its model and clients and joins the group.

        `path` is the scoring path, `decision` what risk and label mean.
        """

    def model_ready(self, *, model: str, path: str) -> None:
        """Another model is pinned and ready. This event and the next three come from the thread that prepares it."""

    def model_awaited(self, why: str) -> None:
        """Model file, pin and card don't belong together; perhaps they are being replaced. The old model scores."""

    def model_refused(self, why: str) -> None:
        """Another model is pinned but can't be used. The old one scores."""

    def model_kept(self) -> None:
        """After `model_awaited` or `model_refused`, the pinned model is the scoring one again."""

    def model_changed(self, *, model: str, features: Sequence[str], path: str, decision: str) -> None:
        """The model that was ready now scores. What the old one scored is committed, or will be read again."""

    def assigned(self, partitions: Sequence[int]) -> None:
        """Partitions were assigned to this worker."""

    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        """Partitions were revoked; if `lost`, without notice."""

    def restoring(self, partitions: Sequence[int], *, patients: int) -> None:
        """The state of these partitions is being restored; their messages are read only after that.

        `patients` counts all patients whose state is in memory. Reported several times a second.
        """

    def restored(self, partition: int, *, patients: int, size: int, seconds: float) -> None:
        """A partition's state is restored, in this many patients, bytes and seconds. Its messages are read now."""

    def late(self, rows: int) -> None:
        """This many rows of the block being scored came too late for a step of their patient's windows."""

    def kept(self, *, patients: int, size: int) -> None:
        """After a commit: how many patients' state is in memory, and how many bytes it takes."""

    def behind(self, lags: Mapping[int, int]) -> None:
        """How many readable messages of each assigned partition are not collected yet.

        Reported about once a second, and when the worker ends; then uncommitted messages count too.
        """

    def collected(self, *, oldest: float | None, waited: float) -> None:
        """A block is about to be scored; `oldest` is its earliest source timestamp, in seconds since 1970.

        `waited` is how many seconds its first row has waited for others.
        """

    def rejected(self, partition: int, offset: int, reason: Reason, field: str) -> None:
        """A message goes to the dead-letter topic."""

    def looks_alike(self, name: str, wanted: str, *, mapped: bool) -> None:
        """The messages have a name that only looks like a wanted one, and lack the wanted one itself.

        The wanted names are the features or, with `mapped`, the mapping's paths or codes.
        """

    def foreign_codes(self, sentence: str) -> None:
        """None of the first messages has a code of the mapping; the sentence lists both."""

    def unseen(self, features: Sequence[str]) -> None:
        """None of the first rows had a number for these features; reported at most once."""

    def keyed_otherwise(self) -> None:
        """The keys of the first messages are not the patients' IDs; reported at most once."""

    def waited(self, milliseconds: NDArray[np.float64]) -> None:
        """The time since its source timestamp for each row of the chunks that `scored` reports next."""

    def scored(self, chunks: Sequence[ChunkMetrics]) -> None:
        """The chunks of a block were scored; they are not committed yet."""

    def committed(self, *, chunks: int, rows: int, seconds: float) -> None:
        """A transaction was committed; the commit took `seconds`."""

    def failed(self, operation: str, error_name: str, action: Action) -> None:
        """A Kafka call failed and the worker recovers."""

    def waiting(self, reason: str) -> None:
        """A required service does not answer, and the worker retries. Everything scored is committed."""

    def renewed(self) -> None:
        """The producer was replaced by a new one."""

    def kafka_error(self, error_name: str) -> None:
        """A client reports an error that it handles itself."""

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
    """Writes the log for operators: changes at once, numbers every `interval` seconds.

    It never contains a payload or a key. Once committed, the first dead letter of each reason and field is named with
    its offset; the others are counted.
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
        log.warning("waits for the rest of a new model and keeps the old one: %s", why)

    @override
    def model_refused(self, why: str) -> None:
        log.error("refuses the pinned model and keeps the old one, but would fail at the next start: %s", why)

    @override
    def model_kept(self) -> None:
        log.info("scores with the pinned model again")

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
            "correct the mapping" if mapped else "rename it at the sender",
        )

    @override
    def keyed_otherwise(self) -> None:
        """HL7 interfaces, for example, have no keys and use the message's own ID (MSH-10)."""
        log.warning(
            "the messages' keys are not the patients' ids: messages of one patient may be in several partitions, which "
            "are read in any order; have the sender use the patient's id as key if the order of results matters"
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
    def scored(self, chunks: Sequence[ChunkMetrics]) -> None:
        """Count for the next line of numbers; the first chunk with messages without input is named."""
        no_input = sum([chunk.no_input for chunk in chunks])
        self._uncommitted_no_input += no_input
        if self._waited:
            self._waited = False
            log.info("continues: the schema registry answers again")
        if no_input and not self._told_no_input:
            self._told_no_input = True
            first = next(chunk for chunk in chunks if chunk.no_input)
            log.warning(
                "chunk %s: %d of %d messages have too few of the model's features; their results have no risk and say "
                "no_input",
                first.chunk_id,
                first.no_input,
                first.rows,
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
