//! Sets of words that may grow.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One word of a set; each has one text.
pub trait Known: Copy + PartialEq {
    /// The text on the wire.
    fn as_str(self) -> &'static str;

    /// The word with this text.
    fn of(text: &str) -> Option<Self>;
}

/// A word of a set that this version knows, or one that only a newer gateway knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Open<T> {
    /// A known word.
    Known(T),
    /// Any other word.
    Other(String),
}

impl<T: Known> Open<T> {
    /// The text on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(known) => known.as_str(),
            Self::Other(text) => text,
        }
    }

    /// Whether it is this word.
    pub fn is(&self, word: T) -> bool {
        matches!(self, Self::Known(known) if *known == word)
    }
}

impl<T> From<T> for Open<T> {
    fn from(known: T) -> Self {
        Self::Known(known)
    }
}

impl<T: Known> fmt::Display for Open<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<T: Known> Serialize for Open<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, T: Known> Deserialize<'de> for Open<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(T::of(&text).map_or(Self::Other(text), Self::Known))
    }
}

/// Defines a set of words: an enum, with the text of each variant, in the order of the tables in
/// `docs/PROTOCOL.md`, which are generated from the doc comments here. Where each word has a number too, a
/// function for it is declared after the enum.
macro_rules! words {
    (
        $(#[$about:meta])*
        pub enum $name:ident {
            $($(#[doc = $meaning:literal])+ $variant:ident = $word:literal => $number:literal,)+
        }

        $(#[$about_number:meta])+
        pub const fn $number_of:ident(self) -> u16;
    ) => {
        $crate::open::words! {
            $(#[$about])*
            pub enum $name {
                $($(#[doc = $meaning])+ $variant = $word,)+
            }
        }

        impl $name {
            $(#[$about_number])+
            pub const fn $number_of(self) -> u16 {
                match self {
                    $(Self::$variant => $number,)+
                }
            }
        }
    };
    (
        $(#[$about:meta])*
        pub enum $name:ident {
            $($(#[doc = $meaning:literal])+ $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
        pub enum $name {
            $($(#[doc = $meaning])+ #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All words of the set.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// The text on the wire, and as a metric's label.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// The meaning of the word.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($meaning),+).trim(),)+
                }
            }
        }

        impl $crate::Known for $name {
            fn as_str(self) -> &'static str {
                Self::as_str(self)
            }

            fn of(text: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|word| word.as_str() == text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;

#[cfg(feature = "schema")]
impl<T: schemars::JsonSchema> schemars::JsonSchema for Open<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Open_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let known = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [known, { "type": "string" }] })
    }
}

#[cfg(feature = "schema")]
impl<T: ts_rs::TS + 'static> ts_rs::TS for Open<T> {
    type WithoutGenerics = Self;
    type OptionInnerType = Self;

    fn name(config: &ts_rs::Config) -> String {
        format!("{} | (string & {{}})", T::name(config))
    }

    fn inline(config: &ts_rs::Config) -> String {
        Self::name(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[test]
    fn a_word_that_is_not_known_is_kept_as_it_was() {
        let read = |text| serde_json::from_str::<Open<ErrorCode>>(text).unwrap();
        assert!(read(r#""invalid_json""#).is(ErrorCode::InvalidJson));
        let other = read(r#""too_quiet""#);
        assert_eq!(
            (other.as_str(), serde_json::to_string(&other).unwrap().as_str()),
            ("too_quiet", r#""too_quiet""#)
        );
        for word in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(&word).unwrap(), format!("{:?}", word.as_str()));
        }
    }
}
