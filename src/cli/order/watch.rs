//! `order watch`: an order's updates as they arrive, through reconnects, until the order ends.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::{anyhow, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{View, waiting};
use crate::cli::print;
use crate::cli::target::TargetArgs;
use crate::client::follow::{self, Door, Ended, Follow, Output, Until};
use crate::client::{self, BaseUrl, Refused, text_of};
use crate::model::{ChannelName, EntryKind, OrderId};
use crate::protocol::SKIPPED;

pub(super) const EXAMPLES: &str = "\
Examples:
  zonewire order watch 6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11
  zonewire order watch 6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11 --json | jq .type

Shows a progress bar on a terminal, otherwise one line per update, from the first that is stored. \
Everything else goes to stderr. After a lost connection the command reconnects, at most five times in \
a row, and resumes where it was; missing updates are reported. If no worker takes the order within \
3 s, what the gateway knows about that is printed. The exit code is 0 when the order was confirmed, \
and 1 when it failed or could not be followed to its end. The order need not exist yet.";

#[derive(Debug, clap::Args)]
pub(super) struct WatchArgs {
    /// The order
    #[arg(value_name = "ORDER_ID")]
    order: OrderId,
    /// Print the updates as they arrive, one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

pub(super) async fn run(args: WatchArgs) -> anyhow::Result<()> {
    watch(&args.target.base()?, args.order, args.json, false).await
}

/// Shows an order's updates until the order ends; an error if the order failed.
///
/// `was_placed` says that the gateway has just accepted the order, so that it exists or will soon exist.
pub(super) async fn watch(
    base: &BaseUrl,
    order: OrderId,
    is_json: bool,
    was_placed: bool,
) -> anyhow::Result<()> {
    let looked = look(base, order).await;
    let is_there = looked.as_ref().map_or_else(|error| error.is::<Refused>(), |_| true);
    match looked {
        Ok(None) => print::say(&format!("order {order} is not known yet; waiting for it")),
        Ok(Some(view)) if is_end(&view.status) && !view.updates.iter().flatten().any(is_terminal) => {
            print::say("its updates were deleted");
            return outcome(order, &view.status, error_of(&view));
        }
        // The stream shows the updates, or reports that there is no gateway.
        Ok(Some(_)) | Err(_) => {}
    }
    let mut follow = Follow::new([(ChannelName::order(order), None)], Until::Terminal, Some(TRIES));
    if is_there || was_placed {
        follow.was_there();
    }
    let mut screen = Screen::new(is_json);
    let say = screen.voice();
    let ended = tokio::select! {
        ended = follow::run(base, Door::Order(order), &mut follow, &mut screen) => ended,
        never = waiting::tell(base, order, say) => match never {},
    };
    if let Mode::Bar(bar) = &screen.mode {
        bar.finish_and_clear();
        if let (Ok(Ended::Enough), Some(update)) = (&ended, &screen.last) {
            print::line(&update.line())?;
        }
    }
    match (ended?, screen.last) {
        (Ended::Enough, Some(update)) => {
            // A person has already seen the reason in the updates; a program gets it with the error.
            let error = update.0.get("error").filter(|_| matches!(screen.mode, Mode::Json));
            outcome(order, &update.stage(), error)
        }
        (Ended::Enough, None) => bail!("order {order} ended with an update that is not an object"),
        // The order ended, and the update that says how was deleted; or an operator closed the stream.
        (Ended::Closed(why), _) => match look(base, order).await? {
            Some(view) if is_end(&view.status) => outcome(order, &view.status, error_of(&view)),
            _ => bail!("{why}, and order {order} has not ended"),
        },
    }
}

/// How often in a row a lost connection is retried.
const TRIES: u32 = 5;

/// How long the query of an order may take. It is only a hint: the stream delivers the updates.
pub(super) const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// The order's current state; `None` when the gateway knows no order of this id.
pub(super) async fn look(base: &BaseUrl, order: OrderId) -> anyhow::Result<Option<View>> {
    let request = base.http()?.get(base.endpoint(&format!("api/orders/{order}")));
    match text_of(request.timeout(LOOK_WITHIN).send().await, base).await {
        Ok(text) => Ok(Some(client::read(&text, "an order")?)),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) if refused.code() == "unknown_order" => Ok(None),
            _ => Err(error),
        },
    }
}

/// Why an order failed, if its newest update says so.
fn error_of(view: &View) -> Option<&Value> {
    view.last_update.as_ref()?.get("error")
}

fn is_end(stage: &str) -> bool {
    stage.parse().is_ok_and(|kind: EntryKind| kind.is_terminal())
}

fn is_terminal(update: &Value) -> bool {
    update["terminal"] == true || update["type"].as_str().is_some_and(is_end)
}

/// The result of the command for an order that ended in this stage.
fn outcome(order: OrderId, stage: &str, error: Option<&Value>) -> anyhow::Result<()> {
    match (stage, error) {
        ("confirmed", _) => Ok(()),
        ("failed", Some(error)) => Err(anyhow!("order {order} failed: {}", error_text(error))),
        ("failed", None) => Err(anyhow!("order {order} failed")),
        (other, _) => Err(anyhow!("order {order} ended with `{other}`, which this version does not know")),
    }
}

