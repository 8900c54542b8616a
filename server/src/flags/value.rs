//! The values of flags, read by Go's rules: what `strconv`, `time.ParseDuration` and etcd's own list types take and refuse.
//!
//! Invariant: the causes returned here are the texts etcd prints behind `invalid value "…" for flag -…: `, so that whoever greps for
//! them finds them.

use std::collections::BTreeMap;

use detcd_io::boot::url::{self, Url};

use super::table::{FLAGS, Flag, GATES, Kind};

/// The value of a flag.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// A text, or a choice.
    Text(String),
    /// A switch.
    Bool(bool),
    /// A number without a sign.
    Unsigned(u64),
    /// A number with a sign.
    Signed(i64),
    /// Nanoseconds.
    Duration(i64),
    /// Accepted URLs, sorted, each once.
    Urls(Vec<Url>),
    /// Texts.
    Texts(Vec<String>),
    /// Every feature gate.
    Gates(BTreeMap<&'static str, bool>),
}

impl Value {
    /// The default of a flag.
    #[must_use]
    pub fn default_of(flag: &Flag) -> Self {
        match flag.kind {
            Kind::Urls if flag.default.is_empty() => Self::Urls(Vec::new()),
            Kind::Texts | Kind::UniqueTexts if flag.default.is_empty() => Self::Texts(Vec::new()),
            Kind::Gates => Self::Gates(GATES.iter().copied().collect()),
            _ => Self::parse(flag, flag.default, &Self::Bool(false)).expect("defaults in the table are valid"),
        }
    }

    /// Reads a value. `before` is the value so far: gates add to it, and an empty list of URLs leaves it alone, as in etcd.
    ///
    /// # Errors
    /// The cause, in etcd's words.
    pub fn parse(flag: &Flag, text: &str, before: &Self) -> Result<Self, String> {
        Ok(match flag.kind {
            Kind::Text => Self::Text(text.to_owned()),
            Kind::Ignored => Self::Bool(false),
            Kind::Bool => Self::Bool(parse_bool(text).ok_or("parse error")?),
            Kind::Uint | Kind::Uint64 => Self::Unsigned(parse_unsigned(text)?),
            Kind::Uint32 => Self::Unsigned(parse_uint32(text)?),
            Kind::Int | Kind::Int64 => Self::Signed(parse_signed(text)?),
            Kind::Duration => Self::Duration(parse_duration(text).map_err(|_| "parse error")?),
            Kind::Urls if text.is_empty() => before.clone(),
            Kind::Urls => {
                let mut urls = url::parse_list(text).map_err(|fault| fault.to_string())?;
                urls.dedup();
                Self::Urls(urls)
            }
            Kind::Origins if text == "*" || text.is_empty() => Self::Texts(vec!["*".to_owned()]),
            Kind::Origins => {
                let urls = url::parse_list(text).map_err(|fault| fault.to_string())?;
                Self::Texts(unique(urls.iter().map(Url::to_string).collect()))
            }
            Kind::Texts => Self::Texts(text.split(',').map(str::to_owned).collect()),
            Kind::UniqueTexts => Self::Texts(unique(text.split(',').map(str::to_owned).collect())),
            Kind::OneOf(choices) if choices.contains(&text) => Self::Text(text.to_owned()),
            Kind::OneOf(_) => return Err("invalid value".to_owned()),
            Kind::SomeOf(choices) => match text.split(',').find(|part| !choices.contains(part)) {
                Some(part) => return Err(format!("invalid value {part:?}")),
                None => Self::Text(text.to_owned()),
            },
            Kind::Gates => Self::Gates(parse_gates(text, before)?),
        })
    }
}

/// Whether a value is the default of a flag, in any spelling.
#[must_use]
pub fn is_default(flag: &Flag, value: &Value) -> bool {
    let default = Value::default_of(flag);
    *value == default || flag.also.iter().any(|text| Value::parse(flag, text, &default).as_ref() == Ok(value))
}

/// Sorted, each once.
fn unique(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts.dedup();
    texts
}

/// The six spellings of each truth.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A number without a sign: decimal, or with Go's prefixes, underscores between digits.
fn parse_unsigned(text: &str) -> Result<u64, &'static str> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // Behind a prefix an underscore may come first.
    let separated = if digits.len() < lower.len() { digits.strip_prefix('_').unwrap_or(digits) } else { digits };
    if separated.split('_').any(str::is_empty) {
        return Err("parse error");
    }
    let plain = separated.replace('_', "");
    if !plain.chars().all(|digit| digit.is_digit(radix)) {
        return Err("parse error");
    }
    u64::from_str_radix(&plain, radix).map_err(|_| "value out of range")
}

/// etcd's own 32-bit type answers with Go's long texts.
fn parse_uint32(text: &str) -> Result<u64, String> {
    let fault = |why: &str| format!("strconv.ParseUint: parsing {text:?}: {why}");
    match parse_unsigned(text) {
        Ok(number) if number <= u64::from(u32::MAX) => Ok(number),
        Ok(_) | Err("value out of range") => Err(fault("value out of range")),
        Err(_) => Err(fault("invalid syntax")),
    }
}

fn parse_signed(text: &str) -> Result<i64, &'static str> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = i128::from(parse_unsigned(digits)?);
    i64::try_from(if negative { -number } else { number }).map_err(|_| "value out of range")
}

