"""What `vitalstream consume` sees to when a worker begins."""

import gc
from collections.abc import Iterator

import pytest

from consumer.stop import Stop
from vitalstream.work import Beginning


@pytest.fixture
def unfrozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


class Deaf(Stop):
    """Leaves this process's signals alone."""

    def listen(self, *, grace: bool = True) -> None:
        pass


@pytest.mark.usefixtures("unfrozen")
def test_a_worker_never_pauses_to_look_for_garbage_in_what_it_has_loaded() -> None:
    loaded = len(gc.get_objects())

    Beginning(Deaf()).started(worker="w-0")

    assert len(gc.get_objects()) < loaded / 10
    assert gc.isenabled()
