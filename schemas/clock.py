"""Timestamps in our messages' format."""

from datetime import UTC, datetime


def rfc3339(epoch_seconds: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC, to the millisecond: `2026-01-05T08:30:00.000Z`."""
    return (
        datetime.fromtimestamp(epoch_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
