//! Where the benchmark runs.

use crate::library;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The temporary directory for all files; removed at the end.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Scratch {
        let parent = std::env::var_os("MFQ_BENCH_DIR").map_or(env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
        let made = tempfile::Builder::new().prefix("mfq-bench-").tempdir_in(&parent);
        Scratch(made.unwrap_or_else(|error| panic!("{} cannot be used: {error}", parent.display())))
    }

    /// A path in it that is not used yet.
    pub fn fresh(&self, name: &str) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        self.0.path().join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Gives a file's blocks and pages back and leaves its length as it is: its bytes are zeros, and it can still be
/// mapped.
pub fn empty_file(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: takes integers only.
    let emptied = unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, bytes as libc::off_t) };
    assert_eq!(emptied, 0, "{}: punching a hole: {}", path.display(), std::io::Error::last_os_error());
}

pub fn introduce(scratch: &Scratch) {
    let directory = scratch.0.path();
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".into());
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (file_system, device) = mount_of(directory).unwrap_or_else(|| ("unknown".into(), "unknown".into()));
    println!("libmfq {} beside this machine's own limits", library::version());
    println!("  machine   {cpu}, {cpus} CPUs, Linux {}, load {}", kernel.trim(), load());
    println!("  files     {file_system} on {device}, 64 MiB each unless said otherwise");
    println!("  CRC32C    crc-fast, {}", crc_fast::get_calculator_target(crc_fast::CrcAlgorithm::Crc32Iscsi));
    let bytes = fs::metadata(library::library_path()).map_or(0, |file| file.len());
    println!("  library   libmfq.so by dlopen, {} KiB with its symbols", bytes >> 10);
}

/// Processes that want a CPU, on average over the last minute.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// What follows `name` in a file of lines such as `name : value`.
pub fn field(path: impl AsRef<Path>, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// A figure of /proc/meminfo, in MiB.
pub fn memory_mib(name: &str) -> u64 {
    let kib = field("/proc/meminfo", name).and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}

/// File system type and device.
fn mount_of(path: &Path) -> Option<(String, String)> {
    let device = fs::metadata(path).ok()?.dev();
    let number = format!("{}:{}", libc::major(device), libc::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(&number))?;
    let mut behind = line.split_once(" - ")?.1.split(' ');
    Some((behind.next()?.to_owned(), behind.next()?.to_owned()))
}
