//! What an instance last wrote to its console, kept for when its node is away or has forgotten it.

use std::{fmt, sync::Arc};

use gureum_model::{Scope, Timestamp, id::InstanceId};
use serde::{Deserialize, Serialize};

use crate::instance::{Instance, InstanceState};

/// The end of a console that is kept, in bytes, as EC2 keeps it.
pub const MAX_CONSOLE_BYTES: usize = 64 * 1024;

/// An instance's console as it was last read. Stored as it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Console {
    pub scope: Scope,
    pub instance_id: InstanceId,
    #[serde(with = "crate::bytes")]
    pub output: Arc<[u8]>,
    pub time: Timestamp,
}

/// The length only: consoles show secrets at times, and must not get into logs.
impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Console({}: {} bytes, {:?})", self.instance_id, self.output.len(), self.time)
    }
}

impl Console {
    /// What a node answered; none if nothing was written yet.
    pub fn read(scope: &Scope, instance_id: InstanceId, output: &[u8], time: Timestamp) -> Option<Self> {
        let end = &output[output.len().saturating_sub(MAX_CONSOLE_BYTES)..];
        (!end.is_empty()).then(|| Self { scope: scope.clone(), instance_id, output: Arc::from(end), time })
    }

    /// Whether this is to be kept in place of what is: it tells more, and is not older.
    pub fn replaces(&self, kept: Option<&Self>) -> bool {
        kept.is_none_or(|kept| kept.output != self.output && kept.time <= self.time)
    }
}

/// Whether an instance's console would be lost once it is forgotten: somebody may still ask for it.
pub fn is_last(it: &Instance, now: Timestamp) -> bool {
    matches!(it.state, InstanceState::Terminated { .. }) && it.visible(now)
}

#[cfg(test)]
mod tests {
    use gureum_model::id::ResourceId;

    use super::*;

    fn read(output: &[u8], micros: u64) -> Option<Console> {
        Console::read(&Scope::default(), InstanceId::from_number(1), output, Timestamp::from_micros(micros))
    }

    #[test]
    fn the_end_is_kept() {
        let mut long = vec![b'a'; MAX_CONSOLE_BYTES];
        long.push(b'z');
        let kept = read(&long, 1).unwrap();
        assert_eq!((kept.output.len(), kept.output.last()), (MAX_CONSOLE_BYTES, Some(&b'z')));
        assert_eq!(read(b"", 1), None);
    }

    #[test]
    fn what_is_kept_gives_way_to_what_is_newer_and_different() {
        let (kept, same, other, late) = (read(b"a", 2).unwrap(), read(b"a", 3).unwrap(), read(b"b", 2).unwrap(), read(b"b", 1).unwrap());
        assert!(kept.replaces(None) && other.replaces(Some(&kept)));
        assert!(!same.replaces(Some(&kept)) && !late.replaces(Some(&kept)));
    }

    #[test]
    fn it_is_stored_as_bytes_and_a_log_does_not_show_it() {
        let kept = read(&[0xff; 300], 1).unwrap();
        let stored = rmp_serde::to_vec_named(&kept).unwrap();
        assert!(stored.len() < 450, "{}", stored.len());
        assert_eq!(rmp_serde::from_slice::<Console>(&stored).unwrap(), kept);
        assert!(!format!("{kept:?}").contains("255"));
    }
}
