//! Certificates for servers and clients that speak TLS, made by `openssl`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::dir::TempDir;

/// Of `server` and `client`, signed by one authority that is new.
#[derive(Debug)]
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// Whether there is an `openssl` to make them.
    pub fn can_be_made() -> bool {
        let installed = Command::new("openssl").arg("version").stdout(Stdio::null()).status();
        installed.is_ok_and(|status| status.success())
    }

    /// Makes them.
    pub fn make() -> anyhow::Result<Self> {
        let made = Self { dir: TempDir::new()? };
        fs::write(made.file("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n")?;
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        made.openssl(&format!("req -x509 -subj /CN=authority -keyout ca.key -out ca.pem {key} -days 2"))?;
        for name in ["server", "client"] {
            made.openssl(&format!("req -new -subj /CN={name} -keyout {name}.key -out {name}.csr {key}"))?;
            made.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names \
                 -out {name}.pem"
            ))?;
        }
        Ok(made)
    }

    /// Where `<name>.pem` or `<name>.key` is, of `ca`, `server` or `client`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a Redis is started with, to speak TLS on this port.
    pub fn options(&self, port: u16, asks_clients: bool) -> Vec<String> {
        let text = |name: &str| self.file(name).display().to_string();
        let options = [
            ("--tls-port", port.to_string()),
            ("--tls-ca-cert-file", text("ca.pem")),
            ("--tls-cert-file", text("server.pem")),
            ("--tls-key-file", text("server.key")),
            ("--tls-auth-clients", if asks_clients { "yes" } else { "no" }.to_owned()),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    fn openssl(&self, arguments: &str) -> anyhow::Result<()> {
        let mut command = Command::new("openssl");
        let done = command.args(arguments.split(' ')).current_dir(self.dir.path()).output();
        let done = done.context("cannot run openssl")?;
        if !done.status.success() {
            bail!("openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(())
    }
}
