//! Opening: a directory becomes a queue again, whatever state it was left in.
//!
//! After a clean close the checkpoint tells the end and nothing is read. After the death of the process the page cache
//! still holds every store: RECORD is walked from the checkpoint on, over whole frames and over claims that were never
//! finished; RAW's end is in the tail page. After a power cut (another boot, or another mount) pages are of different
//! ages: RECORD is cut at the first frame that is not whole ([`crate::scan`]), RAW where the host's walker says or
//! behind the last byte that is not zero ([`crate::walk`]).
//!
//! Nothing is changed before everything has been found in order.

use crate::checkpoint::Checkpoint;
use crate::directory::{Directory, Listed, check_adjacent, pop_empty_last};
use crate::error::{Error, Result, Status};
use crate::frame::Frame;
use crate::log::{self, Level};
use crate::mapped_file::MappedFile;
use crate::meta::Meta;
use crate::options::{Format, MOST_OFFSET, Mode, Options};
use crate::os::{Os, prepare_barriers};
use crate::pool::Pool;
use crate::queue::{OpenQueue, Queue, Recovered, lost_page};
use crate::queue_files::stage;
use crate::raw;
use crate::record::{ALIGNMENT, HEADER_BYTES, step};
use crate::report::{Ended, Recovery};
use crate::scan::{End, Scan, Stretch};
use crate::walk::{last_byte, units_end};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

