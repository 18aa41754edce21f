//! What is read out of a resume token. To everybody else it is opaque.
//!
//! A token is `{_data: hex}`, the server's sort key of a place in the stream: `82` and the cluster time, then what is of
//! no use here. Seen on 6.0.5, and so in the server's source ever since.

use backup_core::id::ClusterTime;
use bson::RawDocument;

/// Digits of a type byte and a cluster time.
const TIME_DIGITS: usize = 18;

/// The instant of a token.
pub(crate) fn time(token: &RawDocument) -> Option<ClusterTime> {
    let digits = token.get_str("_data").ok()?.get(..TIME_DIGITS)?.strip_prefix("82")?;
    u64::from_str_radix(digits, 16).ok().map(ClusterTime::from_u64)
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[test]
    fn a_token_tells_its_instant() {
        let check = |text: &str, ordinal: Option<u32>| {
            let expected = ordinal.map(|ordinal| ClusterTime { seconds: 1_795_386_296, ordinal });
            assert_eq!(time(&rawdoc! { "_data": text }), expected, "{text}");
        };
        check("826B036BB8000000032B022C0100296E5A1004D164D719", Some(3)); // behind a change
        check("826B036BB8000000092B022C01002B046E5A1004D164D7", Some(9)); // behind one of a transaction
        check("826B036BB8000000012B0229296E04", Some(1)); // the end of an empty batch
        check("826B036BB800000001", Some(1));
        check("826B036BB80000000", None);
        check("7A6B036BB8000000012B0229296E04", None);
        check("", None);
        check("82é6B036BB8000000", None);
        assert_eq!(time(&rawdoc! { "_data": 1 }), None);
    }
}
