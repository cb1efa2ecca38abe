//! RAW: where the log ends when the tail page cannot tell: as the host's walker says, or behind the last byte that is
//! not zero.

use crate::log;
use crate::mapped_file::MappedFile;
use crate::options::{Filler, Walk};
use crate::raw;
use std::collections::VecDeque;
use std::sync::Arc;

/// Walks over whole units from the offset `from`, where one begins, and returns where they end.
///
/// A file that is filled with zeros shows no unit behind its last one: the log goes on where the next file begins with
/// a unit. (RocketMQ's blank is a unit, up to the end of the file.)
pub(crate) fn units_end(files: &VecDeque<Arc<MappedFile>>, filler: Filler, walk: &Walk, from: u64) -> u64 {
    let mut end = from;
    for file in files.iter().filter(|file| file.end() > from) {
        if end < file.start() && unit(file, 0, walk).is_none() {
            break;
        }
        let mut at = end.max(file.start()) - file.start();
        while let Some(bytes) = unit(file, at, walk) {
            at += bytes;
        }
        end = file.start() + at;
        let filled = at == file.size() || (filler == Filler::Zero && file.used_until(at) == at);
        if !filled {
            break;
        }
    }
    end
}

fn unit(file: &MappedFile, at: u64, walk: &Walk) -> Option<u64> {
    let available = file.size() - at;
    let begin = file.at_mut(at, available as usize).cast_const();
    let answer = if available == 0 { 0 } else { log::in_host(|| (walk.0)(begin, available as usize)) };
    u64::try_from(answer).ok().filter(|bytes| (1..=available).contains(bytes))
}

/// Behind the last byte that is not zero, but not before what was durable.
pub(crate) fn last_byte(files: &VecDeque<Arc<MappedFile>>, durable: u64) -> u64 {
    for file in files.iter().rev() {
        let floor = durable.clamp(file.start(), file.end()) - file.start();
        let used = file.used_until(floor);
        if used > floor || file.contains(durable) {
            return file.start() + if ends_in_blank(file, used) { file.size() } else { used };
        }
    }
    durable
}

/// Whether the last bytes of a file that are not zero are RocketMQ's blank: the rest belongs to it.
fn ends_in_blank(file: &MappedFile, used: u64) -> bool {
    used.checked_sub(raw::BLANK_BYTES).is_some_and(|at| {
        let mut bytes = [0; raw::BLANK_BYTES as usize];
        file.read(at, &mut bytes);
        bytes == raw::blank(file.size() - at)
    })
}
