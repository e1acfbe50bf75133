//! A real `redis-server` child for one test, ended when it is dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use zonewire::storage::RedisConfig;

/// Set in continuous integration, so that a missing server fails instead of skipping.
const REQUIRE: &str = "ZONEWIRE_TEST_REQUIRE_REDIS";
const READY_LOOKS: u32 = 500;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running server. Its data live in a directory of its own.
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    child: Child,
    dir: TempDir,
    options: Vec<String>,
    /// What an admin connection authenticates with.
    password: Option<String>,
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl RedisServer {
    /// Starts a server; `None`, said on stdout, where none is installed.
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        let installed = Command::new("redis-server")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !installed {
            assert!(std::env::var_os(REQUIRE).is_none(), "{REQUIRE} is set, and there is no redis-server");
            println!("skipped: there is no redis-server");
            return None;
        }
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let password = options.iter().position(|o| o == "--requirepass").map(|at| options[at + 1].clone());
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = spawn(port, &dir, &options);
        let mut server = Self { port, child, dir, options, password };
        // Another process may take the free port before the server does; then we ask for another.
        for _ in 0..10 {
            if server.wait_until_ready() {
                return Some(server);
            }
            server.kill();
            server.port = free_port();
            server.child = spawn(server.port, &server.dir, &server.options);
        }
        panic!("redis-server does not start");
    }

    /// How a gateway is told to use this server. An append that is a little late on a busy machine
    /// forks no channel, unless a test wants that.
    pub(crate) fn config(&self) -> RedisConfig {
        RedisConfig {
            ordering_deadline_ms: 30_000,
            host: Some("127.0.0.1".to_owned()),
            port: Some(self.port),
            password: self.password.clone(),
            ..RedisConfig::default()
        }
    }

    /// The same for tests that are not about time-outs: a machine that stands still for a second is
    /// no outage to them.
    pub(crate) fn patient_config(&self) -> RedisConfig {
        RedisConfig { connect_timeout_ms: 10_000, command_timeout_ms: 15_000, ..self.config() }
    }

    /// Runs one command on a connection of its own. The answer's first line, or a bulk's content.
    pub(crate) fn admin(&self, command: &[&str]) -> String {
        self.try_admin(command).unwrap_or_else(|| panic!("no answer to {command:?}"))
    }

    fn try_admin(&self, command: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        if let Some(password) = &self.password {
            assert_eq!(ask(&mut stream, &["AUTH", password])?, "+OK");
        }
        ask(&mut stream, command)
    }

    /// Freezes the process: connections stay open, and nothing answers.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Ends it at once, as by `kill -9`.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }

    /// Starts it again after [`Self::kill`], on the same port and with the same directory.
    pub(crate) fn restart(&mut self) {
        for _ in 0..20 {
            self.child = spawn(self.port, &self.dir, &self.options);
            if self.wait_until_ready() {
                return;
            }
            self.kill();
        }
        panic!("redis-server does not start again");
    }

    fn wait_until_ready(&mut self) -> bool {
        for _ in 0..READY_LOOKS {
            if self.try_admin(&["PING"]).as_deref() == Some("+PONG") {
                // Whoever answers on the port may be a server of another test.
                return self.child.try_wait().unwrap().is_none();
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            thread::sleep(LOOK_EVERY);
        }
        false
    }
}

fn spawn(port: u16, dir: &TempDir, options: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--enable-debug-command", "yes", "--dir"])
        .arg(dir.path())
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A port that nothing listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn ask(stream: &mut TcpStream, command: &[&str]) -> Option<String> {
    let mut request = format!("*{}\r\n", command.len());
    for part in command {
        request += &format!("${}\r\n{part}\r\n", part.len());
    }
    stream.write_all(request.as_bytes()).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let line = line.trim_end().to_owned();
    let Some(len) = line.strip_prefix('$').and_then(|len| len.parse::<usize>().ok()) else {
        return Some(line);
    };
    let mut content = vec![0; len];
    reader.read_exact(&mut content).ok()?;
    String::from_utf8(content).ok()
}
