//! Every state a power cut may leave: a script runs on a simulated disk, and at each of its system calls and operations
//! the pages, names and lengths that were not synced are lost and kept in all combinations. Each state is opened after
//! a reboot: what was flushed is there, what is there is a prefix of what was appended, and the log goes on.
//!
//! The short form samples; `MFQ_CRASH_STATES=<most per moment>` says how many combinations are tried at each moment
//! (all there are, up to that).

#[path = "support/sim_disk.rs"]
mod sim_disk;
#[path = "support/engine.rs"]
mod support;

use mfq::os::{FaultyOs, native};
use mfq::{Filler, Format, OpenQueue, Options, Queue, Span, Status};
use sim_disk::{Dice, Image, Moment, SimDisk, Told, write_image};
use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::{env, fs};
use support::{GENEROUS_MS, Watchdog, eventually, page, raw, record, within};
use tempfile::TempDir;

const BOOTS: [[u8; 16]; 3] = [*b"the first boot..", *b"the second boot.", *b"the third boot.."];
const SEED: u64 = 1;

/// Below the disk's root, so that its own name may be lost, too.
const QUEUE: &str = "queue";

/// In memory, and with inode numbers that are not used again, which the simulated disk goes by.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a tmpfs to work in")
}

/// What the script appended: a record, or a stretch of RAW.
struct Entry {
    span: Span,
    bytes: Vec<u8>,
    /// Not given up.
    kept: bool,
}

struct Script {
    disk: Arc<SimDisk>,
    root: TempDir,
    options: Options,
    queue: Option<OpenQueue>,
    log: Vec<Entry>,
}

impl Script {
    fn new(options: Options) -> Script {
        let root = in_memory();
        let disk = SimDisk::new(root.path(), BOOTS[0]);
        disk.record();
        Script { disk, root, options, queue: None, log: Vec::new() }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join(QUEUE)
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().expect("an open queue")
    }

    fn open(&mut self) {
        self.queue = Some(Queue::open(self.disk.clone(), &self.path(), &self.options).unwrap());
        self.disk.operation("open");
    }

    /// Notes that an append begins; its number.
    fn begin(&mut self, len: usize) -> (usize, Vec<u8>) {
        let index = self.log.len();
        assert!(index < 64, "what has returned is a set of 64");
        let bytes = vec![index as u8 + 1; len];
        self.log.push(Entry { span: Span::default(), bytes: bytes.clone(), kept: true });
        self.disk.begun.fetch_add(1, SeqCst);
        (index, bytes)
    }

    fn returned(&mut self, index: usize, span: Span) {
        self.log[index].span = span;
        self.disk.returned.fetch_or(1 << index, SeqCst);
    }

    fn append(&mut self, len: usize) {
        let (index, bytes) = self.begin(len);
        let span = self.queue().append(&bytes).unwrap();
        self.returned(index, span);
        self.disk.operation("append");
    }

    fn batch(&mut self, lens: &[usize]) {
        let begun: Vec<_> = lens.iter().map(|&len| self.begin(len)).collect();
        let mut spans = Vec::new();
        let records = begun.iter().map(|(_, bytes)| bytes.as_slice());
        self.queue().append_batch(records, |_, span| spans.push(span)).unwrap();
        begun.iter().zip(spans).for_each(|((index, _), span)| self.returned(*index, span));
        self.disk.operation("batch");
    }

    /// Half of its bytes are there already.
    fn claim(&mut self, len: usize) -> (usize, mfq::Claim) {
        let (index, bytes) = self.begin(len);
        let claim = self.queue().claim(len).unwrap();
        // SAFETY: the claim has room for them.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), claim.ptr, len / 2) }
        self.disk.operation("claim");
        (index, claim)
    }

    fn commit(&mut self, (index, claim): (usize, mfq::Claim), len: usize) {
        self.log[index].bytes.truncate(len);
        // SAFETY: the claim has room for them.
        unsafe { std::ptr::copy_nonoverlapping(self.log[index].bytes.as_ptr(), claim.ptr, len) }
        let span = self.queue().commit(claim.id, len).unwrap();
        self.returned(index, span);
        self.disk.operation("commit");
    }

    fn abort(&mut self, (index, claim): (usize, mfq::Claim)) {
        self.log[index].kept = false;
        self.queue().abort(claim.id).unwrap();
        self.disk.operation("abort");
    }

