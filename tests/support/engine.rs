//! What the tests of the engine share: queues over a system that fails on demand, directories looked at from outside.
#![allow(dead_code)] // each test uses a part of it

use mfq::os::{Call, Fault, FaultyOs, native};
use mfq::{Deadline, Error, Filler, Format, OpenQueue, Options, Queue, ReadOutcome, Result, Span, Status};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::time::{Duration, Instant};
use std::{env, fs, io, process, thread};
use tempfile::TempDir;

/// For what has to happen, on a machine however busy. Nothing that works takes a hundredth of it.
pub const GENEROUS: Duration = Duration::from_secs(30);
/// The same, for calls that take milliseconds.
pub const GENEROUS_MS: i32 = 30_000;

/// Ends the process, and says what hung, unless it is dropped in time: a hung thread cannot be failed, only ended with
/// everybody.
pub struct Watchdog {
    _end: Sender<()>,
}

impl Watchdog {
    pub fn new(what: impl Into<String>, timeout_s: u64) -> Watchdog {
        let (end, ended) = channel::<()>();
        let what = what.into();
        thread::spawn(move || {
            if ended.recv_timeout(Duration::from_secs(timeout_s)) == Err(RecvTimeoutError::Timeout) {
                // Not `eprintln`: what a test prints is kept until it ends, and this one does not.
                let _ = writeln!(io::stderr(), "{what}: hung for {timeout_s} s");
                process::abort();
            }
        });
        Watchdog { _end: end }
    }
}

/// The process has one allocation thread and a few counters of its own, so tests that hang the one or count by the
/// others run one after the other. A test that hangs itself is ended.
pub struct Alone {
    _turn: MutexGuard<'static, ()>,
    _watchdog: Watchdog,
}

pub fn alone() -> Alone {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()); // another test failed: its own affair
    let test = thread::current().name().unwrap_or("a test").to_owned();
    Alone { _turn: turn, _watchdog: Watchdog::new(test, 3 * GENEROUS.as_secs()) }
}

/// Says where a test was when it failed.
pub struct OnPanic(pub String);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {}", self.0);
        }
    }
}

/// Waits for a condition that another thread brings about.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < GENEROUS, "this never came: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The smallest file there can be: everything rolls.
pub fn page() -> u64 {
    native().page_size() as u64
}

pub fn record() -> Options {
    Options { file_size: page(), ..Options::default() }
}

pub fn raw(filler: Filler) -> Options {
    Options { format: Format::Raw, filler, ..record() }
}

/// A payload that fills a whole RECORD file of one page.
pub fn filling() -> Vec<u8> {
    vec![b'f'; page() as usize - 16]
}

pub fn scratch() -> TempDir {
    tempfile::tempdir().expect("a directory to work in")
}

/// For what syncs a thousand times and is not about the disk; and the simulated disk goes by inode numbers, which a
/// tmpfs does not use again.
pub fn scratch_in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a tmpfs to work in")
}

/// A queue over a system of its own. Dropping it lets hanging calls go first: a close waits for them.
pub struct Opened {
    queue: OpenQueue,
    pub os: Arc<FaultyOs>,
    pub path: PathBuf,
}

impl Deref for Opened {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.queue
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.os.heal();
    }
}

impl Opened {
    pub fn close(self) -> Result<()> {
        self.begin_close();
        self.finish_close()
    }

    /// The path of the data file at `start`.
    pub fn file(&self, start: u64) -> PathBuf {
        self.path.join(format!("{start:020}"))
    }
}

pub fn try_open(path: &Path, options: &Options) -> Result<Opened> {
    try_open_on(FaultyOs::new(native()), path, options)
}

pub fn try_open_on(os: Arc<FaultyOs>, path: &Path, options: &Options) -> Result<Opened> {
    let queue = Queue::open(os.clone(), path, options)?;
    Ok(Opened { queue, os, path: path.into() })
}

pub fn open(path: &Path, options: &Options) -> Opened {
    try_open(path, options).expect("a queue")
}

/// As after a power cut: whatever the page cache holds, the kernel was started anew.
pub fn open_after_reboot(path: &Path, options: &Options) -> Opened {
    let os = FaultyOs::new(native());
    os.set_boot_id(*b"after the reboot");
    try_open_on(os, path, options).expect("a queue")
}

