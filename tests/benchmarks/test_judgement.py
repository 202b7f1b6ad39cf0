"""How a benchmark run judges its contenders: the check of results, the goals, the tables, the comparison."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import contender as c
from benchmarks import quick, tables
from benchmarks.fitted import LR, LR_FULL, LR_SMALL
from benchmarks.goals import goals, state_goals
from benchmarks.results import Results


def results(probabilities: list[float]) -> Results:
    """The results as read when each message has exactly one."""
    found = Results(len(probabilities))
    found.probability[:] = probabilities
    found.appended_at[:] = 1.0
    found.read = len(probabilities)
    return found


def runs(**rates: float) -> list[dict[str, Any]]:
    return [
        {
            "contender": name,
            "model": LR,
            "chunk": 100,
            "round": number,
            "rows_per_s": rate * (1 + number),
            "peak_mb": 250.0,
        }
        for name, rate in rates.items()
        for number in range(3)
    ]


def record(**rates: float) -> dict[str, Any]:
    limit = [
        {"contender": c.PASS.name, "model": LR, "chunk": 1000, "round": n, "rows_per_s": 100.0 * (1 + n)}
        for n in range(3)
    ]
    return {"throughput": [*limit, *runs(**rates)]}


def test_complete_and_equal_results_are_exact() -> None:
    assert results([0.1, 0.2]).verdict(np.array([0.1, 0.2])) == "exact"


def test_each_kind_of_wrong_result_is_counted() -> None:
    found = results([0.1, 0.2, 0.3])
    found.appended_at[0] = np.nan  # no result
    found.probability[1] += 1e-8
    found.read = 4  # two results for the second message, and one for no message
    found.foreign = 1
    assert found.verdict(np.array([0.1, 0.2, 0.3])) == "1 missing, 1 doubled, 1 invented, 1 different"


def test_a_missing_probability_counts_as_different() -> None:
    assert results([np.nan]).verdict(np.array([0.1])) == "1 different"


@pytest.mark.parametrize(("rate", "word"), [(60.0, "met"), (50.0, "**missed**")])
def test_a_goal_is_a_ratio_within_rounds(rate: float, word: str) -> None:
    wanted = "LR, chunk 100, of pass-through"
    goal = next(one for one in goals(record(vitalstream=rate)) if one.what == wanted)
    assert goal.found == pytest.approx(rate / 100)
    assert goal.word == word


def test_a_history_is_compared_with_the_same_worker_without_one() -> None:
    runs = [
        {"contender": c.WORKER.name, "model": model, "chunk": 100, "round": 0, "rows_per_s": rate}
        for model, rate in ((LR, 100.0), (LR_SMALL, 61.0), (LR_FULL, 34.0))
    ]
    found = [*state_goals({"state": {"throughput": runs}})]
    assert [goal.word for goal in found if goal.found is not None] == ["met", "**missed**"]


def test_a_goal_not_measured_is_neither_met_nor_missed() -> None:
    assert {goal.word for goal in goals({})} == {"not measured"}


def test_rates_that_fell_by_more_than_a_fifth_are_named() -> None:
    rows = quick.compare(record(vitalstream=47.0), record(vitalstream=60.0))
    assert [row[3] for row in rows if row[0].startswith("LR, chunk 100,")] == ["worse by 22%"]
    rows = quick.compare(record(vitalstream=49.0), record(vitalstream=60.0))
    assert [row[3] for row in rows if row[0].startswith("LR, chunk 100,")] == [""]


def test_tables_replace_the_text_between_their_markers(tmp_path: Path) -> None:
    doc = tmp_path / "doc.md"
    doc.write_text("before\n<!-- bench: coordinator -->\nold\n<!-- /bench -->\nafter\n")
    measured = {"coordinator": [{"processes": 2, "transactions_per_s": 300.0}]}
    for _ in range(2):
        assert tables.write(measured, [doc]) == []
        lines = doc.read_text().splitlines()
        assert "| 2 | 300 | 150 |" in lines
        assert (lines[0], lines[-1]) == ("before", "after")
        assert "old" not in lines


def test_a_table_without_figures_stays_unchanged(tmp_path: Path) -> None:
    doc = tmp_path / "doc.md"
    doc.write_text("<!-- bench: backlog -->\nold\n<!-- /bench -->\n")
    assert tables.write({}, [doc]) == ["backlog"]
    assert "old" in doc.read_text()


def test_every_table_has_one_place_in_the_docs() -> None:
    root = Path(__file__).parents[2]
    places = re.compile(r"<!-- bench: (\w+) -->")
    marked = [name for page in tables.DOCS for name in places.findall((root / page).read_text())]
    assert sorted(marked) == sorted(tables.TABLES)
    written = {path for path in root.glob("docs/*.md") if places.search(path.read_text())}
    assert written == {root / page for page in tables.DOCS}


def test_a_contender_that_did_not_run_says_why() -> None:
    failed = {"contender": c.SPARK.name, "model": LR, "chunk": 1000, "round": 0, "why": "no Java"}
    assert tables.throughput({"throughput": [failed]})[-1][-1] == "did not run: no Java"


def test_every_contenders_lines_are_counted_without_imports() -> None:
    assert c.WORKER.lines == 1
    assert all(5 < one.lines < 60 for one in (c.NAIVE, c.TEXTBOOK, *c.PEERS))
