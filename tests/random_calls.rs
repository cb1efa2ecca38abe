//! A thousand threads' worth of random calls through the C interface, on handles that all threads share and any thread
//! may close at any moment. Each answer is one that the header allows, nothing hangs, and what was appended is there
//! unless a truncation can have cut it off; then it is not.
//!
//! Build it with a sanitizer to have it look for more. `MFQ_RANDOM_THREADS` and `MFQ_RANDOM_SEED` are more, and the
//! same again.

mod support;

use mfq::capi::*;
use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::ffi::CString;
use std::hash::{BuildHasher, RandomState};
use std::mem::{MaybeUninit, size_of};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use support::engine::{Watchdog, scratch};

const AT_ONCE: u64 = 8;
const CALLS: u64 = 100;
/// Of each kind, the last ones given out, ended or not.
const REMEMBERED: usize = 12;
const FILE_BYTES: u64 = 65536;
/// The least that a record is.
const NUMBER_BYTES: usize = 8;

struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % most
    }
}

/// What all threads know of one kind of handle.
struct Pool<T>(Mutex<VecDeque<T>>);

impl<T: Copy> Pool<T> {
    fn new() -> Pool<T> {
        Pool(Mutex::default())
    }

    /// Gives the one back that is forgotten for it.
    fn add(&self, handle: T) -> Option<T> {
        let mut known = self.0.lock().unwrap();
        known.push_back(handle);
        (known.len() > REMEMBERED).then(|| known.pop_front().unwrap())
    }

    fn any(&self, random: &mut Random) -> Option<T> {
        let known = self.0.lock().unwrap();
        (!known.is_empty()).then(|| known[random.below(known.len() as u64) as usize])
    }
}

struct Directory {
    path: CString,
    format: u32,
    mode: u32,
    /// By the numbers that they begin with.
    appended: Mutex<BTreeMap<u64, Appended>>,
    cuts: Mutex<Vec<Cut>>,
    /// Where the log begins.
    first: AtomicU64,
    /// Ends of records.
    places: Pool<u64>,
}

/// A record; it began at the time that is its number.
struct Appended {
    span: mfq_span_t,
    len: usize,
    returned: u64,
}

/// A truncation that moved the end back.
struct Cut {
    offset: u64,
    began: u64,
    returned: u64,
}

/// A queue's handle, and which directory it is.
type Queue = (usize, usize);
/// Claims and views by their tokens: their memory is somebody else's business.
type Token = [u64; 2];
/// With its directory and its record's number.
type Claim = (Token, usize, u64);

impl Directory {
    /// Everything that no truncation can have cut off is there, and nothing that one has.
    fn check(&self, path: &Path) {
        let is_raw = self.format == MFQ_RAW;
        let format = if is_raw { mfq::Format::Raw } else { mfq::Format::Record };
        let queue = support::engine::open(path, &mfq::Options { format, ..mfq::Options::default() });
        let first = self.first.load(Ordering::SeqCst);
        assert_eq!(queue.offsets().unwrap().min, first);
        let mut found = BTreeMap::new();
        let mut at = first;
        let end = loop {
            let view = match queue.view(at) {
                Ok(view) => view,
                Err(error) => break error.status(),
            };
            // SAFETY: the view holds its file, and nobody writes what is committed.
            found.insert(view.offset, unsafe { std::slice::from_raw_parts(view.ptr, view.len) }.to_vec());
            at = view.end;
        };
        assert_eq!(end, mfq::Status::End); // behind it lie claims that were let go, at most

        let (appended, cuts) = (self.appended.lock().unwrap(), self.cuts.lock().unwrap());
        let mut missing = 0;
        for (number, Appended { span, len, returned }) in appended.iter().filter(|(_, one)| one.span.offset >= first) {
            let stretch = found.range(..=span.offset).next_back();
            let there = stretch.and_then(|(at, bytes)| bytes.get((span.offset - at) as usize..));
            let whole = payload(*number, *len);
            let is_there = there.is_some_and(|there| if is_raw { there.starts_with(&whole) } else { there == whole });
            let may_be = |cut: &&Cut| cut.offset < span.end;
            let is_cut = cuts.iter().filter(may_be).any(|cut| cut.began > *returned);
            let may_be_cut = cuts.iter().filter(may_be).any(|cut| cut.returned > *number);
            assert!(is_there || may_be_cut, "number {number} at {} is not there", span.offset);
            assert!(!is_there || !is_cut, "number {number} at {} is there", span.offset);
            missing += usize::from(!is_there);
        }
        let known = |bytes: &Vec<u8>| appended.contains_key(&u64::from_le_bytes(bytes[..8].try_into().unwrap()));
        assert!(is_raw || found.values().all(known), "nobody appended it");
        println!("{} appended, {missing} cut off by {}, from {first} on", appended.len(), cuts.len());
    }
}

