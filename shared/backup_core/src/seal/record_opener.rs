//! Opening single records of a message, for readers that need a range of a large object.

use super::{
    HEADER_BYTES, MessageKey, RECORD_BYTES, RECORDS_MAX, SEALED_RECORD_BYTES, Schedule, TAG_BYTES,
    open_record,
};
use crate::error::{Result, corrupt};

/// How many bytes a message of this length seals; none if no message has this length.
#[must_use]
pub fn plain_bytes(sealed_bytes: u64) -> Option<u64> {
    let records = sealed_bytes.checked_sub(HEADER_BYTES as u64)?;
    let full = records / SEALED_RECORD_BYTES as u64;
    let last = (records % SEALED_RECORD_BYTES as u64).checked_sub(TAG_BYTES as u64)?;
    (full < RECORDS_MAX).then_some(full * RECORD_BYTES as u64 + last)
}

/// Opens the records of one message, in any order.
///
/// That a record is of this message and at its place is authenticated. That none comes behind it is not: only the
/// last record shows where the message ends, by being short.
pub struct RecordOpener(Schedule);

impl RecordOpener {
    /// Will open records of the message that begins with `header`, if it was sealed under `key` and bound to `context`.
    pub fn new(key: &MessageKey, context: &[u8], header: &[u8; HEADER_BYTES]) -> Result<Self> {
        Schedule::of_message(key, context, header).map(Self)
    }

    /// Appends the plaintext of record `number`, counted from 0; nothing unless it is authentic.
    pub fn open(&self, number: u64, sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if sealed.len() > SEALED_RECORD_BYTES {
            return Err(corrupt(format!("open record {number}: it is too long")));
        }
        open_record(&self.0, number, sealed, out)
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::error::ErrorKind;
    use crate::seal;

    fn opener(key: [u8; 32], context: &[u8], sealed: &[u8]) -> Result<RecordOpener> {
        RecordOpener::new(&Zeroizing::new(key), context, sealed.first_chunk().unwrap())
    }

    fn records(sealed: &[u8]) -> Vec<(u64, &[u8])> {
        (0..).zip(sealed[HEADER_BYTES..].chunks(SEALED_RECORD_BYTES)).collect()
    }

    #[test]
    fn records_open_one_by_one_as_they_do_in_a_row() {
        for full in 0..4 {
            for last in [0, 1, 2, 15, 16, 17, 8000, RECORD_BYTES - 2, RECORD_BYTES - 1] {
                let length = full * RECORD_BYTES + last;
                let plain: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
                let sealed = seal::seal(&Zeroizing::new([7; 32]), b"here", &plain).unwrap();
                assert_eq!(plain_bytes(sealed.len() as u64), Some(length as u64), "{length} bytes");
                let opener = opener([7; 32], b"here", &sealed).unwrap();
                let records = records(&sealed);
                assert_eq!(records.len(), full + 1, "{length} bytes");
                for (number, record) in records.into_iter().rev() {
                    let mut opened = b"before".to_vec();
                    opener.open(number, record, &mut opened).unwrap();
                    let start = usize::try_from(number).unwrap() * RECORD_BYTES;
                    let expected = &plain[start..length.min(start + RECORD_BYTES)];
                    assert!(
                        opened == [b"before".as_slice(), expected].concat(),
                        "record {number} of {length} bytes"
                    );
                }
                assert!(seal::open(Zeroizing::new([7; 32]), b"here", &sealed).unwrap() == plain);
            }
        }
    }

    #[test]
    fn a_record_of_another_place_or_message_gives_nothing() {
        let plain = vec![1; 2 * RECORD_BYTES + 100];
        let sealed = seal::seal(&Zeroizing::new([7; 32]), b"here", &plain).unwrap();
        let other = seal::seal(&Zeroizing::new([7; 32]), b"here", &plain).unwrap();
        let (own, others) = (records(&sealed), records(&other));
        let opener = opener([7; 32], b"here", &sealed).unwrap();
        let longer = [own[1].1, &[0]].concat();
        let mut damaged = own[0].1.to_vec();
        damaged[0] ^= 1;
        for (what, number, record) in [
            ("another number", 0, own[1].1),
            ("the last one elsewhere", 0, own[2].1),
            ("beyond all numbers", RECORDS_MAX, own[0].1),
            ("another message", 0, others[0].1),
            ("a byte more", 1, longer.as_slice()),
            ("a byte less", 1, &own[1].1[1..]),
            ("one bit", 0, damaged.as_slice()),
            ("shorter than a tag", 0, &own[0].1[..TAG_BYTES - 1]),
            ("nothing", 3, &[]),
        ] {
            let mut opened = Vec::new();
            assert!(opener.open(number, record, &mut opened).is_err(), "{what}");
            assert!(opened.is_empty(), "{what}");
        }
    }

    #[test]
    fn the_commitment_is_checked_before_any_record() {
        let sealed = seal::seal(&Zeroizing::new([7; 32]), b"here", b"plain").unwrap();
        let refused = |key: [u8; 32], context: &[u8], sealed: &[u8]| {
            opener(key, context, sealed).err().map(|why| why.kind())
        };
        assert_eq!(refused([7; 32], b"here", &sealed), None);
        assert_eq!(refused([8; 32], b"here", &sealed), Some(ErrorKind::Corrupt));
        assert_eq!(refused([7; 32], b"else", &sealed), Some(ErrorKind::Corrupt));
        for place in 0..HEADER_BYTES {
            let mut bad = sealed.clone();
            bad[place] ^= 1;
            assert_eq!(refused([7; 32], b"here", &bad), Some(ErrorKind::Corrupt), "byte {place}");
        }
    }

    #[test]
    fn a_length_that_no_message_has_is_told() {
        let (header, record, tag) = (HEADER_BYTES as u64, SEALED_RECORD_BYTES as u64, TAG_BYTES as u64);
        for (sealed_bytes, expected) in [
            (0, None),
            (header, None),
            (header + tag - 1, None),
            (header + tag, Some(0)),
            (header + record - 1, Some(RECORD_BYTES as u64 - 1)),
            (header + record, None),
            (header + record + tag - 1, None),
            (header + record + tag, Some(RECORD_BYTES as u64)),
            (header + (RECORDS_MAX - 1) * record + tag, Some((RECORDS_MAX - 1) * RECORD_BYTES as u64)),
            (header + RECORDS_MAX * record + tag, None),
            (u64::MAX, None),
        ] {
            assert_eq!(plain_bytes(sealed_bytes), expected, "{sealed_bytes} bytes");
        }
    }
}
