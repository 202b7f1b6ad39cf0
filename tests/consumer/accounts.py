"""The oracle: reads the topics as any other program would and proves that every message is accounted for."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import pandas as pd
from confluent_kafka import Consumer, IsolationLevel, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from broker.settings import Settings
from schemas.dead_letters import Origin, read_dead_letter_headers
from schemas.metrics import ChunkMetrics, ClosedBy, decode_metrics
from schemas.reading import reader
from schemas.result_format import make_result_loader
from schemas.results import RiskResult
from tests.kafka import committed_offsets, partitions, read_all, wait_until

LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]

Position = tuple[int, int]  # partition, offset


@dataclass(frozen=True)
class Accounts:
    """What a read_committed reader finds in the four topics."""

    sources: dict[Position, Message]
    results: list[tuple[Message, RiskResult]]
    dead_letters: list[tuple[Message, Origin]]
    metrics: list[ChunkMetrics]  # in source order
    committed: dict[int, int]

    @cached_property
    def accounted(self) -> Counter[Position]:
        """How many answers each source position has."""
        scored = Counter((one.source_partition, one.source_offset) for _, one in self.results)
        return scored + Counter((one.partition, one.offset) for _, one in self.dead_letters)

    @cached_property
    def by_position(self) -> dict[Position, RiskResult]:
        """The result of each scored source position."""
        return {(one.source_partition, one.source_offset): one for _, one in self.results}

    @cached_property
    def letters(self) -> dict[Position, tuple[Message, Origin]]:
        """The dead letter of each rejected source position."""
        return {(origin.partition, origin.offset): (letter, origin) for letter, origin in self.dead_letters}


def read_accounts(settings: Settings, *, isolation: str = "read_committed") -> Accounts:
    kafka = settings.bootstrap_servers

    def read(topic: str) -> list[Message]:
        return read_all(kafka, topic, isolation=isolation)

    result = reader(RiskResult, make_result_loader(settings))
    return Accounts(
        sources={(_partition(one), _offset(one)): one for one in read(settings.input_topic)},
        results=[(one, result(one.value())) for one in read(settings.output_topic)],
        dead_letters=[
            (one, read_dead_letter_headers(_headers(one))) for one in read(settings.dead_letter_topic)
        ],
        metrics=sorted(
            map(_metrics, read(settings.metrics_topic)), key=lambda one: sorted(one.offsets.items())
        ),
        committed=committed_offsets(kafka, settings.group, settings.input_topic),
    )


def require_exactly_once(settings: Settings, *, rows: int) -> Accounts:
    """Fail unless each of `rows` source messages has exactly one answer and everything else agrees."""
    found = read_accounts(settings)
    assert len(found.sources) == rows
    accounted = found.accounted
    assert not [position for position, count in accounted.items() if count > 1], "answered twice"
    assert not found.sources.keys() - accounted.keys(), "not answered"
    assert not accounted.keys() - found.sources.keys(), "invented"
    require_order(found)
    require_metrics_add_up(settings, found)
    assert found.committed == {partition: offset + 1 for partition, offset in _last(found.sources).items()}, (
        "committed is not last + 1"
    )
    require_nothing_hanging(settings)
    return found


def require_order(found: Accounts) -> None:
    """Fail unless all results of one key are in one partition, in the order of their sources."""
    read: dict[bytes | None, list[Position]] = defaultdict(list)
    place: dict[bytes | None, set[int]] = defaultdict(set)
    for message, result in found.results:
        key = message.key()
        assert key == (found.sources[result.source_partition, result.source_offset].key() or key)
        read[key].append((result.source_partition, result.source_offset))
        place[key].add(_partition(message))
    assert all(positions == sorted(positions) for positions in read.values()), (
        "a patient's results are out of order"
    )
    assert all(len(where) == 1 for where in place.values()), "a patient's results are in several partitions"


def require_metrics_add_up(settings: Settings, found: Accounts) -> None:
    """Fail unless each chunk's numbers match its messages and the chunks tile every partition."""
    scored, rejected = found.by_position.keys(), found.letters.keys()
    tiles: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for chunk in found.metrics:
        inside = set[Position]()
        for name, (first, last) in chunk.offsets.items():
            topic, _, number = name.rpartition("-")
            assert topic == settings.input_topic
            tiles[int(number)].append((first, last))
            inside |= {(int(number), offset) for offset in range(first, last + 1)}
        assert chunk.chunk_size is not None
        assert settings.chunk_size in (chunk.chunk_size, "auto")
        assert 0 < chunk.rows == len(inside) <= chunk.chunk_size
        assert (chunk.scored, chunk.dead_lettered) == (len(inside & scored), len(inside & rejected))
        assert (chunk.latency_ms > 0) == (chunk.throughput_rows_per_s > 0)
        assert chunk.lag >= 0
        assert (chunk.closed_by is ClosedBy.FULL) == (chunk.rows == chunk.chunk_size)
    assert len({chunk.chunk_id for chunk in found.metrics}) == len(found.metrics)
    assert sum(chunk.rows for chunk in found.metrics) == len(found.sources)
    for spans in tiles.values():
        spans.sort()
        assert all(after[0] == before[1] + 1 for before, after in pairwise(spans))
        assert spans[0][0] == 0


