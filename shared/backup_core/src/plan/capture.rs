//! How exactly a namespace can be held, and how it is read.

use crate::namespace::{Label, Namespace, NamespaceKind, OwnName};

/// How a namespace is captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// How exactly it can be held.
    pub label: Label,
    /// Why it is not exact.
    pub reason: Option<&'static str>,
    /// Whether there are documents to read.
    pub documents: bool,
}

/// Decides for one namespace of a server of `major` version.
#[must_use]
pub fn capture(namespace: &Namespace, major: u32) -> Capture {
    let not = |reason| Capture { label: Label::NotCaptured, reason: Some(reason), documents: false };
    let with = |label, reason| Capture { label, reason, documents: true };
    match (namespace.kind, OwnName::parse(&namespace.name), namespace.name.as_str()) {
        (_, Some(OwnName::Staging(..) | OwnName::Filling(..) | OwnName::Filled(..)), _) => {
            not("documents of a restore that has not ended")
        }
        (_, Some(OwnName::Aside(..)), _) => not("kept aside by a restore"),
        (_, None, "system.profile") => not("the server's profiler output"),
        (_, None, "system.js") => not("server-side JavaScript; export it by hand"),
        (_, None, name) if name.starts_with("system.") => not("internal to the server"),
        (NamespaceKind::View, ..) => Capture { label: Label::Exact, reason: None, documents: false },
        (NamespaceKind::Timeseries, ..) => {
            with(Label::BaseOnly, Some("a time-series collection: no change stream brings its measurements"))
        }
        (NamespaceKind::Collection, ..) if namespace.is_capped() && major < 8 => with(
            Label::Fuzzy,
            Some("a capped collection: servers before 8.0 refuse to read it at an instant"),
        ),
        (NamespaceKind::Collection, ..) => with(Label::Exact, None),
    }
}

/// The major version in text like `6.0.5`; 0 if there is none.
#[must_use]
pub fn major_version(version: &str) -> u32 {
    version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, rawdoc};

    use super::*;
    use crate::id::{CollectionUuid, OperationId};

    #[test]
    fn every_kind_of_namespace_gets_its_label() {
        let capped = rawdoc! { "capped": true, "size": 4096 };
        let own = OwnName::Staging(OperationId::from_bytes([1; 16]), 3).to_string();
        let none = RawDocumentBuf::new;
        for (name, kind, options, major, label, documents) in [
            ("leads", NamespaceKind::Collection, none(), 6, Label::Exact, true),
            ("log", NamespaceKind::Collection, capped.clone(), 6, Label::Fuzzy, true),
            ("log", NamespaceKind::Collection, capped, 8, Label::Exact, true),
            ("weather", NamespaceKind::Timeseries, none(), 7, Label::BaseOnly, true),
            ("active", NamespaceKind::View, none(), 6, Label::Exact, false),
            ("system.profile", NamespaceKind::Collection, none(), 6, Label::NotCaptured, false),
            ("system.js", NamespaceKind::Collection, none(), 6, Label::NotCaptured, false),
            (&own, NamespaceKind::Collection, none(), 6, Label::NotCaptured, false),
        ] {
            let namespace = Namespace {
                name: name.into(),
                kind,
                uuid: Some(CollectionUuid::NONE),
                options,
                indexes: vec![],
                unfinished_indexes: vec![],
            };
            let capture = capture(&namespace, major);
            assert_eq!((capture.label, capture.documents), (label, documents), "{name} on {major}");
            assert_eq!(capture.reason.is_none(), label == Label::Exact, "every other label says why: {name}");
        }
    }

    #[test]
    fn versions_are_read() {
        for (text, major) in [("6.0.5", 6), ("8.2.0-rc1", 8), ("", 0), ("x", 0)] {
            assert_eq!(major_version(text), major);
        }
    }
}
