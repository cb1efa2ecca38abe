//! Random operations on a queue, each result compared with what a plain list of records (RECORD) or a plain run of
//! bytes (RAW) says it has to be. The files are one page long, so that everything rolls all the time.

mod support;

use mfq::{
    Claim, Deadline, Error, Filler, Format, Mode, OpenQueue, Options, Queue, ReadOutcome, Reader, Span, Status, View,
    Which, os,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::path::Path;
use std::sync::atomic::AtomicBool;

const FILE: u64 = 4096;
/// Queues begin here: not at 0, so that an offset taken for a position is found out.
const MIN: u64 = 3 * FILE;
const HEADER: u64 = 16;
/// RocketMQ's blank.
const BLANK: u64 = 8;

#[derive(Clone, Debug)]
enum Op {
    Append(usize),
    AppendParts(Vec<usize>),
    AppendBatch(Vec<usize>),
    Claim(usize),
    /// Which of the open claims, and how much of it is kept, in 256ths.
    Commit(usize, usize),
    Abort(usize),
    Read(At, usize),
    View(At),
    ReaderNext(usize),
    ReaderSeek(usize, At),
    Flush(At),
    FlushAll,
    Wait(bool, At),
    GetLast,
    Find(At),
    Reopen,
}

/// An offset, found when the operation runs.
#[derive(Clone, Debug)]
enum At {
    /// Where the n-th frame begins (RAW: somewhere in the bytes).
    Frame(usize),
    End,
    Committed,
    /// Anywhere from a little below the first to a little beyond the last.
    Anywhere(u64),
    Most,
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0..64usize,
        4 => 64..1500usize,
        2 => FILE as usize - 48..FILE as usize + 2,
        1 => Just(FILE as usize * 2),
    ]
}

