//! A disk that can lose its power: behind the library's system calls, over a directory that plays the page cache.
//!
//! What the library writes goes into the directory, so that its mappings are real ones. Beside it this keeps what a
//! power cut would leave:
//!
//! - *Data*: each page as it was when it was last synced, and every other content it was seen with since. The kernel
//!   writes a page back whenever it likes, so each of them may be what the disk has, whatever the other pages have.
//! - *Names and lengths*: in the order of the calls, as a journal has them (ext4, XFS): a power cut leaves the synced
//!   ones, and of those after them any number, but none without the ones before it. A sync of a directory makes its
//!   names durable; a sync of a file its length, not its name. An msync is as good as an fdatasync there: on Linux
//!   it is one, of a range (mm/msync.c: vfs_fsync_range).
//! - *A failed sync*: the pages look clean from then on, and no sync writes them until they are written to again, or made
//!   dirty (fsync(2), NOTES). Who has the file open besides, a mapping too, is told of it by the next sync, once (the same
//!   NOTES, since Linux 4.13).
#![allow(dead_code)] // each test uses a part of it

use mfq::os::{Advice, FileSystem, Lock, MmapRaw, Open, Os, Stat, native};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

pub const PAGE: usize = 4096;
const SECTOR: usize = 512;

type Inode = u64;
type Content = Arc<[u8; PAGE]>;

#[derive(Clone)]
struct Page {
    durable: Content,
    /// What it held since then, oldest first; the last is what it holds now.
    since: Vec<Content>,
    /// With this content it looks clean, although the sync of it failed.
    seems_clean: Option<Content>,
    /// The test's operation that changed it last.
    changed_at: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Make { directory: Inode, name: OsString, inode: Inode, is_directory: bool },
    Remove { directory: Inode, name: OsString },
    Rename { from: (Inode, OsString), to: (Inode, OsString) },
    Length { inode: Inode, len: u64 },
}

impl Change {
    fn names_in(&self, directory: Inode) -> bool {
        match self {
            Change::Make { directory: of, .. } | Change::Remove { directory: of, .. } => *of == directory,
            Change::Rename { from, to } => from.0 == directory || to.0 == directory,
            Change::Length { .. } => false,
        }
    }
}

/// Names and lengths.
#[derive(Clone, Default)]
struct Tree {
    directories: BTreeMap<Inode, BTreeMap<OsString, Inode>>,
    lengths: BTreeMap<Inode, u64>,
}

impl Tree {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Make { directory, name, inode, is_directory } => {
                self.names(*directory).insert(name.clone(), *inode);
                if *is_directory {
                    self.directories.entry(*inode).or_default();
                } else {
                    self.lengths.entry(*inode).or_default();
                }
            }
            Change::Remove { directory, name } => drop(self.names(*directory).remove(name)),
            Change::Rename { from, to } => {
                let inode = self.names(from.0).remove(&from.1).expect("what is renamed is there");
                self.names(to.0).insert(to.1.clone(), inode);
            }
            Change::Length { inode, len } => drop(self.lengths.insert(*inode, *len)),
        }
    }

    fn names(&mut self, directory: Inode) -> &mut BTreeMap<OsString, Inode> {
        self.directories.get_mut(&directory).expect("a directory that is there")
    }
}

/// What the disk and the page cache hold at one moment.
#[derive(Clone)]
struct State {
    root: Inode,
    durable: Tree,
    /// Changes since, in order.
    journal: Vec<Change>,
    files: BTreeMap<Inode, Vec<Page>>,
}

/// A directory as a power cut, or a kill, leaves it: paths below the disk's root, a directory's content being `None`.
pub type Image = BTreeMap<PathBuf, Option<Vec<u8>>>;

pub fn write_image(image: &Image, root: &Path) {
    for (path, content) in image {
        let path = root.join(path);
        match content {
            None => fs::create_dir(path).unwrap(),
            Some(bytes) => fs::write(path, bytes).unwrap(),
        }
    }
}

/// What the host has been told so far. In units of the test's own: they are only kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Told {
    /// Durable, as a flush or a close said.
    pub durable: u64,
    /// Calls that came back.
    pub returned: u64,
    /// Calls that began.
    pub begun: u64,
}

