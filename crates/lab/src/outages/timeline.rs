//! What a gateway said of its storage, compared with the truth. No I/O.

use std::time::Duration;

use tokio::time::Instant;

/// `/ws/health`'s `state` over time.
#[derive(Debug, Default)]
pub(super) struct HealthHistory {
    spans: Vec<Span>,
    /// How often there was no answer.
    pub(super) unanswered: u64,
}

/// The same answer several times in a row.
#[derive(Debug, Clone)]
struct Span {
    state: String,
    /// When the first of these answers came.
    from: Instant,
    /// When the last one was requested. An answer is about some moment between its request and its arrival,
    /// so this state was certainly said from `from` to `to`.
    to: Instant,
}

/// A time in which Redis does not serve this node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Down {
    pub(super) from: Instant,
    pub(super) to: Instant,
}

impl HealthHistory {
    /// Takes an answer: when it was requested, when it came, what it said.
    pub(super) fn answered(&mut self, asked: Instant, came: Instant, state: &str) {
        match self.spans.last_mut() {
            Some(span) if span.state == state => span.to = asked.max(span.to),
            _ => self.spans.push(Span { state: state.to_owned(), from: came, to: came }),
        }
    }

    /// The newest answer.
    pub(super) fn state(&self) -> Option<&str> {
        Some(&self.spans.last()?.state)
    }

    /// Whether it has said since `from` that it is healthy, and nothing else.
    pub(super) fn is_healthy_since(&self, from: Instant) -> bool {
        self.spans.last().is_some_and(|span| span.is_healthy() && span.to >= from)
            && !self.spans.iter().any(|span| !span.is_healthy() && span.to >= from)
    }

    /// The first answer after `from` that was not "healthy".
    pub(super) fn noticed_after(&self, from: Instant) -> Option<Instant> {
        self.spans.iter().find(|span| !span.is_healthy() && span.to >= from).map(|span| span.from.max(from))
    }

    /// When it became healthy for good; `None` if it did not, or was healthy all the time since `from`.
    pub(super) fn recovered_after(&self, from: Instant) -> Option<Instant> {
        let last = self.spans.last().filter(|span| span.is_healthy())?;
        self.spans.iter().any(|span| !span.is_healthy() && span.to >= from).then_some(last.from)
    }

    /// The longest time in one of these in which it said wrongly that it is healthy.
    pub(super) fn falsely_healthy(&self, downs: &[Down]) -> Duration {
        let during = |down: &Down| {
            self.spans
                .iter()
                .filter(|span| span.is_healthy())
                .map(|span| span.overlap(down.from, down.to))
                .sum()
        };
        downs.iter().map(during).max().unwrap_or_default()
    }

    /// How long it said that it is not healthy while nothing was wrong: up to `fault`, and again from its
    /// recovery after `back` up to `end`.
    pub(super) fn falsely_degraded(
        &self,
        start: Instant,
        fault: Instant,
        back: Instant,
        end: Instant,
    ) -> Duration {
        let healthy_again = self
            .spans
            .iter()
            .find(|span| span.is_healthy() && span.to >= back)
            .map(|span| span.from.max(back));
        let unhealthy = self.spans.iter().filter(|span| !span.is_healthy());
        unhealthy
            .map(|span| {
                let after = healthy_again.map_or(Duration::ZERO, |again| span.overlap(again, end));
                span.overlap(start, fault) + after
            })
            .sum()
    }
}

impl Span {
    fn is_healthy(&self) -> bool {
        self.state == "healthy"
    }

    fn overlap(&self, from: Instant, to: Instant) -> Duration {
        self.to.min(to).saturating_duration_since(self.from.max(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Healthy up to `lost` ms, degraded up to `back`, healthy up to 1000; asked each 10 ms.
    fn said(start: Instant, lost: u64, back: u64) -> HealthHistory {
        let mut said = HealthHistory::default();
        for ms in (0..=1000).step_by(10) {
            let state = if (lost..back).contains(&ms) { "degraded" } else { "healthy" };
            said.answered(at(start, ms), at(start, ms + 1), state);
        }
        said
    }

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn notice_and_recovery_are_measured() {
        let start = Instant::now();
        let said = said(start, 300, 600);
        assert_eq!(said.noticed_after(at(start, 250)), Some(at(start, 301)));
        assert_eq!(said.noticed_after(at(start, 350)), Some(at(start, 350)), "it was known already");
        assert_eq!(said.noticed_after(at(start, 700)), None);
        assert_eq!(said.recovered_after(at(start, 250)), Some(at(start, 601)));
        assert_eq!(said.recovered_after(at(start, 700)), None, "nothing to recover from");
        assert_eq!(said.state(), Some("healthy"));
        assert!(said.is_healthy_since(at(start, 650)) && !said.is_healthy_since(at(start, 500)));
        assert!(!said.is_healthy_since(at(start, 1500)), "it was not asked since");
    }

    #[test]
    fn healthy_while_it_is_down_is_untrue() {
        let start = Instant::now();
        let down = |from, to| Down { from: at(start, from), to: at(start, to) };
        let said = said(start, 300, 600);
        assert_eq!(said.falsely_healthy(&[down(200, 500)]), Duration::from_millis(90));
        assert_eq!(said.falsely_healthy(&[down(310, 500)]), Duration::ZERO);
        assert_eq!(said.falsely_healthy(&[down(700, 800), down(900, 950)]), Duration::from_millis(100));
        assert_eq!(said.falsely_healthy(&[]), Duration::ZERO);
    }

    #[test]
    fn degraded_where_nothing_is_wrong_is_untrue() {
        let start = Instant::now();
        let moment = |ms| at(start, ms);
        let untrue = |said: &HealthHistory, fault, back| {
            said.falsely_degraded(start, moment(fault), moment(back), moment(1000))
        };
        assert_eq!(untrue(&said(start, 300, 600), 250, 500), Duration::ZERO);
        assert_eq!(untrue(&said(start, 300, 600), 350, 500), Duration::from_millis(49));
        // It recovered, and then said again that it had not.
        let mut flapping = said(start, 300, 600);
        flapping.answered(moment(1010), moment(1011), "recovering");
        flapping.answered(moment(1060), moment(1061), "recovering");
        assert_eq!(
            flapping.falsely_degraded(start, moment(250), moment(500), moment(2000)),
            Duration::from_millis(49)
        );
    }

    #[test]
    fn answers_that_fail_count_for_neither_side() {
        let start = Instant::now();
        let mut said = HealthHistory::default();
        said.answered(start, at(start, 1), "healthy");
        said.unanswered += 1;
        said.answered(at(start, 900), at(start, 901), "degraded");
        let down = Down { from: at(start, 100), to: at(start, 900) };
        assert_eq!((said.falsely_healthy(&[down]), said.unanswered), (Duration::ZERO, 1));
    }
}
