//! Arbitrary calls in arbitrary order, on handles that are open, closed, or never were: each gets an answer that the
//! manual names, a failure says why and writes no output, and what was appended can be read.
//!
//! Pointers lead to memory of the right length or are NULL or misaligned: nothing else can be told apart by anybody.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mfq::capi::*;
use std::collections::{HashMap, HashSet};
use std::ffi::{CString, c_void};
use std::mem::{size_of, zeroed};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io, ptr};
use tempfile::TempDir;

#[derive(Arbitrary, Debug)]
enum Call {
    Open { directory: u8, options: Option<Options>, out: Out },
    Close { queue: u8 },
    GetLast { queue: u8, out: Out },
    Find { queue: u8, offset: Offset, out: Out },
    FileInfo { file: u8, struct_size: Size, out: Out },
    FileMemory { file: u8, out: Out },
    FileRelease { file: u8 },
    Append { queue: u8, data: Data, out: Out },
    AppendParts { queue: u8, parts: Vec<Data>, out: Out },
    AppendBatch { queue: u8, records: Vec<Data>, out: Out },
    Claim { queue: u8, len: Length, out: Out },
    Commit { claim: u8, len: Length, out: Out },
    Abort { claim: u8, out: Out },
    Read { queue: u8, offset: Offset, cap: u16, out: Out },
    View { queue: u8, offset: Offset, out: Out },
    ViewRelease { view: u8, out: Out },
    ReaderOpen { queue: u8, offset: Offset, out: Out },
    ReaderNext { reader: u8, out: Out },
    ReaderSeek { reader: u8, offset: Offset },
    ReaderClose { reader: u8 },
    Flush { queue: u8, up_to: Offset },
    Wait { queue: u8, which: i32, offset: Offset },
    Offsets { queue: u8, struct_size: Size, out: Out },
    Stats { queue: u8, struct_size: Size, out: Out },
    FlushStart { queue: u8, up_to: Offset },
    EventFd { queue: u8, out: Out },
    AwaitFlush { queue: u8 },
    TruncateBefore { queue: u8, offset: Offset },
    TruncateAfter { queue: u8, offset: Offset },
    Recovery { queue: u8, struct_size: Size, out: Out },
    WalkRocketmq { data: Data },
    InstallGuard,
    Spoil { directory: u8, how: Spoil },
    LastError { cap: u8, is_null: bool },
    Strerror { status: i32 },
    ReadBack { queue: u8 },
}

/// What others do to a directory: found at the next open, or under the guard at once.
#[derive(Arbitrary, Debug)]
enum Spoil {
    Replace { by: u8 }, // as a kill would leave that one
    Disown,             // only data files, as of RocketMQ
    ForgetTail,         // as after a reboot
    Flip { file: u8, at: u16, bits: u8 },
    Shorten { file: u8, pages: u8 }, // while it is mapped, too
}

#[derive(Arbitrary, Debug)]
struct Options {
    struct_size: Size,
    pages: u8,
    file_size: Option<u64>,
    start_offset: u64,
    format: u8,
    filler: u8,
    mode: u8,
    flush_policy: u8,
    others: [u8; 5],
    wait: bool,
    permissions: Option<u16>,
    flags: [u8; 2],
    walk: Walker,
    /// Behind what the library knows.
    excess: u8,
}

#[derive(Arbitrary, Debug)]
enum Walker {
    None,
    Rocketmq,
    /// Answers the same each time.
    Answers(i16),
}

#[derive(Arbitrary, Debug)]
enum Out {
    Good,
    Better, // most should be
    Best,
    Null,
    Misaligned,
}

#[derive(Arbitrary, Debug)]
enum Size {
    Right,
    Longer,
    Any(u16),
}

