//! Bad input through the C interface, where it meets the disk: each has its own status and a sentence that names the
//! argument or the file, writes no output, and changes nothing on disk. (`c/misuse.c` has what needs no disk: bad
//! pointers, lengths and handles.)

#[path = "support/engine.rs"]
mod support;

use mfq::capi::*;
use std::ffi::{CString, OsStr, c_char};
use std::mem::{MaybeUninit, size_of};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{fs, ptr};
use support::{alone, page, scratch, snapshot, victim, victims_directory, wait_to_be_killed};

/// Looks like no handle.
const UNTOUCHED: *mut mfq_queue_t = 0x5a5a_5a5a_usize as *mut mfq_queue_t;

fn defaults() -> mfq_options_t {
    let mut options = MaybeUninit::uninit();
    // SAFETY: the place has the size that is said, and is initialised by the call: zeros are valid for every field.
    unsafe {
        mfq_options_init(options.as_mut_ptr(), size_of::<mfq_options_t>());
        options.assume_init()
    }
}

fn small() -> mfq_options_t {
    mfq_options_t { file_size: page(), ..defaults() }
}

fn open(path: &OsStr, options: &mfq_options_t) -> Result<*mut mfq_queue_t, mfq_status_t> {
    let path = CString::new(path.as_bytes()).unwrap();
    let mut queue = UNTOUCHED;
    // SAFETY: valid pointers, of the structures' sizes.
    let status = unsafe { mfq_open(path.as_ptr(), options, &mut queue) };
    if status == MFQ_OK {
        return Ok(queue);
    }
    assert_eq!(queue, UNTOUCHED, "an output was written although the call failed");
    Err(status)
}

fn opened(path: &Path, options: &mfq_options_t) -> *mut mfq_queue_t {
    open(path.as_os_str(), options).unwrap_or_else(|status| panic!("{status}: {}", last_error()))
}

fn last_error() -> String {
    let mut text = [0u8; 512];
    // SAFETY: the buffer has the length that is said.
    let len = unsafe { mfq_last_error(text.as_mut_ptr().cast::<c_char>(), text.len()) };
    String::from_utf8_lossy(&text[..len]).into_owned()
}

fn close(queue: *mut mfq_queue_t) {
    // SAFETY: takes any value.
    assert_eq!(unsafe { mfq_close(queue) }, MFQ_OK, "{}", last_error());
}

fn append(queue: *mut mfq_queue_t, bytes: &[u8]) -> mfq_status_t {
    // SAFETY: the bytes are as many as is said.
    unsafe { mfq_append(queue, bytes.as_ptr().cast(), bytes.len(), ptr::null_mut()) }
}

/// A queue with a record or two in each of three files.
fn make_queue(path: &Path, options: &mfq_options_t) {
    let queue = opened(path, options);
    for _ in 0..5 {
        assert_eq!(append(queue, &vec![b'r'; page() as usize / 3]), MFQ_OK);
    }
    close(queue);
}

/// Below `dir`, an open of `path` is refused with this status and a sentence with all these words, and nothing changes.
fn refuses(dir: &Path, path: impl AsRef<OsStr>, options: &mfq_options_t, status: mfq_status_t, words: &[&str]) {
    let before = snapshot(dir);
    assert_eq!(open(path.as_ref(), options), Err(status), "{}", last_error());
    for word in words {
        assert!(last_error().contains(word), "{word} is not in: {}", last_error());
    }
    assert_eq!(snapshot(dir), before, "{}", last_error());
}

