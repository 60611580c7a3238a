//! The region's virtual time, as the gateway sets it in every service.

use gureum_model::{Refusal, RefusalKind};
use gureum_proto::clock::v1::{
    GetStateRequest, GetStateResponse, SetTimeRequest, SetTimeResponse, clock_peer_service_server::ClockPeerService,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{Clock, Error, activity::Activity, wire};

/// Serves one service's clock to the gateway.
#[derive(Clone)]
pub struct ClockApi {
    pub clock: Clock,
    pub activity: Activity,
    pub known_as: String,
    pub sequence: watch::Receiver<u64>,
}

#[tonic::async_trait]
impl ClockPeerService for ClockApi {
    async fn get_state(&self, _request: Request<GetStateRequest>) -> Result<Response<GetStateResponse>, Status> {
        // Counted before asked: work that begins in between shows in the next look.
        let activity = self.activity.count();
        // As are places that others are followed to: what is applied after this shows in the count or as work.
        let followed = self.activity.followed().into_iter().collect();
        Ok(Response::new(GetStateResponse {
            name: self.known_as.clone(),
            followed,
            now: Some(wire::timestamp(self.clock.now())),
            next_timer: self.clock.earliest_timer().map(wire::timestamp),
            idle: self.activity.is_idle(),
            activity,
            sequence: *self.sequence.borrow(),
        }))
    }

    async fn set_time(&self, request: Request<SetTimeRequest>) -> Result<Response<SetTimeResponse>, Status> {
        let time = request.into_inner().time.unwrap_or_default();
        let (clock, time) = (self.clock.clone(), wire::from_timestamp(&time));
        let moved = tokio::task::spawn_blocking(move || clock.advance_to(time)).await;
        let moved = moved
            .map_err(|error| Error::Internal(error.to_string()))?
            .map_err(|error| Error::Internal(format!("keeping the virtual time: {error}")))?;
        let now = moved.ok_or_else(|| {
            let text = "this region's clock is not virtual; start it with --time-scale virtual";
            Error::from(Refusal::new(RefusalKind::Unsupported, "UnsupportedOperation", text))
        })?;
        Ok(Response::new(SetTimeResponse { now: Some(wire::timestamp(now)) }))
    }
}