#[derive(Arbitrary, Debug)]
enum Data {
    Some { len: u16, fill: u8 },
    Null { len: Length },
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Length {
    Small(u16),
    Any(usize),
}

#[derive(Arbitrary, Debug)]
enum Offset {
    OfRecord(u8),
    Small(u16),
    Any(u64),
    All,
}

impl Length {
    fn get(self) -> usize {
        match self {
            Length::Small(len) => usize::from(len),
            Length::Any(len) => len,
        }
    }
}

impl Size {
    fn of<T>(&self) -> usize {
        match *self {
            Size::Right => size_of::<T>(),
            Size::Longer => size_of::<T>() + 8,
            Size::Any(size) => usize::from(size),
        }
    }
}

/// Room for any output and any options, and for one that is not aligned.
const ROOM: usize = 1 << 16;

#[repr(C, align(16))]
struct Room([u8; ROOM + 16]);

const UNTOUCHED: u8 = 0xEE;

struct Fuzz {
    room: Box<Room>,
    directories: TempDir,
    queues: Vec<*mut mfq_queue_t>,
    files: Vec<*mut mfq_file_t>,
    readers: Vec<*mut mfq_reader_t>,
    views: Vec<mfq_view_t>,
    claims: Vec<mfq_claim_t>,
    /// Of all kinds.
    open: HashSet<usize>,
    directory_of: HashMap<usize, u8>,
    appended: HashMap<u8, Vec<(u64, Vec<u8>)>>,
    formats: HashMap<u8, u32>,
    policies: HashMap<usize, u32>,
    event_fds: HashMap<usize, i32>,
    /// A file was made shorter: whoever has it mapped may meet a page that is gone.
    is_shortened: bool,
}

const DIRECTORIES: u8 = 3;
/// For what has to come.
const GENEROUS_MS: i32 = 30_000;

/// One of those there were, or NULL, or a number that never was one.
fn choose<T>(of: &[*mut T], by: u8) -> *mut T {
    match by {
        0 => ptr::null_mut(),
        255 => ptr::without_provenance_mut(0xFFFF_0000_1234_5670),
        _ => of.get(usize::from(by) % of.len().max(1)).copied().unwrap_or(ptr::null_mut()),
    }
}

impl Fuzz {
    fn out<T>(&mut self, out: &Out) -> *mut T {
        self.room.0[..1024].fill(UNTOUCHED);
        match out {
            Out::Null => ptr::null_mut(),
            Out::Misaligned => self.room.0.as_mut_ptr().wrapping_add(1).cast(),
            Out::Good | Out::Better | Out::Best => self.room.0.as_mut_ptr().cast(),
        }
    }

    fn sized_out<T>(&mut self, out: &Out, size: &Size) -> *mut T {
        let at = self.out::<T>(out);
        if !at.is_null() {
            unsafe { at.cast::<usize>().write_unaligned(size.of::<T>()) };
        }
        at
    }

    /// What a call answered.
    fn check(&self, handle: usize, status: i32, writes_nothing: bool) -> bool {
        let known = (MFQ_E_REENTRANT..=MFQ_OK).contains(&status);
        assert!(known && ![MFQ_E_PANIC, MFQ_E_FORKED, MFQ_E_REENTRANT].contains(&status), "{status}: {}", last_error());
        if handle != usize::MAX {
            let is_open = self.open.contains(&handle);
            assert!(is_open || status < 0, "a call on what is not open succeeded");
            assert!(!is_open || status != MFQ_E_CLOSED, "{}", last_error());
        }
        if !self.is_shortened {
            assert!(![MFQ_E_POISONED, MFQ_E_IO].contains(&status), "{status}: {}", last_error());
        }
        assert_ne!(status, MFQ_E_NOT_DURABLE, "{}", last_error());
        if status < 0 {
            assert!(!last_error().is_empty());
            assert!(!writes_nothing || self.room.0[16..1024].iter().all(|&byte| byte == UNTOUCHED), "{status} wrote");
        }
        status == MFQ_OK
    }

    /// The same of a call that appends to `queue`; whether it has.
    fn check_append(&self, handle: usize, queue: usize, status: i32) -> bool {
        if status == MFQ_E_NOT_DURABLE && self.open.contains(&queue) {
            let policy = self.policies[&queue];
            assert_eq!(policy, MFQ_FLUSH_EVERY_APPEND, "{}", last_error());
            return true; // and it is written where
        }
        self.check(handle, status, true)
    }

    fn value<T>(&self) -> T {
        unsafe { self.room.0.as_ptr().cast::<T>().read() }
    }

    fn opened(&mut self, handle: usize) {
        assert!(self.open.insert(handle), "a handle was given twice");
    }

