"""Fixtures shared by the tests of reading and writing."""

from collections.abc import Iterator

import pytest

from tests.kernels import with_kernel


@pytest.fixture(scope="module", params=["python", "native"])
def kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each test in Python, the reference, and with the native kernel."""
    with with_kernel(request.param == "native") as found:
        if not found:
            pytest.skip("the native kernel is not built here: run make native, which needs cargo")
        yield
