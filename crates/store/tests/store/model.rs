//! Random groups of writes against a plain model, with panics, refusals, reopening and time.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::resume_unwind,
    path::Path,
    time::Duration,
};

use futures::future::join_all;
use gureum_model::{Scope, Timestamp};
use gureum_store::{Listed, Recall, Store, StoreError, TokenKey, Transaction, WriteError, outbox::OUTBOX_AGE, token::TOKEN_RETENTION};
use proptest::prelude::*;

use crate::support::{Counter, Item, ItemRow, Schema, TestClock, UNSTORABLE, draft, engine, fast_folder, item};

/// Small, so that nearly every group begins a checkpoint.
const SMALLEST_JOURNAL: u64 = 2_000;

#[derive(Debug, Clone)]
enum Step {
    Put(Item),
    Delete(u64),
    /// An event that changes no row.
    Tell(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    Accept,
    Refuse,
    Panic,
    Unstorable,
}

/// A token's number, and one of two sets of parameters.
type Token = (u8, u8);

#[derive(Debug, Clone)]
struct Write {
    steps: Vec<Step>,
    token: Option<Token>,
    ending: Ending,
}

#[derive(Debug, Clone)]
enum Command {
    /// Writes that wait at the same time.
    Group(Vec<Write>),
    Advance(Duration),
    Reopen,
}

#[derive(Debug, Clone, PartialEq)]
struct Remembered {
    parameters: u8,
    answer: Vec<u8>,
    expires: Option<Timestamp>,
    created: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    items: BTreeMap<u64, Item>,
    /// Resource, time and whether it is gone, of every event ever.
    events: Vec<(String, Timestamp, bool)>,
    tokens: BTreeMap<u8, Remembered>,
}

#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    Done(u64),
    Repeated(Vec<u8>),
    Refused,
    Panicked,
}

impl Model {
    fn number(item: &Item) -> u64 {
        use gureum_model::id::ResourceId;
        item.id.number() as u64
    }

    fn recall(&self, (number, parameters): Token, now: Timestamp) -> Recall {
        match self.tokens.get(&number) {
            Some(known) if known.expires.is_some_and(|expires| expires <= now) => Recall::New,
            Some(known) if known.parameters == parameters => Recall::Answered(known.answer.clone()),
            Some(_) => Recall::Mismatch,
            None => Recall::New,
        }
    }

    fn apply(&mut self, write: &Write, now: Timestamp) -> Outcome {
        match write.token.map(|token| self.recall(token, now)) {
            Some(Recall::Answered(answer)) => return Outcome::Repeated(answer),
            Some(Recall::Mismatch) => return Outcome::Refused,
            Some(Recall::New) | None => {}
        }
        match write.ending {
            Ending::Accept => {}
            Ending::Refuse => return Outcome::Refused,
            Ending::Panic | Ending::Unstorable => return Outcome::Panicked,
        }
        for step in &write.steps {
            match step {
                Step::Put(item) => {
                    self.events.push((item.name.clone(), now, false));
                    self.items.insert(Self::number(item), item.clone());
                }
                Step::Delete(number) => {
                    if let Some(gone) = self.items.remove(number) {
                        self.events.push((gone.name, now, true));
                        let tokens = self.tokens.values_mut().filter(|token| token.created == Some(*number));
                        tokens.for_each(|token| (token.expires, token.created) = (Some(now + TOKEN_RETENTION), None));
                    }
                }
                Step::Tell(number) => self.events.push((format!("told-{number}"), now, false)),
            }
        }
        if let Some((number, parameters)) = write.token {
            let created = created(write);
            let expires = created.is_none().then(|| now + TOKEN_RETENTION);
            self.tokens.insert(number, Remembered { parameters, answer: answer(write), expires, created });
        }
        Outcome::Done(self.events.len() as u64)
    }
}

/// The row that a write with a token creates: that of its last step, if that puts one.
fn created(write: &Write) -> Option<u64> {
    match write.steps.last() {
        Some(Step::Put(item)) => Some(Model::number(item)),
        Some(Step::Delete(_) | Step::Tell(_)) | None => None,
    }
}

