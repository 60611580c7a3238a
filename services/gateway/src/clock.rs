//! The region's virtual time: moved to the earliest timer of all services, until all are quiet, and so on.

use std::time::Duration;

use gureum_model::{Refusal, Timestamp, refusal::RefusalKind};
use gureum_proto::{
    clock::v1::{GetStateRequest, GetStateResponse, SetTimeRequest, clock_peer_service_client::ClockPeerServiceClient},
    gateway::v1::{AdvanceClockRequest, AdvanceClockResponse, GetClockRequest, GetClockResponse, clock_service_server::ClockService},
};
use gureum_service::{Clock, Error, Peer, clock::monotonic, wire};
use gureum_store::Store;
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

use crate::log::Schema;

/// The longest way in one call.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Between two looks at the services while they are not quiet, in real time.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Quiet looks in a row that count as quiet: what one service tells another is on its way for less than
/// the time between the first and the last of them.
const QUIET_LOOKS: u32 = 4;

/// Quiet must come within this real time at each step, else something is stuck.
const QUIET_PATIENCE: Duration = Duration::from_secs(20);

/// Serves ClockService.
pub struct ClockApi {
    pub clock: Clock,
    pub setting: String,
    pub services: Vec<Peer>,
    pub store: Store<Schema>,
    /// One advance at a time.
    pub advancing: Mutex<()>,
}

/// What all services together say.
struct Look {
    idle: bool,
    activity: Vec<u64>,
    followed: bool,
    next_timer: Option<Timestamp>,
}

impl ClockApi {
    async fn advance(&self, by: Duration) -> Result<(Timestamp, u32), Error> {
        let _turn = self.advancing.lock().await;
        let target = self.clock.now() + by;
        let mut steps = 0;
        loop {
            let next = self.quiet().await?;
            let now = self.clock.now();
            match next.filter(|next| *next <= target) {
                Some(next) => {
                    self.set(next.max(now)).await?;
                    steps += 1;
                }
                None if now >= target => return Ok((now, steps)),
                None => self.set(target).await?,
            }
        }
    }

    /// Waits until several looks in a row show no work and none begun in between; answers the next timer.
    async fn quiet(&self) -> Result<Option<Timestamp>, Error> {
        let patience = monotonic() + QUIET_PATIENCE;
        let mut quiet_looks = 0;
        let mut before: Option<Look> = None;
        loop {
            let look = self.look().await?;
            let same = before.as_ref().is_some_and(|before| before.idle && before.followed && before.activity == look.activity);
            quiet_looks = if look.idle && look.followed && same { quiet_looks + 1 } else { 0 };
            if quiet_looks >= QUIET_LOOKS {
                return Ok(look.next_timer);
            }
            if monotonic() > patience {
                let text = format!(
                    "the services are not quiet after {} s of real time; the clock stays at {}",
                    QUIET_PATIENCE.as_secs(),
                    self.clock.now()
                );
                return Err(Refusal::new(RefusalKind::Unavailable, "NotQuiet", text).into());
            }
            before = Some(look);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn look(&self) -> Result<Look, Error> {
        let mut states = Vec::with_capacity(self.services.len());
        let mut look = Look { idle: true, activity: Vec::new(), followed: true, next_timer: self.clock.earliest_timer() };
        for peer in &self.services {
            let state = self.ask(peer).await?;
            let timer = state.next_timer.as_ref().map(wire::from_timestamp);
            look.next_timer = look.next_timer.into_iter().chain(timer).min();
            look.idle &= state.idle;
            look.activity.push(state.activity);
            let cursor = self.store.read().cursors.get(peer.name()).map(|cursor| cursor.sequence);
            look.followed &= cursor.is_none_or(|cursor| cursor >= state.sequence);
            states.push(state);
        }
        look.followed &= follow_each_other(&states);
        look.activity.push(self.store.read().sequence());
        Ok(look)
    }

    async fn ask(&self, peer: &Peer) -> Result<GetStateResponse, Error> {
        let answer = ClockPeerServiceClient::new(peer.channel()).get_state(GetStateRequest {}).await;
        answer.map(Response::into_inner).map_err(|status| peer.error(status))
    }

    /// Sets the time everywhere, the gateway last: what it says is never ahead of any service.
    async fn set(&self, time: Timestamp) -> Result<(), Error> {
        for peer in &self.services {
            let request = SetTimeRequest { time: Some(wire::timestamp(time)) };
            ClockPeerServiceClient::new(peer.channel()).set_time(request).await.map_err(|status| peer.error(status))?;
        }
        let clock = self.clock.clone();
        let moved = tokio::task::spawn_blocking(move || clock.advance_to(time)).await;
        moved
            .map_err(|error| Error::Internal(error.to_string()))?
            .map_err(|error| Error::Internal(format!("keeping the virtual time: {error}")))?;
        Ok(())
    }
}

/// Whether whoever follows another has heard all that it told: what is on its way is work as well, and no service's own.
fn follow_each_other(states: &[GetStateResponse]) -> bool {
    let told = |state: &GetStateResponse| {
        let heard = states.iter().filter_map(|other| other.followed.get(&state.name));
        heard.into_iter().all(|heard| *heard >= state.sequence)
    };
    states.iter().all(told)
}

#[tonic::async_trait]
impl ClockService for ClockApi {
    async fn get_clock(&self, _request: Request<GetClockRequest>) -> Result<Response<GetClockResponse>, Status> {
        Ok(Response::new(GetClockResponse { now: Some(wire::timestamp(self.clock.now())), setting: self.setting.clone() }))
    }

    async fn advance_clock(&self, request: Request<AdvanceClockRequest>) -> Result<Response<AdvanceClockResponse>, Status> {
        if !self.clock.is_virtual() {
            let text = "this region's clock is not virtual; start it with --time-scale virtual";
            return Err(Error::from(Refusal::new(RefusalKind::Unsupported, "UnsupportedOperation", text)).into());
        }
        let by = request.into_inner().by.and_then(|by| Duration::try_from(by).ok()).filter(|by| *by <= LONGEST);
        let by = by.ok_or_else(|| Error::from(Refusal::invalid("by", format!("expected 0 to {} seconds", LONGEST.as_secs()))))?;
        let (now, steps) = self.advance(by).await?;
        Ok(Response::new(AdvanceClockResponse { now: Some(wire::timestamp(now)), steps }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_quiet_while_something_is_on_its_way() {
        let state = |name: &str, sequence, followed: &[(&str, u64)]| GetStateResponse {
            name: name.into(),
            sequence,
            followed: followed.iter().map(|(name, sequence)| ((*name).to_owned(), *sequence)).collect(),
            ..Default::default()
        };
        let compute = state("compute", 90, &[("network", 7), ("node-1", 5)]);
        assert!(follow_each_other(&[state("network", 7, &[]), compute.clone(), state("node-1", 5, &[]), state("node-2", 3, &[])]));
        assert!(!follow_each_other(&[state("network", 8, &[]), compute.clone(), state("node-1", 5, &[])]));
        assert!(!follow_each_other(&[state("network", 7, &[]), compute, state("node-1", 6, &[])]));
    }
}
