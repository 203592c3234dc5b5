//! What a command prints. Whoever reads it may stop before the end (`medsearch inbox | head`): that is no fault, and keeps no command from its work.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Prints a line.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::say::line(format_args!($($text)*)) };
}
pub(super) use say;

/// Prints a line, unless nobody reads any more.
///
/// What can't be written for another reason, such as a full disk, ends the program with 1: half of an answer is none.
pub fn line(text: Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{text}")
        && error.kind() != ErrorKind::BrokenPipe
    {
        eprintln!("error: can't write what was found: {error}");
        std::process::exit(1);
    }
}
