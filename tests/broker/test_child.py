"""A child process and its guard."""

from pathlib import Path

import pytest

from broker.child import Child


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_the_guard_ends_with_a_child_that_ends_by_itself(tmp_path: Path) -> None:
    # Otherwise it would later kill whichever process has the pid by then.
    end = tmp_path / "end"
    child = Child(["/bin/sh", "-c", f"until [ -e {end} ]; do sleep 0.01; done"], log_file=tmp_path / "log")
    pid = child.pid
    assert pid is not None
    end.touch()
    assert child.wait(timeout=60) == 0
    assert not [one for one in Path("/proc").glob("[0-9]*/cmdline") if _guards(one, pid)]


def _guards(cmdline: Path, pid: int) -> bool:
    try:
        return cmdline.read_bytes().endswith(f'kill -9 "$0"\0{pid}\0'.encode())
    except OSError:  # ended in the meantime
        return False
