"""Asks the brokers for the current state of a group and its topics, without changing or joining anything."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)

from broker.admin import Admin
from broker.errors import BrokerError
from broker.notes import read_note
from broker.reading import Offsets, end_offsets, first_offsets, messages, newest, offsets_at
from broker.settings import Settings
from broker.topics import require_topics
from producer.letters import LetterBox
from schemas.contract import Reason
from schemas.reading import MessageError, reader
from schemas.registry import RegistryError
from schemas.result_format import make_result_loader
from schemas.results import RiskResult

DEAD_LETTERS_S: Final = 3600
"""Count the dead letters of this many seconds."""

TOO_OLD_S: Final = 60
"""A message that waits longer is a problem, as for the alert VitalstreamOldestUnprocessedTooOld."""

_COUNTED = 100  # messages read of a partition; of later ones only the offsets are known
_GROWTH = 10
_ANSWER_S = 5.0

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Member:
    """A worker in the group and its input partitions. Its name is the client.id, unless a property sets another."""

    client_id: str
    host: str
    partitions: list[int]


@dataclass(frozen=True, slots=True)
class Partition:
    """The group's progress in an input partition, which holds the offsets from `start` to below `end`.

    `committed` is None before the group's first commit. `recreated`: that commit belongs to an earlier topic of the
    same name. `waiting` messages are not scored yet; an upper bound unless `counted`. `oldest_at` is the timestamp of
    the first of them in Unix seconds; None if there is none or it can't be read.
    """

    partition: int
    start: int
    end: int
    committed: int | None
    recreated: bool
    waiting: int
    counted: bool
    oldest_at: float | None


@dataclass(frozen=True, slots=True)
class Scoring:
    """A model whose results are the newest in these partitions of the risk topic, and when it made the last one."""

    model: str
    scored_at: str
    partitions: list[int]


@dataclass(frozen=True, slots=True)
class Status:
    """Everything found at the time `at`, in Unix seconds. What could not be determined is None; `notes` say why."""

    at: float
    group: str
    state: str
    members: list[Member]
    partitions: list[Partition]
    dead_letters: Counter[Reason] | None
    scoring: list[Scoring] | None
    notes: list[str]

    @property
    def waiting(self) -> int:
        """Messages not scored yet; an upper bound unless `counted`."""
        return sum(one.waiting for one in self.partitions)

    @property
    def counted(self) -> bool:
        """Whether `waiting` is exact."""
        return all(one.counted for one in self.partitions)

    @property
    def oldest_s(self) -> float | None:
        """How long the oldest message has waited, in seconds; None if none waits or it can't be read."""
        times = [one.oldest_at for one in self.partitions if one.oldest_at is not None]
        return max(0.0, self.at - min(times)) if times else None


def gather(settings: Settings) -> Status:
    """Ask the brokers.

    Raises:
        BrokerError: they don't answer, the input topic is missing, or this user may not DESCRIBE it or the group.
    """
    require_topics(settings, [settings.input_topic])
    admin = Admin(settings)
    notes: list[str] = []
    state, members = _group(admin, settings)
    return Status(
        group=settings.group,
        state=state.name.lower().replace("_", " "),
        members=members,
        partitions=_partitions(admin, settings, notes),
        dead_letters=_noted(notes, lambda: _dead_letters(settings)),
        scoring=_noted(notes, lambda: _scoring(settings)),
        notes=notes,
        at=time.time(),
    )


def problems(found: Status, topic: str) -> Iterator[str]:
    """The problems that somebody must act on, one sentence each."""
    owned = {number for member in found.members for number in member.partitions}
    idle = [one.partition for one in found.partitions if one.partition not in owned]
    if not found.members:
        yield f"group {found.group} has no worker: nothing is scored"
    elif idle and found.state == "stable":
        yield f"no worker of group {found.group} has partition {', '.join(map(str, idle))}"
    for one in found.partitions:
        if one.recreated:
            yield (
                f"partition {one.partition}: topic {topic} was deleted and recreated; the group's committed "
                "offset belongs to the earlier one, so workers stop until it is reset"
            )
        elif one.committed is not None and one.committed < one.start:
            yield (
                f"partition {one.partition}: the messages from offset {one.committed} to {one.start - 1} were deleted "
                "before they were scored, so workers stop until the group's offsets are reset"
            )
    if found.oldest_s is not None and found.oldest_s > TOO_OLD_S:
        yield f"the oldest message has waited for {found.oldest_s:,.0f} s, more than {TOO_OLD_S} s"


def _noted(notes: list[str], find: Callable[[], Found]) -> Found | None:
    """The result; None, with a note, if the brokers refuse it."""
    try:
        return find()
    except (BrokerError, RegistryError) as error:
        notes.append(str(error))
        return None


def _group(admin: Admin, settings: Settings) -> tuple[ConsumerGroupState, list[Member]]:
    group, describe = settings.group, admin.client.describe_consumer_groups
    found = admin.ask(
        f"the members of group {group}",
        lambda: describe([group], request_timeout=admin.timeout)[group].result(),  # noqa: PLW0108 (asks each time)
    )
    members = [
        Member(
            one.client_id,
            one.host.lstrip("/"),
            sorted(
                two.partition for two in one.assignment.topic_partitions if two.topic == settings.input_topic
            ),
        )
        for one in found.members
    ]
    return found.state, sorted(members, key=lambda one: (one.client_id, one.host))


