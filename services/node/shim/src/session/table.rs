//! The sessions of an instance as its shim has them: who asked, until he leaves or the program has ended.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{SessionCommand, SessionRequest, SessionTold};
use crate::{control::Lines, init::Order};

/// Sessions of an instance at once: each costs the shim a descriptor, of which it has 1,024 by custom. More are refused.
const MOST: usize = 256;

#[derive(Default)]
pub struct Table {
    /// The number of the last one.
    last: u64,
    open: BTreeMap<u64, Open>,
}

struct Open {
    client: Lines,
    /// Open files that come when it begins.
    files: usize,
}

impl Table {
    /// Passes a wish on to process 1, of which there is one in an instance that is up.
    pub fn begin(&mut self, mut client: Lines, request: SessionRequest, init: Option<&mut Lines>) {
        let (number, files) = (self.last + 1, request.files());
        let refused = match init {
            None => Some("the instance is not up".to_owned()),
            Some(_) if self.open.len() >= MOST => Some(format!("the instance has {MOST} sessions, which is the most: end one of them")),
            Some(init) => (!init.write(&Order::OpenSession { number, request })).then(|| "the instance does not answer".to_owned()),
        };
        match refused {
            None => {
                self.last = number;
                self.open.insert(number, Open { client, files });
            }
            // Whoever does not hear it has gone.
            Some(message) => drop(client.write(&SessionTold::Refused { message })),
        }
    }

    /// Where something may be heard.
    pub fn clients(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.values().map(|open| open.client.as_fd())
    }

    /// Hears what is wanted of sessions. One whose client has gone is hung up.
    pub fn obey(&mut self, mut init: Option<&mut Lines>) {
        let mut orders = Vec::new();
        self.open.retain(|number, open| {
            let number = *number;
            let Some(commands) = open.client.read::<SessionCommand>() else {
                orders.push(Order::HangUp { number });
                return false;
            };
            orders.extend(commands.into_iter().map(|SessionCommand::Signal(signal)| Order::SignalSession { number, signal }));
            true
        });
        if let Some(init) = &mut init {
            // A process 1 that does not take them has ended, and its sessions with it.
            let _ = orders.iter().all(|order| init.write(order));
        }
    }

    /// Tells a session's client what process 1 says of it. `files` are those that came with what was said, in order.
    pub fn told(&mut self, number: u64, told: &SessionTold, from: &mut VecDeque<OwnedFd>, files: usize) {
        let files: Vec<OwnedFd> = from.drain(..files.min(from.len())).collect();
        let Some(open) = self.open.get_mut(&number) else { return };
        let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        let whole = *told != SessionTold::Opened || files.len() == open.files;
        let heard = whole && open.client.write_with(told, &files);
        if *told != SessionTold::Opened {
            self.open.remove(&number);
        } else if !heard {
            // It is read as gone next, and hung up.
            let _ = open.client.shutdown();
        }
    }

    /// Ends all sessions.
    pub fn close(&mut self, message: &str) {
        for open in std::mem::take(&mut self.open).values_mut() {
            let _ = open.client.write(&SessionTold::Closed { message: message.to_owned() });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Lines, Lines) {
        let (one, other) = UnixStream::pair().unwrap();
        (Lines::new(one).unwrap(), Lines::new(other).unwrap())
    }

    fn request() -> SessionRequest {
        SessionRequest { command: Vec::new(), terminal: None, user: "root".into() }
    }

    #[test]
    fn whoever_goes_has_his_session_hung_up_and_what_came_for_him_is_closed() {
        let (mut init, mut heard) = pair();
        let (client, theirs) = pair();
        let mut table = Table::default();
        table.begin(client, request(), Some(&mut init));
        assert!(matches!(heard.read::<Order>().unwrap()[..], [Order::OpenSession { number: 1, .. }]));
        drop(theirs);
        table.obey(Some(&mut init));
        assert!(matches!(heard.read::<Order>().unwrap()[..], [Order::HangUp { number: 1 }]));
        let (near, far) = UnixStream::pair().unwrap();
        table.told(1, &SessionTold::Opened, &mut VecDeque::from([OwnedFd::from(far)]), 1);
        assert_eq!(std::io::Read::read(&mut &near, &mut [0]).unwrap(), 0, "it is still open");
    }

    #[test]
    fn an_instance_that_is_not_up_refuses_and_one_that_ends_says_so() {
        let (client, mut theirs) = pair();
        Table::default().begin(client, request(), None);
        assert!(matches!(&theirs.read::<SessionTold>().unwrap()[..], [SessionTold::Refused { .. }]));
        let ((mut init, _heard), (client, mut theirs)) = (pair(), pair());
        let mut table = Table::default();
        table.begin(client, request(), Some(&mut init));
        table.close("it ends");
        assert_eq!(theirs.read::<SessionTold>(), Some(vec![SessionTold::Closed { message: "it ends".into() }]));
        assert_eq!(theirs.read::<SessionTold>(), None);
    }
}
