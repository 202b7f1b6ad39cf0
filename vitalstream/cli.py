"""The `vitalstream` command. It parses options, calls the package that does the work, and prints.

Each command imports what it needs in its body, so that `--help` is fast.
"""

import functools
import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.errors import VitalstreamError
from broker.jars import KAFKA_VERSION
from broker.options import OPTIONS
from broker.roles import TOPIC_SETTINGS
from schemas.contract import Reason
from vitalstream.options import OF_FORMAT, OF_INPUT, OF_MODEL, OF_RESULTS, Json, with_settings
from vitalstream.usage import UsageError, in_our_words

if TYPE_CHECKING:
    from broker.settings import Settings

# Plain help: rich would read [lowest, highest] as markup and keep the docstrings' line breaks.
_Typer = functools.partial(
    typer.Typer,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
app = _Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Score a Kafka topic of patient vitals with a scikit-learn model, exactly once. Not a medical device.",
    epilog="Each setting is a flag, else VITALSTREAM_<NAME>, else in the TOML file given by --config.",
)
topics_app = _Typer(help="Create or check the topics.")
mapping_app = _Typer(help="Draft a mapping from sample messages, or check one against them.")
model_app = _Typer(help="Pin or inspect a model file, or make a demo model.")
letters_app = _Typer(help="List, show or replay messages that were not scored.")
app.add_typer(topics_app, name="topics")
app.add_typer(mapping_app, name="mapping")
app.add_typer(model_app, name="model")
state_app = _Typer(help="Show, check or rebuild the patient state of workers with a history.")
app.add_typer(letters_app, name="dead-letters")
app.add_typer(state_app, name="state")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"vitalstream {version('vitalstream')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="print the version and exit"),
    ] = False,
) -> None:
    """Options of the command itself."""


def main() -> None:
    """Run the command; print an expected error as one line on stderr and exit with its code."""
    # As process 1 of a container, a signal without a handler is ignored. Commands with work to finish install
    # their own handler.
    signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))
    try:
        sys.exit(app(standalone_mode=False))
    except VitalstreamError as error:
        sys.stderr.write(f"vitalstream: {error}\n")
        sys.exit(error.exit_code)
    except UsageError as error:
        sys.stderr.write(f"{in_our_words(error)}\n")
        sys.exit(error.exit_code)


@app.command()
@with_settings(
    "model", "bootstrap_servers", "group", *TOPIC_SETTINGS, *OF_INPUT, "result_format", "skip_foreign", "max_patients",
    "max_state_mb", "chunk_size",
    "max_wait_ms", "latency_goal_ms", "commit_interval_ms", "ranges", "min_features", "delivery",
    "max_dead_letter_ratio", "instance", "workers", "http", "stall_after", "log_format", "from_timestamp", "until_idle",
)  # fmt: skip
def consume(settings: "Settings", *, json: Json = False) -> None:
    """Score the input topic, one risk result per message, exactly once, until stopped.

    Run any number of workers with the same --group: Kafka divides the partitions among them. SIGTERM or Ctrl-C
    finishes the current chunk, commits it and leaves the group. A newly pinned model takes over within seconds, or
    at once on SIGHUP; a model that can't be used is refused, and the old one stays.
    """
    from consumer.stop import end_when_asked

    end_when_asked()  # first, because the imports take seconds
    gc.disable()  # saves a tenth of the import time: modules are not garbage
    from vitalstream.work import run_workers

    gc.freeze()
    gc.enable()
    run_workers(settings, json=json)


Layout = Annotated[
    str, typer.Option("--format", metavar="NAME", help="plain, physionet2019 or physionet2012")
]
AllVariables = Annotated[
    bool,
    typer.Option(
        "--all-variables", help="with a PhysioNet format, also send variables without a standard name"
    ),
]


