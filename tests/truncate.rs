//! Truncation: the log's end moves back, or its beginning on; neither comes undone, and a crash on the way leaves a
//! log.

mod support;

use mfq::os::{Call, Fault, FaultyOs, native};
use mfq::{Deadline, Filler, FlushPolicy, Format, Mode, Options, Reader, Span, Status, Which};
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use support::engine::*;
use support::handles;
use support::records::{LEAST_BYTES, Label};
use tempfile::TempDir;

static NOBODY: AtomicBool = AtomicBool::new(false);

/// Nothing is committed unless somebody asks.
fn staged(options: Options) -> Options {
    Options { mode: Mode::Staged, commit_interval_ms: u32::MAX, ..options }
}

fn all_kinds() -> [Options; 5] {
    [record(), raw(Filler::Zero), raw(Filler::RocketMq), staged(record()), staged(raw(Filler::Zero))]
}

/// Four or five to a file, none of its bytes 0.
fn payload(i: usize) -> Vec<u8> {
    vec![i as u8 + 1; 800]
}

fn fill(queue: &Opened, count: usize) -> Vec<Span> {
    (0..count).map(|i| append(queue, &payload(i))).collect()
}

/// Committed when it returns.
fn append(queue: &Opened, data: &[u8]) -> Span {
    let at = queue.append(data).unwrap();
    queue.wait(Which::Committed, at.end, within(GENEROUS_MS)).unwrap();
    at
}

/// The records at these places, as far as they are there, which ends at one place.
fn readable(queue: &Opened, spans: &[Span]) -> usize {
    let committed = queue.offsets().unwrap().committed;
    let there = spans.iter().take_while(|at| at.end <= committed).count();
    for (i, at) in spans[..there].iter().enumerate() {
        let bytes = read(queue, at.offset).unwrap().0;
        assert!(bytes.starts_with(&payload(i)), "record {i} is another one");
    }
    there
}

fn committed(queue: &Opened) -> u64 {
    queue.offsets().unwrap().committed
}

#[test]
fn everything_behind_a_cut_is_gone_for_ever() {
    for options in all_kinds() {
        // In the middle of a file, at a file's first record, the first of all, the last, behind the last.
        for choice in 0..5 {
            let dir = scratch();
            let queue = open(dir.path(), &options);
            let spans = fill(&queue, 30);
            queue.flush(spans[20].end, within(GENEROUS_MS)).unwrap();
            let first_of_file = spans.iter().position(|at| at.offset == 2 * page()).unwrap();
            let kept = [10, first_of_file, 0, 29, 30][choice];
            let cut = spans.get(kept).map_or(spans[29].end, |at| at.offset);
            queue.truncate_after(cut).unwrap();
            let offsets = queue.offsets().unwrap();
            assert_eq!((offsets.reserved, offsets.wrote, offsets.committed), (cut, cut, cut));
            assert_eq!(offsets.flushed, cut.min(spans[20].end));
            if kept < 30 {
                assert!(file_starts(dir.path()).iter().all(|start| *start < cut), "files behind the cut are removed");
            }
            assert_eq!(readable(&queue, &spans), kept);

            // As if the power had been cut right now, or the process killed.
            let (killed, off) = (as_killed_now(dir.path()), as_killed_now(dir.path()));
            assert_eq!(
                (committed(&open(killed.path(), &options)), committed(&open_after_reboot(off.path(), &options))),
                (cut, cut)
            );

            // The log goes on there, with other records, of another length.
            let again: Vec<_> = (0..20).map(|_| append(&queue, &[0x77; 500 + 8])).collect();
            assert!(again[0].offset == cut || again[0].offset == cut.next_multiple_of(page()));
            let killed = as_killed_now(dir.path());
            queue.close().unwrap();
            for path in [dir.path(), killed.path()] {
                let queue = open(path, &options);
                assert_eq!(readable(&queue, &spans[..kept]), kept);
                again.iter().for_each(|at| assert!(read(&queue, at.offset).unwrap().0.starts_with(&[0x77; 508])));
                assert_eq!(committed(&queue), again[19].end);
            }
        }
    }
}

