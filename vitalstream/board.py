"""Patients by their current risk, and how a risk is drawn."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from schemas.contract import MAX_PATIENT_ID
from schemas.printable import printable
from schemas.results import RiskResult

STEADY: Final = 0.02
"""Risks that differ by less are the same to the trend arrow."""

_HISTORY = 32
_BLOCKS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"


@dataclass
class PatientRisk:
    """A patient's latest result, when it was published (Unix seconds), and the last risks, oldest first."""

    result: RiskResult
    at: float
    history: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY))

    @property
    def risk(self) -> float | None:
        """The current risk; None where the model gave none."""
        return self.result.risk_probability

    @property
    def direction(self) -> str:
        """Where the current risk went from the one before: `up`, `down`, `steady`, or '' where either is unknown."""
        return "" if self.risk is None else direction(self.history)


class Board:
    """Every patient's latest result."""

    def __init__(self) -> None:
        self._patients: dict[str, PatientRisk] = {}

    def __len__(self) -> int:
        return len(self._patients)

    def add(self, result: RiskResult, at: float) -> PatientRisk:
        """Take in a result that was published at `at`, in Unix seconds."""
        patient = self._patients.setdefault(result.patient_id, PatientRisk(result, at))
        patient.result, patient.at = result, at
        if result.risk_probability is not None:
            patient.history.append(result.risk_probability)
        return patient

    def ranked(self, min_risk: float | None = None) -> list[PatientRisk]:
        """Patients by risk, the highest first, those without one last; only from `min_risk` on if given."""
        patients = [one for one in self._patients.copy().values() if reaches(one.result, min_risk)]
        return sorted(patients, key=lambda one: (-_known(one.risk), one.result.patient_id))


def reaches(result: RiskResult, min_risk: float | None) -> bool:
    """Whether a result has at least this risk; without `min_risk` any has."""
    return min_risk is None or _known(result.risk_probability) >= min_risk


def shortened(text: str, width: int) -> str:
    """Text from a message in at most `width` columns of a terminal, cut in its middle: ids differ at their ends."""
    safe = printable(text, MAX_PATIENT_ID)
    if cell_len(safe) <= width:
        return safe
    head, tail = (width - 1) // 2, width // 2
    # Half of a wide character becomes a blank.
    return f"{set_cell_size(safe, head).rstrip()}…{set_cell_size(safe[::-1], tail)[::-1].lstrip()}"


def direction(history: Sequence[float]) -> str:
    """Where the latest of these risks went: `up`, `down`, `steady`, or '' where there is no former one."""
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
    """Red from the threshold on, yellow from half of it on, else green."""
    if result.risk_probability is None:
        return "dim"
    if result.risk_label:
        return "bold red"
    return "yellow" if result.risk_probability >= result.threshold / 2 else "green"


def risk_bar(result: RiskResult, width: int) -> Text:
    """The risk as a number and a bar of at most `width` characters, in colour: 6 columns more than that."""
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


def _known(risk: float | None) -> float:
    return -1.0 if risk is None else risk