    fn data(&self, data: &Data) -> (mfq_slice_t, Vec<u8>) {
        match data {
            Data::Some { len, fill } => {
                let bytes = vec![*fill; usize::from(*len) % 9000];
                (mfq_slice_t { ptr: bytes.as_ptr().cast(), len: bytes.len() }, bytes)
            }
            Data::Null { len } => (mfq_slice_t { ptr: ptr::null(), len: len.get() }, vec![]),
        }
    }

    fn offset(&self, queue: *mut mfq_queue_t, offset: &Offset) -> u64 {
        match *offset {
            Offset::OfRecord(which) => {
                let of = self.directory_of.get(&queue.addr()).and_then(|directory| self.appended.get(directory));
                let of = of.map_or(&[][..], |of| &of[..]);
                of.get(usize::from(which) % of.len().max(1)).map_or(0, |(offset, _)| *offset)
            }
            Offset::Small(offset) => u64::from(offset),
            Offset::Any(offset) => offset,
            Offset::All => u64::MAX,
        }
    }

    fn path(&self, directory: u8) -> PathBuf {
        self.directories.path().join((directory % DIRECTORIES).to_string())
    }

    fn is_open(&self, directory: u8) -> bool {
        self.directory_of.iter().any(|(queue, of)| *of == directory && self.open.contains(queue))
    }

    fn note(&mut self, queue: *mut mfq_queue_t, span: mfq_span_t, bytes: Vec<u8>) {
        assert!(span.offset <= span.end);
        let directory = self.directory_of[&queue.addr()];
        self.appended.entry(directory).or_default().push((span.offset, bytes));
    }

