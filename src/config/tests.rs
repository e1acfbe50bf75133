use std::io::Write as _;

use super::*;
use crate::model::Lane;
use crate::storage::StorageChoice;

pub(super) fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn flag(name: &str, key: &str, value: &str) -> Flag {
    Flag { name: name.to_owned(), key: key.to_owned(), value: value.to_owned() }
}

fn load(file: &str, variables: &[(&str, &str)], flags: &[Flag]) -> Result<Loaded, ConfigError> {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let environment = environment(variables);
    let (file, flags) = (Some(on_disk.path().to_owned()), flags.to_vec());
    Config::load(&Sources { file, environment, flags, memory: None })
}

fn good(file: &str, variables: &[(&str, &str)], flags: &[Flag]) -> Config {
    load(file, variables, flags).unwrap().config
}

/// Checks the key and problem (with hint) of each fault, and a part of its origin.
fn check_faults(file: &str, variables: &[(&str, &str)], expected: &[(&str, &str, &str)]) {
    let faults = load(file, variables, &[]).unwrap_err().faults;
    let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
    assert_eq!(faults.len(), expected.len(), "{lines:#?}");
    for (fault, (key, origin, problem)) in faults.iter().zip(expected) {
        let line = fault.to_string();
        assert_eq!(fault.key, *key, "{line}");
        assert!(fault.origin.contains(origin), "{line} does not come from {origin}");
        assert!(line.contains(problem), "{line} does not say {problem}");
    }
}

#[test]
fn what_is_shown_of_exchanges_can_be_read_again() {
    let text = "[[feeds.exchanges]]\nkind = 'binance'\nsymbols = ['BTC-USDT']\nzones = { BTC-USDT = 'btc' }\n\
                [[feeds.exchanges]]\nname = 'iso'\nkind = 'http'\nurl = 'https://x/y?key=secret'\n\
                rows = { zone = 'pjm', rename = { a = 'b c' } }\n";
    let config: Config = toml::from_str(text).unwrap();
    let shown = Loaded::from(config.clone()).show();
    assert!(!shown.contains("secret"), "{shown}");
    let again: Config = toml::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!(again.feeds, config.masked().feeds);
}

#[test]
fn without_sources_everything_is_the_default() {
    assert_eq!(Config::load(&Sources::default()).unwrap().config, Config::default());
}

#[test]
fn a_flag_comes_before_the_environment_before_the_file_before_the_default() {
    let file = "[http]\nlisten = '127.0.0.1:1'\nshards = 1\ndrain_s = 1\n";
    let variables = [("ZONEWIRE_HTTP__LISTEN", "127.0.0.1:2"), ("ZONEWIRE_HTTP__SHARDS", "2")];
    let loaded = load(file, &variables, &[flag("--listen", "http.listen", "127.0.0.1:3")]).unwrap();
    let http = &loaded.config.http;
    assert_eq!((http.listen.port(), http.shards, http.drain_s, http.handshake_gate), (3, 2, 1, 256));
    assert_eq!(loaded.origins["http.listen"], "flag --listen");
    assert_eq!(loaded.origins["http.shards"], "environment variable ZONEWIRE_HTTP__SHARDS");
    assert!(loaded.origins["http.drain_s"].starts_with("file "));
    assert!(!loaded.origins.contains_key("http.handshake_gate"));
}

#[test]
fn the_environment_may_name_the_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "[log]\nlevel = 'debug'").unwrap();
    let environment = environment(&[(FILE_VARIABLE, file.path().to_str().unwrap())]);
    let loaded = Config::load(&Sources { environment, ..Sources::default() }).unwrap();
    assert_eq!(loaded.config.log.level, "debug");
}