/// `the price moved too far (slippage_exceeded)`
fn error_text(error: &Value) -> String {
    match (&error["message"], &error["code"]) {
        (Value::String(_), Value::String(_)) => {
            format!("{} ({})", print::plain(&error["message"]), print::plain(&error["code"]))
        }
        _ => print::plain(error),
    }
}

/// An update's fields.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Update(Map<String, Value>);

impl Update {
    /// The stage that the update reports, also if the gateway could not show the update.
    fn stage(&self) -> String {
        let kind = self.field("type");
        if kind == SKIPPED { self.field("kind") } else { kind }
    }

    fn field(&self, name: &str) -> String {
        self.0.get(name).map(print::plain).unwrap_or_default()
    }

    /// Which of how many attempts, the message, and the error or result.
    fn words(&self) -> String {
        let mut words = Vec::new();
        match (self.field("attempt"), self.field("maxAttempts")) {
            (attempt, _) if attempt.is_empty() => {}
            (attempt, most) if most.is_empty() => words.push(format!("attempt {attempt}")),
            (attempt, most) => words.push(format!("attempt {attempt} of {most}")),
        }
        // An error mostly repeats the message.
        let (message, error) = (self.field("message"), self.0.get("error"));
        let is_said = error.is_some_and(|error| print::plain(&error["message"]) == message);
        words.extend(Some(message).filter(|message| !message.is_empty() && !is_said));
        words.extend(error.map(error_text));
        for name in ["dex", "txHash", "tradeId"] {
            words.extend(self.0.get(name).map(|value| format!("{name}={}", print::plain(value))));
        }
        words.join("  ")
    }

    /// The whole update as one line.
    pub(super) fn line(&self) -> String {
        let (time, stage) = (print::seconds(&self.field("timestamp")), self.field("type"));
        format!("{time:19}  {stage:9}  {:>3} %  {}", self.field("progress"), self.words())
    }
}

/// How updates are shown to the user.
struct Screen {
    mode: Mode,
    last: Option<Update>,
}

enum Mode {
    /// Messages as they arrive.
    Json,
    /// A line for each update.
    Lines,
    /// A single progress bar, on a terminal.
    Bar(ProgressBar),
}

impl Screen {
    fn new(is_json: bool) -> Self {
        let mode = match (is_json, io::stdout().is_terminal()) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Bar(bar()),
            (false, false) => Mode::Lines,
        };
        Self { mode, last: None }
    }

    /// Returns a function that prints something besides the updates.
    fn voice(&self) -> impl Fn(&str) + use<> {
        let bar = if let Mode::Bar(bar) = &self.mode { Some(bar.clone()) } else { None };
        move |text| match &bar {
            Some(bar) => bar.suspend(|| print::say(text)),
            None => print::say(text),
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stdout()).with_prefix("waiting");
    // The template is valid; if it were not, the library's default would do.
    match ProgressStyle::with_template("{prefix:9} {bar:20} {pos:>3} %  {wide_msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl Output for Screen {
    fn entry(&mut self, text: &str) -> io::Result<()> {
        let update = serde_json::from_str::<Update>(text).ok();
        match (&self.mode, &update) {
            (Mode::Json, _) | (_, None) => print::line(text)?,
            (Mode::Lines, Some(update)) => print::line(&update.line())?,
            (Mode::Bar(bar), Some(update)) => {
                bar.set_prefix(update.field("type"));
                bar.set_message(update.words());
                bar.set_position(update.0.get("progress").and_then(Value::as_u64).unwrap_or_default());
            }
        }
        self.last = update;
        Ok(())
    }

    fn say(&mut self, text: &str) {
        self.voice()(text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(update: &Value) -> String {
        serde_json::from_value::<Update>(update.clone()).unwrap().line()
    }

    #[test]
    fn an_update_is_one_line() {
        let update = json!({
            "type": "routing", "timestamp": "2026-11-21T05:00:00.123Z", "progress": 10,
            "message": "looking for\u{1b}[2J a venue", "attempt": 2, "maxAttempts": 3, "run": 1
        });
        assert_eq!(
            line(&update),
            "2026-11-21 05:00:00  routing     10 %  attempt 2 of 3  looking for\u{fffd}[2J a venue"
        );
        let update = json!({
            "type": "failed", "timestamp": "2026-11-21T05:00:00Z", "progress": 0,
            "error": {"code": "cancelled", "message": "it was cancelled"}
        });
        let expected = "2026-11-21 05:00:00  failed       0 %  it was cancelled (cancelled)";
        assert_eq!(line(&update), expected);
        let mut update = update;
        update["message"] = json!("it was cancelled");
        assert_eq!(line(&update), expected, "it is said once");
    }

    #[test]
    fn only_a_confirmed_order_is_a_success() {
        let order = OrderId::random();
        assert!(outcome(order, "confirmed", None).is_ok());
        let error = json!({"code": "x", "message": "the price moved"});
        let text = outcome(order, "failed", Some(&error)).unwrap_err().to_string();
        assert_eq!(text, format!("order {order} failed: the price moved (x)"));
        assert!(outcome(order, "failed", None).is_err());
    }
}
