import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from io import StringIO

import orjson
import pytest
from confluent_kafka.admin import AdminClient
from rich.console import Console

from broker.settings import load_settings
from schemas.contract import Reason
from schemas.metrics import ChunkMetrics, ClosedBy
from schemas.results import RiskResult
from tests.kafka import is_running, wait_until
from tests.schemas.messages import OF_OTHER_FORMATS
from tests.vitalstream.command import (
    ROOT,
    OnTerminal,
    Running,
    command_line,
    descendants,
    environment,
    vitalstream,
)
from vitalstream.board import Board
from vitalstream.demo.accounts import Accounts, Position
from vitalstream.demo.view import Scene, frame, status_line

HERE = [Position("vitals", offset % 2, offset) for offset in range(6)]


def accounts() -> Accounts:
    """Six messages sent, the first scored and the second dead-lettered."""
    kept = Accounts()
    for place in HERE:
        kept.sent(place, at=100.0)
    kept.scored(HERE[0], at=100.5)
    kept.dead_lettered(HERE[1], at=100.25)
    return kept


def finish(kept: Accounts, *, but: int = 6) -> Accounts:
    """Score the rest, except one."""
    for number in range(2, 6):
        if number != but:
            kept.scored(HERE[number], at=101.0)
    return kept


def test_accounts_that_add_up() -> None:
    kept = finish(accounts())
    verdict = kept.verdict()

    assert verdict.ok
    assert verdict.offenders() == []
    assert (verdict.sent, verdict.scored, verdict.dead_lettered) == (6, 5, 1)
    assert kept.in_flight == 0
    assert kept.waits(since=0.0) == [0.5, 0.25, 1.0, 1.0, 1.0, 1.0]
    assert kept.waits(since=100.0) == []


def test_a_missing_result_is_found() -> None:
    kept = finish(accounts(), but=4)

    assert kept.in_flight == 1
    assert not kept.verdict().ok
    assert kept.verdict().missing == (HERE[4],)
    assert kept.verdict().offenders() == ["1 missing: vitals[0]@4"]


def test_doubled_results_are_found() -> None:
    kept = finish(accounts())
    kept.scored(HERE[0], at=102.0)
    kept.dead_lettered(HERE[1], at=102.0)

    assert not kept.verdict().ok
    assert kept.verdict().doubled == (HERE[0], HERE[1])
    assert kept.verdict().counts == {"missing": 0, "doubled": 2, "invented": 0, "both": 0}


def test_an_invented_result_is_found_even_if_another_is_missing() -> None:
    kept = finish(accounts(), but=4)
    kept.scored(Position("elsewhere", 0, 4), at=102.0)

    assert kept.verdict().invented == (Position("elsewhere", 0, 4),)
    assert kept.verdict().missing == (HERE[4],)
    assert not kept.verdict().ok


def test_a_message_both_scored_and_dead_lettered_is_found() -> None:
    kept = finish(accounts())
    kept.dead_lettered(HERE[3], at=102.0)

    assert not kept.verdict().ok
    assert kept.verdict().both == (HERE[3],)


def test_only_the_first_offenders_are_named() -> None:
    kept = Accounts()
    for offset in range(20):
        kept.sent(Position("vitals", 0, offset), at=0.0)

    (sentence,) = kept.verdict().offenders()
    assert sentence.startswith("20 missing: vitals[0]@0, vitals[0]@1,")
    assert sentence.endswith("@4, ...")


def test_settings_show_whether_a_broker_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VITALSTREAM_BOOTSTRAP_SERVERS", raising=False)
    assert "bootstrap_servers" not in load_settings().model_fields_set

    monkeypatch.setenv("VITALSTREAM_BOOTSTRAP_SERVERS", "somewhere:9092")
    assert "bootstrap_servers" in load_settings().model_fields_set


def test_on_the_embedded_broker_every_message_is_accounted_for() -> None:
    done = vitalstream("demo", "--seconds", "4", "--json")

    assert done.returncode == 0, done.stderr
    summary = orjson.loads(done.stdout)
    assert summary["ok"]
    assert summary["sent"] == 800 == summary["scored"] + summary["dead_lettered"]
    assert summary["missing"] == summary["doubled"] == summary["invented"] == summary["both"] == 0
    assert set(summary["dead_letters"]) == set(Reason) - {Reason.MODEL_REJECTED, *OF_OTHER_FORMATS}
    assert sum(summary["dead_letters"].values()) == summary["dead_lettered"] == 8
    assert 0 < summary["end_to_end_ms_p50"] <= summary["end_to_end_ms_p99"]
    assert summary["rows_per_s"] > 0
    assert summary["model"]["auroc"] > 0.8
    assert "--bootstrap-servers" in summary["unproven"]
    assert "scoring 200 messages a second: sent" in done.stderr


@pytest.mark.kafka
def test_on_a_real_kafka_the_demo_proves_more_and_leaves_nothing_behind(kafka: str) -> None:
    before = demo_topics(kafka)
    done = vitalstream("demo", "--seconds", "2", "--bootstrap-servers", kafka)

    assert done.returncode == 0, done.stderr
    assert "every message accounted for exactly once" in done.stdout
    assert "not proven" not in done.stdout
    wait_until(
        lambda: demo_topics(kafka) <= before, timeout=60, what="its topics to be gone from the metadata"
    )


