//! The test's own view of S3.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::TryStreamExt;
use rusoto_core::{HttpClient, Region};
use rusoto_credential::StaticProvider;
use rusoto_s3::{
    BucketLifecycleConfiguration, CreateBucketRequest, DeleteBucketPolicyRequest, DeleteObjectRequest,
    GetBucketLifecycleConfigurationRequest, GetObjectRequest, HeadObjectRequest, LifecycleExpiration, LifecycleRule,
    LifecycleRuleFilter, ListObjectsV2Request, PutBucketLifecycleConfigurationRequest, PutBucketPolicyRequest,
    PutBucketVersioningRequest, PutObjectRequest, S3, S3Client, VersioningConfiguration,
};

use super::stack;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts")
});

/// Runs a future to its end on a runtime all tests share.
pub fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}

/// A bucket of one test's own.
#[derive(Clone)]
pub struct Bucket {
    client: S3Client,
    /// Its name.
    pub name: String,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The key.
    pub key: String,
    /// The entity tag.
    pub etag: String,
    /// Bytes.
    pub size: i64,
}

impl Bucket {
    /// Creates a new, empty bucket.
    pub fn create() -> Self {
        let bucket = Self::named(&super::unique("kb"));
        let request = CreateBucketRequest { bucket: bucket.name.clone(), ..Default::default() };
        block_on(bucket.client.create_bucket(request)).expect("bucket is created");
        bucket
    }

    /// A bucket by its name, which may not exist.
    pub fn named(name: &str) -> Self {
        Self::at(stack::s3_endpoint(), name)
    }

    /// A bucket reached through another endpoint (a proxy).
    pub fn at(endpoint: &str, name: &str) -> Self {
        let region = Region::Custom { name: "us-east-1".into(), endpoint: endpoint.into() };
        let credentials = StaticProvider::new_minimal(stack::ACCESS_KEY.into(), stack::SECRET_KEY.into());
        let client = S3Client::new_with(HttpClient::new().expect("http client"), credentials, region);
        Self { client, name: name.to_owned() }
    }

    /// Switches versioning on.
    pub fn version(&self) {
        let configuration = VersioningConfiguration { status: Some("Enabled".into()), ..Default::default() };
        let request = PutBucketVersioningRequest {
            bucket: self.name.clone(),
            versioning_configuration: configuration,
            ..Default::default()
        };
        block_on(self.client.put_bucket_versioning(request)).expect("versioning is switched on");
    }

    /// Gives it a policy.
    pub fn set_policy(&self, policy: &str) {
        let (bucket, policy) = (self.name.clone(), policy.to_owned());
        let request = PutBucketPolicyRequest { bucket, policy, ..Default::default() };
        block_on(self.client.put_bucket_policy(request)).expect("the policy is set");
    }

    /// From now on `action` is refused for everybody, for the keys that match `keys` (`*` for all) and the bucket itself.
    pub fn deny(&self, actions: &[&str], keys: &str) {
        let resources = [format!("arn:aws:s3:::{}", self.name), format!("arn:aws:s3:::{}/{keys}", self.name)];
        let statement = serde_json::json!({
            "Effect": "Deny", "Principal": "*", "Action": actions, "Resource": resources,
        });
        let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string();
        self.set_policy(&policy);
    }

    /// Nothing is refused any longer.
    pub fn allow(&self) {
        let request = DeleteBucketPolicyRequest { bucket: self.name.clone(), ..Default::default() };
        block_on(self.client.delete_bucket_policy(request)).expect("the policy is removed");
    }

    /// Gives it these rules instead of all that it has.
    pub fn rule(&self, rules: Vec<LifecycleRule>) {
        let request = PutBucketLifecycleConfigurationRequest {
            bucket: self.name.clone(),
            lifecycle_configuration: Some(BucketLifecycleConfiguration { rules }),
            ..Default::default()
        };
        block_on(self.client.put_bucket_lifecycle_configuration(request)).expect("the rules are set");
    }

    /// Gives it one rule: objects under `prefix` expire after `days`.
    pub fn expire(&self, id: &str, prefix: &str, days: i64) {
        let rule = LifecycleRule {
            id: Some(id.to_owned()),
            filter: Some(LifecycleRuleFilter { prefix: Some(prefix.to_owned()), ..Default::default() }),
            status: "Enabled".to_owned(),
            expiration: Some(LifecycleExpiration { days: Some(days), ..Default::default() }),
            ..Default::default()
        };
        self.rule(vec![rule]);
    }

