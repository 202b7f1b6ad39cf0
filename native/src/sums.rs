//! Sums of linear models.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// How one feature becomes a term of the sum.
struct Term {
    /// What a missing value is replaced by.
    fill: f64,
    center: f64,
    scale: f64,
    weight: f64,
}

/// The sums of a linear model, which imputes and scales its features first.
#[pyclass(frozen, module = "vitalstream_native")]
pub struct LinearSums {
    terms: Vec<Term>,
    intercept: f64,
}

#[pymethods]
impl LinearSums {
    /// A fill of NaN, a center of 0 and a scale of 1 leave a feature as it is.
    #[new]
    fn new(
        fill: Vec<f64>,
        center: Vec<f64>,
        scale: Vec<f64>,
        weights: Vec<f64>,
        intercept: f64,
    ) -> PyResult<Self> {
        let features = weights.len();
        if features == 0 || [&fill, &center, &scale].iter().any(|one| one.len() != features) {
            return Err(PyValueError::new_err("fill, center, scale: must have a value for each weight"));
        }
        let terms = (0..features)
            .map(|n| Term { fill: fill[n], center: center[n], scale: scale[n], weight: weights[n] })
            .collect();
        Ok(Self { terms, intercept })
    }

    /// Writes to `totals`, for each row of `rows` (rows by features): its values, filled, less the center, over the
    /// scale, times the weights, from left to right, then the intercept, rounding after each step. That gives the same
    /// bits on every processor, for any number of rows. Returns false if a value is infinite; the totals are then
    /// meaningless.
    fn sum(&self, py: Python<'_>, rows: PyBuffer<f64>, totals: PyBuffer<f64>) -> PyResult<bool> {
        let (Some(values), Some(totals)) = (rows.as_slice(py), totals.as_mut_slice(py)) else {
            return Err(PyValueError::new_err("rows, totals: must be C-contiguous"));
        };
        if values.len() != self.terms.len() * totals.len() {
            return Err(PyValueError::new_err(
                "rows: must have a column for each weight and a row for each total",
            ));
        }
        let mut largest = 0.0_f64;
        for (row, total) in values.chunks_exact(self.terms.len()).zip(totals) {
            // Not +0: that would turn a first term of -0 into 0.
            let mut sum = -0.0;
            for (value, term) in row.iter().zip(&self.terms) {
                let value = value.get();
                let filled = if value.is_nan() { term.fill } else { value };
                let scaled = (filled - term.center) / term.scale;
                largest = largest.max(scaled.abs());
                sum += scaled * term.weight;
            }
            total.set(sum + self.intercept);
        }
        Ok(largest.is_finite())
    }
}
