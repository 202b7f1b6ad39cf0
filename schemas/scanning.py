"""Decides which messages the native kernel scans: JSON numbers at paths, with known units."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from schemas.contract import EVENT_TIME, PATIENT_ID, Dtypes
from schemas.fields import Path
from schemas.formats.mapped import names_read
from schemas.kernel import native
from schemas.mapping import Mapping
from schemas.times import OUR_YEARS, TimeKind

if TYPE_CHECKING:
    from vitalstream_native import Scanner

_ANY_YEAR: Final = (0, 9999)


def make_scanner(
    features: Sequence[str], mapping: Mapping | None, *, dtypes: Dtypes, max_bytes: int
) -> "Scanner | None":
    """The scanner of a model's messages; None without the kernel, or if it can't scan messages of this shape.

    It converts values that come with units to the model's unit.
    """
    kernel = native()
    if kernel is None or any(name in dtypes for name in features):
        return None
    scanner: Scanner
    if mapping is None:
        names = [PATIENT_ID, EVENT_TIME, *features]
        paths: list[Path | None] = [(name,) for name in names]
        scanner = kernel.Scanner(
            paths, watched=names, units=[], nested=False, years=_ANY_YEAR, max_bytes=max_bytes
        )
    elif _is_plain(mapping, features):
        root = mapping.root or ()
        sources = [mapping.patient_id.path, mapping.event_time.path]
        places = [mapping.features[name] for name in features]
        try:
            scanner = kernel.Scanner(
                [path and (*root, *path) for path in (*sources, *(place.path for place in places))],
                watched=names_read(mapping),
                units=[
                    (number, (*root, *place.unit_path), mapping.conversions(name).known())
                    for number, (name, place) in enumerate(zip(features, places, strict=True))
                    if place.unit_path
                ],
                nested=True,
                years=OUR_YEARS,
                max_bytes=max_bytes,
            )
        except ValueError:  # two read one field
            return None
    else:
        return None
    return scanner


def _is_plain(mapping: Mapping, features: Sequence[str]) -> bool:
    """Whether it reads only texts and numbers at paths through objects."""
    return not (
        mapping.when
        or mapping.retracted
        or mapping.readings
        or mapping.reads_headers
        or mapping.patient_id.integer
        or mapping.event_time.kind is not TimeKind.RFC3339
        or any(mapping.features[name].split for name in features)
        or any(name.isdecimal() for name in names_read(mapping))
    )