    fn make(&mut self, call: &Call) {
        const ANY: usize = usize::MAX;
        unsafe {
            match call {
                Call::Open { directory, options, out } => {
                    let directory = directory % DIRECTORIES;
                    let path = self.path(directory);
                    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
                    let mut room = vec![0u64; 1 << 13];
                    let at: *mut mfq_options_t = room.as_mut_ptr().cast();
                    if let Some(options) = options {
                        options.write(at);
                    }
                    let to = self.out::<*mut mfq_queue_t>(out);
                    let status = mfq_open(path.as_ptr(), if options.is_some() { at } else { ptr::null() }, to);
                    if self.check(ANY, status, true) {
                        let queue: *mut mfq_queue_t = self.value();
                        self.opened(queue.addr());
                        self.queues.push(queue);
                        self.directory_of.insert(queue.addr(), directory);
                        self.formats.insert(directory, if options.is_some() { (*at).format } else { MFQ_RECORD });
                        let policy = if options.is_some() { (*at).flush_policy } else { MFQ_FLUSH_NONE };
                        self.policies.insert(queue.addr(), policy);
                    }
                }
                Call::Close { queue } => {
                    let queue = choose(&self.queues, *queue);
                    let status = mfq_close(queue);
                    self.check(queue.addr(), status, false);
                    let was_open = self.open.remove(&queue.addr());
                    assert!(!was_open || status == MFQ_OK || self.is_shortened, "{}", last_error());
                }
                Call::GetLast { queue, out } => {
                    let (queue, to) = (choose(&self.queues, *queue), self.out(out));
                    let status = mfq_get_last(queue, 0, to);
                    self.hold(queue, status);
                }
                Call::Find { queue, offset, out } => {
                    let (queue, to) = (choose(&self.queues, *queue), self.out(out));
                    let status = mfq_find(queue, self.offset(queue, offset), to);
                    self.hold(queue, status);
                }
                Call::FileInfo { file, struct_size, out } => {
                    let (file, to) = (choose(&self.files, *file), self.sized_out(out, struct_size));
                    let status = mfq_file_info(file, to);
                    if self.check(file.addr(), status, true)
                        && struct_size.of::<mfq_file_info_t>() == size_of::<mfq_file_info_t>()
                    {
                        let info: mfq_file_info_t = self.value();
                        assert!(
                            info.flushed <= info.committed && info.committed <= info.wrote && info.wrote <= info.size
                        );
                        std::hint::black_box(info.base.add(info.size as usize - 1).read());
                    }
                }
                Call::FileMemory { file, out } => {
                    let (file, to) = (choose(&self.files, *file), self.out(out));
                    let status = mfq_file_memory(file, to);
                    if self.check(file.addr(), status, true) {
                        let memory: mfq_slice_t = self.value();
                        std::hint::black_box(memory.ptr.cast::<u8>().add(memory.len - 1).read());
                    }
                }
                Call::FileRelease { file } => {
                    let file = choose(&self.files, *file);
                    let status = mfq_file_release(file);
                    self.check(file.addr(), status, false);
                    self.open.remove(&file.addr());
                }
                Call::Append { queue, data, out } => {
                    let (queue, to, (slice, bytes)) = (choose(&self.queues, *queue), self.out(out), self.data(data));
                    let status = mfq_append(queue, slice.ptr, slice.len, to);
                    if self.check_append(queue.addr(), queue.addr(), status) && !to.is_null() {
                        self.note(queue, self.value(), bytes);
                    }
                }
                Call::AppendParts { queue, parts, out } => {
                    let (queue, to) = (choose(&self.queues, *queue), self.out(out));
                    let parts: Vec<_> = parts.iter().take(8).map(|part| self.data(part)).collect();
                    let slices: Vec<_> = parts.iter().map(|(slice, _)| *slice).collect();
                    let status = mfq_appendv(queue, slices.as_ptr(), slices.len(), to);
                    if self.check_append(queue.addr(), queue.addr(), status) && !to.is_null() {
                        self.note(queue, self.value(), parts.into_iter().flat_map(|(_, bytes)| bytes).collect());
                    }
                }
                Call::AppendBatch { queue, records, out } => {
                    let (queue, to) = (choose(&self.queues, *queue), self.out::<mfq_span_t>(out));
                    let records: Vec<_> = records.iter().take(8).map(|record| self.data(record)).collect();
                    let slices: Vec<_> = records.iter().map(|(slice, _)| *slice).collect();
                    let status = mfq_append_batch(queue, slices.as_ptr(), slices.len(), to);
                    if self.check_append(queue.addr(), queue.addr(), status) && !to.is_null() {
                        for (index, (_, bytes)) in records.into_iter().enumerate() {
                            self.note(queue, to.add(index).read(), bytes);
                        }
                    }
                }
                Call::Claim { queue, len, out } => {
                    let (queue, to) = (choose(&self.queues, *queue), self.out(out));
                    let status = mfq_claim(queue, len.get(), to);
                    if self.check(queue.addr(), status, true) {
                        let claim: mfq_claim_t = self.value();
                        claim.ptr.write_bytes(0x5A, claim.len);
                        self.claims.push(claim);
                    }
                }
                Call::Commit { claim, len, out } => {
                    let to = self.out::<mfq_span_t>(out);
                    let claim = self.claims.get_mut(usize::from(*claim)).map_or(ptr::null_mut(), ptr::from_mut);
                    let queue = if claim.is_null() { 0 } else { (*claim).token[0] as usize };
                    let status = mfq_commit(claim, len.get(), to);
                    if self.check_append(ANY, queue, status) && !to.is_null() && self.directory_of.contains_key(&queue)
                    {
                        self.note(ptr::without_provenance_mut(queue), self.value(), vec![0x5A; len.get()]);
                    }
                }
                Call::Abort { claim, out } => {
                    let claim = self.claims.get_mut(usize::from(*claim)).map_or(ptr::null_mut(), ptr::from_mut);
                    let claim = if matches!(out, Out::Misaligned) { claim.wrapping_byte_add(1) } else { claim };
                    let status = mfq_abort(claim);
                    self.check(ANY, status, false);
                }
                Call::Read { queue, offset, cap, out } => {
                    let queue = choose(&self.queues, *queue);
                    let offset = self.offset(queue, offset);
                    let mut buf = vec![UNTOUCHED; usize::from(*cap)];
                    let (mut len, next) = (0, self.out(out));
                    let status = mfq_read(queue, offset, buf.as_mut_ptr().cast(), buf.len(), &mut len, next);
                    if self.check(queue.addr(), status, true) {
                        assert!(len <= buf.len());
                        assert!(buf[len..].iter().all(|&byte| byte == UNTOUCHED), "written behind what was read");
                    }
                }
                Call::View { queue, offset, out } => {
                    let (queue, to) = (choose(&self.queues, *queue), self.out(out));
                    let status = mfq_view(queue, self.offset(queue, offset), to);
                    if self.check(queue.addr(), status, true) {
                        self.views.push(self.value());
                    }
                }
                Call::ViewRelease { view, out } => {
                    let at = usize::from(*view);
                    let view = self.views.get_mut(at).map_or(ptr::null_mut(), ptr::from_mut);
                    if !view.is_null() && (*view).token[0] != 0 && (*view).len > 0 {
                        std::hint::black_box((*view).ptr.add((*view).len - 1).read());
                    }
                    let wrong = matches!(out, Out::Misaligned);
                    let status = mfq_view_release(if wrong { view.wrapping_byte_add(1) } else { view });
                    if self.check(ANY, status, false) {
                        self.views.swap_remove(at);
                    }
                }
                Call::ReaderOpen { queue, offset, out } => {
                    let (queue, to) = (choose(&self.queues, *queue), self.out(out));
                    let status = mfq_reader_open(queue, self.offset(queue, offset), to);
                    if self.check(queue.addr(), status, true) {
                        let reader: *mut mfq_reader_t = self.value();
                        self.opened(reader.addr());
                        self.readers.push(reader);
                    }
                }
                Call::ReaderNext { reader, out } => {
                    let (reader, to) = (choose(&self.readers, *reader), self.out(out));
                    let status = mfq_reader_next(reader, 0, to);
                    // CLOSED is the answer for its queue, too.
                    if self.check(ANY, status, true) {
                        let view: mfq_view_t = self.value();
                        std::hint::black_box(std::slice::from_raw_parts(view.ptr, view.len).iter().max());
                    }
                }
                Call::ReaderSeek { reader, offset } => {
                    let reader = choose(&self.readers, *reader);
                    let status = mfq_reader_seek(reader, self.offset(ptr::null_mut(), offset));
                    self.check(ANY, status, false);
                }
                Call::ReaderClose { reader } => {
                    let reader = choose(&self.readers, *reader);
                    let status = mfq_reader_close(reader);
                    self.check(reader.addr(), status, false);
                    self.open.remove(&reader.addr());
                }
                Call::Flush { queue, up_to } => {
                    let queue = choose(&self.queues, *queue);
                    let status = mfq_flush(queue, self.offset(queue, up_to), 0);
                    self.check(queue.addr(), status, false);
                }
                Call::Wait { queue, which, offset } => {
                    let queue = choose(&self.queues, *queue);
                    let status = mfq_wait(queue, *which, self.offset(queue, offset), 0);
                    self.check(queue.addr(), status, false);
                }
                Call::Offsets { queue, struct_size, out } => {
                    let (queue, to) = (choose(&self.queues, *queue), self.sized_out(out, struct_size));
                    let status = mfq_offsets(queue, to);
                    if self.check(queue.addr(), status, true)
                        && struct_size.of::<mfq_offsets_t>() == size_of::<mfq_offsets_t>()
                    {
                        let now: mfq_offsets_t = self.value();
                        assert!(
                            now.flushed <= now.committed && now.committed <= now.wrote && now.wrote <= now.reserved
                        );
                    }
                }
                Call::Stats { queue, struct_size, out } => {
                    let (queue, to) = (choose(&self.queues, *queue), self.sized_out(out, struct_size));
                    let status = mfq_stats(queue, to);
                    self.check(queue.addr(), status, true);
                }
                Call::FlushStart { queue, up_to } => {
                    let queue = choose(&self.queues, *queue);
                    let status = mfq_flush_start(queue, self.offset(queue, up_to));
                    self.check(queue.addr(), status, false);
                }
                Call::EventFd { queue, out } => {
                    let (queue, to) = (choose(&self.queues, *queue), self.out(out));
                    let status = mfq_event_fd(queue, to);
                    if self.check(queue.addr(), status, true) {
                        let fd = self.value();
                        assert_eq!(*self.event_fds.entry(queue.addr()).or_insert(fd), fd, "another one");
                        read_event(fd);
                    }
                }
                Call::AwaitFlush { queue } => {
                    let queue = choose(&self.queues, *queue);
                    if self.open.contains(&queue.addr()) {
                        self.await_flush(queue);
                    }
                }
                Call::TruncateBefore { queue, offset } => {
                    let queue = choose(&self.queues, *queue);
                    let offset = self.offset(queue, offset);
                    let first = self.open.contains(&queue.addr()).then(|| offsets(queue).min);
                    let status = mfq_truncate_before(queue, offset);
                    if self.check(queue.addr(), status, false) {
                        assert!(offsets(queue).min <= offset.max(first.unwrap()));
                    }
                }
                Call::TruncateAfter { queue, offset } => {
                    let queue = choose(&self.queues, *queue);
                    let offset = self.offset(queue, offset);
                    let status = mfq_truncate_after(queue, offset);
                    if self.check(queue.addr(), status, false) {
                        assert!(offsets(queue).reserved <= offset);
                        if let Some(appended) = self.appended.get_mut(&self.directory_of[&queue.addr()]) {
                            appended.retain(|(at, bytes)| *at < offset && at + bytes.len() as u64 <= offset);
                        }
                    }
                }
                Call::Recovery { queue, struct_size, out } => {
                    let (queue, to) = (choose(&self.queues, *queue), self.sized_out(out, struct_size));
                    let status = mfq_recovery(queue, to);
                    if self.check(queue.addr(), status, true)
                        && struct_size.of::<mfq_recovery_t>() == size_of::<mfq_recovery_t>()
                    {
                        let found: mfq_recovery_t = self.value();
                        assert!(found.ended <= MFQ_ENDED_ADOPTED && found.verified_to <= found.cut_at);
                        assert_eq!(found.unverified_bytes, found.cut_at - found.verified_to);
                        assert!(found.record_beyond >= found.cut_at);
                        assert_eq!(found.lost_bytes == 0, found.first_lost == u64::MAX);
                    }
                }
                Call::WalkRocketmq { data } => {
                    let (slice, bytes) = self.data(data);
                    // Of bytes that are not there none can be read.
                    let size = mfq_walk_rocketmq(ptr::null_mut(), slice.ptr.cast(), slice.len);
                    assert!(if slice.ptr.is_null() { size == -1 } else { size <= bytes.len() as i64 });
                }
                Call::InstallGuard => {
                    assert_eq!(mfq_install_sigbus_guard(), MFQ_OK, "{}", last_error());
                    IS_GUARDED.store(true, Ordering::Relaxed);
                }
                Call::Spoil { directory, how } => {
                    let directory = directory % DIRECTORIES;
                    let may_shorten = matches!(how, Spoil::Shorten { .. }) && IS_GUARDED.load(Ordering::Relaxed);
                    if may_shorten || !self.is_open(directory) {
                        self.is_shortened |= may_shorten;
                        self.appended.remove(&directory);
                        _ = self.spoil(directory, how, may_shorten); // what is not there is not spoilt
                    }
                }
                Call::LastError { cap, is_null } => {
                    let mut buf = vec![UNTOUCHED as i8; usize::from(*cap)];
                    let buf = if *is_null { ptr::null_mut() } else { buf.as_mut_ptr() };
                    mfq_last_error(buf, usize::from(*cap));
                }
                Call::Strerror { status } => assert!(!std::ffi::CStr::from_ptr(mfq_strerror(*status)).is_empty()),
                Call::ReadBack { queue } => {
                    let queue = choose(&self.queues, *queue);
                    if self.open.contains(&queue.addr()) {
                        self.read_back(queue);
                    }
                }
            }
        }
    }

