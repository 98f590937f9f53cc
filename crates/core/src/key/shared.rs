use std::sync::Arc;

use super::Key;

/// A key that has a form in bytes: what tiers below memory keep it under, and
/// how other processes name it.
///
/// Two keys are equal exactly if their bytes are.
pub trait SharedKey: Sized {
    /// The key as bytes.
    fn to_key(&self) -> Key;

    /// The key with these bytes; `None` if they are nobody's.
    fn from_key(key: &Key) -> Option<Self>;
}

impl SharedKey for Key {
    fn to_key(&self) -> Key {
        self.clone()
    }

    fn from_key(key: &Key) -> Option<Self> {
        Some(key.clone())
    }
}

impl SharedKey for String {
    fn to_key(&self) -> Key {
        Key::new(self)
    }

    fn from_key(key: &Key) -> Option<Self> {
        text(key).map(str::to_owned)
    }
}

impl SharedKey for Arc<str> {
    fn to_key(&self) -> Key {
        Key::new(self.as_bytes())
    }

    fn from_key(key: &Key) -> Option<Self> {
        text(key).map(Self::from)
    }
}

macro_rules! shared_numbers {
    ($($number:ty)*) => {$(
        impl SharedKey for $number {
            fn to_key(&self) -> Key {
                Key::new(self.to_string())
            }

            fn from_key(key: &Key) -> Option<Self> {
                let number = text(key)?.parse::<Self>().ok()?;
                // `+7` and `007` are nobody's.
                (number.to_key() == *key).then_some(number)
            }
        }
    )*};
}

shared_numbers! { u16 u32 u64 u128 i16 i32 i64 i128 }

fn text(key: &Key) -> Option<&str> {
    std::str::from_utf8(key.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_come_back_as_they_were(number: i64, text: String, bytes: Vec<u8>) {
            prop_assert_eq!(i64::from_key(&number.to_key()), Some(number));
            prop_assert_eq!(String::from_key(&text.to_key()), Some(text.clone()));
            let shared: Arc<str> = text.into();
            prop_assert_eq!(Arc::<str>::from_key(&shared.to_key()), Some(shared));
            let key = Key::new(bytes);
            prop_assert_eq!(Key::from_key(&key), Some(key));
        }
    }

    #[test]
    fn bytes_that_are_nobodys_key_are_refused() {
        for bytes in ["+7", "007", "", "7 ", "-0", "seven"] {
            assert_eq!(i64::from_key(&Key::new(bytes)), None, "{bytes:?}");
        }
        assert_eq!(u16::from_key(&Key::new("70000")), None);
        assert_eq!(String::from_key(&Key::new([0xff])), None);
    }
}
