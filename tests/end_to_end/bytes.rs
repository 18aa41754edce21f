//! The stored bytes, read by others: an independent decryptor and plain zstd.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use backup_core::seal::{self, MessageKey};
use bson::RawDocument;

use crate::fixture::Fixture;

fn oracle(verb: &str, key: &[u8], context: &[u8], input: &[u8]) -> Result<Vec<u8>, String> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python = local::Cloud::default_directory().join("python/bin/python");
    let mut child = Command::new(python)
        .arg(here.join("seal_oracle.py"))
        .args([verb, &hex::encode(key), &hex::encode(context)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() { Ok(output.stdout) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

pub(crate) fn the_oracle_and_we_open_what_the_other_sealed(_: &Fixture) {
    let (key, context) = (MessageKey::new([42; 32]), b"a place".as_slice());
    for length in [0_usize, 1, 16_383, 16_384, 16_385, 100_000] {
        let plain: Vec<u8> = (0..length).map(|i| u8::try_from(i % 253).unwrap()).collect();
        let ours = seal::seal(&key, context, &plain).unwrap();
        assert!(
            oracle("open", key.as_slice(), context, &ours).unwrap() == plain,
            "it opens ours of {length}"
        );
        let theirs = oracle("seal", key.as_slice(), context, &plain).unwrap();
        assert!(seal::open(key.clone(), context, &theirs).unwrap() == plain, "we open theirs of {length}");
        let refused = oracle("open", key.as_slice(), b"elsewhere", &ours).unwrap_err();
        assert!(refused.contains("commitment"), "{refused}");
    }
}

/// As `docs/FORMAT.md` tells it to a stranger: header, KMS, the oracle, zstd; and out come the documents.
pub(crate) fn a_chunk_is_read_without_any_of_our_code(fixture: &Fixture) {
    let database = fixture.database("stranger");
    fixture.fill(&database, "things", 0, 100);
    let backup = fixture.back_up("stranger");
    let (bucket, id) = (fixture.stack("Bucket"), backup["id"].as_str().unwrap());
    let (object, key) = fixture.run(async {
        let s3 = aws_sdk_s3::Client::new(&fixture.config);
        let pages = s3.list_objects_v2().bucket(&bucket).prefix("manual/").into_paginator().send();
        let pages = pages.try_collect().await.unwrap();
        let paths = pages.iter().flat_map(ListObjectsV2Output::contents).filter_map(|it| it.key());
        let path = paths.into_iter().find(|it| it.contains(&format!("{id}/chunks/")));
        let got = s3.get_object().bucket(&bucket).key(path.unwrap()).send().await.unwrap();
        let object = got.body.collect().await.unwrap().into_bytes();
        assert_eq!(object[..8], *b"NIGHTSAF");
        let wrapped = counted(&object, 10 + counted(&object, 8).len());
        let kms = aws_sdk_kms::Client::new(&fixture.config);
        let mut decrypt = kms.decrypt().ciphertext_blob(aws_sdk_kms::primitives::Blob::new(wrapped));
        for (name, value) in [("format", "1"), ("source", "main"), ("operation", id), ("purpose", "chunk")] {
            decrypt = decrypt.encryption_context(format!("nightsafe:{name}"), value);
        }
        (object.clone(), decrypt.send().await.unwrap().plaintext.unwrap().into_inner())
    });
    let context = counted(&object, 8);
    let header = 8 + 2 + context.len() + 2 + counted(&object, 10 + context.len()).len();
    let opened = oracle("open", &key, context, &object[header..]).unwrap();
    let mut documents = zstd::decode_all(opened.as_slice()).unwrap();
    let mut numbers = Vec::new();
    while !documents.is_empty() {
        let length = usize::try_from(i32::from_le_bytes(documents[..4].try_into().unwrap())).unwrap();
        let rest = documents.split_off(length);
        numbers.push(RawDocument::from_bytes(&documents).unwrap().get_i32("_id").unwrap());
        documents = rest;
    }
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

/// The bytes behind a two-byte big-endian length at `at`.
fn counted(object: &[u8], at: usize) -> &[u8] {
    let length = usize::from(u16::from_be_bytes([object[at], object[at + 1]]));
    &object[at + 2..at + 2 + length]
}
