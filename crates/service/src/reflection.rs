//! Server reflection of all contracts, one for all services of a process: each would keep the same names.

use std::{
    convert::Infallible,
    sync::OnceLock,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::{body::Body, server::NamedService};
use tonic_reflection::server::{Builder, Error};
use tower::{Service, util::BoxCloneSyncService};

/// Serves reflection. Clones share what it knows.
#[derive(Clone)]
pub struct Reflection(BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>);

impl Reflection {
    /// Of every contract, those between services included.
    pub fn of_all() -> Result<Self, Error> {
        static OF_ALL: OnceLock<Reflection> = OnceLock::new();
        if let Some(known) = OF_ALL.get() {
            return Ok(known.clone());
        }
        let built = Self::of(gureum_proto::DESCRIPTORS)?;
        Ok(OF_ALL.get_or_init(|| built).clone())
    }

    /// Of these contracts and of health.
    pub fn of(descriptors: &[u8]) -> Result<Self, Error> {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        Ok(Self(BoxCloneSyncService::new(builder.build_v1()?)))
    }
}

impl NamedService for Reflection {
    const NAME: &'static str = "grpc.reflection.v1.ServerReflection";
}

impl Service<Request<Body>> for Reflection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}
