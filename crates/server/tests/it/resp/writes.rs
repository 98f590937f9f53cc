//! Writes of keys of a cache whose origin takes them: committed there, then answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use larder::{Cache, Memory, Policy};
use larder_core::{
    Action, BatchError, Decimal, Error, ErrorKind, Expected, Key, KeyPattern, LaneMark,
    LoadContext, Loaded, Origin, Result, Ttl, Value, Write, WriteAbilities, Written,
};
use larder_server::resp::{Door, Routes, ServedCache};
use tokio::runtime::Runtime;

use super::{Client, open_with, options};

/// Rows of whole numbers by member, all or none of a batch at a time.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    rows: BTreeMap<Key, BTreeMap<String, i64>>,
    loads: usize,
    transactions: usize,
}

type Row = BTreeMap<String, i64>;

fn row(value: &Bytes) -> Result<Row> {
    serde_json::from_slice(value)
        .map_err(|_| Error::new(ErrorKind::InvalidInput, "a row is an object of whole numbers"))
}

fn json(row: &Row) -> Bytes {
    serde_json::to_vec(row).expect("it is JSON").into()
}

impl State {
    fn write(&mut self, write: &Write<Key, Bytes>) -> Result<Written<Bytes>> {
        let held = self.rows.get(&write.key);
        let is_met = match write.expected {
            Expected::Absent => held.is_none(),
            Expected::Present => held.is_some(),
            _ => true,
        };
        if !is_met {
            return Ok(Written::Conflict { version: None });
        }
        let mut changed = true;
        match (&write.action, held.cloned()) {
            (Action::Put(value), _) => drop(self.rows.insert(write.key.clone(), row(value)?)),
            (Action::Remove, _) => changed = self.rows.remove(&write.key).is_some(),
            (_, None) => return Ok(Written::Missing),
            (Action::Patch(members), Some(mut held)) => {
                held.extend(row(members)?);
                self.rows.insert(write.key.clone(), held);
            }
            (Action::Add { field, by }, Some(mut held)) => {
                let unknown = || Error::new(ErrorKind::InvalidInput, "there is no such member");
                let number = held.get_mut(&**field).ok_or_else(unknown)?;
                let sum = Decimal::from(*number).checked_add(*by).and_then(Decimal::as_i64);
                *number = sum.ok_or_else(|| Error::new(ErrorKind::OriginFailed, "out of range"))?;
                self.rows.insert(write.key.clone(), held);
            }
            _ => unreachable!("every action is named"),
        }
        let now = self.rows.get(&write.key).map_or(Value::Absent, |row| Value::Present(json(row)));
        Ok(Written::Done { changed, now: Some(now), version: None })
    }
}

impl Origin<Key, Bytes> for Ledger {
    async fn load(&self, key: &Key, _: &LoadContext) -> Result<Loaded<Bytes>> {
        let mut state = self.0.lock().expect("no panic under it");
        state.loads += 1;
        Ok(Loaded::from(state.rows.get(key).map(json)))
    }

    fn write_abilities(&self) -> WriteAbilities {
        let mut abilities = WriteAbilities::SIMPLE;
        (abilities.patch, abilities.add, abilities.presence) = (true, true, true);
        abilities.batch_limit = 3;
        abilities
    }

    async fn write(&self, write: &Write<Key, Bytes>) -> Result<Written<Bytes>> {
        let written = self.write_all(std::slice::from_ref(write), None).await;
        written.map(|mut written| written.remove(0)).map_err(|failed| failed.error)
    }

    async fn write_all(
        &self,
        writes: &[Write<Key, Bytes>],
        _: Option<&LaneMark>,
    ) -> Result<Vec<Written<Bytes>>, BatchError> {
        let mut state = self.0.lock().expect("no panic under it");
        let mut after = state.clone();
        after.transactions += 1;
        let mut written = Vec::new();
        for (index, write) in writes.iter().enumerate() {
            let done = after.write(write);
            written.push(done.map_err(|error| BatchError { index: Some(index), error })?);
        }
        *state = after;
        Ok(written)
    }
}

