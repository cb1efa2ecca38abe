//! Every state a power cut may leave: a script runs on a simulated disk, and at each of its system calls and operations
//! the pages, names and lengths that were not synced are lost and kept in all combinations. Each state is opened after
//! a reboot: what was flushed is there, what is there is a prefix of what was appended, and the log goes on. What a
//! truncation has taken away is there no more once it has returned; before, its beginning moves on whole or not at all,
//! and its end lies where it was, at the cut, or in between.
//!
//! The short form samples, at every other moment; `MFQ_CRASH_STATES=<most per moment>` says how many combinations are
//! tried at each (all there are, up to that).

#[path = "support/rocketmq.rs"]
mod rocketmq;
#[path = "support/sim_disk.rs"]
mod sim_disk;
#[path = "support/engine.rs"]
mod support;

use mfq::os::{FaultyOs, native};
use mfq::{Ended, Filler, FlushPolicy, Format, Mode, OpenQueue, Options, Queue, Span, Which};
use sim_disk::{Dice, Image, Moment, SimDisk, Told, write_image};
use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::{env, fs};
use support::{GENEROUS_MS, OnPanic, Watchdog, eventually, page, raw, record, records_of, scratch_in_memory, within};
use tempfile::TempDir;

const BOOTS: [[u8; 16]; 3] = [*b"the first boot..", *b"the second boot.", *b"the third boot.."];
const SEED: u64 = 1;

/// Below the disk's root, so that its own name may be lost, too.
const QUEUE: &str = "queue";

/// A call of the script's: a record, or a stretch of RAW, that it appended. The others leave nothing.
#[derive(Clone)]
struct Entry {
    span: Span,
    bytes: Vec<u8>,
    /// Not given up.
    kept: bool,
}

struct Truncation {
    /// Its number among the calls.
    index: usize,
    /// What it leaves lies between these; the end does not matter where only the beginning moves.
    first: u64,
    end: u64,
    before: Log,
}

/// Everything committed, as it lies in the files.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Log {
    first: u64,
    bytes: Vec<u8>,
}

impl Log {
    fn of(queue: &Queue) -> Log {
        let offsets = queue.offsets().unwrap();
        let mut log = Log { first: offsets.min, bytes: Vec::new() };
        while log.end() < offsets.committed {
            let file = queue.find(log.end()).unwrap();
            let len = (offsets.committed - file.start()).min(file.size()) as usize;
            // SAFETY: a mapped file, which nobody writes meanwhile.
            log.bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(file.base(), len) });
        }
        log
    }

    fn end(&self) -> u64 {
        self.first + self.bytes.len() as u64
    }

    /// From `offset` on.
    fn from(&self, offset: u64) -> &[u8] {
        &self.bytes[(offset - self.first) as usize..]
    }
}

struct Script {
    disk: Arc<SimDisk>,
    root: TempDir,
    options: Options,
    queue: Option<OpenQueue>,
    calls: Vec<Entry>,
    truncations: Vec<Truncation>,
}

/// What a host appends: with a walker, something that it walks over.
fn unit(options: &Options, value: u8, len: usize) -> Vec<u8> {
    match options.walk {
        Some(_) => rocketmq::message(&vec![value; len.saturating_sub(rocketmq::LEAST_BYTES)]),
        None => vec![value; len],
    }
}

impl Script {
    fn new(options: Options) -> Script {
        Script::over(&Image::new(), options)
    }

    fn over(image: &Image, options: Options) -> Script {
        let options = Options { files_ahead: 2, ..options }; // by default so fast a writer gets more
        let root = scratch_in_memory();
        write_image(image, root.path());
        let disk = SimDisk::new(root.path(), BOOTS[0]);
        disk.record();
        Script { disk, root, options, queue: None, calls: Vec::new(), truncations: Vec::new() }
    }

