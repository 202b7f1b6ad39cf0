"""A worker warns about an input topic that can lose messages before they are scored."""

import pytest

from tests.consumer.stage import Stage
from tests.kafka import alter_topic

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize(("policy", "warnings"), [("compact", 1), ("compact,delete", 1), ("delete", 0)])
def test_a_worker_warns_about_a_compacted_input(stage: Stage, policy: str, warnings: int) -> None:
    settings = stage.settings(until_idle=0.5)
    topic = settings.input_topic
    alter_topic(settings.bootstrap_servers, topic, {"cleanup.policy": policy})
    worker = stage.worker(settings)
    assert worker.wait(timeout=60) == 0, worker.log
    said = [line for line in worker.log.splitlines() if "compacted" in line]
    assert len(said) == warnings
    assert all(f"topic {topic} is compacted" in line and "never scored" in line for line in said)


def test_a_compacted_output_causes_no_warning_about_the_input(stage: Stage) -> None:
    settings = stage.settings(until_idle=0.5)
    for topic in settings.output_topics:
        alter_topic(settings.bootstrap_servers, topic, {"cleanup.policy": "compact"})
    worker = stage.worker(settings)
    assert worker.wait(timeout=60) == 0, worker.log
    assert "compacted" not in worker.log
