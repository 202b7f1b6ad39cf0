"""Input files and `--format`: how the commands find and read them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import typer

from broker.errors import SettingsError
from producer import physionet, sources
from producer.sources import Hear, Reader, Source
from schemas.contract import STANDARD_FEATURES
from schemas.lookalike import difference, look_alikes

PLAIN: Final = "plain"
_NAMED: Final = 3
LAYOUTS: Final = (PLAIN, *physionet.FORMATS)


def readers(
    layout: str,
    *,
    all_variables: bool = False,
    keep_going: bool = False,
    on_time: Hear | None = None,
) -> dict[str, Reader]:
    """A layout's readers by file suffix.

    Raises:
        SettingsError: there is no such layout, or it does not support `all_variables` or `keep_going`.
    """
    if layout not in LAYOUTS:
        raise SettingsError(f"--format: there is no format {layout} (known: {', '.join(LAYOUTS)})")
    if layout == PLAIN:
        if all_variables:
            raise SettingsError("--all-variables: plain files are sent with all their columns; leave it out")
        return sources.tables(keep_going=keep_going, on_time=on_time)
    if keep_going:
        raise SettingsError(
            f"--keep-going: {layout} files have no event times to send as they are; leave it out"
        )
    return (physionet.ALL_VARIABLES if all_variables else physionet.FORMATS)[layout]


def tell_look_alikes(names: Iterable[str]) -> None:
    """Name on stderr the columns that only look like a standard feature."""
    for name, feature in look_alikes(names, STANDARD_FEATURES):
        typer.echo(
            f"column {name!a} is not {feature}: it has {difference(name, feature)}; a model with {feature} does not "
            "see it; rename the column if they are the same",
            err=True,
        )


def find(files: list[Path], how: dict[str, Reader]) -> Source:
    """The given files and those in given directories; names the skipped ones on stderr.

    Raises:
        SettingsError: a file is missing or has no reader, or no file is left to read.
    """
    source = sources.find_source(files, how)
    if source.left_out:
        names = ", ".join(path.name for path in source.left_out[:_NAMED])
        more = f" and {len(source.left_out) - _NAMED:,} more" if len(source.left_out) > _NAMED else ""
        typer.echo(f"not read: {names}{more}; files to read end in {' or '.join(how)}", err=True)
    return source
