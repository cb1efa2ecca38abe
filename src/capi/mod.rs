//! The C surface, and the only place that knows C. Every exported function is three steps: decode the arguments, call
//! the core, encode the result. Its doc comment is the manual in `mfq.h`, which cbindgen makes of these files.
//!
//! A handle is a number in the shape of a pointer (`slots`), held during a call by a pin ([`crate::pin`]).

// The names are C's, and what a host has to keep to is said in the manual's form, not under a heading of rustdoc.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

mod append;
mod constants;
mod decode;
mod encode;
mod handles;
mod last_error;
mod library;
mod options;
mod queue;
mod read;
mod slots;
mod types;

pub use append::*;
pub use constants::*;
pub use library::*;
pub use queue::*;
pub use read::*;
pub use types::*;

use crate::error::{Error, Result, Status};
use handles::{About, QUEUES};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of an exported function. No panic crosses into C, and every failure leaves its sentence behind.
/// `about` is the handle it was called with, or `()`: a panic poisons the queue that it belongs to.
#[inline]
fn guard(about: impl About, body: impl FnOnce() -> Result<()>) -> mfq_status_t {
    // Unwind safe: what a panic leaves half done belongs to the core, whose locks outlive it, and which is poisoned.
    match catch_unwind(AssertUnwindSafe(|| {
        #[cfg(test)]
        tests::panic_if_asked();
        body()
    })) {
        Ok(Ok(())) => MFQ_OK,
        Ok(Err(error)) => fail(&error),
        Err(payload) => fail(&panicked(about, payload)),
    }
}

#[cold]
fn fail(error: &Error) -> mfq_status_t {
    last_error::set(error);
    error.status() as mfq_status_t
}

#[cold]
fn panicked(about: impl About, payload: Box<dyn Any + Send>) -> Error {
    if let Some(queue) = about.queue()
        && let Ok(queue) = QUEUES.pin(queue, "the queue of a call that panicked")
    {
        queue.poison_by_panic();
    }
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let error = Error::new(Status::Panic, format!("panic: {}", text.unwrap_or("without a text")));
    // A payload may panic once more when it is dropped; a leak is the lesser evil.
    std::mem::forget(payload);
    error
}

#[cfg(test)]
mod tests;
