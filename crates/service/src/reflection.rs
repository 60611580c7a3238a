//! Server reflection, one for all services of a process: each would keep the same names.
//!
//! In both versions: `v1`, and `v1alpha`, which is all that Python's and older clients know.

use std::{
    convert::Infallible,
    sync::OnceLock,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::{body::Body, server::NamedService, service::Routes};
use tonic_reflection::server::{Builder, Error};
use tower::{Service, util::BoxCloneSyncService};

type Erased = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// What a server tells of its contracts. Clones share it.
#[derive(Clone)]
pub struct Reflection {
    v1: Erased,
    v1alpha: Erased,
}

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
        let builder = || {
            Builder::configure()
                .register_encoded_file_descriptor_set(descriptors)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        Ok(Self { v1: Erased::new(builder().build_v1()?), v1alpha: Erased::new(builder().build_v1alpha()?) })
    }

    /// Has the routes answer for it.
    pub fn add_to(self, routes: Routes) -> Routes {
        routes.add_service(V1(self.v1)).add_service(V1Alpha(self.v1alpha))
    }
}

macro_rules! named {
    ($kind:ident, $name:literal) => {
        #[derive(Clone)]
        struct $kind(Erased);

        impl NamedService for $kind {
            const NAME: &'static str = $name;
        }

        impl Service<Request<Body>> for $kind {
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
    };
}

named!(V1, "grpc.reflection.v1.ServerReflection");
named!(V1Alpha, "grpc.reflection.v1alpha.ServerReflection");
