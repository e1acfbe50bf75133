use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::store::{Index, Store};
use super::*;
use crate::model::{DraftEntry, EntryKind};
use crate::storage::disk::{FULL, Fault, HANGS, PATIENT, eventually};

async fn open(dir: &Path, fsync: SpoolFsync, bytes: u64) -> Result<(Spool, Vec<Former>), SpoolOpenError> {
    Spool::open(dir, SpoolOptions { fsync, bytes, deadline: PATIENT, is_required: true }).await
}

/// A spool in a new directory.
async fn fresh(fsync: SpoolFsync, bytes: u64) -> (tempfile::TempDir, Spool) {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), fsync, bytes).await.unwrap();
    (dir, spool)
}

const POLICIES: [SpoolFsync; 2] = [SpoolFsync::Always, SpoolFsync::Never];

const ROOM: u64 = 64 << 20;

fn channel(name: &str) -> ChannelName {
    name.parse().unwrap()
}

fn entry(seq: u64) -> Append {
    let price = DraftEntry::price(seq as i64, format!("{{\"n\":{seq}}}"));
    let draft = DraftEntry { key: Some("a b".into()), ..price };
    Append { seq, prev: seq - 1, draft, fence: None }
}

fn entries(seqs: impl IntoIterator<Item = u64>) -> Vec<Append> {
    seqs.into_iter().map(entry).collect()
}

async fn formers(dir: &Path, fsync: SpoolFsync) -> Vec<Former> {
    let (spool, formers) = open(dir, fsync, ROOM).await.unwrap();
    spool.close().await;
    formers
}

#[tokio::test]
async fn unacknowledged_entries_are_there_after_a_restart() {
    for fsync in POLICIES {
        let dir = tempfile::tempdir().unwrap();
        let (pjm, spp) = (channel("zone:pjm"), channel("zone:spp"));
        let (one, other) = (NodeId::random(), NodeId::random());
        let (spool, found) = open(dir.path(), fsync, ROOM).await.unwrap();
        assert_eq!(found, []);
        spool.append(one, &pjm, &entries(1..=5)).await.unwrap();
        spool.append(one, &spp, &entries(1..=2)).await.unwrap();
        spool.append(other, &pjm, &entries(1..=2)).await.unwrap();
        spool.acknowledged(one, &pjm, 3);
        spool.acknowledged(other, &pjm, 7);
        spool.close().await;
        assert_eq!(spool.status().state, DiskState::Closed);
        assert_eq!(spool.append(one, &pjm, &entries([6])).await, Err(SpoolError::Closed));
        assert_eq!(spool.status().failed, 1);

        let mut expected = vec![
            Former { producer: one, channel: pjm.clone(), start: 1, entries: entries(4..=5) },
            Former { producer: one, channel: spp.clone(), start: 1, entries: entries(1..=2) },
        ];
        // The next process may have another policy, and acknowledges what the earlier one left.
        for next in POLICIES {
            assert_eq!(formers(dir.path(), next).await, expected, "{fsync:?} then {next:?}");
        }
        let (spool, _) = open(dir.path(), fsync, ROOM).await.unwrap();
        assert_eq!((spool.status().entries, spool.status().state), (4, DiskState::Working));
        spool.acknowledged(one, &spp, 2);
        spool.append(other, &spp, &entries([9])).await.unwrap();
        spool.close().await;
        expected.truncate(1);
        expected.push(Former { producer: other, channel: spp, start: 2, entries: entries([9]) });
        expected.sort_by_key(|former| former.producer);
        assert_eq!(formers(dir.path(), fsync).await, expected);
    }
}

#[tokio::test]
async fn dropping_the_last_handle_writes_pending_requests() {
    let (dir, spool) = fresh(SpoolFsync::Always, ROOM).await;
    let (node, pjm) = (NodeId::random(), channel("zone:pjm"));
    spool.append(node, &pjm, &entries(1..=3)).await.unwrap();
    spool.acknowledged(node, &pjm, 2);
    drop(spool);
    let found = eventually(async || match open(dir.path(), SpoolFsync::Always, ROOM).await {
        Ok((_spool, found)) => Some(found),
        Err(SpoolOpenError::InUse { .. }) => None,
        Err(error) => panic!("{error}"),
    })
    .await;
    assert_eq!(found[0].entries, entries([3]));
}

