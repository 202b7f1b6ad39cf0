"""Everything in a release that must agree with the version."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION: str = PYPROJECT["project"]["version"]


def test_the_changelog_has_this_version_and_its_tag_command() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(VERSION)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)
    assert f"git tag --annotate v{VERSION} " in changelog


def test_image_and_chart_have_this_version() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert services["worker"]["image"] == f"vitalstream:{VERSION}"
    chart = yaml.safe_load((ROOT / "ops" / "helm" / "vitalstream" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


@pytest.mark.parametrize("package", PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
def test_every_package_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


def test_the_hosted_workflow_runs_the_same_as_ci_here() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    commands = {step.get("run") for job in workflow["jobs"].values() for step in job["steps"]}
    assert {".ci/run", "make wheel", "docker build --tag vitalstream ."} <= commands
    assert workflow["permissions"] == {"contents": "read"}


def test_hooks_run_the_same_as_lint() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = {hook["entry"] for repo in config["repos"] for hook in repo["hooks"]}
    assert entries == {".venv/bin/ruff check --fix", ".venv/bin/ruff format", ".venv/bin/mypy"}
