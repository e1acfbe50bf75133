//! Several real servers together: a cluster, and a primary with its replica and sentinels. And what
//! servers with TLS need.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use zonewire::storage::RedisConfig;

use super::eventually::eventually;
use super::redis_server::{RedisServer, free_port};

/// The slots of a cluster.
const SLOTS: usize = 16_384;

/// Three primaries, or more nodes: those after the third are replicas of the first.
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<RedisServer>,
    /// Where a gateway finds each of them.
    ports: Vec<u16>,
    /// With TLS there: the authority that it trusts.
    authority: Option<PathBuf>,
}

/// What a server that speaks TLS with its peers too is started with.
fn among_peers(certificates: &Certificates, port: u16, what: &str) -> Vec<String> {
    let mut options = certificates.options(port, false);
    options.extend(["--tls-replication".to_owned(), "yes".to_owned()]);
    options.extend((!what.is_empty()).then(|| [what.to_owned(), "yes".to_owned()]).into_iter().flatten());
    options
}

fn with_tls(config: RedisConfig, authority: Option<&PathBuf>) -> RedisConfig {
    RedisConfig { tls: authority.is_some(), tls_ca_file: authority.cloned(), ..config }
}

impl RedisCluster {
    /// `None`, said on stdout, where no server is installed.
    pub(crate) async fn start(replicas: usize, options: &[&str]) -> Option<Self> {
        Self::start_with(replicas, options, None).await
    }

    /// The same, speaking TLS with gateways and among each other.
    pub(crate) async fn start_with_tls(replicas: usize, certificates: &Certificates) -> Option<Self> {
        Self::start_with(replicas, &[], Some(certificates)).await
    }

