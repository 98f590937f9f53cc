use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, ErrorKind, Result};

/// How a value becomes bytes for the tiers below memory, and back.
pub trait Codec<V>: Send + Sync + 'static {
    /// A number stored with the bytes, so that a reader knows what wrote them.
    fn id(&self) -> u8;

    /// The bytes of a value.
    fn encode(&self, value: &V) -> Result<Bytes>;

    /// The value of these bytes. Bytes of another codec or version are
    /// [`ErrorKind::Decode`], never a panic: the engine treats them as a miss.
    fn decode(&self, bytes: &Bytes) -> Result<V>;
}

/// For values that are bytes already.
#[derive(Clone, Copy, Debug, Default)]
pub struct BytesCodec;

impl Codec<Bytes> for BytesCodec {
    fn id(&self) -> u8 {
        0
    }

    fn encode(&self, value: &Bytes) -> Result<Bytes> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: &Bytes) -> Result<Bytes> {
        Ok(bytes.clone())
    }
}

/// JSON text, of every type that serde can write and read.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonCodec;

impl<V: Serialize + DeserializeOwned + 'static> Codec<V> for JsonCodec {
    fn id(&self) -> u8 {
        1
    }

    fn encode(&self, value: &V) -> Result<Bytes> {
        let text = serde_json::to_vec(value).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "a value cannot be written as JSON")
                .caused_by(error)
        })?;
        Ok(Bytes::from(text))
    }

    fn decode(&self, bytes: &Bytes) -> Result<V> {
        serde_json::from_slice(bytes).map_err(|error| {
            Error::new(ErrorKind::Decode, "stored bytes are not the JSON of this type")
                .with("bytes", bytes.len())
                .caused_by(error)
        })
    }
}