fn answer(write: &Write) -> Vec<u8> {
    format!("{:?}", write.steps.len()).into_bytes()
}

fn token_key(number: u8) -> TokenKey {
    TokenKey::new(&Scope::default(), "test.Call", &format!("token-{number}"))
}

fn item_key(number: u64) -> String {
    ItemRow::list_key(&Scope::default(), item(number).id)
}

fn decide(write: &Write, transaction: &mut Transaction<'_, Schema>) -> Result<Outcome, ()> {
    if let Some((number, parameters)) = write.token {
        match transaction.recall(&token_key(number), parameters.into()) {
            Recall::Answered(answer) => return Ok(Outcome::Repeated(answer)),
            Recall::Mismatch => return Err(()),
            Recall::New => {}
        }
    }
    for step in &write.steps {
        match step {
            Step::Put(item) => {
                transaction.emit(draft(&item.name, false));
                transaction.put(ItemRow(item.clone()));
            }
            Step::Delete(number) => {
                if let Some(gone) = transaction.delete::<ItemRow>(&item_key(*number)) {
                    transaction.emit(draft(&gone.record.name, true));
                }
            }
            Step::Tell(number) => {
                transaction.emit(draft(format!("told-{number}"), false));
            }
        }
    }
    if let Some((number, parameters)) = write.token {
        match created(write) {
            Some(created) => transaction.remember_created("item", &item_key(created), &token_key(number), parameters.into(), answer(write)),
            None => transaction.remember(&token_key(number), parameters.into(), answer(write)),
        }
    }
    match write.ending {
        Ending::Accept => Ok(Outcome::Done(transaction.sequence())),
        Ending::Refuse => Err(()),
        // Without the message that a plain panic prints.
        Ending::Panic => resume_unwind(Box::new("a decision panics")),
        Ending::Unstorable => {
            transaction.put(Counter { name: "c".into(), value: UNSTORABLE });
            Ok(Outcome::Done(0))
        }
    }
}

fn open(directory: &Path, clock: &TestClock) -> Store<Schema> {
    Store::open(engine(directory, SMALLEST_JOURNAL), clock.options()).unwrap()
}

async fn run(commands: Vec<Command>) {
    let (folder, clock) = (fast_folder(), TestClock::default());
    let mut store = open(folder.path(), &clock);
    let mut model = Model::default();
    for command in commands {
        match command {
            Command::Advance(time) => clock.advance(time),
            Command::Reopen => {
                let before = store.read();
                drop(store);
                store = open(folder.path(), &clock);
                let after = store.read();
                assert_eq!((before.revision(), before.sequence()), (after.revision(), after.sequence()));
                let revisions = |rows: &gureum_store::Table<ItemRow>| rows.iter().map(|row| row.revision).collect::<Vec<_>>();
                assert_eq!(revisions(&before.items), revisions(&after.items), "a row forgot which revision wrote it");
            }
            Command::Group(writes) => {
                let before = (store.read(), model.clone());
                let outcomes = join_all(writes.iter().map(|write| async {
                    let copy = write.clone();
                    match store.write(move |transaction| decide(&copy, transaction)).await {
                        Ok(outcome) => outcome,
                        Err(WriteError::Refused(())) => Outcome::Refused,
                        Err(WriteError::Store(StoreError::Panicked)) => Outcome::Panicked,
                        Err(WriteError::Store(StoreError::Stopped(reason))) => panic!("the store stopped: {reason}"),
                        Err(WriteError::Store(StoreError::Barred)) => panic!("nothing bars a write here"),
                    }
                }))
                .await;
                let expected: Vec<_> = writes.iter().map(|write| model.apply(write, clock.now())).collect();
                assert_eq!(outcomes, expected);
                check(&before.0, &before.1, clock.now());
            }
        }
        check(&store.read(), &model, clock.now());
        check_tokens(&store, &model, clock.now()).await;
    }
}

