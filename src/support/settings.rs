//! Declares settings as tables: the meaning, name, type, range and default of each.

/// Declares structs of settings, such as `pub line_bytes_max: usize [1..] = 64 << 10,`. The range of the
/// valid values and the default may be left out; the default is then that of the type. Ranges require that
/// the struct names its section after `in`, for which `check_ranges` is generated. `Debug` is left to each
/// struct, because some settings are secrets.
macro_rules! settings {
    ($(
        $(#[$about:meta])+
        pub struct $name:ident $(in $section:literal)? {
            $(
                $(#[$doc:meta])+
                pub $field:ident: $type:ty $([$($range:tt)+])? $(= $default:expr)?,
            )+
        }
    )+) => {$(
        $(#[$about])+
        #[derive(Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$doc])+ pub $field: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $crate::support::settings!(@default $($default)?),)+ }
            }
        }

        $crate::support::settings!(@ranges $name [$($section)?] $($field [$($($range)+)?])+);
    )+};
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
    (@ranges $name:ident [] $($field:ident [])+) => {};
    (@ranges $name:ident [$section:literal] $($field:ident [$($($range:tt)+)?])+) => {
        impl $name {
            /// Compares each setting with its range; further checks can be added.
            pub(crate) fn check_ranges(&self) -> $crate::support::checks::Checks {
                let mut checks = $crate::support::checks::Checks::of($section);
                $($(checks.in_range(stringify!($field), $($range)+, self.$field);)?)+
                checks
            }
        }
    };
}

pub(crate) use settings;
