//! The resolver that answers instances: the host's own.

use std::net::{Ipv4Addr, SocketAddrV4};

pub const PORT: u16 = 53;

const CONFIGURATION: &str = "/etc/resolv.conf";

/// The first resolver that the host uses and that can be asked by IPv4.
pub fn of_host() -> Option<SocketAddrV4> {
    first(&std::fs::read_to_string(CONFIGURATION).ok()?)
}

fn first(configuration: &str) -> Option<SocketAddrV4> {
    let servers = configuration.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let mut addresses = servers.filter_map(|server| server.trim().parse::<Ipv4Addr>().ok());
    addresses.next().map(|address| SocketAddrV4::new(address, PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_has_an_ipv4_address_is_asked() {
        let text = "# made by a program\nsearch example.org\nnameserver ::1\nnameserver 192.0.2.53\nnameserver 192.0.2.54\n";
        assert_eq!(first(text), Some(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 53), PORT)));
        assert_eq!(first("options edns0\n"), None);
    }
}
