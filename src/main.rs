//! The `medsearch` program: everything it does is a command of [`medsearch::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    medsearch::cli::run(std::env::args_os())
}
