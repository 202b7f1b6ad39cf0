import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from rich.cells import cell_len
from rich.console import Console

from broker.settings import Settings
from broker.topics import create_topics
from schemas.printable import printable
from schemas.results import RiskResult, decode_result
from tests.conftest import MakeSettings, fresh_settings
from tests.kafka import Row, produce, wait_until
from tests.vitalstream.command import ROOT, OnTerminal, Running, argv, environment, vitalstream
from vitalstream.board import Board, age, direction, shortened
from vitalstream.watch import Silence, _table

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def written(kafka: str) -> Settings:
    """Settings whose risk topic has six results of three patients, for tests that only read."""
    settings = fresh_settings(kafka)
    create_topics(settings, partitions=4, replication_factor=1)
    produce(kafka, settings.output_topic, WRITTEN)
    return settings


def result(patient: str, risk: float | None, offset: int = 0, *, no_input: bool = False) -> bytes:
    label = None if risk is None else int(risk >= 0.5)
    return orjson.dumps(
        RiskResult(
            patient_id=patient,
            event_time=f"2026-01-05T08:{offset:02}:00Z",
            risk_probability=risk,
            risk_label=label,
            implausible=[],
            threshold=0.5,
            model="0" * 64,
            scored_at="2026-01-05T08:30:00.000Z",
            source_topic="vitals",
            source_partition=0,
            source_offset=offset,
            features_present=0 if no_input else 5,
            no_input=no_input,
        )
    )


def rows(*patients: tuple[str, float | None]) -> list[Row]:
    return [
        (patient.encode(), result(patient, risk, offset)) for offset, (patient, risk) in enumerate(patients)
    ]


WRITTEN: Sequence[Row] = rows(
    ("ann", 0.1), ("bob", 0.9), ("cyd", None), ("ann", 0.7), ("bob", 0.4), ("ann", 0.7)
)


def options(settings: Settings, *more: str) -> list[str]:
    return [
        "watch", "--bootstrap-servers", settings.bootstrap_servers, "--output-topic", settings.output_topic, *more,
    ]  # fmt: skip


def test_json_output_is_the_topics_values_unchanged(written: Settings) -> None:
    done = vitalstream(*options(written, "--from-beginning", "--until-idle", "2", "--json"))

    assert done.returncode == 0
    lines = done.stdout.encode().splitlines()
    values = [value for _, value, *_ in WRITTEN]
    assert Counter(lines) == Counter(values)
    assert [line for line in lines if b'"ann"' in line] == [values[place] for place in (0, 3, 5)]


def test_lines_show_patient_risk_and_trend(written: Settings) -> None:
    done = vitalstream(*options(written, "--from-beginning", "--until-idle", "2"))

    assert done.returncode == 0
    found = {tuple(line.split()) for line in done.stdout.splitlines()}
    assert ("2026-01-05T08:00:00Z", "ann", "risk", "0.100", "label", "0") in found
    assert ("2026-01-05T08:03:00Z", "ann", "risk", "0.700", "label", "1", "up") in found
    assert ("2026-01-05T08:04:00Z", "bob", "risk", "0.400", "label", "0", "down") in found
    assert ("2026-01-05T08:05:00Z", "ann", "risk", "0.700", "label", "1", "steady") in found
    assert ("2026-01-05T08:02:00Z", "cyd", "risk", "unknown", "label", "-") in found
    assert len(done.stdout.splitlines()) == len(WRITTEN)


