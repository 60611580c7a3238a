//! What a call's request breaks of the declared rules, kept until its handler has said what else is wrong.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
};

use tonic::Status;

use crate::validate::Found;

tokio::task_local! {
    static GATHERING: Declared;
}

/// What is found in the one request of a call. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Declared(Arc<OnceLock<Found>>);

impl Declared {
    /// Runs a call whose request is kept if it breaks rules, not refused when it is decoded. Only for calls of
    /// which all that changes anything asks [`Declared::is_broken`] first.
    pub async fn gather<F: Future>(self, call: F) -> F::Output {
        GATHERING.scope(self, call).await
    }

    /// Whether the request breaks a rule, so that its call must change nothing.
    pub fn is_broken(&self) -> bool {
        self.0.get().is_some_and(Found::is_any)
    }

    /// What the caller is answered in place of this, if the request breaks a rule.
    pub fn refusal(&self, answered: Option<&Status>) -> Option<Status> {
        self.0.get()?.refusal(answered)
    }
}

/// Keeps what was found in the request of the call that this task serves. Given back outside such calls, and for
/// whatever is decoded after the request: that is what peers answer.
pub(crate) fn keep(found: Found) -> Result<(), Found> {
    let mut found = Some(found);
    let _ = GATHERING.try_with(|declared| {
        if let Some(first) = found.take() {
            found = declared.0.set(first).err();
        }
    });
    found.map_or(Ok(()), Err)
}
