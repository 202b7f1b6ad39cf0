"""mkdocs hooks: pages from outside docs/ or made from the code, and links that leave docs/."""

import json
import posixpath
import re
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

import real_time

ROOT: Final = Path(__file__).parent.parent
ELSEWHERE: Final = {
    "index.md": "README.md",
    "examples.md": "examples/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security-policy.md": "SECURITY.md",
}
"""Pages of the site, by their path in the repository."""

_LINK: Final = re.compile(r"\[([^\]]*)\]\(([^):#\s]+)(#[^)\s]*)?\)")  # not a link to another site


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/, and the files of the repository that pages link to."""
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for path in sorted({path for page in files.documentation_pages() for path in _linked(page)}):
        files.append(File.generated(config, f"repository/{path}", abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, "reference/command-line.md", content=_command_line()))
    files.append(File.generated(config, "reference/python.md", content=_python()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to their targets on the site; a link to a folder becomes its text."""
    uri = page.file.src_uri

    def moved(link: re.Match[str]) -> str:
        text, target, anchor = link.groups(default="")
        path = _in_repository(uri, target)
        if (ROOT / path).is_dir():
            return text
        return f"[{text}]({posixpath.relpath(_on_site(path), posixpath.dirname(uri) or '.')}{anchor})"

    return markdown if uri.startswith("reference/") else _LINK.sub(moved, markdown)


def _linked(page: File) -> Iterator[str]:
    """The files of the repository that a page links to and that are not pages."""
    for _, target, _ in _LINK.findall(page.content_string):
        path = _in_repository(page.src_uri, target)
        if _on_site(path).startswith("repository/") and (ROOT / path).is_file():
            yield path


def _in_repository(uri: str, target: str) -> str:
    folder = posixpath.dirname(ELSEWHERE.get(uri, f"docs/{uri}"))
    return posixpath.normpath(posixpath.join(folder, target))


def _on_site(path: str) -> str:
    for page, source in ELSEWHERE.items():
        if path == source:
            return page
    return path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"


def _command_line() -> str:
    """Every command's help, from typer."""
    command = [sys.executable, "-m", "typer", "vitalstream.cli", "utils", "docs", "--name", "vitalstream"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    title = "# Command line\n\n"
    return title + "\n".join(map(_without_tags, made.splitlines()[1:]))


def _without_tags(line: str) -> str:
    """Escape `<NAME>` as text unless it is code anyway."""
    parts = line.split("`")
    return "`".join(part if number % 2 else escape(part, quote=False) for number, part in enumerate(parts))


def _python() -> str:
    """The public names of `real_time`: functions first, errors last."""
    names = sorted(
        real_time.__all__, key=lambda name: (name.endswith(("Error", "Warning")), not name.islower())
    )
    title = "# Python\n\nScoring without Kafka. These functions return what a worker publishes."
    options = f"    options:\n      members: {json.dumps(names)}"
    return f"{title}\n\n::: real_time\n{options}\n\n::: real_time.history\n"