#[test]
fn options_that_make_no_sense_touch_no_disk() {
    let _alone = alone();
    let dir = scratch();
    let new = dir.path().join("new");
    let old = dir.path().join("old");
    make_queue(&old, &small());
    type Spoil = fn(&mut mfq_options_t);
    let cases: [(&str, mfq_status_t, Spoil); 20] = [
        ("struct_size", MFQ_E_INVALID, |o| o.struct_size = 0),
        ("struct_size", MFQ_E_INVALID, |o| o.struct_size = 7),
        ("struct_size", MFQ_E_INVALID, |o| o.struct_size = usize::MAX),
        ("file_size", MFQ_E_INVALID, |o| o.file_size = 1),
        ("file_size", MFQ_E_INVALID, |o| o.file_size += 1),
        ("file_size", MFQ_E_INVALID, |o| o.file_size = 2 << 30),
        ("file_size", MFQ_E_INVALID, |o| o.file_size = u64::MAX),
        ("start_offset", MFQ_E_INVALID, |o| o.start_offset = 1 << 63),
        ("format", MFQ_E_INVALID, |o| o.format = 2),
        ("filler", MFQ_E_INVALID, |o| o.filler = 2),
        ("filler", MFQ_E_INVALID, |o| o.filler = MFQ_FILLER_ROCKETMQ),
        ("mode", MFQ_E_INVALID, |o| o.mode = 2),
        ("pool_buffers", MFQ_E_INVALID, |o| (o.mode, o.pool_buffers) = (MFQ_STAGED, 1)),
        ("LOCK_POOL", MFQ_E_INVALID, |o| o.flags = MFQ_OPEN_LOCK_POOL),
        ("POOL_FAIL_FAST", MFQ_E_INVALID, |o| o.flags = MFQ_OPEN_POOL_FAIL_FAST),
        ("flush_policy", MFQ_E_INVALID, |o| o.flush_policy = 4),
        ("files_ahead", MFQ_E_INVALID, |o| o.files_ahead = u32::MAX),
        ("permissions", MFQ_E_INVALID, |o| o.permissions = 0o4600),
        ("permissions", MFQ_E_INVALID, |o| o.permissions = 0o400),
        ("flags", MFQ_E_INVALID, |o| o.flags = 1 << 31),
    ];
    for (word, status, spoil) in cases {
        let mut options = small();
        spoil(&mut options);
        refuses(dir.path(), &new, &options, status, &[word]);
        refuses(dir.path(), &old, &options, status, &[word]);
    }
    assert!(!new.exists());
}

#[test]
fn options_longer_than_ours_with_something_set_are_refused() {
    let _alone = alone();
    #[repr(C)]
    struct Longer {
        ours: mfq_options_t,
        theirs: [u8; 32],
    }
    let dir = scratch();
    let mut longer = Longer { ours: small(), theirs: [0; 32] };
    longer.ours.struct_size = size_of::<Longer>();
    longer.theirs[31] = 1;
    let before = snapshot(dir.path());
    let path = CString::new(dir.path().join("queue").as_os_str().as_bytes()).unwrap();
    let mut queue = UNTOUCHED;
    // SAFETY: the structure has the size that it says.
    let mut open = |longer: &Longer| unsafe { mfq_open(path.as_ptr(), (&raw const *longer).cast(), &mut queue) };
    assert_eq!(open(&longer), MFQ_E_INVALID);
    assert!(last_error().contains("options"), "{}", last_error());
    assert_eq!(snapshot(dir.path()), before);
    longer.theirs[31] = 0;
    assert_eq!(open(&longer), MFQ_OK);
    close(queue);
}

#[test]
fn a_queue_is_not_opened_as_what_it_is_not() {
    let _alone = alone();
    let dir = scratch();
    let (framed, raw) = (dir.path().join("framed"), dir.path().join("raw"));
    let rocketmq = mfq_options_t { format: MFQ_RAW, filler: MFQ_FILLER_ROCKETMQ, ..small() };
    make_queue(&framed, &small());
    make_queue(&raw, &rocketmq);
    let name = |path: &Path| path.to_str().unwrap().to_owned();
    refuses(
        dir.path(),
        &framed,
        &mfq_options_t { file_size: 2 * page(), ..small() },
        MFQ_E_INVALID,
        &["file_size", &name(&framed)],
    );
    refuses(
        dir.path(),
        &framed,
        &mfq_options_t { format: MFQ_RAW, ..small() },
        MFQ_E_INVALID,
        &["format", &name(&framed)],
    );
    refuses(dir.path(), &raw, &small(), MFQ_E_INVALID, &["format", &name(&raw)]);
    refuses(dir.path(), &raw, &mfq_options_t { format: MFQ_RAW, ..small() }, MFQ_E_INVALID, &["filler", &name(&raw)]);
    // What it has is found by itself.
    close(opened(&framed, &defaults()));
    close(opened(&raw, &mfq_options_t { file_size: 0, ..rocketmq }));
}