    /// The commit log of a broker, to be adopted.
    fn adopting(options: Options) -> Script {
        let mut made = Script::new(Options { adopt: false, ..options.clone() });
        made.open();
        for len in [300, 700, 1200, 900, 200, 1500, 2000, 100] {
            made.append(len);
        }
        made.close();
        let mut image = made.disk.kill();
        image.retain(|path, _| !path.starts_with(Path::new(QUEUE).join(".mfq")));
        let mut script = Script::over(&image, options);
        let told = [(&script.disk.begun, &made.disk.begun), (&script.disk.returned, &made.disk.returned)];
        told.iter().for_each(|(to, from)| to.store(from.load(SeqCst), SeqCst));
        script.disk.durable.store(made.disk.durable.load(SeqCst), SeqCst);
        script.calls = std::mem::take(&mut made.calls);
        script
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
        let index = self.calls.len();
        assert!(index < 64, "what has returned is a set of 64");
        let bytes = unit(&self.options, index as u8 + 1, len);
        self.calls.push(Entry { span: Span::default(), bytes: bytes.clone(), kept: true });
        self.disk.begun.fetch_add(1, SeqCst);
        (index, bytes)
    }

    /// In STAGED, what returned is told of once it is committed: until then a kill takes it.
    fn returned(&mut self, index: usize, span: Span) {
        self.calls[index].span = span;
        if self.options.flush_policy == FlushPolicy::EveryAppend {
            self.queue().secure(span.end).unwrap();
            self.disk.durable.fetch_max(span.end, SeqCst);
        }
        if self.options.mode == Mode::Mmap {
            self.disk.returned.fetch_or(1 << index, SeqCst);
        }
    }

    /// STAGED: everything goes to the files.
    fn commit_staged(&mut self) {
        if self.options.mode == Mode::Staged {
            let wrote = self.queue().offsets().unwrap().wrote;
            self.queue().wait(Which::Committed, wrote, within(GENEROUS_MS)).unwrap();
            self.is_committed(wrote);
            self.disk.operation("commit to the files");
        }
    }

    fn is_committed(&self, up_to: u64) {
        let is_there = |entry: &Entry| entry.span != Span::default() && entry.span.end <= up_to;
        for (index, _) in self.calls.iter().enumerate().filter(|(_, entry)| is_there(entry)) {
            self.disk.returned.fetch_or(1 << index, SeqCst);
        }
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
        self.calls[index].bytes.truncate(len);
        // SAFETY: the claim has room for them.
        unsafe { std::ptr::copy_nonoverlapping(self.calls[index].bytes.as_ptr(), claim.ptr, len) }
        let span = self.queue().commit(claim.id, len).unwrap();
        self.returned(index, span);
        self.disk.operation("commit");
    }

    fn abort(&mut self, (index, claim): (usize, mfq::Claim)) {
        self.calls[index].kept = false;
        self.queue().abort(claim.id).unwrap();
        self.disk.operation("abort");
    }

    fn flush(&mut self, up_to: u64) {
        self.queue().flush(up_to, within(GENEROUS_MS)).unwrap();
        let flushed = self.queue().offsets().unwrap().flushed;
        assert!(flushed >= up_to || up_to == u64::MAX);
        self.is_committed(flushed);
        self.disk.durable.fetch_max(flushed, SeqCst);
        self.disk.operation("flush");
    }

    /// Takes away the record of this number, and all behind it.
    fn truncate_after(&mut self, index: usize) {
        let offset = self.calls[index].span.offset;
        self.disk.durable.fetch_min(offset, SeqCst); // from now on
        self.cut("truncate after", offset, |queue| queue.truncate_after(offset).unwrap());
        assert_eq!(self.end(), offset);
    }

    fn truncate_before(&mut self, offset: u64) {
        let last = offset - offset % self.options.file_size;
        self.cut("truncate before", u64::MAX, |queue| queue.truncate_before(offset).unwrap());
        assert_eq!(self.queue().offsets().unwrap().min, last);
    }