@app.command()
@with_settings("bootstrap_servers", "input_topic", *OF_INPUT)
def replay(
    settings: "Settings",
    files: Annotated[list[Path], typer.Argument(help="files or directories", metavar="FILE")],
    *,
    layout: Layout = "plain",
    all_variables: AllVariables = False,
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="N", help="send N messages a second")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(min=0.001, metavar="X", help="follow event times, X times as fast")
    ] = None,
    poisson: Annotated[
        bool,
        typer.Option(
            "--poisson", help="space messages at random (a Poisson process), averaging --rate a second"
        ),
    ] = False,
    skip: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="skip the first N messages, counted over all repetitions"),
    ] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="stop after sending N messages")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, metavar="N", help="send the files N times")] = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="random seed for arrival times")] = 0,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            help="send unreadable times and numbers with a comma as they are; they become dead letters",
        ),
    ] = False,
    as_arrived: Annotated[
        bool,
        typer.Option(
            "--as-arrived",
            help="send one message per row and device that measured something, each at its own time",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="send nothing; show the first messages and how each column is read"),
    ] = False,
    json: Json = False,
) -> None:
    """Send the rows of files to the input topic, at a given pace or as fast as possible.

    Files in the plain format (.csv, .tsv, .parquet, .ndjson, .jsonl; text also with .gz) have the columns patient_id,
    event_time (UTC if it names no zone) and any features. An ambiguous time, such as a bare date, stops the command,
    which names the line. physionet2019 and physionet2012 read those Challenges' files as downloaded. Without --rate or
    --speed it sends as fast as it can. With --as-arrived, monitor, cuff and thermometer each send their own messages,
    in the hour before the row's time. Try new files with --dry-run, which needs no broker. With --value-format or
    --mapping, each row becomes a message that a worker with the same settings can read: each feature is at its path in
    the mapping, or under its first code. A row becomes several messages if the mapping reads one feature per message.
    """
    if dry_run:
        from vitalstream.dry_run import show

        show(
            settings,
            files,
            layout=layout,
            skip=skip,
            limit=limit,
            all_variables=all_variables,
            keep_going=keep_going,
            as_arrived=as_arrived,
            seed=seed,
            json=json,
        )
        return
    from vitalstream import produce

    produce.replay(
        settings,
        files,
        layout=layout,
        rate=rate,
        speed=speed,
        poisson=poisson,
        limit=limit,
        repeat=repeat,
        seed=seed,
        skip=skip,
        all_variables=all_variables,
        keep_going=keep_going,
        as_arrived=as_arrived,
        json=json,
    )


@app.command()
@with_settings("bootstrap_servers", "input_topic", *OF_INPUT)
def publish(settings: "Settings", *, json: Json = False) -> None:
    """Send messages from stdin, one JSON object per line, to the input topic.

    Each line is checked as a worker with the standard features would check it: a JSON object of at most 256 KiB
    with patient_id (1 to 128 characters) and event_time (RFC 3339 with a zone), in which each of
    heart_rate, respiratory_rate, temperature, spo2, systolic_bp, diastolic_bp, mean_arterial_pressure and age is
    a number, null or absent. Other fields and the plausibility of values are not checked. A line that fails is reported
    by number and reason and not sent; the exit code is then 1. With --mapping, a line has the mapping's shape and the
    patient's id is the key; with --value-format fhir or hl7v2 it is a message of that format. With avro or json-schema,
    lines are flat JSON and are encoded with the topic's newest schema.
    """
    from vitalstream import produce

    produce.publish(settings, json=json)


WithState = Annotated[
    bool,
    typer.Option("--state", help="also the state topic of --group, which a model with a history needs"),
]