    fn flush(&mut self, up_to: u64) {
        self.queue().flush(up_to, within(GENEROUS_MS)).unwrap();
        let flushed = self.queue().offsets().unwrap().flushed;
        assert!(flushed >= up_to || up_to == u64::MAX);
        self.disk.durable.fetch_max(flushed, SeqCst);
        self.disk.operation("flush");
    }

    fn end(&self) -> u64 {
        self.queue().offsets().unwrap().committed
    }

    /// The files ahead of the writer are there, unless the allocation thread hangs.
    fn come_to_rest(&self) {
        if self.disk.holds_worker() {
            return;
        }
        let committed = self.end();
        let ahead = (committed.div_ceil(self.options.file_size) + 2) * self.options.file_size;
        let last = self.path().join(format!("{:020}", ahead - self.options.file_size));
        eventually("the files ahead", || last.exists());
    }

    fn close(&mut self) {
        let end = self.end();
        let queue = self.queue.take().unwrap();
        queue.begin_close();
        queue.finish_close().unwrap();
        self.disk.durable.fetch_max(end, SeqCst);
        self.disk.operation("close");
    }

    /// Everything this is about. The allocation thread's syncs come in time, or late.
    fn run(&mut self, held: bool) {
        let file = self.options.file_size as usize;
        let framed = self.options.format == Format::Record;
        self.open();
        self.disk.hold_worker(held);
        self.append(40);
        self.append(if framed { 0 } else { 1 });
        self.append(600);
        self.come_to_rest();
        self.flush(u64::MAX);
        self.append(700);
        let flushed = self.end();
        self.append(900);
        self.append(33);
        self.flush(flushed); // the others of its page go with it, or not
        let claim = self.claim(200);
        if framed {
            self.append(100); // behind it
            self.append(64);
        }
        self.commit(claim, 120);
        let claim = self.claim(300);
        self.abort(claim);
        if framed {
            self.batch(&[500, 600, 16, 700]);
        }
        self.flush(u64::MAX);
        // Across the end of a file, of two, and exactly to the end of one.
        for len in [file / 3, file / 3 + 8, file / 2, 24] {
            self.append(len);
        }
        self.come_to_rest();
        self.append(file - 40);
        self.append(file - 16);
        self.append(77);
        self.flush(u64::MAX);
        for len in [1200, 1300, 1400, 50] {
            self.append(len);
        }
        self.disk.hold_worker(false);
        self.come_to_rest();
        self.close();
        self.open();
        self.append(81);
        self.append(1500);
        self.flush(u64::MAX);
        self.append(82);
        self.close();
    }

    fn expected(&mut self) -> Expected {
        self.open();
        let bytes = bytes_of(self.queue());
        for Entry { span, bytes: appended, .. } in self.log.iter().filter(|entry| entry.kept) {
            let header = if self.options.format == Format::Record { 16 } else { 0 };
            let at = span.offset as usize + header;
            assert_eq!(&bytes[at..at + appended.len()], appended, "the script itself");
        }
        self.queue = None;
        Expected { log: std::mem::take(&mut self.log), bytes, options: self.options.clone() }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.disk.hold_worker(false); // a close may wait for it
    }
}

/// Everything committed, as it lies in the files.
fn bytes_of(queue: &Queue) -> Vec<u8> {
    let end = queue.offsets().unwrap().committed;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < end {
        let file = queue.find(bytes.len() as u64).unwrap();
        let len = (end - file.start()).min(file.size()) as usize;
        // SAFETY: a mapped file, which nobody writes meanwhile.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(file.base(), len) });
    }
    bytes
}

/// The records, in order. Panics over what is damaged.
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

struct Expected {
    log: Vec<Entry>,
    bytes: Vec<u8>,
    options: Options,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Cut {
    Kill,
    Power,
}

impl Expected {
    fn check(&self, queue: &Queue, cut: Cut, told: Told) {
        let offsets = queue.offsets().unwrap();
        assert!(offsets.committed >= told.durable, "flushed up to {}, and now {offsets:?}", told.durable);
        match self.options.format {
            Format::Record => self.check_records(queue, cut, told),
            Format::Raw => self.check_bytes(queue, cut, told),
        }
    }

