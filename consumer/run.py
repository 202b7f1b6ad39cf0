"""Assembles a worker and runs it, in this process or in several."""

import functools
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress

from confluent_kafka import Consumer, KafkaException, TopicPartition
from threadpoolctl import threadpool_limits

from broker.admin import Admin
from broker.roles import Role
from broker.settings import Settings
from broker.topics import cleanups, message_limits
from consumer import model as models
from consumer.changing import ChangingScorer
from consumer.chunks import Pace
from consumer.clients import make_consumer, make_producer, transaction_timeout
from consumer.commit import AtLeastOnce, Committer, Transactions
from consumer.identity import identity_of
from consumer.lag import lag_listener
from consumer.observer import Observer, Observers
from consumer.positions import ANSWER_S
from consumer.ready import require_ready
from consumer.scoring import ChunkScorer, Limits
from consumer.sending import Sender
from consumer.slots import take_slot
from consumer.state import State, make_state
from consumer.stop import Hangups
from consumer.tuning import AutoPace, measured_costs
from consumer.worker import Worker
from real_time.probing import made_up_rows
from real_time.usable import Model
from schemas.decoding import make_decoder, require_registry
from schemas.kernel import native
from schemas.printable import printable
from schemas.result_format import Write, make_result_writer
from schemas.vitals import Decoder

log = logging.getLogger("vitalstream.worker")


def run_worker(
    settings: Settings,
    *,
    observer: Observer,
    should_stop: Callable[[], bool],
    hangups: Hangups | None = None,
) -> None:
    """Check everything, then score until `should_stop` or idle, always with the currently pinned model.

    `hangups` asks to check the pin now; it is checked every few seconds anyway.

    Raises:
        SettingsError: the settings or the model can't be used.
        RegistryError: the schema registry can't be asked.
        BrokerError: the brokers can't be reached, a topic is missing, or this user may not use it.
        VitalstreamError: a failure that no retry can fix.
    """
    model = models.load_for_worker(settings)
    models.warn_of(model)
    _tell_mapping(settings, make_decoder(settings, model))
    require_registry(settings)
    require_ready(settings, model)
    _tell_kernel(settings)
    write = make_result_writer(settings)
    _warn_of_compaction(settings)
    _warn_if_begun(settings)
    with take_slot(settings) as slot, threadpool_limits(limits=1):
        pace, observer = _paced(settings, model, observer)
        limits = _limits(settings, model)
        state = None if model.history is None else make_state(settings, model.history, limits, observer)
        score = ChangingScorer(
            settings,
            model,
            make=functools.partial(_scorer, settings, slot.name, limits, state=state, write=write),
            observer=observer,
            hangups=hangups or Hangups(),
        )
        worker = _assemble(
            settings,
            score,
            state=state,
            name=slot.name,
            limits=limits,
            pace=pace,
            observer=observer,
            should_stop=should_stop,
        )
        observer.started(
            worker=slot.name,
            model=model.sha256,
            features=model.features,
            path=model.scorer.path,
            decision=model.scorer.prepared.decision,
        )
        with score.watching():
            worker.run()


def _tell_kernel(settings: Settings) -> None:
    if settings.value_format == "json" and native() is None:
        log.info("decodes messages without the native kernel, which is slower (see docs/performance.md)")


def _limits(settings: Settings, model: Model) -> dict[str, int]:
    """The longest message that each topic accepts."""
    state = [] if model.history is None else [settings.topic(Role.STATE)]
    return message_limits(settings, [*settings.output_topics, *state])


def _tell_mapping(settings: Settings, decode: Decoder) -> None:
    if decode.mapping is not None:
        log.info("reads messages by mapping %s (sha256 %s)", settings.mapping, decode.mapping[:12])
    if decode.unread:
        log.info(
            "the model does not use these features of the mapping: %s",
            ", ".join(map(printable, decode.unread)),
        )


