//! What every call passes on its way in and out: panics end here, messages are kept, and pointers become references.

use std::cell::Cell;
use std::error::Error;
use std::ffi::{CStr, c_char};
use std::fmt::{self, Write};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use bellwether_artifact::ArtifactError;
use bellwether_artifact::signature::SignatureError;

use super::abi::Code;
use crate::engine::{DecideError, EngineError};
use crate::policy::{PolicyError, Refusal};
use crate::release::ReleaseError;

/// Longest message, in bytes, with the NUL at its end; what is longer is cut.
const MESSAGE_BYTES: usize = 1_024;

/// Largest struct that a caller may declare.
const LARGEST_STRUCT: usize = 4_096;

thread_local! {
    /// The message of the last call on this thread that failed. Without a destructor, so that it needs no memory of its own.
    static MESSAGE: [Cell<u8>; MESSAGE_BYTES] = const { [const { Cell::new(0) }; MESSAGE_BYTES] };
}

/// A call that failed; its message is kept already.
#[derive(Debug)]
pub(super) struct Fault(Code);

/// Writes into the kept message and stops where it is full.
struct Writer<'a> {
    cells: &'a [Cell<u8>; MESSAGE_BYTES],
    used: usize,
}

impl Fault {
    /// Keeps the message.
    #[cold]
    pub(super) fn new(code: Code, message: impl fmt::Display) -> Fault {
        // A thread that is ending has no message any more; the number is told all the same.
        let _ = MESSAGE.try_with(|cells| {
            let mut writer = Writer { cells, used: 0 };
            // Only a full message refuses more of it.
            let _ = write!(writer, "{message}");
            cells[writer.used].set(0);
        });
        Fault(code)
    }

    pub(super) fn code(&self) -> Code {
        self.0
    }
}

impl Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            // A NUL would end the message for C.
            let character = if character == '\0' { '?' } else { character };
            let mut bytes = [0; 4];
            let bytes = character.encode_utf8(&mut bytes).as_bytes();
            if self.used + bytes.len() >= MESSAGE_BYTES {
                return Err(fmt::Error);
            }
            for byte in bytes {
                self.cells[self.used].set(*byte);
                self.used += 1;
            }
        }
        Ok(())
    }
}

/// The kept message; empty where nothing failed on this thread.
pub(super) fn message() -> *const c_char {
    MESSAGE.try_with(|cells| cells.as_ptr().cast::<c_char>()).unwrap_or(c"".as_ptr())
}

/// Runs the body of a call: what it fails with becomes a number, and so does a panic.
pub(super) fn guarded(body: impl FnOnce() -> Result<(), Fault>) -> Code {
    // A handle that was in use when something panicked holds memory that the next decision overwrites, and counters.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Code::Ok,
        Ok(Err(fault)) => fault.code(),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            let text = text.unwrap_or("no message");
            Fault::new(Code::Panic, format_args!("panic: {text}; this is a fault of the library, report it")).code()
        }
    }
}

fn check<T>(pointer: *const T, name: &str) -> Result<(), Fault> {
    if pointer.is_null() {
        return Err(Fault::new(Code::NullPointer, format_args!("{name} is NULL")));
    }
    if !pointer.is_aligned() {
        let wanted = align_of::<T>();
        return Err(Fault::new(Code::Misaligned, format_args!("{name} is not aligned to {wanted} bytes")));
    }
    Ok(())
}

/// What a pointer points to.
///
/// # Safety
/// A pointer that is neither null nor misaligned must point to a `T` that lives for `'a` and is not written meanwhile.
pub(super) unsafe fn reference<'a, T>(pointer: *const T, name: &str) -> Result<&'a T, Fault> {
    check(pointer, name)?;
    // SAFETY: the caller's promise; null and misaligned pointers are gone.
    Ok(unsafe { &*pointer })
}