struct World {
    directories: [Directory; 4],
    /// Moments, counted.
    clock: AtomicU64,
    queues: Pool<Queue>,
    files: Pool<usize>,
    readers: Pool<usize>,
    views: Pool<Token>,
    claims: Pool<Claim>,
    answers: Mutex<BTreeMap<(&'static str, i32), u64>>,
}

fn zeroed<T>() -> T {
    // SAFETY: used for structures of the C interface only, for which all zeros is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn sized<T>() -> T {
    let mut value = zeroed::<T>();
    // SAFETY: output structures begin with their size.
    unsafe { (&raw mut value).cast::<usize>().write(size_of::<T>()) };
    value
}

/// Begins with the record's number.
fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![b'r'; len];
    bytes[..NUMBER_BYTES].copy_from_slice(&number.to_le_bytes());
    bytes
}

// SAFETY, for all of it: pointers lead to values that live until the call returns, and handles may be anything.
impl World {
    /// Notes an answer, which has to be one of these.
    fn one_of(&self, name: &'static str, answer: i32, allowed: &[i32]) -> bool {
        *self.answers.lock().unwrap().entry((name, answer)).or_default() += 1;
        if !allowed.contains(&answer) {
            let mut text = [0u8; 512];
            let len = unsafe { mfq_last_error(text.as_mut_ptr().cast(), text.len()) };
            panic!("{name} answered {answer}: {}", String::from_utf8_lossy(&text[..len]));
        }
        answer == MFQ_OK
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn note(&self, directory: usize, number: u64, span: mfq_span_t, len: usize) {
        let Directory { appended, places, .. } = &self.directories[directory];
        let returned = self.now();
        places.add(span.end);
        appended.lock().unwrap().insert(number, Appended { span, len, returned });
    }

    fn open(&self, random: &mut Random) {
        let index = random.below(self.directories.len() as u64) as usize;
        let directory = &self.directories[index];
        let mut options: mfq_options_t = zeroed();
        let mut queue = ptr::null_mut();
        let status = unsafe {
            mfq_options_init(&mut options, size_of::<mfq_options_t>());
            (options.file_size, options.format, options.append_timeout_ms) = (FILE_BYTES, directory.format, -1);
            options.mode = directory.mode;
            if directory.mode == MFQ_STAGED {
                // A claim that is open for long keeps buffers, and who waits for one would do so as long.
                options.flags = MFQ_OPEN_POOL_FAIL_FAST;
            }
            mfq_open(directory.path.as_ptr(), &options, &mut queue)
        };
        if self.one_of("open", status, &[MFQ_OK, MFQ_E_LOCKED])
            && let Some((forgotten, _)) = self.queues.add((queue as usize, index))
        {
            self.close(forgotten);
        }
    }

    fn close(&self, queue: usize) {
        self.one_of("close", unsafe { mfq_close(queue as *mut _) }, &[MFQ_OK, MFQ_E_CLOSED]);
    }

    fn end_file(&self, file: usize) {
        self.one_of("file_release", unsafe { mfq_file_release(file as *mut _) }, &[MFQ_OK, MFQ_E_CLOSED]);
    }

    fn end_reader(&self, reader: usize) {
        self.one_of("reader_close", unsafe { mfq_reader_close(reader as *mut _) }, &[MFQ_OK, MFQ_E_CLOSED]);
    }

    fn end_view(&self, token: Token) {
        let mut view = mfq_view_t { token, ..zeroed() };
        self.one_of("view_release", unsafe { mfq_view_release(&mut view) }, &[MFQ_OK, MFQ_E_CLOSED]);
    }

    fn end_claim(&self, (token, directory, number): Claim, commit: bool) {
        let (mut claim, mut at) = (mfq_claim_t { token, ..zeroed() }, zeroed());
        if !commit {
            self.one_of("abort", unsafe { mfq_abort(&mut claim) }, &[MFQ_OK, MFQ_E_CLOSED]);
        } else if self.one_of(
            "commit",
            unsafe { mfq_commit(&mut claim, NUMBER_BYTES, &mut at) },
            &[MFQ_OK, MFQ_E_CLOSED],
        ) {
            self.note(directory, number, at, NUMBER_BYTES);
        }
    }

    fn append(&self, random: &mut Random, (queue, directory): Queue) {
        let numbers = [self.now(), self.now()];
        let records = numbers.map(|number| payload(number, NUMBER_BYTES + random.below(990) as usize));
        let slice = |bytes: &[u8]| mfq_slice_t { ptr: bytes.as_ptr().cast(), len: bytes.len() };
        let batch = records.each_ref().map(|bytes| slice(bytes));
        let parts = [slice(&records[0]), slice(b"rrr")];
        let lens = records.each_ref().map(Vec::len);
        let (queue, mut at) = (queue as *mut _, [zeroed(); 2]);
        let (status, lens) = match random.below(4) {
            0 => (unsafe { mfq_appendv(queue, parts.as_ptr(), 2, &mut at[0]) }, vec![lens[0] + 3]),
            1 => (unsafe { mfq_append_batch(queue, batch.as_ptr(), 2, at.as_mut_ptr()) }, lens.to_vec()),
            _ => (unsafe { mfq_append(queue, batch[0].ptr, lens[0], &mut at[0]) }, vec![lens[0]]),
        };
        if self.one_of("append", status, &[MFQ_OK, MFQ_E_CLOSED, MFQ_E_BUSY]) {
            numbers.into_iter().zip(at).zip(lens).for_each(|((number, at), len)| self.note(directory, number, at, len));
        }
    }

    fn claim(&self, queue: Queue) {
        let (mut claim, number): (mfq_claim_t, _) = (zeroed(), self.now());
        let status = unsafe { mfq_claim(queue.0 as *mut _, NUMBER_BYTES, &mut claim) };
        if self.one_of("claim", status, &[MFQ_OK, MFQ_E_CLOSED, MFQ_E_BUSY]) {
            // Before any other thread can end it.
            unsafe { claim.ptr.copy_from_nonoverlapping(number.to_le_bytes().as_ptr(), NUMBER_BYTES) };
            if let Some(forgotten) = self.claims.add((claim.token, queue.1, number)) {
                self.end_claim(forgotten, true);
            }
        }
    }

    /// The end goes back over some records, or the beginning on over some of the files.
    fn truncate(&self, random: &mut Random, (queue, directory): Queue) {
        let Directory { cuts, first, places, .. } = &self.directories[directory];
        let Some(offset) = places.any(random) else { return };
        let queue = queue as *mut mfq_queue_t;
        if random.below(2) == 0 {
            let began = self.now();
            let status = unsafe { mfq_truncate_after(queue, offset) };
            // Another one may have come first, and a record lie across the offset now.
            if self.one_of("truncate_after", status, &[MFQ_OK, MFQ_E_CLOSED, MFQ_E_INVALID, MFQ_E_BUSY]) {
                cuts.lock().unwrap().push(Cut { offset, began, returned: self.now() });
            }
        } else {
            let offset = offset / 4; // most of the log stays
            let status = unsafe { mfq_truncate_before(queue, offset) };
            if self.one_of("truncate_before", status, &[MFQ_OK, MFQ_E_CLOSED, MFQ_E_INVALID]) {
                first.fetch_max(offset - offset % FILE_BYTES, Ordering::SeqCst);
            }
        }
    }

    fn read(&self, random: &mut Random, (queue, directory): Queue) {
        let queue = queue as *mut mfq_queue_t;
        let place = self.directories[directory].places.any(random).filter(|_| random.below(2) == 0);
        let offset = place.unwrap_or_else(|| random.below(100) * 8 * random.below(1000));
        let nothing_there = [MFQ_OK, MFQ_E_CLOSED, MFQ_E_END, MFQ_E_NOT_FOUND, MFQ_E_CORRUPT];
        match random.below(4) {
            0 => {
                let (mut buf, mut len, mut next) = ([0u8; 500], 0, 0);
                let status =
                    unsafe { mfq_read(queue, offset, buf.as_mut_ptr().cast(), buf.len(), &mut len, &mut next) };
                self.one_of("read", status, &[&nothing_there[..], &[MFQ_E_TOO_LARGE]].concat());
            }
            1 => {
                let mut view: mfq_view_t = zeroed();
                let status = unsafe { mfq_view(queue, place.unwrap_or(offset % 24), &mut view) };
                if self.one_of("view", status, &nothing_there) {
                    // Before any other thread can release it.
                    let bytes = unsafe { std::slice::from_raw_parts(view.ptr, view.len) };
                    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
                    std::hint::black_box(sum);
                    if let Some(forgotten) = self.views.add(view.token) {
                        self.end_view(forgotten);
                    }
                }
            }
            2 => {
                let mut reader = ptr::null_mut();
                let status = unsafe { mfq_reader_open(queue, place.unwrap_or(0), &mut reader) };
                if self.one_of("reader_open", status, &[MFQ_OK, MFQ_E_CLOSED, MFQ_E_NOT_FOUND])
                    && let Some(forgotten) = self.readers.add(reader as usize)
                {
                    self.end_reader(forgotten);
                }
            }
            _ => {
                let mut file = ptr::null_mut();
                let timeout_ms = random.below(20) as i32;
                let status = match random.below(2) {
                    0 => unsafe { mfq_get_last(queue, timeout_ms, &mut file) },
                    _ => unsafe { mfq_find(queue, offset, &mut file) },
                };
                let allowed = [MFQ_OK, MFQ_E_CLOSED, MFQ_E_TIMEOUT, MFQ_E_END, MFQ_E_NOT_FOUND, MFQ_E_BUSY];
                if self.one_of("get_last or find", status, &allowed)
                    && let Some(forgotten) = self.files.add(file as usize)
                {
                    self.end_file(forgotten);
                }
            }
        }
    }

    fn use_reader(&self, random: &mut Random, reader: usize) {
        let reader = reader as *mut mfq_reader_t;
        if random.below(8) == 0 {
            let status = unsafe { mfq_reader_seek(reader, 0) };
            self.one_of("reader_seek", status, &[MFQ_OK, MFQ_E_CLOSED, MFQ_E_BUSY, MFQ_E_NOT_FOUND]);
        } else {
            let mut view: mfq_view_t = zeroed();
            let status = unsafe { mfq_reader_next(reader, random.below(5) as i32, &mut view) };
            let none_there = [MFQ_E_END, MFQ_E_TIMEOUT, MFQ_E_NOT_FOUND, MFQ_E_CORRUPT];
            self.one_of("reader_next", status, &[&[MFQ_OK, MFQ_E_CLOSED, MFQ_E_BUSY], &none_there[..]].concat());
        }
    }

    fn ask(&self, random: &mut Random, queue: usize) {
        let queue = queue as *mut mfq_queue_t;
        let (up_to, timeout_ms) = (random.below(100_000), random.below(20) as i32);
        let waited = [MFQ_OK, MFQ_E_CLOSED, MFQ_E_TIMEOUT, MFQ_E_END];
        let told = [MFQ_OK, MFQ_E_CLOSED];
        match random.below(6) {
            0 => self.one_of("flush", unsafe { mfq_flush(queue, up_to, timeout_ms) }, &waited),
            1 => {
                let which = random.below(2) as i32;
                self.one_of("wait", unsafe { mfq_wait(queue, which, up_to, timeout_ms) }, &waited)
            }
            2 => {
                let mut offsets: mfq_offsets_t = sized();
                let done = self.one_of("offsets", unsafe { mfq_offsets(queue, &mut offsets) }, &told);
                assert!(offsets.flushed <= offsets.committed && offsets.committed <= offsets.wrote);
                done
            }
            3 => self.one_of("flush_start", unsafe { mfq_flush_start(queue, up_to) }, &told),
            4 => {
                // Another thread may close it, so it is not read here.
                let mut fd = -1;
                let made = self.one_of("event_fd", unsafe { mfq_event_fd(queue, &mut fd) }, &told);
                assert_eq!(made, fd >= 0);
                made
            }
            _ => self.one_of("stats", unsafe { mfq_stats(queue, &mut sized()) }, &told),
        };
    }

    /// Numbers that never were handles.
    fn garbage(&self, random: &mut Random) {
        let garbage = (random.below(u64::MAX) << 1) as usize;
        let queue = garbage as *mut mfq_queue_t;
        self.one_of(
            "append to garbage",
            unsafe { mfq_append(queue, ptr::null(), 0, ptr::null_mut()) },
            &[MFQ_E_INVALID],
        );
        self.one_of("close of garbage", unsafe { mfq_close(queue) }, &[MFQ_E_INVALID]);
        let mut view = mfq_view_t { token: [garbage as u64 | 2, 0], ..zeroed() };
        self.one_of("release of garbage", unsafe { mfq_view_release(&mut view) }, &[MFQ_E_INVALID]);
    }

    fn call(&self, random: &mut Random) {
        let Some(queue) = self.queues.any(random) else { return self.open(random) };
        match random.below(100) {
            0..5 => self.open(random),
            5..7 => self.close(queue.0),
            7..40 => self.append(random, queue),
            40..45 => self.claim(queue),
            45..55 => {
                let commit = random.below(3) > 0;
                self.claims.any(random).into_iter().for_each(|claim| self.end_claim(claim, commit));
            }
            55..70 => self.read(random, queue),
            70..80 => self.readers.any(random).into_iter().for_each(|reader| self.use_reader(random, reader)),
            80..82 => self.readers.any(random).into_iter().for_each(|reader| self.end_reader(reader)),
            82..86 => self.views.any(random).into_iter().for_each(|view| self.end_view(view)),
            86..88 => self.files.any(random).into_iter().for_each(|file| self.end_file(file)),
            88..90 => self.files.any(random).into_iter().for_each(|file| {
                let told = unsafe { mfq_file_info(file as *mut _, &mut sized()) };
                self.one_of("file_info", told, &[MFQ_OK, MFQ_E_CLOSED]);
                let mut memory = MaybeUninit::uninit();
                let told = unsafe { mfq_file_memory(file as *mut _, memory.as_mut_ptr()) };
                self.one_of("file_memory", told, &[MFQ_OK, MFQ_E_CLOSED]);
            }),
            90..97 => self.ask(random, queue.0),
            97 => self.truncate(random, queue),
            _ => self.garbage(random),
        }
    }
}

#[test]
fn random_calls_of_a_thousand_threads_are_answered_and_lose_nothing() {
    let _watchdog = Watchdog::new("random calls", 300);
    let threads = env::var("MFQ_RANDOM_THREADS").map_or(1000, |threads| threads.parse::<u64>().unwrap());
    let seed =
        env::var("MFQ_RANDOM_SEED").map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let dirs = [scratch(), scratch(), scratch(), scratch()];
    let directory = |index: usize, format, mode| Directory {
        path: CString::new(dirs[index].path().as_os_str().as_bytes()).unwrap(),
        format,
        mode,
        appended: Mutex::default(),
        cuts: Mutex::default(),
        first: AtomicU64::new(0),
        places: Pool::new(),
    };
    let world = World {
        directories: [
            directory(0, MFQ_RECORD, MFQ_MMAP),
            directory(1, MFQ_RECORD, MFQ_STAGED),
            directory(2, MFQ_RAW, MFQ_MMAP),
            directory(3, MFQ_RAW, MFQ_STAGED),
        ],
        clock: AtomicU64::new(1),
        queues: Pool::new(),
        files: Pool::new(),
        readers: Pool::new(),
        views: Pool::new(),
        claims: Pool::new(),
        answers: Mutex::default(),
    };
    for wave in 0..threads.div_ceil(AT_ONCE) {
        thread::scope(|scope| {
            for thread in 0..AT_ONCE {
                let (world, mut random) = (&world, Random(seed.wrapping_add(wave * AT_ONCE + thread) | 1));
                scope.spawn(move || (0..CALLS).for_each(|_| world.call(&mut random)));
            }
        });
    }
    // Whatever is still there, ended; and once more, to be told so.
    for _ in 0..2 {
        world.claims.0.lock().unwrap().iter().for_each(|&claim| world.end_claim(claim, true));
        world.queues.0.lock().unwrap().iter().for_each(|&(queue, _)| world.close(queue));
        world.files.0.lock().unwrap().iter().for_each(|&file| world.end_file(file));
        world.readers.0.lock().unwrap().iter().for_each(|&reader| world.end_reader(reader));
        world.views.0.lock().unwrap().iter().for_each(|&view| world.end_view(view));
    }
    for (name, count) in world.answers.lock().unwrap().iter() {
        println!("{name:?}: {count}");
    }
    for (directory, dir) in world.directories.iter().zip(&dirs) {
        directory.check(dir.path());
    }
}
