//! Key pairs: create, import, describe, delete.

use gureum_model::{Filters, PageRequest, Refusal, Scope, Tags, id::KeyPairId, refusal::Violations};
use gureum_proto::security::v1 as proto;
use gureum_security_domain::{
    KeyPair,
    key_pair::{KeyError, KeyName, NewKeyPair, Present, add, may_add},
    private_key::{NewKey, generate},
    public_key::{PublicHalf, import},
};
use gureum_service::{Answer, Error, mutate, wire};
use gureum_store::{Listed, State, list, list::get_all};
use rand_core::OsRng;

use super::{Api, convert};
use crate::store::{Happened, KeyPairRow, Schema, View, write_key_pair};

impl Api {
    pub(super) async fn create_key(
        &self,
        scope: Scope,
        request: proto::CreateKeyPairRequest,
    ) -> Result<proto::CreateKeyPairResponse, Error> {
        let (name, tags) = parse(&request.key_name, &request.tags)?;
        if request.client_token.is_empty() {
            // Asked before a key is made for nothing; the decision below asks again.
            let state = self.store.read();
            may_add(&name, present(&View { tables: &state, scope: &scope }, &name)).map_err(Refusal::from)?;
        }
        let (kind, format) = (convert::key_type(request.key_type()), convert::key_format(request.key_format()));
        let named = name.clone();
        // Finding the primes of an RSA key takes up to a second.
        let made = tokio::task::spawn_blocking(move || generate(kind, format, &named, &mut OsRng)).await;
        let made: NewKey = made.map_err(|error| Error::Internal(error.to_string()))?.map_err(|error| Error::Internal(error.to_string()))?;
        let decide = self.add_key(scope.clone(), name, made.public, tags);
        let private = made.private;
        mutate(&self.store, &scope, &request, move |transaction| {
            let pair = decide(transaction)?;
            let key = KeyPairRow::list_key(&pair.scope, pair.id);
            let remembered = proto::CreateKeyPairResponse { key_pair: Some(convert::key_pair(&pair)), key_material: String::new() };
            let answer = proto::CreateKeyPairResponse { key_material: private.reveal().to_owned(), ..remembered.clone() };
            Ok(Answer::created::<KeyPairRow>(answer, key).remembered_as(remembered))
        })
        .await
    }

    pub(super) async fn import_key(
        &self,
        scope: Scope,
        request: proto::ImportKeyPairRequest,
    ) -> Result<proto::ImportKeyPairResponse, Error> {
        let (name, tags) = parse(&request.key_name, &request.tags)?;
        let public = import(&request.public_key_material, &name).map_err(Refusal::from)?;
        let decide = self.add_key(scope.clone(), name, public, tags);
        mutate(&self.store, &scope, &request, move |transaction| {
            let pair = decide(transaction)?;
            let key = KeyPairRow::list_key(&pair.scope, pair.id);
            Ok(Answer::created::<KeyPairRow>(proto::ImportKeyPairResponse { key_pair: Some(convert::key_pair(&pair)) }, key))
        })
        .await
    }

    pub(super) async fn delete_key(
        &self,
        scope: Scope,
        request: proto::DeleteKeyPairRequest,
    ) -> Result<proto::DeleteKeyPairResponse, Error> {
        let mut violations = Violations::new();
        let id: Option<KeyPairId> = violations.optional_id("key_pair_id", &request.key_pair_id);
        if request.key_pair_id.is_empty() && request.key_name.is_empty() {
            violations.add_as("MissingParameter", "key_name", "key_name or key_pair_id is required");
        }
        violations.finish()?;
        let (scope_of_key, name) = (scope.clone(), request.key_name.clone());
        mutate(&self.store, &scope, &request, move |transaction| {
            let view = View { tables: transaction, scope: &scope_of_key };
            let found = match id {
                Some(id) => view.tables.key_pairs.get(&KeyPairRow::list_key(&scope_of_key, id)).map(|row| row.record.0.clone()),
                None => view.key_pair_named(&name).cloned(),
            };
            // One that does not exist is as deleted as it can be.
            let Some(gone) = found else { return Ok(proto::DeleteKeyPairResponse::default()) };
            let key_pair_id = gone.id.to_string();
            write_key_pair(transaction, gone, Happened::Deleted);
            Ok(proto::DeleteKeyPairResponse { key_pair_id })
        })
        .await
    }

    /// The decision behind create and import.
    fn add_key(
        &self,
        scope: Scope,
        name: KeyName,
        public: PublicHalf,
        tags: Tags,
    ) -> impl FnOnce(&mut gureum_store::Transaction<'_, Schema>) -> Result<KeyPair, Refusal> + Send + 'static {
        let id = self.ids.next();
        move |transaction| {
            let view = View { tables: transaction, scope: &scope };
            let present = present(&view, &name);
            let new = NewKeyPair { id, name: name.clone(), public, tags };
            let pair = add(&scope, new, present, transaction.now())?;
            write_key_pair(transaction, pair.clone(), Happened::Created);
            Ok(pair)
        }
    }
}

fn parse(name: &str, tags: &[gureum_proto::common::v1::Tag]) -> Result<(KeyName, Tags), Refusal> {
    let mut violations = Violations::new();
    let name = violations.check("key_name", KeyName::parse(name));
    let tags = violations.check("", Tags::from_user("tags", wire::tag_pairs(tags.to_vec()))).unwrap_or_default();
    violations.finish()?;
    Ok((name.ok_or_else(|| Refusal::missing("key_name"))?, tags))
}

fn present<'a>(view: &View<'a>, name: &KeyName) -> Present<'a> {
    Present { same_name: view.key_pair_named(name.as_str()), count: view.key_pair_count() }
}

pub fn describe(
    state: &State<Schema>,
    scope: &Scope,
    request: proto::DescribeKeyPairsRequest,
) -> Result<proto::DescribeKeyPairsResponse, Refusal> {
    let mut violations = Violations::new();
    let mut ids: Vec<KeyPairId> = violations.ids("key_pair_ids", &request.key_pair_ids);
    let filters = violations.check("", Filters::for_kind::<KeyPairRow>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    let named = !ids.is_empty() || !request.key_names.is_empty();
    let view = View { tables: state, scope };
    let (found, missing): (Vec<_>, Vec<_>) = request
        .key_names
        .iter()
        .enumerate()
        .map(|(place, name)| (place, name, view.key_pair_named(name)))
        .partition(|(_, _, pair)| pair.is_some());
    let by_name = missing.into_iter().map(|(place, name, _)| {
        Err::<(), _>(Refusal::from(KeyError::NotFound { keys: vec![name.clone()] }).of_field(format!("key_names[{place}]")))
    });
    Refusal::both(get_all(&state.key_pairs, scope, "key_pair_ids", &ids).map(drop), Refusal::all(by_name))?;
    ids.extend(found.into_iter().filter_map(|(_, _, pair)| pair.map(|pair| pair.id)));
    let (rows, next_page_token) = if named {
        (
            get_all(&state.key_pairs, scope, "key_pair_ids", &ids)?.into_iter().filter(|row| filters.pass(&row.record)).collect(),
            String::new(),
        )
    } else {
        let page = PageRequest::new(request.page_size, &request.page_token, &("key pairs", scope, &filters))?;
        list(&state.key_pairs, scope, &filters, &page)
    };
    Ok(proto::DescribeKeyPairsResponse { key_pairs: rows.iter().map(|row| convert::key_pair(row)).collect(), next_page_token })
}