#[test]
fn paths_that_lead_nowhere() {
    let _alone = alone();
    let dir = scratch();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), b"text").unwrap();
    fs::create_dir(at("target")).unwrap();
    make_queue(&at("queue"), &small());
    std::os::unix::fs::symlink("target", at("link")).unwrap();
    std::os::unix::fs::symlink("queue", at("link to a queue")).unwrap();
    std::os::unix::fs::symlink("nothing", at("dangling")).unwrap();
    let existing = mfq_options_t { flags: MFQ_OPEN_EXISTING, ..small() };
    let reading = mfq_options_t { flags: MFQ_OPEN_READ_ONLY, ..small() };
    for options in [small(), existing, reading] {
        refuses(dir.path(), at("no/such/parent"), &options, MFQ_E_NOT_FOUND, &["no/such/parent"]);
        refuses(dir.path(), at("file"), &options, MFQ_E_INVALID, &["path", "file", "not a directory"]);
        for link in ["link", "link to a queue", "dangling"] {
            refuses(dir.path(), at(link), &options, MFQ_E_INVALID, &["path", link, "symbolic link"]);
            refuses(dir.path(), at(&format!("{link}//")), &options, MFQ_E_INVALID, &["symbolic link"]);
        }
        refuses(dir.path(), OsStr::new(""), &options, MFQ_E_INVALID, &["path"]);
    }
    for flags in [MFQ_OPEN_EXISTING, MFQ_OPEN_READ_ONLY] {
        let options = mfq_options_t { flags, ..small() };
        refuses(dir.path(), at("none"), &options, MFQ_E_NOT_FOUND, &["none"]);
        refuses(dir.path(), at("target"), &options, MFQ_E_NOT_FOUND, &["target"]);
    }
    // Through a link on the way there it is found.
    std::os::unix::fs::symlink(".", at("here")).unwrap();
    close(opened(&at("here/queue"), &small()));
}

#[test]
fn paths_are_bytes() {
    let _alone = alone();
    let dir = scratch();
    let path = dir.path().join(OsStr::from_bytes(b"not \xff\xfe UTF-8"));
    make_queue(&path, &small());
    let queue = opened(&path, &small());
    refuses(dir.path(), &path, &small(), MFQ_E_LOCKED, &["not ", " UTF-8"]);
    close(queue);
}

#[test]
fn a_directory_with_a_strange_file_a_gap_or_a_short_file() {
    let _alone = alone();
    let dir = scratch();
    let path = dir.path().join("queue");
    make_queue(&path, &small());
    let file = |start: u64| path.join(format!("{start:020}"));
    let reading = mfq_options_t { flags: MFQ_OPEN_READ_ONLY, ..small() };
    let is_corrupt = |names: &[&str]| {
        for options in [small(), mfq_options_t { ..reading }] {
            refuses(dir.path(), &path, &options, MFQ_E_CORRUPT, names);
        }
    };
    let strange = path.join("notes.txt");
    fs::write(&strange, b"").unwrap();
    is_corrupt(&[strange.to_str().unwrap()]);
    fs::remove_file(&strange).unwrap();

    let aside = dir.path().join("aside");
    fs::rename(file(page()), &aside).unwrap();
    is_corrupt(&[file(0).to_str().unwrap(), file(2 * page()).to_str().unwrap()]);
    fs::rename(&aside, file(page())).unwrap();

    fs::copy(file(page()), &aside).unwrap();
    fs::OpenOptions::new().write(true).open(file(page())).unwrap().set_len(page() / 2).unwrap();
    is_corrupt(&[file(page()).to_str().unwrap()]);
    fs::rename(&aside, file(page())).unwrap();
    close(opened(&path, &small()));
}

#[test]
fn a_queue_already_open_here_or_in_another_process() {
    let _alone = alone();
    let dir = scratch();
    let path = dir.path().join("queue");
    let reading = mfq_options_t { flags: MFQ_OPEN_READ_ONLY, ..small() };
    let queue = opened(&path, &small());
    for options in [&small(), &reading] {
        refuses(dir.path(), &path, options, MFQ_E_LOCKED, &[path.to_str().unwrap()]);
    }
    assert_eq!(append(queue, b"the owner goes on"), MFQ_OK);
    close(queue);
    let owner = victim("owns_a_queue", dir.path());
    for options in [&small(), &reading] {
        refuses(dir.path(), &path, options, MFQ_E_LOCKED, &[path.to_str().unwrap()]);
    }
    owner.kill();
    close(opened(&path, &small())); // the kernel let the lock go
}

#[test]
#[ignore = "started, and killed, by a_queue_already_open_here_or_in_another_process"]
fn owns_a_queue() {
    let Some(dir) = victims_directory() else { return };
    opened(&dir.join("queue"), &small());
    wait_to_be_killed("");
}