#[tokio::test]
async fn the_successor_of_a_dropped_entry_takes_its_place_in_the_chain() {
    for fsync in POLICIES {
        let dir = tempfile::tempdir().unwrap();
        let (node, pjm) = (NodeId::random(), channel("zone:pjm"));
        let chain = |found: &[Former]| -> Vec<(u64, u64)> {
            found.iter().flat_map(|f| &f.entries).map(|append| (append.prev, append.seq)).collect()
        };
        let (spool, _) = open(dir.path(), fsync, ROOM).await.unwrap();
        spool.append(node, &pjm, &entries(3..=8)).await.unwrap();
        spool.forget(node, &pjm, vec![3, 4, 6, 99]);
        spool.close().await;
        assert_eq!(chain(&formers(dir.path(), fsync).await), [(2, 5), (5, 7), (7, 8)]);
        let (spool, _) = open(dir.path(), fsync, ROOM).await.unwrap();
        spool.forget(node, &pjm, vec![7, 8]);
        spool.append(node, &pjm, &entries([9])).await.unwrap();
        spool.close().await;
        assert_eq!(chain(&formers(dir.path(), fsync).await), [(2, 5), (5, 9)]);
        let (spool, _) = open(dir.path(), fsync, ROOM).await.unwrap();
        spool.forget(node, &pjm, vec![5, 9]);
        spool.acknowledged(node, &pjm, 9);
        spool.append(node, &pjm, &entries([10])).await.unwrap();
        spool.close().await;
        assert_eq!(chain(&formers(dir.path(), fsync).await), [(9, 10)]);
    }
}

#[tokio::test]
async fn a_full_spool_refuses_until_something_is_acknowledged() {
    let (node, pjm) = (NodeId::random(), channel("zone:pjm"));
    let bytes = Index::cost(&(node, pjm.clone()), &entries(1..=3));
    let (dir, spool) = fresh(SpoolFsync::Never, bytes).await;
    spool.append(node, &pjm, &entries(1..=2)).await.unwrap();
    assert_eq!(spool.append(node, &pjm, &entries(3..=4)).await, Err(SpoolError::Full));
    spool.append(node, &pjm, &entries([3])).await.unwrap();
    assert_eq!(spool.append(node, &pjm, &entries([4])).await, Err(SpoolError::Full));
    assert_eq!((spool.status().bytes, spool.status().full), (bytes, 3));
    spool.acknowledged(node, &pjm, 1);
    spool.append(node, &pjm, &entries([4])).await.unwrap();
    spool.close().await;
    assert_eq!(formers(dir.path(), SpoolFsync::Never).await[0].entries, entries(2..=4));
}

#[tokio::test]
async fn room_on_disk_is_used_again_and_given_back() {
    const LARGE: usize = 100_000;
    let (node, pjm) = (NodeId::random(), channel("zone:pjm"));
    let bytes = 20 << 20;
    let (_dir, spool) = fresh(SpoolFsync::Never, bytes).await;
    let (mut seq, mut acked, mut largest) = (0, 0, 0);
    for _ in 0..1000 {
        seq += 1;
        let mut append = entry(seq);
        append.draft.data = vec![b'x'; LARGE].into();
        while spool.append(node, &pjm, std::slice::from_ref(&append)).await == Err(SpoolError::Full) {
            acked += 20;
            spool.acknowledged(node, &pjm, acked);
        }
        largest = spool.status().file_bytes.max(largest);
    }
    assert!(largest <= 3 * bytes, "{largest}");
    spool.acknowledged(node, &pjm, seq);
    spool.close().await;
    let left = spool.status();
    assert_eq!((left.entries, left.bytes), (0, 0));
    assert!(left.file_bytes <= bytes / 4, "{}", left.file_bytes);
}