    fn hold(&mut self, queue: *mut mfq_queue_t, status: i32) {
        if self.check(queue.addr(), status, true) {
            let file: *mut mfq_file_t = self.value();
            self.opened(file.addr());
            self.files.push(file);
        }
    }

    /// What was appended is there, unless an open claim still hides it.
    fn read_back(&self, queue: *mut mfq_queue_t) {
        if self.is_shortened {
            return;
        }
        let directory = self.directory_of[&queue.addr()];
        let is_raw = self.formats[&directory] == MFQ_RAW;
        let mut stats = mfq_stats_t { struct_size: size_of::<mfq_stats_t>(), ..unsafe { zeroed() } };
        assert_eq!(unsafe { mfq_stats(queue, &mut stats) }, MFQ_OK, "{}", last_error());
        for (offset, bytes) in self.appended.get(&directory).into_iter().flatten() {
            let end = offset + bytes.len().max(1) as u64;
            if stats.open_claims == 0 {
                let waited = unsafe { mfq_wait(queue, MFQ_COMMITTED, end, GENEROUS_MS) };
                assert_eq!(waited, MFQ_OK, "{}", last_error());
            }
            let mut buf = vec![0u8; 1 << 14];
            let (mut len, mut next) = (0, 0);
            let status =
                unsafe { mfq_read(queue, *offset, buf.as_mut_ptr().cast::<c_void>(), buf.len(), &mut len, &mut next) };
            let now = offsets(queue);
            match status {
                MFQ_E_END => assert!(*offset >= now.committed),
                MFQ_E_NOT_FOUND => assert!(*offset < now.min),
                _ => {
                    assert_eq!(status, MFQ_OK, "{}", last_error());
                    let found = if is_raw { &buf[..bytes.len()] } else { &buf[..len] };
                    assert!(found == bytes, "what was appended at {offset} is something else");
                }
            }
        }
    }

