"""Checks what a worker needs before it starts."""

from broker.rights import require_rights
from broker.settings import Settings
from broker.topics import require_state_topic, require_topics
from real_time.usable import Model


def require_ready(settings: Settings, model: Model) -> None:
    """Check that the topics for a worker with this model exist, and that this user may use them.

    Raises:
        TopicError: says what is missing or wrong.
        BrokerError: the brokers can't be reached.
    """
    require_topics(settings, settings.topics)
    require_rights(settings, "consume")
    if model.history is not None:
        require_state_topic(settings)
        require_rights(settings, "consume with a history")
