//! What is counted of orders.

use super::table::counts;

counts! {
    /// What this node did with orders, and how many there are on all nodes.
    pub struct OrdersView {
        /// What this node did.
        #[serde(flatten)]
        counts: OrderCounts = of,
        /// The kind of executor that carries out what is placed here.
        executor: String,
        /// The kinds that other nodes with the same storage have.
        other_executors: Vec<String>,
        /// Jobs on all nodes; while the storage is degraded those that this node knows. Null when the
        /// storage did not say in time.
        jobs: Option<JobsView> = of,
    }

    /// What a node did with orders since its start.
    pub struct OrderCounts<N> {
        /// Orders queued by this node.
        placed: N = counter("orders_placed"),
        /// Requests that repeated an idempotency key.
        repeated: N = counter("orders_repeated"),
        /// Orders refused because the queue was full.
        refused_full: N = counter("orders_refused_full"),
        /// Updates of orders accepted.
        updates: N = counter("order_updates"),
        /// Updates that came too late: of a stale worker, or after the end.
        updates_refused: N = counter("order_updates_refused"),
        /// Outside updates taken in an outage, while nobody could say whether their order has a job.
        updates_unchecked: N = counter("order_updates_unchecked"),
        /// Jobs claimed through this node.
        runs: N = counter("order_runs"),
        /// Requests of workers outside that ask for orders, or wait for some, at the moment.
        claims_under_way: N = gauge("order_claims_under_way"),
        /// Orders that were carried out here.
        confirmed: N = counter("orders_ended", status = "confirmed"),
        /// Orders that failed here.
        failed: N = counter("orders_ended", status = "failed"),
        /// Runs that ended with another try to come.
        retried: N = counter("orders_retried"),
        /// Runs that were given back, which uses up no attempt: at a stop, by a worker's `release`, or
        /// because nobody took what was claimed.
        given_back: N = counter("orders_given_back"),
        /// Orders that became dead letters.
        dead: N = counter("orders_dead"),
        /// Runs that stopped because their order had become somebody else's.
        leases_lost: N = counter("order_leases_lost"),
        /// Storage calls about jobs that failed; each was repeated, or told.
        storage_failures: N = counter("order_storage_failures"),
        /// Panics (bugs) that ended one try of an order; everything else goes on.
        panics: N = counter("panics", where = "order"),
    }

    /// Jobs by state.
    pub struct JobsView {
        /// They wait for a worker.
        waiting: u64 = gauge("jobs", state = "waiting"),
        /// They are tried again after a while.
        delayed: u64 = gauge("jobs", state = "delayed"),
        /// A worker has them.
        claimed: u64 = gauge("jobs", state = "claimed"),
        /// Their orders have ended.
        done: u64 = gauge("jobs", state = "done"),
        /// Dead letters.
        dead: u64 = gauge("jobs", state = "dead"),
    }

    /// What the exchange with workers outside did since the start.
    pub struct InteropCounts<N> {
        /// Orders whose outside updates are followed.
        followed: N = gauge("outside_orders"),
        /// Outside updates that this node put into the log.
        accepted: N = counter("outside_updates"),
        /// Outside updates that the log had already: other nodes watch the same order.
        duplicates: N = counter("outside_duplicates"),
        /// Outside updates that cannot be told, by reason.
        invalid: OutsideInvalid<N> = of,
        /// Outside updates that the log did not take, by reason.
        refused: OutsideRefused<N> = of,
        /// Outside updates heard and let go, for want of memory or a log that takes them. The next one of
        /// the order is marked.
        lost: N = counter("outside_lost"),
        /// Times that outside updates may have been missed.
        gaps: N = counter("outside_gaps"),
        /// Times that the list of an order was something else than a list.
        unreadable: N = counter("outside_unreadable"),
        /// Storage calls for outside workers that failed and were repeated.
        retries: N = counter("outside_retries"),
        /// Own updates written for outside consumers.
        mirrored: N = counter("mirrored_updates"),
        /// Own updates, or orders with some, that could not be written for them and were given up.
        mirror_failures: N = counter("mirror_failures"),
    }

    /// Outside updates that cannot be told.
    pub struct OutsideInvalid<N> {
        /// Outside updates that are no JSON.
        not_json: N = counter("outside_invalid", reason = "not_json"),
        /// They are no object.
        not_an_object: N = counter("outside_invalid", reason = "not_an_object"),
        /// They name no stage of an order.
        no_stage: N = counter("outside_invalid", reason = "no_stage"),
        /// They are too large.
        too_large: N = counter("outside_invalid", reason = "too_large"),
    }

    /// Outside updates that the log did not take.
    pub struct OutsideRefused<N> {
        /// Outside updates that came after the last one of their order.
        closed: N = counter("outside_refused", reason = "closed"),
        /// Somebody held a lease.
        stale_fence: N = counter("outside_refused", reason = "stale_fence"),
        /// The order is carried out by the gateway's workers.
        has_job: N = counter("outside_refused", reason = "has_job"),
    }
}