/// Where something is to be written.
///
/// # Safety
/// As [`reference`], for writing, and nobody else looks at it meanwhile.
pub(super) unsafe fn place<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut MaybeUninit<T>, Fault> {
    check(pointer, name)?;
    // SAFETY: the caller's promise; null and misaligned pointers are gone.
    Ok(unsafe { &mut *pointer.cast() })
}

/// `length` elements from a pointer on; a null one will do where there are none.
///
/// # Safety
/// As [`reference`], for all of them.
pub(super) unsafe fn elements<'a, T>(pointer: *const T, length: usize, name: &str) -> Result<&'a [T], Fault> {
    if length == 0 {
        return Ok(&[]);
    }
    check_many(pointer, length, name)?;
    // SAFETY: the caller's promise; null and misaligned pointers are gone, and the bytes are no more than can be.
    Ok(unsafe { slice::from_raw_parts(pointer, length) })
}

/// Room for `length` elements from a pointer on; a null one will do where there are none.
///
/// # Safety
/// As [`place`], for all of them.
pub(super) unsafe fn room<'a, T>(
    pointer: *mut T,
    length: usize,
    name: &str,
) -> Result<&'a mut [MaybeUninit<T>], Fault> {
    if length == 0 {
        return Ok(&mut []);
    }
    check_many(pointer, length, name)?;
    // SAFETY: the caller's promise; null and misaligned pointers are gone, and the bytes are no more than can be.
    Ok(unsafe { slice::from_raw_parts_mut(pointer.cast(), length) })
}

fn check_many<T>(pointer: *const T, length: usize, name: &str) -> Result<(), Fault> {
    check(pointer, name)?;
    // No object is larger than this, and a slice of more would be undefined before it is read.
    let bytes = length.checked_mul(size_of::<T>()).filter(|bytes| *bytes <= isize::MAX as usize);
    if bytes.and_then(|bytes| pointer.addr().checked_add(bytes)).is_none() {
        let message = format_args!("a length of {length} for {name} is more than memory has");
        return Err(Fault::new(Code::InvalidArgument, message));
    }
    Ok(())
}

/// A text that ends with NUL.
///
/// # Safety
/// A pointer that is not null must point to bytes of which one is 0, all of which live for `'a` and are not written meanwhile.
pub(super) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, Fault> {
    check(pointer, name)?;
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|error| Fault::new(Code::InvalidUtf8, format_args!("{name} is not UTF-8: {error}")))
}

