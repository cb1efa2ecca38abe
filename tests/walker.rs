//! RAW after a power cut, with a walker: the log ends where the walker sees no whole unit any more.

#[path = "support/engine.rs"]
mod support;

use mfq::{Filler, Options, Walk};
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::*;

/// A length of two bytes, and as many bytes of one value.
fn unit(value: u8, len: u16) -> Vec<u8> {
    [&len.to_be_bytes()[..], &vec![value; usize::from(len) - 2]].concat()
}

fn unit_bytes(bytes: &[u8]) -> i64 {
    match bytes {
        _ if bytes.get(4..8) == Some(&[0xCB, 0xD4, 0x31, 0x94]) => bytes.len() as i64,
        [0, 0, ..] | [] | [_] | [_, _] => 0,
        [high, low, value, rest @ ..] => {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            let whole = len >= 3 && rest.get(..len - 3).is_some_and(|rest| rest.iter().all(|byte| byte == value));
            if whole { len as i64 } else { -1 }
        }
    }
}

fn walk_by(walk: impl Fn(&[u8]) -> i64 + Send + Sync + 'static) -> Walk {
    Walk(Arc::new(move |bytes, available| {
        // SAFETY: the library says that so many bytes can be read, and nobody writes while a queue is opened.
        walk(unsafe { std::slice::from_raw_parts(bytes, available) })
    }))
}

fn walked(filler: Filler) -> Options {
    Options { walk: Some(walk_by(unit_bytes)), ..raw(filler) }
}

#[test]
fn the_log_ends_at_the_first_unit_that_is_not_whole() {
    for filler in [Filler::Zero, Filler::RocketMq] {
        let lives = scratch();
        let queue = open(lives.path(), &walked(filler));
        let spans: Vec<_> = (1..40).map(|i| queue.append(&unit(i, 500)).unwrap()).collect();
        let cut = as_killed_now(lives.path());
        let torn = spans[30];
        let file = cut.path().join(format!("{:020}", torn.offset - torn.offset % page()));
        let file = fs::OpenOptions::new().write(true).open(file).unwrap();
        file.write_all_at(&[0; 8], torn.offset % page() + 100).unwrap();

        let queue = open_after_reboot(cut.path(), &walked(filler));
        let found = queue.recovery().unwrap();
        assert_eq!((found.cut_at, found.verified_to), (torn.offset, torn.offset));
        assert!(found.cut_bytes > 500);
        assert_eq!(queue.offsets().unwrap().committed, torn.offset);
        // What was whole behind it does not come back.
        let at = queue.append(&unit(99, 10)).unwrap();
        assert_eq!(at.offset, torn.offset);
        let again = as_killed_now(cut.path());
        assert_eq!(open_after_reboot(again.path(), &walked(filler)).offsets().unwrap().committed, at.end);
    }
}

#[test]
fn the_log_goes_on_behind_a_filled_file() {
    for filler in [Filler::Zero, Filler::RocketMq] {
        let lives = scratch();
        let queue = open(lives.path(), &walked(filler));
        let end = (1..40).map(|i| queue.append(&unit(i, 700)).unwrap().end).max().unwrap();
        let cut = as_killed_now(lives.path());
        assert_eq!(open_after_reboot(cut.path(), &walked(filler)).offsets().unwrap().committed, end);
    }
}

#[test]
fn an_answer_that_leaves_the_file_ends_the_log() {
    for answer in [i64::MIN, -1, 0, page() as i64 + 1, i64::MAX] {
        let lives = scratch();
        let queue = open(lives.path(), &raw(Filler::Zero));
        queue.append(&unit(1, 500)).unwrap();
        let cut = as_killed_now(lives.path());
        let options = Options { walk: Some(walk_by(move |_| answer)), ..raw(Filler::Zero) };
        assert_eq!(open_after_reboot(cut.path(), &options).offsets().unwrap().committed, 0);
    }
}

#[test]
fn the_walk_begins_at_the_durable_offset_and_is_not_needed_in_the_same_boot() {
    let lives = scratch();
    let queue = open(lives.path(), &raw(Filler::Zero));
    let flushed = (1..20).map(|i| queue.append(&unit(i, 500)).unwrap().end).max().unwrap();
    queue.flush(flushed, within(GENEROUS_MS)).unwrap();
    let last = queue.append(&unit(20, 100)).unwrap();
    let (killed, cut) = (as_killed_now(lives.path()), as_killed_now(lives.path()));
    let calls = Arc::new(AtomicUsize::new(0));
    let counting = {
        let calls = calls.clone();
        walk_by(move |bytes| {
            let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
            assert!(!first || bytes.len() as u64 == page() - flushed % page(), "to the end of the file");
            unit_bytes(bytes)
        })
    };
    let options = Options { walk: Some(counting), ..raw(Filler::Zero) };
    assert_eq!(open(killed.path(), &options).offsets().unwrap().committed, last.end);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert_eq!(open_after_reboot(cut.path(), &options).offsets().unwrap().committed, last.end);
    assert_eq!(calls.load(Ordering::Relaxed), 3, "a unit, its end, and the next file's beginning at most");
}
