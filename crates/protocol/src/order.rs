//! Orders and the jobs that execute them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An order's id: a UUID (RFC 9562), written hyphenated in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(type = "string"))]
pub struct OrderId(pub Uuid);

impl OrderId {
    /// A new random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_hyphenated(), f)
    }
}

/// A text that is not an order id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an order id: expected a UUID such as 6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11")]
pub struct InvalidOrderId;

impl FromStr for OrderId {
    type Err = InvalidOrderId;

    /// Accepts only the hyphenated form, in lower or upper case: one order has one name.
    fn from_str(text: &str) -> Result<Self, InvalidOrderId> {
        if text.len() != 36 {
            return Err(InvalidOrderId);
        }
        Uuid::try_parse(text).map(Self).map_err(|_error| InvalidOrderId)
    }
}

/// A job in the queue. The job that executes an order has the order's UUID, so an order has one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(type = "string"))]
pub struct JobId(pub Uuid);

impl From<OrderId> for JobId {
    fn from(order: OrderId) -> Self {
        Self(order.0)
    }
}

impl From<JobId> for OrderId {
    fn from(job: JobId) -> Self {
        Self(job.0)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_hyphenated(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hyphenated_form_names_an_order() {
        let upper = "6F1C1C1E-0B5E-4B1E-9D3E-0A6F4B6F2A11";
        assert_eq!(upper.parse::<OrderId>().unwrap().to_string(), upper.to_lowercase());
        for text in ["", "x", "6f1c1c1e0b5e4b1e9d3e0a6f4b6f2a11", "{6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11}"] {
            assert_eq!(text.parse::<OrderId>(), Err(InvalidOrderId), "{text:?}");
        }
    }
}