    /// What is committed becomes durable with nobody waiting in the library, and the descriptor tells.
    fn await_flush(&self, queue: *mut mfq_queue_t) {
        let mut fd = -1;
        assert_eq!(unsafe { mfq_event_fd(queue, &mut fd) }, MFQ_OK, "{}", last_error());
        let wanted = offsets(queue).committed;
        let status = unsafe { mfq_flush_start(queue, wanted) };
        if !self.check(queue.addr(), status, false) {
            return;
        }
        while offsets(queue).flushed < wanted {
            let mut waits = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            assert_eq!(unsafe { libc::poll(&mut waits, 1, GENEROUS_MS) }, 1, "a flush that was started never comes");
            read_event(fd);
            if unsafe { mfq_wait(queue, MFQ_FLUSHED, wanted, 0) } == MFQ_E_POISONED {
                assert!(self.is_shortened);
                return;
            }
        }
    }

    fn spoil(&self, directory: u8, how: &Spoil, may_shorten: bool) -> io::Result<()> {
        let path = self.path(directory);
        match *how {
            Spoil::Replace { by } if by % DIRECTORIES != directory => {
                _ = fs::remove_dir_all(&path);
                copy(&self.path(by), &path)
            }
            Spoil::Replace { .. } => Ok(()),
            Spoil::Disown => fs::remove_dir_all(path.join(".mfq")),
            Spoil::ForgetTail => fs::remove_file(path.join(".mfq/tail")),
            Spoil::Flip { file, at, bits } => {
                let file = fs::File::options().read(true).write(true).open(choose_file(&path, file)?)?;
                let mut byte = [0];
                file.read_exact_at(&mut byte, at.into())?;
                file.write_all_at(&[byte[0] ^ bits], at.into())
            }
            Spoil::Shorten { file, pages } if may_shorten => {
                let file = fs::File::options().write(true).open(choose_file(&path, file)?)?;
                file.set_len(file.metadata()?.len().min(4096 * u64::from(pages % 3)))
            }
            Spoil::Shorten { .. } => Ok(()),
        }
    }
}

fn offsets(queue: *mut mfq_queue_t) -> mfq_offsets_t {
    let mut now = mfq_offsets_t { struct_size: size_of::<mfq_offsets_t>(), ..unsafe { zeroed() } };
    assert_eq!(unsafe { mfq_offsets(queue, &mut now) }, MFQ_OK, "{}", last_error());
    now
}

fn read_event(fd: i32) {
    let mut events = 0u64;
    let len = unsafe { libc::read(fd, (&raw mut events).cast(), 8) };
    assert!(len == 8 && events > 0 || io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock);
}

/// One of the data files, or of the library's own.
fn choose_file(path: &Path, by: u8) -> io::Result<PathBuf> {
    let mut files: Vec<PathBuf> = [path, &path.join(".mfq")]
        .iter()
        .flat_map(fs::read_dir)
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.retain(|path| path.is_file());
    files.sort();
    let files = &files[..];
    files.get(usize::from(by) % files.len().max(1)).cloned().ok_or(io::ErrorKind::NotFound.into())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (from, to) = (entry?.path(), to);
        let to = to.join(from.file_name().expect("an entry has a name"));
        if from.is_dir() { copy(&from, &to)? } else { _ = fs::copy(&from, &to)? }
    }
    Ok(())
}

