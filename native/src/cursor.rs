//! Reads JSON strictly, token by token.
//!
//! `None` leaves the message to the reference decoder: it is not JSON, or JSON that only that decoder judges.

/// Powers of ten that a double holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];
/// Integers up to here are exact as doubles.
const EXACT: u64 = 1 << 53;
/// This many digits always fit into a u64.
const MOST_DIGITS: usize = 19;

/// Where a reader stands in a message.
pub struct Cursor<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0 }
    }

    pub fn at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Skip `byte` if it is next.
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Skip `text` if it is next.
    pub fn take_all(&mut self, text: &[u8]) -> bool {
        let found = self.bytes[self.at..].starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    pub fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Skip the colon after a name, and the blanks around it.
    pub fn colon(&mut self) -> Option<()> {
        self.skip_blanks();
        self.take(b':').then_some(())?;
        self.skip_blanks();
        Some(())
    }

    /// A string without escapes.
    pub fn string(&mut self) -> Option<&'a str> {
        self.take(b'"').then_some(())?;
        let begin = self.at;
        self.at += self.bytes[begin..].iter().position(|&byte| is_special(byte))?;
        let found = &self.text[begin..self.at];
        self.take(b'"').then_some(found)
    }

    /// A number, rounded as every correct reader rounds it. None if it exceeds a double.
    pub fn number(&mut self) -> Option<f64> {
        let begin = self.at;
        let negative = self.take(b'-');
        let first = self.at;
        let mut digits = self.digits(0);
        if digits.count == 0 || (digits.count > 1 && self.bytes[first] == b'0') {
            return None;
        }
        let whole = digits.count;
        if self.take(b'.') {
            digits = self.digits(digits.value).after(whole);
            if digits.count == whole {
                return None;
            }
        }
        let scale = digits.count - whole;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.exponent()?;
        } else if digits.count <= MOST_DIGITS && digits.value <= EXACT && scale < POWERS.len() {
            // Both are exact, so the division rounds once. An integer -0 is 0 to the reference decoder.
            let size = digits.value as f64 / POWERS[scale];
            return Some(if negative && (digits.value, scale) != (0, 0) { -size } else { size });
        }
        let found: f64 = self.text[begin..self.at].parse().ok()?;
        found.is_finite().then_some(found)
    }

    fn exponent(&mut self) -> Option<()> {
        self.at += 1;
        let _ = self.take(b'-') || self.take(b'+');
        (self.digits(0).count > 0).then_some(())
    }

    /// The next digits, appended to those of `value`.
    fn digits(&mut self, mut value: u64) -> Digits {
        let begin = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        Digits { value, count: self.at - begin }
    }

    /// Skip any value but an object or a list.
    pub fn skip_scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.skip_string(),
            b't' => self.take_all(b"true").then_some(()),
            b'f' => self.take_all(b"false").then_some(()),
            b'n' => self.take_all(b"null").then_some(()),
            _ => self.number().map(drop),
        }
    }

    /// Skip an object or list; `item` skips each item.
    pub fn skip_items(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        self.skip_blanks();
        if self.take(close) {
            return Some(());
        }
        loop {
            self.skip_blanks();
            item(self)?;
            self.skip_blanks();
            if !self.take(b',') {
                return self.take(close).then_some(());
            }
        }
    }

    /// Skip a string. None if it has surrogates.
    fn skip_string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            self.at += self.bytes[self.at..].iter().position(|&byte| is_special(byte))? + 1;
            match self.bytes[self.at - 1] {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let kind = self.peek()?;
        self.at += 1;
        match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.bytes.get(self.at..self.at + 4)?;
                let is_surrogate =
                    matches!(digits, [b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..]);
                self.at += 4;
                (digits.iter().all(u8::is_ascii_hexdigit) && !is_surrogate).then_some(())
            }
            _ => None,
        }
    }
}

struct Digits {
    value: u64,
    count: usize,
}

impl Digits {
    fn after(self, before: usize) -> Self {
        Self { count: self.count + before, ..self }
    }
}

/// What ends a run of plain characters in a string.
fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use super::Cursor;

    fn number(text: &str) -> Option<f64> {
        let mut cursor = Cursor::new(text);
        cursor.number().filter(|_| cursor.at_end())
    }

    fn skips(text: &str) -> bool {
        let mut cursor = Cursor::new(text);
        cursor.skip_scalar().is_some() && cursor.at_end()
    }

    #[test]
    fn numbers_are_rounded_as_std_rounds_them() {
        for text in [
            "0",
            "-0.0",
            "80",
            "97.5",
            "-1.25",
            "9007199254740993",
            "18446744073709551616",
            "1e22",
            "1E-7",
            "0.1",
            "123456789.123456789012345678901",
            "0.000000000000000000000000000001",
            "1.7976931348623157e308",
            "1e-400",
        ] {
            assert_eq!(number(text).unwrap().to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
        }
        assert_eq!(number("-0").unwrap().to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn what_is_no_number_is_looked_at_closer() {
        for text in
            ["", "-", "+1", "01", "-01", ".5", "5.", "1e", "1e+", "1e400", "-1e400", "NaN", "0x1", "1_0"]
        {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!(number(&"9".repeat(400)), None);
    }

    #[test]
    fn values_that_nobody_reads_are_read_strictly() {
        for text in ["null", "true", "-1.5e3", r#""\n\"é\u00e9""#] {
            assert!(skips(text), "{text}");
        }
        for text in ["nul", r#""\x""#, r#""\ud800""#, r#""\u12""#, "\"\n\"", "\"", "1e400", "[]", "{}"] {
            assert!(!skips(text), "{text}");
        }
    }
}