#[tokio::test]
async fn a_directory_serves_one_process_and_a_damaged_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = open(dir.path(), SpoolFsync::Always, ROOM).await.unwrap();
    let second = open(dir.path(), SpoolFsync::Always, ROOM).await.unwrap_err();
    assert!(matches!(second, SpoolOpenError::InUse { .. }), "{second}");
    first.append(NodeId::random(), &channel("zone:pjm"), &entries(1..=9)).await.unwrap();
    first.close().await;

    let file = dir.path().join("spool.redb");
    let whole = std::fs::read(&file).unwrap();
    let damaged = vec![0x5a; 1 << 16];
    std::fs::write(&file, &damaged).unwrap();
    let error = open(dir.path(), SpoolFsync::Always, ROOM).await.unwrap_err();
    assert!(matches!(error, SpoolOpenError::Unreadable { .. }), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), damaged);

    // A file that is truncated, or damaged in its middle, is never taken for an intact one.
    for spoil in [
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2),
        |bytes: &mut Vec<u8>| {
            let page = bytes.windows(6).position(|found| found == b"{\"n\":5").unwrap();
            bytes[page] ^= 0xff;
        },
    ] {
        let mut bytes = whole.clone();
        spoil(&mut bytes);
        std::fs::write(&file, &bytes).unwrap();
        let error = open(dir.path(), SpoolFsync::Always, ROOM).await.unwrap_err();
        assert!(matches!(error, SpoolOpenError::Unreadable { .. }), "{error}");
    }

    let below_a_file = open(&file.join("x"), SpoolFsync::Always, ROOM).await.unwrap_err();
    assert!(matches!(below_a_file, SpoolOpenError::Unusable { .. }), "{below_a_file}");
}

#[tokio::test]
async fn a_half_made_file_is_created_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("spool.redb");
    let fault = Fault::of(dir.path());
    fault.begin(FULL);
    let error = open(dir.path(), SpoolFsync::Always, ROOM).await.unwrap_err();
    assert!(
        matches!(error, SpoolOpenError::Unusable { .. }),
        "the error must not say to move the file: {error}"
    );
    fault.end(FULL);
    assert_eq!(formers(dir.path(), SpoolFsync::Always).await, []);

    // What a full disk leaves: a file of zeros, or one whose header lacks its beginning.
    let mut begun = vec![0; 1 << 20];
    for at in [None, Some(20)] {
        if let Some(at) = at {
            begun[at] = 1;
        }
        std::fs::write(&file, &begun).unwrap();
        assert_eq!(formers(dir.path(), SpoolFsync::Always).await, []);
    }
    // A file with any content must not be deleted.
    *begun.last_mut().unwrap() = 1;
    std::fs::write(&file, &begun).unwrap();
    let error = open(dir.path(), SpoolFsync::Always, ROOM).await.unwrap_err();
    assert!(matches!(error, SpoolOpenError::Unreadable { .. }), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), begun);
}

#[tokio::test]
async fn the_second_file_of_an_earlier_version_is_taken_over() {
    let [dir, earlier] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (node, pjm) = (NodeId::random(), channel("zone:pjm"));
    // Both files have the same tables.
    for (dir, seqs) in [(&dir, 1..=3), (&earlier, 4..=5)] {
        let (spool, _) = open(dir.path(), SpoolFsync::Never, ROOM).await.unwrap();
        spool.append(node, &pjm, &entries(seqs)).await.unwrap();
        spool.close().await;
    }
    let recent = dir.path().join("recent.redb");
    std::fs::rename(earlier.path().join("spool.redb"), &recent).unwrap();
    for _again in 0..2 {
        assert_eq!(formers(dir.path(), SpoolFsync::Always).await[0].entries, entries(1..=5));
        assert!(!recent.exists());
    }
    let damaged = vec![0x5a; 1 << 16];
    std::fs::write(&recent, &damaged).unwrap();
    let error = open(dir.path(), SpoolFsync::Always, ROOM).await.unwrap_err();
    assert!(error.to_string().contains("recent.redb is not readable"), "{error}");
    assert_eq!(std::fs::read(&recent).unwrap(), damaged, "it may hold accepted entries");
}