#[test]
fn a_full_file_that_becomes_the_last_one_again_is_not_written_over() {
    for options in all_kinds() {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let spans = fill(&queue, 30);
        queue.close().unwrap();
        let queue = open(dir.path(), &options);
        queue.truncate_after(2 * page()).unwrap();
        let at = queue.append(b"goes on").unwrap();
        assert_eq!(at.offset, 2 * page());
        assert!(readable(&queue, &spans[..8]) >= 8);
    }
}

#[test]
fn a_cut_that_cannot_be_changes_nothing() {
    let _alone = alone();
    for options in all_kinds() {
        let dir = scratch();
        let queue = open(dir.path(), &Options { start_offset: 3 * page(), ..options.clone() });
        let spans = fill(&queue, 10);
        let refused = |offset: u64| queue.truncate_after(offset).unwrap_err().status();
        for offset in [0, 3 * page() - 1, spans[9].end + 1, u64::MAX] {
            assert_eq!(refused(offset), Status::Invalid);
        }
        if options.format == Format::Record {
            assert_eq!(refused(spans[5].offset + 8), Status::Invalid);
            assert_eq!(refused(spans[5].offset + 1), Status::Invalid);
        }
        let claim = queue.claim(100).unwrap();
        assert_eq!(refused(spans[5].offset), Status::Busy);
        queue.abort(claim.id).unwrap();
        for offset in [spans[9].end + 100_000, u64::MAX] {
            assert_eq!(queue.truncate_before(offset).unwrap_err().status(), Status::Invalid);
        }
        assert_eq!(readable(&queue, &spans), 10);
        append(&queue, b"goes on");
        queue.close().unwrap();
        let reading = open(dir.path(), &Options { read_only: true, ..options });
        assert_eq!(reading.truncate_after(spans[5].offset).unwrap_err().status(), Status::ReadOnly);
        assert_eq!(reading.truncate_before(spans[5].offset).unwrap_err().status(), Status::ReadOnly);
    }
}

#[test]
fn readers_and_views_see_the_log_before_the_cut_or_after_it() {
    for options in [record(), staged(record())] {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let spans = fill(&queue, 12);
        let now = Deadline::after_ms(0);
        // One that holds the file that is cut, one behind the cut, views in both.
        let mut before = Reader::open(&queue, spans[5].offset).unwrap();
        before.next(&queue, now, &NOBODY).unwrap();
        let mut behind = Reader::open(&queue, spans[11].offset).unwrap();
        let views = [6, 8, 11].map(|i| (i, queue.view(spans[i].offset).unwrap()));
        for cut in [10, 7] {
            queue.truncate_after(spans[cut].offset).unwrap();
        }
        assert_eq!(before.next(&queue, now, &NOBODY).unwrap().offset, spans[6].offset);
        assert_eq!(before.next(&queue, now, &NOBODY).err().unwrap().status(), Status::End);
        assert_eq!(behind.next(&queue, now, &NOBODY).err().unwrap().status(), Status::End);
        let at = append(&queue, b"another record");
        assert_eq!(before.next(&queue, now, &NOBODY).unwrap().len, b"another record".len());
        assert_eq!((at.offset, read(&queue, at.offset).unwrap().0), (spans[7].offset, b"another record".to_vec()));
        for (i, view) in views {
            // SAFETY: the view holds its file.
            assert_eq!(unsafe { std::slice::from_raw_parts(view.ptr, view.len) }, payload(i));
        }
    }
}

