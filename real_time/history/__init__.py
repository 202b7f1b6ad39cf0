"""A patient's past as features of a model: the same bits for a file at once and for a stream in chunks."""

from real_time.history.patients import Past, Patients
from real_time.history.recipe import HistoryError, Window
from real_time.history.transformer import PatientHistory

__all__ = ["HistoryError", "Past", "PatientHistory", "Patients", "Window"]