fn at() -> impl Strategy<Value = At> {
    prop_oneof![
        6 => any::<usize>().prop_map(At::Frame),
        2 => Just(At::End),
        2 => Just(At::Committed),
        3 => any::<u64>().prop_map(At::Anywhere),
        1 => Just(At::Most),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let which = || any::<usize>();
    prop_oneof![
        12 => len().prop_map(Op::Append),
        3 => vec(0..700usize, 1..5).prop_map(Op::AppendParts),
        3 => vec(0..700usize, 1..8).prop_map(Op::AppendBatch),
        6 => len().prop_map(Op::Claim),
        1 => Just(Op::Claim(usize::MAX)),
        6 => (which(), prop_oneof![Just(256usize), 0..=256usize]).prop_map(|(which, kept)| Op::Commit(which, kept)),
        2 => which().prop_map(Op::Abort),
        6 => (at(), prop_oneof![Just(2 * FILE as usize), 0..600usize]).prop_map(|(at, cap)| Op::Read(at, cap)),
        4 => at().prop_map(Op::View),
        8 => which().prop_map(Op::ReaderNext),
        2 => (which(), at()).prop_map(|(which, at)| Op::ReaderSeek(which, at)),
        2 => at().prop_map(Op::Flush),
        1 => Just(Op::FlushAll),
        3 => (any::<bool>(), at()).prop_map(|(flushed, at)| Op::Wait(flushed, at)),
        2 => Just(Op::GetLast),
        2 => at().prop_map(Op::Find),
        2 => Just(Op::Reopen),
    ]
}

#[derive(Clone, PartialEq, Debug)]
enum Content {
    Data(Vec<u8>),
    Claimed,
    Padding,
}

#[derive(Debug)]
struct Frame {
    offset: u64,
    end: u64,
    content: Content,
}

/// What the queue has to be like.
struct Model {
    format: Format,
    filler: Filler,
    /// RECORD.
    frames: Vec<Frame>,
    /// RAW: every byte from `MIN` on.
    bytes: Vec<u8>,
    /// Of what writers were given.
    end: u64,
    flushed: u64,
}

fn step(payload: usize) -> u64 {
    (payload as u64 + HEADER).next_multiple_of(8)
}

impl Model {
    fn is_raw(&self) -> bool {
        self.format == Format::Raw
    }

    fn most(&self) -> usize {
        match (self.format, self.filler) {
            (Format::Record, _) => (FILE - HEADER) as usize,
            (Format::Raw, Filler::Zero) => FILE as usize,
            (Format::Raw, Filler::RocketMq) => (FILE - BLANK) as usize,
        }
    }

    /// Bytes left in the file that is written to; a whole file if the last one is full.
    fn rest(&self) -> u64 {
        FILE - self.end % FILE
    }

    /// Where everything is readable if no claim is open: a tail too short for a header is padding by itself.
    fn settled_end(&self) -> u64 {
        if !self.is_raw() && self.rest() < HEADER { self.end + self.rest() } else { self.end }
    }

    fn committed(&self) -> u64 {
        let claimed = self.frames.iter().find(|frame| frame.content == Content::Claimed);
        claimed.map_or(self.settled_end(), |frame| frame.offset)
    }

    /// Gives `bytes` to a frame, after padding what is left of a file that has no room for them.
    fn place(&mut self, payload: usize, content: Content) -> Span {
        let rest = self.rest();
        if payload as u64 + HEADER > rest {
            if rest >= HEADER {
                self.frames.push(Frame { offset: self.end, end: self.end + rest, content: Content::Padding });
            }
            self.end += rest;
        }
        let (offset, end) = (self.end, self.end + step(payload));
        self.frames.push(Frame { offset, end, content });
        self.end = end;
        Span { offset, end }
    }

    /// RAW: fills the file if `len` bytes do not fit any more.
    fn make_room(&mut self, len: usize) {
        let rest = self.rest();
        let reserve = if self.filler == Filler::RocketMq { BLANK } else { 0 };
        if rest < FILE && len as u64 + reserve > rest {
            let mut filler = vec![0; rest as usize];
            if self.filler == Filler::RocketMq {
                filler[..4].copy_from_slice(&(rest as u32).to_be_bytes());
                filler[4..8].copy_from_slice(&0xCBD4_3194u32.to_be_bytes());
            }
            self.bytes.extend(filler);
            self.end += rest;
        }
    }

    fn append_bytes(&mut self, data: &[u8]) -> Span {
        self.make_room(data.len());
        let offset = self.end;
        self.bytes.extend(data);
        self.end += data.len() as u64;
        Span { offset, end: self.end }
    }

    fn append(&mut self, data: &[u8]) -> Result<Span, Status> {
        if self.is_raw() && data.is_empty() {
            return Err(Status::Invalid);
        }
        if data.len() > self.most() {
            return Err(Status::TooLarge);
        }
        Ok(if self.is_raw() { self.append_bytes(data) } else { self.place(data.len(), Content::Data(data.to_vec())) })
    }

    fn append_batch(&mut self, records: &[Vec<u8>]) -> Result<Vec<Span>, Status> {
        if self.is_raw() {
            if records.iter().any(Vec::is_empty) {
                return Err(Status::Invalid);
            }
            if records.concat().len() > self.most() {
                return Err(Status::TooLarge);
            }
            self.make_room(records.concat().len());
            return Ok(records.iter().map(|record| self.append_bytes(record)).collect());
        }
        let whole: u64 = records.iter().map(|record| step(record.len())).sum();
        if whole > FILE {
            return Err(Status::TooLarge);
        }
        if whole > self.rest() {
            let rest = self.rest();
            if rest >= HEADER {
                self.frames.push(Frame { offset: self.end, end: self.end + rest, content: Content::Padding });
            }
            self.end += rest;
        }
        Ok(records.iter().map(|record| self.place(record.len(), Content::Data(record.clone()))).collect())
    }

    /// RECORD: the first record at or after `offset`.
    fn find(&self, mut offset: u64) -> Result<&Frame, Status> {
        if !offset.is_multiple_of(8) {
            return Err(Status::Invalid);
        }
        loop {
            self.check_readable(offset)?;
            if FILE - offset % FILE < HEADER {
                offset = offset.next_multiple_of(FILE);
                continue;
            }
            let frame = self.frames.iter().find(|frame| frame.offset == offset).ok_or(Status::Corrupt)?;
            match frame.content {
                Content::Data(_) => return Ok(frame),
                _ => offset = frame.end,
            }
        }
    }

    fn check_readable(&self, offset: u64) -> Result<(), Status> {
        if offset < MIN {
            return Err(Status::NotFound);
        }
        if offset >= self.committed() { Err(Status::End) } else { Ok(()) }
    }

    /// What a view of `offset` shows: its span and its bytes.
    fn view(&self, offset: u64) -> Result<(Span, &[u8]), Status> {
        if !self.is_raw() {
            let frame = self.find(offset)?;
            let Content::Data(data) = &frame.content else { unreachable!("find gives data") };
            return Ok((Span { offset: frame.offset, end: frame.end }, data));
        }
        self.check_readable(offset)?;
        let end = (offset + FILE - offset % FILE).min(self.end);
        Ok((Span { offset, end }, &self.bytes[(offset - MIN) as usize..(end - MIN) as usize]))
    }

    fn resolve(&self, at: &At) -> u64 {
        match *at {
            At::Frame(n) if self.is_raw() => MIN + n as u64 % (self.end - MIN + 1),
            At::Frame(_) if self.frames.is_empty() => MIN,
            At::Frame(n) => self.frames[n % self.frames.len()].offset,
            At::End => self.end,
            At::Committed => self.committed(),
            At::Anywhere(n) => MIN - FILE + n % (self.end - MIN + 3 * FILE),
            At::Most => u64::MAX,
        }
    }
}

/// The queue beside its model.
struct Pair<'a> {
    path: &'a Path,
    options: Options,
    queue: OpenQueue,
    model: Model,
    /// What is open, and the index of its frame in the model.
    claims: Vec<(Claim, usize)>,
    readers: Vec<(Reader, u64)>,
    /// Makes the bytes of each record other ones.
    written: u8,
}