#[test]
fn text_takes_the_type_of_its_key() {
    let config = good(
        "",
        &[
            ("ZONEWIRE_STORAGE__REDIS__PASSWORD", "0123"),
            ("ZONEWIRE_STORAGE__REDIS__USERNAME", "true"),
            ("ZONEWIRE_STORAGE__REDIS__HOST", "[::1]"),
            ("ZONEWIRE_STORAGE__REDIS__DB", "3"),
            ("ZONEWIRE_STORAGE__BACKEND", "redis"),
            ("ZONEWIRE_STORAGE__REQUIRED", "true"),
            ("ZONEWIRE_HTTP__ORIGINS", "https://a.example, https://b.example"),
            ("ZONEWIRE_FEEDS__SIMULATED__ZONES", "[\"pjm\", spp]"),
            ("ZONEWIRE_FEEDS__REPLAY__SPEED", "10"),
            ("ZONEWIRE_CHANNELS__LANES__TRADES", "every"),
            ("ZONEWIRE_HTTP__DRAIN_S", ""),
            ("UNRELATED", "x"),
        ],
        &[flag("--set", "channels.lanes.A.b", "every"), flag("--set", "http.origins", "*")],
    );
    let redis = &config.storage.redis;
    assert_eq!(redis.password.as_deref(), Some("0123"));
    assert_eq!(redis.username.as_deref(), Some("true"));
    assert_eq!((redis.host.as_deref(), redis.db), (Some("[::1]"), Some(3)));
    assert_eq!((config.storage.backend, config.storage.required), (StorageChoice::Redis, true));
    assert_eq!(config.http.origins, ["*"]);
    assert_eq!(config.feeds.simulated.zones, ["pjm".parse().unwrap(), "spp".parse().unwrap()]);
    assert_eq!(config.feeds.replay.speed, 10.0);
    assert_eq!(config.channels.lane(&"zone:trades".parse().unwrap()), Lane::Every);
    assert_eq!(config.channels.lane(&"zone:A.b".parse().unwrap()), Lane::Every);
    assert_eq!(config.http.drain_s, 10);
}

#[test]
fn a_list_in_the_environment_may_be_separated_by_commas() {
    let config = good("", &[("ZONEWIRE_HTTP__ORIGINS", "https://a.example, https://b.example")], &[]);
    assert_eq!(config.http.origins, ["https://a.example", "https://b.example"]);
}

#[test]
fn all_faults_are_told_at_once() {
    check_faults(
        "[http]\nlisten = 8080\nshards = 'many'\nlissten = 'x'\n[storage]\nbackend = 'disk'\n[htp]\na = 1\nb = 2\n",
        &[
            ("ZONEWIRE_CONNECTIONS__MAX", "lots"),
            ("ZONEWIRE_CONNECTIONS__PER_ADDRESS_MAX", "-1"),
            ("ZONEWIRE_STORAGE__REDIS__PORT", "70000"),
            ("ZONEWIRE_CHANNELS__LANES__PJM", "fast"),
            ("ZONEWIRE_HTTP_LISTEN", "127.0.0.1:1"),
            ("ZONEWIRE_CHANNELS__ZONES_MAX", "0"),
        ],
        &[
            ("htp", "file ", "there is no such key; did you mean http?"),
            ("http.lissten", "file ", "did you mean http.listen?"),
            ("http.listen", "file ", "an address and a port such as 127.0.0.1:8080; found 8080"),
            ("http.shards", "file ", "expected a whole number, 0 or more; found \"many\""),
            ("storage.backend", "file ", "expected one of auto, memory, redis; found \"disk\""),
            ("channels.lanes.pjm", "ZONEWIRE_CHANNELS__LANES__PJM", "expected one of latest, every"),
            (
                "connections.max",
                "ZONEWIRE_CONNECTIONS__MAX",
                "expected a whole number, 0 or more; found \"lots\"",
            ),
            ("connections.per_address_max", "ZONEWIRE_CONNECTIONS__PER_ADDRESS_MAX", "found -1"),
            ("http_listen", "ZONEWIRE_HTTP_LISTEN", "did you mean http.listen?"),
            ("storage.redis.port", "ZONEWIRE_STORAGE__REDIS__PORT", "from 0 to 65535; found 70000"),
            ("channels.zones_max", "ZONEWIRE_CHANNELS__ZONES_MAX", "expected 1 or more"),
        ],
    );
}