#[test]
fn what_was_not_committed_is_cut_as_well() {
    let _alone = alone();
    for kind in [record(), raw(Filler::Zero)] {
        let options = Options { file_size: 4 * page(), ..staged(kind) };
        // Behind the cut alone, and before it too.
        for (committed_before, kept) in [(14, 16), (14, 14), (16, 14)] {
            let dir = scratch();
            let queue = open(dir.path(), &options);
            let mut spans = fill(&queue, committed_before);
            spans.extend((committed_before..19).map(|i| queue.append(&payload(i)).unwrap()));
            queue.truncate_after(spans[kept].offset).unwrap();
            let (offsets, cut) = (queue.offsets().unwrap(), spans[kept].offset);
            assert_eq!((offsets.reserved, offsets.wrote, offsets.committed), (cut, cut, cut));
            let file = fs::read(queue.file(0)).unwrap();
            assert!(file[..cut as usize].ends_with(&payload(kept - 1)) && file[cut as usize..].iter().all(|&b| b == 0));
            let at = append(&queue, b"goes on");
            let killed = as_killed_now(dir.path());
            queue.close().unwrap();
            for path in [dir.path(), killed.path()] {
                let queue = open(path, &options);
                assert_eq!((readable(&queue, &spans[..kept]), committed(&queue)), (kept, at.end));
                assert!(read(&queue, cut).unwrap().0.starts_with(b"goes on"));
            }
        }
    }
}

#[test]
fn truncations_give_buffers_back_and_find_one() {
    let _alone = alone();
    for (options, pool_buffers) in
        [record(), raw(Filler::Zero)].into_iter().flat_map(|kind| [(kind.clone(), 2), (kind, 5)])
    {
        let dir = scratch();
        let queue = open(dir.path(), &Options { pool_buffers, ..staged(options) });
        let mut views = Vec::new();
        for round in 0..30 {
            let spans = fill(&queue, 6 + round % 5);
            // Held by somebody, a buffer goes back all the same.
            views.push(queue.view(spans[5].offset).unwrap());
            // In this file, in the one before, where a file begins.
            let file_begins = spans[5].offset - spans[5].offset % page();
            queue.truncate_after([spans[5].offset, spans[0].end, file_begins][round % 3]).unwrap();
        }
        // The last file has one, and each that was made ahead of it.
        let last = append(&queue, b"in the last file").offset;
        let holding = || file_starts(dir.path()).iter().filter(|&start| start + page() > last).count();
        eventually("the buffers", || queue.stats().unwrap().pool_free + holding() as u64 == u64::from(pool_buffers));
        fill(&queue, 30);
        assert_eq!(queue.stats().unwrap().pool_refusals, 0);
    }
}

#[test]
fn a_truncation_that_finds_no_buffer_changes_nothing() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &Options { pool_buffers: 2, ..staged(record()) });
    let spans = fill(&queue, 3);
    queue.os.fail_all(Call::MapOver, Fault::Errno(libc::ENOMEM)); // so none comes back
    let last = append(&queue, &filling());
    assert_eq!(queue.stats().unwrap().pool_free, 0);
    let before = snapshot(dir.path());
    assert_eq!(queue.truncate_after(spans[1].offset).unwrap_err().status(), Status::Busy);
    assert_eq!((committed(&queue), readable(&queue, &spans)), (last.end, 3));
    assert!(snapshot(dir.path()) == before);
    queue.os.heal();
    queue.truncate_after(spans[1].offset).unwrap();
    assert_eq!(append(&queue, b"goes on").offset, spans[1].offset);
}

/// Truncates again and again until the waiting is over, as nobody can tell when it has begun.
fn cut_until<T: Send>(queue: &Opened, to: u64, wait: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let waiting = scope.spawn(wait);
        eventually("the end of the wait", || {
            append(queue, b"cut off");
            queue.truncate_after(to).unwrap();
            waiting.is_finished()
        });
        waiting.join().unwrap()
    })
}

