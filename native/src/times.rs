//! RFC 3339 with a zone, by the grammar of the contract.

/// The year, if `text` is a time. Second 60 is a leap second, and the 29th of February needs a leap year.
pub fn year_of(text: &[u8]) -> Option<u32> {
    let &[y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T' | b't', ref rest @ ..] = text else { return None };
    let year = pair(y0, y1)? * 100 + pair(y2, y3)?;
    let day = pair(d0, d1)?;
    (day >= 1 && day <= days(year, pair(m0, m1)?)).then_some(())?;
    let &[h0, h1, b':', n0, n1, b':', s0, s1, ref rest @ ..] = rest else { return None };
    (pair(h0, h1)? <= 23 && pair(n0, n1)? <= 59 && pair(s0, s1)? <= 60).then_some(())?;
    is_zone(without_fraction(rest)?).then_some(year)
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

fn without_fraction(text: &[u8]) -> Option<&[u8]> {
    let Some(fraction) = text.strip_prefix(b".") else { return Some(text) };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits > 0).then(|| &fraction[digits..])
}

fn is_zone(text: &[u8]) -> bool {
    match *text {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h0, h1, b':', m0, m1] => {
            pair(h0, h1).is_some_and(|hours| hours <= 23) && pair(m0, m1).is_some_and(|minutes| minutes <= 59)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::year_of;

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
}
