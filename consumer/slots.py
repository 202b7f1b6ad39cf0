"""The worker's name: the same after a restart, and never held by two live workers.

The name is part of the transactional ID. A restarted worker takes the same one, so its first call ends the
transaction that a killed predecessor left open, and readers need not wait until that times out.
"""

import fcntl
import os
import re
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from broker.errors import VitalstreamError
from broker.settings import Settings

MAX_SLOTS = 1024


class InstanceTakenError(VitalstreamError):
    """The name given by --instance is in use on this host."""


class Slot:
    """Holds a worker's name for the life of the process, by a file lock that dies with it."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self._descriptor = descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def take_slot(settings: Settings, *, directory: Path | None = None) -> Slot:
    """The worker's name: group and `--instance`, or group, host and the lowest free number on this host.

    Raises:
        InstanceTakenError: `--instance` is held by another worker on this host.
    """
    directory = directory or _lock_directory()
    if settings.instance is not None:
        name = f"{settings.group}-{settings.instance}"
        descriptor = _lock(directory / f"{name}.lock")
        if descriptor is None:
            raise InstanceTakenError(
                f"--instance {settings.instance}: another worker of group {settings.group} runs under it on this host; "
                "give each worker its own, or none"
            )
        return Slot(name, descriptor)
    host = re.sub(r"[^A-Za-z0-9._-]", "_", socket.gethostname())
    for number in range(MAX_SLOTS):
        name = f"{settings.group}-{host}-{number}"
        descriptor = _lock(directory / f"{name}.lock")
        if descriptor is not None:
            return Slot(name, descriptor)
    raise InstanceTakenError(f"all {MAX_SLOTS} worker slots of group {settings.group} on this host are taken")


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock on `path`; None if another process holds it."""
    # Read-only is enough for a lock, and lets different users' workers see each other's.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _lock_directory() -> Path:
    """One directory for all users of this host, as two of them may run workers of the same group."""
    directory = Path(tempfile.gettempdir()) / "vitalstream"
    if not directory.is_dir():
        directory.mkdir(exist_ok=True)
        directory.chmod(0o1777)
    return directory