fn status(error: Error) -> Status {
    error.status()
}

fn now() -> Deadline {
    Deadline::after_ms(0)
}

fn shown(view: &View) -> &[u8] {
    // SAFETY: the view holds its file, and nobody writes what is committed.
    unsafe { std::slice::from_raw_parts(view.ptr, view.len) }
}

impl<'a> Pair<'a> {
    /// In STAGED nothing is committed but by `settle`, and there are buffers for whatever an open claim holds up.
    fn open(path: &'a Path, format: Format, filler: Filler, mode: Mode) -> Pair<'a> {
        let (pool_buffers, commit_interval_ms) = (10_000, u32::MAX);
        let staged = Options { mode, pool_buffers, commit_interval_ms, ..Options::default() };
        let options = Options { file_size: FILE, start_offset: MIN + 5, format, filler, ..staged };
        let queue = Queue::open(os::native(), path, &options).unwrap();
        let model = Model { format, filler, frames: vec![], bytes: vec![], end: MIN, flushed: MIN };
        let readers = (0..3).map(|_| (Reader::open(&queue, MIN).unwrap(), MIN)).collect();
        Pair { path, options, queue, model, claims: vec![], readers, written: 0 }
    }

    /// Bytes that cannot be taken for a frame: as a length, any four of them are longer than a file or zero.
    fn data(&mut self, len: usize) -> Vec<u8> {
        self.written = self.written.wrapping_add(1);
        match self.written % 16 {
            0 => vec![0; len],
            _ => (0..len).map(|i| b' ' + (self.written.wrapping_mul(31).wrapping_add(i as u8)) % 96).collect(),
        }
    }

    /// In RAW an open claim keeps everybody out.
    fn excluded(&self) -> bool {
        self.model.is_raw() && !self.claims.is_empty()
    }

    /// Commits what is complete.
    fn settle(&self) {
        assert_eq!(self.queue.wait(Which::Committed, self.model.committed(), now()), Ok(()));
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(len) => {
                let data = self.data(*len);
                let done = self.queue.append(&data).map_err(status);
                let expected = self.expect_append(&data);
                assert_eq!(done, expected);
            }
            Op::AppendParts(lens) => {
                let parts: Vec<Vec<u8>> = lens.iter().map(|len| self.data(*len)).collect();
                let done = self.queue.append_parts(parts.iter().map(Vec::as_slice)).map_err(status);
                let expected = self.expect_append(&parts.concat());
                assert_eq!(done, expected);
            }
            Op::AppendBatch(lens) => {
                let records: Vec<Vec<u8>> = lens.iter().map(|len| self.data(*len)).collect();
                let mut spans = Vec::new();
                let each = |index, span| {
                    assert_eq!(index, spans.len());
                    spans.push(span);
                };
                let done = self.queue.append_batch(records.iter().map(Vec::as_slice), each).map_err(status);
                let expected = match self.excluded() {
                    true if records.iter().any(Vec::is_empty) => Err(Status::Invalid),
                    true if records.concat().len() > self.model.most() => Err(Status::TooLarge),
                    true => Err(Status::Busy),
                    false => self.model.append_batch(&records),
                };
                assert_eq!(done.map(|_| spans), expected);
            }
            Op::Claim(len) => self.claim(*len),
            Op::Commit(which, kept) => self.commit(*which, *kept),
            Op::Abort(which) => {
                if let Some((claim, frame)) = self.take_claim(*which) {
                    assert_eq!(self.queue.abort(claim.id), Ok(()));
                    if !self.model.is_raw() {
                        self.model.frames[frame].content = Content::Padding;
                    }
                    assert_eq!(self.queue.commit(claim.id, 0).map_err(status), Err(Status::Closed));
                }
            }
            Op::Read(at, cap) => self.read(self.model.resolve(at), *cap),
            Op::View(at) => {
                let offset = self.model.resolve(at);
                let view = self.queue.view(offset).map_err(status);
                self.check_view(&view, self.model.view(offset));
            }
            Op::ReaderNext(which) => {
                let which = which % self.readers.len();
                let (mut reader, at) = self.readers.remove(which);
                let view = reader.next(&self.queue, now(), &AtomicBool::new(false)).map_err(status);
                self.check_view(&view, self.model.view(at));
                self.readers.push((reader, view.map_or(at, |view| view.end)));
            }
            Op::ReaderSeek(which, at) => {
                let offset = self.model.resolve(at);
                let which = which % self.readers.len();
                let expected = match self.model.check_readable(offset) {
                    _ if !self.model.is_raw() && !offset.is_multiple_of(8) => Err(Status::Invalid),
                    Err(Status::End) => Ok(()),
                    answer => answer,
                };
                let (reader, position) = &mut self.readers[which];
                assert_eq!(reader.seek(&self.queue, offset).map_err(status), expected);
                if expected.is_ok() {
                    *position = offset;
                }
            }
            Op::Flush(at) => {
                let up_to = self.model.resolve(at);
                if up_to != u64::MAX {
                    self.flush(up_to, up_to);
                }
            }
            Op::FlushAll => self.flush(u64::MAX, self.model.end),
            Op::Wait(flushed, at) => {
                let offset = self.model.resolve(at);
                let (which, position) = match flushed {
                    true => (Which::Flushed, self.model.flushed),
                    false => (Which::Committed, self.model.committed()),
                };
                let expected = match offset {
                    u64::MAX => Err(Status::Invalid),
                    _ if offset <= position => Ok(()),
                    _ => Err(Status::Timeout),
                };
                assert_eq!(self.queue.wait(which, offset, now()).map_err(status), expected);
            }
            Op::GetLast => {
                let file = self.queue.get_last(Deadline::after_ms(30_000)).unwrap();
                let end = self.model.settled_end();
                assert_eq!((file.start(), file.size()), (end - end % FILE, FILE));
            }
            Op::Find(at) => {
                let offset = self.model.resolve(at);
                match self.queue.find(offset) {
                    Ok(file) => assert!(offset >= MIN && file.contains(offset)),
                    Err(error) if offset < MIN => assert_eq!(error.status(), Status::NotFound),
                    Err(error) => {
                        assert!(offset >= self.model.end, "{offset} has a file");
                        assert_eq!(error.status(), Status::End);
                    }
                }
            }
            Op::Reopen => self.reopen(),
        }
        self.settle();
        self.check_offsets();
    }