def test_a_patient_without_input_is_not_shown_as_a_low_risk(settings: Settings) -> None:
    values = [result("dee", 0.9), result("dee", None, 1, no_input=True)]
    produce(settings.bootstrap_servers, settings.output_topic, [(b"dee", value) for value in values])
    done = vitalstream(*options(settings, "--from-beginning", "--limit", "2"))
    assert done.stdout.splitlines()[1].split() == [
        "2026-01-05T08:01:00Z", "dee", "risk", "no", "input", "label", "-",
    ]  # fmt: skip

    watching = OnTerminal(*options(settings, "--from-beginning"))
    wait_until(lambda: "2 results of 1 patients" in watching.text, what="a table")
    watching.process.send_signal(signal.SIGINT)
    assert watching.end() == 0
    (row,) = [line for line in watching.left.splitlines() if "dee" in line]
    assert row.split()[:4] == ["dee", "no", "input", "-"]


def test_limit_counts_only_results_above_min_risk(written: Settings) -> None:
    done = vitalstream(*options(written, "--from-beginning", "--limit", "3", "--min-risk", "0.7", "--json"))

    assert done.returncode == 0
    assert [orjson.loads(line)["risk_probability"] >= 0.7 for line in done.stdout.splitlines()] == [True] * 3


def test_without_from_beginning_only_new_results_are_shown(settings: Settings) -> None:
    produce(settings.bootstrap_servers, settings.output_topic, rows(("before", 0.5)))
    with Running(*options(settings, "--limit", "2")) as watching:
        wait_until(lambda: "from now on" in watching.err, what="watch to follow")
        produce(settings.bootstrap_servers, settings.output_topic, rows(("now", 0.5), ("now", 0.6)))

        assert watching.end() == 0
        assert watching.out.count("now ") == 2
        assert "before" not in watching.out


