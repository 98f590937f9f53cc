//! What a reader sees of a key of which writes wait.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use larder_core::{Action, Decimal, Value};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::pending::{Pending, PendingBase};

impl Pending {
    /// What the key will be, where values are objects of JSON. `origin` is what the
    /// origin has, which is needed where the base is [`PendingBase::Origin`].
    ///
    /// A patch replaces members, an addition is exact, and everything else stays as
    /// it is written. `None`: only the origin can tell, because something is no
    /// object, or an addition is made to what is no exact number.
    #[must_use]
    pub fn over(&self, origin: Option<&Value<Bytes>>) -> Option<Value<Bytes>> {
        let base = match &self.base {
            PendingBase::Value(value) => Value::Present(value.clone()),
            PendingBase::Absent => Value::Absent,
            PendingBase::Origin => origin?.clone(),
        };
        // What is not there is not changed: it becomes a dead letter.
        let (Value::Present(base), false) = (&base, self.changes.is_empty()) else {
            return Some(base);
        };
        let mut members: Members = serde_json::from_slice(base).ok()?;
        for change in &self.changes {
            match change {
                Action::Patch(patch) => members.patch(serde_json::from_slice(patch).ok()?),
                Action::Add { field, by } => members.add(field, *by)?,
                _ => return None,
            }
        }
        Some(Value::Present(members.write()))
    }
}

/// The members of an object, in order, their values as they are written.
struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    fn patch(&mut self, patch: Self) {
        for (name, value) in patch.0 {
            match self.find(&name) {
                Some(held) => *held = value,
                None => self.0.push((name, value)),
            }
        }
    }

    fn add(&mut self, name: &str, by: Decimal) -> Option<()> {
        let held = self.find(name)?;
        let text = held.get();
        if text == "null" {
            // Nothing and something is nothing, in a database.
            return Some(());
        }
        let (number, is_text) = match text.strip_prefix('"').and_then(|it| it.strip_suffix('"')) {
            Some(number) => (number, true),
            None => (text, false),
        };
        let sum = number.parse::<Decimal>().ok()?.checked_add(by)?;
        let sum = if is_text { format!("\"{sum}\"") } else { sum.to_string() };
        *held = RawValue::from_string(sum).ok()?;
        Some(())
    }

    /// Of several members with one name the last counts.
    fn find(&mut self, name: &str) -> Option<&mut Box<RawValue>> {
        self.0.iter_mut().rev().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    fn write(&self) -> Bytes {
        let mut text = BytesMut::new();
        text.put_u8(b'{');
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                text.put_u8(b',');
            }
            text.put_slice(serde_json::Value::from(name.as_str()).to_string().as_bytes());
            text.put_u8(b':');
            text.put_slice(value.get().as_bytes());
        }
        text.put_u8(b'}');
        text.freeze()
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(text: &str) -> Value<Bytes> {
        Value::Present(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn pending(base: PendingBase, changes: &[Action<Bytes>]) -> Pending {
        Pending { base, changes: changes.to_vec(), ..Pending::new() }
    }

    fn patch(text: &str) -> Action<Bytes> {
        Action::Patch(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn add(field: &str, by: &str) -> Action<Bytes> {
        Action::Add { field: field.into(), by: by.parse().expect("a number") }
    }

    #[test]
    fn changes_are_made_to_what_the_origin_has_and_leave_the_rest_as_it_is_written() {
        let row = r#"{"id":9007199254740993,"name":"cup","sum":"12.50","n":null,"odd":1.50e3}"#;
        let changes =
            [patch(r#"{"name":"m\"ug","new":[1, 2]}"#), add("sum", "-0.75"), add("id", "1")];
        let pending = pending(PendingBase::Origin, &changes);
        let read = pending.over(Some(&present(row)));
        let expected = r#"{"id":9007199254740994,"name":"m\"ug","sum":"11.75","n":null,"odd":1.50e3,"new":[1, 2]}"#;
        assert_eq!(read, Some(present(expected)));
    }

    #[test]
    fn what_is_not_there_is_not_changed_and_nothing_added_to_nothing_is_nothing() {
        let adds = [add("n", "1")];
        assert_eq!(pending(PendingBase::Absent, &adds).over(None), Some(Value::Absent));
        let of_origin = pending(PendingBase::Origin, &adds);
        assert_eq!(of_origin.over(Some(&Value::Absent)), Some(Value::Absent));
        assert_eq!(of_origin.over(Some(&present(r#"{"n":null}"#))), Some(present(r#"{"n":null}"#)));
        assert_eq!(of_origin.over(None), None, "the origin was not asked");
    }

    #[test]
    fn what_only_the_origin_can_tell_is_not_guessed() {
        let adds = [add("n", "1")];
        for row in ["[1]", "1", "", r#"{"n":1.5e3}"#, r#"{"n":"x"}"#, r#"{"N":1}"#, r#"{"n":1"#] {
            let base = PendingBase::Value(Bytes::copy_from_slice(row.as_bytes()));
            assert_eq!(pending(base, &adds).over(None), None, "{row}");
        }
        let base = PendingBase::Value(Bytes::from_static(b"{}"));
        assert_eq!(pending(base, &[patch("[]")]).over(None), None);
        let base = PendingBase::Value(Bytes::from_static(b"no JSON at all"));
        assert_eq!(pending(base, &[]).over(None), Some(present("no JSON at all")));
    }
}
