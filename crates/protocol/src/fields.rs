//! JSON objects whose fields keep their order and their digits.

use std::fmt;

use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// The fields of an object in their original order, with values as they were written. A name that occurs
/// twice is here twice.
#[derive(Debug)]
pub struct OrderedFields<'a>(pub Vec<(String, &'a RawValue)>);

/// The same, with owned values. Can only be deserialized from JSON.
#[derive(Debug, Clone, Default)]
pub struct Fields(pub Vec<(String, Box<RawValue>)>);

impl Fields {
    /// A value as it was written; if the name occurs twice, the last one.
    pub fn raw(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().rev().find(|(field, _)| field == name).map(|(_, value)| &**value)
    }

    /// A value, if there is one and it has this type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.raw(name)?.get()).ok()
    }

    /// Deserializes all fields as a type that has them.
    ///
    /// # Errors
    /// The fields do not fit the type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        read_fields(self.0.iter().map(|(name, value)| (name.as_str(), &**value)))
    }
}

/// Deserializes fields as a type that has them.
pub(crate) fn read_fields<'a, T: Deserialize<'a>>(
    fields: impl Iterator<Item = (&'a str, &'a RawValue)>,
) -> Result<T, serde_json::Error> {
    T::deserialize(MapDeserializer::new(fields))
}

/// Compares texts: equal fields have the same names and values in the same order, written alike.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        let texts = |fields: &Self| -> Vec<(String, String)> {
            fields.0.iter().map(|(name, value)| (name.clone(), value.get().to_owned())).collect()
        };
        texts(self) == texts(other)
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Collects the fields of an object.
struct InOrder<V>(std::marker::PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for InOrder<V> {
    type Value = Vec<(String, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(fields)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for OrderedFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder(std::marker::PhantomData)).map(Self)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder(std::marker::PhantomData)).map(Self)
    }
}
