//! The built-in executor: a simulation. A swap is routed over two exchanges; any other order is filled by its
//! side, quantity and limit. Nothing is traded, and every update says `executor: paper`.

use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time;
use uuid::Uuid;

use super::config::PaperConfig;
use super::executor::{Confirmation, ExecutionError, OrderExecutor, OrderHandle};
use super::request::OrderRequest;
use crate::model::{EntryKind, OrderId};

/// The exchanges, and the part of an amount that each takes as its fee.
const EXCHANGES: [(&str, f64); 2] = [("raydium", 0.0025), ("meteora", 0.0020)];

/// Fields that say what an order buys or sells; those that an order has decide its price.
const PRODUCT_FIELDS: [&str; 5] = ["hub", "symbol", "product", "zone", "location"];

/// Fields that may hold the worst price that an order accepts; the first of them counts.
const LIMIT_FIELDS: [&str; 3] = ["limit", "limitPrice", "price"];

/// The range of prices of orders that are no swaps and name no price.
const PRICES: std::ops::Range<f64> = 20.0..60.0;

/// How much better than the limit a price may be, at most.
const BETTER_BY: f64 = 0.02;

/// An [`OrderExecutor`] that trades on paper. The same seed, order and attempt always end the same way.
#[derive(Debug)]
pub struct PaperExecutor {
    config: PaperConfig,
}

/// What an exchange would give.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Quote {
    dex: &'static str,
    fee: f64,
    /// `token_out` for one `token_in`, before the fee.
    price: f64,
    /// How much of `token_out` there would be after the fee.
    amount_out: f64,
}

/// The fields of a swap that the simulation uses.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Swap<'a> {
    token_in: String,
    token_out: String,
    #[serde(borrow)]
    amount: &'a RawValue,
    /// A fraction.
    #[serde(default)]
    slippage: f64,
    /// Absent in orders of old builds, whose clients gave a fraction.
    slippage_percent: Option<f64>,
}

/// What an order would lead to, as its updates say it.
#[derive(Debug)]
struct Deal {
    looking: &'static str,
    /// The quotes, in words and in fields.
    found: (String, Fields),
    /// The fields of the transaction.
    built: Fields,
    sent: Fields,
    no_liquidity: String,
    /// The code and the message if the price moves too far; `None` if it cannot.
    moved: Option<(&'static str, String)>,
    /// The message of the confirmation, the name of its id, and its other fields.
    done: (String, &'static str, Fields),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Buy,
    Sell,
    Unnamed,
}

type Fields = Vec<(&'static str, Value)>;

/// How an attempt goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mishap {
    NoLiquidity,
    /// The price moved too far.
    Moved,
    /// It was sent, and not confirmed.
    Timeout,
}

impl PaperExecutor {
    /// A new simulation; it keeps no state between orders.
    pub fn new(config: PaperConfig) -> Self {
        Self { config }
    }

    /// The source of an attempt's random numbers; `attempt` 0 is for what all attempts have in common.
    fn random_of(&self, order: OrderId, attempt: u32) -> StdRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.config.seed.to_le_bytes());
        seed[8..24].copy_from_slice(order.0.as_bytes());
        seed[24..28].copy_from_slice(&attempt.to_le_bytes());
        StdRng::from_seed(seed)
    }

