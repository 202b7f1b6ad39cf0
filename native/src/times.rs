//! RFC 3339 with a zone, by the grammar of the contract.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1440 * MINUTE;
/// The days from 0000-03-01 to 1970-01-01.
const BEFORE_1970: i64 = 719_468;

/// A time's parts, which are those of a calendar; second 60 is a leap second.
struct Time {
    year: u32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    /// Below a microsecond it is cut off.
    fraction: i64,
    /// East of UTC.
    minutes_ahead: i64,
}

/// The year, if `text` is a time. Second 60 is a leap second, and the 29th of February needs a leap year.
pub fn year_of(text: &[u8]) -> Option<u32> {
    Some(time_of(text)?.year)
}

/// Write to `found` the microseconds since 1970 of each time in `texts`. Returns the rows left to the Python code, where
/// `found` is meaningless: what is no time, and what Python's calendar does not have.
#[pyfunction]
pub fn microseconds<'py>(
    py: Python<'py>,
    texts: &Bound<'py, PyList>,
    found: PyBuffer<f64>,
) -> PyResult<Vec<usize>> {
    let cells = found.as_mut_slice(py).filter(|cells| cells.len() == texts.len());
    let cells = cells.ok_or_else(|| PyValueError::new_err("found: must have a cell for each text"))?;
    let mut left = Vec::new();
    for (row, (text, cell)) in texts.iter().zip(cells).enumerate() {
        let text = text.cast::<PyString>().ok().and_then(|text| text.to_str().ok());
        match text.and_then(|text| time_of(text.as_bytes())?.microseconds()) {
            #[allow(clippy::cast_precision_loss)] // as Python rounds
            Some(found) => cell.set(found as f64),
            None => left.push(row),
        }
    }
    Ok(left)
}

impl Time {
    /// Since 1970. None of what Python's calendar does not have.
    fn microseconds(&self) -> Option<i64> {
        (self.year >= 1 && self.second <= 59).then_some(())?;
        let minutes = i64::from(self.hour * 60 + self.minute) - self.minutes_ahead;
        let seconds = i64::from(self.second) * 1_000_000 + self.fraction;
        Some(self.days() * DAY + minutes * MINUTE + seconds)
    }

    /// Since 1970, in the Gregorian calendar. Years begin in March, so that the leap day is their last.
    fn days(&self) -> i64 {
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let month = i64::from((self.month + 9) % 12);
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        365 * year + leap_days + (153 * month + 2) / 5 + i64::from(self.day) - 1 - BEFORE_1970
    }
}

fn time_of(text: &[u8]) -> Option<Time> {
    let &[y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T' | b't', ref rest @ ..] = text else { return None };
    let (year, month, day) = (pair(y0, y1)? * 100 + pair(y2, y3)?, pair(m0, m1)?, pair(d0, d1)?);
    (day >= 1 && day <= days(year, month)).then_some(())?;
    let &[h0, h1, b':', n0, n1, b':', s0, s1, ref rest @ ..] = rest else { return None };
    let (hour, minute, second) = (pair(h0, h1)?, pair(n0, n1)?, pair(s0, s1)?);
    (hour <= 23 && minute <= 59 && second <= 60).then_some(())?;
    let (fraction, rest) = fraction(rest)?;
    Some(Time { year, month, day, hour, minute, second, fraction, minutes_ahead: zone(rest)? })
}

fn pair(tens: u8, ones: u8) -> Option<u32> {
    (tens.is_ascii_digit() && ones.is_ascii_digit())
        .then(|| u32::from(tens - b'0') * 10 + u32::from(ones - b'0'))
}

fn days(year: u32, month: u32) -> u32 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 0,
    }
}

/// The microseconds of a fraction of a second, if there is one, and what comes after it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(fraction) = text.strip_prefix(b".") else { return Some((0, text)) };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (mut microseconds, mut unit) = (0, 100_000);
    for digit in &fraction[..digits] {
        microseconds += i64::from(digit - b'0') * unit;
        unit /= 10;
    }
    (digits > 0).then(|| (microseconds, &fraction[digits..]))
}

/// The minutes that a zone is ahead of UTC.
fn zone(text: &[u8]) -> Option<i64> {
    match *text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (pair(h0, h1)?, pair(m0, m1)?);
            (hours <= 23 && minutes <= 59).then_some(())?;
            let ahead = i64::from(hours * 60 + minutes);
            Some(if sign == b'-' { -ahead } else { ahead })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{time_of, year_of};

    #[test]
    fn times_of_the_grammar() {
        for text in ["2026-01-05T08:30:00Z", "0000-02-29t23:59:60.5z", "2000-02-29T00:00:00.123456789-23:59"]
        {
            assert_eq!(year_of(text.as_bytes()), text[..4].parse().ok(), "{text}");
        }
        for text in
            ["", "2026-01-05", "2100-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-05T08:30:00.Z"]
        {
            assert_eq!(year_of(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn microseconds_since_1970() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59.999999Z", Some(-1)),
            ("2000-03-01T00:00:00.1234567+01:30", Some(951_863_400_123_456)),
            ("0001-01-01T00:00:00Z", Some(-62_135_596_800_000_000)),
            ("0000-01-01T00:00:00Z", None),
            ("2026-01-05T08:30:60Z", None),
        ] {
            assert_eq!(time_of(text.as_bytes()).and_then(|time| time.microseconds()), expected, "{text}");
        }
    }
}
