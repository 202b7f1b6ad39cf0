//! JSON messages to numbers, IDs and times; whatever is not plain is left to the reference decoder.

use std::cell::Cell;
use std::collections::HashMap;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::cursor::Cursor;
use crate::times::year_of;

/// The longest patient ID in bytes; up to here no ID has too many characters.
const LONGEST_ID: usize = 128;
/// How deep objects and lists may be nested; the reference decoder reads deeper ones.
const DEEPEST: usize = 64;
/// How many leading fields of an object are remembered from the previous message.
const REMEMBERED: usize = 256;

/// The kind of objects that are on no path.
const ELSEWHERE: usize = 0;
/// The kind of a message.
const MESSAGE: usize = 1;

/// The names that lead to a field.
type Path = Vec<String>;
/// By unit as sent: the zero and the factor that convert the feature's value to the model's unit.
type Units = HashMap<String, (f64, f64)>;

/// What a name leads to in an object of one kind.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    Patient,
    Time,
    Feature(usize),
    /// One of the scanner's units.
    Unit(usize),
    /// An object of another kind.
    Inside(usize),
    Unread,
}

/// A name that must not occur twice in an object: its number, and what it leads to.
#[derive(Clone, Copy)]
struct Field {
    name: usize,
    target: Target,
}

/// Scans messages that are JSON objects.
#[pyclass(frozen, module = "vitalstream_native")]
pub struct Scanner {
    /// For each kind of object, its fields by name; objects on one path are of one kind.
    kinds: Vec<HashMap<String, Field>>,
    names: usize,
    features: usize,
    /// For each feature that comes with a unit, its number and the units.
    units: Vec<(usize, Units)>,
    years: (u32, u32),
    max_bytes: usize,
}

#[pymethods]
impl Scanner {
    /// `paths` are those of the patient, the time, and the features, some of which are in no message. `watched` are their
    /// names, and others that must not occur twice in an object; with `nested`, not in inner objects either. `units` has,
    /// by a feature's number, the path of its unit and the units. Times are within `years`, first and last.
    #[new]
    #[pyo3(signature = (paths, *, watched, units, nested, years, max_bytes))]
    fn new(
        paths: Vec<Option<Path>>,
        watched: Vec<String>,
        units: Vec<(usize, Path, Units)>,
        nested: bool,
        years: (u32, u32),
        max_bytes: usize,
    ) -> PyResult<Self> {
        let features = paths.len().checked_sub(2).ok_or_else(|| unfit("paths: too few"))?;
        let mut kinds = Kinds::new(nested, &watched);
        for (number, path) in
            paths.iter().enumerate().filter_map(|(number, path)| Some((number, path.as_ref()?)))
        {
            let target = match number {
                0 => Target::Patient,
                1 => Target::Time,
                _ => Target::Feature(number - 2),
            };
            kinds.lead(path, target)?;
        }
        for (slot, (feature, path, _)) in units.iter().enumerate() {
            (*feature < features).then_some(()).ok_or_else(|| unfit("units: of no feature"))?;
            kinds.lead(path, Target::Unit(slot))?;
        }
        Ok(Self {
            names: kinds.numbers.len(),
            kinds: kinds.made,
            features,
            units: units.into_iter().map(|(feature, _, units)| (feature, units)).collect(),
            years,
            max_bytes,
        })
    }

