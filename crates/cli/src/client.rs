//! The way to a region: one channel, and the caller's scope and key on every call.

use std::{path::PathBuf, time::Duration};

use gureum_model::{AccountId, Region};
use gureum_proto::{
    compute::v1::compute_service_client::ComputeServiceClient,
    gateway::v1::{
        GetClockRequest, clock_service_client::ClockServiceClient, event_service_client::EventServiceClient,
        tagging_service_client::TaggingServiceClient,
    },
    network::v1::network_service_client::NetworkServiceClient,
    security::v1::security_service_client::SecurityServiceClient,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::{
    failure::{Failure, chain},
    time::{self, Timestamp},
};

/// Where a region is when nothing else is said.
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:4566";

/// The variable with the access key, `ID:SECRET`. There is no flag: a command line is seen by every user of the host.
const ACCESS_KEY_VARIABLE: &str = "GUREUM_ACCESS_KEY";

/// Time for a connection. Beyond it the region counts as not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may be silent before it is asked whether it is still there, and then to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Time for a call. The region's own limit is 30 s; this one leaves its answer time to arrive.
const CALL_TIMEOUT: Duration = Duration::from_secs(35);

/// The largest answer: a page of 1000 of the largest resources.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// What rustls says of an answer that is not TLS.
const NO_TLS: &str = "InvalidContentType";

/// What rustls says of a certificate that it does not trust: then there is TLS.
pub const NO_TRUST: &str = "invalid peer certificate";

/// Where the region is and who calls.
#[derive(Debug, Clone, clap::Args)]
pub struct Connection {
    /// Address of the region
    #[arg(long, global = true, value_name = "URL", env = "GUREUM_ENDPOINT", default_value = DEFAULT_ENDPOINT, help_heading = "Region")]
    pub endpoint: String,
    /// Account, 12 digits; where access keys are demanded it comes from the key
    #[arg(long, global = true, value_name = "ID", env = "GUREUM_ACCOUNT", help_heading = "Region")]
    pub account: Option<AccountId>,
    /// Region name, such as us-east-1
    #[arg(long, global = true, value_name = "NAME", env = "GUREUM_REGION", help_heading = "Region")]
    pub region: Option<Region>,
    /// Certificate authority of an https endpoint, in PEM; the system's ones if not given
    #[arg(long, global = true, value_name = "FILE", env = "GUREUM_CA", help_heading = "Region")]
    pub ca: Option<PathBuf>,
}

impl Connection {
    /// No connection came about.
    fn unreachable(&self, cause: String) -> Failure {
        let endpoint = self.endpoint.clone();
        match endpoint.strip_prefix("https://") {
            Some(host) if cause.contains(NO_TLS) => Failure::OtherScheme { other: format!("http://{host}"), endpoint },
            _ => Failure::Unreachable { endpoint, cause },
        }
    }

    /// Why no call came through a connection that came about. A door with TLS takes connections without it and then breaks them
    /// off, now in one way and now in another, so whether it is one is tried.
    pub async fn explain(&self, failure: Failure) -> Failure {
        match (failure, self.endpoint.strip_prefix("http://")) {
            (Failure::Unreachable { endpoint, .. }, Some(host)) if self.speaks_tls(host).await => {
                Failure::OtherScheme { other: format!("https://{host}"), endpoint }
            }
            (failure, _) => failure,
        }
    }

    async fn speaks_tls(&self, host: &str) -> bool {
        match endpoint(&Self { endpoint: format!("https://{host}"), ..self.clone() }) {
            // One that is frozen takes the connection and says nothing.
            Ok(endpoint) => match tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await {
                Ok(connected) => connected.map_or_else(|error| chain(&error).contains(NO_TRUST), |_| true),
                Err(_) => false,
            },
            Err(_) => false,
        }
    }
}

/// Puts scope and key on a call.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    account: Option<MetadataValue<Ascii>>,
    region: Option<MetadataValue<Ascii>>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Caller {
    fn new(connection: &Connection, access_key: Option<&str>) -> Result<Self, Failure> {
        let value = |text: String, what: &str| {
            MetadataValue::try_from(text).map_err(|_| Failure::usage(format!("{what} has characters that cannot be sent")))
        };
        let mut authorization = access_key.map(|key| value(format!("Bearer {key}"), ACCESS_KEY_VARIABLE)).transpose()?;
        if let Some(authorization) = &mut authorization {
            authorization.set_sensitive(true);
        }
        Ok(Self {
            account: connection.account.map(|account| value(account.to_string(), "--account")).transpose()?,
            region: connection.region.as_ref().map(|region| value(region.to_string(), "--region")).transpose()?,
            authorization,
        })
    }
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        let named = [("gureum-account", &self.account), ("gureum-region", &self.region), ("authorization", &self.authorization)];
        for (name, value) in named {
            if let Some(value) = value {
                metadata.insert(name, value.clone());
            }
        }
        Ok(request)
    }
}

type Transport = InterceptedService<Channel, Caller>;

/// A region that answers.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Transport,
    endpoint: String,
}