@topics_app.command("create")
@with_settings(
    "bootstrap_servers", "group", *TOPIC_SETTINGS, "value_format", "schema_subject", *OF_RESULTS, "model"
)
def create_topics(
    settings: "Settings",
    *,
    partitions: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="partitions of each topic  [default: 4]")
    ] = None,
    replication_factor: Annotated[
        int, typer.Option(min=-1, metavar="N", help="copies of each partition; -1 for the brokers' default")
    ] = -1,
    state: WithState = False,
    json: Json = False,
) -> None:
    """Create the missing topics, with the right settings.

    An existing topic is not changed. If it differs from --partitions or --replication-factor, or is
    compacted, the command says how to change that and exits with code 1.

    With --schema-registry it also registers schemas: with --value-format avro or json-schema, the one of messages for
    --model or for the standard features; with --result-format avro, the one of results. A subject that holds other
    schemas is not changed.
    """
    from vitalstream import topics

    topics.create(
        settings, partitions=partitions, replication_factor=replication_factor, state=state, json=json
    )


@topics_app.command("check")
@with_settings("bootstrap_servers", "group", *TOPIC_SETTINGS)
def check_topics(settings: "Settings", *, state: WithState = False, json: Json = False) -> None:
    """Show how the topics differ from what `topics create` makes; exit code 1 if something is wrong."""
    from vitalstream import topics

    topics.check(settings, state=state, json=json)


SampleFile = Annotated[
    Path | None, typer.Option("--sample", metavar="FILE", help="messages as on the topic, one per line")
]
SampleTopic = Annotated[
    str | None,
    typer.Option("--topic", metavar="NAME", help="or a topic, whose newest messages are read"),
]
SampleSize = Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="how many messages to read")]


@mapping_app.command("check")
@with_settings("bootstrap_servers", *OF_FORMAT, "ranges")
def check_mapping(
    settings: "Settings",
    mapping: Annotated[
        Path, typer.Argument(metavar="FILE", help="mapping file, or the name of a built-in one")
    ],
    *,
    sample: SampleFile = None,
    topic: SampleTopic = None,
    limit: SampleSize = 1000,
    payload: Annotated[
        bool,
        typer.Option("--payload", help="also show the rejected values, which may identify a patient"),
    ] = False,
    json: Json = False,
) -> None:
    """Show what a mapping finds in messages: each feature's share, values and units, and what would be rejected.

    Exit code 0: every relevant message is read, and every feature occurs. 1: some would be rejected, or a feature
    never occurs. 2: the mapping is invalid, or there are no messages. Nothing of single messages is shown without
    --payload.
    """
    from vitalstream import mapping as mappings

    mappings.check(settings, mapping, sample=sample, topic=topic, limit=limit, payload=payload, json=json)


@mapping_app.command("suggest")
@with_settings("bootstrap_servers", *OF_FORMAT)
def suggest_mapping(
    settings: "Settings",
    *,
    sample: SampleFile = None,
    topic: SampleTopic = None,
    limit: SampleSize = 1000,
) -> None:
    """Print a first mapping for messages, from the names, codes and units it recognises in them.

    Guesses, such as the unit of values without one, and other numbers are written as comments. Review each
    line, then try it with mapping check. Exit code 1 if it found no patient, no time or no feature.
    """
    from vitalstream import mapping as mappings

    mappings.suggest(settings, sample=sample, topic=topic, limit=limit)


ModelFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="joblib, pickle or skops file of a fitted model")
]


@model_app.command("pin")
@with_settings(*OF_MODEL, "ranges", "min_features")
def pin_model(
    settings: "Settings",
    path: ModelFile,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="rows like the training data (CSV, Parquet or NDJSON): the card says which features are numbers, "
            "booleans or categories, and their typical values",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="for the card: the model's name")] = None,
    version: Annotated[str | None, typer.Option(metavar="TEXT", help="for the card: its version")] = None,
    note: Annotated[
        str | None, typer.Option(metavar="TEXT", help="for the card: notes for its readers")
    ] = None,
    json: Json = False,
) -> None:
    """Write <FILE>.sha256, so that only these bytes are loaded, and <FILE>.card.json, the model's card.

    The card keeps the positive class, threshold and features given here, so that no other command needs them; options
    given there take precedence. Pinning the same file again keeps what its card says.

    Pin only what you trust: to check it, the command loads the model, and loading runs its code.
    """
    from vitalstream import model

    model.pin(settings, path, data=data, name=name, version=version, note=note, json=json)