    /// Scan the values of messages into `matrix`, which has a row of float64 for each value and a column for each
    /// feature. Returns patient IDs, times, and the rows left to the reference decoder, whose IDs, times and values
    /// are meaningless.
    fn scan<'py>(
        &self,
        py: Python<'py>,
        values: &Bound<'py, PyList>,
        matrix: PyBuffer<f64>,
    ) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>, Vec<usize>)> {
        let cells = matrix.as_mut_slice(py).filter(|cells| cells.len() == values.len() * self.features);
        let cells = cells.ok_or_else(|| unfit("matrix: must be C-contiguous, rows by features"))?;
        let nothing = PyString::intern(py, "");
        let mut ids = Vec::with_capacity(values.len());
        let mut times = Vec::with_capacity(values.len());
        let mut closer = Vec::new();
        let mut memory = Memory::new(self.kinds.len(), self.names, self.units.len());
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

/// The kinds of objects on the paths, as they are found.
struct Kinds {
    made: Vec<HashMap<String, Field>>,
    /// The number of each watched name, and what it means in an object where it leads nowhere.
    numbers: HashMap<String, usize>,
}

impl Kinds {
    fn new(nested: bool, watched: &[String]) -> Self {
        let mut numbers = HashMap::new();
        for name in watched {
            let next = numbers.len();
            numbers.entry(name.clone()).or_insert(next);
        }
        let mut kinds = Self { made: Vec::new(), numbers };
        let elsewhere = if nested { kinds.unread() } else { HashMap::new() };
        let message = kinds.unread();
        kinds.made.extend([elsewhere, message]);
        kinds
    }

    fn unread(&self) -> HashMap<String, Field> {
        let field = |name| Field { name, target: Target::Unread };
        self.numbers.iter().map(|(name, &number)| (name.clone(), field(number))).collect()
    }

    /// Make a path lead to a target.
    fn lead(&mut self, path: &[String], target: Target) -> PyResult<()> {
        let (last, above) = path.split_last().ok_or_else(|| unfit("paths: one is empty"))?;
        let mut kind = MESSAGE;
        for name in above {
            let next = self.made.len();
            let field = self.field(kind, name)?;
            if field.target == Target::Unread {
                field.target = Target::Inside(next);
                self.made.push(self.unread());
            }
            kind = match self.field(kind, name)?.target {
                Target::Inside(inside) => inside,
                _ => return Err(unfit("paths: one goes through another's field")),
            };
        }
        let field = self.field(kind, last)?;
        if field.target != Target::Unread {
            return Err(unfit("paths: two lead to one field"));
        }
        field.target = target;
        Ok(())
    }

    fn field(&mut self, kind: usize, name: &str) -> PyResult<&mut Field> {
        self.made[kind].get_mut(name).ok_or_else(|| unfit("watched: lacks a name of a path"))
    }
}

fn unfit(why: &'static str) -> PyErr {
    PyValueError::new_err(why)
}

/// The parts of a message that are read.
struct Row<'a, 'm> {
    patient_id: Option<&'a str>,
    event_time: Option<&'a str>,
    cells: &'m [Cell<f64>],
    memory: &'m mut Memory,
}

/// Whose measurements these are, and when they were taken.
struct Identity<'a> {
    patient_id: &'a str,
    event_time: &'a str,
}

impl Scanner {
    fn row<'a>(&self, value: &'a [u8], cells: &[Cell<f64>], memory: &mut Memory) -> Option<Identity<'a>> {
        (value.len() <= self.max_bytes).then_some(())?;
        let mut cursor = Cursor::new(std::str::from_utf8(value).ok()?);
        cells.iter().for_each(|cell| cell.set(f64::NAN));
        memory.units.clear();
        let mut row = Row { patient_id: None, event_time: None, cells, memory };
        cursor.skip_blanks();
        (cursor.peek()? == b'{').then_some(())?;
        self.object(&mut cursor, MESSAGE, 0, &mut row)?;
        cursor.skip_blanks();
        let found = Identity { patient_id: row.patient_id?, event_time: row.event_time? };
        let id_is_plain = (1..=LONGEST_ID).contains(&found.patient_id.len());
        (cursor.at_end() && id_is_plain && self.is_time(found.event_time)).then_some(())?;
        self.convert(&row)?;
        Some(found)
    }

    /// Skip an object of a kind, reading what its fields lead to.
    fn object<'a>(
        &self,
        cursor: &mut Cursor<'a>,
        kind: usize,
        depth: usize,
        row: &mut Row<'a, '_>,
    ) -> Option<()> {
        let object = row.memory.open(depth)?;
        let mut place = 0;
        cursor.skip_items(b'}', |cursor| {
            let field = self.field(cursor, kind, place, row.memory)?;
            place += 1;
            let Some(Field { name, target }) = field else { return self.skip(cursor, depth, row) };
            row.memory.see(depth, object, name)?;
            match target {
                Target::Patient => row.patient_id = Some(cursor.string()?),
                Target::Time => row.event_time = Some(cursor.string()?),
                Target::Feature(number) => row.cells[number].set(number_or_null(cursor)?),
                Target::Unit(number) => self.unit(cursor, number, row)?,
                Target::Inside(_) if cursor.take_all(b"null") => (),
                Target::Inside(kind) => {
                    (cursor.peek()? == b'{').then_some(())?;
                    self.object(cursor, kind, depth + 1, row)?;
                }
                Target::Unread => self.skip(cursor, depth, row)?,
            }
            Some(())
        })
    }

    /// Skip an unread value in an object at this depth.
    fn skip<'a>(&self, cursor: &mut Cursor<'a>, depth: usize, row: &mut Row<'a, '_>) -> Option<()> {
        match cursor.peek()? {
            b'{' => self.object(cursor, ELSEWHERE, depth + 1, row),
            b'[' => {
                (depth < DEEPEST).then_some(())?;
                cursor.skip_items(b']', |cursor| self.skip(cursor, depth + 1, row))
            }
            _ => cursor.skip_scalar(),
        }
    }

    /// Skips a name and its colon. None for a field that is neither read nor watched.
    fn field(
        &self,
        cursor: &mut Cursor,
        kind: usize,
        place: usize,
        memory: &mut Memory,
    ) -> Option<Option<Field>> {
        if let Some(field) = memory.expected(cursor, kind, place) {
            cursor.skip_blanks();
            return Some(field);
        }
        let name = cursor.string()?;
        cursor.colon()?;
        let field = self.kinds[kind].get(name).copied();
        if kind != ELSEWHERE {
            memory.remember(kind, place, name, field);
        }
        Some(field)
    }

    /// A known unit, or null.
    fn unit(&self, cursor: &mut Cursor, slot: usize, row: &mut Row) -> Option<()> {
        if cursor.take_all(b"null") {
            return Some(());
        }
        let (feature, units) = &self.units[slot];
        let (written, expected) = &mut row.memory.usual[slot];
        if written.is_empty() || !cursor.take_all(written) {
            let unit = cursor.string()?;
            *expected = *units.get(unit)?;
            *written = [b"\"", unit.as_bytes(), b"\""].concat();
        }
        row.memory.units.push((*feature, *expected));
        Some(())
    }

    /// Convert values that come with units to the model's units. None if a unit is missing.
    fn convert(&self, row: &Row) -> Option<()> {
        let mut with_values =
            self.units.iter().filter(|(feature, _)| !row.cells[*feature].get().is_nan()).count();
        for &(feature, (zero, factor)) in &row.memory.units {
            let cell = &row.cells[feature];
            with_values -= usize::from(!cell.get().is_nan());
            cell.set((cell.get() - zero) * factor);
        }
        (with_values == 0).then_some(())
    }

    fn is_time(&self, text: &str) -> bool {
        year_of(text.as_bytes()).is_some_and(|year| self.years.0 <= year && year <= self.years.1)
    }
}

