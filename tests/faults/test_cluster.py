"""A cluster of three that loses a node, or its leading controller, under load."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.settings import Settings
from broker.topics import create_topics
from tests.conftest import fresh_settings
from tests.consumer.stage import Stage
from tests.faults.cluster import LocalCluster
from tests.faults.conftest import Begin
from tests.faults.load import Records

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(1800)]

LOSSES = 6


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def stage(cluster: LocalCluster, tmp_path: Path, all_models: dict[str, Path]) -> Iterator[Stage]:
    """Processes that work on the cluster."""

    def make(*, partitions: int = 4, **changes: Any) -> Settings:
        settings = fresh_settings(cluster.bootstrap_servers, **changes)
        create_topics(settings, partitions=partitions, replication_factor=3)
        return settings

    made = Stage(tmp_path, make_settings=make, models=all_models, properties={})
    try:
        yield made
    finally:
        made.end()


@pytest.mark.parametrize(
    "fault",
    [
        "node of three killed",
        "controller of three killed",
        "node of three stopped with SIGTERM",
        "controller of three stopped with SIGTERM",
    ],
)
def test_a_node_is_lost(begin: Begin, cluster: LocalCluster, records: Records, fault: str) -> None:
    trial = begin(fault)
    trial.load(records, rate=500)
    for _ in range(2):
        trial.worker().joined()
    for _ in range(LOSSES):
        trial.progressed(500)
        leader = cluster.controller()
        others = [node for node in cluster.nodes if node != leader]
        victim = leader if "controller" in fault else trial.random.choice(others)
        setback = trial.note_fault()
        if "killed" in fault:
            cluster.kill(victim)
        else:
            cluster.stop(victim)
        trial.recovered(setback)  # with two of three, before the third is back
        cluster.start(victim)
        cluster.wait_whole()
    assert all(worker.code is None for worker in trial.workers), trial.log
    trial.finish()
