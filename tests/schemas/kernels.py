"""Python alone, or with the native kernel."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from schemas.kernel import native


@contextmanager
def with_kernel(wanted: bool) -> Iterator[bool]:
    """Whether it is as wanted: the kernel may not be built here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITALSTREAM_NATIVE", "1" if wanted else "0")
        native.cache_clear()
        yield (native() is not None) is wanted
    native.cache_clear()
