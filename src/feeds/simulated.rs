//! Simulated prices of the North American power markets: plausible, and the same for the same seed.
//!
//! Each step is five minutes of a simulated market whose clock starts at midnight and is independent of the
//! real one. A zone's energy price reverts to a daily shape; each hub adds congestion, which comes in spells,
//! and losses in proportion to the energy price.

use std::f64::consts::TAU;

use chrono::{DateTime, SecondsFormat, Utc};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

use super::FeedPrice;
use crate::model::Zone;

pub(crate) const ZONES: [&str; 7] = ["pjm", "ercot", "caiso", "miso", "nyiso", "isone", "spp"];

/// Steps of five minutes in an hour, and in a day.
const STEPS_PER_HOUR: u64 = 12;
const STEPS_PER_DAY: u64 = 24 * STEPS_PER_HOUR;

/// The parameters of a market.
#[derive(Debug)]
struct Market {
    zone: &'static str,
    hubs: &'static [&'static str],
    /// The mean of the energy price, in $/MWh.
    mean: f64,
    /// How far the energy price swings within a day, in $/MWh.
    swing: f64,
    /// How far solar power lowers it at noon, in $/MWh.
    solar: f64,
    /// The random part of a step, in $/MWh.
    noise: f64,
    /// The probability that a step begins a spike.
    spike: f64,
    /// The lowest price: the floor of the market's rules, or what wind and sun lower it to.
    floor: f64,
    /// The cap of the market's rules.
    cap: f64,
}

#[rustfmt::skip]
const MARKETS: [Market; 7] = [
    Market {
        zone: "pjm", mean: 38.0, swing: 14.0, solar: 2.0, noise: 1.6, spike: 0.002, floor: 5.0, cap: 2_000.0,
        hubs: &["WESTERN HUB", "EASTERN HUB", "AEP-DAYTON HUB", "CHICAGO HUB", "DOMINION HUB",
                "NEW JERSEY HUB", "OHIO HUB", "N ILLINOIS HUB"],
    },
    Market {
        zone: "ercot", mean: 34.0, swing: 16.0, solar: 14.0, noise: 2.4, spike: 0.004, floor: -30.0, cap: 5_000.0,
        hubs: &["HB_NORTH", "HB_SOUTH", "HB_WEST", "HB_HOUSTON", "HB_PAN", "HB_BUSAVG", "HB_HUBAVG"],
    },
    Market {
        zone: "caiso", mean: 42.0, swing: 16.0, solar: 46.0, noise: 2.0, spike: 0.002, floor: -60.0, cap: 2_000.0,
        hubs: &["TH_NP15_GEN-APND", "TH_SP15_GEN-APND", "TH_ZP26_GEN-APND", "NP15", "SP15", "ZP26"],
    },
    Market {
        zone: "miso", mean: 32.0, swing: 11.0, solar: 3.0, noise: 1.5, spike: 0.002, floor: 3.0, cap: 3_500.0,
        hubs: &["INDIANA.HUB", "ILLINOIS.HUB", "MICHIGAN.HUB", "MINN.HUB", "ARKANSAS.HUB", "LOUISIANA.HUB",
                "MS.HUB", "TEXAS.HUB"],
    },
    Market {
        zone: "nyiso", mean: 40.0, swing: 13.0, solar: 3.0, noise: 1.8, spike: 0.002, floor: 4.0, cap: 2_000.0,
        hubs: &["N.Y.C.", "LONGIL", "HUD VL", "CAPITL", "WEST", "GENESE", "CENTRL", "NORTH", "MHK VL",
                "MILLWD", "DUNWOD"],
    },
    Market {
        zone: "isone", mean: 44.0, swing: 13.0, solar: 7.0, noise: 1.8, spike: 0.002, floor: 5.0, cap: 2_000.0,
        hubs: &[".H.INTERNAL_HUB", ".Z.MAINE", ".Z.NEWHAMPSHIRE", ".Z.VERMONT", ".Z.CONNECTICUT",
                ".Z.RHODEISLAND", ".Z.SEMASS", ".Z.WCMASS", ".Z.NEMASSBOST"],
    },
    Market {
        zone: "spp", mean: 24.0, swing: 12.0, solar: 4.0, noise: 2.8, spike: 0.003, floor: -50.0, cap: 2_000.0,
        hubs: &["SPPNORTH_HUB", "SPPSOUTH_HUB"],
    },
];

/// The state of a hub.
#[derive(Debug)]
struct Hub {
    name: &'static str,
    /// Losses as a fraction of the energy price.
    loss_factor: f64,
    /// The value that congestion reverts to in the current spell, in $/MWh.
    congestion_target: f64,
    congestion: f64,
}

