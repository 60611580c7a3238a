//! The side of the instance, as what comes to it needs it.

use std::{collections::BTreeSet, io, net::SocketAddrV4, rc::Rc};

use tokio::net::{TcpStream, UdpSocket};

use super::{alias::Alias, switch::Switch};
use crate::network::listening::Listening;

/// Where an instance is while it runs.
#[derive(Clone)]
pub enum Inside {
    /// In a network of its own.
    Switch(Rc<Switch>),
    /// In the host's.
    Alias(Rc<Alias>),
}

impl Inside {
    /// The ports on which the instance listens, and what is to be said to its programs about others.
    pub fn listening(&self) -> io::Result<(BTreeSet<Listening>, Vec<String>)> {
        match self {
            Self::Switch(switch) => switch.listening().map(|found| (found, Vec::new())),
            Self::Alias(alias) => alias.listening(),
        }
    }

    /// A connection to a private address of the instance, as if it came from `source` where that can be.
    pub async fn connect(&self, source: SocketAddrV4, destination: SocketAddrV4) -> io::Result<TcpStream> {
        match self {
            Self::Switch(switch) => switch.connect(source, destination).await,
            Self::Alias(alias) => alias.connect(destination).await,
        }
    }

    /// The same for datagrams.
    pub async fn datagrams(&self, other: SocketAddrV4, instance: SocketAddrV4) -> io::Result<UdpSocket> {
        match self {
            Self::Switch(switch) => switch.datagrams(other, instance).await,
            Self::Alias(alias) => alias.datagrams(instance).await,
        }
    }
}
