//! Proves that a server takes all that we do.

use std::sync::LazyLock;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, ClusterInterface, LuaInterface, PubsubInterface};
use fred::types::cluster::ClusterRouting;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::connect::once_on;
use super::scripts::Script;
use super::target::Target;

/// Every command of every script, so that a user who lacks one is found at the start. KEYS a value,
/// a stream, a hash and a sorted set; ARGV a pub/sub channel.
const COMMANDS: [&str; 3] = [
    "
local value, log, hash, sorted = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
redis.call('SET', value, '1', 'PX', 1000)
redis.call('DEL', log, hash, sorted)
redis.call('XADD', log, 'MAXLEN', 1, '*', 'e', '1')
redis.call('XRANGE', log, '-', '+', 'COUNT', 1)
redis.call('XTRIM', log, 'MAXLEN', 1)
redis.call('HSET', hash, 'a', '1', 'b', '2')
redis.call('HSETNX', hash, 'a', '1')
redis.call('HGET', hash, 'a')
redis.call('HMGET', hash, 'a', 'b')
redis.call('HGETALL', hash)
redis.call('HVALS', hash)
redis.call('HLEN', hash)
redis.call('HEXISTS', hash, 'a')
redis.call('HDEL', hash, 'b')
redis.call('ZADD', sorted, 0, 'a')
redis.call('ZSCORE', sorted, 'a')
redis.call('ZCARD', sorted)
redis.call('ZRANGE', sorted, 0, 0)
redis.call('ZRANGEBYLEX', sorted, '-', '+', 'LIMIT', 0, 1)
redis.call('ZRANGEBYSCORE', sorted, '-inf', '+inf', 'LIMIT', 0, 1)
redis.call('ZREVRANGEBYSCORE', sorted, '+inf', '-inf', 'LIMIT', 0, 1)
redis.call('ZREM', sorted, 'a')
redis.call('EXISTS', value)
redis.call('PTTL', value)
redis.call('PEXPIREAT', hash, redis.call('TIME')[1] .. '999')
redis.call('EXPIRE', sorted, 1)
redis.call('PEXPIRE', log, 1000)
redis.call('PEXPIRE', hash, 1000)
redis.call('",
    "PUBLISH",
    "', ARGV[1], '1')
return 1
",
];

static TO_ALL: LazyLock<Script> = LazyLock::new(|| Script::new(&COMMANDS));
static TO_THE_SHARD: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[COMMANDS[0], "SPUBLISH", COMMANDS[2]]));

/// Runs what we run, once. A connection alone proves little: a replica and a user without write
/// permission let us in.
pub(in crate::storage) async fn prove(client: &Client, target: &Target, prefix: &str) -> Result<(), Error> {
    let channel = format!("{prefix}:{{probe}}");
    let keys: Vec<String> = ["", ":log", ":hash", ":sorted"].map(|part| format!("{channel}{part}")).into();
    let script: &Script = if target.is_cluster() { &TO_THE_SHARD } else { &TO_ALL };
    let _done: i64 = client.eval(script.text(), keys.clone(), vec![channel.clone()]).await?;
    let _done: i64 = client.evalsha(script.hash(), keys, vec![channel.clone()]).await?;
    if target.is_cluster() {
        client.ssubscribe(channel.as_str()).await?;
        let owner = client
            .cached_cluster_state()
            .and_then(|routing| routing.get_server(ClusterRouting::hash_key(channel.as_bytes())).cloned());
        let Some(owner) = owner else { return Ok(()) };
        let of_owner = once_on(client, client.perf_config().default_command_timeout, owner);
        let ping = of_owner.ping::<Value>(None);
        return tokio::select! {
            biased;
            answer = refusal(client, "SUNSUBSCRIBE", &channel) => answer,
            answer = ping => answer.map(drop),
        };
    }
    let ping = client.ping::<Value>(None);
    tokio::pin!(ping);
    tokio::select! {
        biased;
        answer = refusal(client, "SUBSCRIBE", &channel) => answer?,
        answer = &mut ping => return answer.map(drop),
    }
    tokio::select! {
        biased;
        // It waits still, so it gets what was meant for the one behind it.
        answer = ping => answer.map(drop),
        answer = refusal(client, "UNSUBSCRIBE", &channel) => answer,
        answer = client.ping::<Value>(None) => answer.map(drop),
    }
}

/// Sends a command that fred does not know, so that it waits for an answer. Who is allowed it gets a
/// message, which fred does not count as one; then this gets the answer to the PING that must be
/// sent behind it. Who is not gets an error.
async fn refusal(client: &Client, command: &'static str, channel: &str) -> Result<(), Error> {
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    client.custom::<Value, _>(command, vec![channel.to_owned()]).await.map(drop)
}
