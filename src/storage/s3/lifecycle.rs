//! The lifecycle document of the bucket, as the server has it: the bytes pass unread, because a typed model would drop
//! what it does not know.

use async_trait::async_trait;
use bytes::Bytes;
use rusoto_core::param::{Params, ServiceParams};
use rusoto_core::signature::SignedRequest;

use super::failure::Failure;
use super::wire::Payload;
use super::{S3Store, payload};
use crate::model::lifecycle::xml;
use crate::storage::{Body, Kind, Lifecycle, StoreError};

impl S3Store {
    /// One request about the bucket itself, which rusoto does not model the way it is needed here.
    async fn about_bucket(
        &self,
        method: &'static str,
        operation: &'static str,
        query: &'static str,
        text: Option<&str>,
    ) -> Result<Bytes, Failure> {
        let (wire, text) = (self.wire.clone(), text.map(str::to_owned));
        let task = async move {
            let region = wire.region().await?;
            let mut request = SignedRequest::new(method, "s3", &region, &format!("/{}", wire.bucket));
            let mut params = Params::new();
            params.put(query, "");
            request.set_params(params);
            let payload = match text {
                None => None,
                Some(text) => {
                    request.set_payload(Some(text.clone().into_bytes()));
                    // S3 takes this document only with the hash that it is checked by.
                    request.maybe_set_content_md5_header();
                    let body = Body::from(text);
                    let sha256 = payload::sha256(&body).map_err(|e| Failure::from_io(&e))?;
                    Some(Payload { body, sha256, if_none_match: false })
                }
            };
            let reads = method == "GET";
            Ok(wire.execute(operation, reads, request, payload).await?.body)
        };
        self.run(task).await
    }
}

#[async_trait]
impl Lifecycle for S3Store {
    fn prefix(&self) -> &str {
        &self.prefix
    }

    async fn document(&self) -> Result<Option<String>, StoreError> {
        let failed = |failure| self.error("get_lifecycle", "", failure);
        match self.about_bucket("GET", "get_lifecycle", "lifecycle", None).await {
            Ok(bytes) => {
                let text = String::from_utf8(bytes.to_vec());
                text.map(Some).map_err(|_| failed(Failure::new(Kind::Other, "the lifecycle document is not UTF-8")))
            }
            Err(failure) if failure.status == 404 && failure.code == "NoSuchLifecycleConfiguration" => Ok(None),
            Err(failure) => Err(failed(failure)),
        }
    }

    async fn put_document(&self, document: &str) -> Result<(), StoreError> {
        let put = self.about_bucket("PUT", "put_lifecycle", "lifecycle", Some(document)).await;
        put.map(drop).map_err(|failure| self.error("put_lifecycle", "", failure))
    }

    async fn delete_document(&self) -> Result<(), StoreError> {
        let deleted = self.about_bucket("DELETE", "delete_lifecycle", "lifecycle", None).await;
        deleted.map(drop).map_err(|failure| self.error("delete_lifecycle", "", failure))
    }

    async fn versioned(&self) -> Result<bool, StoreError> {
        let failed = |failure| self.error("get_versioning", "", failure);
        let bytes = self.about_bucket("GET", "get_versioning", "versioning", None).await.map_err(failed)?;
        let text = String::from_utf8_lossy(&bytes);
        let strange =
            |why: &str| failed(Failure::new(Kind::Unavailable, format!("answer is no versioning state: {why}")));
        let root = xml::parse(&text).map_err(|e| strange(&e.to_string()))?;
        if root.name != "VersioningConfiguration" {
            return Err(strange(root.name));
        }
        // "Suspended" counts too: it has versions from before.
        Ok(root.child("Status").is_some())
    }
}
