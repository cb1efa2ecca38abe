//! Opening: a directory becomes a queue again, whatever state it was left in.
//!
//! After a clean close the checkpoint tells the end and nothing is read. After the death of the process the page cache
//! still holds every store: RECORD is walked from the checkpoint on, over whole frames and over claims that were never
//! finished; RAW's end is in the tail page. After a power cut (another boot, or another mount) pages are of different
//! ages: RECORD is cut at the first frame that is not whole, RAW behind the last byte that is not zero.
//!
//! Nothing is changed before everything has been found in order.

use crate::checkpoint::Checkpoint;
use crate::directory::{Directory, Listed};
use crate::error::{Error, Result, Status};
use crate::frame::Frame;
use crate::log::{self, Level};
use crate::mapped_file::MappedFile;
use crate::meta::Meta;
use crate::options::{Format, MOST_OFFSET, Options};
use crate::os::{Os, prepare_barriers};
use crate::queue::{Queue, Recovered, lost_page};
use crate::raw;
use crate::record::{CLAIMED, HEADER_BYTES, step};
use crate::tail::{Place, Tail};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What was found out about a queue's end, before anything is changed.
struct End {
    offset: u64,
    /// Claimed frames below it that nobody finished: the file's start, the position, the claimed length.
    unfinished: Vec<(u64, u64, u32)>,
    /// Bytes may lie behind it.
    dirty: bool,
}

impl End {
    fn at(offset: u64, dirty: bool) -> End {
        End { offset, unfinished: Vec::new(), dirty }
    }
}

impl Queue {
    /// Opens the queue in the directory `path`, or creates it there.
    pub fn open(os: Arc<dyn Os>, path: &Path, options: &Options) -> Result<Queue> {
        prepare_barriers();
        let page_bytes = os.page_size() as u64;
        options.check(page_bytes)?;
        let directory = Directory::open(os, path, options)?;
        let listed = directory.list()?;
        match directory.read_meta()? {
            Some(meta) => open_existing(directory, meta, listed, options),
            None => match listed.first() {
                Some(file) => {
                    let message = format!("{}: there is no meta file to explain it", directory.name(file.start));
                    Err(Error::new(Status::Corrupt, message))
                }
                None if options.read_only || options.existing => {
                    let message = format!("{}: there is no queue in it", directory.path.display());
                    Err(Error::new(Status::NotFound, message))
                }
                None => create(directory, options),
            },
        }
    }
}

fn create(directory: Directory, options: &Options) -> Result<Queue> {
    let file_bytes = options.new_file_bytes();
    let first_offset = options.start_offset - options.start_offset % file_bytes;
    let os = directory.os.clone();
    let seed = os.random().map_err(|cause| Error::system("a random seed", cause))?;
    let (format, filler) = (options.format, options.filler);
    let meta = Meta { format, filler, file_bytes, seed, created_ms: os.now_ms() };
    let checkpoint = Checkpoint { epoch: 1, durable: first_offset, first: first_offset, clean: false };
    directory.create_checkpoint(&checkpoint)?;
    let place = directory.place()?;
    directory.create_tail(place, first_offset)?;
    let tail = begin_tail(&directory, place, first_offset)?;
    directory.write_meta(&meta)?;
    let (files, end, tail) = (VecDeque::new(), first_offset, Some(tail));
    Queue::assemble(Recovered { directory, files, meta, end, checkpoint, tail }, options)
}

fn open_existing(directory: Directory, meta: Meta, mut listed: Vec<Listed>, options: &Options) -> Result<Queue> {
    check_same(&directory, &meta, options)?;
    let checkpoint = directory.read_checkpoint()?;
    let empty_last = listed.pop_if(|last| last.len == 0);
    check_files(&directory, &meta, &checkpoint, &listed)?;
    let writable = !options.read_only;
    let mut files = listed.iter().map(|file| map_file(&directory, file, writable)).collect::<Result<VecDeque<_>>>()?;

    let place = directory.place()?;
    let tail = directory.read_tail()?;
    let same_page_cache = tail.is_some_and(|(left_at, _)| left_at == place);
    let end = match meta.format {
        _ if checkpoint.clean => Ok(End::at(checkpoint.durable, false)),
        Format::Record => walk(&directory, &meta, &checkpoint, &files, same_page_cache),
        Format::Raw if same_page_cache => Ok(End::at(tail.map_or(0, |(_, committed)| committed), true)),
        Format::Raw => Ok(End::at(last_byte(&files, &checkpoint), true)),
    };
    check_intact(&directory, &files)?; // the zeros of a lost page are neither an end nor damage
    let end = end?;
    check_end(&directory, &checkpoint, &files, end.offset)?;

    let made_ahead = split_off_made_ahead(&mut files, end.offset);
    if options.read_only {
        // What was made ahead of the writer stays on disk, but the log does not go on in it.
        let recovered = Recovered { directory, files, meta, end: end.offset, checkpoint, tail: None };
        return Queue::assemble(recovered, options);
    }
    if !checkpoint.clean {
        let path = directory.path.display();
        log::write(Level::Info, format_args!("{path}: was not closed; it ends at {}", end.offset));
    }
    directory.remove_temporaries()?;
    if let Some(empty) = empty_last {
        directory.remove(empty.start)?;
    }
    // From the last one back, so that a crash in between leaves no gap.
    for file in made_ahead.iter().rev() {
        directory.remove(file.start())?;
    }
    settle(&directory, &meta, &files, checkpoint.durable, &end)?;
    check_intact(&directory, &files)?;
    // Whoever crashes from here on leaves a queue that is not clean.
    let checkpoint = Checkpoint { epoch: checkpoint.epoch + 1, clean: false, ..checkpoint };
    let tail = Some(begin_tail(&directory, place, end.offset)?);
    directory.write_checkpoint(&checkpoint)?;
    Queue::assemble(Recovered { directory, files, meta, end: end.offset, checkpoint, tail }, options)
}

