//! Servers that answer HTTP as a test says, for clients under test.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// An answer: its status, additional header lines, and its body. `None` breaks the connection off instead.
pub(crate) type Reply<'a> = Option<(&'a str, &'a str, &'a str)>;

/// A request that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// The content type.
    pub(crate) kind: String,
    pub(crate) idempotency_key: String,
    pub(crate) body: String,
}

/// Answers every request with `status` and `body`, after reading it completely. Returns its URL, and the
/// requests.
pub(crate) async fn http_gateway(
    status: &'static str,
    body: &'static str,
) -> (String, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let received = Arc::<Mutex<Vec<Request>>>::default();
    let log = Arc::clone(&received);
    TaskTracker::new().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            TaskTracker::new().spawn(async move {
                let request = answer(stream, Some((status, "", body))).await;
                log.lock().unwrap().push(request);
            });
        }
    });
    (url, received)
}

/// Reads a request completely, and answers it.
pub(crate) async fn answer(stream: TcpStream, reply: Reply<'_>) -> Request {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let mut headers = lines.iter().filter_map(|line| line.split_once(": "));
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let mut body = Vec::new();
    if header("transfer-encoding") == "chunked" {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).await.unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await.unwrap();
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else {
        body = vec![0; header("content-length").parse().unwrap_or(0)];
        stream.read_exact(&mut body).await.unwrap();
    }
    if let Some((status, headers, answer)) = reply {
        let head = format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\n");
        let reply = format!("{head}content-length: {}\r\n\r\n{answer}", answer.len());
        stream.write_all(reply.as_bytes()).await.unwrap();
    }
    Request {
        path: lines[0].split(' ').nth(1).unwrap().to_owned(),
        kind: header("content-type"),
        idempotency_key: header("idempotency-key"),
        body: String::from_utf8(body).unwrap(),
    }
}
