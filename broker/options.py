"""Every setting's default and help, shared by the settings object and the command line.

Imports almost nothing, so that `--help` is fast.
"""

from typing import Any, Final, NamedTuple


class Option(NamedTuple):
    """A setting's default and help."""

    default: Any
    metavar: str
    help: str


OPTIONS: Final[dict[str, Option]] = {
    "bootstrap_servers": Option("localhost:9092", "HOST:PORT", "Kafka brokers, comma-separated"),
    "input_topic": Option("vitals", "TOPIC", "patient messages to score"),
    "output_topic": Option("risk", "TOPIC", "one risk result per message"),
    "metrics_topic": Option("risk-metrics", "TOPIC", "one StreamMetrics message per chunk"),
    "dead_letter_topic": Option("vitals-dead-letter", "TOPIC", "messages that can't be scored"),
    "group": Option("vitalstream", "NAME", "consumer group"),
    "secrets_dir": Option(
        None, "DIR", "directory of files named after librdkafka properties, such as sasl.password"
    ),
    "model": Option(None, "FILE", "fitted classifier (joblib, pickle, skops), pinned by <FILE>.sha256"),
    "trusted_types": Option(
        "", "TYPE,TYPE", "types that a .skops model may contain, besides those that skops itself trusts"
    ),
    "threshold": Option(
        None,
        "P",
        "risk_label is 1 at or above this probability; by default the model's own threshold, else 0.5",
    ),
    "positive_class": Option(
        None,
        "CLASS",
        "the class whose probability is the risk; not needed for classes {0, 1}, {-1, 1} or booleans",
    ),
    "code": Option(None, "DIR", "directory of the model's own Python modules, if it needs any"),
    "features": Option(
        None, "NAME,NAME", "the features' names, in order, for a model that was fitted without names"
    ),
    "ranges": Option(
        None,
        "FILE",
        "TOML file of limits that replace the physiologic ones, feature = [lowest, highest]; or off",
    ),
    "min_features": Option(
        1,
        "N",
        "score only messages with at least N of the model's features; results of others say no_input",
    ),
    "value_format": Option(
        "json",
        "FORMAT",
        "format of messages: json, json-schema (JSON after a schema ID), avro, fhir or hl7v2",
    ),
    "schema_registry": Option(
        None,
        "URL",
        "schema registry for the schema IDs in messages; log in with -X schema.registry.basic.auth.user.info",
    ),
    "schema_subject": Option(
        None, "NAME", "subject that these schemas must belong to; the input topic's by default"
    ),
    "schema_file": Option(
        None,
        "FILE",
        "the schema of all messages, for --value-format avro without a registry",
    ),
    "result_format": Option(
        "json",
        "FORMAT",
        "format of results: json, or avro after the ID of a schema in --schema-registry",
    ),
    "mapping": Option(
        None, "FILE", "TOML file that says where messages hold patient, time and features, and in which units"
    ),
    "skip_foreign": Option(
        False, "", "only count messages that the mapping marks as not for us, instead of dead-lettering them"
    ),
    "max_patients": Option(
        1_000_000, "N", "stop rather than hold the state of more patients (only models with a history)"
    ),
    "max_state_mb": Option(1024, "MB", "stop rather than use more memory for that state"),
    "chunk_size": Option(
        100,
        "ROWS",
        "most rows scored at once; auto chooses size and wait to meet --latency-goal-ms",
    ),
    "max_wait_ms": Option(
        0, "MS", "how long a chunk may wait to fill; 0 takes the messages that are available"
    ),
    "latency_goal_ms": Option(
        50, "MS", "with --chunk-size auto, aim for 99 % of results within this time, with the least CPU"
    ),
    "commit_interval_ms": Option(
        25,
        "MS",
        "how long a transaction may collect chunks under backlog; with a long backlog at least 200 ms",
    ),
    "delivery": Option(
        "exactly-once", "HOW", "exactly-once, or at-least-once for brokers without transactions"
    ),
    "max_dead_letter_ratio": Option(
        0.5,
        "SHARE",
        "stop if a larger share of the last 1,000 messages is rejected (after 500), or 500 in a row; 1: never",
    ),
    "instance": Option(None, "NAME", "this worker's name, unique in the group; by default host and slot"),
    "workers": Option(1, "N", "worker processes to run"),
    "http": Option(
        None,
        "HOST:PORT",
        "serve /livez, /readyz and /metrics here; with --workers N from PORT upwards, and for all workers on PORT+N",
    ),
    "stall_after": Option(
        120, "SECONDS", "after this long without progress while messages wait, log all stacks and fail /livez"
    ),
    "log_format": Option(
        "text", "FORMAT", "format of the log on stderr: text, or json with one object per line"
    ),
    "from_timestamp": Option(
        None,
        "TIME",
        "a new group starts at the first message at or after this time (RFC 3339); by default at the oldest",
    ),
    "until_idle": Option(None, "SECONDS", "stop after this long without a message; by default keep running"),
}
