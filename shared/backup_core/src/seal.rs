//! Sealing: C2SP chunked-encryption, Cobblestone-256 (HKDF-SHA-512, AES-256-GCM, 16 KiB records, key commitment).
//!
//! Nothing is invented here; `docs/FORMAT.md` tells the layout. Invariants: the commitment is checked before any
//! record (in constant time), no byte of a record is given out before its tag is verified, and a message that does
//! not end in a short record is refused as truncated. One key seals one message: data keys are drawn afresh for
//! every attempt, and the salt is random all the same.

mod record_opener;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hmac::{Hmac, Mac};
use sha2::Sha512;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result, corrupt};

pub use record_opener::{RecordOpener, plain_bytes};

/// Plaintext bytes of every record but the last.
pub const RECORD_BYTES: usize = 16 * 1024;
/// Bytes of an authentication tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of every sealed record but the last.
pub const SEALED_RECORD_BYTES: usize = RECORD_BYTES + TAG_BYTES;
/// Bytes before the first record: salt and commitment.
pub const HEADER_BYTES: usize = SALT_BYTES + COMMITMENT_BYTES;
const SALT_BYTES: usize = 24;
const COMMITMENT_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
/// The specification's bound on the record number.
const RECORDS_MAX: u64 = 1 << 38;
const INFO: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";

/// A key for one message, wiped when dropped.
pub type MessageKey = Zeroizing<[u8; KEY_BYTES]>;

/// What both directions derive from key, salt and context.
struct Schedule {
    cipher: Aes256Gcm,
    base_nonce: [u8; NONCE_BYTES],
    commitment: [u8; COMMITMENT_BYTES],
    records: u64,
}

impl Schedule {
    fn derive(key: &MessageKey, salt: &[u8; SALT_BYTES], context: &[u8]) -> Result<Self> {
        let mut okm = Zeroizing::new([0_u8; KEY_BYTES + NONCE_BYTES + COMMITMENT_BYTES]);
        expand(key.as_slice(), &[INFO, salt, context], okm.as_mut_slice())?;
        let (cipher_key, rest) = okm.split_at(KEY_BYTES);
        let (nonce, commitment) = rest.split_at(NONCE_BYTES);
        let internal = |_| Error::new(ErrorKind::Internal, "cut derived keys");
        Ok(Self {
            cipher: Aes256Gcm::new_from_slice(cipher_key)
                .map_err(|_| Error::new(ErrorKind::Internal, "set up AES-256-GCM"))?,
            base_nonce: nonce.try_into().map_err(internal)?,
            commitment: commitment.try_into().map_err(internal)?,
            records: 0,
        })
    }

    /// What opens the message that begins with `header`, if it was sealed under `key` and bound to `context`.
    fn of_message(key: &MessageKey, context: &[u8], header: &[u8; HEADER_BYTES]) -> Result<Self> {
        let (salt, commitment) = header.split_at(SALT_BYTES);
        let salt = salt.try_into().map_err(|_| Error::new(ErrorKind::Internal, "cut a salt"))?;
        let schedule = Self::derive(key, salt, context)?;
        if bool::from(schedule.commitment.ct_eq(commitment)) {
            Ok(schedule)
        } else {
            Err(corrupt("open a sealed object: the commitment does not match (another key, place or time)"))
        }
    }

    /// The number of the next record; counts it.
    const fn next_record(&mut self) -> u64 {
        let number = self.records;
        self.records += 1;
        number
    }

    /// The nonce of record `number`.
    fn nonce(&self, number: u64) -> Result<Nonce<aes_gcm::aead::consts::U12>> {
        if number >= RECORDS_MAX {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "seal or open more than 2^38 records in one object",
            ));
        }
        let mut nonce = self.base_nonce;
        for (byte, counter) in nonce.iter_mut().rev().zip(number.to_le_bytes()) {
            *byte ^= counter;
        }
        Ok(nonce.into())
    }
}

/// HKDF-Expand (RFC 5869) with SHA-512. The input key is the PRK as it is: a crate's `from_prk` would refuse 32
/// bytes, so the three lines of the construction stand here over the crate's HMAC.
fn expand(prk: &[u8], info: &[&[u8]], okm: &mut [u8]) -> Result<()> {
    let mut block: Zeroizing<Vec<u8>> = Zeroizing::default();
    for (piece, counter) in okm.chunks_mut(64).zip(1_u8..) {
        let mut mac = Hmac::<Sha512>::new_from_slice(prk)
            .map_err(|_| Error::new(ErrorKind::Internal, "set up HMAC-SHA-512"))?;
        mac.update(&block);
        for part in info {
            mac.update(part);
        }
        mac.update(&[counter]);
        block = Zeroizing::new(mac.finalize().into_bytes().to_vec());
        for (to, from) in piece.iter_mut().zip(block.iter()) {
            *to = *from;
        }
    }
    Ok(())
}

