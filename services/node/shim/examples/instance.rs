//! Is a shim and nothing else, for the tests: `instance shim DIRECTORY`.

use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(2).collect();
    gureum_shim::main(&arguments)
}
