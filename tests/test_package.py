"""The wheel, installed into an empty environment, and how little the command imports at its start."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UV = Path(sys.executable).with_name("uv")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment that holds only the wheel and its locked dependencies."""
    where = tmp_path_factory.mktemp("wheel")
    python = where / "env" / "bin" / "python"
    install = (UV, "pip", "install", "--quiet", "--python", python)
    run(
        UV,
        "build",
        "--quiet",
        "--wheel",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        where,
        ROOT,
        cwd=where,
    )
    run(UV, "venv", "--quiet", "--python", sys.executable, where / "env", cwd=where)
    run(*install, "--require-hashes", "-r", ROOT / "requirements.txt", cwd=where)
    (wheel,) = where.glob("*.whl")
    run(*install, "--no-deps", wheel, cwd=where)
    return python.parent


def test_the_command_works_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    assert "consume" in run(installed / "vitalstream", "--help", cwd=tmp_path).stdout
    run(installed / "vitalstream", "model", "demo", "m.joblib", cwd=tmp_path)
    assert "heart_rate" in run(installed / "vitalstream", "model", "inspect", "m.joblib", cwd=tmp_path).stdout


def test_the_wheel_contains_the_schemas(installed: Path, tmp_path: Path) -> None:
    code = "from schemas import load_schema; print(load_schema('vitals')['title'])"
    assert run(installed / "python", "-c", code, cwd=tmp_path).stdout.strip() == "Vitals"


@pytest.mark.parametrize("arguments", [(), ("consume",), ("model", "inspect"), ("topics", "create")])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    command = (sys.executable, "-X", "importtime", "-m", "vitalstream", *arguments, "--help")
    imported = run(*command, cwd=ROOT).stderr
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in imported.splitlines()}
    assert "typer" in modules
    assert not modules & {"pandas", "sklearn", "numpy", "pyarrow", "scipy", "confluent_kafka"}