/// The cache `account:{id}` over a ledger, and `rate:{id}` over one that is read only.
struct Bank {
    door: Door,
    ledger: Ledger,
    _runtime: Runtime,
}

struct Pair([(KeyPattern, ServedCache); 2]);

impl Routes for Pair {
    fn route(&self, key: &[u8]) -> Option<&ServedCache> {
        let key = std::str::from_utf8(key).ok()?;
        self.0.iter().find(|(pattern, _)| pattern.matches(key)).map(|(_, cache)| cache)
    }

    fn caches(&self) -> Vec<&ServedCache> {
        self.0.iter().map(|(_, cache)| cache).collect()
    }

    fn is_empty(&self) -> bool {
        false
    }
}

impl Bank {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let ledger = Ledger::default();
        let builder = |name: &str| {
            Cache::<Key, Bytes>::builder(name)
                .memory(Memory::bytes(1 << 20))
                .policy(Policy::ttl(Ttl::secs(100)))
                .runtime(runtime.handle().clone())
        };
        let pattern = |text: &str| text.parse().expect("it is a pattern");
        let accounts = builder("account").origin(ledger.clone()).build().expect("coherent");
        let read_only = larder_testkit::faulty::FaultyOrigin::<Key, Bytes>::new();
        let rates = builder("rate").origin(read_only).build().expect("coherent");
        let routes = Pair([(pattern("account:{id}"), accounts), (pattern("rate:{id}"), rates)]);
        let door = open_with(&options(), Arc::new(routes));
        Self { door, ledger, _runtime: runtime }
    }

    fn client(&self) -> Client {
        Client::connect(self.door.address())
    }

    fn loads(&self) -> usize {
        self.ledger.0.lock().expect("no panic under it").loads
    }

    fn transactions(&self) -> usize {
        self.ledger.0.lock().expect("no panic under it").transactions
    }
}

#[test]
fn what_is_set_is_read_without_a_load() {
    let bank = Bank::open();
    let (mut one, mut two) = (bank.client(), bank.client());
    assert_eq!(one.ask("SET account:1 {\"sum\":5}"), "+OK\r\n");
    assert_eq!(two.ask("GET account:1"), "$9\r\n{\"sum\":5}\r\n");
    assert_eq!(one.ask("SET account:1 {\"sum\":6} EX 10"), "+OK\r\n");
    assert_eq!(two.ask("GET account:1"), "$9\r\n{\"sum\":6}\r\n");
    let left = two.ask("TTL account:1");
    assert!(left == ":10\r\n" || left == ":9\r\n", "{left}");
    assert_eq!(one.ask("DEL account:1 account:2"), ":1\r\n");
    assert_eq!(two.ask("GET account:1"), "$-1\r\n");
    assert_eq!(bank.loads(), 0);
}

#[test]
fn conditions_are_those_of_the_database() {
    let bank = Bank::open();
    let mut client = bank.client();
    assert_eq!(client.ask("SET account:1 {\"sum\":5} XX"), "$-1\r\n");
    assert_eq!(client.ask("SETNX account:1 {\"sum\":5}"), ":1\r\n");
    assert_eq!(client.ask("SETNX account:1 {\"sum\":6}"), ":0\r\n");
    assert_eq!(client.ask("SET account:1 {\"sum\":7} NX"), "$-1\r\n");
    assert_eq!(client.ask("SET account:1 {\"sum\":8} XX"), "+OK\r\n");
    assert_eq!(client.ask("GET account:1"), "$9\r\n{\"sum\":8}\r\n");
}

