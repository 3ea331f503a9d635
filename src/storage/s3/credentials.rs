//! Region and credentials from the AWS default chain: environment, profile (with `credential_process`, assumed roles),
//! web identity, container, instance metadata (version 2).
//!
//! The chain is built anew for each load, because its members read files once and keep what they found: a rotated
//! secret is seen without a restart.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use tokio::sync::Mutex;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::connect::{self, Connector, Dialer};
use super::failure::{Failure, causes};
use crate::metrics;
use crate::storage::Kind;

/// Credentials are renewed this long before they expire.
const BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);

/// How often a renewal is tried while the old ones are still good.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);

/// How long one load may take: the chain asks several places, some of which never answer.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Where region and credentials come from.
#[derive(Clone)]
pub struct Chain {
    profile: Option<String>,
    fixed: Option<Credentials>,
    http: Http,
}

impl Chain {
    /// The default chain with a profile of the AWS files, over `dialer`; or a fixed pair of key id and secret.
    pub fn new(
        profile: Option<String>,
        fixed: Option<(String, String)>,
        dialer: Dialer,
    ) -> Result<Self, native_tls::Error> {
        let fixed = fixed.map(|(id, secret)| Credentials::new(id, secret, None, None, "fixed"));
        Ok(Self { profile, fixed, http: Http(connect::client(dialer.for_credentials())?) })
    }

    /// What it is called in metrics: its profile, or `default`.
    fn name(&self) -> &str {
        self.profile.as_deref().unwrap_or("default")
    }

    fn provider_config(&self) -> ProviderConfig {
        ProviderConfig::without_region().with_http_client(self.http.clone())
    }

    /// What the chain says is our region. With `local`, only environment and files are asked: who runs a server of
    /// his own need not wait for instance metadata to time out.
    pub async fn region(&self, local: bool) -> Option<String> {
        let config = self.provider_config();
        let mut profile = ProfileFileRegionProvider::builder().configure(&config);
        if let Some(name) = &self.profile {
            profile = profile.profile_name(name);
        }
        let mut chain =
            RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile.build());
        if !local {
            chain = chain.or_else(ImdsRegionProvider::builder().configure(&config).build());
        }
        chain.region().with_subscriber(NoSubscriber::new()).await.map(|region| region.to_string())
    }

    /// New credentials; `region` is where tokens are exchanged for them.
    async fn load(&self, region: &str) -> Result<Credentials, Failure> {
        if let Some(fixed) = &self.fixed {
            return Ok(fixed.clone());
        }
        let region = aws_config::Region::new(region.to_owned());
        let config = self.provider_config().with_region(Some(region.clone()));
        let mut chain = DefaultCredentialsChain::builder().configure(config).region(region);
        if let Some(name) = &self.profile {
            chain = chain.profile_name(name);
        }
        // Without log: at its finest level the chain writes out session tokens. Its errors say what matters.
        let load = async { chain.build().await.provide_credentials().await }.with_subscriber(NoSubscriber::new());
        let refused = |why: String| Failure::new(Kind::Auth, format!("no credentials: {why}"));
        match tokio::time::timeout(LOAD_TIMEOUT, load).await {
            Ok(Ok(credentials)) => Ok(credentials),
            Ok(Err(error)) => Err(refused(causes(&error))),
            Err(_) => Err(refused(format!("the credential chain did not answer in {} s", LOAD_TIMEOUT.as_secs()))),
        }
    }
}

/// The credentials in use, loaded when first needed and renewed before they expire.
pub struct Cache {
    chain: Chain,
    held: Mutex<Option<Held>>,
}

struct Held {
    credentials: Credentials,
    loaded: Instant,
}

impl Cache {
    /// Nothing is loaded yet.
    pub fn new(chain: Chain) -> Self {
        Self { chain, held: Mutex::new(None) }
    }

    /// Where these credentials come from.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Credentials that are good for some minutes, if the chain gives such. One caller loads, the others wait for it.
    pub async fn current(&self, region: &str) -> Result<Credentials, Failure> {
        let mut held = self.held.lock().await;
        let due = held.as_ref().is_none_or(|held| renewal_due(held, SystemTime::now()));
        if due {
            match self.chain.load(region).await {
                Ok(credentials) => {
                    let expiry = credentials.expiry().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
                    metrics::credentials_loaded(self.chain.name(), expiry.map(|at| at.as_secs_f64()));
                    *held = Some(Held { credentials, loaded: Instant::now() });
                }
                Err(failure) => match held.as_mut().filter(|held| !expired(&held.credentials, SystemTime::now())) {
                    Some(held) => {
                        tracing::warn!(error = %failure.message, "credentials not renewed, the old ones still hold");
                        held.loaded = Instant::now();
                    }
                    None => return Err(failure),
                },
            }
        }
        held.as_ref().map(|held| held.credentials.clone()).ok_or_else(|| Failure::new(Kind::Auth, "no credentials"))
    }

    /// The server refused `used`: unless others have been loaded since, the next call loads anew.
    pub async fn forget(&self, used: &Credentials) {
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|held| held.credentials == *used) {
            *held = None;
        }
    }
}

fn expired(credentials: &Credentials, now: SystemTime) -> bool {
    credentials.expiry().is_some_and(|expiry| expiry <= now)
}

fn renewal_due(held: &Held, now: SystemTime) -> bool {
    expired(&held.credentials, now + BEFORE_EXPIRY) && held.loaded.elapsed() >= RENEWAL_PAUSE
}

/// The HTTP client that aws-config asks instance metadata and token services with: the same hyper and OpenSSL as ours.
#[derive(Clone)]
struct Http(hyper::Client<Connector, SdkBody>);

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

impl HttpClient for Http {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let limit = match (settings.connect_timeout(), settings.read_timeout()) {
            (None, None) => None,
            (connect, read) => Some(connect.unwrap_or_default() + read.unwrap_or_default()),
        };
        SharedHttpConnector::new(HttpWithin { http: self.clone(), limit })
    }
}

/// Requests that end within a limit.
#[derive(Debug)]
struct HttpWithin {
    http: Http,
    limit: Option<Duration>,
}

impl HttpConnector for HttpWithin {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (client, limit) = (self.http.0.clone(), self.limit.unwrap_or(LOAD_TIMEOUT));
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http02x().map_err(|e| ConnectorError::user(e.into()))?;
            let response = match tokio::time::timeout(limit, client.request(request)).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Err(ConnectorError::io(error.into())),
                Err(elapsed) => return Err(ConnectorError::timeout(elapsed.into())),
            };
            HttpResponse::try_from(response.map(SdkBody::from_body_0_4))
                .map_err(|e| ConnectorError::other(e.into(), None))
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::never_expires(None, 60, false)]
    #[case::long_to_go(Some(3600), 60, false)]
    #[case::soon(Some(200), 60, true)]
    #[case::soon_but_just_tried(Some(200), 5, false)]
    #[case::over(Some(0), 60, true)]
    fn renewal(#[case] expires_in: Option<u64>, #[case] loaded_ago: u64, #[case] due: bool) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let expiry = expires_in.map(|seconds| now + Duration::from_secs(seconds));
        let credentials = Credentials::new("id", "secret", None, expiry, "test");
        let loaded = Instant::now().checked_sub(Duration::from_secs(loaded_ago)).unwrap();
        assert_eq!(renewal_due(&Held { credentials, loaded }, now), due);
    }
}
