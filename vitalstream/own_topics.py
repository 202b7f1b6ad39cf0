"""Topics and groups of one run, with unique names, deleted at its end."""

import contextlib
from collections.abc import Sequence

from confluent_kafka import KafkaException

from broker.admin import Admin
from broker.errors import BrokerError
from broker.settings import Settings


def renamed(settings: Settings, prefix: str, **changes: object) -> Settings:
    """The settings with `changes`, and with new topics and a group whose names begin with `prefix`."""
    names = {
        "input_topic": f"{prefix}-vitals",
        "output_topic": f"{prefix}-risk",
        "metrics_topic": f"{prefix}-risk-metrics",
        "dead_letter_topic": f"{prefix}-vitals-dead-letter",
        "group": prefix,
        "instance": None,
    }
    return Settings.model_validate({**settings.model_dump(), **names, **changes})


def delete(settings: Settings, topics: Sequence[str]) -> None:
    """Delete these topics and the group of `settings`, as far as they exist and that is allowed."""
    with contextlib.suppress(BrokerError, KafkaException):
        client = Admin(settings).client
        gone = client.delete_topics(list(topics)) | client.delete_consumer_groups([settings.group])
        for future in gone.values():
            with contextlib.suppress(KafkaException):
                future.result()
