//! Many threads in one queue: what each of them is promised holds whatever the others do, a close included.

mod support;

use mfq::capi::{MFQ_COMMITTED, MFQ_E_BUSY, MFQ_E_CLOSED, MFQ_E_END, MFQ_E_LOCKED, MFQ_E_TIMEOUT, MFQ_FILLER_ROCKETMQ};
use mfq::{Filler, Format, Options, Queue, Reader, Span, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use support::engine::{self, GENEROUS_MS, Opened, Watchdog, within};
use support::handles::{self, How, RAW, RECORD};
use support::records::{Found, LEAST_BYTES, Label, read_all};

const THREADS: u32 = 8;
const FORMATS: [(Format, Filler); 3] =
    [(Format::Record, Filler::Zero), (Format::Raw, Filler::Zero), (Format::Raw, Filler::RocketMq)];

fn open(path: &Path, format: Format, filler: Filler) -> Opened {
    let options = Options { file_size: 4096, format, filler, append_timeout_ms: GENEROUS_MS, ..Options::default() };
    engine::open(path, &options)
}

/// From the shortest to one that fills a third of a file.
fn len_of(thread: u32, seq: u32) -> usize {
    LEAST_BYTES + (thread * 7919 + seq * 104_729) as usize % if seq.is_multiple_of(16) { 1300 } else { 200 }
}

fn record(thread: u32, seq: u32) -> Vec<u8> {
    Label::single(0, thread, seq).record(len_of(thread, seq))
}

/// Tells other threads to stop when it goes out of scope, by a failed assertion too.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Each record exactly once, where its append said, and those of one thread in their order.
fn check(found: &[Found], spans: &[Vec<Span>]) {
    let mut next = BTreeMap::new();
    let mut before = 0;
    for found in found {
        assert!(before <= found.offset, "records overlap at {}", found.offset);
        before = found.end;
        let seq: &mut u32 = next.entry(found.label.thread).or_default();
        assert_eq!(found.label, Label::single(0, found.label.thread, *seq));
        assert_eq!(found.len, len_of(found.label.thread, *seq));
        let span = spans[found.label.thread as usize][*seq as usize];
        assert_eq!(span, Span { offset: found.offset, end: found.end });
        *seq += 1;
    }
    let appended: BTreeMap<u32, u32> = (0..).zip(spans.iter().map(|spans| spans.len() as u32)).collect();
    assert_eq!(next, appended);
}

#[test]
fn appends_of_eight_threads_are_each_there_once_and_in_order() {
    let _watchdog = Watchdog::new("appending from 8 threads", 300);
    for (format, filler) in FORMATS {
        let directory = tempfile::tempdir().unwrap();
        let queue = open(directory.path(), format, filler);
        let append = |thread| (0..1500).map(|seq| queue.append(&record(thread, seq)).unwrap()).collect::<Vec<_>>();
        let spans = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|id| scope.spawn(move || append(id))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        check(&read_all(&queue, format, filler), &spans);
        let end = queue.offsets().unwrap().committed;
        assert!(end > 100 * 4096, "it rolled all the time");
        queue.close().unwrap();
        let queue = open(directory.path(), format, filler);
        assert_eq!(queue.offsets().unwrap().committed, end);
        check(&read_all(&queue, format, filler), &spans);
    }
}

/// Who finds a file exactly full has nothing to fill in it, and shares its turn with the first writer of the next file.
#[test]
fn raw_records_that_end_with_their_file_hold_nobody_up() {
    let _watchdog = Watchdog::new("filling files exactly", 60);
    let directory = tempfile::tempdir().unwrap();
    let queue = open(directory.path(), Format::Raw, Filler::Zero);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let queue = &queue;
            scope.spawn(move || {
                for seq in 0..200 {
                    queue.append(&Label::single(0, thread, seq).record(2048)).unwrap();
                }
            });
        }
    });
    let found = read_all(&queue, Format::Raw, Filler::Zero);
    assert_eq!(found.len(), 200 * THREADS as usize);
    assert_eq!(queue.offsets().unwrap().committed, 200 * 2048 * u64::from(THREADS));
}

#[test]
fn committed_keeps_up_with_eight_writers_that_never_pause() {
    let _watchdog = Watchdog::new("eight writers without a gap", 300);
    for (format, filler) in FORMATS {
        let directory = tempfile::tempdir().unwrap();
        let queue = open(directory.path(), format, filler);
        let (enough, in_all) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (queue, enough, in_all) = (&queue, &enough, &in_all);
                scope.spawn(move || {
                    for seq in 0.. {
                        if enough.load(Ordering::Relaxed) {
                            break;
                        }
                        in_all.fetch_max(queue.append(&record(thread, seq)).unwrap().end, Ordering::Relaxed);
                    }
                });
            }
            let _stop = StopAtEnd(&enough);
            // Each target lies ahead when it is waited for, and the writers do not stop for it.
            for _ in 0..100 {
                let before = queue.offsets().unwrap();
                assert!(before.flushed <= before.committed && before.committed <= before.wrote, "{before:?}");
                assert!(before.wrote <= before.reserved, "{before:?}");
                let target = before.reserved + 2 * 4096;
                queue.wait(mfq::Which::Committed, target, within(60_000)).unwrap();
                assert!(queue.offsets().unwrap().committed >= target);
            }
        });
        assert!(queue.offsets().unwrap().committed >= in_all.into_inner());
    }
}