impl Queue {
    /// Opens the queue in the directory `path`, or creates it there.
    pub fn open(os: Arc<dyn Os>, path: &Path, options: &Options) -> Result<OpenQueue> {
        prepare_barriers();
        let page_bytes = os.page_size() as u64;
        options.check(page_bytes)?;
        let directory = Directory::open(os, path, options)?;
        let mut listed = directory.list()?;
        match directory.read_meta()? {
            Some(meta) => open_existing(directory, meta, listed, options, false),
            None if options.adopt && !options.read_only => {
                pop_empty_last(&mut listed);
                if listed.is_empty() { create(directory, options) } else { adopt(directory, listed, options) }
            }
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

    /// What opening it found.
    pub fn recovery(&self) -> Result<Recovery> {
        self.check_open()?;
        Ok(self.recovery)
    }
}

fn create(directory: Directory, options: &Options) -> Result<OpenQueue> {
    let first = options.start_offset - options.start_offset % options.new_file_bytes();
    let pool = open_pool(&directory, options, options.new_file_bytes())?;
    let (meta, checkpoint, tail) = begin(&directory, options, first, first)?;
    let recovery = Recovery::intact(Ended::Created, first);
    let (files, tail) = (VecDeque::new(), Some(tail));
    Queue::assemble(Recovered { directory, files, meta, recovery, checkpoint, tail, pool }, options)
}

/// The private files of a new queue. It exists once the last of them, the meta, is there.
fn begin(directory: &Directory, options: &Options, first: u64, end: u64) -> Result<(Meta, Checkpoint, OwnedFd)> {
    let os = directory.os.clone();
    let seed = os.random().map_err(|cause| Error::system("a random seed", cause))?;
    let (format, filler, file_bytes) = (options.format, options.filler, options.new_file_bytes());
    let meta = Meta { format, filler, file_bytes, seed, created_ms: os.now_ms() };
    let checkpoint = Checkpoint { epoch: 1, durable: first, first, clean: false };
    directory.create_checkpoint(&checkpoint)?;
    let place = directory.place()?;
    directory.create_tail(place, end)?;
    let tail = directory.begin_tail(place, end)?;
    directory.write_meta(&meta)?;
    Ok((meta, checkpoint, tail))
}

/// Makes a queue of files that somebody else has written, and opens it as one whose process died where they end. Until
/// the meta is there, nothing of it counts and the files are as they were.
fn adopt(directory: Directory, listed: Vec<Listed>, options: &Options) -> Result<OpenQueue> {
    check_adjacent(&directory.path, options.file_size, &listed)?;
    let files = listed.iter().map(|file| map_file(&directory, file, Changes::None)).collect::<Result<VecDeque<_>>>()?;
    let first = listed[0].start;
    let end = adopted_end(&directory, &files, options);
    check_intact(&directory, &files)?; // the zeros of a lost page are no end
    let end = end?;
    // Sparse, perhaps: a store into a page without a block would end the process once the disk is full.
    if let Some(last) = listed.iter().rev().find(|file| file.start < end) {
        directory.reserve(last.start, last.len)?;
    }
    drop(files);
    let (meta, ..) = begin(&directory, options, first, end)?;
    open_existing(directory, meta, listed, options, true)
}

/// Where the data in files of unknown origin ends: in the last file that holds any.
fn adopted_end(directory: &Directory, files: &VecDeque<Arc<MappedFile>>, options: &Options) -> Result<u64> {
    let Some(walk) = &options.walk else { return Ok(last_byte(files, files[0].start())) };
    let Some(last) = files.iter().rposition(|file| file.used_until(0) > 0) else { return Ok(files[0].start()) };
    // From the file before it on, so that the first unit of the last one may be torn.
    let from = files[last.saturating_sub(1)].start();
    let end = units_end(files, options.filler, walk, from);
    if end < files[last].start() || end == from {
        let message =
            format!("{}: no unit that `walk` accepts at offset {end}", directory.name(end - end % options.file_size));
        return Err(Error::new(Status::Corrupt, message));
    }
    Ok(end)
}

fn open_existing(
    directory: Directory,
    meta: Meta,
    mut listed: Vec<Listed>,
    options: &Options,
    adopted: bool,
) -> Result<OpenQueue> {
    check_same(&directory, &meta, options)?;
    let empty_last = pop_empty_last(&mut listed);
    check_adjacent(&directory.path, meta.file_bytes, &listed)?;
    let checkpoint = directory.read_checkpoint()?.ok_or_else(|| directory.no_checkpoint());
    let checkpoint = checkpoint.and_then(|found| check_checkpoint(&directory, &meta, &found).map(|()| found));
    let (checkpoint, checkpoint_lost) = match checkpoint {
        Ok(checkpoint) => (checkpoint, false),
        Err(_) if options.salvage => {
            let first = listed.first().map_or(0, |file| file.start);
            (Checkpoint { epoch: 0, durable: first, first, clean: false }, true)
        }
        Err(error) => return Err(error),
    };
    // A truncation that died left them.
    let removed_before = listed.partition_point(|file| file.start < checkpoint.first);
    let removed_before: Vec<Listed> = listed.drain(..removed_before).collect();
    check_first(&directory, &checkpoint, &listed)?;
    let pool = open_pool(&directory, options, meta.file_bytes)?;
    let changes = |file: &Listed| match options.mode {
        _ if options.read_only => Changes::None,
        Mode::Mmap => Changes::Mapped,
        // Below the durable offset nothing is changed, but by who salvages.
        Mode::Staged if !options.salvage && file.start + meta.file_bytes <= checkpoint.durable => Changes::None,
        Mode::Staged => Changes::Written,
    };
    let files = listed.iter().map(|file| map_file(&directory, file, changes(file)));
    let mut files = files.collect::<Result<VecDeque<_>>>()?;

    let place = directory.place()?;
    let tail = directory.read_tail()?;
    let same_page_cache = tail.is_some_and(|(left_at, _)| left_at == place);
    let (durable, first) = (checkpoint.durable, checkpoint.first);
    let scan = Scan {
        directory: &directory,
        seed: meta.seed,
        files: &files,
        from: if options.salvage { first } else { (durable - durable % meta.file_bytes).max(first) },
        durable,
        solid: if checkpoint_lost { u64::MAX } else { durable },
        same_page_cache,
        salvage: options.salvage,
    };
    let verifies = meta.format == Format::Record || same_page_cache || options.walk.is_some();
    let end = match (meta.format, &options.walk) {
        // Whoever asks to salvage has seen damage: then nothing is taken for granted.
        (Format::Record, _) if !checkpoint.clean || options.salvage => scan.find_end(),
        _ if checkpoint.clean => Ok(End::at(durable, false)),
        _ if same_page_cache => Ok(End::at(tail.map_or(0, |(_, committed)| committed), true)),
        (_, Some(walk)) => Ok(End::at(units_end(&files, meta.filler, walk, durable), true)),
        _ => Ok(End::at(last_byte(&files, durable), true)),
    };
    check_intact(&directory, &files)?; // the zeros of a lost page are neither an end nor damage
    let mut end = end?;
    if meta.format == Format::Raw && end.offset % meta.file_bytes > raw::limit(&meta) {
        end.offset = end.offset.next_multiple_of(meta.file_bytes); // no record fits there, and no filler
    }
    let reaches_to = files.back().map_or(first, |last| last.end());
    if options.salvage {
        end.offset = end.offset.min(reaches_to);
    } else {
        check_end(&directory, &checkpoint, reaches_to, end.offset)?;
    }

    let used_beyond = |file: &MappedFile| file.used_until(end.offset.clamp(file.start(), file.end()) - file.start());
    let mut recovery = Recovery::intact(Ended::Clean, end.offset);
    if !checkpoint.clean {
        recovery.ended = if same_page_cache { Ended::ProcessDeath } else { Ended::PowerCut };
        recovery.verified_to = if verifies { end.offset } else { durable };
    }
    if adopted {
        recovery.ended = Ended::Adopted;
        recovery.verified_to = if options.walk.is_some() { end.offset } else { first };
    }
    if end.dirty {
        let beyond = |file: &Arc<MappedFile>| file.start() + used_beyond(file) - end.offset.max(file.start());
        recovery.cut_bytes = files.iter().filter(|file| file.end() > end.offset).map(beyond).sum();
    }
    if recovery.cut_bytes > 0 && meta.format == Format::Record {
        recovery.record_beyond = scan.record_beyond(end.offset, used_beyond);
    }
    recovery.claims_passed_over = end.unfinished.len() as u64;
    note_losses(&mut recovery, &end, durable);
    report(&directory, &recovery, meta.file_bytes, options)?;

    let made_ahead = split_off_made_ahead(&mut files, end.offset);
    if options.read_only {
        // What was made ahead of the writer stays on disk, but the log does not go on in it.
        let recovered = Recovered { directory, files, meta, recovery, checkpoint, tail: None, pool: None };
        return Queue::assemble(recovered, options);
    }
    directory.remove_temporaries()?;
    if let Some(empty) = empty_last {
        directory.remove(empty.start)?;
    }
    if !removed_before.is_empty() {
        directory.write_checkpoint(&checkpoint)?; // it may be in the page cache only, and the disk's name one of them
    }
    for file in &removed_before {
        directory.remove(file.start)?;
    }
    // From the last one back, so that a crash in between leaves no gap.
    for file in made_ahead.iter().rev() {
        directory.remove(file.start())?;
    }
    settle(&directory, &meta, &files, durable, &end)?;
    check_intact(&directory, &files)?;
    // Whoever crashes from here on leaves a queue that is not clean.
    let tail = Some(directory.begin_tail(place, end.offset)?);
    // In both slots: were the newer one damaged later, a clean mark in the older one would hide all that is appended
    // from now on.
    let durable = durable.min(end.offset); // less only where salvage has lost what was durable
    let mut checkpoint = Checkpoint { durable, clean: false, ..checkpoint };
    if checkpoint_lost {
        directory.create_checkpoint(&checkpoint)?
    }
    for _slot in 0..2 {
        checkpoint.epoch += 1;
        directory.write_checkpoint(&checkpoint)?;
    }
    if let Some(pool) = &pool {
        stage_last(&directory, &mut files, end.offset, pool)?;
    }
    Queue::assemble(Recovered { directory, files, meta, recovery, checkpoint, tail, pool }, options)
}

fn note_losses(recovery: &mut Recovery, end: &End, durable: u64) {
    let behind_the_end = durable.saturating_sub(end.offset);
    recovery.lost_bytes = end.lost.iter().map(|lost| u64::from(lost.bytes)).sum::<u64>() + behind_the_end;
    recovery.lost_stretches = end.lost.len() as u64 + u64::from(behind_the_end > 0);
    let last = (behind_the_end > 0).then_some(end.offset);
    recovery.first_lost = end.lost.first().map(Stretch::offset).or(last);
}

/// Says what was found, and refuses what `strict` does.
fn report(directory: &Directory, recovery: &Recovery, file_bytes: u64, options: &Options) -> Result<()> {
    let path = directory.path.display();
    let end = recovery.cut_at;
    if recovery.ended != Ended::Clean {
        log::write(Level::Info, format_args!("{path}: was not closed; it ends at {end}"));
    }
    if let Some(first) = recovery.first_lost {
        let (bytes, stretches) = (recovery.lost_bytes, recovery.lost_stretches);
        let lost = format_args!("{path}: {bytes} bytes in {stretches} stretches are lost, the first at offset {first}");
        log::write(Level::Warn, lost);
    }
    if let Some(beyond) = recovery.record_beyond {
        let name = directory.name(beyond - beyond % file_bytes);
        let message = format!("{name}: a whole record at offset {beyond}, but the log ends at {end}");
        if options.strict {
            return Err(Error::new(Status::Corrupt, message));
        }
        log::write(Level::Warn, format_args!("{message}"));
    }
    Ok(())
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

/// A checkpoint is sealed, but not always by this library: what it never writes would be an offset of nothing, or
/// overflow.
fn check_checkpoint(directory: &Directory, meta: &Meta, checkpoint: &Checkpoint) -> Result<()> {
    let &Checkpoint { epoch, durable, first, clean } = checkpoint;
    let ends_in_a_frame = clean && meta.format == Format::Record && durable % ALIGNMENT != 0;
    let is_backwards = first % meta.file_bytes != 0 || durable < first || durable > MOST_OFFSET;
    if ends_in_a_frame || is_backwards || epoch > u64::MAX / 2 {
        let path = directory.path.display();
        let message = format!("{path}: its checkpoint {epoch} says that it goes from {first} to {durable}");
        return Err(Error::new(Status::Corrupt, message));
    }
    Ok(())
}

/// The queue begins where the checkpoint says.
fn check_first(directory: &Directory, checkpoint: &Checkpoint, listed: &[Listed]) -> Result<()> {
    let corrupt = |message: String| Err(Error::new(Status::Corrupt, message));
    let name = |start| directory.name(start);
    match listed.first() {
        Some(first) if first.start != checkpoint.first => {
            let begins = checkpoint.first;
            corrupt(format!("{}: is the first file, but the queue begins at {begins}", name(first.start)))
        }
        None if checkpoint.durable > checkpoint.first => {
            let durable = checkpoint.durable;
            corrupt(format!("{}: is missing, and everything from it to {durable}", name(checkpoint.first)))
        }
        _ => Ok(()),
    }
}

/// How recovery changes a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changes {
    None,
    Mapped,
    /// STAGED: in copies of its pages, which are written back.
    Written,
}

fn map_file(directory: &Directory, file: &Listed, changes: Changes) -> Result<Arc<MappedFile>> {
    let fd = directory.open_file(file.start, changes != Changes::None)?;
    let os = directory.os.clone();
    Ok(Arc::new(if changes == Changes::Written {
        let map = directory.map_copy(fd.as_fd(), file.start, file.len)?;
        MappedFile::staged(os, file.start, map, fd)
    } else {
        let map = directory.map(fd.as_fd(), file.start, file.len, changes == Changes::Mapped)?;
        MappedFile::new(os, file.start, map)
    }))
}

fn open_pool(directory: &Directory, options: &Options, file_bytes: u64) -> Result<Option<Arc<Pool>>> {
    options.is_staged().then(|| Pool::open(&*directory.os, options, file_bytes)).transpose()
}

/// STAGED: from here on the files are mapped for reading only, and what lies behind the end of the log is private
/// memory.
fn stage_last(directory: &Directory, files: &mut VecDeque<Arc<MappedFile>>, end: u64, pool: &Arc<Pool>) -> Result<()> {
    let unfinished = if files.back().is_some_and(|last| end < last.end()) { files.pop_back() } else { None };
    for file in files.iter() {
        file.release()
            .map_err(|cause| Error::system(format_args!("{}: mapping", directory.name(file.start())), cause))?;
    }
    let Some(last) = unfinished else { return Ok(()) };
    let (start, len) = (last.start(), last.size());
    let fd = directory.open_file(start, true)?;
    let file = stage(directory, pool, start, len, fd, end - start)?;
    file.hold_buffer(pool.take());
    file.set_entry_durable();
    files.push_back(Arc::new(file));
    Ok(())
}

fn check_end(directory: &Directory, checkpoint: &Checkpoint, last: u64, end: u64) -> Result<()> {
    if end < checkpoint.durable || end > last || end < checkpoint.first {
        let (path, durable) = (directory.path.display(), checkpoint.durable);
        let message = format!(
            "{path}: the files reach to {last} and the log in them to {end}, but everything below {durable} was durable"
        );
        return Err(Error::new(Status::Corrupt, message));
    }
    Ok(())
}

/// Makes the files say what was found: what lies behind the end is zeroed and synced, unfinished claims and what was
/// lost become whole padding.
fn settle(
    directory: &Directory,
    meta: &Meta,
    files: &VecDeque<Arc<MappedFile>>,
    durable: u64,
    end: &End,
) -> Result<()> {
    directory.sync()?;
    let write_back = |file: &MappedFile, at: u64, len: u64| {
        let written = file.write_back(at, len);
        written.map_err(|cause| Error::system(format_args!("{}: writing", directory.name(file.start())), cause))
    };
    let sync = |file: &MappedFile, at: u64, len: u64| {
        let synced = file.sync(at, len);
        synced.map_err(|cause| Error::system(format_args!("{}: syncing", directory.name(file.start())), cause))
    };
    if let Some(last) = files.back() {
        let cut = end.offset - last.start();
        // Closed cleanly there are zeros behind the end, and of the pages with them only the end's own has been written
        // to. A frame is placed where a zero is, so what was damaged there would come before what is appended now.
        let page_bytes = directory.os.page_size() as u64;
        let until = if end.dirty { last.size() } else { (cut + 1).next_multiple_of(page_bytes).min(last.size()) };
        let used = last.used_within(cut..until);
        // SAFETY: the lock is held and the queue is not open yet: nobody else writes, and nothing past the end is
        // published.
        unsafe { last.zero(cut, (used - cut) as usize) };
        write_back(last, cut, used - cut)?;
        // To the file's end even where it was zero: an open that died here may have zeroed the page cache only.
        if cut < until && (end.dirty || used > cut) {
            sync(last, cut, until - cut)?;
        }
    }
    for &Stretch { start, at, bytes } in end.unfinished.iter().chain(&end.lost) {
        let index = (start - files[0].start()) / meta.file_bytes;
        let frame = Frame { file: &files[index as usize], seed: meta.seed, at, bytes };
        frame.fill_padding(directory.os.now_ms()); // it has no owner any more
        frame.publish();
        write_back(frame.file, at, step(frame.bytes))?;
        if start + at < durable {
            sync(frame.file, at, HEADER_BYTES)?; // no flush comes back to it
        }
    }
    for file in files {
        file.set_entry_durable();
        if end.dirty {
            dirty_again(directory, file, durable, end.offset)?;
        }
    }
    Ok(())
}

/// After a sync that failed the page cache may hold the only copy of records in pages that look clean (fsync(2),
/// NOTES): made dirty again, they are written by the next flush.
fn dirty_again(directory: &Directory, file: &MappedFile, durable: u64, end: u64) -> Result<()> {
    const STEP_BYTES: usize = 2 << 20;
    let from = durable.clamp(file.start(), file.end());
    let until = end.clamp(file.start(), file.end());
    for at in (from..until).step_by(STEP_BYTES) {
        let len = (until - at).min(STEP_BYTES as u64);
        let readied = file.dirty(at - file.start(), len);
        readied.map_err(|cause| Error::system(directory.name(file.start()), cause))?;
    }
    Ok(())
}
