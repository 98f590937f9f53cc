use bytes::Bytes;

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

/// JSON text.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonCodec;

impl Codec<serde_json::Value> for JsonCodec {
    fn id(&self) -> u8 {
        1
    }

    fn encode(&self, value: &serde_json::Value) -> Result<Bytes> {
        Ok(Bytes::from(value.to_string()))
    }

    fn decode(&self, bytes: &Bytes) -> Result<serde_json::Value> {
        serde_json::from_slice(bytes).map_err(|error| {
            Error::new(ErrorKind::Decode, "stored bytes are not JSON")
                .with("bytes", bytes.len())
                .caused_by(error)
        })
    }
}
