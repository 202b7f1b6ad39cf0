//! Sums of linear models.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Writes to `totals`, for each row of `rows` (rows by weights): its values times `weights` from left to right, then the
/// intercept, rounding after each step. That gives the same bits on every processor, for any number of rows.
/// Returns false if a value is infinite; the totals are then meaningless.
#[pyfunction]
pub fn weighted_sums(
    py: Python<'_>,
    rows: PyBuffer<f64>,
    weights: PyBuffer<f64>,
    intercept: f64,
    totals: PyBuffer<f64>,
) -> PyResult<bool> {
    let (Some(values), Some(weights), Some(totals)) =
        (rows.as_slice(py), weights.as_slice(py), totals.as_mut_slice(py))
    else {
        return Err(PyValueError::new_err("rows, weights, totals: must be C-contiguous"));
    };
    if weights.is_empty() || values.len() != weights.len() * totals.len() {
        return Err(PyValueError::new_err(
            "rows: must have a column for each weight and a row for each total",
        ));
    }
    let mut largest = 0.0_f64;
    for (row, total) in values.chunks_exact(weights.len()).zip(totals) {
        // Don't start from 0: that would turn a first term of -0 into 0.
        let mut sum = row[0].get() * weights[0].get();
        largest = largest.max(row[0].get().abs());
        for (value, weight) in row[1..].iter().zip(&weights[1..]) {
            sum += value.get() * weight.get();
            largest = largest.max(value.get().abs());
        }
        total.set(sum + intercept);
    }
    Ok(largest.is_finite())
}