/// Seals one message, piece by piece.
pub struct Sealer {
    schedule: Schedule,
    pending: Vec<u8>,
}

impl Sealer {
    /// Starts a message under `key`, bound to `context`; puts salt and commitment into `out`.
    pub fn new(key: &MessageKey, context: &[u8], out: &mut Vec<u8>) -> Result<Self> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt)
            .map_err(|why| Error::new(ErrorKind::Internal, "draw a salt").because(why.to_string()))?;
        Self::with_salt(key, context, &salt, out)
    }

    fn with_salt(
        key: &MessageKey,
        context: &[u8],
        salt: &[u8; SALT_BYTES],
        out: &mut Vec<u8>,
    ) -> Result<Self> {
        let schedule = Schedule::derive(key, salt, context)?;
        out.extend_from_slice(salt);
        out.extend_from_slice(&schedule.commitment);
        Ok(Self { schedule, pending: Vec::with_capacity(RECORD_BYTES) })
    }

    /// Appends the sealed form of as many whole records as `plain` fills; keeps the rest for later.
    pub fn push(&mut self, mut plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        while self.pending.len() + plain.len() >= RECORD_BYTES {
            let (head, tail) = plain.split_at(RECORD_BYTES - self.pending.len());
            let pending = std::mem::take(&mut self.pending);
            self.record(&[&pending, head], out)?;
            plain = tail;
            self.pending = pending;
            self.pending.clear();
        }
        self.pending.extend_from_slice(plain);
        Ok(())
    }

    /// Appends the last, short record.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.record(&[&pending], out)
    }

    fn record(&mut self, plain: &[&[u8]], out: &mut Vec<u8>) -> Result<()> {
        let number = self.schedule.next_record();
        let nonce = self.schedule.nonce(number)?;
        let start = out.len();
        for piece in plain {
            out.extend_from_slice(piece);
        }
        let body = out.get_mut(start..).unwrap_or_default();
        let tag = self
            .schedule
            .cipher
            .encrypt_inout_detached(&nonce, &[], body.into())
            .map_err(|_| Error::new(ErrorKind::Internal, "seal a record"))?;
        out.extend_from_slice(&tag);
        Ok(())
    }
}

/// Opens one message, piece by piece.
pub struct Opener {
    key: MessageKey,
    context: Vec<u8>,
    schedule: Option<Schedule>,
    pending: Vec<u8>,
}

impl Opener {
    /// Will open a message that was sealed under `key` and bound to `context`.
    #[must_use]
    pub fn new(key: MessageKey, context: Vec<u8>) -> Self {
        Self { key, context, schedule: None, pending: Vec::new() }
    }

    /// Takes more sealed bytes; appends the plaintext of every record that is complete and authentic.
    pub fn push(&mut self, sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.pending.extend_from_slice(sealed);
        let mut used = 0;
        if self.schedule.is_none() {
            let Some((header, _)) = self.pending.split_first_chunk::<HEADER_BYTES>() else { return Ok(()) };
            self.schedule = Some(Schedule::of_message(&self.key, &self.context, header)?);
            used = HEADER_BYTES;
        }
        let Some(schedule) = &mut self.schedule else { return Ok(()) };
        while let Some(record) = self.pending.get(used..used + SEALED_RECORD_BYTES) {
            let number = schedule.next_record();
            open_record(schedule, number, record, out)?;
            used += SEALED_RECORD_BYTES;
        }
        self.pending.drain(..used);
        Ok(())
    }

    /// Appends the plaintext of the last record; an error if the message was cut short.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<()> {
        match &mut self.schedule {
            Some(schedule) if self.pending.len() >= TAG_BYTES => {
                let number = schedule.next_record();
                open_record(schedule, number, &self.pending, out)
            }
            _ => Err(corrupt("open a sealed object: truncated, it has no final short record")),
        }
    }
}

fn open_record(schedule: &Schedule, number: u64, record: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let nonce = schedule.nonce(number)?;
    let Some((body, tag)) = record.split_last_chunk::<TAG_BYTES>() else {
        return Err(corrupt(format!("open record {number}: shorter than its tag")));
    };
    let start = out.len();
    out.extend_from_slice(body);
    let plain = out.get_mut(start..).unwrap_or_default();
    let verdict = schedule.cipher.decrypt_inout_detached(&nonce, &[], plain.into(), &Tag::from(*tag));
    if verdict.is_err() {
        out.truncate(start);
        return Err(corrupt(format!("open record {number}: it does not authenticate")));
    }
    Ok(())
}

/// Seals a message that is in memory as a whole.
pub fn seal(key: &MessageKey, context: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
    let mut out =
        Vec::with_capacity(plain.len() + HEADER_BYTES + (plain.len() / RECORD_BYTES + 1) * TAG_BYTES);
    let mut sealer = Sealer::new(key, context, &mut out)?;
    sealer.push(plain, &mut out)?;
    sealer.finish(&mut out)?;
    Ok(out)
}