    fn cut(&mut self, what: &str, end: u64, call: impl FnOnce(&Queue)) {
        let held = self.disk.holds_flush_thread();
        self.disk.hold_flush_thread(false); // it is waited for
        self.commit_staged(); // as a truncation does first
        let before = Log::of(self.queue());
        let (index, _) = self.begin(0);
        self.calls[index].kept = false;
        call(self.queue());
        let first = self.queue().offsets().unwrap().min;
        self.truncations.push(Truncation { index, first, end, before });
        self.disk.returned.fetch_or(1 << index, SeqCst);
        self.disk.operation(what);
        self.disk.hold_flush_thread(held);
    }

    fn end(&self) -> u64 {
        self.queue().offsets().unwrap().committed
    }

    /// The files ahead of the writer are there.
    fn come_to_rest(&self) {
        let committed = self.end();
        let ahead = (committed.div_ceil(self.options.file_size) + 2) * self.options.file_size;
        let last = self.path().join(format!("{:020}", ahead - self.options.file_size));
        eventually("the files ahead", || last.exists());
    }

    fn close(&mut self) {
        let queue = self.queue.take().unwrap();
        let end = queue.offsets().unwrap().wrote;
        queue.begin_close();
        queue.finish_close().unwrap();
        self.is_committed(end);
        self.disk.durable.fetch_max(end, SeqCst);
        self.disk.operation("close");
    }

    /// Everything this is about. The flush thread's syncs come in time, or late.
    fn run(&mut self, held: bool) {
        let file = self.options.file_size as usize;
        let framed = self.options.format == Format::Record;
        self.open();
        self.disk.hold_flush_thread(held);
        self.append(40);
        self.append(if framed { 0 } else { 1 });
        self.append(600);
        self.come_to_rest();
        self.flush(u64::MAX);
        self.append(700);
        self.commit_staged();
        let flushed = self.end();
        self.append(900);
        self.append(33);
        self.commit_staged();
        self.flush(flushed); // the others of its page go with it, or not
        let claim = self.claim(200);
        if framed && self.options.flush_policy == FlushPolicy::None {
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
        self.commit_staged();
        self.append(60);
        self.disk.hold_flush_thread(false);
        self.come_to_rest();
        self.close();
        self.open();
        self.append(81);
        self.append(1500);
        self.flush(u64::MAX);
        self.append(82);
        self.close();
    }

    /// Truncations, with everything that may be under way around them.
    fn run_truncations(&mut self, held: bool) {
        let file = self.options.file_size as usize;
        self.open();
        self.disk.hold_flush_thread(held);
        for len in [40, 600, 700, file / 2, 300] {
            self.append(len);
        }
        self.flush(u64::MAX);
        for len in [900, file / 2, file - 40, 77, 500] {
            self.append(len);
        }
        self.commit_staged();
        self.truncate_after(self.calls.len() - 1); // in the last file, of what was not flushed
        self.append(333);
        self.flush(u64::MAX);
        self.append(444);
        self.truncate_after(3); // over ends of files, and below what is durable
        self.append(555);
        self.append(file - 40);
        self.truncate_before(self.end());
        for len in [file / 2, 100, file - 40, 888, 99] {
            self.append(len);
        }
        self.flush(u64::MAX);
        self.append(200);
        // To where a file begins.
        let begins = |entry: &Entry| entry.kept && entry.span.offset.is_multiple_of(self.options.file_size);
        let index = self.calls.iter().rposition(begins).expect("a record with which a file begins");
        self.truncate_after(index);
        self.append(222);
        self.disk.hold_flush_thread(false);
        self.come_to_rest();
        self.close();
        self.open();
        self.truncate_after(self.calls.len() - 1); // what a clean close had called durable
        self.append(250);
        self.commit_staged();
        self.truncate_before(self.end());
        self.append(150);
        self.close();
    }

    /// Somebody else's directory, and then as any other queue.
    fn run_adopted(&mut self, held: bool) {
        self.open();
        self.disk.hold_flush_thread(held);
        self.append(400);
        self.append(1100);
        let flushed = self.end();
        self.append(500);
        self.flush(flushed);
        let claim = self.claim(300);
        self.commit(claim, 300);
        for len in [1500, 1600, 1700] {
            self.append(len);
        }
        self.flush(u64::MAX);
        self.append(800);
        self.truncate_after(self.calls.len() - 2);
        self.append(350);
        self.truncate_before(self.end());
        self.append(120);
        self.disk.hold_flush_thread(false);
        self.close();
        self.open();
        self.append(130);
        self.close();
    }

    fn expected(&mut self) -> Expected {
        self.open();
        let log = Log::of(self.queue());
        for (index, Entry { span, bytes: appended, .. }) in self.calls.iter().enumerate().filter(|(_, e)| e.kept) {
            let header = if self.options.format == Format::Record { 16 } else { 0 };
            let next = self.truncations.iter().find(|truncation| truncation.index > index);
            let there = next.map_or(&log, |truncation| &truncation.before).from(span.offset + header);
            assert_eq!(&there[..appended.len()], appended, "the script itself");
        }
        self.queue = None;
        let (calls, truncations) = (std::mem::take(&mut self.calls), std::mem::take(&mut self.truncations));
        Expected { calls, truncations, log, options: self.options.clone() }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.disk.hold_flush_thread(false); // a close may wait for it
    }
}

struct Expected {
    calls: Vec<Entry>,
    truncations: Vec<Truncation>,
    /// At the script's end.
    log: Log,
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
        let durable = self.durable(told);
        assert!(offsets.committed >= durable, "flushed up to {durable}, and now {offsets:?}");
        let begins = self.truncations.iter().rfind(|truncation| has_returned(truncation, told));
        let begins = begins.map_or(self.first(), |truncation| truncation.first);
        let moves = self.under_way(told).is_some_and(|truncation| truncation.first == offsets.min);
        assert!(offsets.min == begins || moves, "begins at {}, not {begins}", offsets.min);
        self.check_report(queue, cut);
        match self.options.format {
            Format::Record => self.check_records(queue, cut, told),
            Format::Raw => self.check_bytes(queue, cut, told),
        }
    }

