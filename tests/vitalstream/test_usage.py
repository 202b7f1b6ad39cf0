"""Help and errors of the command line itself."""

from importlib.metadata import version

import pytest

from tests.vitalstream.command import vitalstream


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["replay", "--rate", "x", "f.csv"], "--rate: must be a number"),
        (["replay", "--repeat", "0", "f.csv"], "--repeat: must be at least 1"),
        (["dead-letters", "show", "x", "1"], "PARTITION: must be a whole number"),
        (["replay"], "missing argument 'FILE'"),
        (["consume", "--modell", "x"], "no such option: --modell"),
        (["consum"], "no such command 'consum'"),
    ],
    ids=str,
)
def test_a_wrong_command_line_gives_a_one_line_error(arguments: list[str], told: str) -> None:
    done = vitalstream(*arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"vitalstream: {told}")
    assert not line.endswith(".")


@pytest.mark.parametrize("command", [["consume"], ["audit"], ["dead-letters", "replay"]], ids=str)
def test_help_shows_brackets(command: list[str]) -> None:
    text = " ".join(vitalstream(*command, "--help").stdout.split())
    assert "feature = [lowest, highest]" in text


def test_help_fills_its_lines_and_shows_defaults_in_one_style() -> None:
    text = vitalstream("replay", "--help").stdout
    assert ".jsonl" in text
    assert "[default: vitals]" in text
    assert "[default: plain]" in text
    assert "(default" not in text
    assert "  Files in the plain format" in text  # a separate paragraph, filled rather than one line each


def test_a_group_without_a_command_shows_its_help() -> None:
    done = vitalstream("topics")
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: ")


def test_the_version_is_printed() -> None:
    done = vitalstream("--version")
    assert (done.returncode, done.stdout) == (0, f"vitalstream {version('vitalstream')}\n")


@pytest.mark.parametrize("command", [[], ["replay"], ["topics"], ["topics", "create"]], ids=str)
def test_h_is_help(command: list[str]) -> None:
    short, long = vitalstream(*command, "-h"), vitalstream(*command, "--help")
    assert (short.returncode, short.stdout) == (0, long.stdout)
    assert short.stdout.startswith("Usage: ")
