//! Reads a source of keys.

use std::path::Path;
use std::time::{Duration, SystemTime};

use hyper::header::{ACCEPT, CACHE_CONTROL, HeaderMap};
use tokio::time;
use url::Url;
use zonewire_access::{Due, KEYS_BYTES_MAX, Place};

use crate::client::BaseUrl;

/// How long an address may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The longest file; API keys need more than public keys.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// A file changed more recently than this is read again: a program may still be writing it, and the first
/// half may be valid by itself, with fewer keys. The clocks of file systems may be ahead, so the number of
/// attempts is limited.
const SETTLED_AFTER: Duration = Duration::from_millis(300);
const SETTLED_LOOKS: u32 = 10;

/// The content of a source: its text, and for how many seconds it may be cached if the answer says so.
pub(super) type SourceText = Result<(String, Option<i64>), String>;

pub(super) async fn ask(due: &Due) -> SourceText {
    match &due.place {
        Place::File(path) => Ok((read_settled(path).await?, None)),
        Place::Url(url) => fetch(url).await,
    }
}

/// The content of a file once nobody writes to it.
async fn read_settled(path: &Path) -> Result<String, String> {
    for _ in 0..SETTLED_LOOKS {
        let changed = tokio::fs::metadata(path).await.and_then(|metadata| metadata.modified());
        // If the metadata cannot be read, reading the file reports the fault; without a time, there is
        // nothing to wait for.
        let Ok(changed) = changed else { break };
        let text = read(path).await?;
        let is_old = SystemTime::now().duration_since(changed).is_ok_and(|age| age >= SETTLED_AFTER);
        let same = tokio::fs::metadata(path).await.and_then(|metadata| metadata.modified());
        if is_old && same.is_ok_and(|now| now == changed) {
            return Ok(text);
        }
        time::sleep(SETTLED_AFTER / 3).await;
    }
    read(path).await
}

async fn read(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let length = tokio::fs::metadata(path).await.map_err(cannot)?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("is longer than {FILE_BYTES_MAX} bytes"));
    }
    tokio::fs::read_to_string(path).await.map_err(cannot)
}

/// Redirects count as failures: only the settings may say where keys come from.
async fn fetch(url: &Url) -> SourceText {
    let base: BaseUrl = url.as_str().parse()?;
    let http = base.http().map_err(|error| format!("{error:#}"))?;
    let request = http.get(url.as_str()).header(ACCEPT, "application/jwk-set+json, application/json");
    let answer = request.timeout(ANSWER_WITHIN).send().await.map_err(|error| error.to_string())?;
    if answer.status.is_redirection() {
        return Err("answers with a redirect, which is not followed; configure the address that it leads to"
            .to_owned());
    }
    if answer.status.as_u16() != 200 {
        return Err(format!("answers with {}", answer.status));
    }
    let max_age = max_age(&answer.headers);
    let body = answer.bytes_within(KEYS_BYTES_MAX).await.map_err(|error| error.to_string())?;
    let text = String::from_utf8(body.into()).map_err(|_error| "is not UTF-8".to_owned())?;
    Ok((text, max_age))
}

/// For how long an answer may be cached (RFC 9111, section 5.2.2).
fn max_age(headers: &HeaderMap) -> Option<i64> {
    let values = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(str::trim);
    directives.find_map(|directive| match directive.split_once('=') {
        Some((name, age)) if name.eq_ignore_ascii_case("max-age") => age.trim_matches('"').parse().ok(),
        None if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") => {
            Some(0)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What a server with this answer yields.
    async fn answered(answer: String) -> SourceText {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/keys", server.local_addr().unwrap())).unwrap();
        let answering = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut asked = [0; 1_024];
            let length = stream.read(&mut asked).await.unwrap();
            // The client may close the connection before it has read everything.
            let _broken = stream.write_all(answer.as_bytes()).await;
            let _broken = stream.shutdown().await;
            String::from_utf8_lossy(&asked[..length]).into_owned()
        };
        let (read, asked) = tokio::join!(fetch(&url), answering);
        assert!(asked.starts_with("GET /keys HTTP/1.1\r\n"), "{asked}");
        read
    }

    fn whole(head: &str, body: &str) -> String {
        format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn what_an_address_gives_is_taken_with_its_age() {
        assert_eq!(answered(whole("200 OK", "{}")).await, Ok(("{}".to_owned(), None)));
        let aged = whole("200 OK\r\ncache-control: public, max-age=600", "{}");
        assert_eq!(answered(aged).await, Ok(("{}".to_owned(), Some(600))));
        let fresh = whole("200 OK\r\ncache-control: no-store", "{}");
        assert_eq!(answered(fresh).await, Ok(("{}".to_owned(), Some(0))));
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        for to in ["http://169.254.169.254/latest/meta-data", "http://127.0.0.1:1/", "/elsewhere"] {
            let read = answered(whole(&format!("302 Found\r\nlocation: {to}"), "")).await;
            assert!(read.as_ref().is_err_and(|problem| problem.contains("redirect")), "{read:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_being_written_is_read_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        std::fs::write(&path, "").unwrap();
        let writing = async {
            for part in ["one\n", "two\n", "three\n"] {
                tokio::task::yield_now().await;
                let file = std::fs::OpenOptions::new().append(true).open(&path);
                std::io::Write::write_all(&mut file.unwrap(), part.as_bytes()).unwrap();
            }
        };
        let (text, ()) = tokio::join!(read_settled(&path), writing);
        assert_eq!(text.as_deref(), Ok("one\ntwo\nthree\n"));
        assert!(read_settled(&directory.path().join("none")).await.unwrap_err().contains("cannot be read"));
        // A clock that is ahead does not prevent reading.
        let ahead = SystemTime::now() + Duration::from_secs(3_600);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(ahead).unwrap();
        assert_eq!(read_settled(&path).await.as_deref(), Ok("one\ntwo\nthree\n"));
    }

    #[tokio::test]
    async fn what_is_wrong_is_said() {
        let long = "x".repeat(KEYS_BYTES_MAX + 1);
        let unbounded = format!("HTTP/1.1 200 OK\r\n\r\n{long}");
        for (answer, expected) in [
            (whole("500 Internal Server Error", "secret"), "answers with 500"),
            (whole("200 OK", &long), "too long"),
            (unbounded, "too long"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_owned(), "broke"),
        ] {
            let problem = answered(answer).await.unwrap_err();
            assert!(problem.contains(expected) && !problem.contains("secret"), "{expected}: {problem}");
        }
    }
}
