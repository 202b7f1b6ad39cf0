"""The `vitalstream` command as users run it: as a process, or on a terminal of a given size."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def argv(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "vitalstream", *arguments]


def environment(**changes: str) -> dict[str, str]:
    """Our environment, without the developer's own settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VITALSTREAM_")}
    return inherited | {"TERM": "xterm-256color"} | changes


def vitalstream(*arguments: str, timeout: float = 150) -> "subprocess.CompletedProcess[str]":
    """Run it to the end."""
    return subprocess.run(
        argv(*arguments),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


class Running:
    """A running command; its output so far is in `out` and `err`."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            argv(*arguments),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: dict[str, list[str]] = {"out": [], "err": []}
        self._threads = [
            threading.Thread(target=self._collect, args=(name, stream), daemon=True)
            for name, stream in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def out(self) -> str:
        """stdout so far."""
        return "".join(self._lines["out"])

    @property
    def err(self) -> str:
        """stderr so far."""
        return "".join(self._lines["err"])

    def end(self, timeout: float = 60) -> int:
        """Its exit code, once it has ended and all its output has been read."""
        code = self.process.wait(timeout)
        for thread in self._threads:
            thread.join(timeout)
        return code

    def _collect(self, name: str, stream: "object") -> None:
        for line in stream:  # type: ignore[attr-defined]
            self._lines[name].append(line)


class OnTerminal:
    """A running command on its own terminal; `raw` is everything written to it."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 24) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            argv(*arguments), cwd=ROOT, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.raw = ""
        self._thread = threading.Thread(target=self._collect, args=(ours,), daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """What was written, without colours and cursor movements."""
        return _CODES.sub("", self.raw)

    @property
    def left(self) -> str:
        """What is left on the terminal after a full-screen view has closed."""
        return _CODES.sub("", self.raw.rpartition("\x1b[?1049l")[2])

    def end(self, timeout: float = 60) -> int:
        """Its exit code, once it has ended and all its output has been read."""
        code = self.process.wait(timeout)
        self._thread.join(timeout)
        return code

    def _collect(self, terminal: int) -> None:
        while True:
            try:
                piece = os.read(terminal, 65_536)
            except OSError:  # the other end is closed
                return
            self.raw += piece.decode(errors="replace")


def descendants(pid: int) -> Sequence[int]:
    """The child processes of this one, and theirs."""
    children = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = entry.read_text().partition(" ")
        except OSError:
            continue
        if int(rest.rpartition(")")[2].split()[1]) == pid:
            children.append(int(number))
    return [*children, *(one for child in children for one in descendants(child))]


def command_line(pid: int) -> str:
    """The arguments of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
