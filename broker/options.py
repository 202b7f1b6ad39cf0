"""Every setting's type, default and meaning, written once: for the settings object and the command line.

Imports next to nothing, so that `--help` answers at once.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple


class Option(NamedTuple):
    """What a setting is."""

    type: type
    default: Any
    metavar: str
    help: str


OPTIONS: Final[dict[str, Option]] = {
    "bootstrap_servers": Option(str, "localhost:9092", "HOST:PORT", "Kafka brokers, comma-separated"),
    "input_topic": Option(str, "vitals", "TOPIC", "patient messages to score"),
    "output_topic": Option(str, "risk", "TOPIC", "one risk result per message"),
    "metrics_topic": Option(str, "risk-metrics", "TOPIC", "one StreamMetrics message per chunk"),
    "dead_letter_topic": Option(str, "vitals-dead-letter", "TOPIC", "messages that can't be scored"),
    "group": Option(str, "vitalstream", "NAME", "consumer group"),
    "secrets_dir": Option(Path, None, "DIR", "files named as librdkafka properties, such as sasl.password"),
    "model": Option(Path, None, "FILE", "fitted classifier (joblib, pickle, skops), pinned by <FILE>.sha256"),
    "trusted_types": Option(
        str, "", "TYPE,TYPE", "what a .skops model may be made of, beside what skops trusts by itself"
    ),
    "threshold": Option(float, 0.5, "P", "risk_label is 1 from this probability on"),
    "ranges": Option(
        str, None, "FILE", "TOML of feature = [lowest, highest] instead of the physiologic limits, or off"
    ),
    "chunk_size": Option(
        str,
        100,
        "ROWS",
        "rows scored at once, at most; auto finds size and wait for --latency-goal-ms by itself",
    ),
    "max_wait_ms": Option(float, 0, "MS", "how long a chunk may wait to fill; 0 takes what is there"),
    "latency_goal_ms": Option(
        float, 50, "MS", "with --chunk-size auto: 99 % of results within this time, for the least CPU"
    ),
    "commit_interval_ms": Option(float, 25, "MS", "how long a transaction may gather chunks under backlog"),
    "delivery": Option(str, "exactly-once", "HOW", "or at-least-once, for brokers without transactions"),
    "max_dead_letter_ratio": Option(
        float,
        0.5,
        "SHARE",
        "stop when more of the last 1,000 messages are rejected (from 500 on), or 500 in a row; 1: never",
    ),
    "instance": Option(str, None, "NAME", "this worker's name, unique in the group; else from host and slot"),
    "workers": Option(int, 1, "N", "worker processes to run"),
    "http": Option(
        str,
        None,
        "HOST:PORT",
        "serve /livez, /readyz and /metrics here; with --workers N from PORT to PORT+N-1",
    ),
    "stall_after": Option(
        float, 120, "SECONDS", "without progress though messages wait: log all stacks, and fail /livez"
    ),
    "log_format": Option(str, "text", "FORMAT", "of the log on stderr: text, or json, one object a line"),
    "until_idle": Option(float, None, "SECONDS", "stop when nothing came for so long; else run on"),
}