/// A struct that begins with its size: what the caller has of it, and zeros for the rest.
///
/// # Safety
/// A pointer that is neither null nor misaligned must point to a `usize`, and to as many bytes as that says. Of `T` zeros must be
/// a value, and so must any bytes.
pub(super) unsafe fn sized<T: Copy>(pointer: *const T, name: &str) -> Result<T, Fault> {
    check(pointer, name)?;
    // SAFETY: the caller's promise.
    let size = unsafe { size_at(pointer, name) }?;
    // SAFETY: the caller's promise; the size is bounded.
    let given = unsafe { slice::from_raw_parts(pointer.cast::<u8>(), size) };
    let known = size.min(size_of::<T>());
    if given[known..].iter().any(|byte| *byte != 0) {
        let message = format_args!("{name} sets something that this library does not know: use a later library");
        return Err(Fault::new(Code::InvalidArgument, message));
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: no more bytes than both sides have, and a value of ours overlaps nothing.
    unsafe { pointer.cast::<u8>().copy_to_nonoverlapping(value.as_mut_ptr().cast(), known) };
    // SAFETY: every byte is set, and the caller promises that any will do.
    Ok(unsafe { value.assume_init() })
}

/// Fills a struct that begins with its size, as far as the caller has it, and says there how far that is.
///
/// # Safety
/// A pointer that is neither null nor misaligned must point to a `usize`, and to as many bytes as that says, for writing.
/// `T` begins with a `usize`.
pub(super) unsafe fn fill<T: Copy>(pointer: *mut T, name: &str, value: &T) -> Result<(), Fault> {
    check(pointer, name)?;
    // SAFETY: the caller's promise.
    let filled = unsafe { size_at(pointer, name) }?.min(size_of::<T>());
    // SAFETY: no more bytes than both sides have, and a value of ours overlaps nothing.
    unsafe { (&raw const *value).cast::<u8>().copy_to_nonoverlapping(pointer.cast(), filled) };
    // SAFETY: the struct has its size at its beginning.
    unsafe { pointer.cast::<usize>().write(filled) };
    Ok(())
}

/// # Safety
/// The pointer is aligned and points to a `usize`.
unsafe fn size_at<T>(pointer: *const T, name: &str) -> Result<usize, Fault> {
    const { assert!(align_of::<T>() >= align_of::<usize>()) };
    // SAFETY: the caller's promise.
    let size = unsafe { pointer.cast::<usize>().read() };
    if !(size_of::<usize>()..=LARGEST_STRUCT).contains(&size) {
        let message = format_args!("the size in {name} is {size}: set it to sizeof the struct before the call");
        return Err(Fault::new(Code::InvalidArgument, message));
    }
    Ok(size)
}

/// An error with its causes, as one line.
struct Chain<'a>(&'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(out, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

impl From<DecideError> for Fault {
    fn from(error: DecideError) -> Fault {
        Fault::new(Code::from(Refusal::from(&error)), error)
    }
}

impl From<ReleaseError> for Fault {
    fn from(error: ReleaseError) -> Fault {
        let code = match &error {
            ReleaseError::Artifact(ArtifactError::Io { .. } | ArtifactError::TooLarge { .. }) => Code::ReleaseIo,
            ReleaseError::Artifact(ArtifactError::Manifest { .. }) => Code::ReleaseManifest,
            ReleaseError::Artifact(ArtifactError::HashMismatch { .. }) => Code::ReleaseHash,
            ReleaseError::Model(_) | ReleaseError::Engine(EngineError::Model(_)) => Code::ReleaseModel,
            ReleaseError::Engine(EngineError::IsaUnavailable(_) | EngineError::IntegersUnavailable(_)) => {
                Code::IsaUnavailable
            }
            ReleaseError::Binding { .. } => Code::ReleaseBinding,
            ReleaseError::Golden(_) => Code::ReleaseGolden,
            ReleaseError::Engine(EngineError::OnnxRuntime { .. }) => Code::EngineUnavailable,
            ReleaseError::Artifact(_) => Code::ReleaseOther,
        };
        Fault::new(code, Chain(&error))
    }
}

impl From<ArtifactError> for Fault {
    fn from(error: ArtifactError) -> Fault {
        ReleaseError::from(error).into()
    }
}

impl From<SignatureError> for Fault {
    fn from(error: SignatureError) -> Fault {
        let code = match &error {
            SignatureError::Missing => Code::SignatureMissing,
            SignatureError::Untrusted(_) => Code::SignatureUntrusted,
            SignatureError::Invalid(_) => Code::SignatureInvalid,
            _ => Code::SignatureMalformed,
        };
        Fault::new(code, error)
    }
}

impl From<PolicyError> for Fault {
    fn from(error: PolicyError) -> Fault {
        let code = match &error {
            PolicyError::Contract { .. } => Code::Contract,
            PolicyError::Binding { .. } => Code::ReleaseBinding,
            PolicyError::TooWide { .. } => Code::TooWide,
            PolicyError::Limits { .. } => Code::Limits,
            PolicyError::Golden(_) => Code::ReleaseGolden,
            PolicyError::Pinned => Code::Pinned,
            PolicyError::NoPrevious => Code::NoPrevious,
            PolicyError::Changed { .. } => Code::Changed,
            PolicyError::NoCanary => Code::NoCanary,
            PolicyError::Share(_) => Code::Share,
            PolicyError::Crowded { .. } => Code::Crowded,
        };
        Fault::new(code, Chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept() -> String {
        // SAFETY: the message of this thread ends with NUL and is not written while it is read.
        unsafe { CStr::from_ptr(message()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_becomes_a_number_and_the_next_call_works() {
        assert_eq!(guarded(|| panic!("seven {}", 7)), Code::Panic);
        assert!(kept().contains("panic: seven 7;"), "{}", kept());
        assert_eq!(guarded(|| panic!("plain")), Code::Panic);
        assert!(kept().contains("panic: plain;"));
        assert_eq!(guarded(|| std::panic::panic_any(7)), Code::Panic);
        assert_eq!(guarded(|| Ok(())), Code::Ok);
        assert!(kept().contains("no message"), "a call that went well leaves the message");
    }

    #[test]
    fn each_thread_has_its_message() {
        Fault::new(Code::Busy, "mine");
        std::thread::spawn(|| assert_eq!(kept(), "")).join().unwrap();
        assert_eq!(kept(), "mine");
    }

    #[test]
    fn sizes_say_how_much_of_a_struct_there_is() {
        type Three = [usize; 3];
        let word = size_of::<usize>();
        let check = |words: [usize; 4], expected: Option<Three>| {
            // SAFETY: the array holds as many bytes as any size below asks for.
            let read = unsafe { sized::<Three>(words.as_ptr().cast(), "it") };
            assert_eq!(read.ok(), expected, "{words:?}");
        };
        check([3 * word, 5, 6, 7], Some([3 * word, 5, 6]));
        check([2 * word, 5, 6, 7], Some([2 * word, 5, 0]));
        check([4 * word, 5, 6, 0], Some([4 * word, 5, 6]));
        check([4 * word, 5, 6, 7], None);
        check([0, 5, 6, 7], None);
        check([usize::MAX, 5, 6, 7], None);
        for (size, expected) in [(3, [3, 2, 3, 9]), (2, [2, 2, 9, 9]), (4, [3, 2, 3, 9])] {
            let mut words = [size * word, 9, 9, 9];
            // SAFETY: as above.
            unsafe { fill::<Three>(words.as_mut_ptr().cast(), "it", &[1, 2, 3]) }.unwrap();
            assert_eq!([words[0] / word, words[1], words[2], words[3]], expected);
        }
    }

    #[test]
    fn pointers_that_point_nowhere_are_named() {
        let values = [1.0_f32, 2.0];
        let odd = values.as_ptr().cast::<u8>().wrapping_add(1).cast::<f32>();
        let check = |pointer: *const f32, length: usize, expected: Result<usize, Code>| {
            // SAFETY: what is not refused lies in the array.
            let found = unsafe { elements(pointer, length, "values") };
            assert_eq!(found.map(<[f32]>::len).map_err(|fault| fault.code()), expected);
        };
        check(values.as_ptr(), 2, Ok(2));
        check(std::ptr::null(), 0, Ok(0));
        check(std::ptr::null(), 1, Err(Code::NullPointer));
        check(odd, 1, Err(Code::Misaligned));
        check(values.as_ptr(), usize::MAX, Err(Code::InvalidArgument));
        check(values.as_ptr(), isize::MAX as usize / 4 + 1, Err(Code::InvalidArgument));
        assert!(kept().contains("values"));
    }

    proptest! {
        #[test]
        fn a_message_is_kept_whole_or_cut_between_characters(text in "\\PC{0,600}", nul in any::<bool>()) {
            let text = if nul { format!("{text}\0{text}") } else { text };
            Fault::new(Code::InvalidArgument, &text);
            let (kept, text) = (kept(), text.replace('\0', "?"));
            prop_assert!(text.starts_with(&kept));
            prop_assert!(kept.len() == text.len() || kept.len() + 4 >= MESSAGE_BYTES);
        }
    }
}
