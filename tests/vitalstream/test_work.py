"""What `vitalstream consume` sets up around a worker."""

import gc
import weakref
from collections.abc import Iterator

import orjson
import pytest

from broker.settings import Settings
from consumer.errors import Action
from consumer.observer import Observer
from consumer.stop import Hangups, Stop
from schemas.contract import Reason
from tests.consumer.fakes import chunk_metrics
from vitalstream import work
from vitalstream.work import Beginning, Report


@pytest.fixture
def unfrozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


class Deaf(Stop):
    """Leaves this process's signal handlers alone."""

    def listen(self, *, grace: bool = True) -> None:
        pass


class DeafToHangups(Hangups):
    def listen(self) -> None:
        pass


@pytest.mark.usefixtures("unfrozen")
def test_a_workers_garbage_collection_skips_what_was_loaded_at_the_start() -> None:
    loaded = len(gc.get_objects())

    Beginning(Deaf(), DeafToHangups()).started(worker="w-0")

    assert len(gc.get_objects()) < loaded / 10
    assert gc.isenabled()


class Client:
    """Refers to itself, as a Kafka client and its listeners do."""

    def __init__(self) -> None:
        self.listener = self.__init__  # type: ignore[misc]


@pytest.mark.usefixtures("unfrozen")
def test_unused_clients_are_not_kept_forever() -> None:
    gc.disable()
    gone = weakref.ref(Client())

    try:
        Beginning(Deaf(), DeafToHangups()).started(worker="w-0")
    finally:
        gc.enable()

    assert gone() is None


@pytest.mark.usefixtures("unfrozen")
def test_a_worker_that_has_ended_leaves_nothing_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its Kafka clients would still run while the interpreter shuts down."""
    frozen = []

    def begin_and_end(_: Settings, *, observer: Observer, **__: object) -> None:
        observer.started(worker="w-0", model="", features=[], path="", decision="")
        frozen.append(gc.get_freeze_count())

    monkeypatch.setattr(work, "run_worker", begin_and_end)
    work.work(Settings(bootstrap_servers="localhost:1", model="m"), Deaf())

    assert frozen[0] > 0
    assert gc.get_freeze_count() == 0


def test_the_report_counts_only_what_was_committed() -> None:
    report = Report()
    report.started(worker="w1")
    report.rejected(0, 4, Reason.NOT_JSON, "")
    report.scored([chunk_metrics(scored=5, no_input=3)])
    report.failed("commit", "_TIMED_OUT", Action.REBUILD)
    report.rejected(0, 4, Reason.NOT_JSON, "")
    report.scored([chunk_metrics(scored=4, no_input=1), chunk_metrics(scored=3, no_input=1)])
    report.committed(chunks=2, rows=8, seconds=0.01)
    report.scored([chunk_metrics(scored=2, no_input=2)])  # never committed
    assert orjson.loads(report.encode()) == {
        "worker": "w1",
        "rows": 8,
        "no_input": 2,
        "chunks": 2,
        "transactions": 1,
        "recoveries": 1,
        "dead_letters": {"not_json": 1},
    }
