//! What went wrong last in this thread. A fixed buffer without a destructor: it also works in the destructors of other
//! thread-locals, and needs no memory to tell that there is none.

use crate::error::Error;
use std::cell::RefCell;

const ROOM: usize = 512;

struct LastError {
    len: usize,
    errno: i32,
    text: [u8; ROOM],
}

thread_local! {
    static LAST: RefCell<LastError> = const { RefCell::new(LastError { len: 0, errno: 0, text: [0; ROOM] }) };
}

#[cold]
pub fn set(error: &Error) {
    LAST.with_borrow_mut(|last| {
        last.len = copy_text(error.message(), &mut last.text);
        last.errno = error.errno();
    });
}

pub fn errno() -> i32 {
    LAST.with_borrow(|last| last.errno)
}

/// # Safety
/// `buf` is NULL or valid for `cap` bytes.
pub unsafe fn copy(buf: *mut u8, cap: usize) -> usize {
    LAST.with_borrow(|last| {
        if !buf.is_null() && cap > 0 {
            let len = last.len.min(cap - 1);
            // SAFETY: len + 1 <= cap, for which the caller says that `buf` is valid; it cannot lie in our thread-local.
            unsafe {
                buf.copy_from_nonoverlapping(last.text.as_ptr(), len);
                buf.add(len).write(0);
            }
        }
        last.len
    })
}

/// Copies as much of `text` as fits, in whole characters, with a NUL behind it and none in it. Returns the length.
pub fn copy_text(text: &str, room: &mut [u8]) -> usize {
    let mut len = text.len().min(room.len() - 1);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    for (to, from) in room.iter_mut().zip(text[..len].bytes()) {
        *to = if from == 0 { b'?' } else { from };
    }
    room[len] = 0;
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut room = [0xffu8; 6];
        assert_eq!(copy_text("abcd\u{e9}f", &mut room), 4);
        assert_eq!(&room[..5], b"abcd\0");
        assert_eq!(copy_text("a\0b", &mut room), 3);
        assert_eq!(&room[..4], b"a?b\0");
        assert_eq!(copy_text("", &mut room), 0);
    }
}