#[test]
fn values_are_checked_against_each_other() {
    check_faults(
        "[http]\nlisten = '0.0.0.0:80'\n[connections]\nsilence_timeout_s = 30\n[storage]\nrequired = true\n",
        &[("ZONEWIRE_CONNECTIONS__OUTBOX_BYTES_MAX", "1")],
        &[
            ("http.listen", "file ", "set auth.mode = \"off\""),
            (
                "connections.silence_timeout_s",
                "file ",
                "more than connections.heartbeat_interval_s (30), found 30",
            ),
            ("storage.required", "file ", "storage.backend = \"redis\""),
            ("connections.outbox_bytes_max", "OUTBOX_BYTES_MAX", "at least http.line_bytes_max"),
        ],
    );
    check_faults(
        "[connections]\nheartbeat_interval_s = 90",
        &[],
        &[("connections.silence_timeout_s", "default", "found 75")],
    );
}

#[test]
fn times_are_at_most_a_year_and_rates_are_no_times() {
    let config = good("[limits.principal]\nbytes_out_per_s = 4_000_000_000\n", &[], &[]);
    assert_eq!(config.limits.principal.bytes_out_per_s, 4_000_000_000);
    let file = "[http]\nbody_idle_s = 31_622_401\n[limits.tenant]\nbytes_out_per_s = 100_000_000\n";
    let too_long = "expected at most 31622400 (a year), found 31622401";
    check_faults(file, &[], &[("http.body_idle_s", "file ", too_long)]);
}

#[test]
fn what_is_on_disk_is_looked_at_and_each_of_a_list_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prices.csv");
    std::fs::write(&file, "zone,key,price\n").unwrap();
    let (file, missing) = (file.display(), dir.path().join("missing.csv").display().to_string());
    let config = |replay: &str, spool: &str| {
        format!(
            "[feeds.replay]\nfile = '{replay}'\n[storage.journal.spool]\ndata_dir = '{spool}'\n\
             [http]\norigins = ['one', 'https://good.example', 'two']\n[storage.redis]\nport = 99999\n"
        )
    };
    check_faults(
        &config(&missing, &format!("{file}/spool")),
        &[("REDIS_URL", "ftp://x")],
        &[
            ("storage.redis.port", "file ", "from 0 to 65535; found 99999"),
            ("http.origins", "file ", "found \"one\""),
            ("http.origins", "file ", "found \"two\""),
            ("storage.journal.spool.data_dir", "file ", &format!("expected a directory; {file} is not one")),
            ("storage.redis.url", "REDIS_URL", ""),
            ("feeds.replay.file", "file ", "it cannot be read: "),
        ],
    );
    check_faults(
        &format!("[feeds.replay]\nfile = '{}'\n", dir.path().display()),
        &[],
        &[("feeds.replay.file", "file ", "it cannot be read: is a directory")],
    );
    // A missing directory will be created, and an existing file can be read.
    let new = dir.path().join("a/b");
    let both =
        format!("[feeds.replay]\nfile = '{file}'\n[storage.journal.spool]\ndata_dir = '{}'\n", new.display());
    good(&both, &[], &[]);
}