def test_uncommitted_results_are_not_shown(settings: Settings) -> None:
    producer = Producer(
        {"bootstrap.servers": settings.bootstrap_servers, "transactional.id": settings.group, "log_level": 0}
    )
    producer.init_transactions(30)
    for patient, end in (("aborted", producer.abort_transaction), ("committed", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(settings.output_topic, result(patient, 0.5), b"p")
        producer.flush(30)
        end(30)

    done = vitalstream(*options(settings, "--from-beginning", "--limit", "1", "--json"))

    assert [orjson.loads(line)["patient_id"] for line in done.stdout.splitlines()] == ["committed"]


def test_invalid_results_are_counted_and_never_shown(settings: Settings) -> None:
    produce(
        settings.bootstrap_servers,
        settings.output_topic,
        [
            (b"k", b"SECRET-1", 0),
            (b"k", None, 0),
            (b"k", b'{"patient_id": "SECRET-2"}', 0),
            (b"k", b"\x00\x00\x00\x00\x07SECRET-3", 0),
            *rows(("ann", 0.5)),
        ],
    )
    done = vitalstream(*options(settings, "--from-beginning", "--until-idle", "2", "--json"))

    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert f"skipped 4 values that are not results, the first at {settings.output_topic}[0]@0" in done.stderr
    assert "; of Avro, give --result-format avro and --schema-registry" in done.stderr
    assert "SECRET" not in done.stdout + done.stderr


def test_control_characters_do_not_reach_the_terminal(settings: Settings) -> None:
    produce(settings.bootstrap_servers, settings.output_topic, rows(("a\x1b[2J\nb", 0.5)))
    done = vitalstream(*options(settings, "--from-beginning", "--limit", "1"))

    assert "a?[2J?b" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_closed_pipe_ends_watch_quietly(settings: Settings) -> None:
    produce(settings.bootstrap_servers, settings.output_topic, WRITTEN)
    command = argv(*options(settings, "--from-beginning", "--json"))
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        watching.stdout.readline()
        watching.stdout.close()
        produce(settings.bootstrap_servers, settings.output_topic, WRITTEN)
        try:
            assert watching.wait(30) == 0
        finally:
            watching.kill()
        said = watching.stderr.read().decode()
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_ctrl_c_restores_the_terminal_and_leaves_the_last_state(make_settings: MakeSettings) -> None:
    settings = make_settings()
    produce(
        settings.bootstrap_servers,
        settings.output_topic,
        rows(*[(f"patient-{number:02}", number / 40) for number in range(40)]),
    )
    watching = OnTerminal(*options(settings, "--from-beginning"))
    wait_until(lambda: "40 results of 40 patients" in watching.text, what="a table of all patients")
    wait_until(lambda: "+ 22 more" in watching.text, what="the end of that table")
    assert "\x1b[?1049h" in watching.raw
    watching.process.send_signal(signal.SIGINT)

    assert watching.end() == 0
    assert watching.raw.count("\x1b[?25l") <= watching.raw.count("\x1b[?25h")
    assert "patient-39" in watching.left
    assert "patient-01" not in watching.left


def test_watch_leaves_no_consumer_group(written: Settings) -> None:
    vitalstream(*options(written, "--from-beginning", "--limit", "1"))

    admin = AdminClient({"bootstrap.servers": written.bootstrap_servers})
    groups = [group.group_id for group in admin.list_consumer_groups().result().valid]
    assert not [group for group in groups if "follower" in group]


def test_a_missing_topic_is_refused_with_one_sentence(kafka: str) -> None:
    done = vitalstream("watch", "--bootstrap-servers", kafka, "--output-topic", "nobody-made-this")

    assert done.returncode == 1
    assert "topic nobody-made-this (--output-topic) is missing" in done.stderr
    assert "vitalstream topics create" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_patients_are_ranked_by_their_latest_risk() -> None:
    board = Board()
    for patient, risk in (("a", 0.9), ("b", 0.5), ("c", None), ("a", 0.2), ("d", 0.5)):
        board.add(decode_result(result(patient, risk)), 0.0)

    assert [one.result.patient_id for one in board.ranked()] == ["b", "d", "a", "c"]
    assert [one.result.patient_id for one in board.ranked(0.5)] == ["b", "d"]


def test_direction_age_and_printable() -> None:
    assert [direction(history) for history in ([], [0.5], [0.5, 0.6], [0.6, 0.5], [0.5, 0.51])] == [
        "", "", "up", "down", "steady",
    ]  # fmt: skip
    assert [age(seconds) for seconds in (-1, 3.2, 59.9, 60, 7200, 200_000, 4e7)] == [
        "0 s", "3 s", "59 s", "1 min", "2 h", "2 d", "1 y",
    ]  # fmt: skip
    assert printable("x" * 50, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    "text", ["MRN-0000012345678", "日本の患者番号二番", "a\u0301" * 30, "p\x1b[2J" * 20], ids=ascii
)
def test_a_shortened_id_fits_and_keeps_both_ends(text: str) -> None:
    found, whole = shortened(text, 14), printable(text, 128)
    assert 12 <= cell_len(found) <= 14
    assert (found[:2], found[-1]) == (whole[:2], whole[-1])
    assert shortened(text, cell_len(whole)) == whole


def test_an_unknown_risk_has_no_trend() -> None:
    board = Board()
    for risk in (0.1, 0.9, None):
        latest = board.add(decode_result(result("a", risk)), 0.0)
    assert latest.direction == ""
    assert board.add(decode_result(result("a", 0.2)), 0.0).direction == "down"


def drawn(width: int, *patients: tuple[str, float | None, float], **style: Any) -> str:
    """The table of patients, given by name, risk, and the seconds since they were last seen."""
    board = Board()
    for name, risk, seen in patients:
        value = decode_result(result(name, risk, offset=7, no_input=name == "dee"))
        board.add(replace(value, event_time="2026-01-05T08:07:00.123+01:00"), time.time() - seen)
    console = Console(width=width, file=StringIO(), **style)
    with console.capture() as captured:
        console.print(_table(board.ranked(), width=width))
    return captured.get()


EVERY_AGE = [
    ("MRN-0000012345678", 1.0, 59.5),
    ("MRN-0000012345679", 0.99, 59 * 60 + 30),
    ("日本の患者番号二番", 0.5, 23.5 * 3600),
    ("cyd", 0.012, 364.5 * 86_400),
    ("ann", None, 3.0),
    ("dee", None, 4.0),
]


@pytest.mark.parametrize("width", [52, 60, 77, 78, 80, 109, 110, 140])
def test_no_cell_is_cut_off_at_any_width(width: int) -> None:
    header, _, *rows = drawn(width, *EVERY_AGE, color_system=None).splitlines()
    assert all(cell_len(row) <= width for row in (header, *rows))
    risks, seen = zip(*[(row.split()[1], row.split()[-3:]) for row in rows], strict=True)
    assert risks == ("1.000", "0.990", "0.500", "0.012", "unknown", "no")
    assert " no input " in rows[-1]
    assert [*map(" ".join, seen)] == ["59 s ago", "59 min ago", "23 h ago", "364 d ago", "3 s ago", "4 s ago"]
    assert [row.split()[0][-4:] for row in rows[:2]] == ["5678", "5679"]
    assert header.split()[-1] == "seen"
    if width >= 78:
        assert all(" 2026-01-05T07:07:00Z  " in row for row in rows)
    else:
        assert "event time" not in header


@pytest.mark.parametrize("width", [110, 140])
def test_the_oldest_value_is_shown_if_the_model_has_a_history(width: int) -> None:
    carried = {"temperature": 3.25, "mean_arterial_pressure": 7.5}
    known = {"rows_seen": 9, "hours_since_first_seen": 30.0, "carried_forward": carried}
    board = Board()
    board.add(replace(decode_result(result("MRN-0000012345678", 1.0)), history=known), time.time() - 59 * 60)
    board.add(replace(decode_result(result("b", 0.5)), history={**known, "carried_forward": {}}), time.time())
    console = Console(width=width, file=StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(_table(board.ranked(), width=width))
    header, _, first, second = captured.get().splitlines()
    assert "oldest value" in header
    assert all(cell_len(line) <= width for line in (header, first, second))
    assert "   7 h mean_a…essure " in first
    assert "59 min ago" in first
    assert "0 s ago" in second


def test_a_row_is_dimmed_when_it_is_old() -> None:
    rows = drawn(
        80, ("new", 0.9, 290), ("old", 0.8, 310), force_terminal=True, color_system="standard"
    ).splitlines()
    new, old = rows[2:]
    assert ("\x1b[1;31m0.900" in new, "\x1b[2m" in new) == (True, False)
    assert re.search(r"\x1b\[2mold", old)
    assert re.search(r"\x1b\[2;31m0\.800", old), "its colour remains"


def test_silence_is_logged_after_1_2_and_4_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    silence = Silence()
    for quiet in (0.0, 59.9, 60.1, 61.0, 119.9, 120.1, 200.0, 241.0, 0.1, 61.0):
        silence.lasts(quiet)
    assert capsys.readouterr().err.splitlines() == [
        "nothing for 1 min", "nothing for 2 min", "nothing for 4 min", "nothing for 1 min",
    ]  # fmt: skip


def test_the_table_says_how_long_nothing_has_arrived(settings: Settings) -> None:
    produce(settings.bootstrap_servers, settings.output_topic, rows(("ann", 0.5)))
    watching = OnTerminal(*options(settings, "--from-beginning"), columns=60)
    wait_until(lambda: "1 results of 1 patients" in watching.text, what="a table")
    assert "nothing for" not in watching.text
    wait_until(lambda: "nothing for 11 s" in watching.text, what="a report of silence")
    shown = len(watching.raw)
    produce(settings.bootstrap_servers, settings.output_topic, rows(("bob", 0.5)))
    wait_until(lambda: "2 results of 2 patients" in watching.raw[shown:], what="a new result")
    latest = watching.raw.rpartition("2 results of 2 patients")[2]
    watching.process.send_signal(signal.SIGINT)
    assert watching.end() == 0
    assert "nothing for" not in latest