/// The state of a market.
#[derive(Debug)]
struct State {
    market: &'static Market,
    zone: Zone,
    hubs: Vec<Hub>,
    /// The deviation of the energy price from its daily shape, in $/MWh.
    deviation: f64,
    /// The remainder of a spike, in $/MWh.
    spike: f64,
    /// Each market has its own generator, so that leaving one out does not change the others.
    random: StdRng,
}

/// The payload; field order is the order on the wire.
#[derive(Serialize)]
struct Payload<'a> {
    key: &'a str,
    price: f64,
    energy: f64,
    congestion: f64,
    loss: f64,
    market: &'static str,
    location: &'a str,
    /// Always true: nobody is to mistake these for a market's prices.
    simulated: bool,
    timestamp: String,
}

/// The feed of simulated prices.
#[derive(Debug)]
pub(crate) struct Simulated {
    states: Vec<State>,
    step: u64,
}

impl Simulated {
    /// All zones, at midnight.
    pub(crate) fn new(seed: u64) -> Self {
        let states = MARKETS.iter().enumerate().map(|(index, market)| State::new(market, seed, index as u64));
        Self { states: states.collect(), step: 0 }
    }

    /// Restricts the feed to these zones; an empty list means all. The prices of a zone do not depend on the
    /// others.
    #[must_use]
    pub(crate) fn only(mut self, zones: &[Zone]) -> Self {
        if !zones.is_empty() {
            self.states.retain(|state| zones.contains(&state.zone));
        }
        self
    }

    /// The prices of the next step: a five-minute price (`market` is `RT5M`) of every hub, and at
    /// every twelfth step a day-ahead price (`DAM`, the key is `<hub>/DA`) of every hub as well.
    /// `now` becomes their `timestamp` and changes nothing else.
    pub(crate) fn next_batch(&mut self, now: DateTime<Utc>) -> Vec<FeedPrice> {
        let timestamp = now.to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut batch = Vec::new();
        for state in &mut self.states {
            let energy = state.advance(self.step);
            for hub in &state.hubs {
                batch.push(state.price(hub, energy, hub.congestion, "RT5M", &timestamp));
            }
            if self.step.is_multiple_of(STEPS_PER_HOUR) {
                // Day-ahead prices have no spikes or other deviations, and half of the spell's congestion.
                let energy = state.shape(self.step).clamp(state.market.floor, state.market.cap);
                for hub in &state.hubs {
                    batch.push(state.price(hub, energy, hub.congestion_target * 0.5, "DAM", &timestamp));
                }
            }
        }
        self.step += 1;
        batch
    }
}

impl State {
    fn new(market: &'static Market, seed: u64, index: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let hubs = market.hubs.iter().map(|name| {
            let congestion_target = random.random_range(-2.0..3.0);
            Hub {
                name,
                loss_factor: random.random_range(-0.03..0.04),
                congestion_target,
                congestion: congestion_target,
            }
        });
        let hubs = hubs.collect();
        let zone = market.zone.parse().expect("the names in the table are zone names");
        Self { market, zone, hubs, deviation: 0.0, spike: 0.0, random }
    }

    /// The energy price at this time of day without random parts, in $/MWh: low at night, a morning ramp, the
    /// sun at noon, the peak in the evening.
    fn shape(&self, step: u64) -> f64 {
        let hour = (step % STEPS_PER_DAY) as f64 / STEPS_PER_HOUR as f64;
        let day = (TAU * (hour - 10.0) / 24.0).sin();
        let evening = (-((hour - 18.5) / 2.2).powi(2)).exp();
        let sun = (-((hour - 13.0) / 2.8).powi(2)).exp();
        self.market.mean + self.market.swing * (0.6 * day + 0.9 * evening) - self.market.solar * sun
    }

    /// Advances by one step, and returns the energy price.
    fn advance(&mut self, step: u64) -> f64 {
        let market = self.market;
        let random = &mut self.random;
        self.deviation += -0.12 * self.deviation + market.noise * gauss(random);
        self.spike *= 0.55;
        if self.spike < 0.5 {
            self.spike = 0.0;
        }
        if random.random_bool(market.spike) {
            // Most spikes are a few hundred dollars; very few reach the cap.
            self.spike = (80.0 / random.random_range(0.02..1.0_f64)).min(market.cap);
        }
        for hub in &mut self.hubs {
            // A line becomes congested, or free again, about every two hours.
            if random.random_bool(0.04) {
                hub.congestion_target = if random.random_bool(0.6) { 0.0 } else { 9.0 * gauss(random) };
            }
            hub.congestion += 0.3 * (hub.congestion_target - hub.congestion) + 0.2 * gauss(random);
        }
        (self.shape(step) + self.deviation + self.spike).clamp(market.floor, market.cap)
    }

    fn price(
        &self,
        hub: &Hub,
        energy: f64,
        congestion: f64,
        market: &'static str,
        timestamp: &str,
    ) -> FeedPrice {
        let energy = cents(energy);
        let loss = cents(energy as f64 / 100.0 * hub.loss_factor);
        // The floor applies to the whole price; congestion is reduced to meet it.
        let floor = cents(self.market.floor) - energy - loss;
        let congestion = cents(congestion).max(floor);
        let key = if market == "DAM" { format!("{}/DA", hub.name) } else { hub.name.to_owned() };
        let payload = Payload {
            key: &key,
            price: dollars(energy + congestion + loss),
            energy: dollars(energy),
            congestion: dollars(congestion),
            loss: dollars(loss),
            market,
            location: hub.name,
            simulated: true,
            timestamp: timestamp.to_owned(),
        };
        let json = serde_json::to_string(&payload).expect("a struct of plain fields always serialises");
        FeedPrice { zone: self.zone.clone(), json }
    }
}