#[test]
fn who_waits_for_ever_for_what_is_cut_off_is_told_so() {
    let _alone = alone();
    for options in all_kinds() {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let end = append(&queue, b"stays").end;
        let waits: [fn(&Opened, u64) -> mfq::Result<()>; 3] = [
            |queue, offset| queue.wait(Which::Committed, offset, Deadline::Never),
            |queue, offset| queue.wait(Which::Flushed, offset, Deadline::Never),
            |queue, offset| queue.flush(offset, Deadline::Never),
        ];
        for wait in waits {
            let offset = 1 << 40;
            let error = cut_until(&queue, end, || wait(&queue, offset)).unwrap_err();
            assert_eq!(error.status(), Status::End, "{error}");
            assert!(error.message().contains(&format!("offset {offset} ")), "{error}");
        }
        // What stays is waited for as before.
        cut_until(&queue, end, || {
            queue.flush_start(end).unwrap();
            queue.wait(Which::Flushed, end, Deadline::Never)
        })
        .unwrap();
    }
}

#[test]
fn a_record_cut_off_before_its_sync_is_not_durable_and_not_waited_for() {
    let _alone = alone();
    for options in all_kinds() {
        let dir = scratch();
        let options = Options { flush_policy: FlushPolicy::EveryAppend, append_timeout_ms: -1, ..options };
        let queue = open(dir.path(), &options);
        let end = append(&queue, b"stays").end;
        let cut = append(&queue, b"cut off").end;
        queue.truncate_after(end).unwrap();
        let error = queue.secure(cut).unwrap_err();
        assert_eq!(error.status(), Status::NotDurable);
        assert!(error.message().contains("truncation"), "{error}");
        queue.secure(end).unwrap();
    }
}

#[test]
fn nobody_waits_for_a_truncation_longer_than_the_time_given() {
    let _alone = alone();
    for options in all_kinds() {
        let dir = scratch();
        let (queue, spans) = at_rest(dir.path(), &Options { append_timeout_ms: 20, ..options });
        queue.os.fail_nth(Call::Unlink, 1, Fault::Hang);
        thread::scope(|scope| {
            let cutting = scope.spawn(|| queue.truncate_after(spans[13].offset));
            queue.os.wait_hanging(1);
            let late = [
                queue.get_last(within(0)).map(drop),
                queue.get_last(within(20)).map(drop),
                queue.append(b"late").map(drop),
                queue.claim(8).map(drop),
                queue.flush(u64::MAX, within(0)),
            ];
            queue.os.heal();
            cutting.join().unwrap().unwrap();
            for outcome in late {
                assert_eq!(outcome.unwrap_err().status(), Status::Timeout);
            }
        });
        let at = append(&queue, b"in time");
        assert_eq!((at.offset, readable(&queue, &spans[..13])), (spans[13].offset, 13));
    }
}

#[test]
fn the_beginning_moves_by_whole_files_and_never_past_the_last() {
    for options in all_kinds() {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let spans = fill(&queue, 30);
        let view = queue.view(0).unwrap();
        let last = spans[29].offset - spans[29].offset % page();
        for (offset, first) in [(page() - 1, 0), (page(), page()), (3 * page() + 17, 3 * page()), (0, 3 * page())] {
            queue.truncate_before(offset).unwrap();
            assert_eq!((queue.offsets().unwrap().min, file_starts(dir.path())[0]), (first, first));
        }
        assert_eq!(read(&queue, 0).unwrap_err().status(), Status::NotFound);
        assert_eq!(queue.find(0).err().unwrap().status(), Status::NotFound);
        // SAFETY: the view holds its file.
        assert_eq!(unsafe { std::slice::from_raw_parts(view.ptr, 800) }, payload(0));
        // A crash now finds what is left; and one that left the removed files behind removes them.
        let killed = as_killed_now(dir.path());
        fs::write(killed.path().join(format!("{:020}", 2 * page())), vec![0; page() as usize]).unwrap();
        let reading = open(killed.path(), &Options { read_only: true, ..options.clone() });
        assert_eq!(reading.offsets().unwrap().min, 3 * page());
        drop(reading);
        let again = open(killed.path(), &options);
        assert_eq!((again.offsets().unwrap().min, file_starts(killed.path())[0]), (3 * page(), 3 * page()));
        assert_eq!(committed(&again), spans[29].end);

        queue.truncate_before(spans[29].end).unwrap();
        assert_eq!(queue.offsets().unwrap().min, last);
        queue.flush(u64::MAX, within(GENEROUS_MS)).unwrap();
        queue.truncate_after(last).unwrap();
        let at = queue.append(b"goes on").unwrap();
        assert_eq!((at.offset, queue.offsets().unwrap().min), (last, last));
        queue.close().unwrap();
        let queue = open(dir.path(), &options);
        assert_eq!((queue.offsets().unwrap().min, committed(&queue)), (last, at.end));
    }
}

