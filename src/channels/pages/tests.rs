use tokio::time;
use zonewire_protocol::stats::{Live as _, PageCounts};

use super::*;
use crate::model::{DraftEntry, Epoch, NodeId};
use crate::storage::{Append, AppendBatch, Log as _, MemoryBackend, MemoryConfig, Retention};

struct Logs {
    store: SharedBackend,
    pages: Pages,
    node: NodeId,
    epoch: Epoch,
}

fn channel() -> ChannelName {
    "zone:pjm".parse().unwrap()
}

impl Logs {
    async fn new(bytes_max: usize) -> Self {
        let (memory, _sweeping) = MemoryBackend::new(Retention::default(), MemoryConfig::default());
        let (node, epoch) = (NodeId::random(), Epoch::random());
        memory.open(&channel(), node, &epoch).await.unwrap();
        let store: SharedBackend = Arc::new(memory);
        let pages = Pages::new(Arc::clone(&store), bytes_max);
        Self { store, pages, node, epoch }
    }

    async fn append(&self, seqs: std::ops::RangeInclusive<u64>, bytes: usize) {
        let entries = seqs.map(|seq| {
            let price = DraftEntry::price(0, format!("{{\"p\":\"{}\"}}", "x".repeat(bytes)));
            let draft = DraftEntry { key: Some(format!("k{seq:04}").into()), ..price };
            Append { seq, prev: seq - 1, draft, fence: None }
        });
        let entries = entries.collect();
        let (channel, epoch) = (channel(), self.epoch.clone());
        self.store.append(&AppendBatch { channel, epoch, producer: self.node, entries }).await.unwrap();
    }

    fn at(&self, offset: u64) -> Position {
        Position { epoch: self.epoch.clone(), offset }
    }

    /// The page of a reader after this offset that knows the log to have reached `seen`.
    async fn get(&self, after: u64, seen: u64) -> Arc<EncodedPage> {
        let wanted =
            Wanted { after: Some(self.at(after)), late_to: 0, seen: Some(self.at(seen)), is_owed: false };
        self.pages.get(&channel(), &wanted, 300).await.unwrap()
    }

    fn counted(&self) -> (u64, u64) {
        let PageCounts { replay_reads, replay_reads_shared } = self.pages.stats().read();
        (replay_reads, replay_reads_shared)
    }
}

