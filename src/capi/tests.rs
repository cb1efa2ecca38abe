//! Every exported function once, each with arguments that it accepts.

use super::handles::QUEUES;
use super::*;
use crate::options::Options;
use crate::os::{self, Call, Fault, FaultyOs};
use crate::queue::Queue;
use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::channel;
use std::{mem, ptr, thread};
use tempfile::TempDir;

thread_local! {
    static PANIC: Cell<bool> = const { Cell::new(false) };
}

/// Called by every exported function as its body begins.
pub fn panic_if_asked() {
    if PANIC.take() {
        panic!("the sky is falling");
    }
}

fn last_error() -> String {
    let mut text = [0u8; 512];
    // SAFETY: `text` has the length that is said.
    let len = unsafe { mfq_last_error(text.as_mut_ptr().cast(), text.len()) };
    String::from_utf8(text[..len].to_vec()).unwrap()
}

/// Its name, whether it is about a queue, and a call of it.
type Function<'h> = (&'static str, bool, Box<dyn FnMut() -> mfq_status_t + 'h>);

/// A queue with one record in it, and one handle of each kind.
struct Host {
    path: CString,
    queue: *mut mfq_queue_t,
    file: *mut mfq_file_t,
    reader: *mut mfq_reader_t,
    view: mfq_view_t,
    claim: mfq_claim_t,
    _dir: TempDir,
}

// SAFETY, for all of it: every pointer leads to a value that lives until the call returns.
impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let path = CString::new(dir.path().as_os_str().as_bytes()).unwrap();
        let (mut queue, mut file, mut reader) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        let mut view = mem::MaybeUninit::uninit();
        let mut claim = mem::MaybeUninit::uninit();
        unsafe {
            assert_eq!(open(&path, &mut queue), MFQ_OK, "{}", last_error());
            assert_eq!(mfq_append(queue, c"record".as_ptr().cast(), 6, ptr::null_mut()), MFQ_OK);
            assert_eq!(mfq_get_last(queue, -1, &mut file), MFQ_OK);
            assert_eq!(mfq_reader_open(queue, 0, &mut reader), MFQ_OK);
            assert_eq!(mfq_view(queue, 0, view.as_mut_ptr()), MFQ_OK);
            assert_eq!(mfq_claim(queue, 8, claim.as_mut_ptr()), MFQ_OK);
            let (view, claim) = (view.assume_init(), claim.assume_init());
            Host { path, queue, file, reader, view, claim, _dir: dir }
        }
    }

    /// All functions that have a status. Outputs go to memory that is not looked at.
    fn functions(&mut self) -> Vec<Function<'_>> {
        let (queue, file, reader) = (self.queue, self.file, self.reader);
        let (path, view, claim) = (&self.path, &raw mut self.view, &raw mut self.claim);
        let part = mfq_slice_t { ptr: c"part".as_ptr().cast(), len: 4 };
        fn out<T>() -> *mut T {
            #[repr(align(16))]
            struct Room([usize; 128]);
            // As an output structure it says how large it is.
            let room = Box::leak(Box::new(Room([0; 128])));
            room.0[0] = 1024;
            ptr::from_mut(room).cast()
        }
        macro_rules! all {
            ($($about:literal $name:ident($($argument:expr),*);)*) => {
                vec![$((stringify!($name), $about, Box::new(move || unsafe { $name($($argument),*) }) as Box<_>)),*]
            };
        }
        all! {
            false mfq_open(path.as_ptr(), ptr::null(), out());
            true mfq_get_last(queue, 0, out());
            true mfq_find(queue, 0, out());
            true mfq_file_info(file, out());
            true mfq_file_memory(file, out());
            true mfq_file_release(file);
            true mfq_append(queue, part.ptr, part.len, out());
            true mfq_appendv(queue, &part, 1, out());
            true mfq_append_batch(queue, &part, 1, out());
            true mfq_claim(queue, 4, out());
            true mfq_commit(claim, 8, out());
            true mfq_abort(claim);
            true mfq_read(queue, 0, out::<u8>().cast(), 100, out(), out());
            true mfq_view(queue, 0, out());
            false mfq_view_release(view);
            true mfq_reader_open(queue, 0, out());
            true mfq_reader_next(reader, 0, out());
            true mfq_reader_seek(reader, 0);
            true mfq_reader_close(reader);
            true mfq_flush(queue, 0, 0);
            true mfq_flush_start(queue, 0);
            true mfq_event_fd(queue, out());
            true mfq_wait(queue, MFQ_COMMITTED, 0, 0);
            true mfq_offsets(queue, out());
            true mfq_recovery(queue, out());
            true mfq_truncate_after(queue, 0);
            true mfq_truncate_before(queue, 0);
            true mfq_stats(queue, out());
            false mfq_install_sigbus_guard();
            false mfq_set_log(None, ptr::null_mut(), 0);
            true mfq_close(queue);
        }
    }
}