    async fn start_with(replicas: usize, options: &[&str], tls: Option<&Certificates>) -> Option<Self> {
        let mut nodes = Vec::new();
        let mut tls_ports = Vec::new();
        for _ in 0..3 + replicas {
            let secret: Vec<String> = match tls {
                Some(certificates) => {
                    tls_ports.push(free_port());
                    among_peers(certificates, tls_ports[tls_ports.len() - 1], "--tls-cluster")
                }
                None => Vec::new(),
            };
            let secret: Vec<&str> = secret.iter().map(String::as_str).collect();
            let bus = free_port().to_string();
            // Nobody is to be taken for dead because the machine is busy: tests say who is.
            let own = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "60000"];
            nodes.push((RedisServer::start(&[&own, options, &secret].concat())?, bus));
        }
        let plain_ports = || nodes.iter().map(|(node, _)| node.port).collect();
        let ports: Vec<u16> = if tls.is_some() { tls_ports } else { plain_ports() };
        let (_, bus) = &nodes[0];
        for (n, (node, _)) in nodes.iter().enumerate() {
            if n < 3 {
                let (from, to) = (SLOTS * n / 3, SLOTS * (n + 1) / 3 - 1);
                let done = node.admin(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]);
                assert_eq!(done, "+OK");
                assert_eq!(node.admin(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]), "+OK");
            }
            if n > 0 {
                let met = node.admin(&["CLUSTER", "MEET", "127.0.0.1", &ports[0].to_string(), bus]);
                assert_eq!(met, "+OK");
            }
        }
        let nodes = nodes.into_iter().map(|(node, _)| node).collect();
        let cluster = Self { nodes, ports, authority: tls.map(|tls| tls.file("ca.pem")) };
        let id = cluster.nodes[0].admin(&["CLUSTER", "MYID"]);
        for replica in &cluster.nodes[3..] {
            eventually("a replica knows its primary", async || {
                (replica.admin(&["CLUSTER", "REPLICATE", &id]) == "+OK").then_some(())
            })
            .await;
            eventually("a replica is in step", async || {
                replica.admin(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
            })
            .await;
        }
        cluster.until_agreed().await;
        Some(cluster)
    }

    /// Waits until all nodes know all others, and serve.
    pub(crate) async fn until_agreed(&self) {
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        for node in &self.nodes {
            eventually("the nodes know each other", async || {
                let info = node.admin(&["CLUSTER", "INFO"]);
                (info.contains("cluster_state:ok") && info.contains(&known)).then_some(())
            })
            .await;
        }
    }

    /// How a gateway is told to use it.
    pub(crate) fn config(&self) -> RedisConfig {
        let config = RedisConfig {
            cluster: true,
            port: Some(self.ports[0]),
            nodes: self.ports[1..].iter().map(|port| format!("127.0.0.1:{port}")).collect(),
            ..self.nodes[0].config()
        };
        with_tls(config, self.authority.as_ref())
    }

    /// Which node has the slot of this key.
    pub(crate) fn owner(&self, key: &str) -> usize {
        self.nodes
            .iter()
            .position(|node| {
                let answer = node.admin(&["HGET", key, "none"]);
                !answer.starts_with("-MOVED") && !answer.starts_with("-ASK")
            })
            .unwrap()
    }

    /// Moves the slot of a key, and whatever it holds, to another primary.
    pub(crate) fn move_slot(&self, key: &str, from: usize, to: usize) {
        let slot = self.begin_move(key, from, to);
        loop {
            let left = self.nodes[from].admin(&["CLUSTER", "COUNTKEYSINSLOT", &slot]);
            if left == ":0" {
                break;
            }
            let key = self.nodes[from].admin_array(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]).remove(0);
            let port = self.nodes[to].port.to_string();
            let moved = self.nodes[from].admin(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]);
            assert!(moved == "+OK" || moved == "+NOKEY", "{moved}");
        }
        self.end_move(&slot, from, to);
    }

    /// From here on new keys of the slot of this key are made at its new primary; gives the slot.
    pub(crate) fn begin_move(&self, key: &str, from: usize, to: usize) -> String {
        let slot = self.nodes[0].admin(&["CLUSTER", "KEYSLOT", key])[1..].to_owned();
        self.set_slot(to, &slot, &["IMPORTING", &self.id(from)]);
        self.set_slot(from, &slot, &["MIGRATING", &self.id(to)]);
        slot
    }

    /// Everybody is told who has the slot now.
    pub(crate) fn end_move(&self, slot: &str, from: usize, to: usize) {
        for node in [to, from].into_iter().chain((0..3).filter(|node| *node != to && *node != from)) {
            self.set_slot(node, slot, &["NODE", &self.id(to)]);
        }
    }

    fn id(&self, node: usize) -> String {
        self.nodes[node].admin(&["CLUSTER", "MYID"])
    }

    fn set_slot(&self, node: usize, slot: &str, what: &[&str]) {
        let answer = self.nodes[node].admin(&[&["CLUSTER", "SETSLOT", slot], what].concat());
        assert_eq!(answer, "+OK", "{what:?}");
    }
}

/// A primary, its replica, and sentinels that watch over them.
pub(crate) struct Sentinels {
    pub(crate) primary: RedisServer,
    pub(crate) replica: RedisServer,
    _sentinels: Vec<RedisServer>,
    /// Where a gateway finds each sentinel.
    ports: Vec<u16>,
    authority: Option<PathBuf>,
}

/// What the sentinels want of those who ask.
pub(crate) const SENTINEL_PASSWORD: &str = "sentinel word";

impl Sentinels {
    pub(crate) async fn start(down_after_ms: u32) -> Option<Self> {
        Self::start_with(down_after_ms, None).await
    }

    /// The same, speaking TLS with gateways and among each other.
    pub(crate) async fn start_with_tls(down_after_ms: u32, certificates: &Certificates) -> Option<Self> {
        Self::start_with(down_after_ms, Some(certificates)).await
    }

