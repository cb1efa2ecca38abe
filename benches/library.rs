//! libmfq as a host sees it: the release libmfq.so, opened with dlopen, called through C function pointers. (Called
//! from the rlib, an append could be inlined into the loop that measures it.)

use mfq::capi::{
    MFQ_COMMITTED, MFQ_RAW, MFQ_RECORD, MFQ_STAGED, mfq_offsets_t, mfq_options_t, mfq_queue_t, mfq_span_t, mfq_stats_t,
};
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Record,
    Raw,
}

impl Format {
    /// Distance from one record of `len` bytes to the next.
    pub fn step(self, len: usize) -> u64 {
        match self {
            Format::Record => (len as u64 + 16).next_multiple_of(8),
            Format::Raw => len as u64,
        }
    }
}

struct Functions {
    open: unsafe extern "C" fn(*const c_char, *const mfq_options_t, *mut *mut mfq_queue_t) -> i32,
    close: unsafe extern "C" fn(*mut mfq_queue_t) -> i32,
    append: unsafe extern "C" fn(*mut mfq_queue_t, *const c_void, usize, *mut mfq_span_t) -> i32,
    flush: unsafe extern "C" fn(*mut mfq_queue_t, u64, i32) -> i32,
    offsets: unsafe extern "C" fn(*mut mfq_queue_t, *mut mfq_offsets_t) -> i32,
    wait: unsafe extern "C" fn(*mut mfq_queue_t, i32, u64, i32) -> i32,
    stats: unsafe extern "C" fn(*mut mfq_queue_t, *mut mfq_stats_t) -> i32,
    last_error: unsafe extern "C" fn(*mut c_char, usize) -> usize,
    version: unsafe extern "C" fn() -> *const c_char,
}

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let path = library_path();
    let name = CString::new(path.as_os_str().as_bytes()).expect("a path without NUL");
    // SAFETY: a NUL-terminated path; the library's load runs nothing of ours.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null(), "{} cannot be opened", path.display());
    let symbol = |name: &CStr| {
        // SAFETY: a handle of dlopen and a NUL-terminated name.
        let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
        assert!(!found.is_null(), "{} has no {name:?}", path.display());
        found
    };
    // SAFETY: the types are those of mfq.h, from which this build of the library was made.
    unsafe {
        Functions {
            open: function(symbol(c"mfq_open")),
            close: function(symbol(c"mfq_close")),
            append: function(symbol(c"mfq_append")),
            flush: function(symbol(c"mfq_flush")),
            offsets: function(symbol(c"mfq_offsets")),
            wait: function(symbol(c"mfq_wait")),
            stats: function(symbol(c"mfq_stats")),
            last_error: function(symbol(c"mfq_last_error")),
            version: function(symbol(c"mfq_version")),
        }
    }
});

/// # Safety
/// `F` is a function pointer type, and that of the function at `symbol`, which is not NULL.
unsafe fn function<F: Copy>(symbol: *mut c_void) -> F {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the caller's promise; both have one size.
    unsafe { std::mem::transmute_copy(&symbol) }
}

/// Where cargo put the one of this build: beside the benchmark itself.
pub fn library_path() -> PathBuf {
    std::env::current_exe().expect("a program knows where it is").with_file_name("libmfq.so")
}

pub fn version() -> String {
    // SAFETY: the library gives a static string.
    unsafe { CStr::from_ptr((FUNCTIONS.version)()) }.to_string_lossy().into_owned()
}

fn check(status: i32, call: &str) {
    if status < 0 {
        let mut text = [0u8; 512];
        // SAFETY: the buffer has the length that is said.
        unsafe { (FUNCTIONS.last_error)(text.as_mut_ptr().cast(), text.len()) };
        let text = CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy();
        panic!("{call} answers {status}: {text}");
    }
}

/// An open queue in a directory of its own, closed and removed with its end.
pub struct Queue {
    handle: *mut mfq_queue_t,
    directory: PathBuf,
    file_bytes: u64,
    /// Files below this offset have given their blocks back.
    emptied_to: u64,
}

// SAFETY: the handle is a number, and every function can be called from any thread.
unsafe impl Sync for Queue {}

impl Queue {
    pub fn open(directory: &Path, format: Format, file_bytes: u64) -> Queue {
        Queue::open_with(directory, format, file_bytes, |_| {})
    }

    /// In STAGED, committed by `commit` only.
    pub fn open_staged(directory: &Path, format: Format, file_bytes: u64) -> Queue {
        Queue::open_with(directory, format, file_bytes, |options| {
            (options.mode, options.commit_interval_ms) = (MFQ_STAGED, i32::MAX);
        })
    }

    /// With one of MFQ_FLUSH_...
    pub fn open_flushing(directory: &Path, format: Format, file_bytes: u64, flush_policy: u32) -> Queue {
        Queue::open_with(directory, format, file_bytes, |options| {
            options.flush_policy = flush_policy;
            options.flush_least_pages = u32::MAX; // under MFQ_FLUSH_LEAST_PAGES nothing is flushed by itself
        })
    }