#[test]
fn a_replay_says_what_its_settings_take() {
    let config = good(
        "[feeds.replay]\nkey_columns = ['location', 'market']\ntime_format = '%m/%d/%Y %H:%M'\n\
         time_zone = 'America/New_York'\ndelimiter = 'tab'\nnow = true\n",
        &[],
        &[],
    );
    assert_eq!(config.feeds.replay.key_columns, ["location", "market"]);
    assert_eq!(config.feeds.replay.time_zone.to_string(), "America/New_York");
    check_faults(
        "[feeds.replay]\nkey_column = 'x'\ntime_format = '%Q'\ntime_zone = 'Mars'\ndelimiter = ';;'\n\
         now = true\nflat_out = true\nkey = 'k'\nkey_columns = ['a']\n",
        &[],
        &[
            ("feeds.replay.delimiter", "file ", "expected a character such as ; or | or the word tab"),
            ("feeds.replay.key_column", "file ", "did you mean feeds.replay.key_columns?"),
            ("feeds.replay.time_format", "file ", "expected a form as strptime has it"),
            ("feeds.replay.time_zone", "file ", "expected a time zone such as America/New_York"),
            ("feeds.replay.key_columns", "file ", "set one of the two"),
            ("feeds.replay.now", "file ", "set one of the two"),
        ],
    );
}

#[test]
fn a_file_that_cannot_be_used_is_a_fault_like_others() {
    check_faults(
        "[http\npassword = 'hunter2'",
        &[("ZONEWIRE_X", "1")],
        &[("", "file ", "line 1 is not TOML"), ("x", "ZONEWIRE_X", "there is no such key")],
    );
    let sources = Sources { file: Some("/nowhere/at-all.toml".into()), ..Sources::default() };
    let text = Config::load(&sources).unwrap_err().to_string();
    assert!(text.contains("file /nowhere/at-all.toml: cannot be read"), "{text}");
    assert!(text.contains("named by --config"), "{text}");
}