#[test]
fn readers_that_tail_see_every_record_of_four_writers() {
    const RECORDS: u32 = 1000;
    let _watchdog = Watchdog::new("tailing", 300);
    for (format, filler) in FORMATS {
        let directory = tempfile::tempdir().unwrap();
        let queue = open(directory.path(), format, filler);
        let spans = thread::scope(|scope| {
            let queue = &queue;
            let readers: Vec<_> = (0..3).map(|_| scope.spawn(move || tail(queue, format, 4 * RECORDS))).collect();
            let writers: Vec<_> = (0..4)
                .map(|thread| {
                    scope.spawn(move || {
                        (0..RECORDS).map(|seq| queue.append(&record(thread, seq)).unwrap()).collect::<Vec<_>>()
                    })
                })
                .collect();
            let spans: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
            for reader in readers {
                check(&reader.join().unwrap(), &spans);
            }
            spans
        });
        check(&read_all(&queue, format, filler), &spans);
    }
}

/// Reads on until `count` records were seen.
fn tail(queue: &Queue, format: Format, count: u32) -> Vec<Found> {
    let mut reader = Reader::open(queue, 0).unwrap();
    let mut found = Vec::new();
    // RAW: a view ends where `committed` was, which is between two records.
    while found.len() < count as usize {
        let view = reader.next(queue, within(60_000), &AtomicBool::new(false)).unwrap();
        // SAFETY: the view holds its file, and nobody writes what is committed.
        let bytes = unsafe { std::slice::from_raw_parts(view.ptr, view.len) };
        let mut at = 0;
        while let Some((label, len)) = Label::read(&bytes[at..]) {
            let offset = view.offset + at as u64;
            let end = if format == Format::Record { view.end } else { offset + len as u64 };
            found.push(Found { offset, end, label, len });
            at += len;
        }
        assert!(at == bytes.len() || format == Format::Raw && view.end.is_multiple_of(4096), "torn at {}", view.end);
    }
    found
}

// ---- Close, at any moment -------------------------------------------------------------------------

const ALL: [How; 3] = [RECORD, RAW, How { filler: MFQ_FILLER_ROCKETMQ, ..RAW }];

/// What a thread of a host does until it is told that the queue is closed. Every other answer is one that the
/// function's comment names for a queue that is in use.
fn use_until_closed(queue: handles::Queue, thread: u32, is_raw: bool, appended: &mut BTreeMap<u64, Vec<u8>>) {
    for seq in 0.. {
        let bytes = record(thread, seq);
        let answer = match thread % 6 {
            0 => queue.append(&bytes).map(|at| drop(appended.insert(at.offset, bytes))),
            1 => queue.claim(bytes.len()).and_then(|mut claim| {
                claim.fill(&bytes);
                if seq.is_multiple_of(3) {
                    return claim.abort();
                }
                let offset = claim.offset();
                claim.commit(bytes.len()).map(|()| drop(appended.insert(offset, bytes)))
            }),
            2 => queue.offsets().and_then(|offsets| queue.wait(MFQ_COMMITTED, offsets.reserved + 1, 20)),
            3 => queue.offsets().and_then(|offsets| {
                queue.read(offsets.min, 4096)?;
                let view = queue.view(offsets.min)?;
                assert!(Label::read(view.bytes()).is_some());
                view.release()
            }),
            4 => queue.reader(0).and_then(|reader| {
                let read = (0..20).try_for_each(|_| reader.next(20).map(drop));
                reader.close()?;
                read
            }),
            _ => queue.get_last(30_000).and_then(|()| queue.flush(u64::MAX, 20)),
        };
        match answer {
            Ok(()) | Err(MFQ_E_TIMEOUT | MFQ_E_END) => {}
            Err(MFQ_E_BUSY) if is_raw => {}
            Err(MFQ_E_CLOSED) => return,
            Err(status) => panic!("thread {thread} was told {status}"),
        }
    }
}

