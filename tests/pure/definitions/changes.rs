//! A delivery with one bit changed, for each bit of each part that a definition covers.

use super::model::{Layout, Model, Piece};
use super::{COVERED, Sent};

impl Model {
    /// The delivery with each bit changed, of each part that is covered.
    pub(super) fn changes(&self, sent: &Sent) -> Vec<(String, Sent)> {
        let mut changes = Vec::new();
        let covers = |piece| self.algorithm != "equal" && self.signed.contains(&piece);
        if covers(Piece::Body) {
            for (at, bit) in bits(0..sent.body.len()) {
                let mut changed = sent.clone();
                changed.body[at] ^= bit;
                changes.push(("the body".to_owned(), changed));
            }
        }
        let time = |name: &str| name == format!("x-{}-time", self.used);
        let id = |name: &str| name == format!("x-{}-id", self.used);
        for (which, (name, value)) in sent.headers.iter().enumerate() {
            let known = COVERED.iter().position(|known| known == name);
            let covered = known.is_some_and(|at| covers(Piece::Header(at)))
                || time(name) && covers(Piece::Timestamp)
                || id(name) && covers(Piece::Id);
            let holds_signature = *name == format!("x-{}-signature", self.used);
            let range = match (&self.format, holds_signature) {
                (Layout::Pairs { .. }, true) if covers(Piece::Timestamp) => self.time_within(value),
                _ if covered => 0..value.len(),
                _ => continue,
            };
            for (at, bit) in bits(range) {
                let mut changed = sent.clone();
                changed.headers[which].1[at] ^= bit;
                changes.push((name.clone(), changed));
            }
        }
        let split = sent.target.find('?').unwrap_or(sent.target.len());
        let mut target: Vec<usize> = Vec::new();
        if covers(Piece::Url) {
            target.extend(0..sent.target.len());
        }
        if covers(Piece::Path) {
            target.extend(0..split);
        }
        if covers(Piece::Query) {
            target.extend(split + 1..sent.target.len());
        }
        for (text, places, name) in [
            (&sent.target, target, "the target"),
            (
                &sent.method,
                if covers(Piece::Method) { (0..sent.method.len()).collect() } else { vec![] },
                "the method",
            ),
        ] {
            for (at, bit) in bits(places.into_iter()) {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= bit;
                let Ok(text) = String::from_utf8(bytes) else { continue };
                let mut changed = sent.clone();
                if name == "the target" {
                    changed.target = text
                } else {
                    changed.method = text
                }
                changes.push((name.to_owned(), changed));
            }
        }
        changes.extend(self.signature_changes(sent));
        changes
    }

    /// The place of the timestamp in a header of pairs.
    fn time_within(&self, value: &[u8]) -> std::ops::Range<usize> {
        let Layout::Pairs { timestamp, separator, .. } = &self.format else { unreachable!() };
        let text = std::str::from_utf8(value).unwrap();
        let key = format!("{timestamp}=");
        let start = if text.starts_with(&key) {
            key.len()
        } else {
            text.find(&format!("{separator}{key}")).unwrap() + separator.len() + key.len()
        };
        start..text[start..].find(separator).map_or(text.len(), |end| start + end)
    }

    /// The delivery with each bit of the signature's text changed, or of the secret that is sent.
    fn signature_changes(&self, sent: &Sent) -> Vec<(String, Sent)> {
        let name = format!("x-{}-signature", self.used);
        let which = sent.headers.iter().position(|(known, _)| *known == name).unwrap();
        let text = String::from_utf8(sent.headers[which].1.clone()).unwrap();
        let (before, after, separator) = match &self.format {
            Layout::Around { before, after, separator: None, .. } => (*before, *after, None),
            Layout::Around { .. } => return Vec::new(),
            Layout::Pairs { signature, separator, .. } => (*signature, "", Some(*separator)),
        };
        let range = match separator {
            None => before.len()..text.len() - after.len(),
            Some(separator) => {
                let key = format!("{before}=");
                let start = if text.starts_with(&key) {
                    key.len()
                } else {
                    text.find(&format!("{separator}{key}")).unwrap() + separator.len() + key.len()
                };
                start..text[start..].find(separator).map_or(text.len(), |end| start + end)
            }
        };
        let mut changes = Vec::new();
        for (at, bit) in bits(range) {
            let mut changed = sent.clone();
            let value = &mut changed.headers[which].1;
            value[at] ^= bit;
            // The other case of a hex digit is no change of what is claimed.
            let is_hex = self.encoding == "hex" && self.algorithm != "equal";
            if is_hex && value.eq_ignore_ascii_case(text.as_bytes()) {
                continue;
            }
            changes.push(("the signature".to_owned(), changed));
        }
        changes
    }
}

/// Each byte's place with each bit, but the eighth, which leaves ASCII, only in bytes of a body.
fn bits(places: impl Iterator<Item = usize>) -> impl Iterator<Item = (usize, u8)> {
    places.flat_map(|at| (0..8).map(move |bit| (at, 1 << bit)))
}
