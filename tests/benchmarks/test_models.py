"""The table of model kinds in docs/model-costs.md."""

from pathlib import Path

from benchmarks.kinds import UNFITTED
from benchmarks.models import DOC, write


def test_the_documentation_has_a_row_for_each_kind() -> None:
    """If this fails, run `make models`."""
    rows = [line.split(" | ") for line in DOC.read_text(encoding="utf-8").splitlines()]
    assert {*UNFITTED} <= {row[0].removeprefix("| ") for row in rows if len(row) == 8}


def test_the_table_is_written_between_its_markers(tmp_path: Path) -> None:
    doc = tmp_path / "models.md"
    doc.write_text("before\n\n<!-- make models -->\nold\n<!-- /make models -->\n\nafter\n")
    write([["kind", "path"], ["LR", "the linear model's arithmetic"]], source="simulated", doc=doc)
    text = doc.read_text()
    assert "| LR | the linear model's arithmetic |" in text
    assert text.startswith("before\n\n<!-- make models -->\n")
    assert text.endswith("<!-- /make models -->\n\nafter\n")
    assert "old" not in text