    /// Where the log began before all truncations.
    fn first(&self) -> u64 {
        self.truncations.first().map_or(self.log.first, |truncation| truncation.before.first)
    }

    /// What was called durable and is not about to be taken away.
    fn durable(&self, told: Told) -> u64 {
        let begun = self.truncations.iter().filter(|truncation| truncation.index < told.begun as usize);
        // Whoever was told of the truncation's return was told of no more than it had left.
        let unsettled = begun.filter(|truncation| told.returned & 1 << truncation.index == 0);
        unsettled.map(|truncation| truncation.end).fold(told.durable, u64::min)
    }

    fn under_way(&self, told: Told) -> Option<&Truncation> {
        let begun = |truncation: &&Truncation| truncation.index < told.begun as usize;
        self.truncations.iter().find(|truncation| begun(truncation) && !has_returned(truncation, told))
    }

    fn check_report(&self, queue: &Queue, cut: Cut) {
        let (found, committed) = (queue.recovery().unwrap(), queue.offsets().unwrap().committed);
        let of_the_crash = if cut == Cut::Kill { Ended::ProcessDeath } else { Ended::PowerCut };
        let ended = [Ended::Created, Ended::Clean, of_the_crash].contains(&found.ended);
        assert!(ended || self.options.adopt && found.ended == Ended::Adopted, "{found:?}");
        assert_eq!((found.cut_at, found.lost_bytes, found.first_lost), (committed, 0, None), "{found:?}");
        let verifies = self.options.format == Format::Record || self.options.walk.is_some();
        assert!(found.verified_to == committed || cut == Cut::Power && !verifies, "{found:?}");
    }