#[test]
fn a_directory_that_may_not_be_entered_or_written() {
    let _alone = alone();
    // SAFETY: takes and gives integers.
    if unsafe { libc::geteuid() } == 0 {
        // Root may do everything: the same as somebody else, in a process of its own.
        let dir = scratch();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let program = dir.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let mut nobody = Command::new(&program);
        nobody.uid(65534);
        let output = nobody
            .args(["--exact", "a_directory_that_may_not_be_entered_or_written"])
            .env("TMPDIR", dir.path())
            .env_remove("LD_LIBRARY_PATH")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let dir = scratch();
    let path = dir.path().join("queue");
    make_queue(&path, &small());
    let allow = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    allow(dir.path(), 0o500);
    refuses(dir.path(), dir.path().join("new"), &small(), MFQ_E_IO, &["new"]);
    allow(dir.path(), 0o700);
    let mut before = snapshot(dir.path());
    allow(&path, 0);
    assert_eq!(open(path.as_os_str(), &small()), Err(MFQ_E_IO));
    assert!(last_error().contains(path.to_str().unwrap()), "{}", last_error());
    // SAFETY: takes nothing.
    assert_eq!(unsafe { mfq_last_errno() }, libc::EACCES);
    allow(&path, 0o700);
    before.retain(|_, entry| entry.1 & libc::S_IFMT == libc::S_IFREG);
    let mut after = snapshot(dir.path());
    after.retain(|_, entry| entry.1 & libc::S_IFMT == libc::S_IFREG);
    assert_eq!(after, before);
}

#[test]
fn a_refused_append_changes_nothing() {
    let _alone = alone();
    let dir = scratch();
    let path = dir.path().join("queue");
    for (options, most) in [
        (small(), page() - 16),
        (mfq_options_t { format: MFQ_RAW, ..small() }, page()),
        (mfq_options_t { format: MFQ_RAW, filler: MFQ_FILLER_ROCKETMQ, ..small() }, page() - 8),
    ] {
        let queue = opened(&path, &options);
        assert_eq!(append(queue, b"x"), MFQ_OK);
        let mut stats = MaybeUninit::<mfq_stats_t>::zeroed();
        // SAFETY: zeros are valid for every field; the size is set before the call.
        let created = || unsafe {
            stats.assume_init_mut().struct_size = size_of::<mfq_stats_t>();
            assert_eq!(mfq_stats(queue, stats.as_mut_ptr()), MFQ_OK);
            stats.assume_init_ref().files_created
        };
        let mut created = created;
        support::eventually("the look-ahead is done", || created() == 3);
        support::eventually("its pages are ready", || {
            // SAFETY: as above.
            unsafe {
                mfq_stats(queue, stats.as_mut_ptr());
                stats.assume_init_ref().prefaulted_to == 3 * page()
            }
        });
        let before = snapshot(dir.path());
        let mut span = mfq_span_t { offset: 0x5a5a, end: 0x5a5a };
        let mut too_long = |len: usize| {
            let bytes = vec![1u8; len];
            // SAFETY: the bytes are as many as is said.
            let status = unsafe { mfq_append(queue, bytes.as_ptr().cast(), bytes.len(), &mut span) };
            assert_eq!((status, span.offset, span.end), (MFQ_E_TOO_LARGE, 0x5a5a, 0x5a5a), "{}", last_error());
            assert!(last_error().contains(&len.to_string()) && last_error().contains(&most.to_string()));
        };
        too_long(most as usize + 1);
        too_long(10 * page() as usize);
        let mut claim = MaybeUninit::<mfq_claim_t>::zeroed();
        for len in [most as usize + 1, usize::MAX] {
            // SAFETY: the place is valid for a claim.
            assert_eq!(unsafe { mfq_claim(queue, len, claim.as_mut_ptr()) }, MFQ_E_TOO_LARGE, "{}", last_error());
        }
        if options.format == MFQ_RAW {
            assert_eq!(append(queue, b""), MFQ_E_INVALID);
            assert!(last_error().contains("len is 0"), "{}", last_error());
        }
        assert_eq!(snapshot(dir.path()), before);
        assert_eq!(append(queue, &vec![b'y'; most as usize]), MFQ_OK);
        close(queue);
        fs::remove_dir_all(&path).unwrap();
    }
}
