//! The system-call edge: what neither the standard library nor `rustix` offers in safe form, wrapped so that the rest of the
//! crate needs no `unsafe`.

#![allow(unsafe_code)]

pub(crate) mod bell;
pub(crate) mod branch;
pub(crate) mod clock;
pub(crate) mod entry;
pub(crate) mod interface;
pub(crate) mod probe;
pub(crate) mod ptrace;
pub(crate) mod remote;
pub(crate) mod timer;