/// Whole cents, since the parts of a price must add up exactly.
fn cents(dollars: f64) -> i64 {
    (dollars * 100.0).round() as i64
}

fn dollars(cents: i64) -> f64 {
    cents as f64 / 100.0
}

/// A value close to a standard normal distribution: the sum of twelve uniform ones. Only additions, so that
/// every platform gets the same digits.
fn gauss(random: &mut StdRng) -> f64 {
    (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    /// Zone and payload of every price in some steps, without their times.
    fn prices(mut feed: Simulated, steps: i64, start: i64) -> Vec<(String, Value)> {
        let batches = (0..steps).flat_map(|step| feed.next_batch(at(start + step)));
        let parsed = batches.map(|price| {
            let mut payload: Value = serde_json::from_str(&price.json).unwrap();
            payload.as_object_mut().unwrap().remove("timestamp").unwrap();
            (price.zone.to_string(), payload)
        });
        parsed.collect()
    }

    #[test]
    fn a_seed_gives_the_same_prices_whatever_the_clock_says() {
        assert_eq!(prices(Simulated::new(7), 50, 0), prices(Simulated::new(7), 50, 987_654));
        assert_ne!(prices(Simulated::new(7), 50, 0), prices(Simulated::new(8), 50, 0));
    }

    #[test]
    fn a_zone_does_not_depend_on_the_others() {
        let spp = "spp".parse().unwrap();
        let all = prices(Simulated::new(3), 30, 0).into_iter().filter(|(zone, _)| zone == "spp");
        assert_eq!(all.collect::<Vec<_>>(), prices(Simulated::new(3).only(&[spp]), 30, 0));
    }

    #[test]
    fn every_price_is_the_sum_of_its_parts_in_cents() {
        for (zone, price) in prices(Simulated::new(1), 300, 0) {
            let part = |name: &str| (price[name].as_f64().unwrap() * 100.0).round() as i64;
            assert_eq!(part("price"), part("energy") + part("congestion") + part("loss"), "{zone} {price}");
            assert!((part("price") as f64 - price["price"].as_f64().unwrap() * 100.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_day_stays_plausible_and_only_some_markets_go_below_zero() {
        let mut negative = BTreeSet::new();
        let mut zones = BTreeSet::new();
        for seed in 0..3 {
            for (zone, price) in prices(Simulated::new(seed), 3 * STEPS_PER_DAY as i64, 0) {
                let value = price["price"].as_f64().unwrap();
                assert!((-60.0..6_000.0).contains(&value), "{zone} {price}");
                zones.insert(zone.clone());
                if value < 0.0 {
                    negative.insert(zone);
                }
            }
        }
        assert_eq!(zones, ZONES.map(str::to_owned).into());
        assert_eq!(negative, ["caiso", "ercot", "spp"].map(str::to_owned).into());
    }

    #[test]
    fn day_ahead_prices_come_once_an_hour_under_a_key_of_their_own() {
        let mut feed = Simulated::new(1);
        let sizes: Vec<usize> = (0..13).map(|step| feed.next_batch(at(step)).len()).collect();
        let hubs: usize = MARKETS.iter().map(|market| market.hubs.len()).sum();
        assert_eq!((sizes[0], sizes[1], sizes[12]), (2 * hubs, hubs, 2 * hubs));
        let first = Simulated::new(1).next_batch(at(0)).remove(0);
        let expected = r#"{"key":"WESTERN HUB","price":"#;
        assert!(first.json.starts_with(expected), "{}", first.json);
        let end = r#""simulated":true,"timestamp":"2023-11-14T22:13:20.000Z"}"#;
        assert!(first.json.ends_with(end), "{}", first.json);
    }
}
