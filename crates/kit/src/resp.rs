//! A minimal Redis client for use beside the gateways; most commands use a connection of their own.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes_mut;
use redis_protocol::resp2::encode::extend_encode;
use redis_protocol::resp2::types::BytesFrame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{self, TcpStream};
use tokio::time;
use url::Url;

/// How long Redis may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest reply that is read.
const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The address of a Redis, and the credentials.
#[derive(Clone)]
pub struct Target {
    /// The server, or the proxy before it.
    pub address: SocketAddr,
    username: Option<String>,
    /// The password for the login, if any.
    pub password: Option<String>,
    db: u8,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("address", &self.address).field("db", &self.db).finish_non_exhaustive()
    }
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A status, number or bulk string.
    Text(String),
    /// An error, in the words of Redis.
    Error(String),
    /// Nil.
    Nothing,
    /// An array.
    List(Vec<Reply>),
}

impl Reply {
    /// The text of a status, number or bulk string; empty for anything else.
    pub fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Error(_) | Self::Nothing | Self::List(_) => String::new(),
        }
    }

    /// All texts in it, including those in nested lists.
    pub fn texts(self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text],
            Self::Error(_) | Self::Nothing => Vec::new(),
            Self::List(parts) => parts.into_iter().flat_map(Self::texts).collect(),
        }
    }
}

impl Target {
    /// A server on this machine, without a password.
    pub fn local(port: u16) -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), username: None, password: None, db: 0 }
    }

    /// Parses `redis://[user:password@]host[:port][/db]`. No error repeats the text, which may contain a
    /// password.
    pub async fn parse(text: &str) -> anyhow::Result<Self> {
        const FORM: &str = "expected redis://[user:password@]host[:port][/db]";
        let Ok(url) = Url::parse(text) else { bail!("the address of Redis is not a URL; {FORM}") };
        match url.scheme() {
            "redis" => {}
            "rediss" => bail!("TLS cannot pass through the suite's proxy; {FORM}"),
            _ => bail!("the address of Redis has a scheme that cannot be checked yet; {FORM}"),
        }
        let host = url.host_str().filter(|host| !host.is_empty()).unwrap_or("127.0.0.1");
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = url.port().unwrap_or(6379);
        let mut addresses =
            net::lookup_host((host, port)).await.with_context(|| format!("cannot resolve `{host}`"))?;
        let address = addresses.next().with_context(|| format!("`{host}` has no address"))?;
        let path = url.path().trim_start_matches('/');
        let db = if path.is_empty() { 0 } else { path.parse().ok().context(FORM)? };
        let decoded =
            |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let username = Some(url.username()).filter(|name| !name.is_empty()).map(decoded);
        Ok(Self { address, username, password: url.password().map(decoded), db })
    }

    /// The URL of the same Redis through `proxy`.
    pub fn through(&self, proxy: SocketAddr) -> String {
        let encoded = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        let user = self.username.as_deref().map(encoded).unwrap_or_default();
        let login = match &self.password {
            Some(password) => format!("{user}:{}@", encoded(password)),
            None => String::new(),
        };
        format!("redis://{login}{proxy}/{}", self.db)
    }

    /// Runs one command.
    pub async fn ask(&self, command: &[&str]) -> anyhow::Result<Reply> {
        let asked = async { self.open().await?.ask(command).await };
        let name = command.first().copied().unwrap_or_default();
        asked.await.with_context(|| format!("{name} failed"))
    }

    /// Runs one command that must succeed.
    pub async fn run(&self, command: &[&str]) -> anyhow::Result<Reply> {
        match self.ask(command).await? {
            Reply::Error(error) => bail!("Redis refused {}: {error}", command.join(" ")),
            reply => Ok(reply),
        }
    }

    /// Whether it answers and accepts writes; writes `key`.
    pub async fn serves(&self, key: &str) -> bool {
        self.ask(&["SET", key, "1", "PX", "60000"])
            .await
            .is_ok_and(|reply| reply == Reply::Text("OK".to_owned()))
    }

    /// Removes every key with this prefix, and returns how many there were.
    pub async fn remove_all(&self, prefix: &str) -> anyhow::Result<u64> {
        let (pattern, mut removed) = (format!("{prefix}*"), 0);
        let mut connection = self.open().await?;
        let mut cursor = "0".to_owned();
        loop {
            let scan = ["SCAN", &cursor, "MATCH", &pattern, "COUNT", "1000"];
            let Reply::List(parts) = connection.ask(&scan).await? else {
                bail!("SCAN was not answered by a list");
            };
            let [Reply::Text(next), Reply::List(keys)] = &parts[..] else {
                bail!("SCAN was not answered by a cursor and keys");
            };
            let keys = keys.iter().filter_map(|key| match key {
                Reply::Text(key) if key.starts_with(prefix) => Some(key.as_str()),
                _ => None,
            });
            let keys: Vec<&str> = keys.collect();
            if !keys.is_empty() {
                removed += keys.len() as u64;
                let unlink: Vec<&str> = std::iter::once("UNLINK").chain(keys).collect();
                if let Reply::Error(error) = connection.ask(&unlink).await? {
                    bail!("Redis refused UNLINK: {error}");
                }
            }
            if next == "0" {
                return Ok(removed);
            }
            cursor.clone_from(next);
        }
    }

    /// Opens a connection for several commands.
    pub async fn open(&self) -> anyhow::Result<Connection> {
        let connected = time::timeout(PATIENCE, TcpStream::connect(self.address)).await;
        let stream = connected
            .context("Redis did not accept a connection in time")?
            .context("cannot connect to Redis")?;
        stream.set_nodelay(true).context("cannot set up a connection to Redis")?;
        let mut connection = Connection { stream, unread: BytesMut::new() };
        if let Some(password) = &self.password {
            let reply = match &self.username {
                Some(username) => connection.ask(&["AUTH", username, password]).await?,
                None => connection.ask(&["AUTH", password]).await?,
            };
            if let Reply::Error(error) = reply {
                bail!("Redis refused the login: {error}");
            }
        }
        if self.db != 0
            && let Reply::Error(error) = connection.ask(&["SELECT", &self.db.to_string()]).await?
        {
            bail!("Redis refused the database: {error}");
        }
        Ok(connection)
    }
}

