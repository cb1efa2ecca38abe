//! The C surface, and the only place that knows C. Every exported function is three steps: decode the arguments, call the
//! core, encode the result. Its doc comment is the manual in `mfq.h`, which cbindgen makes of these files.
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
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of an exported function. No panic crosses into C, and every failure leaves its sentence behind.
#[inline]
fn guard(body: impl FnOnce() -> Result<()>) -> mfq_status_t {
    // Unwind safe: what a panic leaves half done belongs to the core, whose locks and positions outlive it.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => MFQ_OK,
        Ok(Err(error)) => fail(&error),
        Err(payload) => fail(&panicked(payload)),
    }
}

#[cold]
fn fail(error: &Error) -> mfq_status_t {
    last_error::set(error);
    error.status() as mfq_status_t
}

#[cold]
fn panicked(payload: Box<dyn Any + Send>) -> Error {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let error = Error::new(Status::Panic, format!("panic: {}", text.unwrap_or("without a text")));
    // A payload may panic once more when it is dropped; a leak is the lesser evil.
    std::mem::forget(payload);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_and_a_sentence() {
        assert_eq!(guard(|| panic!("the sky is falling")), MFQ_E_PANIC);
        let mut text = [0u8; 64];
        // SAFETY: `text` has the length that is said.
        let len = unsafe { mfq_last_error(text.as_mut_ptr().cast(), text.len()) };
        assert_eq!(&text[..len], b"panic: the sky is falling");
    }

    #[test]
    fn every_status_has_its_number_and_its_sentence() {
        assert_eq!(Status::Invalid as i32, MFQ_E_INVALID);
        assert_eq!(Status::Reentrant as i32, MFQ_E_REENTRANT);
        // SAFETY: takes a number, gives a static string.
        let sentence = |status| unsafe { std::ffi::CStr::from_ptr(mfq_strerror(status)) };
        let mut seen = std::collections::HashSet::new();
        assert!((MFQ_E_REENTRANT..=MFQ_OK).all(|status| seen.insert(sentence(status))));
        assert!(seen.insert(sentence(1)));
        assert_eq!(sentence(i32::MIN), sentence(1));
    }
}