#[test]
fn close_at_any_moment_ends_every_call_and_keeps_what_was_appended() {
    let _watchdog = Watchdog::new("closing under use", 300);
    for how in ALL {
        let directory = tempfile::tempdir().unwrap();
        let mut appended = BTreeMap::new();
        for round in 0..25u32 {
            let queue = handles::Queue::open(directory.path(), &how).unwrap();
            let begin = queue.offsets().unwrap().committed;
            thread::scope(|scope| {
                let threads: Vec<_> = (0..12)
                    .map(|thread| {
                        scope.spawn(move || {
                            let mut appended = BTreeMap::new();
                            use_until_closed(queue, thread, how.format == RAW.format, &mut appended);
                            appended
                        })
                    })
                    .collect();
                // A moment that differs from round to round: so much has been written.
                let _ = queue.wait(MFQ_COMMITTED, begin + u64::from(round) * 700, 60_000);
                let other = scope.spawn(move || queue.close());
                let answers = BTreeSet::from([queue.close(), other.join().unwrap()]);
                assert_eq!(answers, BTreeSet::from([Ok(()), Err(MFQ_E_CLOSED)]), "one of two closes closes");
                threads.into_iter().for_each(|thread| appended.extend(thread.join().unwrap()));
            });
        }
        let queue = handles::Queue::open(directory.path(), &how).unwrap();
        assert!(appended.len() > 25, "nothing was appended");
        for (offset, bytes) in &appended {
            let (read, _) = queue.read(*offset, bytes.len()).unwrap();
            assert!(read == *bytes, "the record at {offset} is another one");
        }
        queue.close().unwrap();
    }
}

#[test]
fn claims_open_at_close_become_padding_and_their_memory_stays() {
    let directory = tempfile::tempdir().unwrap();
    let queue = handles::Queue::open(directory.path(), &RECORD).unwrap();
    let first = queue.append(b"before").unwrap();
    let mut claims: Vec<_> = (0..20).map(|_| queue.claim(1000).unwrap()).collect();
    let last = queue.append(b"behind").unwrap();
    assert_eq!(queue.read(last.offset, 100).err(), Some(MFQ_E_END), "not readable behind a claim");
    queue.close().unwrap();
    let queue = handles::Queue::open(directory.path(), &RECORD).unwrap();
    for (index, claim) in claims.iter_mut().enumerate() {
        claim.fill(&[b'x'; 1000]);
        let ended = if index % 2 == 0 { claim.commit(1000) } else { claim.abort() };
        assert_eq!(ended, Err(MFQ_E_CLOSED));
        assert_eq!(claim.commit(1000), Err(MFQ_E_CLOSED));
    }
    assert_eq!(queue.read(first.offset, 100).unwrap(), (b"before".to_vec(), first.end));
    assert_eq!(queue.read(first.end, 100).unwrap(), (b"behind".to_vec(), last.end));
    queue.close().unwrap();
}

#[test]
fn a_claim_that_the_host_ends_twice_while_its_queue_closes_hides_nothing_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let queue = engine::open(directory.path(), &engine::record());
    let claim = queue.claim(100).unwrap();
    queue.append(b"behind").unwrap();
    queue.begin_close();
    mfq::release_orphan(claim.id);
    mfq::release_orphan(claim.id);
    queue.finish_close().unwrap();
    drop(queue);
    assert_eq!(engine::read_all(&engine::open(directory.path(), &engine::record())), [b"behind"]);
}

#[test]
fn a_raw_claim_open_at_close_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let queue = handles::Queue::open(directory.path(), &RAW).unwrap();
    let at = queue.append(b"before").unwrap();
    let mut claim = queue.claim(1000).unwrap();
    assert_eq!(queue.append(b"meanwhile").err(), Some(MFQ_E_BUSY));
    queue.close().unwrap();
    claim.fill(&[b'x'; 1000]);
    assert_eq!(claim.commit(1000), Err(MFQ_E_CLOSED));
    let queue = handles::Queue::open(directory.path(), &RAW).unwrap();
    assert_eq!(queue.offsets().unwrap().committed, at.end);
    assert_eq!(queue.append(b"after").unwrap().offset, at.end);
    queue.close().unwrap();
}

/// What an append adds that is refused because of a claim must never be seen: a roll by `get_last` would leave a hole
/// in the file before, and every append behind it would wait for ever.
#[test]
fn appends_refused_beside_a_raw_claim_reserve_nothing() {
    const APPENDS: u64 = 1000;
    let _watchdog = Watchdog::new("appending beside claims", 120);
    let directory = tempfile::tempdir().unwrap();
    let queue = handles::Queue::open(directory.path(), &How { file_size: 1 << 20, ..RAW }).unwrap();
    let appended = AtomicU64::new(0);
    let going_on = || appended.load(Ordering::Relaxed) < APPENDS;
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while going_on() {
                    match queue.append(&[b'r'; 400_000]) {
                        Ok(_) => drop(appended.fetch_add(1, Ordering::Relaxed)),
                        Err(status) => assert_eq!(status, MFQ_E_BUSY),
                    }
                }
            });
        }
        scope.spawn(|| {
            while going_on() {
                match queue.claim(1000) {
                    Ok(mut claim) => {
                        thread::sleep(Duration::from_micros(50)); // for appends to come in between
                        claim.abort().unwrap();
                    }
                    Err(status) => assert_eq!(status, MFQ_E_BUSY),
                }
            }
        });
        let mut before = 0;
        while going_on() {
            let _ = queue.get_last(0);
            let reserved = queue.offsets().unwrap().reserved;
            assert!(before <= reserved, "reserved went back from {before} to {reserved}");
            before = reserved;
        }
    });
    queue.close().unwrap();
}

