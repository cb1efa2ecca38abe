//! Where messages for the host's log go. At the bottom, so that every layer can say something.

use parking_lot::RwLock;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(i32)]
pub enum Level {
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
}

type Sink = dyn Fn(Level, &str) + Send + Sync;

static SINK: RwLock<Option<Arc<Sink>>> = RwLock::new(None);
/// The most talkative level that reaches the sink; 0 while there is none.
static MOST: AtomicI32 = AtomicI32::new(0);

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Installs the sink, or removes it. A message being delivered may still reach the old one.
pub fn set_sink(sink: Option<Box<Sink>>, most: Level) {
    let mut slot = SINK.write();
    MOST.store(if sink.is_some() { most as i32 } else { 0 }, Ordering::Relaxed);
    *slot = sink.map(Arc::from);
}

/// Whether this thread is inside a callback of the host, from where it must not call the library.
#[inline]
pub fn in_callback() -> bool {
    IN_CALLBACK.get()
}

/// Calls the host back: what it asks of the library meanwhile is refused.
pub(crate) fn in_host<T>(callback: impl FnOnce() -> T) -> T {
    struct Left;
    impl Drop for Left {
        fn drop(&mut self) {
            IN_CALLBACK.set(false);
        }
    }
    IN_CALLBACK.set(true);
    let _left = Left;
    callback()
}

pub(crate) fn write(level: Level, message: fmt::Arguments<'_>) {
    if level as i32 > MOST.load(Ordering::Relaxed) {
        return;
    }
    let sink = SINK.read().clone(); // not held across the host's code, which may take its time
    if let Some(sink) = sink {
        // A sink's panic is not ours: what the message was about goes on.
        let _ = catch_unwind(AssertUnwindSafe(|| in_host(|| sink(level, &message.to_string()))));
    }
}