    fn check_records(&self, queue: &Queue, cut: Cut, told: Told) {
        let (min, durable) = (queue.offsets().unwrap().min, self.durable(told));
        let gone = |index: usize, entry: &Entry| {
            let by = |truncation: &Truncation| index < truncation.index && entry.span.offset >= truncation.end;
            self.truncations.iter().any(|truncation| has_returned(truncation, told) && by(truncation))
        };
        let begun = self.calls.iter().enumerate().take(told.begun as usize).filter(|(_, entry)| entry.kept);
        let there = begun.filter(|&(index, entry)| entry.span.offset >= min && !gone(index, entry));
        let mut found = records_of(queue).into_iter().peekable();
        let mut cut_off = false;
        for (index, entry) in there {
            if !cut_off && found.next_if(|record| *record == entry.bytes).is_some() {
                continue;
            }
            let returned = told.returned & 1 << index != 0;
            let is_going = self.under_way(told).is_some_and(|truncation| entry.span.offset >= truncation.end);
            // A kill leaves a hole only where nobody was told anything, and none in STAGED; a power cut leaves none.
            cut_off |= cut == Cut::Power || is_going || self.options.mode == Mode::Staged;
            assert!(!(returned && entry.span.end <= durable), "number {index} was flushed, and is lost");
            assert!(!(returned && cut == Cut::Kill) || is_going, "number {index} had returned, and is lost");
        }
        assert_eq!(found.next(), None, "no record, or not in its place");
    }

    fn check_bytes(&self, queue: &Queue, cut: Cut, told: Told) {
        let (found, durable) = (Log::of(queue), self.durable(told));
        let next = self.truncations.iter().find(|truncation| !has_returned(truncation, told));
        let log = next.map_or(&self.log, |truncation| &truncation.before);
        assert!(found.end() <= log.end(), "ends at {}, behind all that was appended", found.end());
        let whole = match cut {
            Cut::Kill => found.end(),
            Cut::Power => durable,
        };
        let since = self.truncations.iter().rfind(|truncation| has_returned(truncation, told));
        let left = since.map_or(0, |truncation| truncation.end.min(truncation.before.end()));
        let since = since.map_or(0, |truncation| truncation.index);
        let returned = self.calls.iter().enumerate().filter(|(index, _)| told.returned & 1 << index != 0);
        let returned = returned.filter(|(index, _)| *index > since).map(|(_, entry)| entry.span.end).max();
        let stays = self.under_way(told).map_or(u64::MAX, |truncation| truncation.end);
        let returned = returned.unwrap_or(left).min(stays);
        assert!(cut == Cut::Power || whole >= returned, "ends at {whole}, before {returned}, which had returned");
        for (at, (found, appended)) in (found.first..).zip(found.bytes.iter().zip(log.from(found.first))) {
            let lost = *found == 0 && at >= whole;
            assert!(found == appended || lost, "{cut:?}: at {at} is {found:#x}, not {appended:#x}");
        }
    }
}

/// Its own call, or the one after it that began.
fn has_returned(truncation: &Truncation, told: Told) -> bool {
    told.returned & 1 << truncation.index != 0 || truncation.index + 1 < told.begun as usize
}

/// Opens what a crash has left, and goes on with it.
struct Checker<'e> {
    expected: &'e Expected,
    work: TempDir,
    seen: HashSet<u64>,
    states: u64,
    second: u64,
}

/// What is appended behind it, ten times at least.
const GOES_ON: u8 = 0xFF;
/// Of so many states one is closed and opened again.
const CLOSED_AGAIN: u64 = 8;
/// Of so many states one crashes again while it is recovered.
const CRASHED_AGAIN: u64 = 128;
/// The same of those that a kill leaves, of which there is one at each moment.
const KILLED_AND_CRASHED: u64 = 16;