    fn random(&self, purpose: &str, of: &str) -> StdRng {
        let name = format!("{}:{purpose}:{of}", self.config.seed);
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes());
        StdRng::seed_from_u64(id.as_u64_pair().0)
    }

    fn mishap(&self, random: &mut StdRng) -> Option<Mishap> {
        random.random_bool(self.config.failure_rate).then(|| {
            let kinds = [Mishap::NoLiquidity, Mishap::Moved, Mishap::Timeout];
            kinds[random.random_range(0..kinds.len())]
        })
    }

    /// Depends on the order, not the attempt: a run that finds out must name what the submitting run chose.
    fn deal(&self, order: &OrderRequest, id: OrderId) -> Deal {
        let mut random = self.random_of(id, 0);
        let swap: Option<Swap<'_>> = serde_json::from_str(order.as_json().get()).ok();
        let Some((amount, swap)) = swap.and_then(|swap| Some((swap.amount.get().parse().ok()?, swap))) else {
            return self.fill(order, &mut random);
        };
        let Swap { token_in, token_out, slippage, slippage_percent, .. } = swap;
        let percent = slippage_percent.unwrap_or(slippage * 100.0);
        let [one, other] = self.quotes(&token_in, &token_out, amount, &mut random);
        let best = if one.amount_out >= other.amount_out { one } else { other };
        let Quote { dex, fee, price, amount_out } = best;
        let least = amount_out * (1.0 - percent / 100.0);
        let quote = json!({ "price": price, "fee": fee, "amountOut": amount_out, "minAmountOut": least });
        let (chosen, quotes) = (("chosenDex", json!(dex)), ("quotesFetched", json!(EXCHANGES.len())));
        // As decimal text: the numbers of some readers lose digits.
        let built = json!({ "dex": dex, "amountOut": amount_out.to_string() });
        let sent = vec![("dex", json!(dex))];
        Deal {
            looking: "Comparing quotes of 2 exchanges",
            found: (format!("{dex} gives most"), vec![quotes, chosen.clone(), ("quote", quote)]),
            built: vec![chosen, ("quote", built)],
            sent: sent.clone(),
            no_liquidity: format!("no pool has enough {token_out} for this order"),
            moved: Some(("slippage_exceeded", format!("the price moved by more than {percent} %"))),
            done: (format!("Swapped {} {token_in} on paper", swap.amount.get()), "txHash", sent),
        }
    }

    fn quotes(&self, token_in: &str, token_out: &str, amount: f64, random: &mut StdRng) -> [Quote; 2] {
        // A pair has one price for everybody, which the exchanges miss by a little.
        let mut pair = self.random("pair", &format!("{token_in}/{token_out}"));
        let fair = 10_f64.powf(pair.random_range(-2.0..2.5));
        EXCHANGES.map(|(dex, fee)| {
            let price = fair * random.random_range(0.98..1.02);
            // A large order moves the price against itself.
            let depth = 1e6 * random.random_range(0.5..2.0);
            let impact = amount / (amount + depth);
            let amount_out = amount * price * (1.0 - impact) * (1.0 - fee);
            Quote { dex, fee, price, amount_out }
        })
    }

    /// The deal of any other order: near its limit or, without one, at the price of its product.
    fn fill(&self, order: &OrderRequest, random: &mut StdRng) -> Deal {
        let side = match order.text("side").map(|side| side.to_lowercase()).as_deref() {
            Some("buy" | "bid") => Side::Buy,
            Some("sell" | "ask" | "offer") => Side::Sell,
            _ => Side::Unnamed,
        };
        let limit = LIMIT_FIELDS.iter().find_map(|name| order.number(name));
        let price = match limit {
            Some(limit) => {
                let better = limit.abs() * BETTER_BY * random.random::<f64>();
                match side {
                    Side::Buy => ((limit - better) * 100.0).floor() / 100.0,
                    Side::Sell => ((limit + better) * 100.0).ceil() / 100.0,
                    Side::Unnamed => limit,
                }
            }
            None => {
                let product: Vec<String> =
                    PRODUCT_FIELDS.iter().filter_map(|name| order.text(name)).collect();
                let price = self.random("product", &product.join("/")).random_range(PRICES);
                (price * 100.0).round() / 100.0
            }
        };
        let quantity: Option<Value> =
            order.field("quantity").and_then(|quantity| serde_json::from_str(quantity.get()).ok());
        let verb = match side {
            Side::Buy => "Bought",
            Side::Sell => "Sold",
            Side::Unnamed => "Filled",
        };
        let what = quantity.as_ref().map_or_else(String::new, |quantity| format!(" {quantity}"));
        let quote = vec![("quote", json!({ "price": price }))];
        let past_limit = ("limit_not_reached", "the price moved past the limit of this order".to_owned());
        let result =
            [("price", json!(price))].into_iter().chain(quantity.map(|quantity| ("quantity", quantity)));
        Deal {
            looking: "Looking at the other side of the market",
            found: (format!("There is a price of {price}"), quote.clone()),
            built: quote,
            sent: Vec::new(),
            no_liquidity: "nobody is on the other side of this order".to_owned(),
            moved: limit.is_some().then_some(past_limit),
            done: (format!("{verb}{what} at {price} on paper"), "tradeId", result.collect()),
        }
    }

    /// For an order that an earlier run submitted before it broke off. On paper it always arrived.
    async fn find_out(
        &self,
        deal: &Deal,
        handle: &mut OrderHandle,
        random: &mut StdRng,
    ) -> Result<Confirmation, ExecutionError> {
        handle.submitted(90, "Looking for what was sent", &deal.sent).await?;
        self.step(random).await;
        Ok(deal.confirmation(random))
    }

    async fn step(&self, random: &mut StdRng) {
        let factor = random.random_range(0.5..1.5);
        let pause = Duration::from_millis(self.config.step_ms).mul_f64(factor);
        // A sleep of no time still waits for the next tick, a millisecond away.
        if !pause.is_zero() {
            time::sleep(pause).await;
        }
    }
}