/// What a truncation asks of the system, in both modes, in MMAP alone, in STAGED alone.
const CALLS: [Call; 7] =
    [Call::Open, Call::Allocate, Call::WriteAt, Call::SyncData, Call::Unlink, Call::Rename, Call::SyncDirectory];
const MAPPED_CALLS: [Call; 3] = [Call::Map, Call::Advise, Call::Populate];
const STAGED_CALLS: [Call; 3] = [Call::ReadAt, Call::MapPrivate, Call::MapOver];

fn calls_of(options: &Options) -> Vec<Call> {
    let own: &[Call] = if options.mode == Mode::Staged { &STAGED_CALLS } else { &MAPPED_CALLS };
    [&CALLS, own].concat()
}

/// A queue whose files are all made, so that the calls that follow are the test's own.
fn at_rest(path: &Path, options: &Options) -> (Opened, Vec<Span>) {
    let files_ahead = 2; // by default so fast a writer gets more
    let queue = open(path, &Options { files_ahead, ..options.clone() });
    let spans = fill(&queue, 30);
    queue.flush(spans[DURABLE].end, within(GENEROUS_MS)).unwrap();
    let wanted =
        spans[29].end.next_multiple_of(page()) + if options.filler == Filler::RocketMq { 1 } else { 2 } * page();
    eventually("files ahead", || file_starts(path).last().is_some_and(|last| last + page() >= wanted));
    (queue, spans)
}

/// The record that is cut at, and the last ones that are durable and there.
const CUT: usize = 13;
const DURABLE: usize = 24;
const LAST: usize = 29;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Truncation {
    After,
    Before,
}

const BOTH: [Truncation; 2] = [Truncation::After, Truncation::Before];

/// Where a log may begin and end.
#[derive(Debug)]
struct Bounds {
    begins: Vec<u64>,
    ends: RangeInclusive<u64>,
}

impl Truncation {
    fn call(self, queue: &Opened, spans: &[Span]) -> mfq::Result<()> {
        match self {
            Truncation::After => queue.truncate_after(spans[CUT].offset),
            Truncation::Before => queue.truncate_before(spans[CUT].offset),
        }
    }

    fn leaves(self, spans: &[Span]) -> Bounds {
        let (cut, end) = (spans[CUT].offset, spans[LAST].end);
        match self {
            Truncation::After => Bounds { begins: vec![0], ends: cut..=cut },
            Truncation::Before => Bounds { begins: vec![cut - cut % page()], ends: end..=end },
        }
    }

    /// Until it has returned: of the beginning all of it or nothing, of the end any part.
    fn may_leave(self, spans: &[Span]) -> Bounds {
        let Bounds { begins, ends } = self.leaves(spans);
        // What keeps writers out of the last file becomes padding.
        let most = if self == Truncation::After { spans[LAST].end.next_multiple_of(page()) } else { *ends.end() };
        Bounds { begins: [vec![0], begins].concat(), ends: *ends.start()..=most }
    }
}

impl Bounds {
    fn after_a_reboot(self, spans: &[Span]) -> Bounds {
        Bounds { ends: spans[DURABLE].end.min(*self.ends.start())..=*self.ends.end(), ..self }
    }

