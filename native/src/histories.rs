//! What a result tells of its patient's history.

use pyo3::buffer::{PyBuffer, ReadOnlyCell};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

const MICROSECONDS_PER_HOUR: f64 = 3_600_000_000.0;
/// Hours have four decimals.
const PARTS: u64 = 10_000;

/// What is known of the patient at each row: the rows seen and the microseconds since the first; the microseconds since
/// each column's last value, NaN where there is none; for how many each column's is carried forward; and the columns' names
/// as JSON, with a colon behind.
#[derive(FromPyObject)]
pub struct Histories<'py>(PyBuffer<f64>, PyBuffer<f64>, PyBuffer<f64>, Vec<Bound<'py, PyBytes>>);

/// The same, read.
pub struct Told<'a> {
    seen: &'a [ReadOnlyCell<f64>],
    ages: &'a [ReadOnlyCell<f64>],
    limits: &'a [ReadOnlyCell<f64>],
    names: Vec<&'a [u8]>,
}

impl<'py> Histories<'py> {
    pub fn read<'a>(&'a self, py: Python<'a>) -> PyResult<Told<'a>> {
        let Self(seen, ages, limits, names) = self;
        let (Some(seen), Some(ages), Some(limits)) =
            (seen.as_slice(py), ages.as_slice(py), limits.as_slice(py))
        else {
            return Err(PyValueError::new_err("seen, ages, limits: must be C-contiguous"));
        };
        if names.is_empty() || names.len() != limits.len() || ages.len() * 2 != seen.len() * names.len() {
            return Err(PyValueError::new_err(
                "ages: must have a row for each of seen and a column for each name",
            ));
        }
        Ok(Told { seen, ages, limits, names: names.iter().map(|name| name.as_bytes()).collect() })
    }
}

impl Told<'_> {
    pub fn rows(&self) -> usize {
        self.seen.len() / 2
    }

    /// A JSON object: the rows seen, the hours since the first, and the hours since the last value of each column that
    /// was carried forward.
    pub fn write(&self, row: usize, text: &mut Vec<u8>) {
        text.extend_from_slice(b"{\"rows_seen\":");
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count
        whole(text, self.seen[2 * row].get() as u64);
        text.extend_from_slice(b",\"hours_since_first_seen\":");
        hours(text, self.seen[2 * row + 1].get());
        text.extend_from_slice(b",\"carried_forward\":{");
        let begin = text.len();
        let ages = &self.ages[row * self.names.len()..][..self.names.len()];
        for ((age, limit), name) in ages.iter().zip(self.limits).zip(&self.names) {
            if age.get() > 0.0 && age.get() <= limit.get() {
                if text.len() > begin {
                    text.push(b',');
                }
                text.extend_from_slice(name);
                hours(text, age.get());
            }
        }
        text.extend_from_slice(b"}}");
    }
}

/// Rounded as `numpy.round` does, and written as orjson does; microseconds are not negative, and no more than a calendar
/// has. By hand, because `write!` takes most of a result's time.
fn hours(text: &mut Vec<u8>, microseconds: f64) {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let parts = (microseconds / MICROSECONDS_PER_HOUR * PARTS as f64).round_ties_even() as u64;
    whole(text, parts / PARTS);
    text.push(b'.');
    let (mut rest, mut one) = (parts % PARTS, PARTS / 10);
    loop {
        text.push(digit(rest / one));
        rest %= one;
        if rest == 0 {
            return;
        }
        one /= 10;
    }
}

fn whole(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut begin = digits.len();
    loop {
        begin -= 1;
        digits[begin] = digit(number % 10);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[begin..]);
}

#[allow(clippy::cast_possible_truncation)] // it is below 10
fn digit(value: u64) -> u8 {
    b'0' + value as u8
}

#[cfg(test)]
mod tests {
    use super::hours;

    #[test]
    fn hours_have_up_to_four_decimals() {
        for (microseconds, expected) in [
            (0.0, "0.0"),
            (360_000.0, "0.0001"),
            (179_999.0, "0.0"),
            (9e9, "2.5"),
            (36_036_000_000.0, "10.01"),
            (3_636_360_000.0, "1.0101"),
            (440_640_000_000_000.0, "122400.0"),
        ] {
            let mut text = Vec::new();
            hours(&mut text, microseconds);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }
}
