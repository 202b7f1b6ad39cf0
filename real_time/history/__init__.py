"""A patient's past as model features, bit for bit the same for a whole file and for a stream in chunks."""

from real_time.history.patients import Past, Patients
from real_time.history.recipe import HistoryError, Window
from real_time.history.transformer import PatientHistory

__all__ = ["HistoryError", "Past", "PatientHistory", "Patients", "Window"]
