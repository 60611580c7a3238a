//! All services in this process. They still speak gRPC to each other, over the same sockets.

use std::net::SocketAddr;

use futures::{StreamExt, stream::FuturesUnordered};
use gureum_service::CancellationToken;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{region::Region, run_member};
use crate::failure::Failure;

/// Runs the region. If one service cannot go on, all end: half a region helps nobody.
pub async fn run(region: &Region, shutdown: CancellationToken, ready: impl FnOnce(SocketAddr)) -> Result<(), Failure> {
    let (sender, mut accepted) = mpsc::unbounded_channel();
    let mut running: FuturesUnordered<JoinHandle<Result<(), Failure>>> = FuturesUnordered::new();
    for (name, member) in region.members.clone() {
        let (shutdown, sender) = (shutdown.clone(), sender.clone());
        running.push(tokio::spawn(async move {
            let told = move |door| {
                // Nobody waits any more once one service has failed.
                let _ = sender.send(door);
            };
            run_member(member, shutdown, Box::new(told)).await.map_err(|error| Failure::service(&name, &error))
        }));
    }
    drop(sender);
    let (mut waiting, mut door, mut ready) = (region.members.len(), None, Some(ready));
    let mut outcome = Ok(());
    loop {
        tokio::select! {
            Some(address) = accepted.recv(), if waiting > 0 => {
                waiting -= 1;
                door = door.or(address);
                if let (0, Some(door)) = (waiting, door)
                    && let Some(ready) = ready.take()
                {
                    ready(door);
                }
            }
            ended = running.next() => match ended {
                None => return outcome,
                Some(ended) => {
                    let ended = ended.unwrap_or_else(|error| Err(Failure::service("a service", &error)));
                    if let (Err(failure), Ok(())) = (ended, &outcome) {
                        outcome = Err(failure);
                    }
                    shutdown.cancel();
                }
            },
        }
    }
}
