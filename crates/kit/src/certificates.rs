//! Certificates for servers and clients that speak TLS, made by `openssl`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use chrono::{TimeDelta, Utc};

use crate::dir::TempDir;

/// The contents of a certificate.
#[derive(Debug, Clone, Copy)]
pub struct Issued<'a> {
    /// The subject, such as `/CN=feed`, without spaces.
    pub subject: &'a str,
    /// The subject alternative names, such as `URI:spiffe://example.com/feed,DNS:feed.example.com`; may be
    /// empty.
    pub names: &'a str,
    /// The start of its validity, in seconds from now.
    pub from_s: i64,
    /// The end of its validity, in seconds from now.
    pub until_s: i64,
}

/// The configuration by which `openssl ca` signs anything.
const ISSUING: &str = "[ca]\ndefault_ca=all\n[all]\ndatabase=index\nserial=number\nnew_certs_dir=.\ndefault_md=sha256\n\
                       policy=any\nunique_subject=no\n[any]\ncommonName=optional\norganizationName=optional\n";

/// The certificates of `server` and `client`, signed by a new authority.
#[derive(Debug)]
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// Whether `openssl` is installed.
    pub fn can_be_made() -> bool {
        let installed = Command::new("openssl").arg("version").stdout(Stdio::null()).status();
        installed.is_ok_and(|status| status.success())
    }

    /// Makes the certificates.
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

    /// Signs another one by the same authority, as `<name>.pem` and `<name>.key`.
    pub fn issue(&self, name: &str, issued: &Issued<'_>) -> anyhow::Result<()> {
        let Issued { subject, names, from_s, until_s } = issued;
        let at =
            |seconds: i64| (Utc::now() + TimeDelta::seconds(seconds)).format("%Y%m%d%H%M%SZ").to_string();
        let (from, until) = (at(*from_s), at(*until_s));
        let alternative = if names.is_empty() { String::new() } else { format!("subjectAltName={names}\n") };
        fs::write(self.file("issued"), format!("basicConstraints=CA:FALSE\n{alternative}"))?;
        fs::write(self.file("issuing"), ISSUING)?;
        fs::write(self.file("index"), "")?;
        if !self.file("number").exists() {
            fs::write(self.file("number"), "01\n")?;
        }
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        self.openssl(&format!("req -new -utf8 -subj {subject} -keyout {name}.key -out {name}.csr {key}"))?;
        self.openssl(&format!(
            "ca -batch -config issuing -in {name}.csr -cert ca.pem -keyfile ca.key -startdate {from} \
             -enddate {until} -extfile issued -notext -out {name}.pem"
        ))
    }

    /// The path of `<name>.pem` or `<name>.key`; the name is `ca`, `server`, `client` or an issued one.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The options with which a Redis speaks TLS on this port.
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