fn check(state: &gureum_store::State<Schema>, model: &Model, now: Timestamp) {
    assert!(state.items.iter().map(|row| &row.record.0).eq(model.items.values()));
    let names: BTreeSet<&str> = model.items.values().map(|item| item.name.as_str()).collect();
    for name in names.into_iter().chain(["never"]) {
        let found = state.items.find("name", &format!("{}/{name}", Scope::default())).map(|row| &row.record.0);
        assert!(found.eq(model.items.values().filter(|item| item.name == name)));
    }
    for peer in ["p0", "p1", "p2"] {
        let of_peer = |item: &&Item| item.peer.as_deref() == Some(peer);
        assert!(state.items.find("peer", peer).map(|row| &row.record.0).eq(model.items.values().filter(of_peer)));
        let after = item_key(4);
        let later = state.items.find_after("peer", peer, Some(&after)).map(|row| &row.record.0);
        assert!(later.eq(model.items.range(5..).map(|(_, item)| item).filter(of_peer)));
    }
    let mut by_peer: Vec<(&str, &Item)> =
        model.items.values().filter_map(|item| Some((item.peer.as_deref()?, item))).filter(|(peer, _)| *peer >= "p1").collect();
    by_peer.sort_by_key(|(peer, item)| (*peer, item.id));
    assert!(state.items.find_from("peer", "p1").map(|(peer, row)| (peer, &row.record.0)).eq(by_peer));

    assert_eq!(state.sequence(), model.events.len() as u64);
    let oldest = state.oldest_after();
    let kept: Vec<_> = state.events_after(oldest).collect();
    assert!(kept.iter().map(|event| event.sequence).eq(oldest + 1..=state.sequence()), "the outbox has a gap or a repeat");
    assert_eq!(state.events_after(0).count(), kept.len(), "there are events before the oldest");
    for event in kept {
        let (resource, time, deleted) = &model.events[event.sequence as usize - 1];
        assert_eq!((&event.resource_id, &event.time, &event.deleted), (resource, time, deleted));
    }
    let young = model.events.iter().filter(|(_, time, _)| *time > now - OUTBOX_AGE).count() as u64;
    assert!(state.sequence() - oldest >= young, "an event went before its time");
}

async fn check_tokens(store: &Store<Schema>, model: &Model, now: Timestamp) {
    let recalled: Result<(), _> = store
        .write(|transaction| {
            let all = (0..4u8).flat_map(|number| (0..2u8).map(move |parameters| (number, parameters)));
            Err::<(), Vec<_>>(all.map(|token| (token, transaction.recall(&token_key(token.0), token.1.into()))).collect())
        })
        .await;
    let Err(WriteError::Refused(recalled)) = recalled else { panic!("the probe was not refused") };
    for (token, recall) in recalled {
        assert_eq!(recall, model.recall(token, now), "token {token:?}");
    }
}

fn step() -> impl Strategy<Value = Step> {
    let peer = prop::option::of(0..3u8);
    let put = (0..9u64, 0..4u8, peer, 0..600usize).prop_map(|(number, name, peer, size)| {
        Step::Put(Item { name: format!("n{name}"), peer: peer.map(|peer| format!("p{peer}")), body: vec![b'x'; size], ..item(number) })
    });
    prop_oneof![6 => put, 3 => (0..9u64).prop_map(Step::Delete), 1 => (0..9u64).prop_map(Step::Tell)]
}

fn write() -> impl Strategy<Value = Write> {
    let ending = prop_oneof![
        8 => Just(Ending::Accept),
        2 => Just(Ending::Refuse),
        1 => Just(Ending::Panic),
        1 => Just(Ending::Unstorable)
    ];
    let token = prop::option::weighted(0.4, (0..4u8, prop_oneof![4 => Just(0u8), 1 => Just(1)]));
    (prop::collection::vec(step(), 0..4), token, ending).prop_map(|(steps, token, ending)| Write { steps, token, ending })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        8 => prop::collection::vec(write(), 1..12).prop_map(Command::Group),
        2 => (1..30u64).prop_map(|hours| Command::Advance(Duration::from_secs(hours * 3600))),
        2 => Just(Command::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_as_the_model_has_it(commands in prop::collection::vec(command(), 1..24)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(commands));
    }
}