    fn expect_append(&mut self, data: &[u8]) -> Result<Span, Status> {
        match self.excluded() {
            true if data.is_empty() => Err(Status::Invalid),
            true if data.len() > self.model.most() => Err(Status::TooLarge),
            true => Err(Status::Busy),
            false => self.model.append(data),
        }
    }

    fn claim(&mut self, len: usize) {
        let claimed = self.queue.claim(len).map_err(status);
        let expected = match () {
            _ if self.model.is_raw() && len == 0 => Err(Status::Invalid),
            _ if len > self.model.most() => Err(Status::TooLarge),
            _ if self.excluded() => Err(Status::Busy),
            _ if self.model.is_raw() => {
                self.model.make_room(len);
                Ok(self.model.end)
            }
            _ => Ok(self.model.place(len, Content::Claimed).offset),
        };
        assert_eq!(claimed.as_ref().map(|claim| claim.offset).map_err(|status| *status), expected);
        if let Ok(claim) = claimed {
            assert_eq!(claim.len, len);
            self.claims.push((claim, self.model.frames.len().saturating_sub(1)));
        }
    }

    fn take_claim(&mut self, which: usize) -> Option<(Claim, usize)> {
        (!self.claims.is_empty()).then(|| self.claims.swap_remove(which % self.claims.len()))
    }

