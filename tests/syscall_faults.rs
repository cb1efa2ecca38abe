//! Every system call fails once, and for ever: at each call that a script makes, with what its man page says it may
//! give, and reads and writes that do half. After each: no panic, no hang, an error that names the cause; everything
//! that returned is there in the same boot, nothing that failed is, and everything that was called durable is there
//! after a power cut at that moment, of a disk that keeps no more than it was told to sync.
//!
//! The short form gives each call one errno in turn, and where a script makes very many calls, takes some of them at
//! even distances; `MFQ_SYSCALL_FAULTS=all` gives each of them all.

#[path = "support/rocketmq.rs"]
mod rocketmq;
#[path = "support/sim_disk.rs"]
mod sim_disk;
#[path = "support/engine.rs"]
mod support;

use mfq::os::{Call, Fault, FaultyOs, native};
use mfq::{Ended, Error, Filler, FlushPolicy, Format, Mode, OpenQueue, Options, Queue, Span, Status, Which};
use sim_disk::{Image, SimDisk, write_image};
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::{GENEROUS_MS, OnPanic, Watchdog, page, raw, record, records_of, scratch_in_memory, within};
use tempfile::TempDir;

const FIRST_BOOT: [u8; 16] = *b"the first boot..";
const SECOND_BOOT: [u8; 16] = *b"the second boot.";

