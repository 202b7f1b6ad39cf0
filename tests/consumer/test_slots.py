"""Slots: names that survive a restart and are never held twice."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.settings import Settings
from consumer import slots
from consumer.slots import InstanceTakenError, take_slot

HOST = re.sub(r"[^A-Za-z0-9._-]", "_", socket.gethostname())

HOLDER = """
import sys, time
from pathlib import Path
from broker.settings import Settings
from consumer.slots import take_slot
directory, instance = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None
with take_slot(Settings(group="g", instance=instance), directory=directory) as slot:
    print(slot.name, flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(directory: Path, *instance: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a slot until its stdin closes."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory), *instance],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_lowest_free_number_is_taken(tmp_path: Path) -> None:
    settings = Settings(group="g")
    zero, one = take_slot(settings, directory=tmp_path), take_slot(settings, directory=tmp_path)
    with take_slot(settings, directory=tmp_path) as two:
        assert [zero.name, one.name, two.name] == [f"g-{HOST}-{number}" for number in range(3)]
        with one:
            pass
        with take_slot(settings, directory=tmp_path) as again, zero:
            assert again.name == f"g-{HOST}-1"


def test_groups_do_not_share_slots(tmp_path: Path) -> None:
    with (
        take_slot(Settings(group="a"), directory=tmp_path) as one,
        take_slot(Settings(group="b"), directory=tmp_path) as other,
    ):
        assert (one.name, other.name) == (f"a-{HOST}-0", f"b-{HOST}-0")


def test_an_instance_is_used_as_the_name(tmp_path: Path) -> None:
    with take_slot(Settings(group="g", instance="icu"), directory=tmp_path) as slot:
        assert slot.name == "g-icu"
        with pytest.raises(InstanceTakenError, match="--instance icu: another worker of group g"):
            take_slot(Settings(group="g", instance="icu"), directory=tmp_path)
    with take_slot(Settings(group="g", instance="icu"), directory=tmp_path):
        pass


def test_a_slot_dies_with_its_process(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        assert told(process) == f"g-{HOST}-0"
        with take_slot(Settings(group="g"), directory=tmp_path) as slot:
            assert slot.name == f"g-{HOST}-1"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        with take_slot(Settings(group="g"), directory=tmp_path) as slot:
            assert slot.name == f"g-{HOST}-0"


def test_an_instance_held_by_another_process_is_refused(tmp_path: Path) -> None:
    with holder(tmp_path, "icu") as process:
        assert told(process) == "g-icu"
        with pytest.raises(InstanceTakenError):
            take_slot(Settings(group="g", instance="icu"), directory=tmp_path)


def test_an_error_says_when_all_slots_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "MAX_SLOTS", 1)
    with (
        take_slot(Settings(group="g"), directory=tmp_path),
        pytest.raises(InstanceTakenError, match="all 1 worker slots of group g on this host are taken"),
    ):
        take_slot(Settings(group="g"), directory=tmp_path)


def test_unusual_characters_in_a_host_name_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "ward 7/west")
    with take_slot(Settings(group="g"), directory=tmp_path) as slot:
        assert slot.name == "g-ward_7_west-0"


def test_locks_are_shared_by_all_users_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with take_slot(Settings(group="g")) as slot:
        assert (tmp_path / "vitalstream" / f"{slot.name}.lock").is_file()
        assert stat.S_IMODE((tmp_path / "vitalstream").stat().st_mode) == 0o1777


@pytest.mark.parametrize("there", [True, False])
def test_a_planted_link_is_not_followed(tmp_path: Path, there: bool) -> None:
    target = tmp_path / "elsewhere"
    if there:
        target.touch()
    (tmp_path / "g-icu.lock").symlink_to(target)
    with pytest.raises(OSError, match=r"g-icu\.lock"):
        take_slot(Settings(group="g", instance="icu"), directory=tmp_path)
    assert target.exists() is there