#[test]
fn views_stay_readable_after_close() {
    for how in ALL {
        let directory = tempfile::tempdir().unwrap();
        let queue = handles::Queue::open(directory.path(), &how).unwrap();
        let spans: Vec<_> = (0..100).map(|seq| queue.append(&record(0, seq)).unwrap()).collect();
        let views: Vec<_> = spans.iter().map(|at| queue.view(at.offset).unwrap()).collect();
        let reader = queue.reader(0).unwrap();
        let of_reader = reader.next(0).unwrap();
        queue.close().unwrap();
        assert_eq!(reader.next(0).err(), Some(MFQ_E_CLOSED), "the reader's queue is closed");
        assert_eq!(of_reader.span().0, 0);
        thread::scope(|scope| {
            for (view, seq) in views.into_iter().zip(0..) {
                scope.spawn(move || {
                    assert!(view.bytes().starts_with(&record(0, seq)));
                    view.release().unwrap();
                });
            }
        });
        reader.close().unwrap();
        assert_eq!(reader.close(), Err(MFQ_E_CLOSED));
    }
}

#[test]
fn a_thousand_opens_and_closes_in_several_threads() {
    let _watchdog = Watchdog::new("opening and closing", 300);
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let opened = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (directory, opened) = (directories[thread % 2].path(), &opened);
            // Two threads for each directory: the runtime ends with the last close while another open begins, and an
            // open finds the lock held or free.
            scope.spawn(move || {
                while opened.load(Ordering::Relaxed) < 1000 {
                    match handles::Queue::open(directory, &RECORD) {
                        Ok(queue) => {
                            let n = opened.fetch_add(1, Ordering::Relaxed);
                            if n.is_multiple_of(4) {
                                queue.append(&n.to_le_bytes()).unwrap();
                            }
                            queue.close().unwrap();
                        }
                        Err(status) => assert_eq!(status, MFQ_E_LOCKED),
                    }
                }
            });
        }
    });
    let mut seen = BTreeSet::new();
    for directory in &directories {
        let queue = open(directory.path(), Format::Record, Filler::Zero);
        let mut reader = Reader::open(&queue, 0).unwrap();
        loop {
            match reader.next(&queue, within(0), &AtomicBool::new(false)) {
                // SAFETY: the view holds its file, and nobody writes what is committed.
                Ok(view) => assert!(seen.insert(unsafe { std::slice::from_raw_parts(view.ptr, view.len) }.to_vec())),
                Err(error) => break assert_eq!(error.status(), Status::End),
            }
        }
    }
    let appended = (0..opened.into_inner()).filter(|n| n.is_multiple_of(4)).map(|n| n.to_le_bytes().to_vec());
    assert_eq!(seen, appended.collect());
}

#[test]
fn views_and_readers_of_many_threads_do_not_disturb_each_other() {
    let _watchdog = Watchdog::new("reading from many threads", 300);
    let directory = tempfile::tempdir().unwrap();
    let queue = handles::Queue::open(directory.path(), &RECORD).unwrap();
    let spans: Vec<_> = (0..300).map(|seq| queue.append(&record(0, seq)).unwrap()).collect();
    let together = Barrier::new(16);
    thread::scope(|scope| {
        for thread in 0..16 {
            let (spans, together) = (&spans, &together);
            scope.spawn(move || {
                together.wait();
                let reader = queue.reader(0).unwrap();
                let mut held = Vec::new();
                for (at, seq) in spans.iter().zip(0..) {
                    let view = reader.next(0).unwrap();
                    assert_eq!((view.span(), view.bytes()), ((at.offset, at.end), record(0, seq).as_slice()));
                    let other = (seq as usize * 31 + thread) % spans.len();
                    held.push((queue.view(spans[other].offset).unwrap(), other as u32));
                }
                assert_eq!(reader.next(0).err(), Some(MFQ_E_END));
                for (view, seq) in held {
                    assert_eq!(view.bytes(), record(0, seq));
                    view.release().unwrap();
                }
                reader.close().unwrap();
            });
        }
    });
    queue.close().unwrap();
}