/// An open connection, and the unread part of the next reply.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    unread: BytesMut,
}

impl Connection {
    /// Runs one command.
    pub async fn ask(&mut self, command: &[&str]) -> anyhow::Result<Reply> {
        self.send(command).await?;
        self.next().await
    }

    /// Sends a command; [`next`](Self::next) returns its reply.
    pub async fn send(&mut self, command: &[&str]) -> anyhow::Result<()> {
        let words =
            command.iter().map(|word| BytesFrame::BulkString(Bytes::copy_from_slice(word.as_bytes())));
        let mut request = BytesMut::new();
        extend_encode(&mut request, &BytesFrame::Array(words.collect()), false)?;
        Ok(self.stream.write_all(&request).await?)
    }

    /// The next message: the reply to a command, or a published message.
    pub async fn next(&mut self) -> anyhow::Result<Reply> {
        loop {
            if let Some((frame, ..)) = decode_bytes_mut(&mut self.unread)? {
                return Ok(frame.into());
            }
            if self.unread.len() > REPLY_BYTES_MAX {
                bail!("a reply of more than {REPLY_BYTES_MAX} bytes");
            }
            let read = time::timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await;
            if read.context("Redis did not answer in time")?? == 0 {
                bail!("the connection was closed");
            }
        }
    }
}

impl From<BytesFrame> for Reply {
    fn from(frame: BytesFrame) -> Self {
        match frame {
            BytesFrame::SimpleString(text) | BytesFrame::BulkString(text) => {
                Self::Text(String::from_utf8_lossy(&text).into_owned())
            }
            BytesFrame::Integer(number) => Self::Text(number.to_string()),
            BytesFrame::Error(error) => Self::Error(error.to_string()),
            BytesFrame::Array(parts) => Self::List(parts.into_iter().map(Self::from).collect()),
            BytesFrame::Null => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_is_parsed_and_redirected_to_a_proxy() {
        let target = Target::parse("redis://us%40er:p%3Aw@127.0.0.1:7000/3").await.unwrap();
        assert_eq!((target.address.port(), target.db), (7000, 3));
        assert_eq!((target.username.as_deref(), target.password.as_deref()), (Some("us@er"), Some("p:w")));
        let proxy = "127.0.0.1:9".parse().unwrap();
        assert_eq!(target.through(proxy), "redis://us%40er:p%3Aw@127.0.0.1:9/3");
        let plain = Target::parse("redis://127.0.0.1").await.unwrap();
        assert_eq!((plain.address.port(), plain.through(proxy).as_str()), (6379, "redis://127.0.0.1:9/0"));
    }

    #[tokio::test]
    async fn unsupported_urls_are_refused_without_repeating_them() {
        for text in [
            "rediss://:secret@127.0.0.1",
            "redis-sentinel://:secret@127.0.0.1",
            "secret",
            "redis://:secret@127.0.0.1/x",
        ] {
            let error = format!("{:#}", Target::parse(text).await.unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
