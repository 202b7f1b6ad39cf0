"""Tables and counts as reports print them."""

from collections.abc import Collection
from typing import Final

import typer
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table

_WIDTH: Final = 250
"""Where there is no terminal to tell its own."""


def make_table(*names: str, right: Collection[str] = (), folds: str = "") -> Table:
    """A table with these columns, some flush right. Where there is no room, `folds` alone takes several lines."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        justify: JustifyMethod = "right" if name in right else "left"
        table.add_column(name, justify=justify, no_wrap=name != folds, overflow="fold")
    return table


def at_most(count: int, *, exact: bool) -> str:
    """A count as a report says it."""
    return f"{count:,}" if exact else f"at most {count:,}"


def print_table(table: Table) -> None:
    """On stdout, with an empty line after it. Texts are printed as they are: brackets and colons mean nothing."""
    width = None if Console().is_terminal else _WIDTH
    console = Console(width=width, markup=False, emoji=False)
    console.print(table)
    typer.echo()
