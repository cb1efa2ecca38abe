//! A real disk, which can lose its power if it is ext4: a loop device over a file in memory. Needs root.
//!
//! All of it lives in a mount namespace of the calling thread, and the loop device clears itself: whatever becomes of
//! the test, nothing is left behind. Processes that the thread starts see the disk; other threads do not.
#![allow(dead_code)] // each test uses a part of it

use super::engine::eventually;
use std::ffi::CString;
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, ptr};
use tempfile::TempDir;

/// linux/loop.h
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// fs/ext4/ext4.h: what is not on the disk yet never gets there, the journal included.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587D;
const EXT4_GOING_FLAGS_NOLOGFLUSH: u32 = 2;

pub struct Disk {
    file_system: &'static str,
    work: TempDir,
    image: File,
}

impl Disk {
    /// With an empty ext4 of so many MiB, mounted. `None`, and says why, where that cannot be had; under CI=true it
    /// must.
    pub fn new(mib: u64) -> Option<Disk> {
        Disk::of("ext4", mib)
    }

    /// The same with another file system.
    pub fn of(file_system: &'static str, mib: u64) -> Option<Disk> {
        let made = Disk::try_new(file_system, mib);
        if let Err(cause) = &made {
            assert_ne!(env::var("CI").as_deref(), Ok("true"), "no disk of one's own to be had: {cause}");
            eprintln!("not tested: it takes root, a loop device and mkfs.{file_system}: {cause}");
        }
        made.ok()
    }

    fn try_new(file_system: &'static str, mib: u64) -> Result<Disk> {
        // SAFETY: takes integers only.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        // SAFETY: NUL-terminated strings that outlive the call, or none.
        check(unsafe {
            let alone = libc::MS_REC | libc::MS_PRIVATE;
            libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), alone, ptr::null())
        })?;
        let work = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let image = File::options().read(true).write(true).create_new(true).open(work.path().join("image"))?;
        image.set_len(mib << 20)?;
        fs::create_dir(work.path().join("mnt"))?;
        let disk = Disk { file_system, work, image };
        disk.format()?;
        disk.mount()?;
        Ok(disk)
    }

    pub fn path(&self) -> PathBuf {
        self.work.path().join("mnt")
    }

    /// For what has to outlive the disk's power.
    pub fn beside(&self) -> &Path {
        self.work.path()
    }

    fn format(&self) -> Result<()> {
        let over_whatever_is_there = if self.file_system == "ext4" { "-F" } else { "-f" };
        let mut command = Command::new(format!("mkfs.{}", self.file_system));
        let made = command.args(["-q", over_whatever_is_there]).arg(self.work.path().join("image")).output()?;
        if !made.status.success() {
            return Err(Error::other(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        Ok(())
    }

    /// Over a device of its own, whose cache ends with the mount: ext4 leaves blocks in it that it has not committed.
    pub fn mount(&self) -> Result<()> {
        let (_device, path) = attach(&self.image)?;
        let (device, at, kind) = (c_path(&path), c_path(&self.path()), CString::new(self.file_system).unwrap());
        // SAFETY: NUL-terminated strings that outlive the call.
        check(unsafe { libc::mount(device.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, ptr::null()) })
    }

    /// Once nobody uses it any more: the kernel may take a moment to see that.
    pub fn unmount(&self) {
        let at = c_path(&self.path());
        // SAFETY: a NUL-terminated string that outlives the call.
        eventually("the disk is unmounted", || unsafe { libc::umount2(at.as_ptr(), 0) } == 0);
    }

    /// ext4: nothing is written from now on.
    pub fn cut_power(&self) {
        let at = File::open(self.path()).unwrap();
        ioctl(at.as_raw_fd(), EXT4_IOC_SHUTDOWN, &EXT4_GOING_FLAGS_NOLOGFLUSH).unwrap();
    }

    /// Whoever used the disk has to be gone. The journal is replayed.
    pub fn restart(&self) {
        self.unmount();
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let at = c_path(&self.path());
        // SAFETY: a NUL-terminated string. Detached, so that what a failed test still holds cannot keep it.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
    }
}

fn attach(image: &File) -> Result<(File, PathBuf)> {
    let control = File::open("/dev/loop-control")?;
    // struct loop_config: the file, the block size, struct loop_info64 with the flags at byte 52.
    let mut config = [0u32; 76];
    config[0] = image.as_raw_fd() as u32;
    config[2 + 13] = LO_FLAGS_AUTOCLEAR;
    loop {
        let index = ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE, ptr::null::<u32>())?;
        let path = PathBuf::from(format!("/dev/loop{index}"));
        let device = File::options().read(true).write(true).open(&path)?;
        match ioctl(device.as_raw_fd(), LOOP_CONFIGURE, config.as_ptr()) {
            Err(cause) if cause.raw_os_error() == Some(libc::EBUSY) => {} // somebody was faster
            done => return done.map(|_| (device, path)),
        }
    }
}

fn ioctl<T>(fd: RawFd, what: libc::c_ulong, argument: *const T) -> Result<i32> {
    // SAFETY: each caller passes what the request of that number reads, alive until the call returns.
    let answer = unsafe { libc::ioctl(fd, what, argument) };
    if answer < 0 { Err(Error::last_os_error()) } else { Ok(answer) }
}

fn check(answer: i32) -> Result<()> {
    if answer == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}
