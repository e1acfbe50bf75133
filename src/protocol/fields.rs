//! Reads JSON arrays element by element.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Passes each element of an array, with its index, to `take` until that returns a fault.
///
/// # Errors
/// The text is not one JSON array. (The text after an element with a fault is not checked.)
pub(crate) fn each_element<'a, E>(
    text: &'a str,
    take: impl FnMut(usize, &'a RawValue) -> Result<(), E>,
) -> Result<Result<(), E>, serde_json::Error> {
    struct Elements<'f, F, E> {
        take: F,
        fault: &'f mut Option<E>,
    }
    impl<'de, F: FnMut(usize, &'de RawValue) -> Result<(), E>, E> Visitor<'de> for Elements<'_, F, E> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
            let mut index = 0;
            while let Some(element) = elements.next_element()? {
                if let Err(fault) = (self.take)(index, element) {
                    *self.fault = Some(fault);
                    return Err(A::Error::custom("an element has a fault"));
                }
                index += 1;
            }
            Ok(())
        }
    }
    impl<'de, F: FnMut(usize, &'de RawValue) -> Result<(), E>, E> DeserializeSeed<'de> for Elements<'_, F, E> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_seq(self)
        }
    }
    let mut fault = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = Elements { take, fault: &mut fault }.deserialize(&mut deserializer);
    match fault {
        Some(fault) => Ok(Err(fault)),
        None => read.and_then(|()| deserializer.end()).map(Ok),
    }
}
