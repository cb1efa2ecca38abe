//! Every system call fails once, and for ever: at each call that a script makes, with what its man page says it may
//! give, and reads and writes that do half. After each: no panic, no hang, an error that names the cause; everything
//! that returned is there in the same boot, nothing that failed is, and everything that was called durable is there
//! after a power cut at that moment, of a disk that keeps no more than it was told to sync.
//!
//! The short form gives each call, once and for ever, one errno in turn; `MFQ_SYSCALL_FAULTS=all` gives each of them
//! all.

#[path = "support/sim_disk.rs"]
mod sim_disk;
#[path = "support/engine.rs"]
mod support;

use mfq::os::{Call, Fault, FaultyOs, native};
use mfq::{Error, Filler, Format, OpenQueue, Options, Queue, Span, Status};
use sim_disk::{Image, SimDisk, write_image};
use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::{GENEROUS_MS, Watchdog, alone, page, raw, record, within};
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
        Call::Advise => &[EAGAIN, EINVAL, EIO, ENOMEM, EPERM, EFAULT, EHWPOISON],
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
        Times::Once => os.fail_nth(call, nth, fault),
        Times::ForEver if fault == Fault::Errno(libc::EINTR) => {
            (nth..nth + INTERRUPTIONS).for_each(|nth| os.fail_nth(call, nth, fault));
        }
        Times::ForEver => os.fail_from(call, nth, fault),
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
    /// What returned, in order.
    records: Vec<(Span, Vec<u8>)>,
    durable: u64,
    errors: Vec<Error>,
}

impl Seen {
    fn note<T>(&mut self, answer: Result<T, Error>) -> Option<T> {
        answer.map_err(|error| self.errors.push(error)).ok()
    }

    fn append(&mut self, queue: &Queue, len: usize) {
        let bytes = self.next_bytes(len);
        if let Some(span) = self.note(queue.append(&bytes)) {
            self.records.push((span, bytes));
        }
    }

    fn claim(&mut self, queue: &Queue, len: usize) -> Option<mfq::Claim> {
        self.note(queue.claim(len))
    }

    fn commit(&mut self, queue: &Queue, claim: mfq::Claim) {
        let bytes = self.next_bytes(claim.len);
        // SAFETY: the claim has room for them.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), claim.ptr, bytes.len()) }
        if let Some(span) = self.note(queue.commit(claim.id, bytes.len())) {
            self.records.push((span, bytes));
        }
    }

    /// Different for each record, and never 0.
    fn next_bytes(&self, len: usize) -> Vec<u8> {
        vec![(self.records.len() + self.errors.len()) as u8 % 255 + 1; len]
    }

    fn flush(&mut self, queue: &Queue, up_to: u64) {
        if self.note(queue.flush(up_to, within(GENEROUS_MS))).is_some() {
            self.durable = self.durable.max(queue.offsets().unwrap().flushed);
        }
    }

    fn close(&mut self, queue: OpenQueue) {
        let end = queue.offsets().unwrap().committed;
        queue.begin_close();
        if self.note(queue.finish_close()).is_some() {
            self.durable = self.durable.max(end);
        }
    }

    /// Twice, as a host that was told of an error may do.
    fn open(&mut self, disk: &Arc<SimDisk>, path: &Path, options: &Options) -> Option<OpenQueue> {
        let first = self.note(Queue::open(disk.clone(), path, options));
        first.or_else(|| self.note(Queue::open(disk.clone(), path, options)))
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
        // A truncation has its place here.
        self.check_read(&queue, options);
        self.close(queue);
        let Some(queue) = self.open(disk, path, options) else { return };
        self.append(&queue, 81);
        self.flush(&queue, u64::MAX);
        self.append(&queue, 82);
        self.close(queue);
    }

    /// Exactly what returned is there.
    fn check_read(&self, queue: &Queue, options: &Options) {
        match options.format {
            Format::Record => {
                let appended: Vec<_> = self.records.iter().map(|(_, bytes)| bytes.clone()).collect();
                assert_eq!(records_of(queue), appended);
            }
            Format::Raw => {
                let bytes = bytes_of(queue);
                let end = self.records.last().map_or(0, |(span, _)| span.end);
                assert!((end..=end.next_multiple_of(options.file_size)).contains(&(bytes.len() as u64)));
                check_bytes(&bytes, &self.records);
            }
        }
    }