#[tokio::test]
async fn a_failing_disk_is_retried_and_refused_entries_do_not_stay() {
    for fsync in POLICIES {
        let (node, pjm, spp) = (NodeId::random(), channel("zone:pjm"), channel("zone:spp"));
        let (dir, spool) = fresh(fsync, ROOM).await;
        spool.append(node, &pjm, &entries(1..=3)).await.unwrap();
        let fault = Fault::of(dir.path());
        fault.begin(FULL);
        let (four, one) = (entries([4]), entries([1]));
        let (pjm_answer, spp_answer) =
            tokio::join!(spool.append(node, &pjm, &four), spool.append(node, &spp, &one));
        for answer in [pjm_answer, spp_answer, spool.append(node, &pjm, &four).await] {
            assert!(matches!(answer, Err(SpoolError::Failed { .. })), "{fsync:?}: {answer:?}");
        }
        assert!(matches!(spool.state(), DiskState::Failed(_)), "{:?}", spool.state());
        // What is acknowledged or dropped meanwhile is removed later.
        spool.acknowledged(node, &pjm, 1);
        spool.forget(node, &pjm, vec![2]);
        fault.end(FULL);
        eventually(async || spool.append(node, &pjm, &entries([5])).await.ok()).await;
        assert_eq!(spool.state(), DiskState::Working);
        spool.close().await;
        let found = formers(dir.path(), fsync).await;
        let seqs: Vec<u64> =
            found.iter().flat_map(|former| &former.entries).map(|append| append.seq).collect();
        assert_eq!((found.len(), seqs), (1, vec![3, 5]), "{fsync:?}");
    }
}

#[tokio::test]
async fn a_hanging_disk_delays_nobody_and_late_entries_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (node, pjm) = (NodeId::random(), channel("zone:pjm"));
    let options = SpoolOptions {
        fsync: SpoolFsync::Always,
        bytes: ROOM,
        deadline: Duration::from_millis(200),
        is_required: true,
    };
    let (spool, _) = Spool::open(dir.path(), options).await.unwrap();
    // A busy machine may take longer, too.
    eventually(async || spool.append(node, &pjm, &entries([1])).await.ok()).await;
    let fault = Fault::of(dir.path());
    fault.begin(HANGS);
    let slow = Err(SpoolError::Slow { within: options.deadline });
    assert_eq!(spool.append(node, &pjm, &entries([2])).await, slow);
    eventually(async || matches!(spool.state(), DiskState::Stalled(_)).then_some(())).await;
    // The stall is known from here on, so nobody waits: more requests than the queue holds are answered, one
    // after the other, without taking a place in it.
    for seq in 3..3 + 2 * QUEUE_LEN as u64 {
        assert_eq!(spool.append(node, &pjm, &entries([seq])).await, slow);
        spool.acknowledged(node, &pjm, 1);
        spool.forget(node, &pjm, vec![seq]);
    }
    fault.end(HANGS);
    eventually(async || spool.append(node, &pjm, &entries([9_000])).await.ok()).await;
    assert_eq!(spool.state(), DiskState::Working);
    spool.close().await;
    let found = formers(dir.path(), SpoolFsync::Always).await;
    let seqs: Vec<u64> = found[0].entries.iter().map(|append| append.seq).collect();
    assert_eq!(seqs, [9_000]);
}

