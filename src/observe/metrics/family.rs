//! Turns a row of `metrics!` into a metric: its family in the registry, and the handles that count.
//!
//! Keeps true: every family comes from a row. A handle counts without a look-up, except an [`Open`] one.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::OnceLock;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Registry,
};

use super::source::Retain;
use crate::base::label::Label;

/// Declares the metrics of one kind of owner, such as a source or a queue. The owner `()` exists once. A row is one
/// metric:
///
/// - its doc comment is the help text; the field, the type of its handle and the metric's name follow;
/// - `of` names labels whose values are the owner's fields of the same names;
/// - `by` names the labels that tell an owner's series apart; `in` names the owner's field that lists such a label's values;
/// - `with` names the buckets of a histogram.
macro_rules! metrics {
    ($(#[$about:meta])* pub struct $Handles:ident from $Families:ident for $Owner:ty {
        $($(#[doc = $help:literal])+ $field_pub:vis $field:ident: $Handle:ty = $name:literal
            $(of $($own:ident),+)? $(by $($label:ident $(in $values:ident)?),+)? $(with $buckets:ident)?;)+
    }) => {
        $(#[$about])*
        pub struct $Handles {
            $(#[doc = concat!("`", $name, "`:", $($help),+)] $field_pub $field: $Handle,)+
        }

        pub(super) struct $Families {
            $($field: $crate::observe::metrics::family::Family<$Handle>,)+
        }

        impl $Families {
            pub(super) fn new(
                to: &mut $crate::observe::metrics::family::Families,
            ) -> Result<$Families, prometheus::Error> {
                Ok($Families {
                    $($field: to.add::<$Handle>(
                        $name,
                        concat!($($help),+),
                        &[$($(stringify!($own),)+)? $($(stringify!($label),)+)?],
                        &[$($buckets)?],
                    )?,)+
                })
            }

            /// The owner's handles. Series whose labels are already known start at zero.
            pub(super) fn of(&self, owner: &$Owner) -> $Handles {
                let _ = owner;
                $Handles {
                    $($field: $crate::observe::metrics::family::Handle::of(
                        &self.$field,
                        &[$($(owner.$own,)+)?],
                        ($($($(owner.$values)?)+)?),
                    ),)+
                }
            }
        }
    };
}

pub(super) use metrics;

/// A type of metric.
pub(super) trait Kind: Sized {
    type Family: Retain + Clone + 'static;

    fn family(opts: HistogramOpts, labels: &[&str]) -> Result<Self::Family, prometheus::Error>;

    fn series(of: &Self::Family, values: &[&str]) -> Self;

    fn remove(of: &Self::Family, values: &[&str]);
}

macro_rules! kinds {
    ($($Metric:ident, $Family:ident $(, $opts:ident)?;)+) => {$(
        impl Kind for $Metric {
            type Family = $Family;

            fn family(opts: HistogramOpts, labels: &[&str]) -> Result<$Family, prometheus::Error> {
                $Family::new(opts$(.$opts)?, labels)
            }

            fn series(of: &$Family, values: &[&str]) -> $Metric {
                of.with_label_values(values)
            }

            fn remove(of: &$Family, values: &[&str]) {
                // Removing a missing series is an error, but harmless.
                let _ = of.remove_label_values(values);
            }
        }
    )+};
}

kinds! {
    IntCounter, IntCounterVec, common_opts;
    IntGauge, IntGaugeVec, common_opts;
    Gauge, GaugeVec, common_opts;
    Histogram, HistogramVec;
}

/// The family of a handle.
pub(super) type Family<H> = <<H as Handle>::Metric as Kind>::Family;

/// A row's field: one series of a family, or several.
pub(super) trait Handle: Sized {
    type Metric: Kind;
    /// The type of the values after `in` in a row.
    type Values<'v>;

    /// `own`: the values of the owner's labels.
    fn of(family: &Family<Self>, own: &[&str], values: Self::Values<'_>) -> Self;
}

/// One series.
impl<M: Kind> Handle for M {
    type Metric = M;
    type Values<'v> = ();

    fn of(family: &M::Family, own: &[&str], (): ()) -> M {
        M::series(family, own)
    }
}

/// A series that is created on first use.
impl<M: Kind> Handle for OnceLock<M> {
    type Metric = M;
    type Values<'v> = ();

    fn of(_: &M::Family, _: &[&str], (): ()) -> OnceLock<M> {
        OnceLock::new()
    }
}

/// A series for each value of an enum.
#[derive(Clone)]
pub(super) struct By<L, M> {
    series: Vec<M>,
    label: PhantomData<L>,
}

impl<L: Label, M> By<L, M> {
    pub(super) fn at(&self, label: L) -> &M {
        &self.series[label.index()]
    }
}

impl<L: Label, M: Kind> Handle for By<L, M> {
    type Metric = M;
    type Values<'v> = ();

    fn of(family: &M::Family, own: &[&str], (): ()) -> By<L, M> {
        let series = L::LABELS.iter().map(|value| M::series(family, &[own, &[value]].concat())).collect();
        By { series, label: PhantomData }
    }
}

/// A series for each text of a list.
impl<M: Kind> Handle for HashMap<&'static str, M> {
    type Metric = M;
    type Values<'v> = &'v [&'static str];

    fn of(family: &M::Family, own: &[&str], values: &[&'static str]) -> HashMap<&'static str, M> {
        values.iter().map(|value| (*value, M::series(family, &[own, &[value]].concat()))).collect()
    }
}

/// A series for each number from 0 to below the given one.
impl<M: Kind> Handle for Vec<M> {
    type Metric = M;
    type Values<'v> = usize;

    fn of(family: &M::Family, own: &[&str], values: usize) -> Vec<M> {
        (0..values).map(|number| M::series(family, &[own, &[&number.to_string()]].concat())).collect()
    }
}

/// Series whose labels are not known in advance. Each use looks one up.
pub(super) struct Open<M: Kind> {
    family: M::Family,
    own: Vec<String>,
}

impl<M: Kind> Open<M> {
    pub(super) fn at(&self, values: &[&str]) -> M {
        M::series(&self.family, &self.all(values))
    }

    pub(super) fn remove(&self, values: &[&str]) {
        M::remove(&self.family, &self.all(values));
    }

    fn all<'v>(&'v self, values: &[&'v str]) -> Vec<&'v str> {
        self.own.iter().map(String::as_str).chain(values.iter().copied()).collect()
    }
}

impl<M: Kind> Clone for Open<M> {
    fn clone(&self) -> Open<M> {
        Open { family: self.family.clone(), own: self.own.clone() }
    }
}

impl<M: Kind> Handle for Open<M> {
    type Metric = M;
    type Values<'v> = ();

    fn of(family: &M::Family, own: &[&str], (): ()) -> Open<M> {
        Open { family: family.clone(), own: own.iter().map(|value| (*value).to_owned()).collect() }
    }
}

/// Every registered family.
#[derive(Default)]
pub(super) struct Families {
    pub(super) registry: Registry,
    pub(super) all: Vec<Box<dyn Retain>>,
}

impl Families {
    pub(super) fn add<H: Handle>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[&[f64]],
    ) -> Result<Family<H>, prometheus::Error> {
        let opts = HistogramOpts::new(name, help.trim()).buckets(buckets.concat());
        let family = H::Metric::family(opts, labels)?;
        self.registry.register(Box::new(family.clone()))?;
        self.all.push(Box::new(family.clone()));
        Ok(family)
    }
}
