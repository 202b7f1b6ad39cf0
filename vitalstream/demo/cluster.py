"""Where the demo runs: an embedded broker, or topics of its own on a given cluster."""

import contextlib
import time
import uuid
from collections.abc import Iterator

from broker.embedded import EmbeddedBroker, touch_topics
from broker.errors import TopicError
from broker.roles import Role
from broker.settings import Settings
from broker.topics import create_topics, require_topics
from vitalstream.own_topics import delete, renamed

_VISIBLE_S = 10.0
_UNTIL_IDLE_S = 120.0  # so that a worker stops if its demo was killed


@contextlib.contextmanager
def embedded(settings: Settings) -> Iterator[Settings]:
    """Settings for an embedded broker that runs for the length of the block.

    It keeps only the newest 5 MB of each partition. That is enough for any length of demo: worker and reader
    follow live, and 5 MB is half a minute of lag at the highest rate.
    """
    with EmbeddedBroker() as broker:
        # The mock cluster answers a fetch only after the full wait.
        kafka = {"fetch.wait.max.ms": "10", **settings.kafka}
        own = _named(settings, bootstrap_servers=broker.bootstrap_servers, kafka=kafka)
        touch_topics(own, [*own.topics, own.topic(Role.STATE)])
        yield own


@contextlib.contextmanager
def given(settings: Settings, bootstrap_servers: str) -> Iterator[Settings]:
    """Settings with five new topics on a cluster; deleted at the end, but kept after a failure."""
    own = _named(settings, bootstrap_servers=bootstrap_servers)
    create_topics(own, state=True)
    _await_topics(own)
    yield own
    delete(own, [*own.topics, own.topic(Role.STATE)])


def _named(settings: Settings, **changes: object) -> Settings:
    prefix = f"vitalstream-demo-{uuid.uuid4().hex[:8]}"
    return renamed(settings, prefix, until_idle=_UNTIL_IDLE_S, **changes)


def _await_topics(settings: Settings) -> None:
    """Another broker may learn of a topic a moment after the one that created it."""
    deadline = time.monotonic() + _VISIBLE_S
    while True:
        try:
            return require_topics(settings, settings.topics)
        except TopicError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
