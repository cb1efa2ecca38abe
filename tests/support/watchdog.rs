//! Ends a test that hangs, with the name of what hung.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Aborts the process unless it is dropped in time. (A hung thread cannot be failed, only ended with everybody.)
pub struct Watchdog {
    _end: Sender<()>,
}

impl Watchdog {
    pub fn new(what: &'static str, timeout_s: u64) -> Watchdog {
        let (end, ended) = channel::<()>();
        std::thread::spawn(move || {
            if ended.recv_timeout(Duration::from_secs(timeout_s)) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{what}: hung for {timeout_s} s");
                std::process::abort();
            }
        });
        Watchdog { _end: end }
    }
}
