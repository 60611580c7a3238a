//! A program that runs in an instance for as long as this one listens.

use futures::stream;
use gureum_proto::{
    common::v1::SessionStart,
    compute::v1::{ConnectInstanceRequest, ConnectInstanceResponse, connect_instance_request::Message as Asked},
};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::{client::Client, failure::Failure};

/// Messages that wait to be sent; beyond them whoever has more waits.
const WAITING: usize = 4;

/// Bytes in one message: half of what the region takes.
pub const PART: usize = 32 << 10;

/// Both directions of a session. One whose output is dropped is hung up.
pub struct Session {
    pub input: Input,
    pub output: Streaming<ConnectInstanceResponse>,
}

/// What the program is sent.
#[derive(Clone)]
pub struct Input(mpsc::Sender<ConnectInstanceRequest>);

impl Session {
    /// Runs a program.
    pub async fn open(client: &Client, start: SessionStart) -> Result<Self, Failure> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let input = Input(sender);
        input.send(Asked::Start(start)).await;
        let messages = stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|message| (message, receiver)) });
        let answer = client.compute().connect_instance(messages).await.map_err(|status| client.failed(status))?;
        Ok(Self { input, output: answer.into_inner() })
    }
}

impl Input {
    /// Sends a message. Answers false if the session has ended.
    pub async fn send(&self, message: Asked) -> bool {
        self.0.send(ConnectInstanceRequest { message: Some(message) }).await.is_ok()
    }

    /// The same, from a thread that may wait.
    pub fn send_waiting(&self, message: Asked) -> bool {
        self.0.blocking_send(ConnectInstanceRequest { message: Some(message) }).is_ok()
    }
}
