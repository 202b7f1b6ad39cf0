"""`--format` and what goes with it: the readers of files, for the commands that take them."""

from typing import Final

from broker.errors import SettingsError
from producer import physionet, sources
from producer.sources import Hear, Reader

PLAIN: Final = "plain"
LAYOUTS: Final = (PLAIN, *physionet.FORMATS)


def readers(
    layout: str,
    *,
    all_variables: bool = False,
    keep_going: bool = False,
    on_time: Hear | None = None,
) -> dict[str, Reader]:
    """The readers of a layout by suffix.

    Raises:
        SettingsError: there is no such layout, or it has no use for `all_variables` or `keep_going`.
    """
    if layout not in LAYOUTS:
        raise SettingsError(f"--format: there is no format {layout} (known: {', '.join(LAYOUTS)})")
    if layout == PLAIN:
        if all_variables:
            raise SettingsError("--all-variables: plain files are sent with all their columns; leave it out")
        return sources.tables(keep_going=keep_going, on_time=on_time)
    if keep_going:
        raise SettingsError(f"--keep-going: {layout} files have no event times to pass on; leave it out")
    return (physionet.ALL_VARIABLES if all_variables else physionet.FORMATS)[layout]
