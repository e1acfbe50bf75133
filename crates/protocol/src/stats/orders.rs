//! Counters of orders.

use super::table::counts;

counts! {
    /// What this node did with orders, and how many there are on all nodes.
    pub struct OrdersView {
        /// What this node did.
        #[serde(flatten)]
        counts: OrderCounts = of,
        /// The kind of executor that executes orders placed here.
        executor: String,
        /// The kinds that other nodes on the same storage have.
        other_executors: Vec<String>,
        /// Jobs on all nodes; while the storage is degraded, those that this node knows. Null if the
        /// storage did not answer in time.
        jobs: Option<JobsView> = of,
    }

    /// What a node did with orders since its start.
    pub struct OrderCounts<N> {
        /// Orders queued by this node.
        placed: N = counter("orders_placed"),
        /// Repeated requests, by idempotency key.
        repeated: N = counter("orders_repeated"),
        /// Orders refused because the queue was full.
        refused_full: N = counter("orders_refused_full"),
        /// Updates of orders accepted.
        updates: N = counter("order_updates"),
        /// Updates that came too late: from a worker that had lost its lease, or after the order's end.
        updates_refused: N = counter("order_updates_refused"),
        /// Outside updates accepted in an outage, when nobody could say whether their order has a job.
        updates_unchecked: N = counter("order_updates_unchecked"),
        /// Jobs claimed through this node.
        runs: N = counter("order_runs"),
        /// Claim requests of outside workers in progress, including those that wait for jobs.
        claims_under_way: N = gauge("order_claims_under_way"),
        /// Orders confirmed here.
        confirmed: N = counter("orders_ended", status = "confirmed"),
        /// Orders that failed here.
        failed: N = counter("orders_ended", status = "failed"),
        /// Runs that ended with another attempt to come.
        retried: N = counter("orders_retried"),
        /// Runs that were given back, which does not count as an attempt: when the worker stopped, on its
        /// `release`, or because nobody took the claimed job.
        given_back: N = counter("orders_given_back"),
        /// Orders that became dead letters.
        dead: N = counter("orders_dead"),
        /// Runs that stopped because another worker had the order.
        leases_lost: N = counter("order_leases_lost"),
        /// Storage calls about jobs that failed; each was repeated or reported.
        storage_failures: N = counter("order_storage_failures"),
        /// Panics (bugs) that ended one attempt of an order; everything else continued.
        panics: N = counter("panics", where = "order"),
    }

    /// Jobs by state.
    pub struct JobsView {
        /// Jobs that wait for a worker.
        waiting: u64 = gauge("jobs", state = "waiting"),
        /// Jobs that wait for their next attempt.
        delayed: u64 = gauge("jobs", state = "delayed"),
        /// Jobs that a worker has.
        claimed: u64 = gauge("jobs", state = "claimed"),
        /// Jobs whose orders have ended.
        done: u64 = gauge("jobs", state = "done"),
        /// Dead letters.
        dead: u64 = gauge("jobs", state = "dead"),
    }

    /// The exchange with outside workers, since the start.
    pub struct InteropCounts<N> {
        /// Orders whose outside updates are followed.
        followed: N = gauge("outside_orders"),
        /// Outside updates that this node put into the log.
        accepted: N = counter("outside_updates"),
        /// Outside updates that the log already had, because other nodes follow the same order.
        duplicates: N = counter("outside_duplicates"),
        /// Outside updates that are invalid, by reason.
        invalid: OutsideInvalid<N> = of,
        /// Outside updates that the log refused, by reason.
        refused: OutsideRefused<N> = of,
        /// Outside updates dropped after they were received, for lack of memory or because the log did not
        /// accept them. The next one of the order is marked.
        lost: N = counter("outside_lost"),
        /// Times that outside updates may have been missed.
        gaps: N = counter("outside_gaps"),
        /// Times that the Redis key of an order's updates did not hold a list.
        unreadable: N = counter("outside_unreadable"),
        /// Storage calls for outside workers that failed and were repeated.
        retries: N = counter("outside_retries"),
        /// Own updates written for outside consumers.
        mirrored: N = counter("mirrored_updates"),
        /// Updates, or orders with some, that could not be written for outside consumers and were given up.
        mirror_failures: N = counter("mirror_failures"),
    }

    /// Outside updates that are invalid.
    pub struct OutsideInvalid<N> {
        /// Outside updates that are not JSON.
        not_json: N = counter("outside_invalid", reason = "not_json"),
        /// Outside updates that are not objects.
        not_an_object: N = counter("outside_invalid", reason = "not_an_object"),
        /// Outside updates that name no stage of an order.
        no_stage: N = counter("outside_invalid", reason = "no_stage"),
        /// Outside updates that are too large.
        too_large: N = counter("outside_invalid", reason = "too_large"),
    }

    /// Outside updates that the log refused.
    pub struct OutsideRefused<N> {
        /// Outside updates that came after the last one of their order.
        closed: N = counter("outside_refused", reason = "closed"),
        /// Outside updates refused because a worker held the lease of the order.
        stale_fence: N = counter("outside_refused", reason = "stale_fence"),
        /// Outside updates refused because the gateway's workers execute the order.
        has_job: N = counter("outside_refused", reason = "has_job"),
    }
}
