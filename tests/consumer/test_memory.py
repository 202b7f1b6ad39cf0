"""Freed memory must not stay with the process for ever."""

import platform
from pathlib import Path

import pytest

from consumer.memory import give_back

PAGE = 4096
MB = 1_000_000


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have nothing to give back")
def test_freed_memory_is_given_back() -> None:
    blocks = [b"x" * 100_000 for _ in range(2_000)]
    kept = blocks[::100]  # the C library gives nothing back by itself while there is something behind it
    del blocks
    before = resident()
    give_back()
    assert before - resident() > 100 * MB
    assert len(kept) == 20
