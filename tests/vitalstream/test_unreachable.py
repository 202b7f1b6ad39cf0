"""Each command that connects says in one sentence that its brokers' host name does not resolve."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from tests.consumer.conftest import save
from tests.consumer.models import Fragile
from tests.vitalstream.command import Running

# A name with an empty label is refused without asking a name server, which may take longer than the commands
# wait.
NOWHERE = "no-such-kafka..invalid"
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "consume": ("consume", "--model", "{folder}/m.joblib"),
    "consume --workers": ("consume", "--model", "{folder}/m.joblib", "--workers", "2"),
    "replay": ("replay", "{folder}/rows.csv"),
    "publish": ("publish",),
    "watch": ("watch",),
    "status": ("status",),
    "audit": ("audit",),
    "topics create": ("topics", "create"),
    "topics check": ("topics", "check"),
    "dead-letters list": ("dead-letters", "list"),
    "dead-letters show": ("dead-letters", "show", "0", "0"),
    "dead-letters replay": ("dead-letters", "replay"),
    "sweep --kafka": ("sweep", "--kafka", "--model", "{folder}/m.joblib", "--data", "{folder}/rows.csv"),
    "demo": ("demo",),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """All of them, started at once, because they mostly wait."""
    folder = tmp_path_factory.mktemp("unreachable")
    save(Fragile(), folder / "m.joblib")
    (folder / "rows.csv").write_text("patient_id,event_time,signal,spo2\np,2026-01-05T08:30:00Z,1,98\n")
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                Running(
                    *(word.format(folder=folder) for word in words),
                    *("--bootstrap-servers", f"{NOWHERE}:9092"),
                )
            )
            for name, words in COMMANDS.items()
        }


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_the_host_that_does_not_resolve(command: str, running: dict[str, Running]) -> None:
    process = running[command]
    assert process.end(timeout=120) == 1, process.err
    told = [line for line in process.err.splitlines() if line.startswith("vitalstream: ")]
    assert len(told) == 1, process.err
    assert told[0].endswith(
        f": the host name {NOWHERE} does not resolve; check --bootstrap-servers (vitalstream broker starts "
        "a local Kafka)"
    )
    assert "Traceback" not in process.err
