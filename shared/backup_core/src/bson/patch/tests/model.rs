//! Random documents, and what a server logs where one becomes the other, over values and not over bytes.

use bson::{Bson, Document, doc};

/// Random choices; behind their end, every choice is the first one.
pub(super) struct Choices(std::vec::IntoIter<u8>);

impl Choices {
    pub(super) fn new(choices: Vec<u8>) -> Self {
        Self(choices.into_iter())
    }

    fn one_of(&mut self, count: usize) -> usize {
        usize::from(self.0.next().unwrap_or(0)) % count
    }

    fn name(&mut self) -> String {
        const NAMES: [&str; 9] = ["a", "b", "", "0", "s", "10", "x.y", "$c", "_id"];
        NAMES[self.one_of(NAMES.len())].to_owned()
    }

    fn value(&mut self, levels: usize) -> Bson {
        match self.one_of(if levels == 0 { 4 } else { 8 }) {
            0 => Bson::Null,
            1 => Bson::Boolean(true),
            2 => Bson::String("s".repeat(self.one_of(20))),
            3 => Bson::Int32(i32::try_from(self.one_of(100)).unwrap()),
            4 | 5 => Bson::Document(self.document(levels - 1)),
            _ => Bson::Array((0..self.one_of(5)).map(|_| self.value(levels - 1)).collect()),
        }
    }

    pub(super) fn document(&mut self, levels: usize) -> Document {
        (0..self.one_of(6)).map(|_| (self.name(), self.value(levels))).collect()
    }

    /// A value that is like this one, more or less.
    fn changed(&mut self, value: &Bson) -> Bson {
        match value {
            Bson::Document(document) => Bson::Document(self.changed_document(document)),
            Bson::Array(items) => Bson::Array(self.changed_array(items)),
            _ => self.value(1),
        }
    }

    pub(super) fn changed_document(&mut self, before: &Document) -> Document {
        let mut fields: Vec<(String, Bson)> = Vec::new();
        for (name, value) in before {
            match self.one_of(6) {
                0 | 1 => fields.push((name.clone(), value.clone())),
                2 => {}
                3 => fields.insert(self.one_of(fields.len() + 1), (name.clone(), value.clone())),
                _ => fields.push((name.clone(), self.changed(value))),
            }
        }
        for _ in 0..self.one_of(3) {
            let field = (self.name(), self.value(2));
            fields.insert(self.one_of(fields.len() + 1), field);
        }
        fields.into_iter().collect()
    }

    fn changed_array(&mut self, before: &[Bson]) -> Vec<Bson> {
        let length = if self.one_of(3) == 0 { self.one_of(before.len() + 1) } else { before.len() };
        let kept = before.iter().take(length);
        let mut after: Vec<Bson> =
            kept.map(|item| if self.one_of(2) == 0 { item.clone() } else { self.changed(item) }).collect();
        after.extend((0..self.one_of(3)).map(|_| self.value(1)));
        after
    }

    /// What a server logs where one document became the other.
    pub(super) fn document_diff(&mut self, before: &Document, after: &Document) -> Document {
        let (mut deleted, mut updated) = (Document::new(), Document::new());
        let (mut inserted, mut inner) = (Document::new(), Document::new());
        let mut new = after.iter().peekable();
        for (name, value) in before {
            match new.next_if(|(new_name, _)| *new_name == name) {
                None => _ = deleted.insert(name, false),
                Some((_, new_value)) if is_same(value, new_value) => {}
                Some((_, new_value)) => match self.diff(value, new_value) {
                    Some(diff) => _ = inner.insert(format!("s{name}"), diff),
                    None => _ = updated.insert(name, new_value),
                },
            }
        }
        for (name, value) in new {
            deleted.remove(name);
            inserted.insert(name, value);
        }
        let sections = [("d", deleted), ("u", updated), ("i", inserted)];
        let sections = sections.into_iter().filter(|(_, section)| !section.is_empty());
        let mut diff: Document = sections.map(|(name, section)| (name.to_owned(), section.into())).collect();
        diff.extend(inner);
        diff
    }

    fn array_diff(&mut self, before: &[Bson], after: &[Bson]) -> Document {
        let mut diff = doc! { "a": true };
        if after.len() < before.len() {
            diff.insert("l", i32::try_from(after.len()).unwrap());
        }
        for (index, value) in after.iter().enumerate() {
            let old = before.get(index);
            if old.is_some_and(|old| is_same(old, value)) {
                continue;
            }
            match old.and_then(|old| self.diff(old, value)) {
                Some(inner) => diff.insert(format!("s{index}"), inner),
                None => diff.insert(format!("u{index}"), value),
            };
        }
        diff
    }

    /// None where the value is logged as a whole, because that is shorter, or nothing is alike.
    fn diff(&mut self, before: &Bson, after: &Bson) -> Option<Document> {
        match (before, after) {
            _ if self.one_of(5) == 4 => None,
            (Bson::Document(before), Bson::Document(after)) => Some(self.document_diff(before, after)),
            (Bson::Array(before), Bson::Array(after)) => Some(self.array_diff(before, after)),
            _ => None,
        }
    }
}

/// Unlike `==`, this sees the order of fields.
fn is_same(one: &Bson, other: &Bson) -> bool {
    doc! { "": one }.to_vec().unwrap() == doc! { "": other }.to_vec().unwrap()
}
