//! The records role. The records of a kind share three keys, so that each call is one script, and listing
//! needs no scan. Leases are stored as records of a separate kind, next to the last fencing token.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::{FromValue, Value};

use super::RedisBackend;
use super::errors::corrupt;
use super::scripts::{self, Script, milliseconds, text};
use crate::storage::{Record, RecordKind, Records, Result};

impl RedisBackend {
    async fn run_on_kind<R: FromValue>(
        &self,
        script: &Script,
        op: &'static str,
        kind: RecordKind,
        args: Vec<Value>,
    ) -> Result<R> {
        script.run(&self.commands, op, self.record_keys(kind.as_str()), args).await
    }

    async fn run_on_leases<R: FromValue>(
        &self,
        script: &Script,
        op: &'static str,
        args: Vec<Value>,
    ) -> Result<R> {
        let mut keys = self.record_keys("lease");
        keys.push(format!("{}:fence", keys[0]));
        script.run(&self.commands, op, keys, args).await
    }

    fn record_keys(&self, kind: &str) -> Vec<String> {
        let values = format!("{}:r:{{{kind}}}", self.keys.prefix);
        vec![values.clone(), format!("{values}:keys"), format!("{values}:due")]
    }
}

fn ttl_ms(ttl: Duration) -> Value {
    text(milliseconds(ttl).max(1))
}

#[async_trait]
impl Records for RedisBackend {
    async fn put(&self, kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        let args = vec![Value::from(key), Value::Bytes(value), ttl_ms(ttl)];
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
        let args = vec![Value::from(from), text(limit)];
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

    async fn hold(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>> {
        let args = vec![Value::from(key), Value::from(holder), ttl_ms(ttl)];
        let fence: u64 = self.run_on_leases(&scripts::HOLD, "hold", args).await?;
        Ok(Some(fence).filter(|fence| *fence > 0))
    }

    async fn let_go(&self, key: &str, holder: &str) -> Result<()> {
        let args = vec![Value::from(key), Value::from(holder)];
        self.run_on_leases::<u64>(&scripts::LET_GO, "let_go", args).await.map(|_| ())
    }
}
