//! Hostile input for decoders, drawn from a fuzzer's bytes.
//!
//! Bytes that are only random never pass a magic number, a length or a tag. So a fuzzer's input is not the hostile
//! bytes themselves: it says which edits to make to a valid object. An input that is used up makes no more edits, and
//! an empty one leaves the object whole; sometimes the input is taken as it is, too.

use std::fmt::Display;

use serde_json::{Value, json};

/// Stands for document content in valid objects and in edits. No error may tell it.
pub const SECRET: &str = "zebra";
/// More edits than this leave nothing of a valid object.
const EDITS_MAX: usize = 32;
/// An error is a few lines, whatever it is about. The longest one lists the fields of a manifest.
const ERROR_CHARACTERS_MAX: usize = 1000;

/// Choices drawn from a fuzzer's input: zeros once it is used up, so that every input means something.
#[derive(Debug)]
pub struct Draw<'a>(&'a [u8]);

impl<'a> Draw<'a> {
    /// Draws from all of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// Draws from each half of `input`: the first for the shape of a valid object, the second for its damage.
    #[must_use]
    pub fn halves(input: &'a [u8]) -> (Self, Self) {
        let (first, second) = input.split_at(input.len() / 2);
        (Self(first), Self(second))
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// A number below `bound` (and below 65,536); 0 if the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % bound.max(1)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn is_used_up(&self) -> bool {
        self.0.is_empty()
    }
}

/// `valid` with the drawn edits, or the rest of the input as it is.
pub fn bytes(valid: &[u8], draw: &mut Draw<'_>) -> Vec<u8> {
    if draw.byte() % 8 == 7 {
        return draw.rest().to_vec();
    }
    let mut bytes = valid.to_vec();
    for _ in 0..EDITS_MAX {
        if draw.is_used_up() {
            break;
        }
        edit(&mut bytes, draw);
    }
    bytes
}

fn edit(bytes: &mut Vec<u8>, draw: &mut Draw<'_>) {
    let (what, at, value) = (draw.byte() % 8, draw.below(bytes.len() + 1), draw.byte());
    let end = bytes.len().min(at + usize::from(value));
    match what {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (value % 8)),
        1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value),
        2 => bytes.insert(at, value),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let again = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, again));
        }
        5 => drop(bytes.splice(at..at, SECRET.bytes())),
        6 => drop(bytes.splice(at..at, format!("{SECRET:?}").into_bytes())),
        _ => bytes.truncate(at),
    }
}

/// The text of `valid` with the drawn values replaced by hostile ones, or with drawn edits of the text.
pub fn json(valid: &Value, draw: &mut Draw<'_>) -> Vec<u8> {
    let kind = draw.byte();
    if kind % 4 == 3 {
        return bytes(valid.to_string().as_bytes(), draw);
    }
    let mut value = valid.clone();
    for _ in 0..kind % 4 {
        spoil(&mut value, draw);
    }
    value.to_string().into_bytes()
}

/// Goes down to a drawn place and spoils it.
fn spoil(value: &mut Value, draw: &mut Draw<'_>) {
    let (what, deeper) = (draw.byte() % 3, !draw.byte().is_multiple_of(4));
    match value {
        Value::Array(list) if deeper && !list.is_empty() => {
            let at = draw.below(list.len());
            spoil(&mut list[at], draw);
        }
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let at = draw.below(fields.len());
            fields.values_mut().skip(at).take(1).for_each(|value| spoil(value, draw));
        }
        Value::Array(list) if what == 0 && !list.is_empty() => {
            let at = draw.below(list.len());
            let again = list[at].clone();
            list.push(again);
        }
        Value::Object(fields) if what == 0 => {
            fields.insert(SECRET.to_owned(), Value::Null);
        }
        Value::Object(fields) if what == 1 && !fields.is_empty() => {
            let at = draw.below(fields.len());
            let name = fields.keys().nth(at).cloned().unwrap();
            fields.remove(&name);
        }
        _ => *value = hostile_value(draw),
    }
}

fn hostile_value(draw: &mut Draw<'_>) -> Value {
    match draw.byte() % 14 {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(draw.byte()),
        3 => json!(-1),
        4 => json!(u32::MAX),
        5 => json!(u64::MAX),
        6 => json!(0.5),
        7 => json!(SECRET),
        8 => json!(SECRET.repeat(1000)),
        9 => json!([SECRET]),
        10 => json!({ SECRET: SECRET }),
        11 => json!([]),
        12 => json!(""),
        _ => {
            let length = usize::from(draw.byte());
            json!(String::from_utf8_lossy(&draw.bytes(length)))
        }
    }
}

/// Panics if the text of `error` tells what it is about, or is as long as its input wants it.
pub fn assert_discreet(error: &impl Display) {
    let text = error.to_string();
    let characters = text.chars().count();
    assert!(
        !text.contains(SECRET),
        "an error tells of its input: {}",
        text.chars().take(300).collect::<String>()
    );
    assert!(characters <= ERROR_CHARACTERS_MAX, "an error of {characters} characters");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_is_used_up_leaves_an_object_whole() {
        let valid = json!({ "a": [1, SECRET] });
        for input in [&[][..], &[0], &[8]] {
            assert_eq!(bytes(b"whole", &mut Draw::new(input)), b"whole");
            assert_eq!(json(&valid, &mut Draw::new(input)), valid.to_string().into_bytes());
        }
        assert_eq!(bytes(b"whole", &mut Draw::new(&[7, 1, 2])), [1, 2]);
        assert_eq!(bytes(b"whole", &mut Draw::new(&[0, 3, 1, 0, 2])), b"wle");
        assert_eq!(json(&valid, &mut Draw::new(&[1, 0, 0])), br#"{"a":[1,"zebra"],"zebra":null}"#);
    }
}