fn any_entry() -> impl Strategy<Value = Append> {
    let kind = prop_oneof![
        Just(EntryKind::PriceUpdate),
        Just(EntryKind::Routing),
        Just(EntryKind::Building),
        Just(EntryKind::Submitted),
        Just(EntryKind::Confirmed),
        Just(EntryKind::Failed),
    ];
    let key = proptest::option::of(".{0,12}");
    let data = "[a-z {}ü]{0,64}".prop_map(|text| format!(r#"{{"data":"{text}"}}"#));
    let time_ms = -1_000_000_000_000i64..10_000_000_000_000;
    (any::<u64>(), any::<u64>(), time_ms, kind, key, data, any::<Option<u64>>()).prop_map(
        |(seq, prev, time_ms, kind, key, data, fence)| {
            let draft = DraftEntry { kind, key: key.map(Arc::from), ..DraftEntry::price(time_ms, data) };
            Append { seq, prev, draft, fence }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn every_entry_survives_its_form_on_disk(
        sent in proptest::collection::btree_map(any::<u64>(), any_entry(), 1..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let sent: Vec<Append> = sent.into_iter().map(|(seq, append)| Append { seq, ..append }).collect();
        let order = channel("order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11");
        let line = (NodeId::random(), order);
        let (store, mut index, _) = Store::open(dir.path(), SpoolFsync::Never).unwrap();
        let mut changes = Vec::new();
        index.append(line, sent.clone(), &mut changes);
        store.write(&changes).unwrap();
        let (entries, bytes) = (index.entries, index.bytes);
        drop(store);
        let (_store, index, found) = Store::open(dir.path(), SpoolFsync::Never).unwrap();
        prop_assert_eq!((index.entries, index.bytes), (entries, bytes));
        prop_assert_eq!(&found[0].entries, &sent);
    }
}

#[tokio::test]
async fn an_entry_whose_data_is_no_object_holds_up_no_other() {
    let (node, pjm) = (NodeId::random(), channel("zone:pjm"));
    let (dir, spool) = fresh(SpoolFsync::Never, ROOM).await;
    let mut sent = entries(1..=3);
    sent[1].draft.data = r#"{"n":"#.into();
    spool.append(node, &pjm, &sent).await.unwrap();
    spool.close().await;
    let found = formers(dir.path(), SpoolFsync::Never).await.remove(0).entries;
    assert_eq!((&found[0], &found[2]), (&sent[0], &sent[2]));
    // It is passed on with its bytes, as an entry that is shown to nobody.
    assert_eq!((found[1].seq, &found[1].draft.data), (2, &sent[1].draft.data));
    assert!(found[1].draft.kind.unknown().is_some_and(|kind| kind.name.as_deref() == Some("price_update")));
}

// A process that is killed

/// Names the directory and the policy for [`a_process_that_spools_until_it_is_killed`].
const DIR_VARIABLE: &str = "ZONEWIRE_TEST_SPOOL_DIR";
const POLICY_VARIABLE: &str = "ZONEWIRE_TEST_SPOOL_POLICY";
const WRITERS: u64 = 8;

/// Does nothing unless the test below starts it: then it prints each sequence that was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_spools_until_it_is_killed() {
    let (Some(dir), Ok(policy)) = (std::env::var_os(DIR_VARIABLE), std::env::var(POLICY_VARIABLE)) else {
        return;
    };
    let policy = POLICIES[policy.parse::<usize>().unwrap()];
    let (spool, _) = open(Path::new(&dir), policy, 1 << 30).await.unwrap();
    let node = NodeId::random();
    let write = |writer: u64| {
        let spool = spool.clone();
        async move {
            let channel = channel(&format!("zone:{writer}"));
            for seq in 1.. {
                spool.append(node, &channel, &entries([seq])).await.unwrap();
                println!("answered {writer} {seq}");
            }
        }
    };
    futures_util::future::join_all((0..WRITERS).map(write)).await;
}

#[test]
fn a_killed_process_loses_nothing_that_was_answered() {
    for (number, policy) in POLICIES.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "storage::outage::spool::tests::a_process_that_spools_until_it_is_killed",
            ])
            .env(DIR_VARIABLE, dir.path())
            .env(POLICY_VARIABLE, number.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut answered: BTreeMap<String, u64> = BTreeMap::new();
        let mut note = |line: &str| {
            let Some((writer, seq)) = line.strip_prefix("answered ").and_then(|rest| rest.split_once(' '))
            else {
                return 0;
            };
            // The kill may truncate the last line.
            let Ok(seq) = seq.parse() else { return 0 };
            answered.insert(format!("zone:{writer}"), seq);
            seq
        };
        while note(&lines.next().unwrap().unwrap()) < 100 {}
        child.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            note(&line);
        }
        child.wait().unwrap();

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(formers(dir.path(), policy));
        assert_eq!(answered.len() as u64, WRITERS);
        for (channel, last) in answered {
            let former = found.iter().find(|former| former.channel.as_str() == channel).unwrap();
            let had = former.entries.len() as u64;
            assert!(had >= last, "{channel}: {had} of {last} ({policy:?})");
            assert_eq!(former.entries, entries(1..=had));
        }
    }
}

/// Printed, not asserted: `cargo test --lib spool -- --nocapture throughput`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throughput() {
    for fsync in POLICIES {
        let (_dir, spool) = fresh(fsync, ROOM).await;
        let node = NodeId::random();
        let write = |writer: u64| {
            let spool = spool.clone();
            async move {
                let channel = channel(&format!("zone:{writer}"));
                for batch in 0..10 {
                    let batch = entries(batch * 10 + 1..=batch * 10 + 10);
                    spool.append(node, &channel, &batch).await.unwrap();
                }
            }
        };
        let start = Instant::now();
        futures_util::future::join_all((0..64).map(write)).await;
        let took = start.elapsed();
        let status = spool.status();
        let rate = status.appended as f64 / took.as_secs_f64();
        println!(
            "{fsync:?}: {rate:.0} entries/s, {} commits, file {} bytes",
            status.commits, status.file_bytes
        );
        spool.close().await;
    }
}
