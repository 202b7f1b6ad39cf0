"""Run with Python only, or with the native kernel."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from schemas.kernel import native

NAME = "vitalstream_native"


@contextmanager
def with_kernel(wanted: bool) -> Iterator[bool]:
    """Yields whether it worked: the kernel may not be built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITALSTREAM_NATIVE", "1")
        absent: Any = None  # then importing it fails
        if not wanted:
            patch.setitem(sys.modules, NAME, absent)
        native.cache_clear()
        yield (native() is not None) is wanted
    native.cache_clear()