impl Checker<'_> {
    /// Of a kill's image so much is `synced`; of a power cut's all of it.
    fn check(&mut self, image: &Image, synced: &Image, cut: Cut, told: Told, dice: &mut Dice) {
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
        let each = if cut == Cut::Kill { KILLED_AND_CRASHED } else { CRASHED_AGAIN };
        if dice.below(each) == 0 {
            self.crash_again((image, synced), cut, told, boot, dice);
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
        let before = Log::of(&queue);
        let span = queue.append(&self.goes_on()).unwrap();
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
        let after = Log::of(&queue);
        assert_eq!((after.first, &after.bytes[..before.bytes.len()]), (before.first, &before.bytes[..]));
        assert!(after.from(end).windows(10).any(|bytes| bytes == [GOES_ON; 10]));
    }

    fn goes_on(&self) -> Vec<u8> {
        unit(&self.expected.options, GOES_ON, 101)
    }

    /// The power fails again, at each call of the recovery and behind it: nothing that was there is lost, and what is
    /// appended and flushed then is there, too.
    fn crash_again(
        &mut self,
        (image, synced): (&Image, &Image),
        cut: Cut,
        told: Told,
        boot: [u8; 16],
        dice: &mut Dice,
    ) {
        let path = self.restore(image);
        let root = path.parent().unwrap();
        let disk = SimDisk::new(root, boot);
        disk.keep_unsynced(root, synced);
        disk.record();
        let queue = Queue::open(disk.clone(), &path, &self.expected.options).unwrap();
        disk.returned.store(1, SeqCst);
        disk.operation("recovery");
        let recovered = Log::of(&queue);
        let at = queue.append(&self.goes_on()).unwrap();
        disk.operation("append");
        queue.flush(at.end, within(GENEROUS_MS)).unwrap();
        disk.durable.store(at.end, SeqCst);
        disk.operation("flush");
        let moments = disk.moments();
        drop(queue);
        for moment in moments {
            let kept = if cut == Cut::Power { recovered.end() } else { self.expected.durable(told) };
            for image in moment.power_cuts(4, dice) {
                self.second += 1;
                let path = self.restore(&image);
                let queue = Queue::open(booted(BOOTS[2]), &path, &self.expected.options).unwrap();
                let found = Log::of(&queue);
                let context = format!("crashed again before {}", moment.before);
                // What a kill leaves is in the page cache only, and the second crash takes that.
                assert!(found.end() >= kept.min(recovered.end()), "{context}: {}", found.end());
                // Until the recovery of a kill is over, a truncation may be under way as it was then.
                let moves = cut == Cut::Kill && moment.told.returned == 0 && found.first < recovered.first;
                assert!(found.first == recovered.first || moves, "{context}: begins at {}", found.first);
                if cut == Cut::Power {
                    assert_eq!(found.bytes[..recovered.bytes.len()], recovered.bytes, "{context}");
                }
                assert!(found.end() >= moment.told.durable, "{context}");
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

/// What is tried at each moment, at most about, and at which of them: a few seconds for each script in the short form.
fn most_at_each_moment() -> (u64, usize) {
    env::var("MFQ_CRASH_STATES").map_or((10, 2), |most| (most.parse().expect("MFQ_CRASH_STATES is a number"), 1))
}

/// With a new script for each of `syncs`: the flush thread's come in time, or late.
fn every_crash_state_recovers(name: &str, syncs: &[bool], script: impl Fn(bool) -> Script) {
    let (most, each) = most_at_each_moment();
    let _watchdog = Watchdog::new(name, 300 + 60 * most);
    let keep = scratch_in_memory();
    let _runtime = support::open(keep.path(), &record()); // its thread need not be started for each state
    for &held in syncs {
        let mut script = script(held);
        let moments = script.disk.moments();
        let expected = script.expected();
        let (work, seen) = (scratch_in_memory(), HashSet::new());
        let mut checker = Checker { expected: &expected, work, seen, states: 0, second: 0 };
        let mut dice = Dice(SEED);
        for (index, moment) in moments.iter().enumerate().skip(usize::from(held)).step_by(each) {
            let told = moment.told;
            let context = OnPanic(format!("{name}, late syncs {held}, moment {index}: {}, {told:?}", moment.before));
            checker.check(&moment.kill(), &moment.synced(), Cut::Kill, told, &mut dice);
            for image in moment.power_cuts(most, &mut dice).iter().chain(&torn(moment, most, &mut dice)) {
                checker.check(image, image, Cut::Power, told, &mut dice);
            }
            drop(context);
        }
        println!(
            "{name}, late syncs {held}: {} crash states at {} moments, {} second crashes, seed {SEED}",
            checker.states,
            moments.len(),
            checker.second
        );
        assert!(checker.states > 150, "{}", checker.states); // how many differ depends on when the flush thread writes
    }
}

/// The subsets of sectors of the page changed last, about so many of them.
fn torn(moment: &Moment, most: u64, dice: &mut Dice) -> BTreeSet<Image> {
    let all = moment.torn();
    let step = (all.len() as u64).div_ceil(most).max(1);
    all.into_iter().filter(|_| dice.below(step) == 0).collect()
}

fn ran(options: Options, run: fn(&mut Script, bool)) -> impl Fn(bool) -> Script {
    move |held| {
        let mut script = Script::new(options.clone());
        run(&mut script, held);
        script
    }
}

/// Nothing is committed unless the script asks, or needs a buffer.
fn staged(options: Options) -> Options {
    Options { mode: Mode::Staged, commit_interval_ms: u32::MAX, pool_buffers: 8, ..options }
}

#[test]
fn every_crash_state_of_record_recovers() {
    let four_pages = Options { file_size: 4 * page(), ..record() };
    every_crash_state_recovers("RECORD, files of a page", &[false, true], ran(record(), Script::run));
    every_crash_state_recovers("RECORD, files of 4 pages", &[false, true], ran(four_pages, Script::run));
}

#[test]
fn every_crash_state_of_raw_recovers() {
    let blanks = Options { file_size: 4 * page(), ..raw(Filler::RocketMq) };
    every_crash_state_recovers("RAW, files of a page", &[false, true], ran(raw(Filler::Zero), Script::run));
    every_crash_state_recovers("RAW, blanks, files of 4 pages", &[false, true], ran(blanks, Script::run));
}

/// A late sync would hold up the script: a file is not given back to the disk while the flush thread syncs it.
#[test]
fn every_crash_state_of_staged_recovers() {
    let four_pages = Options { file_size: 4 * page(), ..record() };
    every_crash_state_recovers("STAGED, RECORD", &[false], ran(staged(record()), Script::run));
    every_crash_state_recovers("STAGED, RAW", &[false], ran(staged(raw(Filler::Zero)), Script::run));
    every_crash_state_recovers("STAGED, truncated", &[false], ran(staged(four_pages), Script::run_truncations));
}

#[test]
fn every_crash_state_of_a_truncation_recovers() {
    let two_pages = Options { file_size: 2 * page(), ..record() };
    let blanks = Options { file_size: 2 * page(), ..raw(Filler::RocketMq) };
    let every_append = Options { flush_policy: FlushPolicy::EveryAppend, ..two_pages.clone() };
    let truncations = Script::run_truncations;
    every_crash_state_recovers("RECORD, truncated", &[false, true], ran(two_pages, truncations));
    every_crash_state_recovers("RAW, truncated", &[true], ran(raw(Filler::Zero), truncations));
    every_crash_state_recovers("RAW, blanks, truncated", &[false], ran(blanks, truncations));
    every_crash_state_recovers("EVERY_APPEND, truncated", &[true], ran(every_append, truncations));
}

#[test]
fn every_crash_state_of_each_append_made_durable_recovers() {
    let every_append = Options { flush_policy: FlushPolicy::EveryAppend, ..record() };
    every_crash_state_recovers("EVERY_APPEND", &[false, true], ran(every_append, Script::run));
}

#[test]
fn every_crash_state_of_an_adopted_directory_recovers() {
    let adopting = Options { adopt: true, walk: Some(rocketmq::walk()), ..raw(Filler::RocketMq) };
    every_crash_state_recovers("ADOPT", &[false, true], |held| {
        let mut script = Script::adopting(adopting.clone());
        script.run_adopted(held);
        script
    });
}