fn offsets(page: &Arc<EncodedPage>) -> (u64, u64) {
    (page.batches.first().unwrap().first, page.last().unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_many_want_is_read_once() {
    let logs = Logs::new(128 << 20).await;
    logs.append(1..=700, 10).await;
    let all = futures_util::future::join_all((0..200).map(|_| logs.get(0, 700))).await;
    assert!(all.iter().all(|page| offsets(page) == (1, 300)));
    assert_eq!(logs.counted(), (1, 199));
    let all = futures_util::future::join_all((0..200).map(|_| logs.get(600, 700))).await;
    assert!(all.iter().all(|page| Arc::ptr_eq(page, &all[0]) && offsets(page) == (601, 700)));
    assert_eq!(logs.counted(), (2, 398));
    // Entries that are late to one reader are not late to another.
    let wanted = Wanted { after: Some(logs.at(0)), late_to: 5, seen: Some(logs.at(700)), is_owed: false };
    let page = logs.pages.get(&channel(), &wanted, 300).await.unwrap();
    let late: Vec<_> = page.batches.iter().map(|batch| (batch.is_late, batch.last())).collect();
    assert_eq!((late, logs.counted().0), (vec![(true, 5), (false, 300)], 3));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_was_read_before_is_given_for_as_long_as_it_is_an_answer() {
    let logs = Logs::new(128 << 20).await;
    logs.append(1..=400, 10).await;
    assert_eq!(offsets(&logs.get(350, 400).await), (351, 400));
    logs.append(401..=401, 10).await;
    assert_eq!(offsets(&logs.get(350, 400).await), (351, 400), "the rest comes live");
    assert_eq!(logs.counted(), (1, 1));
    assert_eq!(offsets(&logs.get(350, 401).await), (351, 401), "its reader knows of more");
    assert_eq!(logs.counted(), (2, 1));
    logs.get(0, 401).await;
    logs.append(402..=402, 10).await;
    logs.get(0, 402).await;
    assert_eq!(logs.counted(), (3, 2), "a full page stays what it is");
    logs.pages.forget(&channel());
    logs.get(0, 402).await;
    assert_eq!(logs.counted(), (4, 2), "the log may be another one");
    time::advance(CACHED_FOR).await;
    logs.get(0, 402).await;
    assert_eq!(logs.counted(), (5, 2));
}

#[tokio::test(start_paused = true)]
async fn pages_are_bounded_in_bytes_and_small_where_too_many_live() {
    let logs = Logs::new(1 << 20).await;
    logs.append(1..=120, 60_000).await;
    let first = logs.get(0, 120).await;
    assert_eq!(offsets(&first), (1, 4));
    assert!(first.bytes <= PAGE_BYTES && logs.pages.bytes() == first.bytes);
    // Readers who accept nothing, each at a different position.
    let mut waiting: Vec<Bytes> = Vec::new();
    for after in 0..100 {
        let page = logs.get(after, 120).await;
        waiting.push(page.batches[0].frames.slice(..1));
    }
    let most = (1 << 20) + PAGE_BYTES + 100 * 61_000;
    assert!(logs.pages.bytes() > 1 << 20 && logs.pages.bytes() < most, "{}", logs.pages.bytes());
    assert_eq!(offsets(&logs.get(100, 120).await), (101, 101), "one entry in any case");
    drop((waiting, first));
    let page = logs.get(0, 120).await;
    assert_eq!(offsets(&page), (1, 4), "there is room again");
    drop(page);
    assert!(logs.pages.bytes() > 0, "it is cached for others");
    // The memory is released in time.
    let tidied = time::timeout(CACHED_FOR * 2, logs.pages.tidying()).await;
    assert!(tidied.is_err() && logs.pages.bytes() == 0);
    let cache = logs.pages.0.logs.lock();
    assert_eq!((cache.channels.len(), cache.cached.len(), cache.cached_bytes), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn latest_entries_are_read_once_for_all_that_begin_with_them() {
    let logs = Logs::new(128 << 20).await;
    logs.append(1..=2_500, 10).await;
    let get = async |after: Option<&str>, at_least: Option<u64>| {
        let wanted =
            WantedLatest { after: after.map(str::to_owned), at_least: at_least.map(|at| logs.at(at)) };
        logs.pages.get_latest(&channel(), &wanted, 1_000).await.unwrap()
    };
    let all = futures_util::future::join_all((0..200).map(|_| get(None, None))).await;
    let first = &all[0];
    assert!(all.iter().all(|page| Arc::ptr_eq(page, first)) && first.bytes <= 2 * PAGE_BYTES);
    assert_eq!(
        (first.epoch.as_ref(), first.top, first.next.as_deref()),
        (Some(&logs.epoch), 2_500, Some("k1000"))
    );
    assert_eq!((first.places.len(), first.places[999], logs.counted()), (1_000, 1_000, (1, 199)));
    assert!(first.batch.as_ref().unwrap().frame(0).ends_with(br#"xxx"}"#));
    // A reader that knows of more does not get what was read before.
    logs.append(2_501..=2_501, 10).await;
    assert_eq!((get(None, Some(2_500)).await.top, get(None, Some(2_501)).await.top), (2_500, 2_501));
    assert_eq!((get(Some("k1000"), Some(2_501)).await.places[0], logs.counted().0), (1_001, 3));
    assert_eq!(get(Some("k2000"), None).await.next, None);
    logs.pages.forget(&channel());
    get(None, None).await;
    assert_eq!(logs.counted().0, 5);
    drop(all);
    let tidied = time::timeout(CACHED_FOR * 2, logs.pages.tidying()).await;
    assert!(tidied.is_err() && logs.pages.bytes() == 0);
}
