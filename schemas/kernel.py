"""The optional native kernel: the same results in less time. The Python code is the reference."""

from functools import cache
from types import ModuleType
from typing import Final

VERSION: Final = "0.1.0"
"""The version of the kernel that belongs to this code."""


@cache
def native() -> ModuleType | None:
    """The kernel; None if it is not installed, has another version, or VITALSTREAM_NATIVE is 0."""
    try:
        import vitalstream_native
    except ImportError:
        return None
    return vitalstream_native if vitalstream_native.__version__ == VERSION else None
