//! What the watch sees, and what it remembers: each finding is told once, again every day while it lasts, and forgotten
//! when it ends.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::alert::Alert;
use crate::error::Error;
use crate::id::SourceName;

/// While a finding lasts, it is told again after this.
const AGAIN_MILLIS: u64 = 24 * 3_600_000;
/// What may be a hiccup is told once it has lasted for this: two runs, which are five minutes apart, see it again.
const PATIENCE_MILLIS: u64 = 9 * 60_000;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is known by from one run to the next.
    pub key: String,
    /// How it is told.
    pub alert: Alert,
    /// How long it has to last before it is told, in milliseconds.
    pub patience_millis: u64,
}

impl Finding {
    /// Told at once.
    #[must_use]
    pub fn new(key: impl Into<String>, alert: Alert) -> Self {
        Self { key: key.into(), alert, patience_millis: 0 }
    }

    /// Told if the next runs see it as well.
    #[must_use]
    pub fn once_it_lasts(mut self) -> Self {
        self.patience_millis = PATIENCE_MILLIS;
        self
    }

    /// Told at once, unless `why` may be gone the next time.
    #[must_use]
    pub fn caused_by(self, why: &Error) -> Self {
        if why.kind().is_retryable() { self.once_it_lasts() } else { self }
    }
}

/// What one run saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Keys of what could not be looked at: it may be as wrong as it was. One that ends in `/` stands for all that
    /// begin with it.
    pub unseen: Vec<String>,
}

impl Sighting {
    /// Notes that `what` could not be looked at, and with it nothing that would have these keys.
    pub fn fail(&mut self, source: SourceName, what: &str, unseen: &[&str], why: &Error) {
        let alert = Alert::not_looked_at(source, what, why);
        self.findings.push(Finding::new(format!("look/{what}"), alert).caused_by(why));
        self.unseen.extend(unseen.iter().map(|key| (*key).to_owned()));
    }

    /// The worst first.
    pub fn sort(&mut self) {
        self.findings.sort_by(|left, right| {
            right.alert.severity.cmp(&left.alert.severity).then_with(|| left.key.cmp(&right.key))
        });
    }

    fn may_last(&self, key: &str) -> bool {
        let is_unseen = |it: &String| it == key || (it.ends_with('/') && key.starts_with(it.as_str()));
        self.unseen.iter().any(is_unseen)
    }
}

/// What the watch remembers. Small: it has the keys of what is wrong now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchState {
    /// Counts its writes: a write with an older count is refused.
    pub revision: u64,
    /// When each finding was first seen, in milliseconds since 1970 UTC.
    pub since: BTreeMap<String, u64>,
    /// When each finding was last told, in milliseconds since 1970 UTC.
    pub told: BTreeMap<String, u64>,
}

impl WatchState {
    /// Whether a finding is to be told. Should the clock have jumped, it is rather told once more.
    #[must_use]
    pub fn is_news(&self, finding: &Finding, now_millis: u64) -> bool {
        match (self.told.get(&finding.key), self.since.get(&finding.key)) {
            (Some(told), _) => now_millis.abs_diff(*told) >= AGAIN_MILLIS,
            (None, Some(since)) => now_millis.abs_diff(*since) >= finding.patience_millis,
            (None, None) => finding.patience_millis == 0,
        }
    }

