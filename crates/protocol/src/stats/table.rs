//! The table in which a part of a gateway says what it counts: names, what they mean, and their metrics.

use std::collections::BTreeMap;

use super::Timing;

/// A number of a gateway.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A count.
    Count(u64),
    /// Anything else.
    Real(f64),
    /// How long something took.
    Timing(Timing),
}

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It counts how long something took.
    Histogram,
}

/// One value of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric<'a> {
    /// Without the prefix `zonewire_`, and without the `_total` of counters.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// What it says, as the documentation of its field does.
    pub help: &'static str,
    /// The name and the value of its label.
    pub label: Option<(&'static str, &'a str)>,
    /// Its value.
    pub number: Number,
}

/// What can be told as metrics.
pub trait Metrics {
    /// Tells all of them; those of one name need not follow each other.
    fn tell(&self, to: &mut dyn FnMut(Metric<'_>));
}

/// What goes on being counted, and can be read.
pub trait Live {
    /// What is read.
    type Read;

    /// The numbers as they are now. Each is read by itself: another thread may count in between.
    fn read(&self) -> Self::Read;
}

/// One number, or several by a word.
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

/// What can be below 0.
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

/// Declares what is counted. Each field has its documentation, which is the help of its metric too, and
/// says how it is told: as a `counter`, a `gauge` or a `histogram` of a name, perhaps with a label whose value is given
/// (`reason = "aged"`) or is the word that it is counted by (`by reason`); as the metrics `of` its own
/// fields; or, without any of these, not at all. A struct with a parameter can also hold what goes on being
/// counted, which [`Live::read`] reads, and what was read can be added up.
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
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(!default))]
        #[cfg_attr(feature = "ts", derive(ts_rs::TS))]
        $(
            #[serde(bound(deserialize = "N: serde::Deserialize<'de> + Default"))]
            #[cfg_attr(feature = "ts", ts(concrete($n = u64), bound = "N: ts_rs::TS"))]
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
                    $crate::stats::table::told!(
                        self.$field, concat!($($help),+).trim_ascii(), to
                        $(, $kind $(($metric $($label)*))?)?
                    );
                )+
            }
        }

        $crate::stats::table::live!($name [$($n)?] $($field)+);
    )+};
}

macro_rules! told {
    ($field:expr, $help:expr, $to:ident) => {};
    ($field:expr, $help:expr, $to:ident, of) => {
        $crate::stats::Metrics::tell(&$field, $to)
    };
    ($field:expr, $help:expr, $to:ident, $kind:ident ($metric:literal)) => {
        $crate::stats::table::told!(@ $field, $help, $to, $kind, $metric, _word, None)
    };
    ($field:expr, $help:expr, $to:ident, $kind:ident ($metric:literal, by $label:ident)) => {
        $crate::stats::table::told!(@ $field, $help, $to, $kind, $metric, word, word.map(|word| (stringify!($label), word)))
    };
    ($field:expr, $help:expr, $to:ident, $kind:ident ($metric:literal, $label:ident = $value:literal)) => {
        $crate::stats::table::told!(@ $field, $help, $to, $kind, $metric, _word, Some((stringify!($label), $value)))
    };
    (@ $field:expr, $help:expr, $to:ident, $kind:ident, $metric:literal, $word:ident, $label:expr) => {
        $crate::stats::table::Numbers::each(&$field, &mut |$word, number| {
            let kind = $crate::stats::table::told!($kind);
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

pub(super) use {counts, live, told};