    fn commit(&mut self, which: usize, kept: usize) {
        let Some((claim, frame)) = self.take_claim(which) else { return };
        assert_eq!(self.queue.commit(claim.id, claim.len + 1).map_err(status), Err(Status::Invalid));
        let data = self.data(claim.len);
        // SAFETY: the claim is open, so its memory is this test's.
        unsafe { claim.ptr.copy_from_nonoverlapping(data.as_ptr(), claim.len) };
        let len = claim.len * kept / 256;
        let done = self.queue.commit(claim.id, len).map_err(status);
        let rest = step(claim.len) - step(len);
        let refused = if self.model.is_raw() { len == 0 } else { rest > 0 && rest < HEADER };
        if refused {
            assert_eq!(done, Err(Status::Invalid));
            self.claims.push((claim, frame));
        } else if self.model.is_raw() {
            assert_eq!(done, Ok(self.model.append_bytes(&data[..len])));
        } else {
            let whole = &mut self.model.frames[frame];
            let (end, kept_end) = (whole.end, whole.offset + step(len));
            assert_eq!(done, Ok(Span { offset: whole.offset, end: kept_end }));
            whole.content = Content::Data(data[..len].to_vec());
            whole.end = kept_end;
            if kept_end < end {
                self.model.frames.push(Frame { offset: kept_end, end, content: Content::Padding });
            }
        }
    }

    fn read(&self, offset: u64, cap: usize) {
        let mut buf = vec![0xEE; cap];
        // SAFETY: `buf` has `cap` bytes.
        let done = unsafe { self.queue.read(offset, buf.as_mut_ptr(), cap) }.map_err(status);
        let expected = match self.model.view(offset) {
            _ if self.model.is_raw() && cap == 0 => Err(Status::Invalid),
            Err(status) => Err(status),
            Ok((_, data)) if self.model.is_raw() => {
                let len = data.len().min(cap);
                assert_eq!(buf[..len], data[..len]);
                Ok(ReadOutcome::Copied { len, next: offset + len as u64 })
            }
            Ok((_, data)) if data.len() > cap => Ok(ReadOutcome::TooSmall { len: data.len() }),
            Ok((span, data)) => {
                assert_eq!(buf[..data.len()], *data);
                Ok(ReadOutcome::Copied { len: data.len(), next: span.end })
            }
        };
        assert_eq!(done, expected);
        let copied = match done {
            Ok(ReadOutcome::Copied { len, .. }) => len,
            _ => 0,
        };
        assert!(buf[copied..].iter().all(|&byte| byte == 0xEE), "bytes beyond the record were written");
    }

    fn check_view(&self, view: &Result<View, Status>, expected: Result<(Span, &[u8]), Status>) {
        let seen = view.as_ref().map(|view| (Span { offset: view.offset, end: view.end }, shown(view)));
        assert_eq!(seen.map_err(|status| *status), expected);
        if let Ok(view) = view {
            assert_eq!(view.time_ms == 0, self.model.is_raw());
        }
    }

