//! Numbers, times and sizes as each language writes them.

use crate::labels::Lang;

/// A number with three digits that count: `0.25`, `12.3`, `123`, `12,300`.
pub(crate) fn number(value: f64, lang: Lang) -> String {
    // There is no -0 for people.
    let value = if value.abs() < 0.005 { 0.0 } else { value };
    let digits = match value.abs() {
        size if size == 0.0 || size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    let rounded = if value.abs() >= 1000.0 {
        let unit = 10f64.powf(value.abs().log10().floor() - 2.0);
        (value / unit).round() * unit
    } else {
        value
    };
    let text = format!("{rounded:.digits$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let (comma, point) = match lang {
        Lang::En => (",", "."),
        Lang::Es => ("\u{202f}", ","),
    };
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        let left = whole.len() - at;
        if at > 0 && left % 3 == 0 && whole.as_bytes()[at - 1] != b'-' {
            out.push_str(comma);
        }
        out.push(digit);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { out } else { format!("{out}{point}{fraction}") }
}

/// A number that was written with a point, as `lang` writes it. Names such as `p99.9` stay.
pub(crate) fn local(text: String, lang: Lang) -> String {
    match lang {
        Lang::Es if text.starts_with(|c: char| c.is_ascii_digit()) => text.replace('.', ","),
        _ => text,
    }
}

/// Microseconds, in the unit that fits.
pub(crate) fn time(micros: f64, lang: Lang) -> String {
    match micros {
        // What is written as a thousand is one of the next unit.
        m if m < 999.5 => format!("{} µs", number(m, lang)),
        m if m < 999.5e3 => format!("{} ms", number(m / 1e3, lang)),
        m => format!("{} s", number(m / 1e6, lang)),
    }
}

/// Bytes, in the unit that fits.
pub(crate) fn bytes(count: f64, lang: Lang) -> String {
    match count {
        c if c < 1024.0 => format!("{} B", number(c, lang)),
        c if c < 1024.0 * 1024.0 => format!("{} KiB", number(c / 1024.0, lang)),
        c => format!("{} MiB", number(c / 1024.0 / 1024.0, lang)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        let numbers = [0.0, 0.254, 3.0, 12.34, 99.96, 123.4, 1234.0, 86_952.0, 1_234_567.0];
        let en = numbers.map(|value| number(value, Lang::En));
        assert_eq!(en, ["0", "0.25", "3", "12.3", "100", "123", "1,230", "87,000", "1,230,000"]);
        assert_eq!(number(12.34, Lang::Es), "12,3");
        assert_eq!(number(-1234.0, Lang::En), "-1,230");
        assert_eq!([-0.0, -0.004, 0.004].map(|value| number(value, Lang::En)), ["0"; 3]);
        let texts = ["12.3k", "p99.9", "-", "0.25 µs"];
        assert_eq!(
            texts.map(|text| local(text.to_owned(), Lang::Es)),
            ["12,3k", "p99.9", "-", "0,25 µs"]
        );
        assert_eq!(local("12.3k".to_owned(), Lang::En), "12.3k");
    }

    #[test]
    fn units_fit() {
        let times = [7.34, 1234.0, 50_332.0, 2_000_000.0].map(|micros| time(micros, Lang::En));
        assert_eq!(times, ["7.34 µs", "1.23 ms", "50.3 ms", "2 s"]);
        let edges = [999.4, 999.6, 1000.0, 999_400.0, 999_600.0, 1e6];
        let edges = edges.map(|micros| time(micros, Lang::En));
        assert_eq!(edges, ["999 µs", "1 ms", "1 ms", "999 ms", "1 s", "1 s"]);
        let edges = [1023.0, 1024.0, 1_048_576.0].map(|count| bytes(count, Lang::En));
        assert_eq!(edges, ["1,020 B", "1 KiB", "1 MiB"]);
        let sizes = [163.0, 80_527.0, 8.0 * 1048576.0].map(|count| bytes(count, Lang::En));
        assert_eq!(sizes, ["163 B", "78.6 KiB", "8 MiB"]);
    }
}
