//! The little of JSON that pages and histories need: texts, and lists of what is JSON already.

use std::fmt::Write as _;

/// A text. No `<` is left in it, so that it may stand in a page.
#[must_use]
pub(crate) fn text(plain: &str) -> String {
    let mut quoted = String::with_capacity(plain.len() + 2);
    quoted.push('"');
    for letter in plain.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '<' | '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// A list.
#[must_use]
pub(crate) fn list(items: &[String]) -> String {
    format!("[{}]", items.join(","))
}

/// An object whose members come one after the other; those that say nothing are left out.
#[derive(Debug, Default)]
pub(crate) struct Object {
    members: String,
}

impl Object {
    /// The same, and this member, which is JSON already.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        let comma = if self.members.is_empty() { "" } else { "," };
        let _ = write!(self.members, "{comma}{}:{value}", text(name));
        self
    }

    /// The same, and this number, unless it is zero.
    #[must_use]
    pub(crate) fn number(self, name: &str, value: i64) -> Self {
        if value == 0 { self } else { self.with(name, &value.to_string()) }
    }

    /// The same, and that this is so, if it is.
    #[must_use]
    pub(crate) fn flag(self, name: &str, is_so: bool) -> Self {
        if is_so { self.with(name, "true") } else { self }
    }

    /// The object.
    #[must_use]
    pub(crate) fn close(self) -> String {
        format!("{{{}}}", self.members)
    }
}
