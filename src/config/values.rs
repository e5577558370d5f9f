//! The values that keys hold: numbers, words, addresses, files, secrets.
//!
//! Keeps true: a printed value reads back as the same value, and a secret is printed only as a reference.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::Located;
use super::item::Item;
use super::keys::{FullKey, Reference, Target};
use super::kinds::ValueKind;
use super::print::{Shown, list, quote, reference};
use super::section::Section;
use super::units::{Unit, as_milliseconds, show_duration};
use crate::base::label::Label;
use crate::base::peer::Network;
use crate::config::secret::{Secret, SecretRef};

/// A value with a fixed default.
pub(super) fn value<V: Clone + PartialEq + 'static>(
    allowed: impl Into<String>,
    default: V,
    read: impl Fn(&Item<'_>) -> Option<V> + 'static,
    show: impl Fn(&V) -> String + 'static,
) -> ValueKind<V> {
    ValueKind::new(allowed, move |_, _| default.clone(), read, move |value| Some(Shown::Value(show(value))))
}

pub(super) fn flag(default: bool) -> ValueKind<bool> {
    value("true or false", default, |item| item.flag(), bool::to_string)
}

/// A text that is not blank.
pub(super) fn text(what: &'static str, default: &str) -> ValueKind<String> {
    value(what, default.to_owned(), |item| item.text(what).map(str::to_owned), |text| quote(text))
}

/// The path of a folder, relative to the config file's.
pub(super) fn folder(default: &str) -> ValueKind<PathBuf> {
    let read = |item: &Item<'_>| item.text("a path").map(PathBuf::from);
    value("a path", PathBuf::from(default), read, |path| quote(&path.to_string_lossy()))
}

/// One of the values `of`, by its label.
pub(super) fn choice<V: Label + PartialEq>(of: &'static [V], default: V) -> ValueKind<V> {
    let label = |value: &V| V::LABELS.get(value.index()).copied().unwrap_or_default();
    let words = of.iter().map(|value| quote(label(value))).collect::<Vec<_>>().join(" or ");
    let allowed = words.clone();
    let read = move |item: &Item<'_>| {
        let found = of.iter().find(|value| Some(label(value)) == item.as_text());
        found.copied().or_else(|| item.expected(&words))
    };
    value(allowed, default, read, move |value| quote(label(value)))
}

/// A whole number in `range`.
pub(super) fn whole<N: Integer>(range: RangeInclusive<u64>, default: N) -> ValueKind<N> {
    let allowed = within(&range, |number| number.to_string());
    let read = move |item: &Item<'_>| item.integer(&range)?.try_into().ok();
    value(allowed, default, read, |number| (*number).try_into().unwrap_or(u64::MAX).to_string())
}

/// A number from 0 to 1.
pub(super) fn fraction(default: f64) -> ValueKind<f64> {
    value("0 to 1", default, |item| item.fraction(), f64::to_string)
}

/// A size in `range`, in bytes.
pub(super) fn size<N: Integer>(range: RangeInclusive<u64>, default: N) -> ValueKind<N> {
    let allowed = within(&range, |size| Unit::Size.show(size));
    let read = move |item: &Item<'_>| item.quantity(Unit::Size, &range)?.try_into().ok();
    value(allowed, default, read, |size| quote(&Unit::Size.show((*size).try_into().unwrap_or(u64::MAX))))
}

/// A duration in `range`.
pub(super) fn duration(range: RangeInclusive<Duration>, default: Duration) -> ValueKind<Duration> {
    let range = as_milliseconds(*range.start())..=as_milliseconds(*range.end());
    let allowed = within(&range, |time| Unit::Time.show(time));
    let read = move |item: &Item<'_>| item.quantity(Unit::Time, &range).map(Duration::from_millis);
    value(allowed, default, read, |time| quote(&show_duration(*time)))
}

/// The integer types of config fields.
pub(super) trait Integer: Copy + PartialEq + TryFrom<u64> + TryInto<u64> + 'static {}
impl<N: Copy + PartialEq + TryFrom<u64> + TryInto<u64> + 'static> Integer for N {}

