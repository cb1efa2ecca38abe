//! What fills the end of a RAW file, and that a RAW directory is one that a RocketMQ broker can load.

#[path = "support/engine.rs"]
mod support;

use mfq::{Filler, Options, Status};
use std::fs;
use support::*;

const BLANK_MAGIC: u32 = 0xCBD4_3194;

/// Appends to a file of one page what leaves `left` bytes of it.
fn leaving(left: u64, filler: Filler) -> (tempfile::TempDir, Opened) {
    let dir = scratch();
    let queue = open(dir.path(), &raw(filler));
    queue.append(&vec![b'm'; (page() - left) as usize]).unwrap();
    (dir, queue)
}

#[test]
fn rocketmqs_blank_fills_what_a_message_does_not_fit_in() {
    let _alone = alone();
    // (left in the file, the next message, whether it fits: its length + 8 is not more than what is left)
    for (left, len, fits) in
        [(108, 100, true), (107, 100, false), (8, 1, false), (9, 1, true), (2000, 1992, true), (2000, 1993, false)]
    {
        let (_dir, queue) = leaving(left, Filler::RocketMq);
        let at = queue.append(&vec![b'n'; len as usize]).unwrap();
        if fits {
            assert_eq!(at.offset, page() - left, "{left} {len}");
            continue;
        }
        assert_eq!(at.offset, page(), "{left} {len}");
        let file = fs::read(queue.file(0)).unwrap();
        let rest = &file[(page() - left) as usize..];
        assert_eq!(rest[..4], (left as u32).to_be_bytes());
        assert_eq!(rest[4..8], BLANK_MAGIC.to_be_bytes());
        assert!(rest[8..].iter().all(|&byte| byte == 0));
        assert!(file[..(page() - left) as usize].iter().all(|&byte| byte == b'm'));
        assert_eq!(read(&queue, page() - left).unwrap().0, rest, "filler is bytes like others");
        assert_eq!(read(&queue, page()).unwrap().0, vec![b'n'; len as usize]);
    }
}

#[test]
fn the_largest_message_leaves_room_for_a_blank() {
    let _alone = alone();
    for (filler, most) in [(Filler::RocketMq, page() - 8), (Filler::Zero, page())] {
        let dir = scratch();
        let queue = open(dir.path(), &raw(filler));
        assert_eq!(queue.append(&vec![b'x'; most as usize + 1]).unwrap_err().status(), Status::TooLarge);
        assert_eq!(queue.offsets().unwrap().reserved, 0);
        queue.append(&vec![b'x'; most as usize]).unwrap();
        assert_eq!(queue.append(b"y").unwrap().offset, page());
        let end = &fs::read(queue.file(0)).unwrap()[most as usize..];
        match filler {
            Filler::Zero => assert!(end.is_empty()),
            Filler::RocketMq => assert_eq!(end, [0, 0, 0, 8, 0xCB, 0xD4, 0x31, 0x94]),
        }
    }
}

#[test]
fn zeros_fill_what_a_record_does_not_fit_in() {
    let _alone = alone();
    let (_dir, queue) = leaving(100, Filler::Zero);
    assert_eq!(queue.append(&[b'n'; 101]).unwrap().offset, page());
    assert_eq!(read(&queue, page() - 100).unwrap().0, [0; 100]);
    let (_dir, queue) = leaving(100, Filler::Zero);
    assert_eq!(queue.append(&[b'n'; 100]).unwrap().offset, page() - 100);
}

#[test]
fn filler_stands_at_the_end_of_a_file_only() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &raw(Filler::RocketMq));
    // One is claimed and given up, one closed over: neither leaves anything in the middle of a file.
    queue.append(b"first").unwrap();
    let claim = queue.claim(100).unwrap();
    queue.abort(claim.id).unwrap();
    assert_eq!(queue.append(b"second").unwrap().offset, 5);
    let claim = queue.claim(100).unwrap();
    assert_eq!(claim.offset, 11);
    queue.commit(claim.id, 1).unwrap();
    queue.claim(100).unwrap();
    queue.close().unwrap();
    let queue = open(dir.path(), &raw(Filler::RocketMq));
    assert_eq!(queue.append(b"third").unwrap().offset, 12);
    assert_eq!(&fs::read(queue.file(0)).unwrap()[..17], b"firstsecond\0third");
    assert!(fs::read(queue.file(0)).unwrap()[17..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_claim_that_does_not_fit_is_filled_before_and_rolls() {
    let _alone = alone();
    let (_dir, queue) = leaving(107, Filler::RocketMq);
    let claim = queue.claim(100).unwrap();
    assert_eq!(claim.offset, page());
    queue.commit(claim.id, 100).unwrap();
    assert_eq!(
        fs::read(queue.file(0)).unwrap()[(page() - 107) as usize..][..8],
        [0, 0, 0, 107, 0xCB, 0xD4, 0x31, 0x94]
    );
}

#[test]
fn a_raw_directory_holds_twenty_digit_files_and_directories_only() {
    let _alone = alone();
    for filler in [Filler::Zero, Filler::RocketMq] {
        let dir = scratch();
        let queue = open(dir.path(), &raw(filler));
        let check = || {
            for entry in fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()) {
                let name = entry.file_name().into_string().unwrap();
                // The last one looked at may be gone, taken back by a close.
                let Ok(about) = entry.metadata() else { continue };
                let digits = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
                assert!(about.is_dir() || digits && about.len() == page(), "{name}");
            }
        };
        for _ in 0..50 {
            queue.append(&vec![b'm'; 1000]).unwrap();
            check();
        }
        queue.close().unwrap();
        check();
    }
}

#[test]
fn more_than_two_files_ahead_are_refused_with_rocketmqs_filler() {
    let _alone = alone();
    let dir = scratch();
    let error = refused(&dir.path().join("queue"), &Options { files_ahead: 3, ..raw(Filler::RocketMq) });
    assert_eq!(error.status(), Status::Invalid);
    assert!(error.message().contains("files_ahead"), "{error}");
    assert!(!dir.path().join("queue").exists());
}
