"""Patients ranked by their current risk, and how a risk is drawn."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from schemas.contract import MAX_PATIENT_ID
from schemas.printable import printable
from schemas.results import RiskResult

OLDEST: Final = 20
"""The columns that the oldest value takes."""
STEADY: Final = 0.02
"""The trend arrow treats a smaller change as none."""

_HISTORY = 32
_BLOCKS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86_400, 365 * 86_400


@dataclass
class PatientRisk:
    """A patient's latest result, when it was published (Unix seconds), and the last risks, oldest first."""

    result: RiskResult
    at: float
    history: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY))

    @property
    def risk(self) -> float | None:
        """The current risk; None if the model gave none."""
        return self.result.risk_probability

    @property
    def direction(self) -> str:
        """How the risk changed since the previous one: `up`, `down`, `steady`, or '' if either is unknown."""
        return "" if self.risk is None else direction(self.history)


class Board:
    """Every patient's latest result."""

    def __init__(self) -> None:
        self._patients: dict[str, PatientRisk] = {}

    def __len__(self) -> int:
        return len(self._patients)

    def add(self, result: RiskResult, at: float) -> PatientRisk:
        """Add a result that was published at `at`, in Unix seconds."""
        patient = self._patients.setdefault(result.patient_id, PatientRisk(result, at))
        patient.result, patient.at = result, at
        if result.risk_probability is not None:
            patient.history.append(result.risk_probability)
        return patient

    def ranked(self, min_risk: float | None = None) -> list[PatientRisk]:
        """Patients by risk, highest first and those without a risk last; only those of at least `min_risk` if given."""
        patients = [one for one in self._patients.copy().values() if reaches(one.result, min_risk)]
        return sorted(patients, key=lambda one: (-_known(one.risk), one.result.patient_id))


def reaches(result: RiskResult, min_risk: float | None) -> bool:
    """Whether the result's risk is at least `min_risk`; always true without one."""
    return min_risk is None or _known(result.risk_probability) >= min_risk


def shortened(text: str, width: int) -> str:
    """Text from a message in at most `width` terminal columns, cut in the middle, because ids differ at their ends."""
    safe = printable(text, MAX_PATIENT_ID)
    if cell_len(safe) <= width:
        return safe
    head, tail = (width - 1) // 2, width // 2
    # Half of a wide character becomes a blank.
    return f"{set_cell_size(safe, head).rstrip()}…{set_cell_size(safe[::-1], tail)[::-1].lstrip()}"


def direction(history: Sequence[float]) -> str:
    """How the latest of these risks changed: `up`, `down`, `steady`, or '' if there is no previous one."""
    if len(history) < 2:  # noqa: PLR2004
        return ""
    change = history[-1] - history[-2]
    if abs(change) < STEADY:
        return "steady"
    return "up" if change > 0 else "down"


def arrow(patient: PatientRisk) -> Text:
    """The direction as an arrow."""
    shapes = {"up": Text("▲", "red"), "down": Text("▼", "green"), "steady": Text("=", "dim"), "": Text(" ")}
    return shapes[patient.direction]


def colour(result: RiskResult) -> str:
    """Red from the threshold upwards, yellow from half of it, otherwise green; dim without a risk."""
    if result.risk_probability is None:
        return "dim"
    if result.risk_label:
        return "bold red"
    return "yellow" if result.risk_probability >= result.threshold / 2 else "green"


def risk_bar(result: RiskResult, width: int) -> Text:
    """The risk as a number and a coloured bar, in at most `width` + 6 columns."""
    if result.risk_probability is None:
        return Text(unscored(result), "dim")
    whole, eighths = divmod(round(min(1.0, max(0.0, result.risk_probability)) * width * 8), 8)
    bar = "█" * whole + (_BLOCKS[eighths] if eighths else "")
    return Text(f"{result.risk_probability:.3f} {bar}", colour(result))


def unscored(result: RiskResult) -> str:
    """Why a result has no risk: the model was not asked, or it gave none."""
    return "no input" if result.no_input else "unknown"


def sparkline(history: Sequence[float], width: int) -> Text:
    """The last `width` risks as columns from 0 to 1."""
    shown = list(history)[-width:] if width else []
    top = len(_LEVELS) - 1
    return Text("".join(_LEVELS[round(min(1.0, max(0.0, risk)) * top)] for risk in shown), "cyan")


def age(seconds: float) -> str:
    """A time span in at most six characters: `3 s`, `12 min`, `5 h`, `9 d`, `2 y`."""
    seconds = max(0.0, seconds)
    for size, unit in ((_YEAR, "y"), (_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds // 1:.0f} s"


def oldest(result: RiskResult) -> Text:
    """The oldest value that was carried forward, in at most `OLDEST` columns: its age and its name."""
    carried = (result.history or {}).get("carried_forward")
    if not carried:
        return Text("")
    name = max(carried, key=carried.__getitem__)
    return Text(f"{age(carried[name] * _HOUR):>6} {shortened(name, OLDEST - 7)}")


def _known(risk: float | None) -> float:
    return -1.0 if risk is None else risk