    fn check_records(&self, queue: &Queue, cut: Cut, told: Told) {
        let has_returned = |index: usize| told.returned & 1 << index != 0;
        let begun = self.log.iter().enumerate().take(told.begun as usize).filter(|(_, entry)| entry.kept);
        let mut found = records_of(queue).into_iter().peekable();
        let mut cut_off = false;
        for (index, entry) in begun {
            if !cut_off && found.next_if(|record| *record == entry.bytes).is_some() {
                continue;
            }
            // A kill leaves a hole only where nobody was told anything; a power cut leaves none.
            cut_off |= cut == Cut::Power;
            assert!(
                !(has_returned(index) && entry.span.end <= told.durable),
                "number {index} was flushed, and is lost"
            );
            assert!(!(has_returned(index) && cut == Cut::Kill), "number {index} had returned, and is lost");
        }
        assert_eq!(found.next(), None, "no record, or not in its place");
    }

    fn check_bytes(&self, queue: &Queue, cut: Cut, told: Told) {
        let found = bytes_of(queue);
        assert!(found.len() <= self.bytes.len(), "ends at {}, behind all that was appended", found.len());
        let returned = self.log.iter().enumerate().filter(|(index, _)| told.returned & 1 << index != 0);
        let returned = returned.map(|(_, entry)| entry.span.end).max().unwrap_or(0);
        let whole = match cut {
            Cut::Kill => found.len() as u64,
            Cut::Power => told.durable,
        };
        assert!(cut == Cut::Power || whole >= returned, "ends at {whole}, before {returned}, which had returned");
        for (at, (found, appended)) in found.iter().zip(&self.bytes).enumerate() {
            let lost = *found == 0 && at as u64 >= whole;
            assert!(found == appended || lost, "{cut:?}: at {at} is {found:#x}, not {appended:#x}");
        }
    }
}

/// Opens what a crash has left, and goes on with it.
struct Checker<'e> {
    expected: &'e Expected,
    work: TempDir,
    seen: HashSet<u64>,
    states: u64,
    second: u64,
}

/// Of so many states one is closed and opened again.
const CLOSED_AGAIN: u64 = 8;
/// Of so many states one crashes again while it is recovered.
const CRASHED_AGAIN: u64 = 128;

impl Checker<'_> {
    fn check(&mut self, image: &Image, cut: Cut, told: Told, dice: &mut Dice) {
        let mut hash = DefaultHasher::new();
        (image, cut, told).hash(&mut hash);
        if !self.seen.insert(hash.finish()) {
            return;
        }
        self.states += 1;
        let path = self.restore(image);
        let boot = if cut == Cut::Kill { BOOTS[0] } else { BOOTS[1] };
        let queue = Queue::open(booted(boot), &path, &self.expected.options).unwrap();
        self.expected.check(&queue, cut, told);
        self.go_on(queue, boot, &path);
        if self.states.is_multiple_of(CRASHED_AGAIN) {
            self.crash_again(image, cut, told, boot, dice);
        }
    }

    fn restore(&self, image: &Image) -> PathBuf {
        let root = self.work.path().join("crashed");
        let _ = fs::remove_dir_all(&root);
        fs::create_dir(&root).unwrap();
        write_image(image, &root);
        root.join(QUEUE)
    }

    fn go_on(&self, queue: OpenQueue, boot: [u8; 16], path: &Path) {
        let end = queue.offsets().unwrap().committed;
        let before = bytes_of(&queue);
        let span = queue.append(b"it goes on").unwrap();
        assert!(span.offset >= end);
        queue.flush(span.end, within(GENEROUS_MS)).unwrap();
        if !self.states.is_multiple_of(CLOSED_AGAIN) {
            return;
        }
        queue.begin_close();
        queue.finish_close().unwrap();
        let queue = Queue::open(booted(boot), path, &self.expected.options).unwrap();
        let offsets = queue.offsets().unwrap();
        assert_eq!((offsets.committed, offsets.flushed), (span.end, span.end));
        let after = bytes_of(&queue);
        assert_eq!(after[..before.len()], before);
        assert!(after.windows(10).any(|bytes| bytes == b"it goes on"));
    }

    /// The power fails again, at each call of the recovery and behind it: nothing that was there is lost, and what is
    /// appended and flushed then is there, too.
    fn crash_again(&mut self, image: &Image, cut: Cut, told: Told, boot: [u8; 16], dice: &mut Dice) {
        let path = self.restore(image);
        let root = path.parent().unwrap();
        let disk = SimDisk::new(root, boot);
        disk.record();
        let queue = Queue::open(disk.clone(), &path, &self.expected.options).unwrap();
        disk.operation("recovery");
        let recovered = bytes_of(&queue);
        let at = queue.append(b"it goes on").unwrap();
        disk.operation("append");
        queue.flush(at.end, within(GENEROUS_MS)).unwrap();
        disk.durable.store(at.end, SeqCst);
        disk.operation("flush");
        let moments = disk.moments();
        drop(queue);
        for moment in moments {
            let kept = if cut == Cut::Power { recovered.len() as u64 } else { told.durable };
            for image in moment.power_cuts(4, dice) {
                self.second += 1;
                let path = self.restore(&image);
                let queue = Queue::open(booted(BOOTS[2]), &path, &self.expected.options).unwrap();
                let found = bytes_of(&queue);
                let context = format!("crashed again before {}", moment.before);
                // What a kill leaves is in the page cache only, and the second crash takes that.
                assert!(found.len() as u64 >= kept.min(recovered.len() as u64), "{context}: {}", found.len());
                if cut == Cut::Power {
                    assert_eq!(found[..recovered.len()], recovered, "{context}");
                }
                assert!(found.len() as u64 >= moment.told.durable, "{context}");
                if self.expected.options.format == Format::Record {
                    records_of(&queue);
                }
            }
        }
    }
}

