"""Prints tables and counts for reports."""

from collections.abc import Collection
from typing import Final

import typer
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table

_WIDTH: Final = 250
"""The width where there is no terminal."""


def make_table(*names: str, right: Collection[str] = (), folds: str = "") -> Table:
    """A table with these columns, some right-aligned. If space is short, only the column `folds` is wrapped."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        justify: JustifyMethod = "right" if name in right else "left"
        table.add_column(name, justify=justify, no_wrap=name != folds, overflow="fold")
    return table


def at_most(count: int, *, exact: bool) -> str:
    """A count in the words of a report."""
    return f"{count:,}" if exact else f"at most {count:,}"


def print_table(table: Table) -> None:
    """Print it on stdout, followed by an empty line. Texts are literal: brackets and colons are no markup."""
    width = None if Console().is_terminal else _WIDTH
    console = Console(width=width, markup=False, emoji=False)
    console.print(table)
    typer.echo()