/// The error of an open that is to be refused.
pub fn refused(path: &Path, options: &Options) -> Error {
    match try_open(path, options) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

/// A queue whose first creation hangs, and the worker with it.
pub fn hanging_queue(dir: &TempDir) -> Opened {
    let queue = open(dir.path(), &record());
    queue.os.fail_nth(Call::Allocate, 1, Fault::Hang);
    assert_eq!(queue.get_last(within(0)).err().unwrap().status(), Status::Timeout);
    queue.os.wait_hanging(1);
    queue
}

pub fn within(ms: i32) -> Deadline {
    Deadline::after_ms(ms)
}

/// One record copied out, and where the next one may begin.
pub fn read(queue: &Queue, offset: u64) -> Result<(Vec<u8>, u64)> {
    let mut bytes = vec![0; 1 << 20];
    // SAFETY: the buffer has the length that is said.
    match unsafe { queue.read(offset, bytes.as_mut_ptr(), bytes.len())? } {
        ReadOutcome::Copied { len, next } => {
            bytes.truncate(len);
            Ok((bytes, next))
        }
        ReadOutcome::TooSmall { len } => panic!("a record of {len} bytes"),
    }
}

/// All records from the first one on.
pub fn read_all(queue: &Queue) -> Vec<Vec<u8>> {
    let (mut records, mut at) = (Vec::new(), queue.offsets().unwrap().min);
    while let Ok((bytes, next)) = read(queue, at) {
        records.push(bytes);
        at = next;
    }
    records
}

/// The same, unless something is damaged.
pub fn records_of(queue: &Queue) -> Vec<Vec<u8>> {
    let (mut records, mut at) = (Vec::new(), queue.offsets().unwrap().min);
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

/// Appends a record per file until `files` files are begun.
pub fn fill_files(queue: &Queue, files: usize) -> Vec<Span> {
    (0..files).map(|_| queue.append(&filling()).expect("an append")).collect()
}

/// The data files of a directory, by their names.
pub fn file_starts(path: &Path) -> Vec<u64> {
    let mut starts: Vec<u64> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().to_str().unwrap().parse().expect("a data file"))
        .collect();
    starts.sort_unstable();
    starts
}

/// Names, sizes, modes, times and bytes of everything below a directory.
pub type Snapshot = BTreeMap<PathBuf, (u64, u32, (i64, i64), Vec<u8>)>;

pub fn snapshot(path: &Path) -> Snapshot {
    let mut all = Snapshot::new();
    let mut todo = vec![path.to_path_buf()];
    while let Some(path) = todo.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        let mut bytes = Vec::new();
        if about.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if about.is_file() {
            bytes = fs::read(&path).unwrap();
        }
        all.insert(path, (about.len(), about.mode(), (about.mtime(), about.mtime_nsec()), bytes));
    }
    all
}

/// What a kill at this moment leaves: the page cache, and so the files as they read now, without their owner's lock.
/// (The mount is the same one, so for the library it is the same page cache.)
pub fn as_killed_now(path: &Path) -> TempDir {
    let began = Instant::now();
    loop {
        let (image, before) = (scratch(), names(path));
        // The allocation thread may be at work: then it is no moment, and the next one is tried.
        if copy(path, image.path()).is_ok() && names(path) == before {
            return image;
        }
        assert!(began.elapsed() < GENEROUS, "{} never comes to rest", path.display());
    }
}

fn names(path: &Path) -> Vec<std::ffi::OsString> {
    let list = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let mut names = [list(path), list(&path.join(".mfq"))].concat();
    names.sort_unstable();
    names
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&to)?;
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

/// Every message of the library in this process, for tests to look for those about their own directory.
pub fn logged(about: &Path) -> Vec<String> {
    let about = about.to_str().unwrap();
    LINES.lock().unwrap().iter().filter(|line| line.contains(about)).cloned().collect()
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub fn collect_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let sink = |_, message: &str| LINES.lock().unwrap().push(message.to_owned());
        mfq::log::set_sink(Some(Box::new(sink)), mfq::log::Level::Debug);
    });
}

/// A process that runs one ignored test of this binary with a directory to work in, until it says that it is ready to
/// be killed. What it says comes back.
pub struct Victim {
    process: Child,
    pub said: String,
}

const DIRECTORY: &str = "MFQ_TEST_DIRECTORY";
const READY: &str = "ready";

/// Runs one ignored test of this binary with a directory to work in: for what it does to its whole process.
pub fn in_a_process_of_its_own(test: &str, path: &Path) {
    let output = this_test_binary(test, path).output().expect("this test binary again");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test}: {}\n{said}{errors}", output.status);
    assert!(said.contains("1 passed"), "{said}");
}

fn this_test_binary(test: &str, path: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(DIRECTORY, path);
    command
}

pub fn victim(test: &str, path: &Path) -> Victim {
    let says = scratch();
    let ready = says.path().join(READY);
    let process = this_test_binary(test, path).env(READY, &ready).spawn().expect("this test binary again");
    let mut victim = Victim { process, said: String::new() };
    eventually("the victim is ready", || {
        assert_eq!(victim.process.try_wait().unwrap(), None, "{test} ended by itself");
        ready.exists()
    });
    victim.said = fs::read_to_string(ready).unwrap();
    victim
}

impl Victim {
    pub fn kill(mut self) -> String {
        self.process.kill().unwrap(); // SIGKILL
        self.process.wait().unwrap();
        std::mem::take(&mut self.said)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In a victim: the directory it was given, none if a person runs it.
pub fn victims_directory() -> Option<PathBuf> {
    env::var_os(DIRECTORY).map(PathBuf::from)
}

/// In a victim: says something and waits to be killed.
pub fn wait_to_be_killed(says: &str) -> ! {
    let ready = PathBuf::from(env::var_os(READY).unwrap());
    let aside = ready.with_extension("aside");
    fs::write(&aside, says).unwrap();
    fs::rename(aside, ready).unwrap();
    loop {
        thread::park();
    }
}

/// Whether the parts of a file's mapping have this flag (`VmFlags` in proc_pid_smaps(5)), neighbours that agree as one:
/// "hg" asks for huge pages, "rr" for no reading ahead.
pub fn mapped_with(flag: &str, file: &Path) -> Vec<bool> {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let parts = smaps.split(file.to_str().unwrap()).skip(1);
    let flags = |part: &str| part.lines().find_map(|line| line.strip_prefix("VmFlags:")).unwrap().to_owned();
    let mut has: Vec<_> = parts.map(|part| flags(part).split(' ').any(|other| other == flag)).collect();
    has.dedup();
    has
}