#[test]
fn members_are_patched_and_added_to() {
    let bank = Bank::open();
    let mut client = bank.client();
    assert_eq!(client.ask("LARDER.PATCH account:1 {\"sum\":5}"), ":0\r\n");
    assert_eq!(client.ask("LARDER.INCR account:1 sum 2"), "$-1\r\n");
    client.ask("SET account:1 {\"sum\":5,\"rank\":1}");
    assert_eq!(client.ask("LARDER.PATCH account:1 {\"rank\":2}"), ":1\r\n");
    assert_eq!(client.ask("LARDER.INCR account:1 sum -7"), "$2\r\n-2\r\n");
    assert_eq!(client.ask("GET account:1"), "$19\r\n{\"rank\":2,\"sum\":-2}\r\n");
    for wrong in ["LARDER.INCR account:1 sum 1e5", "LARDER.INCR account:1 colour 1"] {
        assert!(client.ask(wrong).starts_with("-ERR "), "{wrong}");
    }
    let refused = client.ask("LARDER.INCR plain sum 1");
    assert!(refused.starts_with("-ERR 'plain' belongs to no cache"), "{refused}");
    let refused = client.ask("LARDER.PATCH rate:1 {}");
    assert!(refused.contains("takes no writes"), "{refused}");
}

#[test]
fn what_is_written_at_once_is_one_transaction_or_nothing() {
    let bank = Bank::open();
    let mut client = bank.client();
    assert_eq!(client.ask("MSET account:1 {\"a\":1} account:2 {\"a\":2}"), "+OK\r\n");
    assert_eq!(bank.transactions(), 1);
    let failed = client.ask("MSET account:1 {\"a\":3} account:2 what");
    assert!(failed.starts_with("-ERR a row is an object"), "{failed}");
    assert_eq!(client.ask("GET account:1"), "$7\r\n{\"a\":1}\r\n");
    let mixed = client.ask("MSET account:1 {\"a\":3} plain 1");
    assert!(mixed.contains("'plain' does not belong to the cache 'account'"), "{mixed}");
    let many = client.ask("MSET account:1 {} account:2 {} account:3 {} account:4 {}");
    assert!(many.contains("limit: 3"), "{many}");
    // Deletions are as many transactions as it takes.
    client.ask("SET plain 1");
    let deleted = client.ask("DEL account:1 plain account:2 account:3 account:4 account:5");
    assert_eq!(deleted, ":3\r\n");
    assert_eq!(client.ask("EXISTS plain"), ":0\r\n");
}

#[test]
fn what_cannot_be_written_says_how() {
    let bank = Bank::open();
    let mut client = bank.client();
    client.ask("SET account:1 {\"sum\":5}");
    for refused in
        ["INCR account:1", "APPEND account:1 x", "EXPIRE account:1 5", "GETDEL account:1"]
    {
        let reply = client.ask(refused);
        assert!(reply.contains("LARDER.PATCH"), "{refused}: {reply}");
    }
    let reply = client.ask("SET rate:1 {}");
    assert!(reply.contains("takes no writes"), "{reply}");
    let reply = client.ask("DEL account:1 rate:1");
    assert!(reply.contains("'rate:1'"), "{reply}");
    assert_eq!(client.ask("GET account:1"), "$9\r\n{\"sum\":5}\r\n");
    for wrong in ["SET account:1 {} KEEPTTL", "SET account:1 {} EX 0", "SET account:1 {} NX XX"] {
        assert!(client.ask(wrong).starts_with("-ERR"), "{wrong}");
    }
    let reply = client.ask("SETEX account:1 0 {}");
    assert_eq!(reply, "-ERR invalid expire time in 'setex' command\r\n");
    // Longer than any time there is: for ever.
    assert_eq!(client.ask("SETEX account:1 9223372036854775807 {}"), "+OK\r\n");
    assert_eq!(client.ask("GET account:1"), "$2\r\n{}\r\n");
    assert_eq!(client.ask("MULTI"), "+OK\r\n");
    assert_eq!(client.ask("SET account:1 {}"), "+QUEUED\r\n");
    assert!(client.ask("EXEC").contains("outside of MULTI"));
}