def require_nothing_hanging(settings: Settings) -> None:
    """Fail if a transaction is still open on any output topic."""
    for topic in settings.output_topics:
        assert not hangs(settings, topic), f"a transaction is still open on {topic}"


def wait_settled(settings: Settings) -> None:
    """Wait until the broker has aborted what dead workers left open; until then readers see nothing after it."""
    wait_until(
        lambda: not any(hangs(settings, topic) for topic in settings.output_topics),
        timeout=30,
        what="the dead workers' transactions aborted",
    )


def hangs(settings: Settings, topic: str) -> bool:
    """Whether an open transaction holds up the readers of a topic."""
    return end_offsets(settings, topic, isolation=IsolationLevel.READ_COMMITTED) != end_offsets(
        settings, topic
    )


def end_offsets(
    settings: Settings, topic: str, *, isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED
) -> dict[int, int]:
    """Each partition's end at this isolation level: the last stable offset, or the high watermark."""
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0})
    asked = {
        TopicPartition(topic, number): LATEST for number in partitions(settings.bootstrap_servers, topic)
    }
    answers = admin.list_offsets(asked, isolation_level=isolation, request_timeout=10)
    return {one.partition: answer.result().offset for one, answer in answers.items()}


def members(settings: Settings) -> list[str]:
    """The ids of the group's members."""
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0})
    answer = admin.describe_consumer_groups([settings.group], request_timeout=10)[settings.group]
    return [member.member_id for member in answer.result().members]


class Progress:
    """Polls how many messages the group has committed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = Consumer(
            {"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.group, "log_level": 0}
        )
        numbers = partitions(settings.bootstrap_servers, settings.input_topic)
        self._asked = [TopicPartition(settings.input_topic, number) for number in numbers]

    def rows(self) -> int:
        try:
            answers = self._client.committed(self._asked, timeout=5)
        except KafkaException:  # the group coordinator is not available yet
            return 0
        return sum(max(0, answer.offset) for answer in answers)

    def reached(self, rows: int, *, timeout: float = 60) -> None:
        """Wait until the group has committed that many messages."""
        wait_until(
            lambda: self.rows() >= rows,
            timeout=timeout,
            what=f"{rows} rows committed (now {self.rows()}) by {self._settings.group}",
        )

    def close(self) -> None:
        self._client.close()


def offline_frame(found: Accounts, features: Iterable[str]) -> pd.DataFrame:
    """The source messages as one frame, parsed with Python's own json and indexed by position."""
    names = [*features]
    documents: dict[Any, dict[str, Any]] = {
        position: json.loads(message.value() or b"") for position, message in sorted(found.sources.items())
    }
    rows = [[document.get(name) for name in names] for document in documents.values()]
    index = pd.MultiIndex.from_tuples([*documents])
    return pd.DataFrame(rows, index=index, columns=names, dtype="float64")


def _last(sources: Iterable[Position]) -> dict[int, int]:
    last: dict[int, int] = {}
    for partition, offset in sources:
        last[partition] = max(offset, last.get(partition, -1))
    return last


def _metrics(message: Message) -> ChunkMetrics:
    return decode_metrics(message.value())


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    headers: Any = message.headers()
    return list(headers or ())


def _partition(message: Message) -> int:
    partition = message.partition()
    assert partition is not None
    return partition


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None
    return offset