static IS_GUARDED: AtomicBool = AtomicBool::new(false);

/// Answers what its context is.
unsafe extern "C" fn walk(context: *mut c_void, bytes: *const u8, available: usize) -> i64 {
    if available > 0 {
        std::hint::black_box(unsafe { bytes.add(available - 1).read() });
    }
    assert_eq!(unsafe { mfq_close(ptr::null_mut()) }, MFQ_E_REENTRANT);
    context.addr() as i64
}

impl Options {
    unsafe fn write(&self, at: *mut mfq_options_t) {
        unsafe {
            at.write(zeroed());
            let options = &mut *at;
            options.struct_size = self.struct_size.of::<mfq_options_t>();
            options.file_size = self.file_size.unwrap_or(4096 * (1 + u64::from(self.pages % 3)));
            options.start_offset = self.start_offset;
            // Mostly known numbers, 0 above all.
            let number = |of: u8| if of < 192 { 0 } else { u32::from(of - 192) % 6 };
            options.format = if self.format < 128 { 0 } else { 1 + u32::from(self.format == 255) };
            options.filler = number(self.filler);
            options.mode = u32::from(self.mode) / 100;
            options.flush_policy = u32::from(self.flush_policy) / 60;
            options.flush_least_pages = number(self.others[0]);
            options.files_ahead = number(self.others[1]);
            options.pool_buffers = number(self.others[2]);
            options.flush_interval_ms = number(self.others[3]) as i32 - i32::from(self.others[3] == 255) * 9;
            options.commit_interval_ms = number(self.others[4]) as i32 - i32::from(self.others[4] == 255) * 9;
            options.append_timeout_ms = if self.wait { 20 } else { 1 };
            options.permissions = self.permissions.map_or(0, u32::from);
            // None mostly, or one that may be unknown.
            options.flags = self.flags.map(|of| if of < 128 { 0 } else { 1 << (of % 10) }).iter().fold(0, |a, b| a | b);
            (options.walk, options.walk_context) = match self.walk {
                Walker::None => (None, ptr::null_mut()),
                Walker::Rocketmq => (Some(mfq_walk_rocketmq as _), ptr::null_mut()),
                Walker::Answers(answer) => (Some(walk as _), ptr::without_provenance_mut(answer as usize)),
            };
            at.cast::<u8>().add(size_of::<mfq_options_t>()).write(self.excess & 1);
        }
    }
}

