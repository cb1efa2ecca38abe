//! The flush service: what a queue wants done on its disk without a caller waiting for it.
//!
//! One per device, with one thread, so that a disk that hangs holds up its own queues only. The thread is there from
//! the first time a queue asks for it; it sleeps until one asks, or until the moment that one has named. What it does
//! for a queue the queue knows ([`crate::background`]).

use crate::error::{Error, Result};
use crate::log::{self, Level};
use crate::os;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// A queue as this service sees it.
pub(crate) trait Served: Send + Sync {
    /// Does all that is due, and tells when to come again if nobody asks before.
    fn serve(&self) -> Option<Instant>;
    /// `serve` ended in a panic.
    fn poison_by_panic(&self);
}

/// Different for each open of a queue.
type Generation = u64;

#[derive(Default)]
struct Table {
    queues: HashMap<Generation, Entry>,
    /// In the order in which they asked; one that has been withdrawn since may be among them.
    asked: VecDeque<Generation>,
    due: BTreeSet<(Instant, Generation)>,
    in_work: Option<Generation>,
    stopping: bool,
}

struct Entry {
    queue: Arc<dyn Served>,
    asked: bool,
    due: Option<Instant>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    woken: Condvar,
    /// The thread is done with a queue.
    done: Condvar,
}

/// Dropping it ends the thread.
#[derive(Default)]
pub(crate) struct FlushService {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl FlushService {
    pub fn add(&self, generation: u64, queue: Arc<dyn Served>) {
        self.shared.table.lock().queues.insert(generation, Entry { queue, asked: false, due: None });
    }

    /// Has the thread serve a queue soon. Asking again before it has begun is no more.
    pub fn ask(&self, generation: u64) -> Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let shared = self.shared.clone();
            let started = os::spawn("mfq-flush", move || shared.run());
            *thread = Some(started.map_err(|cause| Error::system("starting the flush thread", cause))?);
        }
        drop(thread);
        let mut table = self.shared.table.lock();
        table.ask(generation);
        self.shared.woken.notify_one();
        Ok(())
    }

    /// Lets a queue go, once the thread is done with it.
    pub fn withdraw(&self, generation: u64) {
        let mut table = self.shared.table.lock();
        let entry = table.queues.remove(&generation);
        if let Some(at) = entry.as_ref().and_then(|entry| entry.due) {
            table.due.remove(&(at, generation));
        }
        while table.in_work == Some(generation) {
            self.shared.done.wait(&mut table);
        }
    }
}

impl Drop for FlushService {
    fn drop(&mut self) {
        self.shared.table.lock().stopping = true;
        self.shared.woken.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join(); // it has caught its panics
        }
    }
}

impl Table {
    fn ask(&mut self, generation: Generation) {
        if let Some(entry) = self.queues.get_mut(&generation).filter(|entry| !entry.asked) {
            entry.asked = true;
            self.asked.push_back(generation);
        }
    }

    /// The queue to serve next, those whose moment has come behind those that asked before.
    fn next(&mut self) -> Option<(Generation, Arc<dyn Served>)> {
        while let Some(&(_, generation)) = self.due.first().filter(|(at, _)| *at <= Instant::now()) {
            self.come_again(generation, None);
            self.ask(generation);
        }
        loop {
            let generation = self.asked.pop_front()?;
            if let Some(entry) = self.queues.get_mut(&generation) {
                entry.asked = false;
                return Some((generation, entry.queue.clone()));
            }
        }
    }

    fn come_again(&mut self, generation: Generation, at: Option<Instant>) {
        let Some(entry) = self.queues.get_mut(&generation) else { return };
        if let Some(before) = std::mem::replace(&mut entry.due, at) {
            self.due.remove(&(before, generation));
        }
        self.due.extend(at.map(|at| (at, generation)));
    }
}

impl Shared {
    fn run(&self) {
        let mut table = self.table.lock();
        while !table.stopping {
            if let Some((generation, queue)) = table.next() {
                table.in_work = Some(generation);
                drop(table);
                let again_at = catch_unwind(AssertUnwindSafe(|| queue.serve())).unwrap_or_else(|_| {
                    queue.poison_by_panic();
                    log::write(Level::Error, format_args!("flushing: a panic, survived; the queue is poisoned"));
                    None
                });
                drop(queue); // before who withdraws it goes on: the last one to hold a queue is its owner
                table = self.table.lock();
                table.in_work = None;
                table.come_again(generation, again_at);
                self.done.notify_all();
                continue;
            }
            match table.due.first() {
                Some(&(at, _)) => drop(self.woken.wait_until(&mut table, at)),
                None => self.woken.wait(&mut table),
            }
        }
    }
}