/// Opens a message that is in memory as a whole.
pub fn open(key: MessageKey, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(sealed.len());
    let mut opener = Opener::new(key, context.to_vec());
    opener.push(sealed, &mut out)?;
    opener.finish(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    #[derive(serde::Deserialize)]
    struct Vector {
        length: usize,
        key: String,
        context: String,
        salt: String,
        commitment: String,
        sealed_length: u64,
        sealed_sha256: String,
        sealed: Option<String>,
    }

    fn vectors() -> Vec<Vector> {
        let rows: Vec<Vector> = serde_json::from_str(include_str!("../tests/seal_vectors.json")).unwrap();
        assert_eq!(rows.len(), 16);
        rows
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| u8::try_from((i * 31 + (i >> 8)) & 0xff).unwrap()).collect()
    }

    fn key(text: &str) -> MessageKey {
        Zeroizing::new(hex::decode(text).unwrap().try_into().unwrap())
    }

    #[test]
    fn all_published_vectors_come_out() {
        for vector in vectors() {
            let (context, plain) = (hex::decode(&vector.context).unwrap(), pattern(vector.length));
            let salt = hex::decode(&vector.salt).unwrap().try_into().unwrap();
            let mut sealed = Vec::new();
            let mut sealer = Sealer::with_salt(&key(&vector.key), &context, &salt, &mut sealed).unwrap();
            sealer.push(&plain, &mut sealed).unwrap();
            sealer.finish(&mut sealed).unwrap();
            assert_eq!(u64::try_from(sealed.len()).unwrap(), vector.sealed_length);
            assert_eq!(hex::encode(&sealed[24..56]), vector.commitment);
            assert_eq!(
                hex::encode(Sha256::digest(&sealed)),
                vector.sealed_sha256,
                "length {}",
                vector.length
            );
            if let Some(whole) = vector.sealed {
                assert_eq!(hex::encode(&sealed), whole);
            }
            assert_eq!(open(key(&vector.key), &context, &sealed).unwrap(), plain);
        }
    }

    #[test]
    fn every_tampering_is_refused_and_gives_no_plaintext_of_its_record() {
        let secret = Zeroizing::new([7; 32]);
        let plain = pattern(2 * RECORD_BYTES + 100);
        let sealed = seal(&secret, b"here", &plain).unwrap();
        let record = |n: usize| HEADER_BYTES + n * SEALED_RECORD_BYTES;
        for place in
            [0, 23, 24, 55, 56, record(1) - 1, record(1), record(2), sealed.len() - 17, sealed.len() - 1]
        {
            let mut bad = sealed.clone();
            bad[place] ^= 1;
            assert_eq!(
                open(secret.clone(), b"here", &bad).unwrap_err().kind(),
                ErrorKind::Corrupt,
                "byte {place}"
            );
        }
        for length in [0, 1, 55, 56, 71, record(1), record(1) + 15, record(2), sealed.len() - 1] {
            assert!(open(secret.clone(), b"here", &sealed[..length]).is_err(), "cut at {length}");
        }
        let mut swapped = sealed.clone();
        swapped[record(0)..record(2)].rotate_left(SEALED_RECORD_BYTES);
        assert!(open(secret.clone(), b"here", &swapped).is_err(), "records swapped");
        let appended = [sealed.as_slice(), &[0]].concat();
        assert!(open(secret.clone(), b"here", &appended).is_err(), "a byte appended");
        assert!(open(secret, b"there", &sealed).is_err(), "another context");
        assert!(open(Zeroizing::new([8; 32]), b"here", &sealed).is_err(), "another key");
    }

    #[test]
    fn the_same_message_is_never_sealed_the_same_way() {
        let secret = Zeroizing::new([7; 32]);
        assert_ne!(seal(&secret, b"", b"x").unwrap(), seal(&secret, b"", b"x").unwrap());
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_make_the_same_message(
            length in 0_usize..60_000, cuts in proptest::collection::vec(0_usize..60_000, 0..6),
        ) {
            let secret = Zeroizing::new([9; 32]);
            let plain = pattern(length);
            let mut sealed = Vec::new();
            let mut sealer = Sealer::new(&secret, b"c", &mut sealed).unwrap();
            for piece in pieces(&plain, &cuts) { sealer.push(piece, &mut sealed).unwrap(); }
            sealer.finish(&mut sealed).unwrap();
            let (mut opened, mut opener) = (Vec::new(), Opener::new(secret, b"c".to_vec()));
            for piece in pieces(&sealed, &cuts) { opener.push(piece, &mut opened).unwrap(); }
            opener.finish(&mut opened).unwrap();
            prop_assert_eq!(opened, plain);
        }
    }

    fn pieces<'a>(whole: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (*cut).min(whole.len())).collect();
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect()
    }
}
