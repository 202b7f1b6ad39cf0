"""Which messages the native kernel scans: flat JSON of numbers, also with fields of other names."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from schemas.contract import EVENT_TIME, PATIENT_ID, Dtypes
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
    """What scans a model's messages; None without the kernel, or where messages are of a shape that it can't scan."""
    kernel = native()
    names = [PATIENT_ID, EVENT_TIME, *features] if mapping is None else _renamed(features, mapping)
    if kernel is None or names is None or any(name in dtypes for name in features):
        return None
    others = () if mapping is None else names_read(mapping)
    scanner: Scanner = kernel.Scanner(
        [*dict.fromkeys([*names, *others])],
        features=len(features),
        nested=mapping is not None,
        years=_ANY_YEAR if mapping is None else OUR_YEARS,
        max_bytes=max_bytes,
    )
    return scanner


def _renamed(features: Sequence[str], mapping: Mapping) -> list[str] | None:
    """The fields of patient, time and features; None where a mapping does more than to name fields and units."""
    places = [mapping.features[name] for name in features]
    if (
        mapping.root
        or mapping.when
        or mapping.retracted
        or mapping.readings
        or mapping.patient_id.integer
        or mapping.event_time.kind is not TimeKind.RFC3339
        or any(place.split or place.unit_path for place in places)
    ):
        return None
    paths = [mapping.patient_id.path, mapping.event_time.path, *(place.path for place in places)]
    names = [path[0] for path in paths if path is not None and len(path) == 1]
    return names if len({*names}) == len(paths) else None
