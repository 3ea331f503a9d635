//! The header of one stored Avro object, without its records.

use std::sync::Arc;
use std::time::Duration;

use crate::model::avro::{Header, MAX_HEADER_BYTES, ObjectReader};
use crate::storage::retry::retry;
use crate::storage::{Head, Store, StoreError};

/// Bytes asked for first: our headers take about 2 KiB.
const FIRST_BYTES: u64 = 16 * 1024;

/// Reads the header of the object that `head` is of. The inner error says why it is not an object of Kafka records.
pub async fn read(store: &Arc<dyn Store>, key: &str, head: &Head) -> Result<Result<Header, String>, StoreError> {
    let mut wanted = FIRST_BYTES;
    loop {
        let range = 0..wanted.min(head.size);
        let bytes = retry(Duration::from_secs(60), || store.get_range(key, range.clone(), Some(&head.etag))).await?;
        let mut reader = ObjectReader::new();
        reader.push(bytes);
        match reader.header() {
            Ok(Some(header)) => return Ok(Ok(header.clone())),
            Ok(None) if wanted < head.size && wanted <= MAX_HEADER_BYTES as u64 => wanted *= 8,
            Ok(None) => return Ok(Err("it is cut off in the middle of its header".to_owned())),
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
}