def _partitions(admin: Admin, settings: Settings, notes: list[str]) -> list[Partition]:
    topic = settings.input_topic
    committed, recreated = _committed(admin, settings)
    starts, ends = first_offsets(admin, topic), end_offsets(admin, topic)
    begins = starts if settings.from_ms is None else _beginnings(admin, topic, settings.from_ms, ends)
    left = {number: max(start, committed.get(number, begins[number])) for number, start in starts.items()}
    read = _noted(notes, lambda: _first_waiting(settings, left, ends)) or {}
    return [
        Partition(
            number,
            starts[number],
            ends[number],
            committed.get(number),
            number in recreated,
            *read.get(number, (max(0, ends[number] - left[number]), ends[number] <= left[number], None)),
        )
        for number in sorted(starts)
    ]


def _beginnings(admin: Admin, topic: str, milliseconds: int, ends: Offsets) -> Offsets:
    """Where the group begins in partitions of which it has committed nothing."""
    since = offsets_at(admin, topic, milliseconds)
    return {number: since[number] if since[number] >= 0 else end for number, end in ends.items()}


def _committed(admin: Admin, settings: Settings) -> tuple[Offsets, set[int]]:
    """The group's committed offsets, and the partitions where they belong to an earlier topic of the same name."""
    topic = settings.input_topic
    names, describe = TopicCollection([topic]), admin.client.describe_topics
    described = admin.ask(
        f"the ID of topic {topic}",
        lambda: describe(names, request_timeout=admin.timeout)[topic].result(),  # noqa: PLW0108 (asks each time)
    )
    # Ask through a consumer that joins nothing: the admin client's request for a group's offsets aborts the process
    # if the coordinator goes away meanwhile (an assertion of librdkafka 2.16).
    # read_uncommitted returns the offsets even while a worker's transaction is about to change them.
    own = {"group.id": settings.group, "isolation.level": "read_uncommitted", "log_level": 0}
    with closing(Consumer(settings.client() | own)) as consumer:
        asked = [TopicPartition(topic, number) for number in admin.metadata.topics[topic].partitions]

        def question() -> list[TopicPartition]:
            answers = consumer.committed(asked, timeout=_ANSWER_S)
            for one in answers:
                if one.error is not None:
                    raise KafkaException(one.error)
            return answers

        found = admin.ask(f"the committed offsets of group {settings.group}", question)
    offsets = {one.partition: one.offset for one in found if one.offset >= 0}
    return offsets, {
        one.partition
        for one in found
        if (topic_id := read_note(one.metadata).topic_id) and topic_id != str(described.topic_id)
    }


def _first_waiting(
    settings: Settings, starts: Offsets, ends: Offsets
) -> dict[int, tuple[int, bool, float | None]]:
    """For each partition: the number of messages, whether it is exact, and the first one's timestamp.

    Offsets do not count messages: transaction markers and aborted messages take some as well.
    """
    first: dict[int, Message] = {}
    count = Counter[int]()
    read, step = dict(starts), _COUNTED
    while left := {p: read[p] for p in starts if count[p] < _COUNTED and read[p] < ends[p]}:
        read |= {p: min(start + step, ends[p]) for p, start in left.items()}
        for message in messages(settings, settings.input_topic, left, read):
            partition = message.partition() or 0
            count[partition] += 1
            first.setdefault(partition, message)
        step *= _GROWTH
    return {
        p: (count[p] + max(0, ends[p] - read[p]), read[p] >= ends[p], _time(first.get(p))) for p in starts
    }


def _time(message: Message | None) -> float | None:
    milliseconds = -1 if message is None else message.timestamp()[1]
    return milliseconds / 1000 if milliseconds >= 0 else None


def _dead_letters(settings: Settings) -> Counter[Reason]:
    since = round((time.time() - DEAD_LETTERS_S) * 1000)
    letters = LetterBox(settings, settled=False, made_since=since).letters()
    return Counter(letter.origin.reason for letter in letters if letter.made_at >= since)


def _scoring(settings: Settings) -> list[Scoring]:
    topic = settings.output_topic
    read = reader(RiskResult, make_result_loader(settings))
    require_topics(settings, [topic])
    admin = Admin(settings)
    found = newest(
        settings,
        topic,
        first_offsets(admin, topic),
        end_offsets(admin, topic),
        count=1,
        keep=partial(_result, read),
    )
    last = {number: results[-1] for number, results in found.items() if results}
    return [
        Scoring(
            model,
            max(one.scored_at for one in last.values() if one.model == model),
            [number for number, one in sorted(last.items()) if one.model == model],
        )
        for model in sorted({one.model for one in last.values()})
    ]


def _result(read: Callable[[bytes | None], RiskResult], message: Message) -> RiskResult | None:
    try:
        return read(message.value())
    except MessageError:
        return None