    /// What is there is a prefix of what returned, and all of it that was called durable.
    fn check_after_power_cut(&self, queue: &Queue, options: &Options) {
        let durable: Vec<_> = self.records.iter().filter(|(span, _)| span.end <= self.durable).cloned().collect();
        match options.format {
            Format::Record => {
                let found = records_of(queue);
                let appended: Vec<_> = self.records.iter().map(|(_, bytes)| bytes.clone()).collect();
                assert!(appended.starts_with(&found), "{} records, which are no prefix", found.len());
                assert!(found.len() >= durable.len(), "{} records of {} durable ones", found.len(), durable.len());
            }
            Format::Raw => check_bytes(&bytes_of(queue), &durable),
        }
    }
}

fn check_bytes(bytes: &[u8], records: &[(Span, Vec<u8>)]) {
    for (span, appended) in records {
        let found = bytes.get(span.offset as usize..span.end as usize);
        assert_eq!(found, Some(appended.as_slice()), "at {}", span.offset);
    }
}

fn records_of(queue: &Queue) -> Vec<Vec<u8>> {
    let (mut records, mut at) = (Vec::new(), 0);
    loop {
        match queue.view(at) {
            Ok(view) => {
                // SAFETY: the view holds its file, and nobody writes what is committed.
                records.push(unsafe { std::slice::from_raw_parts(view.ptr, view.len) }.to_vec());
                at = view.end;
            }
            Err(error) if error.status() == Status::End => return records,
            Err(error) => panic!("{error}"),
        }
    }
}

fn bytes_of(queue: &Queue) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(view) = queue.view(bytes.len() as u64) {
        // SAFETY: as above.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(view.ptr, view.len) });
    }
    bytes
}

fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a tmpfs to work in")
}

/// A directory for one run, with its disk.
struct Bench {
    root: TempDir,
    disk: Arc<SimDisk>,
    os: Arc<FaultyOs>,
}

impl Bench {
    fn new(beginning: &Beginning) -> Bench {
        let root = in_memory();
        write_image(&beginning.image, root.path());
        let os = FaultyOs::new(native());
        let disk = SimDisk::over(os.clone(), root.path(), beginning.boot);
        Bench { root, disk, os }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("queue")
    }

    fn run(&self, beginning: &Beginning, options: &Options) -> Seen {
        let records = beginning.records.clone();
        let mut seen = Seen { records, durable: beginning.durable, ..Seen::default() };
        seen.run(&self.disk, &self.path(), options);
        seen
    }
}

/// A new queue, one killed with an open claim, and one whose power was cut: its last page but one is older.
fn beginnings(options: &Options) -> Vec<Beginning> {
    let new = Beginning { name: "new", image: Image::new(), boot: FIRST_BOOT, records: Vec::new(), durable: 0 };
    let bench = Bench::new(&new);
    let queue = Queue::open(bench.disk.clone(), &bench.path(), options).unwrap();
    let mut seen = Seen::default();
    for len in [100, 3000, 700, 1200, 300] {
        seen.append(&queue, len);
    }
    seen.flush(&queue, u64::MAX);
    let (cut, durable) = (seen.records.clone(), seen.durable);
    let claim = seen.claim(&queue, 150);
    if options.format == Format::Record {
        seen.append(&queue, 60);
        seen.append(&queue, 400);
    }
    let image = bench.disk.kill();
    assert!(claim.is_some() && seen.errors.is_empty());
    let killed = Beginning { name: "killed", image: image.clone(), boot: FIRST_BOOT, records: seen.records, durable };
    let power = Beginning { name: "power cut", image, boot: SECOND_BOOT, records: cut, durable };
    vec![new, killed, power]
}

#[derive(Default)]
struct Count {
    cases: u64,
    errors: BTreeMap<String, u64>,
}

