"""The notebook in examples/, executed on a real Kafka."""

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from broker.settings import ENV_PREFIX
from tests.conftest import fresh_settings

ROOT = Path(__file__).parent.parent.parent
NOTEBOOK = ROOT / "examples" / "from-file-to-worker.ipynb"
TOPICS_AND_GROUP = (
    "bootstrap_servers",
    "input_topic",
    "output_topic",
    "metrics_topic",
    "dead_letter_topic",
    "group",
)


def text(notebook: Any) -> str:
    """The text that its cells print."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


@pytest.mark.kafka
def test_the_notebook_runs_from_file_to_worker(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = fresh_settings(kafka)
    for name in TOPICS_AND_GROUP:
        monkeypatch.setenv(ENV_PREFIX + name.upper(), getattr(settings, name))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    assert not text(notebook), "the notebook is stored without its outputs"
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "clean: " in text(notebook)
    assert not [*tmp_path.iterdir()]
