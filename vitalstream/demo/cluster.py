"""Where the demo runs: an embedded broker, or topics of its own on a given cluster."""

import contextlib
import time
import uuid
from collections.abc import Iterator

from broker.embedded import EmbeddedBroker, touch_topics
from broker.errors import TopicError
from broker.settings import Settings
from broker.topics import create_topics, require_topics
from vitalstream.own_topics import delete, renamed

_VISIBLE_S = 10.0
_UNTIL_IDLE_S = 120.0  # a worker whose demo was killed ends by itself


@contextlib.contextmanager
def embedded(settings: Settings) -> Iterator[Settings]:
    """Settings for an embedded broker, which lasts as long as the block.

    That it keeps only the newest 5 MB of a partition is no matter however long the demo is: worker and reader
    follow live, and at the highest rate that is half a minute of falling behind.
    """
    with EmbeddedBroker() as broker:
        # The mock cluster answers a fetch only when the whole wait is over.
        kafka = {"fetch.wait.max.ms": "10", **settings.kafka}
        own = _named(settings, bootstrap_servers=broker.bootstrap_servers, kafka=kafka)
        touch_topics(own, own.topics)
        yield own


@contextlib.contextmanager
def given(settings: Settings, bootstrap_servers: str) -> Iterator[Settings]:
    """Settings with four new topics on a cluster. They are deleted again, but kept after a failure."""
    own = _named(settings, bootstrap_servers=bootstrap_servers)
    create_topics(own)
    _await_topics(own)
    yield own
    delete(own, own.topics)


def _named(settings: Settings, **changes: object) -> Settings:
    prefix = f"vitalstream-demo-{uuid.uuid4().hex[:8]}"
    return renamed(settings, prefix, until_idle=_UNTIL_IDLE_S, **changes)


def _await_topics(settings: Settings) -> None:
    """A broker may know a topic a moment later than the one that made it."""
    deadline = time.monotonic() + _VISIBLE_S
    while True:
        try:
            return require_topics(settings, settings.topics)
        except TopicError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
