//! The macro that declares counters: their names, meanings and metrics.

use std::collections::BTreeMap;

use super::Timing;

/// A number that a gateway reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A count.
    Count(u64),
    /// Anything else.
    Real(f64),
    /// How long something took.
    Timing(Timing),
}

/// The type of a metric, for Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// The number only grows.
    Counter,
    /// The number goes up and down.
    Gauge,
    /// A distribution of durations.
    Histogram,
}

/// One sample of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric<'a> {
    /// The name, without the prefix `zonewire_` and the suffix `_total` of counters.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// Its meaning: the doc comment of the field.
    pub help: &'static str,
    /// The name and the value of its label.
    pub label: Option<(&'static str, &'a str)>,
    /// Its value.
    pub number: Number,
}

/// Values with metrics.
pub trait Metrics {
    /// Passes on all metrics; those of one name need not be adjacent.
    fn tell(&self, to: &mut dyn FnMut(Metric<'_>));
}

/// Counters that are still counting, and can be read.
pub trait Live {
    /// The type of what is read.
    type Read;

    /// The current numbers. Each is read separately, so another thread may count in between.
    fn read(&self) -> Self::Read;
}

/// One number, or one for each value of a label.
pub(super) trait Numbers {
    fn each(&self, to: &mut dyn FnMut(Option<&str>, Number));
}

impl Numbers for u64 {
    fn each(&self, to: &mut dyn FnMut(Option<&str>, Number)) {
        to(None, Number::Count(*self));
    }
}

impl Numbers for usize {
    fn each(&self, to: &mut dyn FnMut(Option<&str>, Number)) {
        to(None, Number::Count(*self as u64));
    }
}

/// The metric of a number that may be negative.
impl Numbers for i64 {
    fn each(&self, to: &mut dyn FnMut(Option<&str>, Number)) {
        to(None, Number::Real(*self as f64));
    }
}

impl Numbers for BTreeMap<String, u64> {
    fn each(&self, to: &mut dyn FnMut(Option<&str>, Number)) {
        self.iter().for_each(|(word, count)| to(Some(word), Number::Count(*count)));
    }
}

impl Numbers for BTreeMap<String, f64> {
    fn each(&self, to: &mut dyn FnMut(Option<&str>, Number)) {
        self.iter().for_each(|(word, number)| to(Some(word), Number::Real(*number)));
    }
}

impl<M: Metrics> Metrics for Option<M> {
    fn tell(&self, to: &mut dyn FnMut(Metric<'_>)) {
        if let Some(metrics) = self {
            metrics.tell(to);
        }
    }
}

/// Declares counters. The doc comment of a field is also the help text of its metric. A field is exported
/// as a `counter`, a `gauge` or a `histogram` of the given name, optionally with a label of a fixed value
/// (`reason = "aged"`) or one for each value of a map (`by reason`); as the metrics `of` the field's own
/// fields; or, without any of these, not at all. A struct with a parameter can hold live counters, which
/// [`Live::read`] reads; what was read can be added up.
macro_rules! counts {
    ($(
        $(#[doc = $about:literal])+
        pub struct $name:ident $(<$n:ident>)? {
            $(
                $(#[doc = $help:literal])+
                $(#[serde($($serde:tt)+)])?
                $field:ident: $type:ty $(= $kind:ident $(($metric:literal $($label:tt)*))?)?,
            )+
        }
    )+) => {$(
        $(#[doc = $about])+
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), schemars(!default))]
        $(
            #[serde(bound(deserialize = "N: serde::Deserialize<'de> + Default"))]
            #[cfg_attr(feature = "schema", ts(concrete($n = u64), bound = "N: ts_rs::TS"))]
        )?
        pub struct $name $(<$n = u64>)? {
            $(
                $(#[doc = $help])+
                $(#[serde($($serde)+)])?
                pub $field: $type,
            )+
        }

        impl $crate::stats::Metrics for $name {
            fn tell(&self, to: &mut dyn FnMut($crate::stats::Metric<'_>)) {
                $(
                    $crate::stats::table::export!(
                        self.$field, concat!($($help),+).trim_ascii(), to
                        $(, $kind $(($metric $($label)*))?)?
                    );
                )+
            }
        }

        $crate::stats::table::live!($name [$($n)?] $($field)+);
    )+};
}

macro_rules! export {
    ($field:expr, $help:expr, $to:ident) => {};
    ($field:expr, $help:expr, $to:ident, of) => {
        $crate::stats::Metrics::tell(&$field, $to)
    };
    ($field:expr, $help:expr, $to:ident, $kind:ident ($metric:literal)) => {
        $crate::stats::table::export!(@ $field, $help, $to, $kind, $metric, _word, None)
    };
    ($field:expr, $help:expr, $to:ident, $kind:ident ($metric:literal, by $label:ident)) => {
        $crate::stats::table::export!(@ $field, $help, $to, $kind, $metric, word, word.map(|word| (stringify!($label), word)))
    };
    ($field:expr, $help:expr, $to:ident, $kind:ident ($metric:literal, $label:ident = $value:literal)) => {
        $crate::stats::table::export!(@ $field, $help, $to, $kind, $metric, _word, Some((stringify!($label), $value)))
    };
    (@ $field:expr, $help:expr, $to:ident, $kind:ident, $metric:literal, $word:ident, $label:expr) => {
        $crate::stats::table::Numbers::each(&$field, &mut |$word, number| {
            let kind = $crate::stats::table::export!($kind);
            $to($crate::stats::Metric { name: $metric, kind, help: $help, label: $label, number });
        })
    };
    (counter) => { $crate::stats::MetricKind::Counter };
    (gauge) => { $crate::stats::MetricKind::Gauge };
    (histogram) => { $crate::stats::MetricKind::Histogram };
}

macro_rules! live {
    ($name:ident [] $($field:ident)+) => {};
    ($name:ident [$n:ident] $($field:ident)+) => {
        impl<$n: $crate::stats::Live<Read = u64>> $crate::stats::Live for $name<$n> {
            type Read = $name;

            fn read(&self) -> $name {
                $name { $($field: self.$field.read(),)+ }
            }
        }

        impl std::ops::AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)+
            }
        }
    };
}

pub(super) use {counts, export, live};