impl Client {
    /// Connects.
    pub async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let access_key = std::env::var(ACCESS_KEY_VARIABLE).ok().filter(|key| !key.is_empty());
        let caller = Caller::new(connection, access_key.as_deref())?;
        let endpoint = endpoint(connection)?;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await;
        let connected =
            connected.map_err(|_| connection.unreachable(format!("it did not answer within {} s", CONNECT_TIMEOUT.as_secs())))?;
        let channel = connected.map_err(|error| connection.unreachable(chain(&error)))?;
        Ok(Self { transport: InterceptedService::new(channel, caller), endpoint: connection.endpoint.clone() })
    }

    /// A message as a call with a deadline.
    pub fn ask<M>(&self, message: M) -> Request<M> {
        ask_within(message, CALL_TIMEOUT)
    }

    /// A call's end that is no answer.
    pub fn failed(&self, status: Status) -> Failure {
        Failure::call(&self.endpoint, status)
    }

    pub fn compute(&self) -> ComputeServiceClient<Transport> {
        ComputeServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub fn security(&self) -> SecurityServiceClient<Transport> {
        SecurityServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub fn network(&self) -> NetworkServiceClient<Transport> {
        NetworkServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub fn events(&self) -> EventServiceClient<Transport> {
        EventServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub fn tagging(&self) -> TaggingServiceClient<Transport> {
        TaggingServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub fn clock(&self) -> ClockServiceClient<Transport> {
        ClockServiceClient::new(self.transport.clone())
    }

    /// The region's time, for "3m ago". A region that does not tell it is shown with full times.
    pub async fn now(&self) -> Option<Timestamp> {
        let answer = self.clock().get_clock(self.ask(GetClockRequest {})).await.ok()?;
        time::stamp(answer.into_inner().now.as_ref())
    }
}

/// A message as a call with a deadline of its own.
pub fn ask_within<M>(message: M, limit: Duration) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

fn endpoint(connection: &Connection) -> Result<Endpoint, Failure> {
    let text = &connection.endpoint;
    let invalid =
        |why: String| Failure::usage(format!("the endpoint \"{text}\" cannot be used: {why}; it is written as {DEFAULT_ENDPOINT}"));
    let secure = match text.split_once("://") {
        Some(("http", host)) if !host.is_empty() => false,
        Some(("https", host)) if !host.is_empty() => true,
        _ => return Err(invalid("neither http://HOST:PORT nor https://HOST:PORT".to_owned())),
    };
    let mut endpoint =
        Endpoint::from_shared(text.clone()).map_err(|error| invalid(chain(&error)))?.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
    // A region that is frozen takes connections, and answers nothing: not even this.
    endpoint = endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE).keep_alive_while_idle(true);
    if secure {
        let tls = match &connection.ca {
            Some(path) => {
                let pem = std::fs::read(path).map_err(|error| Failure::file("read", path, &error))?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        endpoint = endpoint.tls_config(tls).map_err(|error| invalid(chain(&error)))?;
    }
    Ok(endpoint)
}

/// One call: `call!(client.compute().stop_instances(StopInstancesRequest { .. }))`.
#[macro_export]
macro_rules! call {
    ($client:ident . $service:ident () . $method:ident ($request:expr)) => {
        $client.$service().$method($client.ask($request)).await.map(tonic::Response::into_inner).map_err(|status| $client.failed(status))
    };
}

/// All pages of a list, or as much of it as is wanted:
/// `pages!(client.compute().describe_volumes(request).volumes, limit)`.
#[macro_export]
macro_rules! pages {
    ($client:ident . $service:ident () . $method:ident ($request:expr) . $items:ident, $limit:expr) => {{
        let request = $request;
        $crate::client::all_pages($limit, async |page_size, page_token| {
            let mut request = request.clone();
            request.page_size = page_size;
            request.page_token = page_token;
            let page = $crate::call!($client.$service().$method(request))?;
            Ok((page.$items, page.next_page_token))
        })
        .await
    }};
}

/// Items on a page: the most that a service gives.
const PAGE_SIZE: usize = 1000;

/// Asks for page after page.
pub async fn all_pages<T>(
    limit: Option<usize>,
    ask: impl AsyncFn(i32, String) -> Result<(Vec<T>, String), Failure>,
) -> Result<Vec<T>, Failure> {
    let (mut items, mut token) = (Vec::new(), String::new());
    loop {
        let wanted = limit.map_or(PAGE_SIZE, |limit| limit.saturating_sub(items.len()).min(PAGE_SIZE));
        if wanted == 0 {
            return Ok(items);
        }
        let (page, next) = ask(i32::try_from(wanted).unwrap_or(i32::MAX), token).await?;
        items.extend(page);
        if next.is_empty() {
            items.truncate(limit.unwrap_or(usize::MAX));
            return Ok(items);
        }
        token = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(endpoint: &str) -> Connection {
        Connection { endpoint: endpoint.to_owned(), account: None, region: None, ca: None }
    }

    #[test]
    fn endpoints_say_what_is_wrong() {
        assert!(endpoint(&connection(DEFAULT_ENDPOINT)).is_ok());
        for wrong in ["127.0.0.1:4566", "ftp://x", "http://", "http://a b"] {
            assert!(matches!(endpoint(&connection(wrong)), Err(Failure::Usage(text)) if text.contains(wrong)));
        }
    }

    #[test]
    fn scope_and_key_go_with_every_call() {
        let mut connection = connection(DEFAULT_ENDPOINT);
        connection.account = "000000000007".parse().ok();
        let mut caller = Caller::new(&connection, Some("AK:secret")).unwrap();
        let request = caller.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("gureum-account").unwrap(), "000000000007");
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer AK:secret");
        assert!(request.metadata().get("gureum-region").is_none());
        assert!(Caller::new(&connection, Some("line\nbreak")).is_err());
    }

    #[tokio::test]
    async fn all_pages_are_asked_for_but_no_more_than_wanted() {
        let service = async |size: i32, token: String| {
            let from: i32 = token.parse().unwrap_or(0);
            let until = (from + size.min(400)).min(1500);
            Ok(((from..until).collect(), if until == 1500 { String::new() } else { until.to_string() }))
        };
        assert_eq!(all_pages(None, service).await.unwrap(), (0..1500).collect::<Vec<_>>());
        assert_eq!(all_pages(Some(500), service).await.unwrap(), (0..500).collect::<Vec<_>>());
        assert!(all_pages(Some(0), service).await.unwrap().is_empty());
    }
}