impl Deal {
    fn no_liquidity(&self) -> ExecutionError {
        failed("no_liquidity", &self.no_liquidity)
    }

    /// An order without a limit accepts any price, so it fails for lack of a counterparty instead.
    fn moved(&self) -> ExecutionError {
        self.moved.as_ref().map_or_else(|| self.no_liquidity(), |(code, message)| failed(code, message))
    }

    fn confirmation(&self, random: &mut StdRng) -> Confirmation {
        // Half of it is zeros, so that nobody takes it for a real transaction.
        let id = format!("{:064x}", random.random::<u128>());
        let (message, id_field, result) = &self.done;
        let fields = [(*id_field, json!(id))].into_iter().chain(result.iter().cloned()).collect();
        Confirmation { message: message.clone(), fields }
    }
}

fn failed(code: &'static str, message: &str) -> ExecutionError {
    ExecutionError::Failed { code, message: message.to_owned(), retry: true }
}

#[async_trait]
impl OrderExecutor for PaperExecutor {
    fn name(&self) -> &'static str {
        "paper"
    }

    async fn execute(
        &self,
        order: &OrderRequest,
        handle: &mut OrderHandle,
    ) -> Result<Confirmation, ExecutionError> {
        let mut random = self.random_of(handle.order(), handle.attempt());
        let mut mishap = self.mishap(&mut random);
        let deal = self.deal(order, handle.order());

        if handle.previous().is_some_and(|previous| previous.kind == EntryKind::Submitted) {
            return self.find_out(&deal, handle, &mut random).await;
        }
        handle.routing(10, deal.looking, &[]).await?;
        self.step(&mut random).await;
        if mishap == Some(Mishap::NoLiquidity) {
            return Err(deal.no_liquidity());
        }
        let (found, fields) = &deal.found;
        handle.routing(30, found, fields).await?;
        self.step(&mut random).await;

        handle.building(50, "Building the transaction", &deal.built).await?;
        self.step(&mut random).await;
        if mishap == Some(Mishap::Moved) {
            return Err(deal.moved());
        }
        handle.building(70, "The transaction is signed", &deal.built).await?;

        loop {
            handle.submitted(75, "Sending the transaction", &deal.sent).await?;
            self.step(&mut random).await;
            if mishap != Some(Mishap::Timeout) {
                handle.submitted(90, "Waiting for the confirmation", &deal.sent).await?;
                self.step(&mut random).await;
                return Ok(deal.confirmation(&mut random));
            }
            if !handle.next_attempt() {
                return Err(failed("timeout", "the transaction was not confirmed in time"));
            }
            random = self.random_of(handle.order(), handle.attempt());
            // A transaction that was sent can only be confirmed late, or not at all.
            mishap = self.mishap(&mut random).map(|_any| Mishap::Timeout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executor(failure_rate: f64) -> PaperExecutor {
        PaperExecutor::new(PaperConfig { failure_rate, ..PaperConfig::default() })
    }

    fn quotes(amount: f64, of: &str) -> [Quote; 2] {
        let paper = executor(0.0);
        paper.quotes("SOL", "USDC", amount, &mut paper.random("quotes", of))
    }

    #[test]
    fn the_same_seed_gives_the_same_quotes() {
        assert_eq!(quotes(10.0, "a"), quotes(10.0, "a"));
        assert_ne!(quotes(10.0, "a"), quotes(10.0, "b"));
    }

    #[test]
    fn exchanges_take_a_fee_and_large_orders_pay_more() {
        let per_unit = |amount: f64| {
            let quote = quotes(amount, "a")[0];
            quote.amount_out / amount / quote.price
        };
        assert!(per_unit(1.0) < 1.0 - EXCHANGES[0].1 + 1e-12);
        assert!(per_unit(1_000_000.0) < 0.8 * per_unit(1.0));
    }

    #[test]
    fn as_many_attempts_fail_as_were_asked_for() {
        let count = |rate: f64| {
            let paper = executor(rate);
            let fates = (0..2_000).map(|n| paper.mishap(&mut paper.random("fate", &n.to_string())));
            fates.flatten().count()
        };
        assert_eq!((count(0.0), count(1.0)), (0, 2_000));
        assert!((300..500).contains(&count(0.2)), "{}", count(0.2));
    }

    #[test]
    fn what_is_no_swap_is_filled_no_worse_than_its_limit() {
        // What was done, how much of it, and at which price.
        let filled = |order: &str| {
            let order = serde_json::from_str(order).unwrap();
            let (message, _, result) = executor(0.0).deal(&order, OrderId::random()).done;
            let get = |name| result.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone());
            let verb = message.split(' ').next().unwrap_or_default().to_owned();
            (verb, get("quantity"), get("price").and_then(|price| price.as_f64()).unwrap())
        };
        for limit in [41.25, 0.0, -12.5] {
            let (verb, quantity, price) =
                filled(&format!(r#"{{"side":"BUY","quantity":50,"limit":{limit}}}"#));
            assert_eq!((verb.as_str(), quantity), ("Bought", Some(json!(50))));
            assert!(price <= limit && price >= limit - limit.abs() * BETTER_BY - 0.01, "{price} {limit}");
            let (verb, _, price) = filled(&format!(r#"{{"side":"sell","limitPrice":{limit}}}"#));
            assert_eq!(verb, "Sold");
            assert!(price >= limit && price <= limit + limit.abs() * BETTER_BY + 0.01, "{price} {limit}");
        }
        let (verb, quantity, price) = filled(r#"{"hub":"WESTERN HUB"}"#);
        assert_eq!((verb.as_str(), quantity), ("Filled", None));
        assert!(PRICES.contains(&price) && price == filled(r#"{"hub":"WESTERN HUB"}"#).2);
        let deal = executor(0.0).deal(
            &serde_json::from_str(r#"{"side":"buy","quantity":50.0,"limit":41}"#).unwrap(),
            OrderId::random(),
        );
        let done = deal.confirmation(&mut executor(0.0).random("x", "y"));
        assert!(
            done.message.starts_with("Bought 50.0 at ") && done.message.ends_with(" on paper"),
            "{done:?}"
        );
    }
}
