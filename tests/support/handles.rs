//! The C interface as a Rust test calls it: handles that may be closed at any moment, a status instead of a value.

use mfq::capi::*;
use std::ffi::CString;
use std::mem::{MaybeUninit, size_of};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// A failure: one of `MFQ_E_...`.
pub type Status = i32;

fn done(status: Status) -> Result<(), Status> {
    if status == MFQ_OK { Ok(()) } else { Err(status) }
}

/// The value that a function wrote, if it succeeded.
fn output<T>(call: impl FnOnce(*mut T) -> Status) -> Result<T, Status> {
    let mut value = MaybeUninit::uninit();
    done(call(value.as_mut_ptr()))?;
    // SAFETY: outputs are written on success.
    Ok(unsafe { value.assume_init() })
}

#[derive(Clone, Copy)]
pub struct Queue(*mut mfq_queue_t);
#[derive(Clone, Copy)]
pub struct Reader(*mut mfq_reader_t);
pub struct View(mfq_view_t);
pub struct Claim(mfq_claim_t);

// SAFETY: handles are numbers that any thread may use at any time, says the header.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}
// SAFETY: as above.
unsafe impl Send for Reader {}
// SAFETY: as above.
unsafe impl Sync for Reader {}
// SAFETY: a claim may be handed to another thread, a view released there.
unsafe impl Send for Claim {}
// SAFETY: as above.
unsafe impl Send for View {}

pub struct How {
    pub format: u32,
    pub filler: u32,
    pub file_size: u64,
    pub mode: u32,
}

pub const RECORD: How = How { format: MFQ_RECORD, filler: MFQ_FILLER_ZERO, file_size: 4096, mode: MFQ_MMAP };
pub const RAW: How = How { format: MFQ_RAW, ..RECORD };

// SAFETY, for all of it: every pointer leads to a value that lives until the call returns, and handles need none.
impl Queue {
    pub fn open(path: &Path, how: &How) -> Result<Queue, Status> {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        output(|queue| unsafe {
            let mut options = MaybeUninit::<mfq_options_t>::uninit();
            mfq_options_init(options.as_mut_ptr(), size_of::<mfq_options_t>());
            let options = options.assume_init_mut();
            (options.format, options.filler, options.file_size) = (how.format, how.filler, how.file_size);
            options.mode = how.mode;
            options.append_timeout_ms = 30_000;
            mfq_open(path.as_ptr(), options, queue)
        })
        .map(Queue)
    }

    pub fn close(self) -> Result<(), Status> {
        done(unsafe { mfq_close(self.0) })
    }

    pub fn append(self, data: &[u8]) -> Result<mfq_span_t, Status> {
        output(|at| unsafe { mfq_append(self.0, data.as_ptr().cast(), data.len(), at) })
    }

    pub fn claim(self, len: usize) -> Result<Claim, Status> {
        output(|claim| unsafe { mfq_claim(self.0, len, claim) }).map(Claim)
    }

    /// The record, and where to read next.
    pub fn read(self, offset: u64, cap: usize) -> Result<(Vec<u8>, u64), Status> {
        let (mut buf, mut len) = (vec![0u8; cap], 0);
        let next = output(|next| unsafe { mfq_read(self.0, offset, buf.as_mut_ptr().cast(), cap, &mut len, next) })?;
        buf.truncate(len);
        Ok((buf, next))
    }

    pub fn view(self, offset: u64) -> Result<View, Status> {
        output(|view| unsafe { mfq_view(self.0, offset, view) }).map(View)
    }

    pub fn reader(self, offset: u64) -> Result<Reader, Status> {
        output(|reader| unsafe { mfq_reader_open(self.0, offset, reader) }).map(Reader)
    }

    pub fn wait(self, which: i32, offset: u64, timeout_ms: i32) -> Result<(), Status> {
        done(unsafe { mfq_wait(self.0, which, offset, timeout_ms) })
    }

    pub fn flush(self, up_to: u64, timeout_ms: i32) -> Result<(), Status> {
        done(unsafe { mfq_flush(self.0, up_to, timeout_ms) })
    }

    pub fn truncate_after(self, offset: u64) -> Result<(), Status> {
        done(unsafe { mfq_truncate_after(self.0, offset) })
    }

    pub fn truncate_before(self, offset: u64) -> Result<(), Status> {
        done(unsafe { mfq_truncate_before(self.0, offset) })
    }

    pub fn get_last(self, timeout_ms: i32) -> Result<(), Status> {
        let file = output(|file| unsafe { mfq_get_last(self.0, timeout_ms, file) })?;
        done(unsafe { mfq_file_release(file) })
    }

    pub fn offsets(self) -> Result<mfq_offsets_t, Status> {
        let mut offsets = mfq_offsets_t {
            struct_size: size_of::<mfq_offsets_t>(),
            min: 0,
            reserved: 0,
            wrote: 0,
            committed: 0,
            flushed: 0,
        };
        done(unsafe { mfq_offsets(self.0, &mut offsets) }).map(|()| offsets)
    }
}

impl Claim {
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// Fills the memory, which must not have been committed or aborted yet; whatever became of the queue.
    pub fn fill(&mut self, data: &[u8]) {
        assert_eq!(data.len(), self.0.len);
        unsafe { self.0.ptr.copy_from_nonoverlapping(data.as_ptr(), data.len()) }
    }

    pub fn commit(&mut self, len: usize) -> Result<(), Status> {
        done(unsafe { mfq_commit(&mut self.0, len, ptr::null_mut()) })
    }

    pub fn abort(&mut self) -> Result<(), Status> {
        done(unsafe { mfq_abort(&mut self.0) })
    }
}

impl View {
    /// Must not be released yet; one of a reader lives until the reader's next call.
    pub fn bytes(&self) -> &[u8] {
        unsafe { std::slice::from_raw_parts(self.0.ptr, self.0.len) }
    }

    pub fn span(&self) -> (u64, u64) {
        (self.0.offset, self.0.end)
    }

    pub fn release(mut self) -> Result<(), Status> {
        done(unsafe { mfq_view_release(&mut self.0) })
    }
}

impl Reader {
    pub fn next(self, timeout_ms: i32) -> Result<View, Status> {
        output(|view| unsafe { mfq_reader_next(self.0, timeout_ms, view) }).map(View)
    }

    pub fn close(self) -> Result<(), Status> {
        done(unsafe { mfq_reader_close(self.0) })
    }
}