/// What was read so far was read from the files themselves; see `Queue::check_intact`.
fn check_intact(directory: &Directory, files: &VecDeque<Arc<MappedFile>>) -> Result<()> {
    match files.iter().find(|file| !file.is_intact(0, file.size())) {
        Some(file) => Err(lost_page(&directory.name(file.start()))),
        None => Ok(()),
    }
}

/// Takes out the files that lie behind the end. The first file stays even if it is empty.
fn split_off_made_ahead(files: &mut VecDeque<Arc<MappedFile>>, end: u64) -> VecDeque<Arc<MappedFile>> {
    let kept = files.iter().enumerate().filter(|(index, file)| *index == 0 || file.start() < end).count();
    files.split_off(kept)
}

/// The options' wishes against what the queue is.
fn check_same(directory: &Directory, meta: &Meta, options: &Options) -> Result<()> {
    let path = directory.path.display();
    let invalid = |message: String| Err(Error::new(Status::Invalid, message));
    if options.format != meta.format {
        return invalid(format!("format is {:?}, but the queue {path} is {:?}", options.format, meta.format));
    }
    if options.filler != meta.filler {
        return invalid(format!("filler is {:?}, but the queue {path} has {:?}", options.filler, meta.filler));
    }
    if options.file_size != 0 && options.file_size != meta.file_bytes {
        let (asked, has) = (options.file_size, meta.file_bytes);
        return invalid(format!("file_size is {asked}, but the queue {path} has files of {has}"));
    }
    Ok(())
}

/// The files follow one another without a gap from the first offset, and each has its full length.
fn check_files(directory: &Directory, meta: &Meta, checkpoint: &Checkpoint, listed: &[Listed]) -> Result<()> {
    let corrupt = |message: String| Err(Error::new(Status::Corrupt, message));
    let name = |file: &Listed| directory.name(file.start);
    for file in listed {
        if file.start % meta.file_bytes != 0 || file.start > MOST_OFFSET - meta.file_bytes {
            return corrupt(format!("{}: its name is no multiple of the file size {}", name(file), meta.file_bytes));
        }
        if file.len != meta.file_bytes {
            return corrupt(format!("{}: is {} bytes long, not {}", name(file), file.len, meta.file_bytes));
        }
    }
    for pair in listed.windows(2) {
        if pair[0].start + meta.file_bytes != pair[1].start {
            return corrupt(format!("{}: there is a gap between it and {}", name(&pair[0]), name(&pair[1])));
        }
    }
    match listed.first() {
        Some(first) if first.start != checkpoint.first => {
            corrupt(format!("{}: is the first file, but the queue begins at {}", name(first), checkpoint.first))
        }
        None if checkpoint.durable > checkpoint.first => {
            let (first, durable) = (directory.name(checkpoint.first), checkpoint.durable);
            corrupt(format!("{first}: is missing, and everything from it to {durable}"))
        }
        _ => Ok(()),
    }
}

fn map_file(directory: &Directory, file: &Listed, writable: bool) -> Result<Arc<MappedFile>> {
    let fd = directory.open_file(file.start, writable)?;
    let map = directory.map(fd.as_fd(), file.start, file.len, writable)?;
    let mapped = MappedFile::new(directory.os.clone(), file.start, map);
    Ok(Arc::new(mapped))
}

fn check_end(
    directory: &Directory,
    checkpoint: &Checkpoint,
    files: &VecDeque<Arc<MappedFile>>,
    end: u64,
) -> Result<()> {
    let last = files.back().map_or(checkpoint.first, |last| last.end());
    if end < checkpoint.durable || end > last || end < checkpoint.first {
        let (path, durable) = (directory.path.display(), checkpoint.durable);
        let message = format!(
            "{path}: the files reach to {last} and the log in them to {end}, but everything below {durable} was durable"
        );
        return Err(Error::new(Status::Corrupt, message));
    }
    Ok(())
}

