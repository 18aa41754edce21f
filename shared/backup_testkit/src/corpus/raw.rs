//! BSON written byte by byte, for documents that no library would build: duplicate keys, deprecated types, NaN
//! payloads, invalid UTF-8.

use bson::RawDocumentBuf;

/// A document being written.
#[derive(Default)]
pub(super) struct Raw(Vec<u8>);

impl Raw {
    /// Begins with `_id`, a 32-bit integer.
    pub(super) fn with_id(id: i32) -> Self {
        Self::default().value(b"_id", 0x10, &id.to_le_bytes())
    }

    /// Appends an element as it is.
    pub(super) fn value(mut self, name: &[u8], kind: u8, value: &[u8]) -> Self {
        self.0.push(kind);
        self.0.extend_from_slice(name);
        self.0.push(0);
        self.0.extend_from_slice(value);
        self
    }

    /// Appends a string of any bytes.
    pub(super) fn string(self, name: &[u8], bytes: &[u8]) -> Self {
        self.value(name, 0x02, &string(bytes))
    }

    /// Appends binary data.
    pub(super) fn binary(self, name: &[u8], subtype: u8, bytes: &[u8]) -> Self {
        self.value(name, 0x05, &binary(subtype, bytes))
    }

    /// Appends a document.
    pub(super) fn document(self, name: &[u8], inner: Self) -> Self {
        self.value(name, 0x03, &inner.bytes())
    }

    /// Appends all elements of another one.
    pub(super) fn append(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Bytes of its elements.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Length, elements, closing zero.
    pub(super) fn bytes(self) -> Vec<u8> {
        let length = i32::try_from(self.0.len() + 5).unwrap();
        [&length.to_le_bytes()[..], &self.0, &[0]].concat()
    }

    /// The document.
    pub(super) fn finish(self) -> RawDocumentBuf {
        RawDocumentBuf::from_bytes(self.bytes()).unwrap()
    }
}

/// The value of a string, a symbol or code: length with the closing zero, bytes, zero.
pub(super) fn string(bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len() + 1).unwrap();
    [&length.to_le_bytes()[..], bytes, &[0]].concat()
}

/// The value of binary data: length, subtype, bytes; the old subtype 2 repeats the length inside.
pub(super) fn binary(subtype: u8, bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len()).unwrap();
    if subtype == 2 {
        return [&(length + 4).to_le_bytes()[..], &[2], &length.to_le_bytes(), bytes].concat();
    }
    [&length.to_le_bytes()[..], &[subtype], bytes].concat()
}

/// Code with a scope: its whole length, the code, the scope.
pub(super) fn code_with_scope(code: &[u8], scope: Raw) -> Vec<u8> {
    let (code, scope) = (string(code), scope.bytes());
    let length = i32::try_from(4 + code.len() + scope.len()).unwrap();
    [&length.to_le_bytes()[..], &code, &scope].concat()
}
