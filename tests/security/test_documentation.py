"""docs/rights.md and docs/security.md agree with the code and with what the other tests try."""

import re
from itertools import groupby
from pathlib import Path

import pytest

from broker.cautions import cautions
from broker.rights import RIGHTS, Right
from broker.settings import Settings, load_settings
from tests.consumer.processes import ROOT

RIGHTS_TEXT = (ROOT / "docs" / "rights.md").read_text()
TEXT = (ROOT / "docs" / "security.md").read_text()


def test_the_table_of_rights_in_the_docs_is_the_tested_one() -> None:
    written = [line for line in RIGHTS_TEXT.splitlines() if re.match(r"\| `[a-z -]+` \| [A-Z_]+ \|", line)]
    assert written == [line for command, rights in RIGHTS.items() for line in _lines(command, rights)]


def _lines(command: str, rights: tuple[Right, ...]) -> list[str]:
    defaults = Settings()
    lines = []
    for (operation, kind, prefixed, optional), same in groupby(
        rights, lambda one: (one.operation, one.kind, one.prefixed, one.optional)
    ):
        names = ", ".join(f"`{one.name(defaults)}`" for one in same) + (" (prefix)" if prefixed else "")
        end = "optional |" if optional else "|"
        lines.append(f"| `{command}` | {operation} | {kind} | {names} | {end}")
    return lines


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL))
def test_the_example_configurations_load_and_are_safe(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VITALSTREAM_BOOTSTRAP_SERVERS", raising=False)
    config = tmp_path / "vitalstream.toml"
    config.write_text(example)
    settings = load_settings(config=config)
    assert settings.kafka["security.protocol"].endswith("SSL")
    assert cautions(settings) == []