    fn check(&self, queue: &Opened, what: &str) {
        let offsets = queue.offsets().unwrap();
        let holds = self.begins.contains(&offsets.min) && self.ends.contains(&offsets.committed);
        assert!(holds, "{what}: from {} to {}, which is not {self:?}", offsets.min, offsets.committed);
    }
}

/// What is there lies within its bounds and is what was appended, and the log goes on.
fn check_image(path: &Path, options: &Options, spans: &[Span], rebooted: bool, bounds: Bounds, what: &str) {
    let queue = if rebooted { open_after_reboot(path, options) } else { open(path, options) };
    if rebooted { bounds.after_a_reboot(spans) } else { bounds }.check(&queue, what);
    let offsets = queue.offsets().unwrap();
    let there = |at: &Span| at.offset >= offsets.min && at.end <= offsets.committed;
    for (i, at) in spans.iter().enumerate().filter(|(_, at)| there(at)) {
        assert!(read(&queue, at.offset).unwrap().0.starts_with(&payload(i)), "{what}: record {i}");
    }
    let at = append(&queue, b"goes on");
    assert!(read(&queue, at.offset).unwrap().0.starts_with(b"goes on"), "{what}");
}

#[test]
fn a_kill_or_a_power_cut_at_any_call_leaves_the_log_or_what_stays_of_it() {
    stop_at_any_call(&[record(), raw(Filler::RocketMq)]);
}

#[test]
fn a_kill_or_a_power_cut_at_any_call_in_staged_leaves_the_log_or_what_stays_of_it() {
    stop_at_any_call(&[staged(record()), staged(raw(Filler::Zero))]);
}

fn stop_at_any_call(kinds: &[Options]) {
    let _alone = alone();
    let mut cases = 0;
    for (options, truncation) in kinds.iter().flat_map(|options| BOTH.map(|truncation| (options, truncation))) {
        for call in calls_of(options) {
            for nth in 1.. {
                let dir = scratch();
                let (queue, spans) = at_rest(dir.path(), options);
                let aimed_at = queue.os.fail_nth(call, nth, Fault::Hang);
                let (has_returned, images) = thread::scope(|scope| {
                    let cutting = scope.spawn(|| truncation.call(&queue, &spans));
                    eventually("a call or the end", || cutting.is_finished() || queue.os.count(call) >= aimed_at);
                    let has_returned = cutting.is_finished();
                    let images = [as_killed_now(dir.path()), as_killed_now(dir.path())];
                    queue.os.heal();
                    cutting.join().unwrap().unwrap();
                    (has_returned, images)
                });
                for (image, rebooted) in images.iter().zip([false, true]) {
                    let what = format!("{truncation:?} {options:?} {call:?} {nth}, rebooted {rebooted}");
                    let bounds = if has_returned { truncation.leaves(&spans) } else { truncation.may_leave(&spans) };
                    check_image(image.path(), options, &spans, rebooted, bounds, &what);
                    cases += 1;
                }
                if queue.os.count(call) < aimed_at {
                    assert!(has_returned);
                    break;
                }
            }
        }
    }
    println!("{cases} images");
    assert!(cases > 100);
}

#[test]
fn a_truncation_that_fails_at_any_call_has_not_happened_or_poisons() {
    fail_at_any_call(&[record(), raw(Filler::Zero), raw(Filler::RocketMq)]);
}

#[test]
fn a_truncation_that_fails_at_any_call_in_staged_has_not_happened_or_poisons() {
    fail_at_any_call(&[staged(record()), staged(raw(Filler::Zero))]);
}