/// One case. Whether the fault came.
fn check(options: &Options, beginning: &Beginning, (call, nth, fault, times): Case, count: &mut Count) -> bool {
    let case = format!("{:?}, {}: {call:?} number {nth} {fault:?} {times:?}", options.format, beginning.name);
    let _watchdog = Watchdog::new(case.clone(), 30);
    let context = OnPanic(case);
    let bench = Bench::new(beginning);
    aim(&bench.os, call, nth, fault, times);
    let mut seen = bench.run(beginning, options);
    let hit = bench.os.count(call) >= nth;
    bench.os.heal();
    for error in &seen.errors {
        check_error(error, fault);
        *count.errors.entry(format!("{:?}", error.status())).or_default() += 1;
    }

    let queue = after_a_power_cut(&bench, options);
    seen.check_after_power_cut(&queue, options);
    drop(queue);
    let queue = Queue::open(bench.disk.clone(), &bench.path(), options).unwrap();
    seen.check_read(&queue, options);
    seen.append(&queue, 10);
    seen.flush(&queue, u64::MAX);
    seen.check_after_power_cut(&after_a_power_cut(&bench, options), options);
    drop((queue, context));
    count.cases += u64::from(hit);
    hit
}

/// With the least that the disk may have now.
fn after_a_power_cut(bench: &Bench, options: &Options) -> OpenQueue {
    let root = in_memory();
    write_image(&bench.disk.power_cut(), root.path());
    let os = FaultyOs::new(native());
    os.set_boot_id(*b"the third boot..");
    Queue::open(os, &root.path().join("queue"), options).unwrap()
}

type Case = (Call, u64, Fault, Times);

/// The system's own errno is told, or the status that stands for what it has led to.
fn check_error(error: &Error, fault: Fault) {
    let of_the_fault = fault == Fault::Errno(error.errno());
    let follows = matches!(error.status(), Status::Poisoned | Status::Locked);
    assert!(of_the_fault || follows, "{:?} {}: {error}", error.status(), error.errno());
    assert!(error.message().len() > 10 && error.status() != Status::Panic, "{error}");
}

struct OnPanic(String);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {}", self.0);
        }
    }
}

fn faults(call: Call, nth: u64) -> Vec<Fault> {
    let all = errnos(call);
    let halves = matches!(call, Call::ReadAt | Call::WriteAt).then_some(Fault::Half);
    let chosen = match env::var("MFQ_SYSCALL_FAULTS").as_deref() {
        Ok("all") => all,
        _ => &all[nth as usize % all.len()..][..1],
    };
    chosen.iter().map(|&errno| Fault::Errno(errno)).chain(halves).collect()
}

fn every_call_fails(options: &Options) {
    let _alone = alone();
    let keep = in_memory();
    let _runtime = support::open(keep.path(), &record()); // its thread need not be started for each case
    for beginning in beginnings(options) {
        let healthy = Bench::new(&beginning);
        let seen = healthy.run(&beginning, options);
        assert!(seen.errors.is_empty(), "without a fault: {:?}", seen.errors);
        let (mut count, mut sites) = (Count::default(), 0);
        for call in Call::ALL {
            // The allocation thread's calls are not the same number each time, so the last ones may not come.
            for nth in 1..=healthy.os.count(call) {
                let mut hit = false;
                for fault in faults(call, nth) {
                    for times in [Times::Once, Times::ForEver] {
                        hit |= check(options, &beginning, (call, nth, fault, times), &mut count);
                    }
                }
                sites += u64::from(hit);
            }
        }
        println!(
            "{:?}, {}: {} cases of (call, ordinal, errno, once or for ever), {sites} calls failed; errors {:?}",
            options.format, beginning.name, count.cases, count.errors
        );
        assert!(sites > 50, "{sites}");
    }
}

#[test]
fn every_system_call_of_record_fails_once_and_for_ever() {
    every_call_fails(&record());
}

#[test]
fn every_system_call_of_raw_fails_once_and_for_ever() {
    every_call_fails(&Options { file_size: 2 * page(), ..raw(Filler::RocketMq) });
}