fn last_error() -> String {
    let mut buf = [0u8; 512];
    let len = unsafe { mfq_last_error(buf.as_mut_ptr().cast(), buf.len()) };
    String::from_utf8_lossy(&buf[..len.min(buf.len() - 1)]).into_owned()
}

/// Files of the default size would be zeroed each time: they are no space here.
fn limit_files() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = libc::rlimit { rlim_cur: 4 << 20, rlim_max: libc::RLIM_INFINITY };
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
    });
}

fuzz_target!(|calls: Vec<Call>| {
    limit_files();
    let mut fuzz = Fuzz {
        room: Box::new(Room([UNTOUCHED; ROOM + 16])),
        directories: tempfile::tempdir_in("/dev/shm").unwrap(),
        queues: vec![],
        files: vec![],
        readers: vec![],
        views: vec![],
        claims: vec![],
        open: HashSet::new(),
        directory_of: HashMap::new(),
        appended: HashMap::new(),
        formats: HashMap::new(),
        policies: HashMap::new(),
        event_fds: HashMap::new(),
        is_shortened: false,
    };
    calls.iter().take(64).for_each(|call| fuzz.make(call));
    // Handles are for the process, not for the input.
    unsafe {
        fuzz.queues.iter().for_each(|&queue| _ = mfq_close(queue));
        fuzz.files.iter().for_each(|&file| _ = mfq_file_release(file));
        fuzz.readers.iter().for_each(|&reader| _ = mfq_reader_close(reader));
        fuzz.views.iter_mut().for_each(|view| _ = mfq_view_release(view));
        fuzz.claims.iter_mut().for_each(|claim| _ = mfq_abort(claim));
    }
});
