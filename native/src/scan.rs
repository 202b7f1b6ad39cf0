//! Flat JSON messages to numbers, ids and times; whatever is not plain is left to the reference decoder.

use std::cell::Cell;
use std::collections::HashMap;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::cursor::Cursor;
use crate::times::year_of;

/// The longest patient id in bytes; up to here no id has too many characters.
const LONGEST_ID: usize = 128;
/// Of how many fields of a message it is remembered which ones they were in the message before.
const REMEMBERED: usize = 256;

const PATIENT_ID: usize = 0;
const EVENT_TIME: usize = 1;
const FIRST_FEATURE: usize = 2;

/// Scans messages that are flat JSON objects.
#[pyclass(frozen, module = "vitalstream_native")]
pub struct Scanner {
    /// By name the number of a field: patient, time, the features, and others that may not be there twice.
    fields: HashMap<String, usize>,
    features: usize,
    nested: bool,
    years: (u32, u32),
    max_bytes: usize,
}

#[pymethods]
impl Scanner {
    /// `names` are those of patient, time and `features` features, and others that may not be there twice; with
    /// `nested` not in the objects inside of a message either. Times are within `years`, first and last.
    #[new]
    #[pyo3(signature = (names, *, features, nested, years, max_bytes))]
    fn new(
        names: Vec<String>,
        features: usize,
        nested: bool,
        years: (u32, u32),
        max_bytes: usize,
    ) -> PyResult<Self> {
        let fields: HashMap<_, _> = names.iter().cloned().zip(0..).collect();
        if fields.len() < names.len() || names.len() < FIRST_FEATURE + features {
            return Err(PyValueError::new_err("names: two are the same, or there are too few"));
        }
        Ok(Self { fields, features, nested, years, max_bytes })
    }

    /// Scan the values of messages into `matrix`, which has a row of float64 for each value and a column for each
    /// feature. Returns patient ids, times, and the rows that are to be looked at closer; what the other three have
    /// for these means nothing.
    fn scan<'py>(
        &self,
        py: Python<'py>,
        values: &Bound<'py, PyList>,
        matrix: PyBuffer<f64>,
    ) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>, Vec<usize>)> {
        let cells = matrix.as_mut_slice(py).filter(|cells| cells.len() == values.len() * self.features);
        let cells =
            cells.ok_or_else(|| PyValueError::new_err("matrix: must be C-contiguous, rows by features"))?;
        let nothing = PyString::intern(py, "");
        let mut ids = Vec::with_capacity(values.len());
        let mut times = Vec::with_capacity(values.len());
        let mut closer = Vec::new();
        let mut memory = Memory::new(self.fields.len());
        let mut last_time = nothing.clone();
        let mut last = String::new();
        for (number, value) in values.iter().enumerate() {
            let row = &cells[number * self.features..][..self.features];
            if let Some(found) =
                value.cast::<PyBytes>().ok().and_then(|value| self.row(value.as_bytes(), row, &mut memory))
            {
                if found.event_time != last {
                    last_time = PyString::new(py, found.event_time);
                    last.replace_range(.., found.event_time);
                }
                ids.push(PyString::new(py, found.patient_id));
                times.push(last_time.clone());
            } else {
                closer.push(number);
                ids.push(nothing.clone());
                times.push(nothing.clone());
            }
        }
        Ok((PyList::new(py, ids)?, PyList::new(py, times)?, closer))
    }
}

/// Whose measurements these are, and of when.
struct Identity<'a> {
    patient_id: &'a str,
    event_time: &'a str,
}

impl Scanner {
    fn row<'a>(&self, value: &'a [u8], cells: &[Cell<f64>], memory: &mut Memory) -> Option<Identity<'a>> {
        (value.len() <= self.max_bytes).then_some(())?;
        let mut cursor = Cursor::new(std::str::from_utf8(value).ok()?);
        cells.iter().for_each(|cell| cell.set(f64::NAN));
        memory.start_row();
        let (mut patient_id, mut event_time) = (None, None);
        cursor.skip_blanks();
        (cursor.peek()? == b'{').then_some(())?;
        cursor.skip_items(b'}', |cursor| match self.field(cursor, memory)? {
            Some(PATIENT_ID) => {
                patient_id = Some(cursor.string()?);
                Some(())
            }
            Some(EVENT_TIME) => {
                event_time = Some(cursor.string()?);
                Some(())
            }
            Some(number) if number < FIRST_FEATURE + self.features => {
                cells[number - FIRST_FEATURE].set(feature(cursor)?);
                Some(())
            }
            _ => cursor.skip_value(&|name| self.nested && self.fields.contains_key(name)),
        })?;
        cursor.skip_blanks();
        let found = Identity { patient_id: patient_id?, event_time: event_time? };
        let id_is_plain = (1..=LONGEST_ID).contains(&found.patient_id.len());
        (cursor.at_end() && id_is_plain && self.is_time(found.event_time)).then_some(found)
    }

    /// Goes past a name and the colon behind it. The field's number, or none for a field that nobody reads.
    fn field(&self, cursor: &mut Cursor, memory: &mut Memory) -> Option<Option<usize>> {
        if let Some(field) = memory.expected(cursor) {
            memory.see(field)?;
            cursor.skip_blanks();
            return Some(field);
        }
        let name = cursor.string()?;
        cursor.colon()?;
        let field = self.fields.get(name).copied();
        memory.remember(name, field);
        memory.see(field)?;
        Some(field)
    }

    fn is_time(&self, text: &str) -> bool {
        year_of(text.as_bytes()).is_some_and(|year| self.years.0 <= year && year <= self.years.1)
    }
}

/// A number, or NaN for null.
fn feature(cursor: &mut Cursor) -> Option<f64> {
    if cursor.take_all(b"null") { Some(f64::NAN) } else { cursor.number() }
}

/// What was seen so far: in this row, and which field was where in those before it. Senders keep to an order.
struct Memory {
    /// In order of a message's fields: the name as it is written there, up to the colon, and the field's number.
    names: Vec<(Vec<u8>, Option<usize>)>,
    next: usize,
    row: usize,
    /// By field the row that had it last.
    seen: Vec<usize>,
}

impl Memory {
    fn new(fields: usize) -> Self {
        Self { names: Vec::new(), next: 0, row: 0, seen: vec![0; fields] }
    }

    fn start_row(&mut self) {
        self.row += 1;
        self.next = 0;
    }

    /// The number of the field that is next, if it is the one that was here before; goes past its name and colon.
    fn expected(&mut self, cursor: &mut Cursor) -> Option<Option<usize>> {
        let (name, field) = self.names.get(self.next)?;
        cursor.take_all(name).then_some(())?;
        self.next += 1;
        Some(*field)
    }

    fn remember(&mut self, name: &str, field: Option<usize>) {
        let written = [b"\"", name.as_bytes(), b"\":"].concat();
        if self.next < self.names.len() {
            self.names[self.next] = (written, field);
        } else if self.next < REMEMBERED {
            self.names.push((written, field));
        }
        self.next += 1;
    }

    /// Note a field of this row; one that is there twice is looked at closer.
    fn see(&mut self, field: Option<usize>) -> Option<()> {
        let Some(number) = field else { return Some(()) };
        let before = std::mem::replace(&mut self.seen[number], self.row);
        (before != self.row).then_some(())
    }
}