fn within(range: &RangeInclusive<u64>, show: impl Fn(u64) -> String) -> String {
    match (show(*range.start()), *range.end()) {
        (from, UNBOUNDED) => format!("{from} or more"),
        (from, to) => format!("{from} to {}", show(to)),
    }
}

/// An address to listen on.
pub(super) fn address(default: ([u8; 4], u16)) -> ValueKind<SocketAddr> {
    let show = |address: &SocketAddr| quote(&address.to_string());
    value("an address with its port", default.into(), |item| item.address(), show)
}

/// Addresses to listen on: one, or a list of at least one; none twice.
pub(super) fn addresses(default: ([u8; 4], u16)) -> ValueKind<Vec<SocketAddr>> {
    let read = |item: &Item<'_>| {
        let Some(items) = item.list() else { return Some(vec![item.address()?]) };
        if items.is_empty() {
            return item.expected("at least one address");
        }
        let mut addresses = Vec::new();
        for item in items {
            let Some(address) = item.address() else { continue };
            if address.port() != 0 && addresses.contains(&address) {
                item.problem(format!("{address} is listed twice"));
            }
            addresses.push(address);
        }
        (!addresses.is_empty()).then_some(addresses)
    };
    let show = |addresses: &Vec<SocketAddr>| match addresses.as_slice() {
        [one] => quote(&one.to_string()),
        several => list(several),
    };
    value("an address with its port, or a list of them", vec![default.into()], read, show)
}

/// Networks. A bare address is a network of one.
pub(super) fn networks() -> ValueKind<Vec<Network>> {
    let what = "a list of networks such as [\"203.0.113.0/24\"]";
    let read = move |item: &Item<'_>| match item.list() {
        Some(items) => Some(items.iter().filter_map(|item| item.network()).collect()),
        None => item.expected(what),
    };
    value("a list of networks and addresses", Vec::new(), read, |networks| list(networks))
}

/// A moment: a time, or a date. `after_it` makes a date the first moment after that day.
pub(super) fn moment(after_it: bool) -> ValueKind<Timestamp> {
    let read = move |item: &Item<'_>| item.moment(after_it);
    value("a date or a time", Timestamp::default(), read, Timestamp::to_string)
}

/// The path of a file that the gateway reads. Problems call it `what`.
pub(super) fn file(what: &'static str) -> ValueKind<Located<PathBuf>> {
    let read = |item: &Item<'_>| Some(item.base().join(item.text(what)?));
    let kind = value("the path of a file", PathBuf::new(), read, |path| quote(&path.to_string_lossy()));
    kind.located().naming(|path, key, found| found.push(key.names(path.at, Target::File(&path.value))))
}

/// The path of a file that holds a private key.
pub(super) fn private_key(what: &'static str) -> ValueKind<Located<PathBuf>> {
    file(what).naming(|path, key, found| found.push(key.names(path.at, Target::PrivateKey(&path.value))))
}

/// A secret: a reference to it, or its text.
pub(super) fn secret() -> ValueKind<Located<SecretRef>> {
    let show = |secret: &Located<SecretRef>| Some(Shown::Value(reference(&secret.value)));
    ValueKind::new("a secret", |section, _| plain("", section), |item| item.secret(&[]), show)
        .naming(one_secret)
}

/// A default for a secret, as plain text.
pub(super) fn plain(text: &str, section: &Section<'_>) -> Located<SecretRef> {
    Located { value: SecretRef::Plain(Secret::new(text)), at: section.at() }
}

/// Adds a secret to the references.
pub(super) fn one_secret<'v>(secret: &'v Located<SecretRef>, key: &FullKey, found: &mut Vec<Reference<'v>>) {
    found.push(key.names(secret.at, Target::Secret(&secret.value)));
}

/// The upper bound of numbers without one of their own: SQLite's largest integer.
pub(super) const UNBOUNDED: u64 = i64::MAX as u64;
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// The longest duration. No arithmetic overflows with it.
pub(super) const MAX_TIME: Duration = Duration::from_secs(3650 * 86_400);
/// From the shortest duration that can be written to the longest.
pub(super) const POSITIVE_TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=MAX_TIME;
pub(super) const MIB: u64 = 1 << 20;