    async fn start_with(down_after_ms: u32, tls: Option<&Certificates>) -> Option<Self> {
        let secret = |port| tls.map_or_else(Vec::new, |tls| among_peers(tls, port, ""));
        let start =
            |options: &[String]| RedisServer::start(&options.iter().map(String::as_str).collect::<Vec<_>>());
        let tls_port = free_port();
        let primary = start(&secret(tls_port))?;
        let port = if tls.is_some() { tls_port } else { primary.port };
        let replicates = ["--replicaof".to_owned(), format!("127.0.0.1 {port}")];
        let replica = start(&[secret(free_port()), replicates.into()].concat())?;
        eventually("the replica is in step", async || {
            replica.admin(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        })
        .await;
        let config = format!(
            "sentinel monitor main 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds main {down_after_ms}\n\
             sentinel failover-timeout main 5000\n\
             sentinel sentinel-pass \"{SENTINEL_PASSWORD}\"\n\
             requirepass \"{SENTINEL_PASSWORD}\"\n"
        );
        let (mut sentinels, mut ports) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let tls_port = free_port();
            // A file has the same options as the command line.
            let own = secret(tls_port);
            let own = own.chunks(2).map(|pair| format!("{} {}\n", pair[0].trim_start_matches('-'), pair[1]));
            let config = own.chain([config.clone()]).collect::<String>();
            let sentinel = RedisServer::start_sentinel(&config, SENTINEL_PASSWORD)?;
            ports.push(if tls.is_some() { tls_port } else { sentinel.port });
            sentinels.push(sentinel);
        }
        for sentinel in &sentinels {
            eventually("the sentinels know each other and the replica", async || {
                let masters = sentinel.admin_array(&["SENTINEL", "MASTER", "main"]);
                let value = |name: &str| {
                    let at = masters.iter().position(|field| field == name)?;
                    masters.get(at + 1).cloned()
                };
                (value("num-other-sentinels")? == "2" && value("num-slaves")? == "1").then_some(())
            })
            .await;
        }
        let authority = tls.map(|tls| tls.file("ca.pem"));
        Some(Self { primary, replica, _sentinels: sentinels, ports, authority })
    }

    pub(crate) fn config(&self) -> RedisConfig {
        let at = |n: usize| format!("127.0.0.1:{}", self.ports[n]);
        let scheme = if self.authority.is_some() { "rediss-sentinel" } else { "redis-sentinel" };
        let config = RedisConfig {
            url: Some(format!("{scheme}://{}?sentinelServiceName=main&node={}", at(0), at(1))),
            nodes: vec![at(2)],
            sentinel_password: Some(SENTINEL_PASSWORD.to_owned()),
            ..RedisConfig::default()
        };
        with_tls(config, self.authority.as_ref())
    }
}

/// Certificates that one authority signed; the authority is new.
pub(crate) struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// `None`, said on stdout, where there is no `openssl`.
    pub(crate) fn make() -> Option<Self> {
        let installed = Command::new("openssl").arg("version").stdout(Stdio::null()).status();
        if !installed.is_ok_and(|status| status.success()) {
            println!("skipped: there is no openssl");
            return None;
        }
        let made = Self { dir: tempfile::tempdir().unwrap() };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let ca = ["req", "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"];
        made.openssl(&[&ca[..], &key].concat());
        for name in ["server", "client"] {
            let (secret, asked, signed) =
                (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
            let subject = format!("/CN={name}");
            let ask = ["req", "-new", "-subj", &subject, "-keyout", &secret, "-out", &asked];
            made.openssl(&[&ask[..], &key[..5]].concat());
            let mut names = std::fs::File::create(made.file("names")).unwrap();
            writeln!(names, "subjectAltName=IP:127.0.0.1,DNS:localhost").unwrap();
            made.openssl(&[
                "x509",
                "-req",
                "-in",
                &asked,
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                "names",
                "-out",
                &signed,
            ]);
        }
        Some(made)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a server is started with, to speak TLS on this port.
    pub(crate) fn options(&self, port: u16, asks_clients: bool) -> Vec<String> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let options = [
            ("--tls-port", port.to_string()),
            ("--tls-ca-cert-file", text(&self.file("ca.pem"))),
            ("--tls-cert-file", text(&self.file("server.pem"))),
            ("--tls-key-file", text(&self.file("server.key"))),
            ("--tls-auth-clients", if asks_clients { "yes" } else { "no" }.to_owned()),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    fn openssl(&self, arguments: &[&str]) {
        let done = Command::new("openssl").args(arguments).current_dir(self.dir.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}
