//! One way for all calls that change something: idempotent by client token, refusable by dry run.

use gureum_model::{Refusal, RefusalKind, Scope};
use gureum_proto::Mutation;
use gureum_store::{Recall, Record, Store, Tables, TokenKey, Transaction, token::fingerprint};
use prost::Message;

use crate::error::Error;

/// What a decision answers, and what is remembered of it for the call's client token.
pub struct Answer<A> {
    answer: A,
    /// Differs from the answer where it holds a secret that must not be stored.
    remembered: Option<A>,
    /// The table and key of the row that the call created.
    created: Option<Created>,
}

struct Created {
    table: &'static str,
    key: String,
}

impl<A> From<A> for Answer<A> {
    fn from(answer: A) -> Self {
        Self { answer, remembered: None, created: None }
    }
}

impl<A> Answer<A> {
    /// The answer of a call that created the row with this key: its token lives as long as the row.
    pub fn created<R: Record>(answer: A, key: String) -> Self {
        Self { answer, remembered: None, created: Some(Created { table: R::TABLE, key }) }
    }

    /// Has a repeat of the call answered with this instead.
    pub fn remembered_as(self, remembered: A) -> Self {
        Self { remembered: Some(remembered), ..self }
    }
}

/// Runs a decision once for its client token, and makes it durable with its answer.
///
/// # Errors
/// What the decision refuses; `IdempotentParameterMismatch` if the token was used with other
/// parameters; `DryRunOperation` if the call would have succeeded but asked for a dry run.
pub async fn mutate<T, Q, A, D, F>(store: &Store<T>, scope: &Scope, request: &Q, decide: F) -> Result<A, Error>
where
    T: Tables,
    Q: Mutation,
    A: Message + Default + 'static,
    D: Into<Answer<A>>,
    F: FnOnce(&mut Transaction<'_, T>) -> Result<D, Refusal> + Send + 'static,
{
    let token = (!request.client_token().is_empty())
        .then(|| (TokenKey::new(scope, Q::NAME, request.client_token()), fingerprint(&request.encode_to_vec())));
    let dry_run = request.dry_run();
    let decided = move |transaction: &mut Transaction<'_, T>| {
        if let Some((key, parameters)) = &token
            && let Some(answer) = recall::<T, A>(transaction, key, *parameters)?
        {
            return Ok(answer);
        }
        let Answer { answer, remembered, created } = decide(transaction)?.into();
        if dry_run {
            return Err(dry_run_refusal());
        }
        if let Some((key, parameters)) = token {
            let bytes = remembered.as_ref().unwrap_or(&answer).encode_to_vec();
            match created {
                Some(created) => transaction.remember_created(created.table, &created.key, &key, parameters, bytes),
                None => transaction.remember(&key, parameters, bytes),
            }
        }
        Ok(answer)
    };
    Ok(store.write(decided).await?)
}

/// What a repeated call is answered, if this is one.
pub fn recall<T: Tables, A: Message + Default>(
    transaction: &Transaction<'_, T>,
    key: &TokenKey,
    parameters: u128,
) -> Result<Option<A>, Refusal> {
    answer_of(transaction.recall(key, parameters))
}

/// As [`recall`], for what was looked up already.
pub fn answer_of<A: Message + Default>(recalled: Recall) -> Result<Option<A>, Refusal> {
    match recalled {
        Recall::New => Ok(None),
        Recall::Mismatch => Err(mismatch()),
        Recall::Answered(bytes) => A::decode(bytes.as_slice()).map(Some).map_err(|error| {
            Refusal::new(
                RefusalKind::Conflict,
                "IdempotentParameterMismatch",
                format!("the stored answer of this client token cannot be read: {error}"),
            )
        }),
    }
}

/// EC2's refusal of a token used with other parameters.
pub fn mismatch() -> Refusal {
    Refusal::wrong_state(
        "IdempotentParameterMismatch",
        "this client token was used before with other parameters; use a new token for a new request",
    )
}

/// EC2's answer to a dry run that would have succeeded.
pub fn dry_run_refusal() -> Refusal {
    Refusal::wrong_state("DryRunOperation", "the request would have succeeded, but dry_run is set")
}
