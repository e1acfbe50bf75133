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
}

impl RedisCluster {
    /// `None`, said on stdout, where no server is installed.
    pub(crate) async fn start(replicas: usize, options: &[&str]) -> Option<Self> {
        let mut nodes = Vec::new();
        for _ in 0..3 + replicas {
            let bus = free_port().to_string();
            // Nobody is to be taken for dead because the machine is busy: tests say who is.
            let own = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "60000"];
            nodes.push((RedisServer::start(&[&own, options].concat())?, bus));
        }
        let (first, bus) = &nodes[0];
        for (n, (node, _)) in nodes.iter().enumerate() {
            if n < 3 {
                let (from, to) = (SLOTS * n / 3, SLOTS * (n + 1) / 3 - 1);
                let done = node.admin(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]);
                assert_eq!(done, "+OK");
                assert_eq!(node.admin(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]), "+OK");
            }
            if n > 0 {
                let met = node.admin(&["CLUSTER", "MEET", "127.0.0.1", &first.port.to_string(), bus]);
                assert_eq!(met, "+OK");
            }
        }
        let cluster = Self { nodes: nodes.into_iter().map(|(node, _)| node).collect() };
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
        RedisConfig {
            cluster: true,
            nodes: self.nodes[1..].iter().map(|node| format!("127.0.0.1:{}", node.port)).collect(),
            ..self.nodes[0].config()
        }
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
        let slot = self.nodes[0].admin(&["CLUSTER", "KEYSLOT", key])[1..].to_owned();
        let id = |node: usize| self.nodes[node].admin(&["CLUSTER", "MYID"]);
        let set = |node: usize, what: &[&str]| {
            let answer = self.nodes[node].admin(&[&["CLUSTER", "SETSLOT", &slot], what].concat());
            assert_eq!(answer, "+OK", "{what:?}");
        };
        set(to, &["IMPORTING", &id(from)]);
        set(from, &["MIGRATING", &id(to)]);
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
        let owner = id(to);
        for node in [to, from].into_iter().chain((0..3).filter(|node| *node != to && *node != from)) {
            set(node, &["NODE", &owner]);
        }
    }
}

/// A primary, its replica, and sentinels that watch over them.
pub(crate) struct Sentinels {
    pub(crate) primary: RedisServer,
    pub(crate) replica: RedisServer,
    pub(crate) sentinels: Vec<RedisServer>,
}

/// What the sentinels want of those who ask.
pub(crate) const SENTINEL_PASSWORD: &str = "sentinel word";

impl Sentinels {
    pub(crate) async fn start(down_after_ms: u32) -> Option<Self> {
        let primary = RedisServer::start(&[])?;
        let of = format!("127.0.0.1 {}", primary.port);
        let replica = RedisServer::start(&["--replicaof", &of])?;
        eventually("the replica is in step", async || {
            replica.admin(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        })
        .await;
        let port = primary.port;
        let config = format!(
            "sentinel monitor main 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds main {down_after_ms}\n\
             sentinel failover-timeout main 5000\n\
             sentinel sentinel-pass \"{SENTINEL_PASSWORD}\"\n\
             requirepass \"{SENTINEL_PASSWORD}\"\n"
        );
        let sentinels: Vec<_> =
            (0..3).map(|_| RedisServer::start_sentinel(&config, SENTINEL_PASSWORD)).collect::<Option<_>>()?;
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
        Some(Self { primary, replica, sentinels })
    }

    pub(crate) fn config(&self) -> RedisConfig {
        let at = |n: usize| format!("127.0.0.1:{}", self.sentinels[n].port);
        RedisConfig {
            url: Some(format!("redis-sentinel://{}?sentinelServiceName=main&node={}", at(0), at(1))),
            nodes: vec![at(2)],
            sentinel_password: Some(SENTINEL_PASSWORD.to_owned()),
            ..RedisConfig::default()
        }
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