    /// `needed` has to be committed for a flush of `up_to`.
    fn flush(&mut self, up_to: u64, needed: u64) {
        let expected = if needed <= self.model.committed() { Ok(()) } else { Err(Status::Timeout) };
        assert_eq!(self.queue.flush(up_to, now()).map_err(status), expected);
        // One that times out flushes what it can. "All" may or may not include the tail that is padding by itself.
        let flushed = self.queue.offsets().unwrap().flushed;
        let least = if expected.is_ok() { needed } else { self.model.flushed };
        let most = if up_to == u64::MAX { self.model.settled_end() } else { needed };
        assert!((least.max(self.model.flushed)..=most.max(self.model.flushed)).contains(&flushed));
        self.model.flushed = flushed;
    }

    fn check_offsets(&self) {
        let offsets = self.queue.offsets().unwrap();
        assert_eq!((offsets.min, offsets.flushed), (MIN, self.model.flushed));
        assert_eq!((offsets.wrote, offsets.committed), (self.model.committed(), self.model.committed()));
        assert!((self.model.end..=self.model.settled_end()).contains(&offsets.reserved), "{offsets:?}");
        assert!(offsets.min <= offsets.flushed && offsets.flushed <= offsets.committed, "{offsets:?}");
        assert!(offsets.wrote <= offsets.reserved, "{offsets:?}");
    }

    /// Claims that are open become padding (in RAW nothing); everything else is there again, in whichever mode.
    fn reopen(&mut self) {
        self.queue.begin_close();
        assert_eq!(self.queue.append(b"late").map_err(status), Err(Status::Closed));
        assert_eq!(self.queue.finish_close(), Ok(()));
        for (claim, frame) in self.claims.drain(..) {
            // SAFETY: the memory of a claim is its taker's until commit or abort, whatever became of the queue.
            unsafe { claim.ptr.write_bytes(b'x', claim.len) };
            assert_eq!(self.queue.commit(claim.id, claim.len).map_err(status), Err(Status::Closed));
            mfq::release_orphan(claim.id);
            if !self.model.is_raw() {
                self.model.frames[frame].content = Content::Padding;
            }
        }
        self.options.mode = if self.options.mode == Mode::Mmap { Mode::Staged } else { Mode::Mmap };
        self.queue = Queue::open(os::native(), self.path, &self.options).unwrap();
        self.model.end = self.model.settled_end();
        self.model.flushed = self.model.end;
        self.readers = (0..3).map(|_| (Reader::open(&self.queue, MIN).unwrap(), MIN)).collect();
    }

    /// Everything from the first to the last, in order.
    fn check_all(&mut self) {
        let mut reader = Reader::open(&self.queue, MIN).unwrap();
        let mut at = MIN;
        loop {
            let view = reader.next(&self.queue, now(), &AtomicBool::new(false)).map_err(status);
            self.check_view(&view, self.model.view(at));
            match view {
                Ok(view) => at = view.end,
                Err(_) => break,
            }
        }
    }
}

fn run(format: Format, filler: Filler, mode: Mode, ops: &[Op]) {
    let directory = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(directory.path(), format, filler, mode);
    ops.iter().for_each(|op| pair.apply(op));
    pair.check_all();
    pair.reopen();
    pair.check_offsets();
    pair.check_all();
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Mmap), Just(Mode::Staged)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn record_does_what_a_list_of_records_does(mode in mode(), ops in vec(op(), 1..150)) {
        run(Format::Record, Filler::Zero, mode, &ops);
    }

    #[test]
    fn raw_does_what_a_run_of_bytes_does(mode in mode(), ops in vec(op(), 1..150)) {
        run(Format::Raw, Filler::Zero, mode, &ops);
    }

    #[test]
    fn raw_with_rocketmq_blanks_does_what_a_run_of_bytes_does(mode in mode(), ops in vec(op(), 1..150)) {
        run(Format::Raw, Filler::RocketMq, mode, &ops);
    }
}