    /// Its lifecycle rules: id, prefix and days of each, in the order of their ids.
    pub fn rules(&self) -> Vec<(String, String, i64)> {
        let request = GetBucketLifecycleConfigurationRequest { bucket: self.name.clone(), ..Default::default() };
        let rules = match block_on(self.client.get_bucket_lifecycle_configuration(request)) {
            Ok(answer) => answer.rules.unwrap_or_default(),
            Err(_) => Vec::new(), // there is no document
        };
        let facts = |rule: LifecycleRule| {
            let prefix = rule.filter.and_then(|filter| filter.prefix).unwrap_or_default();
            (rule.id.unwrap_or_default(), prefix, rule.expiration.and_then(|e| e.days).unwrap_or_default())
        };
        let mut rules: Vec<_> = rules.into_iter().map(facts).collect();
        rules.sort();
        rules
    }

    /// Everything under `prefix`, in lexical order.
    pub fn list(&self, prefix: &str) -> Vec<Listed> {
        let mut listed = Vec::new();
        let mut continuation_token = None;
        loop {
            let request = ListObjectsV2Request {
                bucket: self.name.clone(),
                prefix: Some(prefix.to_owned()),
                continuation_token,
                ..Default::default()
            };
            let page = block_on(self.client.list_objects_v2(request)).expect("listing");
            listed.extend(page.contents.unwrap_or_default().into_iter().map(|object| Listed {
                key: object.key.expect("listed objects have a key"),
                etag: object.e_tag.unwrap_or_default(),
                size: object.size.unwrap_or_default(),
            }));
            continuation_token = page.next_continuation_token;
            if continuation_token.is_none() {
                return listed;
            }
        }
    }

    /// Content and metadata (names in lower case, without prefix); panics when it is not there.
    pub fn get(&self, key: &str) -> (Vec<u8>, BTreeMap<String, String>) {
        let request = GetObjectRequest { bucket: self.name.clone(), key: key.to_owned(), ..Default::default() };
        block_on(async {
            let answer = self.client.get_object(request).await.unwrap_or_else(|e| panic!("get {key}: {e}"));
            let mut content = Vec::new();
            let mut stream = answer.body.expect("an object has a body");
            while let Some(chunk) = stream.try_next().await.expect("the body arrives") {
                content.extend_from_slice(&chunk);
            }
            (content, answer.metadata.unwrap_or_default().into_iter().collect())
        })
    }

    /// Metadata only.
    pub fn metadata(&self, key: &str) -> BTreeMap<String, String> {
        let request = HeadObjectRequest { bucket: self.name.clone(), key: key.to_owned(), ..Default::default() };
        let head = block_on(self.client.head_object(request)).unwrap_or_else(|e| panic!("head {key}: {e}"));
        head.metadata.unwrap_or_default().into_iter().collect()
    }

    /// Writes an object.
    pub fn put(&self, key: &str, content: &[u8]) {
        self.try_put(key, content).unwrap_or_else(|e| panic!("put {key}: {e}"));
    }

    /// Writes an object, or says why not; 5 seconds without an answer are an answer.
    pub fn try_put(&self, key: &str, content: &[u8]) -> Result<(), String> {
        let request = PutObjectRequest {
            bucket: self.name.clone(),
            key: key.to_owned(),
            body: Some(content.to_vec().into()),
            ..Default::default()
        };
        block_on(async { tokio::time::timeout(Duration::from_secs(5), self.client.put_object(request)).await })
            .map_err(|_| "no answer".to_owned())?
            .map(drop)
            .map_err(|e| format!("{e:?}"))
    }

    /// Writes an object with metadata (names without prefix).
    pub fn put_with(&self, key: &str, content: &[u8], metadata: &BTreeMap<String, String>) {
        let request = PutObjectRequest {
            bucket: self.name.clone(),
            key: key.to_owned(),
            body: Some(content.to_vec().into()),
            metadata: Some(metadata.clone().into_iter().collect()),
            ..Default::default()
        };
        block_on(self.client.put_object(request)).unwrap_or_else(|e| panic!("put {key}: {e}"));
    }

    /// Writes many objects with the same content, some at a time.
    pub fn put_many(&self, keys: impl Iterator<Item = String>, content: &'static [u8]) {
        let put = |key: String| {
            let body = Some(content.to_vec().into());
            let request = PutObjectRequest { bucket: self.name.clone(), key, body, ..Default::default() };
            let client = self.client.clone();
            async move { client.put_object(request).await.map(drop).map_err(|e| e.to_string()) }
        };
        let all = futures_util::stream::iter(keys.map(|key| Ok(put(key))));
        block_on(all.try_buffer_unordered(16).try_collect::<Vec<()>>()).unwrap_or_else(|e| panic!("put: {e}"));
    }

    /// Deletes an object.
    pub fn delete(&self, key: &str) {
        let request = DeleteObjectRequest { bucket: self.name.clone(), key: key.to_owned(), ..Default::default() };
        block_on(self.client.delete_object(request)).unwrap_or_else(|e| panic!("delete {key}: {e}"));
    }

    /// Deletes everything under `prefix`.
    pub fn wipe(&self, prefix: &str) {
        for object in self.list(prefix) {
            self.delete(&object.key);
        }
    }
}
