//! The program that fuzzes is libFuzzer's. It is started from here because numkong's archive holds a leftover `main` (a probe of the processor),
//! which the linker meets first: a target would end at once, with success, having tried nothing.

use std::ffi::{c_char, c_int};

type Target = unsafe extern "C" fn(*const u8, usize) -> c_int;

unsafe extern "C" {
    fn LLVMFuzzerRunDriver(argc: *mut c_int, argv: *mut *mut *mut c_char, target: Target) -> c_int;
    fn LLVMFuzzerTestOneInput(data: *const u8, size: usize) -> c_int;
}

#[unsafe(no_mangle)]
extern "C" fn main(mut argc: c_int, mut argv: *mut *mut c_char) -> c_int {
    // SAFETY: these are the arguments of the process, and the function is the one that `fuzz_target!` made.
    unsafe { LLVMFuzzerRunDriver(&raw mut argc, &raw mut argv, LLVMFuzzerTestOneInput) }
}