def test_ctrl_c_restores_the_terminal_and_ends_the_demo_with_a_summary() -> None:
    demo = OnTerminal("demo", "--seconds", "600")
    wait_until(lambda: "scoring 200" in demo.text, timeout=120, what="messages to be scored")
    started = descendants(demo.process.pid)
    assert len(started) == 2
    demo.process.send_signal(signal.SIGINT)

    assert demo.end() == 0
    assert "patients by risk" in demo.text
    assert "\x1b[?1049l" in demo.raw
    assert demo.raw.count("\x1b[?25l") <= demo.raw.count("\x1b[?25h")
    sent = re.search(r"  sent +([\d,]+)", demo.left)
    assert sent is not None
    assert 0 < int(sent[1].replace(",", "")) < 100_000
    assert "every message accounted for exactly once" in demo.left
    assert [pid for pid in started if is_running(pid)] == []


def test_closing_the_terminal_before_the_worker_is_up_ends_the_demo() -> None:
    with Running("demo") as demo:
        wait_until(lambda: "starting the worker" in demo.out, timeout=120, what="the start of the worker")
        started = descendants(demo.process.pid)
        demo.process.send_signal(signal.SIGHUP)

        assert demo.end() == 0, demo.err
        assert "stopped early" in demo.out
        assert [pid for pid in started if is_running(pid)] == []


def test_a_dead_worker_is_reported_with_its_last_log_lines() -> None:
    with Running("demo", "--seconds", "600") as demo:
        wait_until(lambda: "scoring 200" in demo.out, timeout=120, what="messages to be scored")
        started = descendants(demo.process.pid)
        (worker,) = [pid for pid in started if "vitalstream consume" in command_line(pid)]
        os.kill(worker, signal.SIGKILL)

        assert demo.end() == 1
        assert "the worker exited with code -9" in demo.err
        assert "vitalstream.worker: assigned partitions" in demo.err
        assert [pid for pid in started if is_running(pid)] == []


def test_the_demo_exits_with_1_if_the_accounts_do_not_add_up() -> None:
    forgetful = (
        "from vitalstream.demo.accounts import Accounts\n"
        "scored = Accounts.scored\n"
        "def forget_one(self, position, at):\n"
        "    if position.offset != 7: scored(self, position, at)\n"
        "Accounts.scored = forget_one\n"
        "import vitalstream.demo.run as run\n"
        "run._SETTLE_S = 1.0\n"
        "from vitalstream.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", forgetful, "demo", "--seconds", "2"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert re.search(r"not every message is accounted for exactly once: \d missing: vit.*\]@7", done.stderr)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 40), (60, 15)])
def test_a_frame_fits_the_terminal(width: int, height: int) -> None:
    console = Console(width=width, height=height, file=StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(frame(scene(), width, height), end="")

    lines = captured.get().splitlines()
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    assert "sim-39  " in captured.get()
    assert re.search(r"\+ \d+ more", captured.get())


def test_a_frame_shows_the_oldest_value_if_there_is_room() -> None:
    known = {"rows_seen": 9, "hours_since_first_seen": 30.0, "carried_forward": {"temperature": 3.25}}
    board = Board()
    board.add(replace(scene().board.ranked()[0].result, history=known), 0.0)
    console = Console(width=110, height=24, file=StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(frame(replace(scene(), board=board), 110, 24), end="")
    assert "   3 h temperature " in captured.get()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_frame_cuts_off_no_number_or_unit(width: int) -> None:
    chunk = ChunkMetrics(
        chunk_id="c", worker="w", closed_by=ClosedBy.DRAINED, rows=1000, scored=990, dead_lettered=10, lag=1_234_567,
        latency_ms=123.456, throughput_rows_per_s=1_234_567.0, end_to_end_ms_p50=123_456.0, end_to_end_ms_p99=1.0,
        end_to_end_ms_max=1.0, offsets={}, model="0" * 64, at="",
    )  # fmt: skip
    board = Board()
    board.add(replace(scene().board.ranked()[0].result, risk_probability=None, risk_label=None), 0.0)
    full = replace(scene(), latest=chunk, dead_letters={Reason.MODEL_REJECTED: 1_234_567}, board=board)
    console = Console(width=width, height=24, file=StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(frame(full, width, 24), end="")
    for text in ("1,000, drained", "123.46 ms/row", "1,234,567 rows/s", "unknown"):
        assert f" {text} " in captured.get()
    for name, value in (("lag", "1,234,567"), ("model_rejected", "1,234,567"), ("row age", "123456 ms")):
        assert re.search(rf" {name} +{value} ", captured.get())


def test_a_status_line_names_the_highest_risk() -> None:
    assert "highest risk sim-39 0.975" in status_line(scene())


def demo_topics(kafka: str) -> set[str]:
    topics = AdminClient({"bootstrap.servers": kafka, "log_level": 0}).list_topics(timeout=10).topics
    return {name for name in topics if name.startswith("vitalstream-demo")}


def scene() -> Scene:
    board = Board()
    for number in range(40):
        result = RiskResult(
            patient_id=f"sim-{number}",
            event_time="2026-01-05T08:30:00Z",
            risk_probability=number / 40,
            risk_label=int(number >= 20),
            implausible=[],
            threshold=0.5,
            model="0" * 64,
            scored_at="2026-01-05T08:30:00.000Z",
            source_topic="vitals",
            source_partition=0,
            source_offset=number,
        )
        board.add(result, 0.0)
    return Scene(
        phase="scoring",
        broker="an embedded broker",
        elapsed=3.0,
        seconds=20.0,
        clock="2026-01-05T08:30:00.000Z",
        sent=40,
        scored=40,
        dead_lettered=0,
        board=board,
        latest=None,
        dead_letters={Reason.EMPTY: 3},
    )
