//! CIDR blocks as EC2 reads them.

use std::net::Ipv4Addr;

use gureum_model::Refusal;
use ipnet::Ipv4Net;

/// The largest VPC or subnet: 65536 addresses, as in EC2.
pub const SHORTEST_PREFIX: u8 = 16;
/// The smallest VPC or subnet: 16 addresses, as in EC2.
pub const LONGEST_PREFIX: u8 = 28;

/// Reads a block; bits behind the mask are dropped, as EC2 does it.
pub fn parse(field: &str, text: &str) -> Result<Ipv4Net, Refusal> {
    text.parse::<Ipv4Net>().map(|net| net.trunc()).map_err(|_| {
        Refusal::invalid(
            field,
            format!("Value ({text}) for parameter {field} is invalid: this is not a valid IPv4 CIDR block such as 10.0.0.0/16"),
        )
    })
}

/// Reads a block of 16 to 65536 addresses; another size is refused with `reason`.
pub fn parse_sized(field: &str, text: &str, reason: &'static str) -> Result<Ipv4Net, Refusal> {
    let net = parse(field, text)?;
    if (SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&net.prefix_len()) {
        return Ok(net);
    }
    Err(Refusal::invalid_as(
        reason,
        field,
        format!("The CIDR '{text}' is invalid: its prefix must be /{SHORTEST_PREFIX} to /{LONGEST_PREFIX}"),
    ))
}

/// Reads an address.
pub fn parse_address(field: &str, text: &str) -> Result<Ipv4Addr, Refusal> {
    text.parse().map_err(|_| Refusal::invalid(field, format!("Value ({text}) for parameter {field} is invalid: this is no IPv4 address")))
}

/// Reads an address that may be absent (empty).
pub fn parse_optional_address(field: &str, text: &str) -> Result<Option<Ipv4Addr>, Refusal> {
    if text.is_empty() { Ok(None) } else { parse_address(field, text).map(Some) }
}

/// Whether two blocks share an address.
pub fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn overlapping_is_sharing_an_address(a in any::<u32>(), b in any::<u32>(), p in 20..=32u8, q in 20..=32u8) {
            // Near each other, so that some do overlap.
            let one = Ipv4Net::new(Ipv4Addr::from_bits(a & 0xfff), p).unwrap().trunc();
            let other = Ipv4Net::new(Ipv4Addr::from_bits(b & 0xfff), q).unwrap().trunc();
            let shares = one.network() <= other.broadcast() && other.network() <= one.broadcast();
            prop_assert_eq!(overlap(one, other), shares);
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = parse_sized("cidr_block", &text, "InvalidVpc.Range");
        }
    }

    #[test]
    fn sizes_and_host_bits() {
        assert_eq!(parse_sized("f", "100.68.0.18/18", "R").map(|net| net.to_string()), Ok("100.68.0.0/18".into()));
        assert_eq!(parse_sized("f", "10.0.0.0/15", "InvalidVpc.Range").map_err(|refusal| refusal.reason), Err("InvalidVpc.Range"));
        assert_eq!(parse_sized("f", "10.0.0.0/29", "InvalidVpc.Range").map_err(|refusal| refusal.reason), Err("InvalidVpc.Range"));
        assert_eq!(parse("f", "10.0.0.0/33").map_err(|refusal| refusal.reason), Err("InvalidParameterValue"));
    }
}
