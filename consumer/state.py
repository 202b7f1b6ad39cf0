"""The patients' state of a worker: restored with its partitions, written in its transactions, undone with them.

The ends of the state topic's partitions identify the state in memory. The group commits them with its offsets, in the
transaction that wrote the state, so after trouble they show which of two states is valid.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, Message
from typing_extensions import override

from broker.admin import Admin
from broker.errors import SettingsError, VitalstreamError
from broker.roles import Role
from broker.settings import Settings
from consumer.errors import Action, KafkaCallError
from consumer.histories import Histories
from consumer.lifecycle import Lifecycle
from consumer.observer import Observer
from consumer.restoring import ANOTHER_GROUP, Piece, StateLostError, StateReader, make_state_reader
from consumer.sending import Records
from real_time.history import PatientHistory, Patients
from real_time.history.records import (
    NewerStateError,
    OtherRecipeError,
    StateError,
    StateRecords,
)

RECORD_OVERHEAD: Final = 512  # bytes: a patient's ID, and Kafka's overhead
_REMEDIES: Final[Mapping[type[StateError], str]] = {
    NewerStateError: "upgrade this worker",
    OtherRecipeError: f"use the model that the group started with, or {ANOTHER_GROUP}",
}
_REMEDY: Final = f"something else writes to the topic: {ANOTHER_GROUP}"
SLICE_S: Final = 0.1  # how long a restore blocks the loop


class StateLimitError(VitalstreamError):
    """The state exceeds the configured limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much state a worker may hold."""

    patients: int
    megabytes: int


@dataclass(slots=True)
class _Restore:
    end: int
    began: float
    begun: bool = False
    patients: int = 0
    size: int = 0


class State(Lifecycle):
    """What is known about the patients of the assigned partitions."""

    def __init__(
        self,
        history: PatientHistory,
        *,
        reader: StateReader,
        topic: str,
        partitions: int,
        limits: Limits,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`partitions` is the number of the state topic's partitions."""
        self._history = history
        self._patients = history.start()
        self._records = StateRecords(self._patients.layout, history.recipe_sha256)
        self._reader = reader
        self._topic = topic
        self._partitions = partitions
        self._limits = limits
        self._observer = observer
        self._clock = clock
        self._ends: dict[int, int] = {}  # of the state in memory, without uncommitted changes
        self._restores: dict[int, _Restore] = {}
        self._changed: frozenset[int] = frozenset()  # partitions of the transaction being committed
        self._written: dict[int, int] = {}  # and where the state that it wrote there ends

    @override
    def assigned(self, starts: Mapping[int, int | None]) -> None:
        for partition, end in starts.items():
            self._begin(partition, end)

    @property
    @override
    def outstanding(self) -> Collection[int]:
        return self._restores

    @override
    def restore(self) -> None:
        """Read a part of it. Raises StateLostError, StateLimitError or KafkaCallError."""
        if not self._restores:
            return
        for partition, restore in self._restores.items():
            if not restore.begun:
                self._reader.begin(partition, restore.end)
                restore.begun = True
        for piece in self._reader.read(SLICE_S):
            self._take(piece)
        self._require_room()
        self._observer.restoring([*self._restores], patients=len(self._patients))

    @override
    def closing(self) -> Sequence[Records]:
        """One record for each patient that changed, on the partition of the patient's messages."""
        changed, rows = self._patients.changed()
        partitions = [partition for partition, _ in changed]
        self._changed, self._written = frozenset(partitions), {}
        if not changed:
            return ()
        keys = [patient.encode() for _, patient in changed]
        values = self._records.encode(rows)
        return [Records(Role.STATE, values, keys, partitions=partitions, on_last=self._on_written)]

    @override
    def ends(self) -> Mapping[int, int]:
        """Where each partition's state ends; unchanged partitions keep their end."""
        if self._changed - self._written.keys():
            raise KafkaCallError("delivering", None, Action.REBUILD)
        for partition, end in self._written.items():
            if end <= self._ends[partition]:
                raise StateLostError(
                    f"topic {self._topic} was deleted and recreated while the group used it, so the patients' "
                    f"state is lost: {ANOTHER_GROUP}"
                )
        return self._ends | self._written

    @override
    def committed(self) -> None:
        self._ends |= self._written
        self._close()
        self._patients.commit()
        self._observer.kept(patients=len(self._patients), size=self._patients.nbytes)

    @override
    def settled(self, starts: Mapping[int, int | None]) -> None:
        """Keep the changes if they are committed, else undo them; then read what others have committed since."""
        ready = {one: end for one, end in starts.items() if one in self._ends and one not in self._restores}
        if self._written and all(
            end == self._written.get(one, self._ends[one]) for one, end in ready.items()
        ):
            return self.committed()
        self._patients.rollback()
        self._close()
        for partition, end in starts.items():
            if end != self._ends.get(partition):
                self._begin(partition, end)
        self.revoked(self._ends.keys() - starts.keys())
        return None

    @override
    def revoked(self, partitions: Collection[int]) -> None:
        """Forget their patients and undo uncommitted changes; `settled` rereads them if they were committed."""
        if partitions:
            self._patients.rollback()
            self._close()
        for partition in [*partitions]:
            self._reader.leave(partition)
            self._patients.drop(partition)
            self._ends.pop(partition, None)
            self._restores.pop(partition, None)

    @override
    def close(self) -> None:
        self._reader.close()

    def _begin(self, partition: int, end: int | None) -> None:
        self._patients.drop(partition)
        self._reader.leave(partition)
        if partition >= self._partitions:
            raise StateLostError(
                f"the input topic got partition {partition}, and topic {self._topic} has {self._partitions}: "
                "patients have moved to other partitions without their state; choose another --group, and "
                "create its state topic with topics create --state"
            )
        if end is None:
            raise StateLostError(
                f"the group's committed offset of partition {partition} has no state with it: it was committed "
                "by a worker without a history or by an offset reset; "
                f"{ANOTHER_GROUP}"
            )
        self._ends[partition] = end
        self._restores[partition] = _Restore(end, self._clock())

    def _take(self, piece: Piece) -> None:
        restore = self._restores[piece.partition]
        newest = dict(zip(piece.keys, piece.values, strict=True))
        kept = {key.decode(): value for key, value in newest.items() if value is not None}
        self._patients.remove(piece.partition, (key.decode() for key in newest if newest[key] is None))
        self._patients.restore(piece.partition, [*kept], self._decoded(piece.partition, [*kept.values()]))
        restore.size += sum(map(len, kept.values()))
        if piece.whole:
            del self._restores[piece.partition]
            self._observer.restored(
                piece.partition,
                patients=self._patients.count(piece.partition),
                size=restore.size,
                seconds=self._clock() - restore.began,
            )

    def _decoded(self, partition: int, values: Sequence[bytes]) -> Any:
        try:
            return self._records.decode(values)
        except StateError as error:
            remedy = _REMEDIES.get(type(error), _REMEDY)
            raise StateLostError(f"partition {partition} of topic {self._topic}: {error}; {remedy}") from None

    def histories(self, *, trial: bool = False) -> Histories:
        """Adds rows to this state; for a `trial`, to a temporary one."""
        if trial:
            return Histories(self._history.start(), observer=Observer())
        return Histories(self._patients, observer=self._observer, require_room=self._require_room)

    def _require_room(self) -> None:
        require_room(self._patients, self._limits)

    def _on_written(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            partition: Any = message.partition()
            offset: Any = message.offset()
            self._written[partition] = offset + 1

    def _close(self) -> None:
        self._changed, self._written = frozenset(), {}


def require_room(patients: Patients, limits: Limits) -> None:
    """Raise StateLimitError if the state exceeds its limits: nothing is silently forgotten."""
    if len(patients) > limits.patients:
        raise StateLimitError(
            f"the worker has more than {limits.patients:,} patients (--max-patients): raise it, or start more workers, "
            "so that each has fewer partitions"
        )
    if patients.nbytes > limits.megabytes * 1_000_000:
        raise StateLimitError(
            f"the patients' state takes more than {limits.megabytes:,} MB (--max-state-mb): raise it, or start more "
            "workers, so that each has fewer partitions"
        )


def make_state(
    settings: Settings, history: PatientHistory, message_limits: Mapping[str, int], observer: Observer
) -> State:
    """The state of a worker with these settings. Raises SettingsError if a patient's is too long for the topic."""
    topic = settings.topic(Role.STATE)
    size, limit = StateRecords(history.start().layout, history.recipe_sha256).size, message_limits[topic]
    if size + RECORD_OVERHEAD > limit:
        raise SettingsError(
            f"--model: a patient's state takes {size:,} bytes, but topic {topic} accepts messages of up to "
            f"{limit:,}: raise its max.message.bytes, or use shorter windows or longer steps"
        )
    return State(
        history,
        reader=make_state_reader(settings),
        topic=topic,
        partitions=len(Admin(settings).metadata.topics[topic].partitions),
        limits=Limits(settings.max_patients, settings.max_state_mb),
        observer=observer,
    )