    pub fn open_with(
        directory: &Path,
        format: Format,
        file_bytes: u64,
        choose: impl FnOnce(&mut mfq_options_t),
    ) -> Queue {
        let path = CString::new(directory.as_os_str().as_bytes()).expect("a path without NUL");
        // SAFETY: all zeros is a valid mfq_options_t: the default.
        let mut options: mfq_options_t = unsafe { std::mem::zeroed() };
        options.struct_size = size_of::<mfq_options_t>();
        options.file_size = file_bytes;
        options.format = if format == Format::Raw { MFQ_RAW } else { MFQ_RECORD };
        choose(&mut options);
        let mut handle = std::ptr::null_mut();
        // SAFETY: the path ends with NUL, the structures are ours.
        check(unsafe { (FUNCTIONS.open)(path.as_ptr(), &options, &mut handle) }, "mfq_open");
        Queue { handle, directory: directory.to_owned(), file_bytes, emptied_to: 0 }
    }

    /// Closes it and leaves its directory.
    pub fn close(self) {
        // SAFETY: takes a number.
        check(unsafe { (FUNCTIONS.close)(self.handle) }, "mfq_close");
        let mut queue = std::mem::ManuallyDrop::new(self);
        drop(std::mem::take(&mut queue.directory));
    }

    #[inline(always)]
    pub fn append(&self, data: &[u8]) -> mfq_span_t {
        let mut span = mfq_span_t { offset: 0, end: 0 };
        // SAFETY: `data` has the length that is said, `span` is ours.
        let status = unsafe { (FUNCTIONS.append)(self.handle, data.as_ptr().cast(), data.len(), &mut span) };
        if status < 0 {
            check(status, "mfq_append");
        }
        span
    }

    /// What the loops call: the function pointer is fetched once, as a linked host does.
    #[inline(always)]
    pub fn appender(&self) -> impl Fn(&[u8]) -> mfq_span_t {
        let (append, handle) = (FUNCTIONS.append, self.handle);
        move |data| {
            let mut span = mfq_span_t { offset: 0, end: 0 };
            // SAFETY: `data` has the length that is said, `span` is ours; the handle is a number, valid or not.
            let status = unsafe { append(handle, data.as_ptr().cast(), data.len(), &mut span) };
            if status < 0 {
                check(status, "mfq_append");
            }
            span
        }
    }

    #[inline(always)]
    pub fn flush(&self, up_to: u64) {
        // SAFETY: takes numbers.
        let status = unsafe { (FUNCTIONS.flush)(self.handle, up_to, -1) };
        if status < 0 {
            check(status, "mfq_flush");
        }
    }

    pub fn reserved(&self) -> u64 {
        // SAFETY: all zeros is a valid mfq_offsets_t, and it is ours.
        unsafe {
            let mut offsets: mfq_offsets_t = std::mem::zeroed();
            offsets.struct_size = size_of::<mfq_offsets_t>();
            check((FUNCTIONS.offsets)(self.handle, &mut offsets), "mfq_offsets");
            offsets.reserved
        }
    }

    /// Returns when everything that was appended is committed.
    pub fn commit(&self) {
        const FOR_EVER: i32 = -1;
        // SAFETY: takes numbers.
        check(unsafe { (FUNCTIONS.wait)(self.handle, MFQ_COMMITTED, self.reserved(), FOR_EVER) }, "mfq_wait");
    }

    pub fn stats(&self) -> mfq_stats_t {
        // SAFETY: all zeros is a valid mfq_stats_t, and it is ours.
        unsafe {
            let mut stats: mfq_stats_t = std::mem::zeroed();
            stats.struct_size = size_of::<mfq_stats_t>();
            check((FUNCTIONS.stats)(self.handle, &mut stats), "mfq_stats");
            stats
        }
    }

    /// Waits until the library has readied `bytes` beyond the end of the queue, and is done with readying more. Returns
    /// how far ahead it is.
    pub fn wait_ready(&self, bytes: u64) -> u64 {
        const QUIET: Duration = Duration::from_micros(500);
        let began = Instant::now();
        let (mut ready_to, mut since) = (0, began);
        loop {
            let now_to = self.stats().prefaulted_to;
            let ahead = now_to.saturating_sub(self.reserved());
            if now_to != ready_to {
                (ready_to, since) = (now_to, Instant::now());
            } else if ahead >= bytes && since.elapsed() > QUIET {
                return ahead;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "only {ahead} bytes are readied after 30 s");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Has the files before the last one give their blocks and pages back, so that disk and page cache stay bounded:
    /// what a removal would do, were there one.
    pub fn empty_old_files(&mut self) {
        self.commit(); // the library looks no further back than to there
        let last = self.reserved() / self.file_bytes * self.file_bytes;
        self.empty_files_below(last);
    }

    fn empty_files_below(&mut self, offset: u64) {
        while self.emptied_to < offset {
            let file = self.directory.join(format!("{:020}", self.emptied_to));
            crate::machine::empty_file(&file, self.file_bytes);
            self.emptied_to += self.file_bytes;
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // Nobody wants these bytes on the disk, and a close would put them there.
        self.commit();
        self.empty_files_below(self.reserved().next_multiple_of(self.file_bytes));
        // SAFETY: takes a number.
        check(unsafe { (FUNCTIONS.close)(self.handle) }, "mfq_close");
        std::fs::remove_dir_all(&self.directory).expect("a directory of our own");
    }
}
