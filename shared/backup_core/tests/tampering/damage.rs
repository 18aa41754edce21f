//! Ways to damage a sealed object: at every structural place, and by parts of other objects.

use std::collections::BTreeSet;
use std::ops::Range;

use backup_core::ErrorKind;
use backup_core::format::Header;
use backup_core::seal::{HEADER_BYTES, RECORD_BYTES, TAG_BYTES};
use bytes::Bytes;

/// The object damaged at every structural place, with what each is refused as: every byte of the clear header, the
/// salt and the commitment; first, middle and last of each record's ciphertext, first and last of its tag; cut at and
/// beside every boundary; records dropped, doubled, appended and turned around.
pub(crate) fn damages(object: &Bytes) -> Vec<(String, Bytes, ErrorKind)> {
    let (ends, records) = (ends(object), records(object));
    // The bytes that end and begin at each boundary, as far as they exist.
    let beside = |reach: Range<usize>| -> BTreeSet<usize> {
        let near = ends.iter().flat_map(|end| reach.clone().map(move |by| (end + by).saturating_sub(1)));
        near.filter(|at| *at < object.len()).collect()
    };
    let mut places = beside(0..2);
    places.extend(0..records[0].start);
    places.extend(records.iter().map(|record| record.start.midpoint(record.end)));
    let flips = places.into_iter().map(|place| (format!("byte {place} flipped"), flip(object, place)));
    let cuts = beside(0..3).into_iter().map(|length| (format!("cut to {length}"), object.slice(..length)));
    let orders = orders(records.len()).into_iter();
    let rearranged = orders.map(|order| (format!("records {order:?}"), rearrange(object, &order)));
    let longer = ("a byte appended".to_owned(), Bytes::from([&object[..], b"\0"].concat()));
    let all = flips.chain(cuts).chain(rearranged).chain([longer]);
    all.map(|(what, bytes)| {
        let another_version = bytes.get(10..12).is_some_and(|version| *version != object[10..12]);
        let kind = if another_version { ErrorKind::Unsupported } else { ErrorKind::Corrupt };
        (what, bytes, kind)
    })
    .collect()
}

/// The lowest bit of one byte turned over.
pub(crate) fn flip(object: &Bytes, place: usize) -> Bytes {
    let mut bytes = object.to_vec();
    bytes[place] ^= 1;
    bytes.into()
}

/// One object out of parts of several: context, wrapped key, salt and commitment, records.
pub(crate) fn splice([context, key, start, records]: [&[u8]; 4]) -> Bytes {
    let clear = Header { context: header(context).context, wrapped_key: header(key).wrapped_key };
    [clear.to_bytes().unwrap().as_slice(), message(start).0, message(records).1].concat().into()
}

pub(crate) fn header(object: &[u8]) -> Header {
    Header::from_bytes(object).unwrap().0
}

/// Salt and commitment, and the records.
pub(crate) fn message(object: &[u8]) -> (&[u8], &[u8]) {
    object[Header::from_bytes(object).unwrap().1..].split_at(HEADER_BYTES)
}

/// Where each record is, its tag included.
pub(crate) fn records(object: &[u8]) -> Vec<Range<usize>> {
    let (start, stored) = (object.len() - message(object).1.len(), RECORD_BYTES + TAG_BYTES);
    (start..object.len()).step_by(stored).map(|at| at..object.len().min(at + stored)).collect()
}

/// Where each part ends: magic, length, context, length, wrapped key, salt, commitment, and of each record the
/// ciphertext and the tag.
fn ends(object: &[u8]) -> Vec<usize> {
    let clear = Header::from_bytes(object).unwrap().1;
    let context = 10 + usize::from(u16::from_be_bytes([object[8], object[9]]));
    let mut ends = vec![0, 8, 10, context, context + 2, clear, clear + 24, clear + HEADER_BYTES];
    ends.extend(records(object).into_iter().flat_map(|record| [record.end - TAG_BYTES, record.end]));
    ends
}

/// Every way to drop or to double one record; the first one appended; their order turned around.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut orders: Vec<Vec<usize>> = vec![(0..count).chain([0]).collect()];
    for n in 0..count {
        orders.push((0..count).filter(|it| *it != n).collect());
        orders.push((0..=n).chain(n..count).collect());
    }
    if count > 1 {
        orders.push((0..count).rev().collect());
    }
    orders
}

fn rearrange(object: &[u8], order: &[usize]) -> Bytes {
    let records = records(object);
    let picked = order.iter().flat_map(|n| &object[records[*n].clone()]);
    object[..records[0].start].iter().chain(picked).copied().collect()
}
