"""The worker's Kafka client configurations."""

import pytest

from broker.settings import load_settings
from consumer.clients import producer_config


@pytest.mark.parametrize(("partitions", "linger"), [(1, 5), (50, 50), (1000, 100)])
def test_the_producer_lingers_longer_with_more_partitions(partitions: int, linger: int) -> None:
    def configured(*properties: str) -> object:
        settings = load_settings(bootstrap_servers="k:1", properties=[*properties])
        found = producer_config(settings, transactional_id=None, limits=[1_000_000], partitions=partitions)
        return found["linger.ms"]

    assert configured() == linger
    assert configured("linger.ms=7") == "7"