fn parse_gates(text: &str, before: &Value) -> Result<BTreeMap<&'static str, bool>, String> {
    let mut gates = match before {
        Value::Gates(gates) => gates.clone(),
        _ => GATES.iter().copied().collect(),
    };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (name, value) = (name.trim(), value.trim());
        if !part.contains('=') {
            return Err(format!("missing bool value for {name}"));
        }
        let Some(on) = parse_bool(value) else {
            return Err(format!(
                "invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
            ));
        };
        let Some((known, _)) = GATES.iter().find(|(known, _)| *known == name) else {
            return Err(format!("unrecognized feature gate: {name}"));
        };
        gates.insert(known, on);
    }
    Ok(gates)
}

/// Nanoseconds of a duration as Go writes them: `1h15m`, `-1.5s`, `0`.
///
/// # Errors
/// Go's text.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (sign, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), split_digits);
        if whole.len() > 19 || (whole.is_empty() && fraction.is_empty()) {
            return Err(invalid());
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let Some(scale) = unit_nanos(unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        let fraction = &fraction[..fraction.len().min(15)];
        let number = |digits: &str| digits.parse::<i128>().unwrap_or(0);
        total += number(whole) * scale + number(fraction) * scale / 10_i128.pow(fraction.len() as u32);
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
        rest = after;
    }
    i64::try_from(sign * total).map_err(|_| invalid())
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit_nanos(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// A duration as Go prints it: `1h15m0s`, `1.5s`, `100ms`, `0s`.
#[must_use]
pub fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let decimal = |unit: u64| {
        let text = format!("{}.{:09}", nanos / unit, (nanos % unit) * (1_000_000_000 / unit));
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(1_000_000)),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = format!("{}.{:09}", nanos / 1_000_000_000 % 60, nanos % 1_000_000_000);
            let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// Every default, in the order of the table.
#[must_use]
pub fn defaults() -> Vec<Value> {
    FLAGS.iter().map(Value::default_of).collect()
}

#[cfg(test)]
mod tests {
    use super::super::table::position;
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        let rows = [
            ("0", Ok(0)),
            ("12", Ok(12)),
            ("0x1F", Ok(31)),
            ("0b101", Ok(5)),
            ("0o17", Ok(15)),
            ("017", Ok(15)),
            ("1_000", Ok(1000)),
            ("0x_f", Ok(15)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err("value out of range")),
            ("", Err("parse error")),
            ("1_", Err("parse error")),
            ("-1", Err("parse error")),
            ("09", Err("parse error")),
            ("ten", Err("parse error")),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_unsigned(text), expected, "{text}");
        }
        assert_eq!(parse_signed("-0x10"), Ok(-16));
        assert_eq!(parse_signed("9223372036854775808"), Err("value out of range"));
        assert_eq!(parse_uint32("4294967295"), Ok(4_294_967_295));
        assert_eq!(parse_uint32("x"), Err("strconv.ParseUint: parsing \"x\": invalid syntax".to_owned()));
    }

    #[test]
    fn durations_are_read_and_printed_as_go_does() {
        let rows = [
            ("0", "0s"),
            ("100ms", "100ms"),
            ("1m", "1m0s"),
            ("2h", "2h0m0s"),
            ("1h15m30.5s", "1h15m30.5s"),
            ("-1.5s", "-1.5s"),
            ("1500us", "1.5ms"),
            ("+10ns", "10ns"),
            (".5s", "500ms"),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_duration(text).map(format_duration), Ok(expected.to_owned()), "{text}");
        }
        let refused = [
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            ("-1", "time: missing unit in duration \"-1\""),
            ("1x", "time: unknown unit \"x\" in duration \"1x\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
        ];
        for (text, expected) in refused {
            assert_eq!(parse_duration(text), Err(expected.to_owned()));
        }
    }

    #[test]
    fn gates_add_up_and_are_refused_in_etcds_words() {
        let flag = &FLAGS[position("feature-gates").expect("listed")];
        let first = Value::parse(flag, "LeaseCheckpoint=true", &Value::default_of(flag)).unwrap();
        let Value::Gates(both) = Value::parse(flag, " CompactHashCheck = 1 ,", &first).unwrap() else {
            panic!("gates stay gates");
        };
        assert!(both["LeaseCheckpoint"] && both["CompactHashCheck"] && !both["AllAlpha"]);
        let refused = [
            ("X=true", "unrecognized feature gate: X"),
            ("AllAlpha", "missing bool value for AllAlpha"),
            ("AllAlpha=2", "invalid value of AllAlpha=2, err: strconv.ParseBool: parsing \"2\": invalid syntax"),
        ];
        for (text, expected) in refused {
            assert_eq!(Value::parse(flag, text, &first), Err(expected.to_owned()));
        }
    }

    #[test]
    fn every_default_is_its_own_default() {
        for (flag, value) in FLAGS.iter().zip(defaults()) {
            assert!(is_default(flag, &value), "{}", flag.name);
        }
        let validity = &FLAGS[position("self-signed-cert-validity").expect("listed")];
        assert!(is_default(validity, &Value::Unsigned(0)));
        assert!(!is_default(validity, &Value::Unsigned(2)));
    }
}