fn fail_at_any_call(kinds: &[Options]) {
    let _alone = alone();
    let mut cases = 0;
    for (options, truncation) in kinds.iter().flat_map(|options| BOTH.map(|truncation| (options, truncation))) {
        for call in calls_of(options) {
            for nth in 1.. {
                let what = format!("{truncation:?} {call:?} {nth} {options:?}");
                let dir = scratch();
                let (queue, spans) = at_rest(dir.path(), options);
                let aimed_at = queue.os.fail_nth(call, nth, Fault::Errno(libc::EIO));
                let outcome = truncation.call(&queue, &spans);
                let made = queue.os.count(call) >= aimed_at;
                queue.os.heal();
                let bounds = match outcome {
                    Ok(()) => {
                        truncation.leaves(&spans).check(&queue, &what);
                        truncation.leaves(&spans)
                    }
                    Err(error) => {
                        // POISONED where the flush thread made the call that failed, for a checkpoint or a new file.
                        assert!(matches!(error.status(), Status::Io | Status::NoMemory | Status::Poisoned), "{error}");
                        match queue.append(b"goes on") {
                            Ok(at) => {
                                queue.wait(Which::Committed, at.end, within(GENEROUS_MS)).unwrap();
                                assert!(read(&queue, at.offset).unwrap().0.starts_with(b"goes on"));
                                assert!(at.offset >= spans[LAST].end, "{what}: goes on at {}", at.offset);
                                // Files that could not be removed have gone from the queue all the same.
                                let begins = queue.offsets().unwrap().min;
                                assert!(truncation.may_leave(&spans).begins.contains(&begins), "{what}");
                                Bounds { begins: vec![begins], ends: at.end..=at.end }
                            }
                            Err(error) => {
                                assert_eq!(error.status(), Status::Poisoned);
                                truncation.may_leave(&spans)
                            }
                        }
                    }
                };
                let _ = queue.close();
                check_image(dir.path(), options, &spans, false, bounds, &what);
                cases += 1;
                if !made {
                    break;
                }
            }
        }
    }
    println!("{cases} cases");
    assert!(cases > 50);
}

/// Mappings of removed files of a directory.
fn still_mapped(path: &Path) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(path.to_str().unwrap()) && line.ends_with("(deleted)")).count()
}

#[test]
fn a_file_cannot_end_where_neither_a_record_nor_a_blank_fits() {
    let dir = scratch();
    let queue = open(dir.path(), &raw(Filler::RocketMq));
    for _ in 0..2 {
        queue.append(&vec![7; page() as usize - 8]).unwrap(); // a file each
    }
    for offset in [page() - 7, page() - 1] {
        assert_eq!(queue.truncate_after(offset).unwrap_err().status(), Status::Invalid);
    }
    queue.truncate_after(page() - 8).unwrap();
    assert_eq!(queue.append(b"goes on").unwrap().offset, page());
}

#[test]
fn removed_files_are_let_go_while_calls_go_on() {
    let dir = scratch();
    let path = fs::canonicalize(dir.path()).unwrap();
    let queue = handles::Queue::open(&path, &handles::RECORD).unwrap();
    let reader = queue.reader(0).unwrap();
    thread::scope(|scope| {
        // At rest for as long as it lasts, as a consumer is most of the time.
        scope.spawn(|| while reader.next(-1).is_ok() {});
        let mut most = 0;
        for _ in 0..500 {
            let at = queue.append(&vec![7; 3000]).unwrap();
            queue.truncate_before(at.end).unwrap();
            most = most.max(still_mapped(&path));
        }
        queue.truncate_before(queue.offsets().unwrap().committed).unwrap();
        assert!(most < 50, "{most} removed files were mapped at once");
        reader.close().unwrap();
    });
    queue.close().unwrap();
    assert_eq!(still_mapped(&path), 0);
}

