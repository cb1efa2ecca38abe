//! The guard against SIGBUS, from C: files cut off behind the library's back. And where the process may have no more
//! mappings.

mod support;

use mfq::capi::{MFQ_OK, mfq_install_sigbus_guard};
use mfq::{MappedFile, Options, Status};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::{env, fs, ptr, thread};
use support::engine::*;

/// Ten thousand SIGBUS, or as many as `MFQ_SIGBUS` says.
#[test]
fn a_fault_in_the_librarys_files_is_an_error_and_every_other_one_is_the_hosts() {
    let build = tempfile::tempdir().expect("a temporary directory");
    let work = tempfile::tempdir().expect("a temporary directory");
    let program = support::compile(&Path::new(support::ROOT).join("tests/c/sigbus.c"), build.path());
    let count = env::var("MFQ_SIGBUS").unwrap_or("10000".into());
    println!("{}", support::stdout(Command::new(program).arg(work.path()).arg(count)));
}

/// Each page that is replaced is a mapping more, or two.
#[test]
fn pages_are_lost_and_nobody_dies_when_there_are_no_more_mappings_to_be_had() {
    let dir = scratch();
    in_a_process_of_its_own("loses_pages_at_the_limit_of_mappings", dir.path());
}

/// As many mappings as the process may have, but for those it has already.
struct Mappings {
    base: *mut u8,
    len: usize,
}

impl Mappings {
    fn all() -> Mappings {
        let limit = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
        let len = (limit.trim().parse::<usize>().unwrap() + 2) * page() as usize;
        let (flags, nowhere) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, ptr::null_mut());
        // SAFETY: memory of its own.
        let base = unsafe { libc::mmap(nowhere, len, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        let mappings = Mappings { base: base.cast(), len };
        // Each makes three of one, and so does not reach the limit by itself.
        (1..).step_by(2).find(|&index| !mappings.set_apart(index)).unwrap();
        // SAFETY: as above. A shared mapping is merged with no other one.
        let more = || unsafe {
            libc::mmap(nowhere, 1, libc::PROT_NONE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0) != libc::MAP_FAILED
        };
        while more() {}
        mappings
    }

    /// Whether the page could be given a protection of its own.
    fn set_apart(&self, index: usize) -> bool {
        // SAFETY: memory of its own, that nobody uses.
        unsafe { libc::mprotect(self.base.add(index * page() as usize).cast(), page() as usize, libc::PROT_READ) == 0 }
    }

    /// Gives so many back.
    fn release(&mut self, count: usize) {
        let len = count * page() as usize;
        // SAFETY: as above, and less than all of it. Of nothing the call is refused.
        unsafe {
            libc::munmap(self.base.cast(), len);
            self.base = self.base.add(len);
        }
        self.len -= len;
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

#[test]
#[ignore = "started by pages_are_lost_and_nobody_dies_when_there_are_no_more_mappings_to_be_had"]
fn loses_pages_at_the_limit_of_mappings() {
    const PAGES: u64 = 256;
    let Some(dir) = victims_directory() else { return };
    let _alone = alone();
    // SAFETY: nobody else in this process handles signals.
    assert_eq!(unsafe { mfq_install_sigbus_guard() }, MFQ_OK);
    let queue = open(&dir, &Options { file_size: PAGES * page(), ..record() });
    (0..18 * PAGES).for_each(|_| assert!(queue.append(&vec![b'x'; page() as usize / 2]).is_ok()));
    eventually("the look-ahead is done", || queue.stats().unwrap().files_created >= 11);
    let files: Vec<_> = (0..8).map(|index| queue.find(index * PAGES * page()).unwrap()).collect();
    for file in &files {
        File::options().write(true).open(queue.file(file.start())).unwrap().set_len(0).unwrap();
    }
    let look_at = |file: &MappedFile| {
        for at in (1..PAGES).step_by(2).chain(0..PAGES) {
            // SAFETY: in bounds of a mapping that is held.
            assert_eq!(unsafe { file.base().add((at * page()) as usize).read_volatile() }, 0);
        }
    };
    let start = Barrier::new(5);
    thread::scope(|scope| {
        for file in &files[4..] {
            scope.spawn(|| {
                start.wait(); // a thread that begins wants mappings of its own
                start.wait();
                look_at(file);
            });
        }
        start.wait();
        let mut mappings = Mappings::all();
        // Room for none; for some of the pages, which take all of it; and for another mapping or two, once it is taken.
        for (file, room) in files.iter().zip([0, 101, 2, 1]) {
            mappings.release(room);
            look_at(file);
        }
        start.wait();
        for file in &files[4..] {
            look_at(file);
        }
    });
    for file in &files {
        let error = read(&queue, file.start()).unwrap_err();
        assert_eq!(error.status(), Status::Io, "{error}");
        assert!(error.message().contains("SIGBUS"), "{error}");
    }
    assert_eq!(queue.append(b"x").unwrap_err().status(), Status::Poisoned);
}
