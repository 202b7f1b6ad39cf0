//! Columns of JSON to rows of JSON.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::histories::Histories;

/// One text for each row: the values of `columns`, with the texts of `between` before, between and after them. Each
/// column is a JSON array without blanks, as orjson writes it; `histories` are one more column.
#[pyfunction]
#[pyo3(signature = (between, columns, histories=None))]
pub fn rows_of<'py>(
    py: Python<'py>,
    between: Vec<Bound<'py, PyBytes>>,
    columns: Vec<Bound<'py, PyBytes>>,
    histories: Option<Histories<'py>>,
) -> PyResult<Bound<'py, PyList>> {
    let uneven = || PyValueError::new_err("columns: not all are arrays of one value for each row");
    let mut rest = Vec::with_capacity(columns.len());
    for column in &columns {
        rest.push(column.as_bytes().strip_prefix(b"[").ok_or_else(uneven)?);
    }
    let told = histories.as_ref().map(|histories| histories.read(py)).transpose()?;
    let width = rest.len() + usize::from(told.is_some());
    let (last, before) =
        between.split_last().filter(|(_, before)| before.len() == width).ok_or_else(uneven)?;
    let before: Vec<&[u8]> = before.iter().map(|text| text.as_bytes()).collect();
    let mut text = Vec::with_capacity(1024);
    let mut found = Vec::new();
    while rest.iter().any(|column| *column != b"]") {
        text.clear();
        for (before, column) in before.iter().zip(&mut rest) {
            let (value, behind) = column.split_at(end(column).ok_or_else(uneven)?);
            text.extend_from_slice(before);
            text.extend_from_slice(value);
            *column = behind.strip_prefix(b",").unwrap_or(behind);
        }
        if let (Some(told), Some(before)) = (&told, before.last()) {
            (found.len() < told.rows()).then_some(()).ok_or_else(uneven)?;
            text.extend_from_slice(before);
            told.write(found.len(), &mut text);
        }
        text.extend_from_slice(last.as_bytes());
        found.push(PyBytes::new(py, &text));
    }
    if told.is_some_and(|told| told.rows() != found.len()) {
        return Err(uneven());
    }
    PyList::new(py, found)
}

/// Where the first value of an array ends; none if it is empty.
fn end(array: &[u8]) -> Option<usize> {
    if !matches!(array.first()?, b'"' | b'[' | b'{') {
        return array.iter().position(|&byte| byte == b',' || byte == b']').filter(|&at| at > 0);
    }
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match array.get(at)? {
            b'"' => at += string_end(&array[at..])?,
            b'[' | b'{' => (at, depth) = (at + 1, depth + 1),
            b',' | b']' if depth == 0 => return (at > 0).then_some(at),
            b']' | b'}' => (at, depth) = (at + 1, depth.checked_sub(1)?),
            _ => at += 1,
        }
    }
}

/// The length of the string at the start.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += text[at..].iter().position(|&byte| byte == b'"' || byte == b'\\')? + 1;
        match text[at - 1] {
            b'"' => return Some(at),
            _ => at = (at < text.len()).then_some(at + 1)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::end;

    #[test]
    fn values_end_at_the_comma_behind_them() {
        for (array, value) in [
            (r#"1.5,2]"#, "1.5"),
            (r#"null]"#, "null"),
            (r#""a,]\"\\",1]"#, r#""a,]\"\\""#),
            (r#"["a]",{"b":[]}],[]]"#, r#"["a]",{"b":[]}]"#),
            (r#"[]]"#, "[]"),
        ] {
            assert_eq!(end(array.as_bytes()), Some(value.len()), "{array}");
        }
        for array in ["", "]", "1", "\"a", "\"a\\", "[1", ",1]"] {
            assert_eq!(end(array.as_bytes()), None, "{array}");
        }
    }
}
