//! The records role. The records of a kind share three keys, so that each call is one script and a
//! list needs no scan.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::{FromValue, Value};

use super::errors::corrupt;
use super::scripts::{self, Script};
use super::{EXACT_MAX, RedisBackend};
use crate::storage::{Record, RecordKind, Records, Result};

impl RedisBackend {
    async fn run_on_kind<R: FromValue>(
        &self,
        script: &Script,
        op: &'static str,
        kind: RecordKind,
        args: Vec<Value>,
    ) -> Result<R> {
        let values = format!("{}:r:{{{}}}", self.keys.prefix, kind.as_str());
        let keys = vec![values.clone(), format!("{values}:keys"), format!("{values}:due")];
        script.run(&self.commands, op, self.command_timeout, keys, args).await
    }
}

#[async_trait]
impl Records for RedisBackend {
    async fn put(&self, kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, EXACT_MAX / 4);
        let args = vec![Value::from(key), Value::Bytes(value), Value::from(ttl_ms.to_string())];
        self.run_on_kind::<u64>(&scripts::PUT, "put", kind, args).await.map(|_| ())
    }

    async fn get(&self, kind: RecordKind, key: &str) -> Result<Option<Bytes>> {
        self.run_on_kind(&scripts::GET, "get", kind, vec![Value::from(key)]).await
    }

    async fn delete(&self, kind: RecordKind, key: &str) -> Result<bool> {
        let was: u64 = self.run_on_kind(&scripts::DELETE, "delete", kind, vec![Value::from(key)]).await?;
        Ok(was == 1)
    }

    async fn list(&self, kind: RecordKind, after: Option<&str>, limit: usize) -> Result<Vec<Record>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let from = after.map_or_else(|| "-".to_owned(), |key| format!("({key}"));
        let limit = limit.min(1 << 24);
        let args = vec![Value::from(from), Value::from(limit.to_string())];
        let answer: Vec<Bytes> = self.run_on_kind(&scripts::LIST, "list", kind, args).await?;
        let records = answer.chunks(2).map(|pair| match pair {
            [key, value] => {
                let key = std::str::from_utf8(key).map_err(|_| corrupt(kind.as_str(), "key is not UTF-8"))?;
                Ok(Record { key: key.to_owned(), value: value.clone() })
            }
            _ => Err(corrupt(kind.as_str(), "list is cut short")),
        });
        records.collect()
    }
}
