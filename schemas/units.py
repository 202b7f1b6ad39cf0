"""Units: a closed table of UCUM codes, and the conversion from a sender's unit to the model's.

UCUM is case-sensitive: `F` is farad and not a temperature, `mmHg` does not exist. Senders' own words are known only if
a mapping says what they mean.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from schemas.contract import FEATURES

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


class Affine(NamedTuple):
    """`(value - zero) * factor` is in another unit: 98.6 °F minus 32, times 5/9."""

    factor: float
    zero: float = 0.0


SAME: Final = Affine(1.0)

# By kind of quantity, the conversion from each UCUM code to the first one.
_KINDS: Final[tuple[dict[str, Affine], ...]] = (
    {"/min": SAME, "1/min": SAME, "min-1": SAME, "Hz": Affine(60), "/s": Affine(60), "/h": Affine(1 / 60)},
    {"Cel": SAME, "[degF]": Affine(5 / 9, 32), "K": Affine(1, 273.15)},
    {"%": SAME, "1": Affine(100)},
    # 1 kPa = 7.50062 mmHg, 1 cmH2O = 0.735559 mmHg (conventional units, NIST SP 811).
    {
        "mm[Hg]": SAME,
        "kPa": Affine(7.50062),
        "hPa": Affine(0.750062),
        "mbar": Affine(0.750062),
        "Pa": Affine(0.00750062),
        "cm[H2O]": Affine(0.735559),
    },
    {"a": SAME, "mo": Affine(1 / 12), "wk": Affine(7 / 365.25), "d": Affine(1 / 365.25)},
    {"mmol/L": SAME, "mol/L": Affine(1000), "umol/L": Affine(0.001)},
    {"g/L": SAME, "g/dL": Affine(10), "mg/dL": Affine(0.01), "mg/L": Affine(0.001)},
    {"kg": SAME, "g": Affine(0.001), "[lb_av]": Affine(0.45359237)},
    {"cm": SAME, "m": Affine(100), "mm": Affine(0.1), "[in_i]": Affine(2.54)},
)

UNITS: Final = frozenset(code for kind in _KINDS for code in kind)
"""All known codes."""

# IEEE 11073 codes of the same units, as devices send them (HL7 PCD-01, FHIR).
_MDC: Final = {
    "264864": "/min",  # MDC_DIM_BEAT_PER_MIN
    "264928": "/min",  # MDC_DIM_RESP_PER_MIN
    "264672": "/min",  # MDC_DIM_PER_MIN
    "268192": "Cel",  # MDC_DIM_DEGC
    "266560": "[degF]",  # MDC_DIM_FAHR
    "262688": "%",  # MDC_DIM_PERCENT
    "266016": "mm[Hg]",  # MDC_DIM_MMHG
    "265987": "kPa",  # MDC_DIM_KILO_PASCAL
}

_UCUM_OF: Final = {"°C": "Cel", "mmHg": "mm[Hg]", "years": "a"}
STANDARD_UNITS: Final = {name: _UCUM_OF.get(one.unit, one.unit) for name, one in FEATURES.items()}
"""The UCUM code of each standard feature's unit."""

NO_VALUE: Final = object()
"""The unit of a value that is missing."""

_NO_TEXT: Final = object()
"""Stands for a unit that is not text."""

_ANNOTATION = re.compile(r"\{[\x21-\x7e]*?\}")


def conversion(unit: str, wanted: str) -> Affine | None:
    """The conversion between two UCUM codes; None if their kinds differ, or one is not in the table."""
    if unit == wanted:
        return SAME
    kind = next((kind for kind in _KINDS if unit in kind and wanted in kind), None)
    if kind is None:
        return None
    there, back = kind[unit], kind[wanted]
    factor = there.factor / back.factor
    return Affine(factor, there.zero - back.zero / factor)


def known_code(unit: str) -> str | None:
    """The table's code for a unit as sent.

    UCUM's annotations mean nothing (`{beats}/min`); `MDC 264864` is a code of IEEE 11073.
    """
    if unit in UNITS:
        return unit
    if unit.startswith("MDC "):
        return _MDC.get(unit[4:])
    bare = _ANNOTATION.sub("", unit)
    return bare if bare in UNITS else None


class Conversions:
    """Converts the units of a feature's values to the one that the model wants.

    `assumed` is the unit of a value without one; None if such a value counts as having an unknown unit.
    `aliases` are the UCUM codes of a sender's own words.
    """

    def __init__(self, wanted: str | None, assumed: str | None, aliases: Mapping[str, str]) -> None:
        self.wanted = wanted
        self._aliases = aliases
        nothing_said = SAME if wanted is None else None
        self._found: dict[str | None, Affine | None] = {
            None: nothing_said if assumed is None else self._of(assumed)
        }

    def __call__(self, unit: object) -> Affine | None:
        """The conversion for a value in this unit; None if the unit is unknown."""
        if unit is not None and not isinstance(unit, str):
            return None
        found = self._found.get(unit)
        if found is None and unit is not None and (found := self._of(unit)) is not None:
            self._found[unit] = (
                found  # unknown units are not remembered, because there may be any number of them
            )
        return found

    def _of(self, unit: str) -> Affine | None:
        code = self._aliases.get(unit) or known_code(unit) or unit
        return SAME if self.wanted is None else conversion(code, self.wanted)

    def known(self) -> dict[str, tuple[float, float]]:
        """The codes and aliases that can be converted, each with its zero and factor."""
        found = {unit: self(unit) for unit in (*UNITS, *self._aliases)}
        return {unit: (way.zero, way.factor) for unit, way in found.items() if way is not None}

    def unknown(self, values: Sequence[Any], units: list[Any]) -> list[int]:
        """The rows that have a value in an unknown unit. Other rows may have any unit.

        Afterwards `units` is as `column` needs it: without lists and objects, and empty if there is nothing to do.
        """
        try:
            kinds = {*units}
        except TypeError:  # lists and objects
            units[:] = [unit if unit is None or type(unit) is str else _NO_TEXT for unit in units]
            kinds = {*units}
        found = {unit: self(unit) for unit in kinds - {NO_VALUE}}
        rows = _with_value(values, units, {unit for unit, affine in found.items() if affine is None})
        if {*found.values()} <= {SAME, None}:
            units.clear()
        return rows

    def column(self, values: Floats, units: Sequence[Any] | None) -> None:
        """Convert values in place; `units` are those sent with them, None if none ever is.

        A number that exceeds a double in the wanted unit becomes infinite.
        """
        kinds = {None} if units is None else {*units}
        found = {unit: affine for unit in kinds if (affine := self(unit)) is not None}
        ways = {*found.values()}
        if ways <= {SAME}:
            return
        factor: Any
        zero: Any
        if len(ways) == 1:  # rows with unknown units have no numbers
            ((factor, zero),) = ways
        else:
            each = [found.get(unit, SAME) for unit in units or ()]
            factor, zero = np.array(each, dtype=np.float64).T
        values -= zero
        with np.errstate(over="ignore"):
            values *= factor


def _with_value(values: Sequence[Any], units: Sequence[Any], unknown: set[Any]) -> list[int]:
    if unknown == {None}:
        together = enumerate(zip(values, units, strict=True))
        return [row for row, (value, unit) in together if unit is None and value is not None]
    return (
        [row for row, unit in enumerate(units) if unit in unknown and values[row] is not None]
        if unknown
        else []
    )
