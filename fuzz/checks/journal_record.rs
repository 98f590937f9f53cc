//! What must hold for whatever stands where a journal record should.

use bytes::Bytes;
use larder_core::JournalRecord;

/// A record is read whole or not at all, and has one encoding.
pub(crate) fn check_record(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(record) = JournalRecord::decode(&bytes) {
        let mut again = Vec::new();
        record.encode(&mut again).expect("it was short enough before");
        assert_eq!(again, bytes, "a second encoding of one record");
        assert_eq!(again.len(), record.encoded_length());
    }
}