def _warn_of_compaction(settings: Settings) -> None:
    """Warn about a compacted input; no warning if this user may not read the topic's configuration."""
    topic = settings.input_topic
    found = cleanups(settings, [topic]).get(topic)
    if found is not None and found.compacts:
        log.warning(
            "topic %s is compacted (cleanup.policy): Kafka deletes all but the newest message of each patient, and "
            "those deleted before they are read are never scored; set its cleanup.policy to delete",
            topic,
        )


def _warn_if_begun(settings: Settings) -> None:
    """Warn if `--from-timestamp` comes too late; no warning if the brokers do not answer."""
    if settings.from_timestamp is None:
        return
    topic, client = settings.input_topic, settings.client() | {"group.id": settings.group}
    partitions = Admin(settings).metadata.topics[topic].partitions
    with closing(Consumer(client)) as consumer, suppress(KafkaException):
        found = consumer.committed([TopicPartition(topic, number) for number in partitions], timeout=ANSWER_S)
        if any(one.offset >= 0 for one in found):
            log.warning(
                "group %s already has committed offsets, so --from-timestamp applies only to partitions "
                "without one: to score messages again, choose another --group with its own output topics",
                settings.group,
            )


def _paced(settings: Settings, model: Model, observer: Observer) -> tuple[Callable[[], Pace], Observer]:
    """The source of a chunk's size and wait, and the observer, to which it is added if it observes."""
    if settings.chunk_size != "auto":
        fixed = Pace(settings.chunk_size, settings.max_wait_ms / 1000)
        return lambda: fixed, observer
    costs = measured_costs(
        model.scorer.behind_history, lambda count: made_up_rows(model.scorer.prepared, count)
    )
    auto = AutoPace(goal=settings.latency_goal_ms / 1000, costs=costs)
    return auto.pace, Observers(observer, auto)


def _scorer(
    settings: Settings,
    name: str,
    limits: Mapping[str, int],
    model: Model,
    observer: Observer,
    *,
    state: State | None,
    write: Write,
    trial: bool = False,
) -> ChunkScorer:
    return ChunkScorer(
        model,
        settings=settings,
        worker=name,
        limits=Limits(
            result=limits[settings.output_topic],
            dead_letter=limits[settings.dead_letter_topic],
        ),
        observer=observer,
        clock=time.time,
        write=write,
        histories=None if state is None else state.histories(trial=trial),
    )


def _assemble(
    settings: Settings,
    score: ChangingScorer,
    *,
    state: State | None,
    name: str,
    limits: Mapping[str, int],
    pace: Callable[[], Pace],
    observer: Observer,
    should_stop: Callable[[], bool],
) -> Worker:
    clock = time.monotonic
    exactly_once = settings.delivery == "exactly-once"

    def hear(stable: dict[int, int]) -> None:
        worker.reaches(stable)  # the worker exists by then: callbacks run inside its calls

    consumer = make_consumer(
        settings, worker=name, on_statistics=lag_listener(settings.input_topic, hear, observer)
    )
    sender = Sender(
        functools.partial(
            make_producer,
            settings,
            transactional_id=name if exactly_once else None,
            limits=limits.values(),
            partitions=len(Admin(settings).metadata.topics[settings.output_topic].partitions),
            reports=state is not None,
        ),
        topics=settings.by_role,
        observer=observer,
        clock=clock,
    )
    committer: Committer
    if exactly_once:
        committer = Transactions(
            consumer, sender, timeout=transaction_timeout(settings), observer=observer, clock=clock
        )
    else:
        committer = AtLeastOnce(consumer, sender, observer=observer, clock=clock)
    worker = Worker(
        settings,
        consumer=consumer,
        committer=committer,
        identity=identity_of(settings, clock=clock),
        score=score,
        observer=observer,
        should_stop=should_stop,
        transactional_id=name,
        pace=pace,
        lifecycle=state,
        clock=clock,
    )
    return worker