/// A moment at which the power may fail.
pub struct Moment {
    pub told: Told,
    pub before: String,
    operation: u64,
    state: State,
}

struct Inner {
    state: State,
    /// The page cache, by a description of its own for each file.
    live: HashMap<Inode, File>,
    /// Which file is mapped where.
    maps: HashMap<usize, Inode>,
    /// An fdatasync of it failed, and its mapping has not been told.
    untold: HashMap<Inode, i32>,
    operation: u64,
    hold_flush_thread: bool,
    /// What happened at each system call, if somebody wants to know.
    moments: Option<Vec<Moment>>,
}

pub struct SimDisk {
    os: Arc<dyn Os>,
    inner: Mutex<Inner>,
    released: Condvar,
    pub boot_id: [u8; 16],
    pub durable: AtomicU64,
    pub returned: AtomicU64,
    pub begun: AtomicU64,
}

fn inode_of(file: &File) -> Inode {
    file.metadata().expect("an open file").ino()
}

fn inode(fd: BorrowedFd<'_>) -> io::Result<Inode> {
    Ok(inode_of(&File::from(fd.try_clone_to_owned()?)))
}

fn contents(bytes: &[u8]) -> impl Iterator<Item = Content> {
    bytes.chunks(PAGE).map(|chunk| {
        let mut page = [0; PAGE];
        page[..chunk.len()].copy_from_slice(chunk);
        Arc::new(page)
    })
}

impl SimDisk {
    /// A disk whose root is this directory, and everything in it durable.
    pub fn new(root: &Path, boot_id: [u8; 16]) -> Arc<SimDisk> {
        SimDisk::over(native(), root, boot_id)
    }

    /// The same, where `os` may let calls fail.
    pub fn over(os: Arc<dyn Os>, root: &Path, boot_id: [u8; 16]) -> Arc<SimDisk> {
        let mut state = State {
            root: fs::metadata(root).unwrap().ino(),
            durable: Tree::default(),
            journal: Vec::new(),
            files: BTreeMap::new(),
        };
        let mut live = HashMap::new();
        let mut todo = vec![root.to_path_buf()];
        while let Some(path) = todo.pop() {
            let mut names = BTreeMap::new();
            for entry in fs::read_dir(&path).unwrap().map(Result::unwrap) {
                let at = entry.metadata().unwrap().ino();
                names.insert(entry.file_name(), at);
                if entry.file_type().unwrap().is_dir() {
                    todo.push(entry.path());
                    continue;
                }
                let bytes = fs::read(entry.path()).unwrap();
                let page = |durable| Page { durable, since: Vec::new(), seems_clean: None, changed_at: 0 };
                state.files.insert(at, contents(&bytes).map(page).collect());
                state.durable.lengths.insert(at, bytes.len() as u64);
                live.insert(at, File::open(entry.path()).unwrap());
            }
            state.durable.directories.insert(fs::metadata(&path).unwrap().ino(), names);
        }
        let (maps, moments) = (HashMap::new(), None);
        let inner =
            Inner { state, live, maps, untold: HashMap::new(), operation: 0, hold_flush_thread: false, moments };
        Arc::new(SimDisk {
            os,
            inner: Mutex::new(inner),
            released: Condvar::new(),
            boot_id,
            durable: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            begun: AtomicU64::new(0),
        })
    }

    /// The page cache has outlived a process: pages that differ from those of `synced` have not been synced.
    pub fn keep_unsynced(&self, root: &Path, synced: &Image) {
        let mut inner = self.lock();
        for (path, bytes) in synced.iter().filter_map(|(path, bytes)| Some((path, bytes.as_ref()?))) {
            let inode = fs::metadata(root.join(path)).expect("a file of the image").ino();
            for (page, durable) in inner.pages(inode, 0..usize::MAX).zip(contents(bytes)) {
                let now = std::mem::replace(&mut page.durable, durable);
                page.since.extend((now != page.durable).then_some(now));
            }
        }
    }

    /// Every system call from now on is a moment.
    pub fn record(&self) {
        self.lock().moments = Some(Vec::new());
    }