#[test]
fn appends_beside_truncations_are_whole_and_in_order() {
    const THREADS: u32 = 3;
    let _watchdog = Watchdog::new("appends beside truncations", 120);
    let staged = |how| handles::How { mode: mfq::capi::MFQ_STAGED, ..how };
    for how in [handles::RECORD, handles::RAW, staged(handles::RECORD), staged(handles::RAW)] {
        let dir = scratch();
        let queue = handles::Queue::open(dir.path(), &how).unwrap();
        let places = Mutex::new(vec![0]);
        let stop = AtomicBool::new(false);
        let append = |thread: u32, seq: u32| {
            let label = Label::single(0, thread, seq);
            let at = queue.append(&label.record(LEAST_BYTES + (seq as usize * 7919) % 1500)).unwrap();
            (label, at)
        };
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (append, places, stop) = (&append, &places, &stop);
                scope.spawn(move || {
                    for seq in 0.. {
                        let (_, at) = append(thread, seq);
                        places.lock().unwrap().push(at.end);
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
            let mut cuts = 0;
            for round in 0..150 {
                thread::yield_now();
                let mut places = places.lock().unwrap();
                let at = places[places.len() / 2];
                let outcome = if round % 3 == 0 { queue.truncate_before(at) } else { queue.truncate_after(at) };
                // Another cut may have put it into the middle of a record, or beyond the end.
                assert!(matches!(outcome, Ok(()) | Err(mfq::capi::MFQ_E_INVALID)), "{outcome:?}");
                cuts += usize::from(outcome.is_ok());
                let committed = queue.offsets().unwrap().committed;
                places.retain(|place| *place <= committed);
                places.push(committed);
            }
            stop.store(true, Ordering::Relaxed);
            assert!(cuts > 20, "{cuts}");
        });
        // Whole records only, those of each thread in their order, and all that came after the last cut.
        let last: Vec<_> = (0..THREADS).map(|thread| append(thread, u32::MAX)).collect();
        queue.close().unwrap();
        let queue = open(
            dir.path(),
            &Options { format: if how.format == 0 { Format::Record } else { Format::Raw }, ..record() },
        );
        if how.format == 0 {
            let found = support::records::read_all(&queue, Format::Record, Filler::Zero);
            for thread in 0..THREADS {
                let seqs: Vec<_> = found.iter().filter(|f| f.label.thread == thread).map(|f| f.label.seq).collect();
                assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
            }
        }
        for (label, at) in last {
            let bytes = read(&queue, at.offset).unwrap().0;
            assert_eq!(Label::read(&bytes).unwrap().0, label);
        }
    }
}

/// Whose checkpoint was written, and could not be synced: killed before, so that nothing in it is durable.
fn after_a_truncation_that_failed() -> (TempDir, Opened, Vec<Span>) {
    let lives = scratch();
    let queue = open(lives.path(), &record());
    let spans = fill(&queue, 20);
    let killed = as_killed_now(lives.path());
    let queue = open(killed.path(), &record());
    queue.os.fail_nth(Call::SyncData, 1, Fault::Errno(libc::EIO));
    assert_eq!(queue.truncate_before(3 * page()).unwrap_err().status(), Status::Io);
    (killed, queue, spans)
}

#[test]
fn a_truncation_that_failed_does_not_take_away_what_a_cut_below_it_has_left() {
    let (dir, queue, spans) = after_a_truncation_that_failed();
    queue.truncate_after(spans[7].offset).unwrap();
    let killed = as_killed_now(dir.path());
    let queue = open(killed.path(), &record());
    assert_eq!(queue.offsets().unwrap().min, 0);
    assert_eq!(readable(&queue, &spans), 7);
}

/// A power cut would leave the checkpoint before, which names the first of them.
#[test]
fn an_open_removes_no_file_before_the_checkpoint_that_says_so_is_durable() {
    let (dir, queue, _) = after_a_truncation_that_failed();
    let killed = as_killed_now(dir.path());
    drop(queue);
    let os = FaultyOs::new(native());
    os.fail_all(Call::SyncData, Fault::Errno(libc::EIO));
    assert_eq!(try_open_on(os, killed.path(), &record()).err().unwrap().status(), Status::Io);
    assert_eq!(file_starts(killed.path())[..3], [0, page(), 2 * page()]);
    let queue = open(killed.path(), &record());
    assert_eq!(queue.offsets().unwrap().min, 3 * page());
}
