//! The end of all that runs of an instance, as its process 1 sees to it.

use std::{collections::BTreeSet, process::ExitCode};

use nix::{
    errno::Errno,
    poll::poll,
    sys::{
        signal::{Signal, kill},
        wait::WaitPidFlag,
    },
    unistd::Pid,
};

use crate::{
    Doing, Failure, bare,
    control::Lines,
    init::{Ground, Order, reap},
    process::Process,
    session::Inside,
};

/// What runs of the instance beside process 1.
struct Others {
    ground: Ground,
    asked_all: bool,
    /// Those that were asked to end, where they are asked one by one.
    asked: BTreeSet<Process>,
}

impl Others {
    fn new(ground: Ground) -> Self {
        Self { ground, asked_all: false, asked: BTreeSet::new() }
    }

    /// Asks all to end that were not asked yet, and answers whether any runs.
    fn ask_to_end(&mut self) -> Result<bool, Failure> {
        match self.ground {
            Ground::Namespaces if !self.asked_all => {
                self.asked_all = true;
                self.signal_all(Some(Signal::SIGTERM))?;
                self.signal_all(Some(Signal::SIGCONT))
            }
            Ground::Namespaces => self.signal_all(None),
            Ground::Host => {
                let found = bare::descendants(std::process::id().cast_signed());
                // One may have been made while the others were asked.
                for process in found.iter().filter(|process| self.asked.insert(**process)) {
                    let _ = process.signal(Signal::SIGTERM).and_then(|()| process.signal(Signal::SIGCONT));
                }
                Ok(!found.is_empty())
            }
        }
    }

    /// Sends a signal to all at once, in a process namespace of the instance's own, and answers whether there are any.
    fn signal_all(&self, signal: Option<Signal>) -> Result<bool, Failure> {
        match kill(Pid::from_raw(-1), signal) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(error) => Err(error).doing(|| "ending what runs".into()),
        }
    }
}

/// Ends without a shim, which nobody would know of any more, and takes all that runs with it.
pub fn abandon(ground: Ground) -> ExitCode {
    // Else the kernel does.
    if ground == Ground::Host {
        loop {
            let found = bare::descendants(std::process::id().cast_signed());
            if found.is_empty() {
                break;
            }
            found.iter().for_each(|process| _ = process.kill());
            while reap(Some(WaitPidFlag::WNOHANG)).is_some() {}
        }
    }
    ExitCode::FAILURE
}

/// Lets everything end. What does not want to is ended by the shim, with this process.
pub fn shut_down(ground: Ground, sessions: &Inside, shim: &mut Lines) -> Result<ExitCode, Failure> {
    sessions.hang_all_up();
    let mut others = Others::new(ground);
    loop {
        let any = others.ask_to_end()?;
        while reap(Some(WaitPidFlag::WNOHANG)).is_some() {}
        if !any {
            return Ok(ExitCode::SUCCESS);
        }
        let _ = poll(&mut [], BETWEEN_HANG_UPS);
        if shim.read::<Order>().is_none() {
            return Ok(abandon(ground));
        }
        sessions.hang_all_up();
    }
}

/// Milliseconds between two looks at what still runs when the instance shuts down.
const BETWEEN_HANG_UPS: u16 = 20;