@model_app.command("inspect")
@with_settings(*OF_MODEL, "ranges", "min_features")
def inspect_model(settings: "Settings", path: ModelFile, *, json: Json = False) -> None:
    """Show how a worker would use a pinned model: its features, classes, threshold and versions."""
    from vitalstream import model

    model.inspect(settings, path, json=json)


@model_app.command("demo")
def make_demo_model(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="where to save it")] = Path("demo.joblib"),
    *,
    data: Annotated[
        Path | None, typer.Option(metavar="CSV", help="also write simulated rows there, to replay")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="random seed for the simulated patients")] = 0,
    json: Json = False,
) -> None:
    """Make and pin a small model from simulated patients, for trying things out."""
    from vitalstream import model

    model.make_demo(path, data=data, seed=seed, json=json)


@app.command()
def broker(
    *,
    port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="PORT", help="port that clients connect to")
    ] = 9092,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="directory to keep topics in; without it they are lost at exit"),
    ] = None,
    kafka_version: Annotated[
        str,
        typer.Option(
            metavar="VERSION", help="Apache Kafka version; 4.3 and later lose transactions on restart"
        ),
    ] = KAFKA_VERSION,
) -> None:
    """Run a real single-node Apache Kafka in the foreground, for trying things out.

    Downloads the jars from Maven Central once; needs Java 17+ and Maven. It listens on 127.0.0.1 only,
    without security.
    """
    from vitalstream.local_broker import run

    run(port=port, data_dir=data_dir, version=kafka_version)


@app.command()
@with_settings("bootstrap_servers", "output_topic", *OF_RESULTS, "until_idle")
def watch(
    settings: "Settings",
    *,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="also show existing results")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="stop after N results")] = None,
    min_risk: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="P", help="show only risks of at least P")
    ] = None,
    json: Json = False,
) -> None:
    """Follow the risk topic: a live table of patients by risk, or lines where there is no terminal.

    Reads committed results of all partitions and commits no offsets. A patient not seen for 5 minutes is dimmed, and
    a note appears when nothing arrives. --json prints each result as on the topic, one per line; Avro as JSON.
    """
    from vitalstream.watch import watch as follow

    follow(settings, from_beginning=from_beginning, limit=limit, min_risk=min_risk, json=json)


@app.command()
@with_settings()
def demo(
    settings: "Settings",
    *,
    bootstrap_servers: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Kafka to run on; an embedded broker by default"),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, metavar="S", help="how long to send messages")] = 20,
    patients: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="patients in the ward")] = 40,
    rate: Annotated[float, typer.Option(min=1, max=2000, metavar="N", help="messages per second")] = 200,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="random seed for the ward")] = 0,
    json: Json = False,
) -> None:
    """Run the whole system on this machine: simulated patients, a worker, results, and a check.

    Makes and pins a small model, starts an embedded broker (or uses the given Kafka, with topics of
    its own that are deleted at the end), sends a simulated ward with some malformed messages, and scores it with
    a real worker process. Exit code 1 unless every message is accounted for exactly once.
    """
    from vitalstream.demo.command import demo as show

    show(
        settings,
        bootstrap_servers=bootstrap_servers,
        seconds=seconds,
        seed=seed,
        patients=patients,
        rate=rate,
        json=json,
    )


@app.command()
@with_settings(
    "bootstrap_servers",
    "group",
    "input_topic",
    "output_topic",
    "dead_letter_topic",
    *OF_RESULTS,
    "from_timestamp",
)
def status(settings: "Settings", *, json: Json = False) -> None:
    """Show the group's state: its workers, each partition's backlog and its age, dead letters, models.

    Asks only the brokers and changes nothing. Exit code 0 if all is well; 3 if the group has no worker, a
    partition has none, a message has waited for more than 60 seconds, or messages were deleted before they were
    scored; 1 if the brokers do not answer.
    """
    from vitalstream.status.command import status as show

    show(settings, json=json)


