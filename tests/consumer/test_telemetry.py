"""Prometheus metrics: what counts and when, and that rules, dashboard and docs name existing metrics."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consumer.errors import Action
from consumer.lag import answering, lag_listener, stable_offsets
from consumer.observer import Observer, Step
from consumer.telemetry import PrometheusObserver
from schemas.contract import Reason
from tests.consumer.fakes import Clock, FakeMessage, chunk_metrics, chunk_of, messages

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "ops" / "vitalstream.rules.yml"
DASHBOARD = ROOT / "ops" / "grafana-dashboard.json"
OPERATIONS = ROOT / "docs" / "operations.md"
MONITORING = ROOT / "docs" / "monitoring.md"
PROMTOOL = shutil.which("promtool")
ALERT_TESTS = Path(__file__).with_name("alerts.test.yml")
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]


class Told:
    """A PrometheusObserver that is sent chunks as by a worker."""

    def __init__(self) -> None:
        self.clock = Clock()  # both the monotonic and the wall clock
        self.observer = PrometheusObserver(clock=self.clock, now=self.clock)
        self.observer.started(worker="w", model="f00d", features=["spo2"], path="compiled trees", decision="")
        self.observer.assigned([0, 1])

    def chunk(
        self, *, waits_ms: list[float], dead: int = 0, no_input: int = 0, oldest: float | None = None
    ) -> None:
        tell = self.observer
        tell.collected(oldest=self.clock.now if oldest is None else oldest, waited=0.0)
        tell.reached(Step.COLLECTED)
        self.clock.now += 0.02
        tell.waited(np.array(waits_ms))
        tell.scored([chunk_metrics(scored=len(waits_ms), dead_lettered=dead, no_input=no_input)])
        for offset in range(dead):
            tell.rejected(0, offset, Reason.NOT_JSON, "")
        tell.reached(Step.SCORED)
        tell.reached(Step.PRODUCED)

    def commit(self) -> None:
        self.observer.reached(Step.OFFSETS_SENT)
        self.observer.reached(Step.COMMITTED)
        self.observer.committed(chunks=1, rows=1, seconds=0.004)

    def value(self, name: str, **labels: str) -> float | None:
        return self.observer.registry.get_sample_value(name, labels)

    def rows(self) -> tuple[float | None, float | None]:
        name = "vitalstream_rows_total"
        return self.value(name, outcome="scored"), self.value(name, outcome="dead_lettered")

    def transactions(self) -> dict[str, float | None]:
        name = "vitalstream_transactions_total"
        results = ("committed", "aborted", "unknown", "fenced")
        return {one: count for one in results if (count := self.value(name, result=one))}

    @property
    def oldest(self) -> float | None:
        return self.value("vitalstream_oldest_unprocessed_seconds")


@pytest.fixture
def told() -> Told:
    return Told()


def test_rows_count_when_they_are_committed_and_not_before(told: Told) -> None:
    told.chunk(waits_ms=[5.0, 6.0], dead=3)
    told.chunk(waits_ms=[7.0])
    assert told.rows() == (0, 0)
    told.commit()
    assert told.rows() == (3, 3)
    assert told.value("vitalstream_dead_letters_total", reason="not_json") == 3
    assert told.value("vitalstream_end_to_end_seconds_count") == 3
    assert told.value("vitalstream_last_commit_timestamp_seconds") == told.clock.now
    assert told.transactions() == {"committed": 1}


def test_the_size_and_the_wait_are_those_of_the_last_chunk(told: Told) -> None:
    told.observer.collected(oldest=None, waited=0.0)
    told.observer.scored(
        [chunk_metrics(chunk_size=size, max_wait_ms=wait) for size, wait in ((1000, 0.0), (200, 25.0))]
    )
    told.observer.reached(Step.SCORED)
    assert told.value("vitalstream_chunk_size_rows") == 200
    assert told.value("vitalstream_max_wait_seconds") == 0.025
    assert told.value("vitalstream_chunk_seconds_count") == 2


def test_results_without_input_count_once_they_are_committed(told: Told) -> None:
    name = "vitalstream_no_input_results_total"
    told.chunk(waits_ms=[5.0, 6.0, 7.0], no_input=2)
    assert told.value(name) == 0
    told.observer.failed("committing", "_TIMED_OUT", Action.REBUILD)  # the rows are read again
    told.chunk(waits_ms=[5.0, 6.0, 7.0], no_input=2)
    told.chunk(waits_ms=[8.0], no_input=1)
    told.commit()
    told.chunk(waits_ms=[9.0])
    told.commit()
    assert told.value(name) == 3
    assert told.rows() == (5, 0)


@pytest.mark.parametrize(
    ("committing", "action", "result"),
    [
        (False, Action.ABORT, "aborted"),
        (False, Action.REBUILD, "aborted"),
        (True, Action.ABORT, "aborted"),
        (True, Action.REBUILD, "unknown"),
        (True, Action.FENCED, "fenced"),
        (False, Action.FENCED, "fenced"),
    ],
)
def test_aborted_rows_count_once_they_are_committed(
    told: Told, committing: bool, action: Action, result: str
) -> None:
    told.chunk(waits_ms=[5.0, 6.0], dead=1)
    if committing:
        told.observer.reached(Step.OFFSETS_SENT)
    told.observer.failed("committing", "_TIMED_OUT", action)
    told.observer.failed("starting transactions", "_TIMED_OUT", Action.RETRY)
    told.observer.renewed()
    assert told.rows() == (0, 0)
    assert told.transactions() == {result: 1}
    assert told.value("vitalstream_producer_rebuilds_total") == 1

    told.chunk(waits_ms=[50.0, 60.0], dead=1)
    told.commit()
    assert told.rows() == (2, 1)
    assert told.transactions() == {result: 1, "committed": 1}


def shown_models(told: Told) -> set[str]:
    families = text_string_to_metric_families(generate_latest(told.observer.registry).decode())
    (models,) = (family for family in families if family.name == "vitalstream_model_info")
    return {sample.labels["sha256"] for sample in models.samples}


def test_a_new_model_is_shown_with_the_old_one_until_it_takes_over(told: Told) -> None:
    tell, how = told.observer, {"path": "p", "decision": ""}
    tell.model_awaited("half")
    assert told.value("vitalstream_model_outdated") == 1
    tell.model_ready(model="cafe", path="p")
    assert shown_models(told) == {"f00d", "cafe"}
    assert told.value("vitalstream_model_changes_total", result="changed") == 0
    tell.model_changed(model="cafe", features=["spo2"], **how)
    assert shown_models(told) == {"cafe"}
    assert told.value("vitalstream_model_outdated") == 0
    assert told.value("vitalstream_model_changes_total", result="changed") == 1
    tell.model_ready(model="cafe", path="p")  # with a different card
    tell.model_changed(model="cafe", features=["spo2"], **how)
    assert shown_models(told) == {"cafe"}


def test_a_refused_model_is_counted_and_marks_the_current_one_outdated(told: Told) -> None:
    told.observer.model_refused("no model")
    assert told.value("vitalstream_model_changes_total", result="refused") == 1
    assert told.value("vitalstream_model_outdated") == 1
    assert shown_models(told) == {"f00d"}
    told.observer.model_kept()
    assert told.value("vitalstream_model_outdated") == 0


def test_state_and_restores_are_measured(told: Told) -> None:
    tell = told.observer
    tell.restoring([0, 1], patients=3)
    assert told.value("vitalstream_restoring_partitions") == 2
    for partition in (0, 1):
        tell.restored(partition, patients=4, size=900, seconds=0.5)
    tell.restoring([], patients=8)
    assert told.value("vitalstream_restoring_partitions") == 0
    assert told.value("vitalstream_restored_patients_total") == 8
    assert told.value("vitalstream_restored_bytes_total") == 1800
    assert told.value("vitalstream_restore_seconds_total") == 1.0
    told.chunk(waits_ms=[1.0])
    tell.late(2)
    assert told.value("vitalstream_late_rows_total") == 0, "not committed yet"
    told.commit()
    tell.kept(patients=9, size=4_000)
    assert told.value("vitalstream_late_rows_total") == 2
    assert told.value("vitalstream_state_patients") == 9
    assert told.value("vitalstream_state_bytes") == 4_000


def test_a_chunk_left_by_a_stopped_worker_counts_as_aborted(told: Told) -> None:
    told.chunk(waits_ms=[5.0])
    told.observer.stopped()
    assert told.transactions() == {"aborted": 1}


def test_end_to_end_time_runs_up_to_each_messages_commit(told: Told) -> None:
    told.chunk(waits_ms=[3.0, 80.0, 700.0])
    told.clock.now += 0.15
    told.commit()
    at_most = {
        le: told.value("vitalstream_end_to_end_seconds_bucket", le=le) for le in ("0.1", "0.25", "0.5", "1.0")
    }
    assert at_most == {"0.1": 0, "0.25": 2, "0.5": 2, "1.0": 3}
    assert told.value("vitalstream_end_to_end_seconds_bucket", le="+Inf") == 3
    assert told.value("vitalstream_end_to_end_seconds_sum") == pytest.approx(0.783 + 3 * 0.15)


def test_a_producer_with_a_fast_clock_does_not_decrease_the_sum(told: Told) -> None:
    told.chunk(waits_ms=[-60_000.0])
    told.commit()
    assert told.value("vitalstream_end_to_end_seconds_sum") == 0
    assert told.value("vitalstream_end_to_end_seconds_count") == 1


def test_chunk_seconds_measure_scoring(told: Told) -> None:
    told.chunk(waits_ms=[3.0])
    assert told.value("vitalstream_chunk_seconds_sum") == pytest.approx(0.02)


def test_the_oldest_message_ages_until_it_is_committed(told: Told) -> None:
    assert told.oldest == 0
    told.chunk(waits_ms=[3.0], oldest=told.clock.now - 7)
    told.chunk(waits_ms=[3.0], oldest=told.clock.now - 2)
    told.clock.now += 100  # the model hangs, or the broker is down
    assert told.oldest == pytest.approx(107.04)
    told.commit()
    assert told.oldest == 0


def test_the_oldest_age_keeps_growing_while_a_backlog_is_left(told: Told) -> None:
    told.observer.behind({0: 500, 1: 0})
    told.chunk(waits_ms=[3.0], oldest=told.clock.now - 3600)
    told.commit()
    assert told.oldest == pytest.approx(3600, abs=1)
    told.chunk(waits_ms=[3.0], oldest=told.clock.now - 60)
    told.commit()
    assert told.oldest == pytest.approx(60, abs=1), "not the age of the oldest message"
    told.observer.behind({0: 1, 1: 0})  # a transaction marker
    assert told.oldest == 0


def test_the_oldest_age_drops_once_an_unknown_commit_turns_out_to_have_succeeded(told: Told) -> None:
    told.chunk(waits_ms=[3.0], oldest=told.clock.now - 5)
    told.observer.failed("committing", "_TIMED_OUT", Action.REBUILD)
    assert told.oldest == pytest.approx(5, abs=1)
    told.observer.behind({0: 0, 1: 0})
    assert told.oldest == 0


def test_lag_is_shown_by_partition_while_it_is_assigned(told: Told) -> None:
    told.observer.behind({0: 5, 1: 7})
    assert told.value("vitalstream_consumer_lag_messages", partition="1") == 7
    told.observer.revoked([1], lost=False)
    told.observer.behind({0: 4})
    assert told.value("vitalstream_consumer_lag_messages", partition="0") == 4
    assert told.value("vitalstream_consumer_lag_messages", partition="1") is None
    assert told.value("vitalstream_assigned_partitions") == 1


def test_the_exposition_parses_and_follows_the_conventions(told: Told) -> None:
    told.chunk(waits_ms=[3.0])
    told.commit()
    told.observer.behind({0: 5})
    ours = [
        family
        for family in text_string_to_metric_families(generate_latest(told.observer.registry).decode())
        if family.name.startswith("vitalstream_")
    ]
    assert told.value("vitalstream_model_info", sha256="f00d", path="compiled trees") == 1
    assert all(family.documentation for family in ours if not family.name.endswith("_created"))
    labels = {label for family in ours for sample in family.samples for label in sample.labels}
    ours_alone = {"outcome", "reason", "result", "partition", "sha256", "path", "version", "librdkafka"}
    assert labels <= {*ours_alone, "le"}


# --- lag


def _statistics(**partition: Any) -> dict[str, Any]:
    reading = {"ls_offset": 5, "hi_offset": 12}  # a transaction of the input's producer is open
    return {
        "brokers": {"a:9092/bootstrap": {"rxidle": -1}, "a:9092/1": {"rxidle": 300_000}},
        "topics": {"vitals": {"partitions": {"0": reading | partition, "-1": reading}}},
    }


@pytest.mark.parametrize(("partition", "expected"), [({}, {0: 5}), ({"ls_offset": -1001}, {})])
def test_the_lag_is_counted_to_the_last_stable_offset(
    partition: dict[str, Any], expected: dict[int, int]
) -> None:
    assert stable_offsets(_statistics(**partition), "vitals") == expected
    assert stable_offsets(_statistics(**partition), "another") == {}


def test_a_broker_that_sent_something_recently_counts_as_answering() -> None:
    assert answering(_statistics())
    assert not answering({"brokers": {"a": {"rxidle": 20_000_000}, "b": {"rxidle": -1}}})


def test_the_statistics_callback_never_raises() -> None:
    def fail(_stable: dict[int, int]) -> None:
        raise RuntimeError

    for text in ("", "{}", "[]", json.dumps(_statistics())):
        lag_listener("vitals", fail, Observer())(text)


def test_a_chunk_knows_its_oldest_message() -> None:
    two = [
        FakeMessage(timestamp=9_000),
        FakeMessage(timestamp=7_500, partition=1),
        FakeMessage(timestamp=8_000),
    ]
    assert chunk_of(two).oldest() == 7.5
    assert chunk_of(messages((0, 1))).oldest() is None


# --- what is named elsewhere


def _exposed(told: Told) -> set[str]:
    told.observer.behind({0: 5})
    families = told.observer.registry.collect()
    names = {sample.name for family in families for sample in family.samples}
    return {name for name in names if name.startswith("vitalstream_") and not name.endswith("_created")}


def _named_in(path: Path) -> set[str]:
    return set(re.findall(r"\bvitalstream_[a-z_]+\b", path.read_text()))


@pytest.mark.parametrize("path", [RULES, DASHBOARD], ids=lambda path: path.name)
def test_every_metric_named_elsewhere_exists(told: Told, path: Path) -> None:
    named = _named_in(path)
    assert len(named) > 5
    assert named <= _exposed(told)


def test_the_documentation_names_every_metric_and_no_other(told: Told) -> None:
    exposed = {re.sub(r"_(bucket|sum|count)$", "", name) for name in _exposed(told)}
    assert _named_in(MONITORING) == exposed


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_every_alert_has_a_runbook_with_numbered_steps(alert: dict[str, Any]) -> None:
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert (ROOT / path, anchor) == (OPERATIONS, alert["alert"].lower())
    sections = re.findall(rf"^#+ {alert['alert']}\n((?:(?!#).*\n)*)", OPERATIONS.read_text(), re.MULTILINE)
    assert len(sections) == 1
    assert re.search(r"^1\. .", sections[0], re.MULTILINE), "it has no numbered steps"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_every_alert_is_tested_alongside_a_healthy_job(alert: dict[str, Any]) -> None:
    fired = [
        {one["exp_labels"].get("job") for one in case["exp_alerts"]}
        for test in yaml.safe_load(ALERT_TESTS.read_text())["tests"]
        if {'job="well"', 'job="sick"'} <= set(re.findall(r'job="\w+"', str(test["input_series"])))
        for case in test["alert_rule_test"]
        if case["alertname"] == alert["alert"] and case.get("exp_alerts")
    ]
    assert fired
    assert all(jobs == {"sick"} for jobs in fired)


def test_the_dashboards_panels_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_every_rule_says_what_is_wrong_and_how_badly() -> None:
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}


@pytest.mark.parametrize("what", [("check", RULES), ("test", ALERT_TESTS)], ids=lambda what: str(what[0]))
def test_promtool_accepts_the_rules(what: tuple[str, Path]) -> None:
    if PROMTOOL is None:
        pytest.fail("the alert rules can't be tested: install promtool (Debian: prometheus)", pytrace=False)
    command = [PROMTOOL, what[0], "rules", str(what[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
