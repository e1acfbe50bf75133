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
    /// Of a sentinel, the whole of its configuration.
    sentinel: Option<String>,
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
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let password = options.iter().position(|o| o == "--requirepass").map(|at| options[at + 1].clone());
        Self::start_with(options, None, password)
    }

    /// Starts a sentinel with what its configuration file is to hold.
    pub(crate) fn start_sentinel(config: &str, password: &str) -> Option<Self> {
        Self::start_with(Vec::new(), Some(config.to_owned()), Some(password.to_owned()))
    }

    fn start_with(options: Vec<String>, sentinel: Option<String>, password: Option<String>) -> Option<Self> {
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
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = spawn(port, &dir, &options, sentinel.as_deref());
        let mut server = Self { port, child, dir, options, sentinel, password };
        // Another process may take the free port before the server does; then we ask for another.
        for _ in 0..10 {
            if server.wait_until_ready() {
                return Some(server);
            }
            server.kill();
            server.port = free_port();
            server.spawn_again();
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

    /// The same for an answer that is a list of texts.
    pub(crate) fn admin_array(&self, command: &[&str]) -> Vec<String> {
        let mut stream = self.connect().unwrap();
        stream.write_all(request(command).as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let head = line();
        let count: usize = head.strip_prefix('*').unwrap_or_else(|| panic!("{head}")).parse().unwrap();
        (0..count).map(|_| (line(), line()).1).collect()
    }

    fn try_admin(&self, command: &[&str]) -> Option<String> {
        ask(&mut self.connect()?, command)
    }

    fn connect(&self) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        if let Some(password) = &self.password {
            assert_eq!(ask(&mut stream, &["AUTH", password])?, "+OK");
        }
        Some(stream)
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
            self.spawn_again();
            if self.wait_until_ready() {
                return;
            }
            self.kill();
        }
        panic!("redis-server does not start again");
    }

    fn spawn_again(&mut self) {
        self.child = spawn(self.port, &self.dir, &self.options, self.sentinel.as_deref());
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

fn spawn(port: u16, dir: &TempDir, options: &[String], sentinel: Option<&str>) -> Child {
    let mut command = Command::new("redis-server");
    if let Some(config) = sentinel {
        // A sentinel keeps what it learns in its own file.
        let file = dir.path().join("sentinel.conf");
        std::fs::write(&file, format!("port {port}\nbind 127.0.0.1\n{config}")).unwrap();
        command.arg(file).args(["--sentinel", "--dir"]).arg(dir.path());
    } else {
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--enable-debug-command", "yes", "--dir"])
            .arg(dir.path())
            .args(options);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A port that nothing listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn request(command: &[&str]) -> String {
    let parts: String = command.iter().map(|part| format!("${}\r\n{part}\r\n", part.len())).collect();
    format!("*{}\r\n{parts}", command.len())
}

fn ask(stream: &mut TcpStream, command: &[&str]) -> Option<String> {
    stream.write_all(request(command).as_bytes()).ok()?;
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
