"""What tests of reading and writing share."""

from collections.abc import Iterator

import pytest

from tests.kernels import with_kernel


@pytest.fixture(scope="module", params=["python", "native"])
def kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything once in Python, the reference, and once with the native kernel."""
    with with_kernel(request.param == "native") as found:
        if not found:
            pytest.skip("the native kernel is not built here: run make native, which needs cargo")
        yield
