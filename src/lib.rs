//! libmfq: a queue of memory-mapped files for any host.
//!
//! Fixed-size files named by the offset of their first byte, an allocation thread that has the next ones ready, appends
//! that cost little more than the copy of their bytes. The interface for hosts is C (`include/mfq.h`, [`capi`]); this
//! crate's own types are what it stands on.
//!
//! Layers, each using only those below it:
//!
//! | module | question it answers |
//! |---|---|
//! | `capi` | how C calls in, and gets its answers |
//! | `append` `claim` `reader` `flush` `background` `truncate` `recovery` | what can be done with a log |
//! | `scan` `walk` | where a log ends: in RECORD, in RAW |
//! | `queue` | what an open queue is, and how it goes from one file to the next |
//! | `staging` `words` | how STAGED's bytes get to the files; a file's commit words, and how far they are whole |
//! | `place` `reserve` `frame` | how writers share the end of the log, in RECORD and in RAW; one frame in its file |
//! | `record` `raw` `rocketmq` | the bytes of RECORD, of RAW, of RocketMQ's messages |
//! | `allocate` `runtime` | who makes files, in which order; what the process has once |
//! | `queue_files` `file_table` `positions` | one queue's files; which holds an offset; how far they are written |
//! | `look_ahead` `prefault` | how many files, and which pages, are ready before the writer comes to them |
//! | `flush_service` `turns` `policy` | what is done on a disk with nobody waiting; whose turn it is to sync; when to |
//! | `directory` `meta` `checkpoint` `tail` `sealed` | names, the lock, the small files in `.mfq` |
//! | `mapped_file` `pool` | one file: its mapping and who holds it; how many private buffers there may be |
//! | `event` `commit_order` | waiting for a position to move; RAW's writers one after the other |
//! | `pin` | which handles of C are in use by a call |
//! | `os` | every system call |
//! | `error` `options` `stats` `report` `deadline` `give_way` `log` `sync` | used by all |
//!
//! `unsafe` is where the kernel and C are (`os`, `capi`); in `mapped_file`, and where somebody who knows whose a range of
//! it is copies into or out of it (`append`, `claim`, `frame`, `recovery`, `reader`); and where what is used without a
//! lock or a count must not be let go meanwhile (`file_table`, `truncate`; `pin`). Nowhere else, but for tests.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!("libmfq is for Linux on 64-bit little-endian machines: its mappings, locks and offsets depend on it");

mod allocate;
mod append;
mod background;
pub mod capi;
mod checkpoint;
mod claim;
mod commit_order;
mod deadline;
mod directory;
mod error;
mod event;
mod file_table;
mod flush;
mod flush_service;
mod frame;
mod give_way;
pub mod log;
mod look_ahead;
mod mapped_file;
mod meta;
mod options;
pub mod os;
mod pin;
mod place;
mod policy;
mod pool;
mod positions;
mod prefault;
mod queue;
mod queue_files;
mod raw;
mod reader;
mod record;
mod recovery;
mod report;
mod reserve;
mod rocketmq;
mod runtime;
mod scan;
mod sealed;
mod staging;
mod stats;
mod sync;
mod tail;
mod truncate;
mod turns;
mod walk;
mod words;

pub use claim::{Claim, release_orphan};
pub use deadline::Deadline;
pub use error::{Error, Result, Status};
pub use mapped_file::MappedFile;
pub use options::{Filler, FlushPolicy, Format, Mode, Options, Walk};
pub use positions::{FilePositions, Positions};
pub use queue::{Offsets, OpenQueue, Queue, Span, Which};
pub use reader::{ReadOutcome, Reader, View};
pub use report::{Ended, Recovery};
pub use stats::{CREATION_BUCKETS, Stats};