    /// What is remembered after a run that saw this, and told the findings with these keys.
    #[must_use]
    pub fn after(&self, seen: &Sighting, told: &BTreeSet<String>, now_millis: u64) -> Self {
        let keys: BTreeSet<&str> = seen.findings.iter().map(|finding| finding.key.as_str()).collect();
        let lasts = |key: &String| keys.contains(key.as_str()) || seen.may_last(key);
        let mut next = self.clone();
        next.since.retain(|key, _| lasts(key));
        next.told.retain(|key, _| lasts(key));
        for key in keys {
            next.since.entry(key.to_owned()).or_insert(now_millis);
        }
        next.told.extend(told.iter().map(|key| (key.clone(), now_millis)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const HOUR: u64 = 3_600_000;
    const NOW: u64 = 1_795_312_800_000;

    fn finding(key: &str) -> Finding {
        let why = Error::new(ErrorKind::Denied, "look");
        Finding::new(key, Alert::not_looked_at("main".parse().unwrap(), "it", &why))
    }

    /// When the watch runs (in milliseconds behind [`NOW`]), what it sees, and what it fails to look at.
    type Run<'a> = (u64, &'a [Finding], &'a [&'a str]);

    fn run<'a>(at: u64, findings: &'a [Finding], unseen: &'a [&'a str]) -> Run<'a> {
        (at, findings, unseen)
    }

    /// The keys that each run tells.
    fn told(runs: &[Run<'_>]) -> Vec<Vec<String>> {
        let mut state = WatchState::default();
        let mut all = Vec::new();
        for (at, findings, unseen) in runs {
            let unseen = unseen.iter().map(|key| (*key).to_owned()).collect();
            let seen = Sighting { findings: findings.to_vec(), unseen };
            let news = seen.findings.iter().filter(|finding| state.is_news(finding, NOW + at));
            let keys: BTreeSet<String> = news.map(|finding| finding.key.clone()).collect();
            state = state.after(&seen, &keys, NOW + at);
            all.push(keys.into_iter().collect());
        }
        all
    }

    fn check(name: &str, runs: &[Run<'_>], expected: &[&[&str]]) {
        assert_eq!(told(runs), expected, "{name}");
    }

    #[test]
    fn a_finding_is_told_once_a_day_while_it_lasts() {
        let (one, two) = ([finding("backup/crm")], [finding("backup/crm"), finding("clock")]);
        let runs = [run(0, &one, &[]), run(HOUR, &one, &[]), run(23 * HOUR, &one, &[])];
        check("once", &runs, &[&["backup/crm"], &[], &[]]);
        let runs = [run(0, &one, &[]), run(24 * HOUR, &one, &[]), run(25 * HOUR, &one, &[])];
        check("again", &runs, &[&["backup/crm"], &["backup/crm"], &[]]);
        let runs = [run(0, &one, &[]), run(HOUR, &[], &[]), run(2 * HOUR, &one, &[])];
        check("it came back", &runs, &[&["backup/crm"], &[], &["backup/crm"]]);
        let runs = [run(0, &one, &[]), run(HOUR, &two, &[])];
        check("another", &runs, &[&["backup/crm"], &["clock"]]);
        let runs = [run(70 * 365 * 24 * HOUR, &one, &[]), run(0, &one, &[])];
        check("the clock was wrong", &runs, &[&["backup/crm"], &["backup/crm"]]);
    }

    #[test]
    fn what_could_not_be_looked_at_is_not_forgotten() {
        let one = [finding("backup/crm")];
        for (unseen, expected) in [("backup/", 0), ("backup/crm", 0), ("backup/cr", 1), ("window/", 1)] {
            let hidden = [unseen];
            let runs = [run(0, &one, &[]), run(HOUR, &[], &hidden), run(2 * HOUR, &one, &[])];
            assert_eq!(told(&runs)[2].len(), expected, "{unseen}");
        }
    }

    #[test]
    fn a_hiccup_is_not_told() {
        const MINUTE: u64 = 60_000;
        let one = [finding("region/eu-west-1").once_it_lasts()];
        let runs = [run(0, &one, &[]), run(5 * MINUTE, &[], &[]), run(10 * MINUTE, &one, &[])];
        check("hiccups", &runs, &[&[], &[], &[]]);
        let runs = [run(0, &one, &[]), run(5 * MINUTE, &one, &[]), run(10 * MINUTE, &one, &[])];
        check("it lasts", &runs, &[&[], &[], &["region/eu-west-1"]]);
        for (kind, patience_millis) in [
            (ErrorKind::Transient, PATIENCE_MILLIS),
            (ErrorKind::Throttled, PATIENCE_MILLIS),
            (ErrorKind::Denied, 0),
            (ErrorKind::Gone, 0),
            (ErrorKind::Corrupt, 0),
        ] {
            let why = Error::new(kind, "look");
            assert_eq!(finding("it").caused_by(&why).patience_millis, patience_millis, "{kind:?}");
        }
    }

    #[test]
    fn the_memory_holds_what_is_wrong_now_and_nothing_else() {
        let seen = Sighting { findings: vec![finding("clock")], unseen: vec![] };
        let told = BTreeSet::from(["clock".to_owned()]);
        let state = WatchState { revision: 7, ..WatchState::default() }.after(&seen, &told, NOW);
        let expected = BTreeMap::from([("clock".to_owned(), NOW)]);
        assert_eq!(state, WatchState { revision: 7, since: expected.clone(), told: expected });
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<WatchState>(&json).unwrap(), state);
        let empty = WatchState { revision: 7, ..WatchState::default() };
        assert_eq!(state.after(&Sighting::default(), &BTreeSet::new(), NOW), empty);
    }
}
