//! The terminal of whoever calls: its size, and the mode in which every key goes to the program in the instance.

use std::io::{self, IsTerminal};

use gureum_proto::common::v1::WindowSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Whether there is a person at both ends.
pub fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The terminal's size, if it tells one.
pub fn size() -> Option<WindowSize> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(WindowSize { rows: size.ws_row.into(), columns: size.ws_col.into() })
}

/// A terminal whose keys are not looked at here, until this is dropped: also by a panic.
pub struct Raw(Termios);

impl Raw {
    /// Nothing changes where standard input is no terminal.
    pub fn enter() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // What was shown last is shown whole first. A terminal that is gone cannot be put back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