/// What a call may give, from its man page; without those that only a mistake in the call brings about (EBADF, EFAULT,
/// ENAMETOOLONG, ...) and ENOENT, which would be a lie about what is there.
fn errnos(call: Call) -> &'static [i32] {
    use libc::*;
    match call {
        Call::Open => &[EACCES, EMFILE, ENFILE, ENOMEM, ENOSPC, EDQUOT, EROFS, EIO, EINTR, EPERM, ENXIO],
        Call::MakeDirectory => &[EACCES, EDQUOT, EMLINK, ENOMEM, ENOSPC, EROFS, EIO, EPERM],
        Call::Stat => &[EACCES, ENOMEM, EIO, EOVERFLOW],
        Call::List => &[EMFILE, ENFILE, ENOMEM, EIO, EACCES],
        Call::Rename => &[EACCES, EBUSY, EDQUOT, EINVAL, EIO, EMLINK, ENOMEM, ENOSPC, EPERM, EROFS],
        Call::Unlink => &[EACCES, EBUSY, EIO, ENOMEM, EPERM, EROFS],
        Call::FileSystem => &[EACCES, EINTR, EIO, ENOMEM, ENOSYS, EOVERFLOW],
        Call::WriteInPlace => &[ENOTTY, EOPNOTSUPP, EPERM, EIO],
        Call::Lock => &[EAGAIN, EACCES, EINTR, ENOLCK, EIO],
        Call::Allocate => &[ENOSPC, EDQUOT, EFBIG, EINTR, EIO, ENODEV, ENOSYS, EOPNOTSUPP, EPERM, EROFS],
        Call::ReadAt => &[EIO, EINTR, EAGAIN, EISDIR, EOVERFLOW],
        Call::WriteAt => &[EIO, ENOSPC, EDQUOT, EFBIG, EINTR, EPERM, EROFS, EAGAIN],
        Call::SyncDirectory | Call::SyncData => &[EIO, ENOSPC, EDQUOT, EROFS, EINTR, EINVAL],
        Call::Map | Call::MapPrivate | Call::MapOver => &[ENOMEM, EACCES, EAGAIN, ENFILE, EPERM, ENODEV, EOVERFLOW],
        Call::Advise | Call::Populate => &[EAGAIN, EINVAL, EIO, ENOMEM, EPERM, EFAULT, EHWPOISON],
        Call::SyncRange => &[EIO, EBUSY, ENOMEM, ENOSPC, EDQUOT, EROFS],
        Call::BootId => &[EACCES, EMFILE, ENFILE, ENOMEM, EIO],
        Call::MountId => &[EACCES, ENOMEM, ENOSYS, EPERM, EIO],
        Call::Device => &[EIO, ENOMEM, EOVERFLOW],
        Call::Random => &[EAGAIN, EINTR, ENOSYS],
        Call::LockMemory => &[ENOMEM, EPERM, EAGAIN],
        Call::Clock => &[], // cannot fail
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Times {
    Once,
    ForEver,
}

/// Nobody is interrupted for ever: so often in a row stands for it.
const INTERRUPTIONS: u64 = 100;

fn aim(os: &FaultyOs, call: Call, nth: u64, fault: Fault, times: Times) {
    match times {
        Times::ForEver if fault != Fault::Errno(libc::EINTR) => os.fail_from(call, nth, fault),
        _ => {
            let often = if times == Times::Once { 1 } else { INTERRUPTIONS };
            for nth in nth..nth + often {
                os.fail_nth(call, nth, fault);
            }
        }
    }
}

/// A directory to begin with, and what is in it.
struct Beginning {
    name: &'static str,
    image: Image,
    boot: [u8; 16],
    records: Vec<(Span, Vec<u8>)>,
    durable: u64,
}

/// What the host has seen of a script.
#[derive(Default)]
struct Seen {
    options: Options,
    /// What returned, in order, and no truncation took away.
    records: Vec<(Span, Vec<u8>)>,
    /// The log may begin at either: the second is where a truncation that failed would have it begin.
    begins: [u64; 2],
    /// A truncation that failed and poisoned the queue may have cut it here, or anywhere behind.
    cut: Option<u64>,
    /// STAGED: in the files.
    committed: u64,
    durable: u64,
    /// The last close went well.
    closed: bool,
    /// An append waited in vain for a buffer that no file gives back.
    gave_up: bool,
    errors: Vec<Error>,
}

impl Seen {
    fn note<T>(&mut self, answer: Result<T, Error>) -> Option<T> {
        answer.map_err(|error| self.errors.push(error)).ok()
    }

    fn append(&mut self, queue: &Queue, len: usize) {
        let bytes = self.next_bytes(len);
        if self.gave_up {
            return;
        }
        let span = self.note(queue.append(&bytes));
        self.gave_up = self.errors.last().is_some_and(|error| error.status() == Status::Timeout);
        self.appended(queue, span, bytes);
    }

    fn appended(&mut self, queue: &Queue, span: Option<Span>, bytes: Vec<u8>) {
        let Some(span) = span else { return };
        self.records.push((span, bytes));
        let secured = self.note(queue.secure(span.end)); // as in C; what fails leaves it appended
        if secured.is_some() && self.options.flush_policy == FlushPolicy::EveryAppend {
            self.is_durable(span.end);
        }
    }

    fn is_durable(&mut self, up_to: u64) {
        self.durable = self.durable.max(up_to);
        self.committed = self.committed.max(up_to);
    }

    fn claim(&mut self, queue: &Queue, len: usize) -> Option<mfq::Claim> {
        self.note(queue.claim(len))
    }

    fn commit(&mut self, queue: &Queue, claim: mfq::Claim) {
        let bytes = self.next_bytes(claim.len);
        // SAFETY: the claim has room for them.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), claim.ptr, bytes.len()) }
        let span = self.note(queue.commit(claim.id, bytes.len()));
        self.appended(queue, span, bytes);
    }

    /// Different for each record, and never 0 alone; with a walker, something that it walks over.
    fn next_bytes(&self, len: usize) -> Vec<u8> {
        let value = (self.records.len() + self.errors.len()) as u8 % 255 + 1;
        match self.options.walk {
            Some(_) => rocketmq::message(&vec![value; len.saturating_sub(rocketmq::LEAST_BYTES)]),
            None => vec![value; len],
        }
    }

    /// STAGED: everything that is complete goes to the files.
    fn write_staged(&mut self, queue: &Queue) {
        let wrote = queue.offsets().unwrap().wrote;
        if self.note(queue.wait(Which::Committed, wrote, within(GENEROUS_MS))).is_some() {
            self.committed = self.committed.max(wrote);
        }
    }

    /// By this thread, or by the one whose affair it is under the policy.
    fn flush(&mut self, queue: &Queue, up_to: u64) {
        let by_policy = matches!(self.options.flush_policy, FlushPolicy::Interval | FlushPolicy::LeastPages);
        let flushed = match by_policy {
            true => queue.wait(Which::Flushed, up_to.min(queue.offsets().unwrap().wrote), within(GENEROUS_MS)),
            false => queue.flush(up_to, within(GENEROUS_MS)),
        };
        if self.note(flushed).is_some() {
            self.is_durable(queue.offsets().unwrap().flushed);
        }
    }

    /// By the flush thread.
    fn start_flush(&mut self, queue: &Queue) {
        let up_to = queue.offsets().unwrap().wrote;
        let patience_ms = if self.options.append_timeout_ms == IMPATIENT_MS { IMPATIENT_MS } else { GENEROUS_MS };
        let flushed = queue.flush_start(up_to).and_then(|()| queue.wait(Which::Flushed, up_to, within(patience_ms)));
        if self.note(flushed).is_some() {
            self.is_durable(up_to);
        }
    }

    /// Takes the last `count` records away; twice, as for `open`. What fails and does not poison has changed nothing.
    fn truncate_after(&mut self, queue: &Queue, count: usize) {
        let kept = self.records.len().saturating_sub(count);
        let Some(offset) = self.records.get(kept).map(|(span, _)| span.offset) else { return };
        for _ in 0..2 {
            if self.note(queue.truncate_after(offset)).is_some() {
                self.records.truncate(kept);
                (self.durable, self.committed) = (self.durable.min(offset), self.committed.min(offset));
                return assert_eq!(queue.offsets().unwrap().committed, offset);
            }
            if self.cut.is_none() && is_poisoned(queue) && self.errors.last().unwrap().status() != Status::Poisoned {
                self.cut = Some(offset);
                (self.durable, self.committed) = (self.durable.min(offset), self.committed.min(offset));
            }
        }
    }

    /// Takes away all but the last file of what is committed.
    fn truncate_before(&mut self, queue: &Queue) {
        let committed = queue.offsets().unwrap().committed;
        self.begins[1] = committed - committed % self.options.file_size;
        for _ in 0..2 {
            if self.note(queue.truncate_before(committed)).is_some() {
                self.begins[0] = queue.offsets().unwrap().min;
            }
        }
        self.begins[1] = self.begins[1].max(self.begins[0]);
    }

    fn close(&mut self, queue: OpenQueue) {
        let end = queue.offsets().unwrap().wrote;
        queue.begin_close();
        if self.note(queue.finish_close()).is_some() {
            self.is_durable(end);
            self.closed = true;
        }
    }

    /// Twice, as a host that was told of an error may do.
    fn open(&mut self, disk: &Arc<SimDisk>, path: &Path, options: &Options) -> Option<OpenQueue> {
        let first = self.note(Queue::open(disk.clone(), path, options));
        self.closed &= first.is_some(); // an open that fails may have taken the clean mark away
        let queue = first.or_else(|| self.note(Queue::open(disk.clone(), path, options)))?;
        self.check_report(&queue);
        self.closed = false;
        self.settle(&queue);
        Some(queue)
    }

    /// A queue that was opened tells what became of what was in doubt.
    fn settle(&mut self, queue: &Queue) {
        let (min, end) = (self.begin(queue), queue.offsets().unwrap().committed);
        self.begins = [min; 2];
        if let Some(cut) = self.cut.take() {
            assert!(end >= cut, "cut at {cut}, and ends at {end}");
            self.records.retain(|(span, _)| span.end <= cut.max(end));
        }
        if self.options.mode == Mode::Staged {
            let found = if self.options.format == Format::Record { records_of(queue) } else { Vec::new() };
            let is_there = |end_of: u64, bytes: &Vec<u8>| match self.options.format {
                Format::Record => found.contains(bytes), // a write that failed leaves a stretch without any
                Format::Raw => end_of <= end,
            };
            self.records.retain(|(span, bytes)| span.end <= self.committed || is_there(span.end, bytes));
        }
    }

    fn end(&self) -> u64 {
        self.records.last().map_or(0, |(span, _)| span.end)
    }

    /// Where it begins, which is one of the places where it may.
    fn begin(&self, queue: &Queue) -> u64 {
        let min = queue.offsets().unwrap().min;
        assert!(self.begins.contains(&min), "begins at {min}, not at {:?}", self.begins);
        min
    }

    /// Everything this is about: what a new queue or one that was not closed goes through.
    fn run(&mut self, disk: &Arc<SimDisk>, path: &Path, options: &Options) {
        let file = options.file_size as usize;
        let Some(queue) = self.open(disk, path, options) else { return };
        self.append(&queue, 40);
        self.append(&queue, 900);
        self.flush(&queue, u64::MAX);
        if let Some(claim) = self.claim(&queue, 200) {
            self.commit(&queue, claim);
        }
        if let Some(claim) = self.claim(&queue, 100) {
            self.note(queue.abort(claim.id));
        }
        self.append(&queue, 500);
        let middle = queue.offsets().unwrap().committed;
        for len in [file / 3, file / 2, file - 24, 1000] {
            self.append(&queue, len);
        }
        self.flush(&queue, middle);
        self.append(&queue, 77);
        self.flush(&queue, u64::MAX);
        self.append(&queue, file / 2);
        self.write_staged(&queue);
        self.append(&queue, 91);
        self.start_flush(&queue);
        self.append(&queue, 300);
        self.truncate_after(&queue, 1);
        self.append(&queue, 250);
        self.truncate_after(&queue, 6); // over ends of files, and below what is durable
        self.append(&queue, 700);
        self.write_staged(&queue);
        self.truncate_before(&queue);
        self.append(&queue, file / 2);
        if self.cut.is_none() {
            self.check_read(&queue);
        }
        self.close(queue);
        let Some(queue) = self.open(disk, path, options) else { return };
        self.append(&queue, 81);
        self.flush(&queue, u64::MAX);
        self.append(&queue, 82);
        self.close(queue);
    }

    /// Exactly what returned is there; of STAGED at least what was committed.
    fn check_read(&self, queue: &Queue) {
        let min = self.begin(queue);
        let due = if self.options.mode == Mode::Staged { self.committed } else { u64::MAX };
        match self.options.format {
            Format::Record => self.check_records(queue, due),
            Format::Raw => {
                let (bytes, end) = (bytes_of(queue), self.end().min(due).max(min));
                let there = min + bytes.len() as u64;
                let most = self.end().max(min).next_multiple_of(self.options.file_size);
                assert!((end..=most).contains(&there), "ends at {there}, not {end}");
                self.check_bytes(&bytes, min, there);
            }
        }
    }

    /// What is there is a prefix of what returned, and all of it that was called durable.
    fn check_after_power_cut(&self, queue: &Queue) {
        let min = self.begin(queue);
        match self.options.format {
            Format::Record => self.check_records(queue, self.durable),
            Format::Raw => self.check_bytes(&bytes_of(queue), min, self.durable),
        }
    }

    /// A prefix, and everything up to `due` is in it.
    fn check_records(&self, queue: &Queue, due: u64) {
        let (found, min) = (records_of(queue), self.begin(queue));
        let appended = self.records.iter().filter(|(span, _)| span.offset >= min);
        let due = appended.clone().filter(|(span, _)| span.end <= due).count();
        assert!(appended.map(|(_, bytes)| bytes).take(found.len()).eq(&found), "{} records, no prefix", found.len());
        assert!(found.len() >= due, "{} records of {due}", found.len());
    }

    fn check_bytes(&self, bytes: &[u8], min: u64, due: u64) {
        for (span, appended) in self.records.iter().filter(|(span, _)| span.offset >= min && span.end <= due) {
            let found = bytes.get((span.offset - min) as usize..(span.end - min) as usize);
            assert_eq!(found, Some(appended.as_slice()), "at {}", span.offset);
        }
    }

    fn check_report(&self, queue: &Queue) {
        let (found, committed) = (queue.recovery().unwrap(), queue.offsets().unwrap().committed);
        assert!(found.ended == Ended::Clean || !self.closed, "{found:?}");
        assert_eq!((found.cut_at, found.lost_bytes, found.first_lost), (committed, 0, None), "{found:?}");
    }
}

fn is_poisoned(queue: &Queue) -> bool {
    queue.flush_start(0).is_err_and(|error| error.status() == Status::Poisoned)
}

fn bytes_of(queue: &Queue) -> Vec<u8> {
    let (mut bytes, min) = (Vec::new(), queue.offsets().unwrap().min);
    while let Ok(view) = queue.view(min + bytes.len() as u64) {
        // SAFETY: the view holds its file, and nobody writes what is committed.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(view.ptr, view.len) });
    }
    bytes
}

/// A directory for one run, with its disk.
struct Bench {
    root: TempDir,
    disk: Arc<SimDisk>,
    os: Arc<FaultyOs>,
}

impl Bench {
    fn new(beginning: &Beginning) -> Bench {
        let root = scratch_in_memory();
        write_image(&beginning.image, root.path());
        let os = FaultyOs::new(native());
        let disk = SimDisk::over(os.clone(), root.path(), beginning.boot);
        Bench { root, disk, os }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("queue")
    }

    fn run(&self, beginning: &Beginning, options: &Options) -> Seen {
        let (records, durable) = (beginning.records.clone(), beginning.durable);
        let begins = [records.first().map_or(0, |(span, _)| span.offset); 2];
        let mut seen =
            Seen { options: options.clone(), records, begins, committed: durable, durable, ..Seen::default() };
        seen.run(&self.disk, &self.path(), options);
        seen
    }
}

/// A new queue, one killed with an open claim, and one whose power was cut: its last page but one is older.
fn beginnings(options: &Options) -> Vec<Beginning> {
    let new = Beginning { name: "new", image: Image::new(), boot: FIRST_BOOT, records: Vec::new(), durable: 0 };
    let bench = Bench::new(&new);
    let queue = Queue::open(bench.disk.clone(), &bench.path(), options).unwrap();
    let mut seen = Seen { options: options.clone(), ..Seen::default() };
    for len in [100, 3000, 700, 1200, 300] {
        seen.append(&queue, len);
    }
    seen.flush(&queue, u64::MAX);
    seen.append(&queue, 110);
    seen.write_staged(&queue);
    let (cut, durable) = (seen.records.clone(), seen.durable);
    let claim = seen.claim(&queue, 150);
    if options.format == Format::Record && options.flush_policy == FlushPolicy::None {
        seen.append(&queue, 60);
        seen.append(&queue, 400);
    }
    let image = bench.disk.kill();
    assert!(claim.is_some() && seen.errors.is_empty());
    let killed = if options.mode == Mode::Staged { cut.clone() } else { seen.records };
    let killed = Beginning { name: "killed", image: image.clone(), boot: FIRST_BOOT, records: killed, durable };
    let power = Beginning { name: "power cut", image, boot: SECOND_BOOT, records: cut, durable };
    vec![new, killed, power]
}

/// The commit log of a broker.
fn to_adopt(options: &Options) -> Beginning {
    let new = Beginning { name: "new", image: Image::new(), boot: FIRST_BOOT, records: Vec::new(), durable: 0 };
    let bench = Bench::new(&new);
    let owner = Options { adopt: false, start_offset: 3 * options.file_size, ..options.clone() };
    let queue = Queue::open(bench.disk.clone(), &bench.path(), &owner).unwrap();
    let mut seen = Seen { options: owner, ..Seen::default() };
    for len in [100, 3000, 700, 1200, 300, 2000] {
        seen.append(&queue, len);
    }
    seen.close(queue);
    assert!(seen.errors.is_empty());
    let mut image = bench.disk.kill();
    image.retain(|path, _| !path.starts_with("queue/.mfq"));
    Beginning { name: "to be adopted", image, records: seen.records, durable: seen.durable, ..new }
}

#[derive(Default)]
struct Count {
    cases: u64,
    errors: BTreeMap<String, u64>,
}

/// One case. Whether the fault came.
fn check(options: &Options, beginning: &Beginning, (call, nth, fault, times): Case, count: &mut Count) -> bool {
    let case = format!("{}: {call:?} number {nth} {fault:?} {times:?}", beginning.name);
    let _watchdog = Watchdog::new(case.clone(), 30);
    let context = OnPanic(case);
    let bench = Bench::new(beginning);
    aim(&bench.os, call, nth, fault, times);
    let waits_in_vain = times == Times::ForEver
        && match call {
            Call::MapOver => true, // a file that cannot be mapped in the place of its buffer keeps it
            Call::Open => matches!(fault, Fault::Errno(libc::EMFILE | libc::ENFILE)), // the flush thread tries again
            _ => false,
        };
    let append_timeout_ms = if waits_in_vain { IMPATIENT_MS } else { options.append_timeout_ms };
    let patience = Options { append_timeout_ms, ..options.clone() };
    let mut seen = bench.run(beginning, &patience);
    let hit = bench.os.count(call) >= nth;
    bench.os.heal();
    for error in &seen.errors {
        check_error(error, fault, waits_in_vain);
        *count.errors.entry(format!("{:?}", error.status())).or_default() += 1;
    }

    let queue = after_a_power_cut(&bench, options);
    seen.check_report(&queue);
    assert_ne!(queue.recovery().unwrap().ended, Ended::ProcessDeath);
    seen.check_after_power_cut(&queue);
    drop(queue);
    let queue = seen.open(&bench.disk, &bench.path(), options).unwrap();
    seen.check_read(&queue);
    seen.gave_up = false;
    seen.append(&queue, 10);
    seen.flush(&queue, u64::MAX);
    seen.check_after_power_cut(&after_a_power_cut(&bench, options));
    drop((queue, context));
    count.cases += u64::from(hit);
    hit
}

/// With the least that the disk may have now.
fn after_a_power_cut(bench: &Bench, options: &Options) -> OpenQueue {
    let root = scratch_in_memory();
    write_image(&bench.disk.power_cut(), root.path());
    let os = FaultyOs::new(native());
    os.set_boot_id(*b"the third boot..");
    Queue::open(os, &root.path().join("queue"), options).unwrap()
}

/// Where what is waited for cannot come.
const IMPATIENT_MS: i32 = 100;

type Case = (Call, u64, Fault, Times);

/// The system's own errno is told, or the status that stands for what it has led to.
fn check_error(error: &Error, fault: Fault, waits_in_vain: bool) {
    let of_the_fault = fault == Fault::Errno(error.errno());
    let follows = match error.status() {
        Status::Poisoned | Status::Locked | Status::NotDurable => true,
        Status::Timeout | Status::Busy => waits_in_vain,
        _ => false,
    };
    assert!(of_the_fault || follows, "{:?} {}: {error}", error.status(), error.errno());
    assert!(error.message().len() > 10 && error.status() != Status::Panic, "{error}");
}

/// What is done in turn: `all` of it, or in the short form some.
fn faults(call: Call, nth: u64, all: bool) -> Vec<(Fault, Times)> {
    let errnos = errnos(call);
    let halves = matches!(call, Call::ReadAt | Call::WriteAt).then_some(Fault::Half);
    let errnos = if all { errnos } else { &errnos[nth as usize % errnos.len()..][..1] };
    let faults = errnos.iter().map(|&errno| Fault::Errno(errno)).chain(halves);
    faults.flat_map(|fault| [(fault, Times::Once), (fault, Times::ForEver)]).collect()
}

/// Of each script the short form tries about so many cases.
const MOST_CASES: usize = 200;

fn every_call_fails(name: &str, options: &Options, beginnings: impl IntoIterator<Item = Beginning>) {
    let keep = scratch_in_memory();
    let _runtime = support::open(keep.path(), &record()); // its thread need not be started for each case
    let all = env::var("MFQ_SYSCALL_FAULTS").is_ok_and(|which| which == "all");
    for beginning in beginnings {
        let healthy = Bench::new(&beginning);
        let seen = healthy.run(&beginning, options);
        assert!(seen.errors.is_empty(), "without a fault: {:?}", seen.errors);
        seen.check_read(&Queue::open(healthy.disk.clone(), &healthy.path(), options).unwrap());
        // The allocation thread's calls are not the same number each time, so the last ones may not come.
        let sites = Call::ALL.into_iter().flat_map(|call| (1..=healthy.os.count(call)).map(move |nth| (call, nth)));
        let cases = sites.flat_map(|(call, nth)| faults(call, nth, all).into_iter().map(move |what| (call, nth, what)));
        let cases: Vec<_> = cases.map(|(call, nth, (fault, times))| (call, nth, fault, times)).collect();
        let each = if all { 1 } else { cases.len().div_ceil(MOST_CASES) | 1 }; // odd: once and for ever in turn
        let (mut count, mut failed) = (Count::default(), BTreeSet::new());
        for &(call, nth, fault, times) in cases.iter().step_by(each) {
            if check(options, &beginning, (call, nth, fault, times), &mut count) {
                failed.insert(format!("{call:?} {nth}"));
            }
        }
        println!(
            "{name}, {}: {} cases of (call, ordinal, errno, once or for ever), {} calls failed; errors {:?}",
            beginning.name,
            count.cases,
            failed.len(),
            count.errors
        );
        assert!(failed.len() > 50, "{}", failed.len());
    }
}

fn staged(options: Options) -> Options {
    Options { mode: Mode::Staged, commit_interval_ms: u32::MAX, pool_buffers: 3, lock_pool: true, ..options }
}

#[test]
fn every_system_call_of_record_fails_once_and_for_ever() {
    every_call_fails("RECORD", &record(), beginnings(&record()));
}

#[test]
fn every_system_call_of_raw_fails_once_and_for_ever() {
    let options = Options { file_size: 2 * page(), ..raw(Filler::RocketMq) };
    every_call_fails("RAW", &options, beginnings(&options));
}

#[test]
fn every_system_call_of_staged_fails_once_and_for_ever() {
    for (name, options) in [("STAGED, RECORD", record()), ("STAGED, RAW", raw(Filler::Zero))] {
        let options = staged(options);
        every_call_fails(name, &options, beginnings(&options));
    }
}

#[test]
fn every_system_call_under_a_flush_policy_fails_once_and_for_ever() {
    // One page and one millisecond: what the flush thread does can be waited for.
    let policy = |flush_policy| Options { flush_policy, flush_least_pages: 1, flush_interval_ms: 1, ..record() };
    for flush_policy in [FlushPolicy::EveryAppend, FlushPolicy::LeastPages, FlushPolicy::Interval] {
        let options = policy(flush_policy);
        every_call_fails(&format!("{flush_policy:?}"), &options, beginnings(&options).into_iter().take(1));
    }
    let options = staged(policy(FlushPolicy::EveryAppend));
    every_call_fails("STAGED, EveryAppend", &options, beginnings(&options).into_iter().take(1));
}

#[test]
fn every_system_call_of_an_adoption_fails_once_and_for_ever() {
    let options = Options { adopt: true, walk: Some(rocketmq::walk()), ..raw(Filler::RocketMq) };
    every_call_fails("ADOPT", &options, vec![to_adopt(&options)]);
}
