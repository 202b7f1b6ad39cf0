"""The log on stderr, as text or as one JSON object per line."""

import logging
import multiprocessing
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Literal

import orjson
from typing_extensions import override

from broker.errors import VitalstreamError
from schemas.clock import rfc3339

Format = Literal["text", "json"]

log = logging.getLogger("vitalstream")

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def log_to_stderr(format_: Format = "text") -> None:
    """Send log lines to stderr; the first call in a process decides the format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ == "json" else TextFormatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # else each request to a schema registry is logged
    if format_ == "json":
        logging.captureWarnings(True)


def warn(texts: Iterable[str], format_: Format) -> None:
    """Send warnings to stderr before the work begins."""
    log_to_stderr(format_)
    for text in texts:
        log.warning("%s", text)


def name_worker(name: str) -> None:
    """Set the `worker` of every later line."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonFormatter):
            handler.formatter.worker = name


@contextmanager
def errors_in_the_log(format_: Format) -> Iterator[None]:
    """If the block raises, log a line without the error's text and end the process with its exit code.

    The text of an unexpected error may hold a patient's values. The text of a VitalstreamError does not; it is
    re-raised for the command line to print, unless the log is JSON.
    """
    try:
        yield
    except VitalstreamError as error:
        if format_ != "json":
            raise
        log.error("%s", error)
        sys.exit(error.exit_code)
    except Exception:
        log.critical("stopped by an unexpected error", exc_info=True)
        sys.exit(1)


class TextFormatter(logging.Formatter):
    """Lines of text. An exception is logged by class and stack, never with its text."""

    @override
    def formatException(self, ei: ExcInfo) -> str:
        """The exception's class and its stack, innermost frame last."""
        return "\n  ".join([_class_name(ei), *_frames(ei)])


class JsonFormatter(logging.Formatter):
    """`time` (RFC 3339), `level`, `logger`, `message`, `worker`; `error` and `stack` with an exception."""

    def __init__(self) -> None:
        super().__init__()
        # One of several workers has its number at once, and its name as soon as it has found one.
        self.worker = multiprocessing.current_process().name if multiprocessing.parent_process() else ""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """One JSON object on one line."""
        fields: dict[str, object] = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "worker": self.worker,
        }
        if record.exc_info:
            fields |= {"error": _class_name(record.exc_info), "stack": _frames(record.exc_info)}
        return orjson.dumps(fields).decode()


def _class_name(info: ExcInfo) -> str:
    return info[0].__name__ if info[0] else ""


def _frames(info: ExcInfo) -> list[str]:
    frames = traceback.extract_tb(info[2])
    return [f"{one.filename}:{one.lineno} {one.name}" for one in frames]