/// RECORD: where the log ends. Everything below the checkpoint's durable offset has to check.
fn walk(
    directory: &Directory,
    meta: &Meta,
    checkpoint: &Checkpoint,
    files: &VecDeque<Arc<MappedFile>>,
    same_page_cache: bool,
) -> Result<End> {
    let from = checkpoint.durable - checkpoint.durable % meta.file_bytes;
    let mut end = End::at(from.max(checkpoint.first), true);
    for file in files.iter().filter(|file| file.start() >= from) {
        let mut at = 0;
        while file.size() - at >= HEADER_BYTES {
            let word = u32::from_le(file.word(at).load(Ordering::Acquire));
            let frame = word & !CLAIMED;
            let placed = u64::from(frame) >= HEADER_BYTES && u64::from(frame) <= file.size() - at;
            let claimed = word & CLAIMED != 0;
            // What is durable was whole: there is no claim in it.
            let may_be_claimed = same_page_cache && file.start() + at >= checkpoint.durable;
            let whole = || Frame { file, seed: meta.seed, at, bytes: frame }.check().is_some();
            let passes = placed && if claimed { may_be_claimed } else { whole() };
            if !passes {
                end.offset = file.start() + at;
                if end.offset < checkpoint.durable {
                    let (name, offset, durable) = (directory.name(file.start()), end.offset, checkpoint.durable);
                    let message = format!("{name}: damaged at offset {offset}, below the durable offset {durable}");
                    return Err(Error::new(Status::Corrupt, message));
                }
                return Ok(end);
            }
            if claimed {
                end.unfinished.push((file.start(), at, frame));
            }
            at += step(word);
        }
        end.offset = file.end();
    }
    Ok(end)
}

/// RAW after a power cut: behind the last byte that is not zero, but not before what was durable.
fn last_byte(files: &VecDeque<Arc<MappedFile>>, checkpoint: &Checkpoint) -> u64 {
    for file in files.iter().rev() {
        let floor = checkpoint.durable.clamp(file.start(), file.end()) - file.start();
        let used = file.used_until(floor);
        if used > floor || file.contains(checkpoint.durable) {
            return file.start() + if ends_in_blank(file, used) { file.size() } else { used };
        }
    }
    checkpoint.durable
}

/// Whether the last bytes of a file that are not zero are RocketMQ's blank: the rest belongs to it.
fn ends_in_blank(file: &MappedFile, used: u64) -> bool {
    used.checked_sub(raw::BLANK_BYTES).is_some_and(|at| {
        let mut bytes = [0; raw::BLANK_BYTES as usize];
        file.read(at, &mut bytes);
        bytes == raw::blank(file.size() - at)
    })
}

/// Makes the files say what was found: what lies behind the end is zeroed and synced, unfinished claims become whole
/// padding.
fn settle(
    directory: &Directory,
    meta: &Meta,
    files: &VecDeque<Arc<MappedFile>>,
    durable: u64,
    end: &End,
) -> Result<()> {
    directory.sync()?;
    let sync = |file: &MappedFile, at: u64, len: u64| {
        let synced = file.sync(at, len);
        synced.map_err(|cause| Error::system(format_args!("{}: syncing", directory.name(file.start())), cause))
    };
    if let Some(last) = files.back().filter(|_| end.dirty) {
        let cut = end.offset - last.start();
        let used = last.used_until(cut);
        // SAFETY: the lock is held and the queue is not open yet: nobody else writes, and nothing past the end is
        // published.
        unsafe { last.zero(cut, (used - cut) as usize) };
        // To the file's end even where it was zero: an open that died here may have zeroed the page cache only.
        if cut < last.size() {
            sync(last, cut, last.size() - cut)?;
        }
    }
    for &(start, at, frame) in &end.unfinished {
        let index = (start - files[0].start()) / meta.file_bytes;
        let file = &files[index as usize];
        let frame = Frame { file, seed: meta.seed, at, bytes: frame };
        frame.fill_padding(directory.os.now_ms()); // it has no owner any more
        frame.publish();
    }
    for file in files {
        file.set_entry_durable();
        if end.dirty {
            dirty_again(directory, file, durable, end.offset)?;
        }
    }
    Ok(())
}

/// After a sync that failed the page cache may hold the only copy of records in pages that look clean (fsync(2), NOTES):
/// made dirty again, they are written by the next flush.
fn dirty_again(directory: &Directory, file: &MappedFile, durable: u64, end: u64) -> Result<()> {
    const STEP_BYTES: usize = 2 << 20;
    let from = durable.clamp(file.start(), file.end());
    let until = end.clamp(file.start(), file.end());
    for at in (from..until).step_by(STEP_BYTES) {
        let len = (until - at).min(STEP_BYTES as u64);
        let readied = file.populate(at - file.start(), len);
        readied.map_err(|cause| Error::system(directory.name(file.start()), cause))?;
    }
    Ok(())
}

fn begin_tail(directory: &Directory, place: Place, committed: u64) -> Result<Tail> {
    let map = directory.begin_tail(place, committed)?;
    Ok(Tail::over(MappedFile::new(directory.os.clone(), 0, map)))
}
