"""Every setting's default and meaning, written once: for the settings object and the command line.

Imports next to nothing, so that `--help` answers at once.
"""

from typing import Any, Final, NamedTuple


class Option(NamedTuple):
    """What a setting is."""

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
        None, "DIR", "directory of files named as librdkafka properties, such as sasl.password"
    ),
    "model": Option(None, "FILE", "fitted classifier (joblib, pickle, skops), pinned by <FILE>.sha256"),
    "trusted_types": Option(
        "", "TYPE,TYPE", "types that a .skops model may be made of, besides those that skops trusts by itself"
    ),
    "threshold": Option(
        None,
        "P",
        "risk_label is 1 at or above this probability; without it the model's own threshold, else 0.5",
    ),
    "positive_class": Option(
        None,
        "CLASS",
        "the class whose probability is the risk; 1 of {0, 1} and {-1, 1} and True need not be named",
    ),
    "code": Option(None, "DIR", "folder of the model's own Python modules, for a model that needs any"),
    "features": Option(
        None, "NAME,NAME", "the names of the features, in order, of a model that was fitted without names"
    ),
    "ranges": Option(
        None,
        "FILE",
        "limits other than the physiologic ones: a TOML file of feature = [lowest, highest], or off for none",
    ),
    "min_features": Option(
        1,
        "N",
        "ask the model only about messages with so many of its features; results of the others say no_input",
    ),
    "value_format": Option(
        "json",
        "FORMAT",
        "how messages are written: json, json-schema (JSON behind a schema's id), avro, fhir or hl7v2",
    ),
    "schema_registry": Option(
        None,
        "URL",
        "registry of the schemas that messages name; its login is -X schema.registry.basic.auth.user.info",
    ),
    "schema_subject": Option(
        None, "NAME", "subject that these schemas must belong to; without it the input topic's own"
    ),
    "schema_file": Option(
        None,
        "FILE",
        "with --value-format avro and no registry, the schema that all messages are written with",
    ),
    "result_format": Option(
        "json",
        "FORMAT",
        "how results are written: json, or avro behind the ID of a schema in --schema-registry",
    ),
    "mapping": Option(
        None, "FILE", "where messages hold patient, time and features, and in which units: a TOML file"
    ),
    "skip_foreign": Option(
        False, "", "make no dead letter of messages that the mapping says are not for us, and only count them"
    ),
    "max_patients": Option(
        1_000_000, "N", "with a model that has a history, stop rather than hold the state of more patients"
    ),
    "max_state_mb": Option(1024, "MB", "the same for the memory that the patients' state takes"),
    "chunk_size": Option(
        100,
        "ROWS",
        "rows scored at once, at most; auto finds size and wait for --latency-goal-ms by itself",
    ),
    "max_wait_ms": Option(0, "MS", "how long a chunk may wait to fill; 0 takes what is there"),
    "latency_goal_ms": Option(
        50, "MS", "with --chunk-size auto, aim at 99 % of results within this time, for the least CPU"
    ),
    "commit_interval_ms": Option(
        25,
        "MS",
        "how long a transaction may gather chunks under backlog; under a long one at least 200 ms",
    ),
    "delivery": Option(
        "exactly-once", "HOW", "exactly-once, or at-least-once for brokers without transactions"
    ),
    "max_dead_letter_ratio": Option(
        0.5,
        "SHARE",
        "stop when more of the last 1,000 messages are rejected (once there are 500), or 500 in a row; 1: never",
    ),
    "instance": Option(
        None, "NAME", "this worker's name, unique in the group; without it made of host and slot"
    ),
    "workers": Option(1, "N", "worker processes to run"),
    "http": Option(
        None,
        "HOST:PORT",
        "serve /livez, /readyz and /metrics here; with --workers N from PORT upwards, and for all workers on PORT+N",
    ),
    "stall_after": Option(
        120, "SECONDS", "after this long without progress while messages wait, log all stacks and fail /livez"
    ),
    "log_format": Option("text", "FORMAT", "the log on stderr as text, or as json, one object a line"),
    "from_timestamp": Option(
        None,
        "TIME",
        "where a new group begins: with the first message of this time (RFC 3339) or later; without it with the oldest",
    ),
    "until_idle": Option(
        None, "SECONDS", "stop when no message has come for this long; without it keep running"
    ),
}
