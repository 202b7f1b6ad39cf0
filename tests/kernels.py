"""Python alone, or with the native kernel."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from schemas.kernel import native

NAME = "vitalstream_native"


@contextmanager
def with_kernel(wanted: bool) -> Iterator[bool]:
    """Whether it is as wanted: the kernel may not be built here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITALSTREAM_NATIVE", "1")
        absent: Any = None  # it can't be imported then
        if not wanted:
            patch.setitem(sys.modules, NAME, absent)
        native.cache_clear()
        yield (native() is not None) is wanted
    native.cache_clear()
