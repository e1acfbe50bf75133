//! Proves that a server accepts everything that we do.

use std::sync::LazyLock;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, ClusterInterface, LuaInterface, PubsubInterface};
use fred::types::cluster::ClusterRouting;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::connect::once_on;
use super::scripts::Publishing;
use super::target::Target;

static PROVE: LazyLock<Publishing> = LazyLock::new(|| Publishing::new(&[include_str!("lua/prove.lua")]));

/// Executes each kind of command that we use, once. A connection alone proves little: a replica accepts it,
/// and so does a server for a user without write permission.
pub(in crate::storage) async fn prove(client: &Client, target: &Target, prefix: &str) -> Result<(), Error> {
    let channel = format!("{prefix}:{{probe}}");
    let keys: Vec<String> = ["", ":log", ":hash", ":sorted"].map(|part| format!("{channel}{part}")).into();
    let script = PROVE.script(target.is_cluster());
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
        // The first PING is still waiting, so it gets the answer that was meant for the second.
        answer = ping => answer.map(drop),
        answer = refusal(client, "UNSUBSCRIBE", &channel) => answer,
        answer = client.ping::<Value>(None) => answer.map(drop),
    }
}

/// Sends a command that fred does not know, so that it waits for an answer. If the command is permitted, the
/// server sends a message that fred does not count as an answer; then this gets the answer to the PING that
/// must be sent after it. If not, this gets the error.
async fn refusal(client: &Client, command: &'static str, channel: &str) -> Result<(), Error> {
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    client.custom::<Value, _>(command, vec![channel.to_owned()]).await.map(drop)
}