fn booted(boot: [u8; 16]) -> Arc<FaultyOs> {
    let os = FaultyOs::new(native());
    os.set_boot_id(boot);
    os
}

/// What is tried at each moment, at most about: a few seconds for each script in the short form.
fn most_at_each_moment() -> u64 {
    env::var("MFQ_CRASH_STATES").map_or(20, |most| most.parse().expect("MFQ_CRASH_STATES is a number"))
}

fn every_crash_state_recovers(name: &str, options: Options) {
    let most = most_at_each_moment();
    let _watchdog = Watchdog::new(name, 300 + 60 * most);
    let keep = in_memory();
    let _runtime = support::open(keep.path(), &record()); // its thread need not be started for each state
    for held in [false, true] {
        let mut script = Script::new(options.clone());
        script.run(held);
        let moments = script.disk.moments();
        let expected = script.expected();
        let (work, seen) = (in_memory(), HashSet::new());
        let mut checker = Checker { expected: &expected, work, seen, states: 0, second: 0 };
        let mut dice = Dice(SEED);
        for (index, moment) in moments.iter().enumerate() {
            let told = moment.told;
            let context = OnPanic(format!("{name}, late syncs {held}, moment {index}: {}, {told:?}", moment.before));
            checker.check(&moment.kill(), Cut::Kill, told, &mut dice);
            for image in moment.power_cuts(most, &mut dice).iter().chain(&torn(moment, most, &mut dice)) {
                checker.check(image, Cut::Power, told, &mut dice);
            }
            drop(context);
        }
        println!(
            "{name}, late syncs {held}: {} crash states at {} moments, {} second crashes, seed {SEED}",
            checker.states,
            moments.len(),
            checker.second
        );
        assert!(checker.states > 500, "{}", checker.states); // how many differ depends on when the flush thread writes
    }
}

/// The subsets of sectors of the page changed last, about so many of them.
fn torn(moment: &Moment, most: u64, dice: &mut Dice) -> BTreeSet<Image> {
    let all = moment.torn();
    let step = (all.len() as u64).div_ceil(most).max(1);
    all.into_iter().filter(|_| dice.below(step) == 0).collect()
}

/// Says where a test was when it failed.
struct OnPanic(String);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {}", self.0);
        }
    }
}

#[test]
fn every_crash_state_of_record_recovers() {
    every_crash_state_recovers("RECORD, files of a page", record());
    every_crash_state_recovers("RECORD, files of 4 pages", Options { file_size: 4 * page(), ..record() });
}

#[test]
fn every_crash_state_of_raw_recovers() {
    every_crash_state_recovers("RAW, files of a page", raw(Filler::Zero));
    every_crash_state_recovers(
        "RAW, blanks, files of 4 pages",
        Options { file_size: 4 * page(), ..raw(Filler::RocketMq) },
    );
}