    pub fn moments(&self) -> Vec<Moment> {
        self.lock().moments.take().unwrap_or_default()
    }

    /// The test's own operation is over: it is a moment, too, and what changes from here on belongs to the next one.
    pub fn operation(&self, what: &str) {
        let told = self.told_before();
        let mut inner = self.lock();
        self.look(&mut inner, told, what);
        inner.operation += 1;
    }

    /// Syncs of the flush thread hang, so that they come later than anything else. Not over the end of a queue,
    /// which may wait for that thread.
    pub fn hold_flush_thread(&self, hold: bool) {
        self.lock().hold_flush_thread = hold;
        self.released.notify_all();
    }

    pub fn holds_flush_thread(&self) -> bool {
        self.lock().hold_flush_thread
    }

    /// What a kill of the process would leave now.
    pub fn kill(&self) -> Image {
        let mut inner = self.lock();
        inner.observe();
        inner.state.image(inner.state.journal.len(), |_, _, page| newest(page).clone())
    }

    /// The least that a power cut would leave now.
    pub fn power_cut(&self) -> Image {
        let mut inner = self.lock();
        inner.observe();
        inner.state.image(0, |_, _, page| page.durable.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// To be asked before the page cache is looked at, as it may move on meanwhile. What a call that has returned took
    /// back is not called durable any more.
    fn told_before(&self) -> (u64, u64) {
        let returned = self.returned.load(Ordering::SeqCst);
        (returned, self.durable.load(Ordering::SeqCst))
    }

    fn look(&self, inner: &mut Inner, (returned, durable): (u64, u64), before: &str) {
        inner.observe();
        let told = Told { durable, returned, begun: self.begun.load(Ordering::SeqCst) };
        let (state, operation) = (&inner.state, inner.operation);
        if let Some(moments) = &mut inner.moments {
            moments.push(Moment { told, before: before.into(), operation, state: state.clone() });
        }
    }

    /// One system call that changes something: a moment, then the call, then what the disk has to know of it.
    fn call<T>(
        &self,
        what: impl FnOnce() -> String,
        call: impl FnOnce() -> io::Result<T>,
        done: impl FnOnce(&mut Inner, &T) -> io::Result<()>,
    ) -> io::Result<T> {
        let told = self.told_before();
        let mut inner = self.lock();
        let what = if inner.moments.is_some() { what() } else { String::new() };
        self.look(&mut inner, told, &what);
        let answer = call()?;
        done(&mut inner, &answer)?;
        inner.observe();
        Ok(answer)
    }

    /// A sync of these pages of a file.
    fn sync_pages(
        &self,
        what: &str,
        inode: Inode,
        pages: Range<usize>,
        call: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let told = self.told_before();
        let mut inner = self.lock();
        self.look(&mut inner, told, what);
        let answer = call();
        match answer {
            Ok(()) => inner.sync(inode, pages),
            Err(ref cause) => {
                inner.pages(inode, pages).for_each(|page| page.seems_clean = Some(newest(page).clone()));
                let by_descriptor = what == "fdatasync"; // who fails by the mapping is told so
                inner.untold.extend(cause.raw_os_error().filter(|_| by_descriptor).map(|errno| (inode, errno)));
            }
        }
        answer
    }

    fn wait_if_held(&self) {
        if thread::current().name() == Some("mfq-flush") {
            let mut inner = self.lock();
            while inner.hold_flush_thread {
                inner = self.released.wait(inner).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
        }
    }
}

impl Inner {
    /// Notes what the page cache holds now. Looked at twice without a change it held all of that at one moment,
    /// whatever another thread stores meanwhile.
    fn observe(&mut self) {
        while self.observe_changes() {}
    }

    fn observe_changes(&mut self) -> bool {
        let mut changed = false;
        for (inode, file) in &self.live {
            let len = file.metadata().expect("an open file").len() as usize;
            let mut bytes = vec![0; len];
            let n = file.read_at(&mut bytes, 0).expect("the page cache can be read");
            assert_eq!(n, len, "read in one go");
            let pages = self.state.files.entry(*inode).or_default();
            for (index, chunk) in bytes.chunks(PAGE).enumerate() {
                if index == pages.len() {
                    let zeros = Arc::new([0; PAGE]);
                    pages.push(Page { durable: zeros, since: Vec::new(), seems_clean: None, changed_at: 0 });
                }
                let page = &mut pages[index];
                let (now, rest) = page.since.last().unwrap_or(&page.durable).split_at(chunk.len());
                if now != chunk || rest.iter().any(|&byte| byte != 0) {
                    page.since.extend(contents(chunk));
                    page.changed_at = self.operation;
                    changed = true;
                }
            }
        }
        changed
    }

    fn pages(&mut self, inode: Inode, pages: Range<usize>) -> impl Iterator<Item = &mut Page> {
        self.state.files.entry(inode).or_default().iter_mut().take(pages.end).skip(pages.start)
    }

    fn dirty(&mut self, inode: Inode, pages: Range<usize>) {
        self.pages(inode, pages).for_each(|page| page.seems_clean = None);
    }

    /// These pages are on stable storage, and the file's length with them.
    fn sync(&mut self, inode: Inode, pages: Range<usize>) {
        self.observe();
        for page in self.pages(inode, pages) {
            if page.seems_clean.as_ref() != Some(newest(page))
                && let Some(now) = page.since.pop()
            {
                page.durable = now;
                page.since.clear();
            }
        }
        self.settle(|change| matches!(change, Change::Length { inode: of, .. } if *of == inode));
    }

    /// The journal is durable up to the last change of this kind.
    fn settle(&mut self, kind: impl Fn(&Change) -> bool) {
        let State { durable, journal, .. } = &mut self.state;
        let until = journal.iter().rposition(kind).map_or(0, |last| last + 1);
        journal.drain(..until).for_each(|change| durable.apply(&change));
    }

    fn note(&mut self, change: Change) {
        self.state.journal.push(change);
    }

    /// A file is there, which was perhaps made just now.
    fn track(&mut self, fd: BorrowedFd<'_>) -> io::Result<Inode> {
        let inode = inode(fd)?;
        if let Entry::Vacant(place) = self.live.entry(inode) {
            // A description of its own: a copy of the lock's would hold the lock.
            place.insert(File::open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?);
        }
        Ok(inode)
    }

    fn forget(&mut self, directory: Inode, name: &Path) {
        let mut now = self.state.durable.clone();
        self.state.journal.iter().for_each(|change| now.apply(change));
        if let Some(inode) = now.names(directory).get(name.as_os_str()) {
            self.live.remove(inode); // its pages stay for a power cut that comes before the removal
        }
    }
}

impl State {
    /// What the disk holds with the first `changes` of the journal, each page as `choose` says.
    fn image(&self, changes: usize, mut choose: impl FnMut(Inode, usize, &Page) -> Content) -> Image {
        let mut tree = self.durable.clone();
        self.journal[..changes].iter().for_each(|change| tree.apply(change));
        let mut image = Image::new();
        let mut todo = vec![(PathBuf::new(), self.root)];
        while let Some((path, directory)) = todo.pop() {
            for (name, inode) in &tree.directories[&directory] {
                let path = path.join(name);
                if tree.directories.contains_key(inode) {
                    todo.push((path.clone(), *inode));
                    image.insert(path, None);
                    continue;
                }
                let mut bytes = Vec::new();
                for (index, page) in self.files.get(inode).into_iter().flatten().enumerate() {
                    bytes.extend_from_slice(&choose(*inode, index, page)[..]);
                }
                bytes.resize(tree.lengths[inode] as usize, 0);
                image.insert(path, Some(bytes));
            }
        }
        image
    }
}

/// A small pseudo-random sequence (splitmix64), the same at every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

/// Pages changed by so many operations up to now are lost and kept in all combinations.
const OPERATIONS: u64 = 3;

impl Moment {
    /// What a kill of the process leaves: the page cache.
    pub fn kill(&self) -> Image {
        self.state.image(self.state.journal.len(), |_, _, page| newest(page).clone())
    }

    /// The same, of each page what was synced.
    pub fn synced(&self) -> Image {
        self.state.image(self.state.journal.len(), |_, _, page| page.durable.clone())
    }

    /// What a power cut may leave, at most about so many of it: every combination of what the pages changed by the last
    /// operations have held since their sync, the older ones all lost or all kept; of the journal any beginning. More
    /// than `most` are sampled at even distances, and each page lost alone, kept alone, and kept up to it is among them
    /// in any case.
    pub fn power_cuts(&self, most: u64, dice: &mut Dice) -> BTreeSet<Image> {
        let state = &self.state;
        let mut images = BTreeSet::new();
        let dirty: Vec<(Inode, usize, &Page)> = state
            .files
            .iter()
            .flat_map(|(inode, pages)| pages.iter().enumerate().map(|(index, page)| (*inode, index, page)))
            .filter(|(_, _, page)| !page.since.is_empty())
            .collect();
        let journal = state.journal.len();
        // By the index of what is chosen: 0 is the durable content.
        let mut add = |changes: usize, chosen: &dyn Fn(usize) -> usize| {
            images.insert(state.image(changes, |inode, index, page| {
                match dirty.iter().position(|&(i, p, _)| (i, p) == (inode, index)) {
                    Some(which) => content(page, chosen(which)).clone(),
                    None => page.durable.clone(),
                }
            }));
        };

        let kept = |which: usize| dirty[which].2.since.len();
        for changes in 0..=journal {
            add(changes, &|_| 0);
            add(changes, &|which| kept(which));
        }
        for this in 0..dirty.len() {
            let changes = journal - dice.below(journal as u64 + 1) as usize / 2;
            add(changes, &|which| if which == this { 0 } else { kept(which) });
            add(changes, &|which| if which == this { kept(which) } else { 0 });
            add(changes, &|which| if which <= this { kept(which) } else { 0 });
        }

        // A number for each combination, one digit for each page: the journal first, then the old pages as one.
        let is_recent = |page: &Page| page.changed_at + OPERATIONS > self.operation;
        let radixes: Vec<u64> = [journal as u64 + 1, 2]
            .into_iter()
            .chain(dirty.iter().map(|(_, _, page)| if is_recent(page) { page.since.len() as u64 + 1 } else { 1 }))
            .collect();
        let all = radixes.iter().fold(1u64, |all, &radix| all.saturating_mul(radix));
        let step = all.div_ceil(most).max(1);
        let mut number = dice.below(step);
        while number < all {
            let mut rest = number;
            let digits: Vec<usize> = radixes
                .iter()
                .map(|&radix| {
                    let digit = rest % radix;
                    rest /= radix;
                    digit as usize
                })
                .collect();
            add(digits[0], &|which| match is_recent(dirty[which].2) {
                true => digits[2 + which],
                false => digits[1] * kept(which),
            });
            number = match number.checked_add(1 + dice.below(2 * step - 1)) {
                Some(next) => next,
                None => break,
            };
        }
        images
    }

    /// The page changed last, torn: every subset of the sectors in which it differs from what it held before is
    /// written, everything else kept (and, with `lost`, lost).
    pub fn torn(&self) -> BTreeSet<Image> {
        let state = &self.state;
        let mut images = BTreeSet::new();
        for (inode, pages) in &state.files {
            for (index, page) in pages.iter().enumerate() {
                if page.since.is_empty() || page.changed_at != self.operation {
                    continue;
                }
                let new = newest(page);
                for old in [&page.durable, content(page, page.since.len() - 1)] {
                    let sector = |at: usize| at * SECTOR..(at + 1) * SECTOR;
                    let differ: Vec<_> =
                        (0..PAGE / SECTOR).map(sector).filter(|s| old[s.clone()] != new[s.clone()]).collect();
                    for subset in 0..1u32 << differ.len() {
                        let mut torn = **old;
                        for (_, s) in differ.iter().enumerate().filter(|(bit, _)| subset & 1 << bit != 0) {
                            torn[s.clone()].copy_from_slice(&new[s.clone()]);
                        }
                        let torn = Arc::new(torn);
                        images.insert(state.image(state.journal.len(), |i, p, other| {
                            match (i, p) == (*inode, index) {
                                true => torn.clone(),
                                false => newest(other).clone(),
                            }
                        }));
                    }
                }
            }
        }
        images
    }
}

fn newest(page: &Page) -> &Content {
    content(page, page.since.len())
}

fn content(page: &Page, which: usize) -> &Content {
    which.checked_sub(1).map_or(&page.durable, |since| &page.since[since])
}

fn touched(offset: usize, len: usize) -> Range<usize> {
    offset / PAGE..(offset + len).div_ceil(PAGE)
}

fn named(path: &Path) -> OsString {
    path.file_name().expect("a name").to_owned()
}

impl SimDisk {
    fn mapped(&self, map: &MmapRaw) -> Inode {
        self.lock().maps[&(map.as_ptr() as usize)]
    }

    fn directory_of(&self, dir: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<Inode> {
        match dir {
            Some(dir) => inode(dir),
            None => Ok(fs::metadata(path.parent().expect("a path with a parent"))?.ino()),
        }
    }

    fn renaming(
        &self,
        from: (BorrowedFd<'_>, &Path),
        to: (BorrowedFd<'_>, &Path),
        call: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let (from, to) = ((inode(from.0)?, from.1), (inode(to.0)?, to.1));
        let renamed = |inner: &mut Inner, _: &()| {
            inner.forget(to.0, to.1);
            inner.note(Change::Rename { from: (from.0, named(from.1)), to: (to.0, named(to.1)) });
            Ok(())
        };
        self.call(|| format!("rename to {}", to.1.display()), call, renamed)
    }
}

impl Os for SimDisk {
    fn open(&self, dir: Option<BorrowedFd<'_>>, path: &Path, how: Open) -> io::Result<OwnedFd> {
        if !matches!(how, Open::Create { .. } | Open::CreateNew { .. }) {
            let fd = self.os.open(dir, path, how)?;
            return Ok(fd);
        }
        let directory = self.directory_of(dir, path)?;
        let was_there = native().stat(dir, path).is_ok(); // only one thread makes this name
        let call = || self.os.open(dir, path, how);
        let opened = |inner: &mut Inner, fd: &OwnedFd| {
            let inode = inner.track(fd.as_fd())?;
            if !was_there {
                inner.note(Change::Make { directory, name: named(path), inode, is_directory: false });
            }
            Ok(())
        };
        self.call(|| format!("create {}", path.display()), call, opened)
    }

    fn make_directory(&self, dir: Option<BorrowedFd<'_>>, path: &Path, permissions: u32) -> io::Result<()> {
        let directory = self.directory_of(dir, path)?;
        let call = || self.os.make_directory(dir, path, permissions);
        let made = |inner: &mut Inner, _: &()| {
            let inode = inode(native().open(dir, path, Open::Directory)?.as_fd())?;
            inner.note(Change::Make { directory, name: named(path), inode, is_directory: true });
            Ok(())
        };
        self.call(|| format!("mkdir {}", path.display()), call, made)
    }

    fn stat(&self, dir: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<Stat> {
        self.os.stat(dir, path)
    }

    fn list(&self, dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
        self.os.list(dir)
    }

    fn rename(&self, from: (BorrowedFd<'_>, &Path), to: (BorrowedFd<'_>, &Path)) -> io::Result<()> {
        self.renaming(from, to, || self.os.rename(from, to))
    }

    fn rename_new(&self, from: (BorrowedFd<'_>, &Path), to: (BorrowedFd<'_>, &Path)) -> io::Result<()> {
        self.renaming(from, to, || self.os.rename_new(from, to))
    }

    fn unlink(&self, dir: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        let directory = inode(dir)?;
        let removed = |inner: &mut Inner, _: &()| {
            inner.forget(directory, path);
            inner.note(Change::Remove { directory, name: named(path) });
            Ok(())
        };
        self.call(|| format!("unlink {}", path.display()), || self.os.unlink(dir, path), removed)
    }

    fn file_system(&self, fd: BorrowedFd<'_>) -> io::Result<FileSystem> {
        self.os.file_system(fd)
    }

    fn write_in_place(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.os.write_in_place(fd)
    }

    fn lock(&self, fd: BorrowedFd<'_>, how: Lock) -> io::Result<()> {
        self.os.lock(fd, how)
    }

    fn allocate(&self, fd: BorrowedFd<'_>, len: u64) -> io::Result<()> {
        let allocated = |inner: &mut Inner, _: &()| {
            let inode = inner.track(fd)?;
            inner.note(Change::Length { inode, len });
            Ok(())
        };
        self.call(|| "fallocate".into(), || self.os.allocate(fd, len), allocated)
    }

    fn read_at(&self, fd: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.os.read_at(fd, buf, offset)
    }

    fn write_at(&self, fd: BorrowedFd<'_>, buf: &[u8], offset: u64) -> io::Result<usize> {
        let before = File::from(fd.try_clone_to_owned()?).metadata()?.len();
        let written = |inner: &mut Inner, n: &usize| {
            let (inode, len) = (inner.track(fd)?, offset + *n as u64);
            if len > before {
                inner.note(Change::Length { inode, len });
            }
            inner.dirty(inode, touched(offset as usize, *n)); // with the same bytes, too
            Ok(())
        };
        self.call(|| "pwrite".into(), || self.os.write_at(fd, buf, offset), written)
    }

    fn sync_directory(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        self.wait_if_held();
        let directory = inode(dir)?;
        let synced = |inner: &mut Inner, _: &()| {
            inner.settle(|change| change.names_in(directory));
            Ok(())
        };
        self.call(|| "fsync of a directory".into(), || self.os.sync_directory(dir), synced)
    }

    fn sync_data(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.wait_if_held();
        let inode = self.lock().track(fd)?;
        self.sync_pages("fdatasync", inode, 0..usize::MAX, || self.os.sync_data(fd))
    }

    fn map(&self, fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<MmapRaw> {
        let mut inner = self.lock();
        let map = self.os.map(fd, len, writable)?;
        let inode = inner.track(fd)?;
        inner.maps.insert(map.as_ptr() as usize, inode);
        Ok(map)
    }

    fn map_private(&self, file: Option<BorrowedFd<'_>>, len: usize) -> io::Result<MmapRaw> {
        let mut inner = self.lock();
        let map = self.os.map_private(file, len)?;
        inner.maps.remove(&(map.as_ptr() as usize)); // of what was mapped there before
        Ok(map)
    }

    fn map_over(&self, map: &MmapRaw, file: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<()> {
        self.os.map_over(map, file, offset, len)?;
        if offset + len == map.len() {
            let mut inner = self.lock(); // up to its end the file has taken the memory's place
            let inode = inner.track(file)?;
            inner.maps.insert(map.as_ptr() as usize, inode);
        }
        Ok(())
    }

    fn lock_memory(&self, map: &MmapRaw) -> io::Result<()> {
        self.os.lock_memory(map)
    }

    fn device(&self, fd: BorrowedFd<'_>) -> io::Result<u64> {
        self.os.device(fd)
    }

    fn advise(&self, map: &MmapRaw, advice: Advice, offset: usize, len: usize) -> io::Result<()> {
        self.os.advise(map, advice, offset, len)?;
        let mut inner = self.lock();
        if matches!(advice, Advice::PopulateWrite)
            && let Some(&inode) = inner.maps.get(&(map.as_ptr() as usize))
        {
            inner.dirty(inode, touched(offset, len));
        }
        Ok(())
    }

    fn sync_range(&self, map: &MmapRaw, offset: usize, len: usize) -> io::Result<()> {
        let inode = self.mapped(map);
        self.sync_pages("msync", inode, touched(offset, len), || self.os.sync_range(map, offset, len))?;
        match self.lock().untold.remove(&inode) {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }

    fn page_size(&self) -> usize {
        PAGE
    }

    fn now_ms(&self) -> u64 {
        1_700_000_000_000 // the same bytes at every run
    }

    fn boot_id(&self) -> io::Result<[u8; 16]> {
        self.os.boot_id().map(|_| self.boot_id)
    }

    fn mount_id(&self, fd: BorrowedFd<'_>) -> io::Result<u64> {
        self.os.mount_id(fd)
    }

    fn random(&self) -> io::Result<u64> {
        self.os.random().map(|_| 0x5EED)
    }
}