/// A number, or NaN for null.
fn number_or_null(cursor: &mut Cursor) -> Option<f64> {
    if cursor.take_all(b"null") { Some(f64::NAN) } else { cursor.number() }
}

/// Which fields this row has had so far, and the order of fields in earlier rows, which senders rarely change.
struct Memory {
    /// For each kind of object, in the order of its fields: the name as written, up to the colon, and the field.
    fields: Vec<Vec<(Vec<u8>, Option<Field>)>>,
    objects: usize,
    /// By depth and name, the last object that had it.
    seen: Vec<Vec<usize>>,
    names: usize,
    /// How to convert each feature's value in this row.
    units: Vec<(usize, (f64, f64))>,
    /// For each of the scanner's units, the last one as written, which senders rarely change, and how to convert from it.
    usual: Vec<(Vec<u8>, (f64, f64))>,
}

impl Memory {
    fn new(kinds: usize, names: usize, units: usize) -> Self {
        Self {
            fields: vec![Vec::new(); kinds],
            objects: 0,
            seen: Vec::new(),
            names,
            units: Vec::new(),
            usual: vec![(Vec::new(), (0.0, 1.0)); units],
        }
    }

    /// The number of a new object; None if it is too deep.
    fn open(&mut self, depth: usize) -> Option<usize> {
        (depth <= DEEPEST).then_some(())?;
        while self.seen.len() <= depth {
            self.seen.push(vec![0; self.names]);
        }
        self.objects += 1;
        Some(self.objects)
    }

    /// The next field, if it is the same as in the previous message; skips its name and colon.
    fn expected(&self, cursor: &mut Cursor, kind: usize, place: usize) -> Option<Option<Field>> {
        let (name, field) = self.fields[kind].get(place)?;
        cursor.take_all(name).then_some(*field)
    }

    fn remember(&mut self, kind: usize, place: usize, name: &str, field: Option<Field>) {
        let written = [b"\"", name.as_bytes(), b"\":"].concat();
        let fields = &mut self.fields[kind];
        if place < fields.len() {
            fields[place] = (written, field);
        } else if place < REMEMBERED {
            fields.push((written, field));
        }
    }

    /// Record an object's name; None if the object has had it already.
    fn see(&mut self, depth: usize, object: usize, name: usize) -> Option<()> {
        let before = std::mem::replace(&mut self.seen[depth][name], object);
        (before != object).then_some(())
    }
}
