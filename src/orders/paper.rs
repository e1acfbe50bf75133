//! The built-in executor: a simulation of a router over two exchanges. Nothing is traded, and every
//! update says `executor: paper`.

use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::time;
use uuid::Uuid;

use super::config::PaperConfig;
use super::executor::{Confirmation, ExecutionError, OrderExecutor, OrderHandle};
use super::request::OrderRequest;
use crate::model::{EntryKind, OrderId};

/// The exchanges, and the part of an amount that each takes as its fee.
const EXCHANGES: [(&str, f64); 2] = [("raydium", 0.0025), ("meteora", 0.0020)];

/// An [`OrderExecutor`] that trades on paper. The same seed, order and attempt give the same fate.
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
    /// How much of `token_out` there would be in the end.
    amount_out: f64,
}

/// What goes wrong with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mishap {
    NoLiquidity,
    SlippageExceeded,
    /// The transaction was sent, and nobody confirmed it.
    Timeout,
}

impl PaperExecutor {
    /// A simulation of its own; it keeps no state between orders.
    pub fn new(config: PaperConfig) -> Self {
        Self { config }
    }

    fn random(&self, purpose: &str, of: &str) -> StdRng {
        let name = format!("{}:{purpose}:{of}", self.config.seed);
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes());
        StdRng::seed_from_u64(id.as_u64_pair().0)
    }

    /// What decides an attempt.
    fn fate(&self, handle: &OrderHandle) -> StdRng {
        self.random("fate", &format!("{}:{}", handle.order(), handle.attempt()))
    }

    fn quotes(&self, order: &OrderRequest, random: &mut StdRng) -> [Quote; 2] {
        // A pair has one price for everybody, which the exchanges miss by a little.
        let mut pair = self.random("pair", &format!("{}/{}", order.token_in, order.token_out));
        let fair = 10_f64.powf(pair.random_range(-2.0..2.5));
        EXCHANGES.map(|(dex, fee)| {
            let price = fair * random.random_range(0.98..1.02);
            // A large order moves the price against itself.
            let depth = 1e6 * random.random_range(0.5..2.0);
            let impact = order.amount() / (order.amount() + depth);
            let amount_out = order.amount() * price * (1.0 - impact) * (1.0 - fee);
            Quote { dex, fee, price, amount_out }
        })
    }

    fn mishap(&self, random: &mut StdRng) -> Option<Mishap> {
        random.random_bool(self.config.failure_rate).then(|| {
            let kinds = [Mishap::NoLiquidity, Mishap::SlippageExceeded, Mishap::Timeout];
            kinds[random.random_range(0..kinds.len())]
        })
    }

    /// The same for every attempt, so that a run that finds out names what the one before it chose.
    fn best_quote(&self, order: &OrderRequest, id: OrderId) -> Quote {
        let [one, other] = self.quotes(order, &mut self.random("quotes", &id.to_string()));
        if one.amount_out >= other.amount_out { one } else { other }
    }

    /// A run before this one submitted the order, and was gone. On paper the transaction always arrived.
    async fn find_out(
        &self,
        order: &OrderRequest,
        handle: &mut OrderHandle,
        random: &mut StdRng,
    ) -> Result<Confirmation, ExecutionError> {
        let best = self.best_quote(order, handle.order());
        handle.submitted(90, "Looking for the transaction", &[("dex", json!(best.dex))]).await?;
        self.step(random).await;
        Ok(confirmation(order, &best, random))
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

fn confirmation(order: &OrderRequest, best: &Quote, random: &mut StdRng) -> Confirmation {
    Confirmation {
        tx_hash: format!("{:032x}{:032x}", random.random::<u128>(), random.random::<u128>()),
        dex: best.dex.to_owned(),
        message: format!("Swapped {} {} on paper", order.amount, order.token_in),
    }
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
        let mut random = self.fate(handle);
        let mut mishap = self.mishap(&mut random);

        if handle.previous().is_some_and(|previous| previous.kind == EntryKind::Submitted) {
            return self.find_out(order, handle, &mut random).await;
        }
        handle.routing(10, "Comparing quotes of 2 exchanges", &[]).await?;
        self.step(&mut random).await;
        if mishap == Some(Mishap::NoLiquidity) {
            return Err(ExecutionError::Failed {
                code: "no_liquidity",
                message: format!("no pool has enough {} for this order", order.token_out),
                retry: true,
            });
        }
        let best = self.best_quote(order, handle.order());
        let shown = json!({
            "price": best.price, "fee": best.fee, "amountOut": best.amount_out,
            "minAmountOut": best.amount_out * (1.0 - order.slippage()),
        });
        let fields =
            [("quotesFetched", json!(EXCHANGES.len())), ("chosenDex", json!(best.dex)), ("quote", shown)];
        handle.routing(30, &format!("{} gives most", best.dex), &fields).await?;
        self.step(&mut random).await;

        handle.building(50, "Building the transaction", &[]).await?;
        self.step(&mut random).await;
        if mishap == Some(Mishap::SlippageExceeded) {
            return Err(ExecutionError::Failed {
                code: "slippage_exceeded",
                message: format!("the price moved by more than {} of it", order.slippage()),
                retry: true,
            });
        }
        handle.building(70, "The transaction is signed", &[]).await?;

        loop {
            let dex = [("dex", json!(best.dex))];
            handle.submitted(75, "Sending the transaction", &dex).await?;
            self.step(&mut random).await;
            if mishap != Some(Mishap::Timeout) {
                handle.submitted(90, "Waiting for the confirmation", &dex).await?;
                self.step(&mut random).await;
                return Ok(confirmation(order, &best, &mut random));
            }
            if !handle.next_attempt() {
                return Err(ExecutionError::Failed {
                    code: "timeout",
                    message: "the transaction was not confirmed in time".to_owned(),
                    retry: true,
                });
            }
            random = self.fate(handle);
            // What is sent already can only be confirmed late, or not at all.
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

    fn order(amount: &str) -> OrderRequest {
        let text = format!(r#"{{"tokenIn":"SOL","tokenOut":"USDC","amount":{amount},"slippage":0.01}}"#);
        OrderRequest::parse(&text).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_quotes() {
        let paper = executor(0.0);
        let quotes = || paper.quotes(&order("10"), &mut paper.random("fate", "a"));
        assert_eq!(quotes(), quotes());
        assert_ne!(quotes(), paper.quotes(&order("10"), &mut paper.random("fate", "b")));
    }

    #[test]
    fn exchanges_take_a_fee_and_large_orders_pay_more() {
        let paper = executor(0.0);
        let per_unit = |amount: &str| {
            let quote = paper.quotes(&order(amount), &mut paper.random("fate", "a"))[0];
            quote.amount_out / order(amount).amount() / quote.price
        };
        assert!(per_unit("1") < 1.0 - EXCHANGES[0].1 + 1e-12);
        assert!(per_unit("1000000") < 0.8 * per_unit("1"));
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
}
