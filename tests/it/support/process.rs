//! The program as a separate process, serving.

use std::process::ExitStatus;

use tokio::process::Command;
use zonewire_kit::process::{Gateway, Log};
use zonewire_kit::redis::RedisServer;

use super::client::LIMIT;

pub(crate) use zonewire_kit::process::Signal;

pub(crate) fn serve(args: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zonewire"));
    command.arg("serve").args(args).env_clear();
    command
}

/// Arguments with which it logs its address.
fn args(settings: &[impl AsRef<str>]) -> Vec<String> {
    let mut args = vec!["--listen=127.0.0.1:0".to_owned(), "--set=log.format=json".to_owned()];
    args.extend(settings.iter().map(|setting| format!("--set={}", setting.as_ref())));
    args
}

/// The program in memory, run by a shell after a command that sets a limit.
pub(crate) fn serve_within(limit: &str, settings: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{limit} && exec \"$0\" serve \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_zonewire"), "--storage=memory"]).args(args(settings));
    command.env_clear();
    command
}

/// A gateway process whose operations must succeed.
pub(crate) struct Process(Gateway);

impl std::ops::Deref for Process {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.0
    }
}

impl Process {
    pub(crate) async fn start(settings: &[impl AsRef<str>]) -> Self {
        Self::start_command(serve(&args(settings))).await
    }

    /// A process on this Redis.
    pub(crate) async fn start_on(server: &RedisServer, more: &[&str]) -> Self {
        let port = format!("storage.redis.port={}", server.port);
        let on_it = ["storage.backend=redis", "storage.redis.host=127.0.0.1", &port];
        Self::start(&[&on_it[..], more].concat()).await
    }

    /// The same with environment variables.
    pub(crate) async fn start_with(settings: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = serve(&args(settings));
        command.envs(environment.iter().copied());
        Self::start_command(command).await
    }

    /// The same with another command, which must log in JSON.
    pub(crate) async fn start_command(command: Command) -> Self {
        Self(Gateway::start(command, None).await.unwrap())
    }

    /// The same, without reading its log once it is ready.
    pub(crate) async fn start_unread(settings: &[&str]) -> (Self, Log) {
        let (gateway, log) = Gateway::start_unread(serve(&args(settings)), None).await.unwrap();
        (Self(gateway), log)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal).unwrap();
    }

    pub(crate) async fn kill(&mut self) {
        self.0.process.kill().await.unwrap();
    }

    /// Limits the files that it may have open from now on.
    pub(crate) async fn limit_files(&self, max: usize) {
        let pid = self.process.id().expect("it still runs").to_string();
        let limit = format!("--nofile={max}:");
        let limited = Command::new("prlimit").args(["--pid", &pid, &limit]).status().await;
        assert!(limited.expect("prlimit is there").success());
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.0.process.has_ended().unwrap()
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.0.process.ended(2 * LIMIT).await.unwrap()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// What it wrote to stderr after it was ready, once it has ended.
    pub(crate) async fn log(&mut self) -> Vec<String> {
        self.0.log(LIMIT).await.unwrap()
    }
}