#[test]
fn variables_that_kubernetes_sets_are_left_alone() {
    let config = good(
        "",
        &[
            ("ZONEWIRE_SERVICE_HOST", "10.0.0.1"),
            ("ZONEWIRE_SERVICE_PORT", "80"),
            ("ZONEWIRE_SERVICE_PORT_HTTP", "80"),
            ("ZONEWIRE_PORT", "tcp://10.0.0.1:80"),
            ("ZONEWIRE_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("REDIS_PORT", "tcp://10.0.0.2:6379"),
        ],
        &[],
    );
    assert_eq!(config, Config::default());
}

#[test]
fn redis_variables_come_before_the_file_and_after_our_own() {
    let file = "[storage.redis]\nhost = 'file'\npassword = 'file'\n";
    let redis = good(file, &[("REDIS_HOST", "env"), ("REDIS_DB", "2")], &[]).storage.redis;
    assert_eq!(
        (redis.host.as_deref(), redis.db, redis.password.as_deref()),
        (Some("env"), Some(2), Some("file"))
    );
    let both = [("REDIS_HOST", "env"), ("ZONEWIRE_STORAGE__REDIS__HOST", "ours")];
    assert_eq!(good("", &both, &[]).storage.redis.host.as_deref(), Some("ours"));
}

#[test]
fn the_environment_of_other_gateways_is_read_and_checked() {
    let file = "[log]\nlevel = 'error'\n[storage.retention.orders]\nage_s = 1\nupdates = 1\n";
    let variables = [("LOG_LEVEL", "DEBUG"), ("UPDATE_BUFFER_TTL", "600"), ("MAX_BUFFERED_UPDATES", "75")];
    let loaded = load(file, &variables, &[]).unwrap();
    let orders = &loaded.config.storage.retention.orders;
    assert_eq!((loaded.config.log.level.as_str(), orders.age_s, orders.updates), ("DEBUG", 600, 75));
    let shown = loaded.show();
    assert!(shown.contains("age_s = 600  # environment variable UPDATE_BUFFER_TTL"), "{shown}");

    let ours = [("ZONEWIRE_STORAGE__RETENTION__ORDERS__AGE_S", "5"), ("ZONEWIRE_LOG__LEVEL", "warn")];
    let both = [variables.as_slice(), ours.as_slice()].concat();
    let config = good("", &both, &[flag("--set", "storage.retention.orders.updates", "9")]);
    let orders = &config.storage.retention.orders;
    assert_eq!((config.log.level.as_str(), orders.age_s, orders.updates), ("warn", 5, 9));

    check_faults(
        "",
        &[("LOG_LEVEL", "verbose"), ("UPDATE_BUFFER_TTL", "5m"), ("MAX_BUFFERED_UPDATES", "0")],
        &[
            (
                "storage.retention.orders.age_s",
                "environment variable UPDATE_BUFFER_TTL",
                "expected a whole number, 0 or more; found \"5m\"",
            ),
            (
                "storage.retention.orders.updates",
                "environment variable MAX_BUFFERED_UPDATES",
                "expected 1 or more",
            ),
            (
                "log.level",
                "environment variable LOG_LEVEL",
                "expected error, warn, info, debug, trace or off",
            ),
        ],
    );
}

#[test]
fn the_highest_way_to_name_redis_counts() {
    // A URL of higher rank replaces host and port, and the parts that it contains.
    let file = "[storage.redis]\nhost = 'old'\nport = 1\npassword = 'old'\nusername = 'old'\n";
    let redis = good(file, &[("REDIS_URL", "redis://:new@here/4")], &[]).storage.redis;
    assert_eq!((redis.host, redis.port, redis.password), (None, None, None));
    assert_eq!(redis.username.as_deref(), Some("old"));
    // A host of higher rank replaces the URL.
    let redis =
        good("", &[("REDIS_URL", "redis://x"), ("ZONEWIRE_STORAGE__REDIS__HOST", "y")], &[]).storage.redis;
    assert_eq!((redis.url, redis.host.as_deref()), (None, Some("y")));
    // Next to a URL of the same rank, the parts count.
    let redis = good("", &[("REDIS_URL", "redis://x"), ("REDIS_HOST", "y"), ("REDIS_PASSWORD", "z")], &[]);
    let redis = redis.storage.redis;
    assert_eq!((redis.url.is_some(), redis.host, redis.password.as_deref()), (true, None, Some("z")));
    // A port alone means this machine.
    assert_eq!(good("", &[("REDIS_PORT", "7")], &[]).storage.redis.host.as_deref(), Some("127.0.0.1"));
    check_faults(
        "[storage.redis]\nurl = 'redis://a'\nhost = 'b'\n",
        &[],
        &[("storage.redis.host", "file ", "set one of the two")],
    );
}

#[test]
fn a_url_of_higher_rank_says_what_kind_of_redis_it_is() {
    let file = "[storage.redis]\nhost = 'a'\nnodes = ['b:1']\nsentinel_service = 'm'\n\
                sentinel_password = 'p'\ntls = true\n";
    let redis = good(file, &[], &[]).storage.redis;
    assert_eq!((redis.nodes, redis.sentinel_service.as_deref()), (vec!["b:1".to_owned()], Some("m")));
    let redis = good(file, &[("REDIS_URL", "redis-cluster://c?node=d:2")], &[]).storage.redis;
    assert_eq!((redis.nodes.len(), redis.sentinel_service, redis.sentinel_password), (0, None, None));
    assert!(!redis.tls && redis.url.is_some());
    let redis = good(file, &[("ZONEWIRE_STORAGE__REDIS__NODES", "e:3,f:4")], &[]).storage.redis;
    assert_eq!(redis.nodes, ["e:3", "f:4"]);
    check_faults(
        "[storage.redis]\ncluster = true\nsentinel_service = 'm'\n",
        &[],
        &[("storage.redis", "default", "both")],
    );
}

#[test]
fn secrets_appear_nowhere() {
    for url in ["redis://user:hunter2@h:x", "http://user:hunter2@h", "redis://:hunter2@h/hunter2", "hunter2"]
    {
        let error = load("", &[("REDIS_URL", url)], &[]).unwrap_err();
        assert_eq!(error.faults[0].key, "storage.redis.url");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let file = "[storage.redis]\nurl = ['hunter2']\npassword = ['hunter2']\n";
    let error = load(file, &[], &[]).unwrap_err();
    assert!(!format!("{error:?}").contains("hunter2"), "{error}");

    let url = "redis-sentinel://user:hunter2@h:1/2?sentinelServiceName=m&sentinelPassword=hunter2&node=i";
    let sentinel_password = ("ZONEWIRE_STORAGE__REDIS__SENTINEL_PASSWORD", "hunter2");
    let variables = [("REDIS_URL", url), ("REDIS_PASSWORD", "hunter2"), sentinel_password];
    let loaded = load("", &variables, &[]).unwrap();
    let shown = loaded.show();
    assert!(!shown.contains("hunter2") && !format!("{loaded:?}").contains("hunter2"), "{shown}");
    assert!(
        shown.contains(
            r#"url = "redis-sentinel://user:***@h:1/2?sentinelServiceName=m&sentinelPassword=***&node=i"  #"#
        ),
        "{shown}"
    );
    assert!(shown.contains(r#"sentinel_password = "***""#), "{shown}");
}

#[test]
fn what_is_shown_is_a_config_again() {
    let variables = [("ZONEWIRE_CHANNELS__LANES__A.B", "every"), ("ZONEWIRE_HTTP__ORIGINS", "*")];
    let loaded = load("", &variables, &[]).unwrap();
    assert_eq!(toml::from_str::<Config>(&loaded.show()).unwrap(), loaded.config);

    let issuers = "[auth.roles]\ndesk = ['order']\n[[auth.issuers]]\nissuer = 'i'\nkeys = ['https://id.example/']\n\
                   [[auth.issuers]]\nissuer = 'j'\nsecret_files = ['s']\ntenant = 't'\n";
    let loaded = load(issuers, &[], &[]).unwrap();
    let shown = loaded.show();
    assert_eq!(toml::from_str::<Config>(&shown).unwrap(), loaded.config, "{shown}");
    assert!(shown.contains("[[auth.issuers]]  # file "), "{shown}");
}

#[test]
fn each_setting_in_effect_says_where_it_came_from_as_far_as_that_is_known() {
    let variables = [("REDIS_URL", "redis://user:hunter2@h:1"), ("ZONEWIRE_CHANNELS__LANES__a.b", "every")];
    let mut loaded =
        load("[http]\nshards = 3\n", &variables, &[flag("--listen", "http.listen", "[::1]:1")]).unwrap();
    let of = |loaded: &Loaded, key: &str| {
        let setting = loaded.settings().into_iter().find(|setting| setting.key == key);
        let setting = setting.unwrap_or_else(|| panic!("{key}"));
        (setting.value.to_string(), setting.origin.unwrap_or_default())
    };
    let (shards, origin) = of(&loaded, "http.shards");
    assert!(shards == "3" && origin.starts_with("file "), "{shards} {origin}");
    for (key, value, origin) in [
        ("http.listen", r#""[::1]:1""#, "flag --listen"),
        ("storage.redis.url", r#""redis://user:***@h:1""#, "environment variable REDIS_URL"),
        ("channels.lanes.a.b", r#""every""#, "environment variable ZONEWIRE_CHANNELS__LANES__a.b"),
        ("http.public_url", "null", "default"),
        ("auth.issuers", "[]", "default"),
    ] {
        assert_eq!(of(&loaded, key), (value.to_owned(), origin.to_owned()), "{key}");
    }
    assert!(!format!("{:?}", loaded.settings()).contains("hunter2"));
    // For a configuration made by a program, the only known origin is that a value is the default.
    loaded = Loaded::from(loaded.config);
    assert_eq!(of(&loaded, "http.shards"), ("3".to_owned(), String::new()));
    assert_eq!(of(&loaded, "http.drain_s"), ("10".to_owned(), "default".to_owned()));
}

#[test]
fn other_addresses_than_loopback_need_authentication_or_a_word() {
    for (listen, auth, good) in [
        ("127.0.0.1:1", "", true),
        ("[::1]:1", "", true),
        ("[::ffff:127.0.0.1]:1", "", true),
        ("0.0.0.0:1", "", false),
        ("[::]:1", "", false),
        ("10.0.0.5:1", "", false),
        ("0.0.0.0:1", "mode = 'off'", true),
        ("0.0.0.0:1", "keys_file = 'keys.toml'", true),
        ("0.0.0.0:1", "mode = 'on'\nanonymous = ['subscribe:zone:*']", true),
        ("0.0.0.0:1", "anonymous = ['subscribe:zone:*']", false),
        ("0.0.0.0:1", "[[auth.issuers]]\nissuer = 'i'\nsecret_files = ['s']", true),
        ("127.0.0.1:1", "mode = 'on'", false),
    ] {
        let loaded = load(&format!("[http]\nlisten = '{listen}'\n[auth]\n{auth}\n"), &[], &[]);
        assert_eq!(loaded.is_ok(), good, "{listen} {auth}: {:?}", loaded.err());
    }
}

#[test]
fn what_allowed_everybody_before_names_its_successor() {
    let file = "[http]\nallow_unauthenticated = true\n";
    let expected = ("http.allow_unauthenticated", "file ", "set auth.mode = \"off\" instead");
    check_faults(file, &[], &[expected]);
}

#[test]
fn a_spool_that_was_fsynced_at_intervals_is_told_what_to_set() {
    check_faults(
        "[storage.journal.spool]\nfsync = 'interval'\n",
        &[("ZONEWIRE_STORAGE__JOURNAL__SPOOL__FSYNC_INTERVAL_MS", "50")],
        &[
            ("storage.journal.spool.fsync", "file ", "found \"interval\"; set \"always\", or \"never\" if"),
            ("storage.journal.spool.fsync_interval_ms", "FSYNC_INTERVAL_MS", "leave it out: "),
        ],
    );
    // Memory has it, which is written to while Redis is not away, too.
    good("[storage.memory]\nfsync = 'interval'\n", &[], &[]);
}

#[test]
fn all_that_is_wrong_with_who_may_come_in_is_told() {
    let file = "[auth]\nwithin_s = 0\n[auth.roles]\ndesk = ['dance']\n[[auth.issuers]]\nissuer = 'i'\nkeys = \
                ['http://id.example/keys']\n";
    let expected = [
        ("auth.within_s", "file ", "expected 1 or more"),
        ("auth.roles", "", "\"dance\" is not a right"),
        ("auth.issuers", "file ", "must begin with https://"),
    ];
    check_faults(file, &[], &expected);
    let roles = good("", &[("ZONEWIRE_AUTH__ROLES__DESK", "order,subscribe:zone:a.b")], &[]).auth.roles;
    assert_eq!(roles["desk"], ["order", "subscribe:zone:a.b"]);
}

#[test]
fn certificates_need_tls_authorities_and_pages_that_are_named() {
    let certificate = "[[auth.certificates]]\nname = 'CN:feed'\nroles = ['publisher']\n";
    let tls = "[http.tls]\ncert_file = 'a'\nkey_file = 'b'\nclient_ca_file = 'c'\n";
    let config = good(&format!("{tls}{certificate}"), &[], &[]);
    assert!(config.auth.is_on() && config.auth.certificates[0].subject() == "feed");
    check_faults(certificate, &[], &[("auth.certificates", "file ", "http.tls.client_ca_file")]);
    for origin in ["*", "null"] {
        let file = format!("[http]\norigins = ['https://a.example', '{origin}']\n{tls}{certificate}");
        check_faults(&file, &[], &[("auth.certificates", "file ", "http.origins")]);
    }
    let file = format!("[http]\norigins = ['https://a.example']\n{tls}{certificate}");
    good(&file, &[], &[]);
    let shown = load(&format!("{tls}{certificate}"), &[], &[]).unwrap();
    assert_eq!(toml::from_str::<Config>(&shown.show()).unwrap(), shown.config, "{}", shown.show());
}