fn open(path: &CString, queue: &mut *mut mfq_queue_t) -> mfq_status_t {
    unsafe {
        let mut options: mfq_options_t = mem::zeroed();
        mfq_options_init(&mut options, mem::size_of::<mfq_options_t>());
        options.file_size = 4096;
        mfq_open(path.as_ptr(), &options, queue)
    }
}

fn reads_its_record(queue: *mut mfq_queue_t) {
    let (mut buf, mut len, mut next) = ([0u8; 16], 0, 0);
    let status = unsafe { mfq_read(queue, 0, buf.as_mut_ptr().cast(), buf.len(), &mut len, &mut next) };
    assert_eq!((status, &buf[..len]), (MFQ_OK, b"record".as_slice()), "{}", last_error());
}

#[test]
fn the_functions_tried_here_are_those_of_the_header() {
    let mut host = Host::new();
    let tried: HashSet<String> = host.functions().iter().map(|(name, ..)| name.to_string()).collect();
    let header = include_str!("../../include/mfq.h");
    let declared = header.lines().filter_map(|line| line.strip_prefix("mfq_status_t ")?.split_once('('));
    assert_eq!(tried, declared.map(|(name, _)| name.to_owned()).collect());
    unsafe { mfq_close(host.queue) };
}

#[test]
fn a_panic_in_any_function_poisons_the_queue_and_wakes_whoever_waits() {
    let count = Host::new().functions().len();
    for which in 0..count {
        let mut host = Host::new();
        let (queue, far) = (host.queue as usize, 1 << 40);
        let (tell, told) = channel();
        let (tell_too, mut waiting) = (tell.clone(), Vec::new());
        waiting.push(thread::spawn(move || {
            let status = unsafe { mfq_wait(queue as *mut _, MFQ_COMMITTED, far, -1) };
            tell.send((status, last_error())).unwrap();
        }));
        let mut reader = ptr::null_mut();
        assert_eq!(unsafe { mfq_reader_open(host.queue, far, &mut reader) }, MFQ_OK);
        let reader = reader as usize;
        waiting.push(thread::spawn(move || {
            let mut view = mem::MaybeUninit::uninit();
            let status = unsafe { mfq_reader_next(reader as *mut _, -1, view.as_mut_ptr()) };
            tell_too.send((status, last_error())).unwrap();
        }));

        let (name, poisons) = {
            let (name, poisons, call) = &mut host.functions()[which];
            PANIC.set(true);
            assert_eq!((call(), last_error()), (MFQ_E_PANIC, "panic: the sky is falling".into()), "{name}");
            (*name, *poisons)
        };
        let queue = host.queue;
        unsafe {
            if poisons {
                for _ in 0..2 {
                    let (status, sentence) = told.recv().unwrap();
                    assert_eq!(status, MFQ_E_POISONED, "{name}: {sentence}");
                    assert!(sentence.contains("panic"), "{sentence}");
                }
                assert_eq!(mfq_append(queue, ptr::null(), 0, ptr::null_mut()), MFQ_E_POISONED, "{name}");
                assert_eq!(mfq_flush(queue, u64::MAX, 0), MFQ_E_POISONED, "{name}");
                reads_its_record(queue);
                assert_eq!(mfq_close(queue), MFQ_E_POISONED, "{name}: {}", last_error());
            } else {
                assert_eq!(mfq_append(queue, ptr::null(), 0, ptr::null_mut()), MFQ_OK, "{name}");
                assert_eq!(mfq_close(queue), MFQ_OK, "{name}: {}", last_error());
            }
            waiting.into_iter().for_each(|waiter| waiter.join().unwrap());
            let mut again = ptr::null_mut();
            assert_eq!(open(&host.path, &mut again), MFQ_OK, "{name}: {}", last_error());
            reads_its_record(again);
            assert_eq!(mfq_append(again, ptr::null(), 0, ptr::null_mut()), MFQ_OK, "{name}");
            assert_eq!(mfq_close(again), MFQ_OK, "{name}: {}", last_error());
            mfq_abort(&mut host.claim);
            mfq_view_release(&mut host.view);
            mfq_file_release(host.file);
            mfq_reader_close(host.reader);
            mfq_reader_close(reader as *mut _);
        }
    }
}

/// Without the C library, and so without its handlers.
fn raw_fork() -> libc::pid_t {
    // SAFETY: as fork(2): no flag but the signal, no stack of its own, nothing else is looked at.
    unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as libc::pid_t }
}

