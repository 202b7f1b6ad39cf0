"""Freed memory is returned to the operating system."""

import platform
from pathlib import Path

import pytest

from consumer.memory import give_back

PAGE = 4096
MB = 1_000_000


def resident() -> int:
    """Resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_freed_memory_is_returned() -> None:
    blocks = [b"x" * 100_000 for _ in range(2_000)]
    kept = blocks[::100]  # without malloc_trim, glibc returns nothing below a block in use
    del blocks
    before = resident()
    give_back()
    assert before - resident() > 100 * MB
    assert len(kept) == 20
