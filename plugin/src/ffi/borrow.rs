//! `(pointer, length)` pairs and C strings as slices and `&str`.
//!
//! Each function takes what Mosquitto's structs hold, null included. The lifetimes
//! are the caller's: the broker owns the memory and keeps it until the callback
//! returns.

use std::ffi::{CStr, c_char, c_void};

/// A payload: null or zero length is the empty slice.
///
/// # Safety
/// `data` is null or points to `len` bytes that stay unchanged for `'a`.
pub(crate) unsafe fn borrow_bytes<'a>(data: *const c_void, len: u32) -> &'a [u8] {
    if data.is_null() || len == 0 {
        return &[];
    }
    let len = len as usize; // lossless: usize has at least 32 bits on every Linux
    // SAFETY: not null, and the caller promises `len` readable bytes for `'a`.
    unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }
}

/// What a C string holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CText<'a> {
    /// A null pointer.
    Null,
    /// Valid UTF-8.
    Text(&'a str),
    /// Bytes that are not UTF-8.
    Invalid(&'a [u8]),
}

impl<'a> CText<'a> {
    /// The text, if there is one and it is UTF-8.
    pub(crate) fn text(self) -> Option<&'a str> {
        match self {
            CText::Text(text) => Some(text),
            CText::Null | CText::Invalid(_) => None,
        }
    }
}

/// A C string.
///
/// # Safety
/// `text` is null or a NUL-terminated string that stays unchanged for `'a`.
pub(crate) unsafe fn borrow_text<'a>(text: *const c_char) -> CText<'a> {
    if text.is_null() {
        return CText::Null;
    }
    // SAFETY: not null, and the caller promises the terminator and the lifetime.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) => CText::Text(text),
        Err(_) => CText::Invalid(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_payload_is_empty_whatever_its_length_says() {
        // SAFETY: null is allowed.
        assert_eq!(unsafe { borrow_bytes(std::ptr::null(), 7) }, b"");
    }

    #[test]
    fn a_zero_length_is_never_dereferenced() {
        let dangling = std::ptr::dangling::<c_void>();
        // SAFETY: zero bytes are read.
        assert_eq!(unsafe { borrow_bytes(dangling, 0) }, b"");
    }

    #[test]
    fn a_payload_is_borrowed_whole_with_its_zero_bytes() {
        let bytes = [1_u8, 0, 255];
        // SAFETY: three bytes are there.
        assert_eq!(unsafe { borrow_bytes(bytes.as_ptr().cast(), 3) }, &bytes);
    }

    #[test]
    fn c_strings_are_told_apart() {
        // SAFETY: null, or literals with their terminator.
        unsafe {
            assert_eq!(borrow_text(std::ptr::null()), CText::Null);
            assert_eq!(borrow_text(c"".as_ptr()), CText::Text(""));
            assert_eq!(borrow_text(c"gr\u{fc}n".as_ptr()), CText::Text("grün"));
            assert_eq!(borrow_text(c"a\xff".as_ptr()), CText::Invalid(b"a\xff"));
            assert_eq!(borrow_text(c"a\xff".as_ptr()).text(), None);
        }
    }
}
