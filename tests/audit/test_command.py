"""`vitalstream audit` as a user runs it."""

import os
import subprocess
import sys

import orjson
import pytest

from broker.settings import Settings
from tests.audit.conftest import ROWS
from tests.audit.test_incomplete import cut
from tests.audit.topics import Written

pytestmark = pytest.mark.kafka


def vitalstream_audit(settings: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    names = (
        "bootstrap_servers",
        "group",
        "input_topic",
        "output_topic",
        "metrics_topic",
        "dead_letter_topic",
    )
    flags = [part for name in names for part in (f"--{name.replace('_', '-')}", getattr(settings, name))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VITALSTREAM_")}
    return subprocess.run(
        [sys.executable, "-m", "vitalstream", "audit", *flags, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_clean_run_exits_with_0(clean: Written) -> None:
    done = vitalstream_audit(clean.settings, "--model", str(clean.settings.model))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I9"]
    assert all(" ok " in line for line in lines[:-1])
    assert lines[-1].startswith(f"clean: {ROWS} of {ROWS} messages")
    assert "are accounted for; 0 still wait (" in lines[-1]
    assert done.stderr == ""


def test_a_failed_audit_names_the_offender(clean: Written) -> None:
    partition, offset = clean.results.pop(100).place
    settings = clean.copied()
    done = vitalstream_audit(settings)
    assert done.returncode == 1
    assert "FAILED 1" in done.stdout.splitlines()[0]
    assert f"I1 {settings.input_topic} partition {partition} offset {offset}:" in done.stdout
    assert f"NOT clean, I1, I4 failed: {ROWS - 1} of {ROWS} messages" in done.stdout.splitlines()[-1]

    as_json = vitalstream_audit(settings, "--json")
    assert as_json.returncode == 1
    found = orjson.loads(as_json.stdout)
    assert (found["verdict"], found["clean"]) == ("failed", False)
    assert (found["messages"], found["accounted"]) == (ROWS, ROWS - 1)
    offender = {key: found["offenders"][0][key] for key in ("invariant", "topic", "partition", "offset")}
    assert offender == {
        "invariant": "I1",
        "topic": settings.input_topic,
        "partition": partition,
        "offset": offset,
    }
    assert {one["invariant"] for one in found["invariants"] if one["failed"]} == {"I1", "I4"}


def test_the_report_says_what_could_not_be_judged(clean: Written) -> None:
    settings = clean.copied()
    topic = settings.dead_letter_topic
    cut(settings.bootstrap_servers, topic, dict.fromkeys(range(4), -1))
    count = len(clean.dead_letters)
    done = vitalstream_audit(settings)
    assert (done.returncode, done.stderr) == (3, "")
    lines = done.stdout.splitlines()
    assert " ok in part " in lines[0]
    sentence = (
        f"{count} messages could not be judged: they have neither a result nor a dead letter, and the oldest records "
        f"of {topic} were deleted by retention or by hand"
    )
    assert f"not judged: {sentence}" in lines
    assert lines[-1].startswith(f"incomplete: {ROWS - count} of {ROWS - count} messages consumed by group")

    as_json = vitalstream_audit(settings, "--json")
    assert as_json.returncode == 3
    found = orjson.loads(as_json.stdout)
    assert (found["verdict"], found["clean"]) == ("incomplete", False)
    assert found["waiting"] == {"messages": 0, "exact": True}
    assert found["unjudged"] == [
        {
            "invariant": "I1",
            "topic": topic,
            "cause": "deleted by retention or by hand",
            "count": count,
            "sentence": sentence,
        }
    ]
    judged = {one["invariant"]: (one["failed"], one["unjudged"]) for one in found["invariants"]}
    assert judged.pop("I1") == (0, count)
    assert {*judged.values()} == {(0, 0)}


def test_a_group_without_commits_is_refused(settings: Settings) -> None:
    done = vitalstream_audit(settings, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"vitalstream: group {settings.group} has no committed offsets")