Models = Annotated[
    list[Path] | None,
    typer.Option(
        "--model", metavar="FILE", help=f"{OPTIONS['model'].help}; repeat for each model that has scored"
    ),
]


@app.command()
@with_settings(
    "bootstrap_servers",
    "group",
    *TOPIC_SETTINGS,
    *OF_MODEL,
    *OF_INPUT,
    "result_format",
    "ranges",
    "min_features",
    "from_timestamp",
)
def audit(
    settings: "Settings",
    *,
    model: Models = None,
    state_snapshot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="of state snapshot: what was known of patients before the first messages left",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Prove or disprove that every message the group has consumed was scored exactly once.

    Reads the four topics once, in bounded memory; workers may keep running. With --model it scores everything
    again with the model that each result names, and compares the values: after a change of model, give
    --model several times. Also says how many messages are still waiting.

    Exit code 0: all is clean. 1: something is wrong; the first offenders are listed. 3: nothing is wrong in what
    is left, but some could not be judged because records were deleted or compacted; it says how many and why.
    """
    from vitalstream.audit import audit as judge

    judge(settings, model or (), state=state_snapshot, json=json)


@app.command()
@with_settings("model", *OF_INPUT, "ranges", "min_features", "bootstrap_servers")
def sweep(
    settings: "Settings",
    *,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="file of rows, as for replay; simulated patients by default"),
    ] = None,
    layout: Layout = "plain",
    all_variables: AllVariables = False,
    chunk_sizes: Annotated[
        str, typer.Option(metavar="N,N,...", help="chunk sizes to compare")
    ] = "1,10,30,100,300,1000,3000",
    rows: Annotated[
        int | None,
        typer.Option(
            min=2, metavar="N", help="rows to measure with  [default: 20,000, or 100,000 with --kafka]"
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="longest time to spend on each chunk size")
    ] = 3,
    kafka: Annotated[
        bool,
        typer.Option("--kafka", help="measure end to end on --bootstrap-servers, in temporary topics"),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="also draw the result; needs the extra `plot`")
    ] = None,
    json: Json = False,
) -> None:
    """Measure what each chunk size costs with your model and rows on this machine, and recommend one.

    By default it times scoring alone: the worker's path and, where that differs, plain predict_proba. With --kafka a
    worker process scores a backlog for each size, and an audit checks that every row came out exactly once; the
    throughput is then that of the whole worker. A file with fewer rows than --rows is repeated. With
    --mapping or --value-format, --data is a file of messages as on the topic; without it, simulated
    patients are written in that format.
    It recommends the knee: the smallest size with 90 % of the best throughput. Ctrl-C shows the results so far.
    """
    from vitalstream.sweep.command import sweep as measure

    measure(
        settings,
        data=data,
        layout=layout,
        all_variables=all_variables,
        chunk_sizes=chunk_sizes,
        rows=rows,
        seconds=seconds,
        kafka=kafka,
        plot=plot,
        json=json,
    )


OfReason = Annotated[Reason | None, typer.Option("--reason", help="only dead letters with this reason")]
OfField = Annotated[
    str | None, typer.Option("--field", metavar="NAME", help="only dead letters with this field")
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="WHEN", help="only for messages sent since this time, or since 90m, 2h, 3d ago"
    ),
]


@letters_app.command("list")
@with_settings("bootstrap_servers", "dead_letter_topic")
def list_dead_letters(
    settings: "Settings",
    *,
    reason: OfReason = None,
    field: OfField = None,
    since: Since = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="list the newest N, with their positions for `show`"),
    ] = None,
    json: Json = False,
) -> None:
    """Count the dead letters by reason and field, or list the newest. Shows no patient data."""
    from vitalstream import dead_letters

    selection = dead_letters.select(reason=reason, field=field, since=since)
    if limit is None:
        dead_letters.list_letters(settings, selection, json=json)
    else:
        dead_letters.list_newest(settings, selection, limit, json=json)


@letters_app.command("show")
@with_settings("bootstrap_servers", "dead_letter_topic", *OF_FORMAT)
def show_dead_letter(
    settings: "Settings",
    partition: Annotated[
        int, typer.Argument(min=0, metavar="PARTITION", help="partition of the message that was not scored")
    ],
    offset: Annotated[
        int, typer.Argument(min=0, metavar="OFFSET", help="offset of the message that was not scored")
    ],
    *,
    payload: Annotated[
        bool, typer.Option("--payload", help="also show key, headers and value, which may identify a patient")
    ] = False,
    json: Json = False,
) -> None:
    """Show why the input topic's message at this position was not scored."""
    from vitalstream import dead_letters

    dead_letters.show(settings, partition, offset, payload=payload, json=json)


@letters_app.command("replay")
@with_settings(
    "bootstrap_servers", "input_topic", "dead_letter_topic", "model", *OF_INPUT, "ranges", "min_features"
)
def replay_dead_letters(
    settings: "Settings",
    *,
    reason: OfReason = None,
    field: OfField = None,
    since: Since = None,
    force: Annotated[
        bool, typer.Option("--force", help="also replay letters that would be rejected again")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what would be replayed, without sending")
    ] = False,
    json: Json = False,
) -> None:
    """Send dead letters to the input topic again after a fix, once each however often this is run.

    A letter that would be rejected again stays: it is decoded with the standard features (or the mapping's) or, with
    --model, decoded and scored as a worker would. Exit code 1 if any selected letter stays.
    """
    from vitalstream import dead_letters, redrive

    selection = dead_letters.select(reason=reason, field=field, since=since)
    redrive.replay(settings, selection, force=force, dry_run=dry_run, json=json)


@state_app.command("show")
@with_settings("model", "bootstrap_servers", "group", "input_topic")
def show_state(
    settings: "Settings",
    patient: Annotated[str, typer.Argument(metavar="PATIENT", help="patient id")],
    *,
    json: Json = False,
) -> None:
    """Show a patient's state: the number of messages, and each column's last value with its time and the one before.

    This is the state at the group's committed offsets. Reads the whole state topic and changes nothing.
    """
    from vitalstream import state

    state.show(settings, patient, json=json)


@state_app.command("check")
@with_settings("model", "bootstrap_servers", "group", "input_topic")
def check_state(settings: "Settings", *, json: Json = False) -> None:
    """Show what the state topic holds, and whether a worker with this model could start from it; exit code 1 if not.

    Whether the state follows from the messages is for audit --model to check.
    """
    from vitalstream import state

    state.check(settings, json=json)


@state_app.command("snapshot")
@with_settings("model", "bootstrap_servers", "group", "input_topic")
def snapshot_state(
    settings: "Settings",
    file: Annotated[Path, typer.Argument(metavar="FILE", help="is replaced if it exists")],
    *,
    json: Json = False,
) -> None:
    """Save what is known of all patients at the group's committed offsets, for a later audit --state-snapshot.

    Take one, after a clean audit, before retention deletes the input's first messages. The file holds patient data.
    """
    from vitalstream import state

    state.snapshot(settings, file, json=json)


@state_app.command("rebuild")
@with_settings("model", "bootstrap_servers", "group", "input_topic", *OF_INPUT, "ranges")
def rebuild_state(
    settings: "Settings",
    *,
    from_group: Annotated[
        str,
        typer.Option("--from-group", metavar="NAME", help="group whose committed offsets mark the end"),
    ],
    json: Json = False,
) -> None:
    """Build a new group's state from the messages of the input topic, so that it starts with the patients' past.

    Use it for a model with another recipe, or after losing the state topic. Stop the old group's workers, create the
    new group's state topic (topics create --state --group NEW), rebuild, and start the new group's workers: they
    continue where the old ones stopped. State and offsets are committed in one transaction.
    """
    from vitalstream import state

    state.rebuild(settings, source=from_group, json=json)
