//! Runs the examples with Node and Python and their packages, as `scripts/test` installs them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;
use zonewire_kit::skip;

use super::program::command;

/// A directory with `node_modules` and `venv`.
const WHERE: &str = "ZONEWIRE_TEST_TOOLS";
/// Set in continuous integration, so that a missing tool fails instead of skipping.
const REQUIRE: &str = "ZONEWIRE_TEST_REQUIRE_TOOLS";

/// The directory with the Node packages for the scripts of `tests/interop`.
const MODULES: &str = "ZONEWIRE_TEST_NODE_MODULES_INTEROP";

/// A copy of a folder's files, in which Node finds its packages: it resolves imports relative to the file.
fn with_modules(folder: &str, modules: &Path) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    symlink(modules, dir.path().join("node_modules")).unwrap();
    dir
}

/// The scripts of `tests/interop`, in a folder where they find their packages.
pub(crate) struct NodeScripts(TempDir);

impl NodeScripts {
    /// `None`, after printing so, if the packages are not installed.
    pub(crate) fn find() -> Option<Self> {
        let modules = std::env::var_os(MODULES).map(PathBuf::from);
        let has_all = |modules: &PathBuf| ["bullmq", "redis"].iter().all(|name| modules.join(name).exists());
        let Some(modules) = modules.filter(has_all) else {
            let why = format!("{MODULES} names no directory with bullmq and redis; scripts/test does it");
            return skip(REQUIRE, &why);
        };
        Some(Self(with_modules("tests/interop", &modules)))
    }

    /// A script without input, whose output is read.
    pub(crate) fn node(&self, name: &str, args: &[String]) -> Command {
        let mut command = Command::new("node");
        command.arg(self.0.path().join(name)).args(args).kill_on_drop(true).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        command
    }
}

/// The examples, in a folder where they find their packages.
pub(crate) struct Examples {
    dir: TempDir,
    python: PathBuf,
}

impl Examples {
    /// `None`, after printing so, if the tools are not installed.
    pub(crate) fn find() -> Option<Self> {
        let Some(tools) = std::env::var_os(WHERE).map(PathBuf::from) else {
            return skip(REQUIRE, &format!("{WHERE} is not set; scripts/test does it"));
        };
        let tools = std::path::absolute(tools).unwrap();
        let python = tools.join("venv/bin/python");
        let modules = tools.join("node_modules");
        let library = modules.join("zonewire/dist/index.js");
        for needed in [&python, &modules.join("ws"), &modules.join("newman"), &library] {
            if !needed.exists() {
                return skip(REQUIRE, &format!("there is no {}", needed.display()));
            }
        }
        Some(Self { dir: with_modules("docs/examples", &modules), python })
    }

    /// An example, run by the program for its language, with the gateway's URL in its environment.
    pub(crate) fn command(&self, name: &str, url: &str) -> Command {
        let file = self.dir.path().join(name);
        let mut command = match name.rsplit_once('.').unwrap().1 {
            "py" => command(&self.python),
            "mjs" => command("node"),
            "sh" => command("bash"),
            other => panic!("what runs .{other}?"),
        };
        command.arg(file).env("ZONEWIRE_URL", url);
        command
    }

    /// The Python that runs the examples.
    pub(crate) fn python(&self) -> &Path {
        &self.python
    }

    /// A Postman collection, run by newman.
    pub(crate) fn newman(&self, name: &str, url: &str) -> Command {
        let mut command = command("node");
        command.arg(self.dir.path().join("node_modules/newman/bin/newman.js")).arg("run");
        command.arg(self.dir.path().join(name)).args(["--color", "off"]);
        command.arg("--env-var").arg(format!("baseUrl={url}"));
        command
    }
}