#[test]
fn every_function_refuses_a_forked_child_and_the_parent_goes_on() {
    let mut host = Host::new();
    let (queue, stop) = (host.queue as usize, std::sync::atomic::AtomicBool::new(false));
    thread::scope(|scope| {
        let append = || {
            let mut appended = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) || appended == 0 {
                let status = unsafe { mfq_append(queue as *mut _, c"x".as_ptr().cast(), 1, ptr::null_mut()) };
                assert_eq!(status, MFQ_OK, "{}", last_error());
                appended += 1;
            }
            appended
        };
        let appending: Vec<_> = (0..4).map(|_| scope.spawn(append)).collect();
        let fork = || unsafe { libc::fork() };
        for round in 0..20 {
            let mut functions = host.functions();
            let child = if round % 2 == 0 { fork() } else { raw_fork() };
            if child == 0 {
                // No more than a number comes out of it: the harness belongs to the parent. And no memory is asked for:
                // another thread may have held the allocator's lock.
                let wrong = functions.iter_mut().position(|(_, _, call)| call() != MFQ_E_FORKED);
                let mut text = [0u8; 512];
                // SAFETY: `text` has the length that is said.
                let len = unsafe { mfq_last_error(text.as_mut_ptr().cast(), text.len()) };
                let said = text[..len].windows(12).any(|words| words == b"forked child");
                unsafe { libc::_exit(wrong.map_or(if said { 0 } else { 100 }, |index| index as i32 + 1)) };
            }
            let mut status = 0;
            unsafe { assert_eq!(libc::waitpid(child, &mut status, 0), child) };
            let code = libc::WEXITSTATUS(status);
            let name = functions.get(code.wrapping_sub(1) as usize).map(|(name, ..)| *name);
            assert_eq!((libc::WIFEXITED(status), code), (true, 0), "round {round}: {name:?}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(appending.into_iter().all(|thread| thread.join().unwrap() > 0));
    });
    unsafe {
        reads_its_record(host.queue);
        assert_eq!(mfq_abort(&mut host.claim), MFQ_OK);
        assert_eq!(mfq_view_release(&mut host.view), MFQ_OK);
        assert_eq!(mfq_flush(host.queue, u64::MAX, -1), MFQ_OK);
        assert_eq!(mfq_close(host.queue), MFQ_OK);
    }
}

fn on(os: &std::sync::Arc<FaultyOs>, path: &Path) -> *mut mfq_queue_t {
    let options = Options { file_size: 4096, ..Options::default() };
    let queue = Queue::open(os.clone(), path, &options).unwrap();
    handles::pointer(QUEUES.insert(queue).unwrap())
}

#[test]
fn an_append_that_panics_between_its_two_steps_leaves_nobody_waiting_for_it() {
    let (dir, os) = (tempfile::tempdir().unwrap(), FaultyOs::new(os::native()));
    let queue = on(&os, dir.path());
    let append = || unsafe { mfq_append(queue, c"record".as_ptr().cast(), 6, ptr::null_mut()) };
    assert_eq!(append(), MFQ_OK);
    os.fail_nth(Call::Clock, 1, Fault::Panic);
    assert_eq!(append(), MFQ_E_PANIC);
    assert_eq!(append(), MFQ_E_POISONED);
    // Its frame is claimed for ever: what lies below it is committed, and it is not.
    unsafe {
        assert_eq!(mfq_wait(queue, MFQ_COMMITTED, 24, -1), MFQ_OK);
        assert_eq!(mfq_wait(queue, MFQ_COMMITTED, 25, -1), MFQ_E_POISONED);
        assert_eq!(mfq_close(queue), MFQ_E_POISONED);
        let queue = on(&os, dir.path());
        reads_its_record(queue);
        assert_eq!(mfq_close(queue), MFQ_OK);
    }
}

#[test]
fn a_close_that_panics_lets_the_lock_go() {
    for call in [Call::SyncRange, Call::WriteAt, Call::SyncData, Call::Unlink] {
        let (dir, os) = (tempfile::tempdir().unwrap(), FaultyOs::new(os::native()));
        let queue = on(&os, dir.path());
        unsafe {
            assert_eq!(mfq_append(queue, c"record".as_ptr().cast(), 6, ptr::null_mut()), MFQ_OK);
            // So that there is a file made ahead, which the close removes.
            let second = 24 + 4096;
            let full = [1u8; 4000];
            assert_eq!(mfq_append(queue, full.as_ptr().cast(), full.len(), ptr::null_mut()), MFQ_OK);
            assert_eq!(mfq_append(queue, full.as_ptr().cast(), full.len(), ptr::null_mut()), MFQ_OK);
            assert_eq!(mfq_wait(queue, MFQ_COMMITTED, second, -1), MFQ_OK);
            while !dir.path().join("00000000000000008192").exists() {
                thread::yield_now();
            }
            os.fail_all(call, Fault::Panic);
            assert_eq!(mfq_close(queue), MFQ_E_PANIC, "{call:?}");
            os.heal();
            let queue = on(&os, dir.path());
            reads_its_record(queue);
            assert_eq!(mfq_close(queue), MFQ_OK);
        }
    }
}

#[test]
fn every_status_has_its_number_and_its_sentence() {
    assert_eq!(Status::Invalid as i32, MFQ_E_INVALID);
    assert_eq!(Status::Reentrant as i32, MFQ_E_REENTRANT);
    // SAFETY: takes a number, gives a static string.
    let sentence = |status| unsafe { std::ffi::CStr::from_ptr(mfq_strerror(status)) };
    let mut seen = HashSet::new();
    assert!((MFQ_E_REENTRANT..=MFQ_OK).all(|status| seen.insert(sentence(status))));
    assert!(seen.insert(sentence(1)));
    assert_eq!(sentence(i32::MIN), sentence(1));
}
