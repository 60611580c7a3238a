//! IP protocols as EC2 names them, and ports as it writes them, as the numbers that rules hold.

/// IP protocol numbers (IANA) that EC2 knows by name.
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

/// Every point of a protocol.
pub const ALL: (u16, u16) = (0, u16::MAX);

/// Reads `tcp`, `udp`, `icmp`, `icmpv6` in any case, a number from 0 to 255, or `-1`, which answers `Some(None)`: every
/// protocol. `None` is what is none of these.
pub fn parse(text: &str) -> Option<Option<u8>> {
    match text.to_ascii_lowercase().as_str() {
        "-1" => Some(None),
        "tcp" => Some(Some(TCP)),
        "udp" => Some(Some(UDP)),
        "icmp" => Some(Some(ICMP)),
        "icmpv6" => Some(Some(ICMPV6)),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    }
}

/// The first and the last point that a rule means, by its ports as EC2 writes them: ports of TCP and UDP; ICMP type and
/// code, -1 for all; of other protocols nothing counts. `None` is what no rule can say.
pub fn points(protocol: Option<u8>, from_port: i32, to_port: i32) -> Option<(u16, u16)> {
    match protocol {
        Some(TCP | UDP) => {
            let (first, last) = (u16::try_from(from_port).ok()?, u16::try_from(to_port).ok()?);
            (first <= last).then_some((first, last))
        }
        Some(ICMP | ICMPV6) => match (from_port, to_port) {
            (-1, -1) => Some(ALL),
            (kind, -1) => u8::try_from(kind).ok().map(|kind| (u16::from_be_bytes([kind, 0]), u16::from_be_bytes([kind, u8::MAX]))),
            (kind, code) => {
                let point = u16::from_be_bytes([u8::try_from(kind).ok()?, u8::try_from(code).ok()?]);
                Some((point, point))
            }
        },
        Some(_) | None => Some(ALL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_names_and_numbers() {
        assert_eq!([parse("tcp"), parse("UDP"), parse("icmpv6")], [Some(Some(TCP)), Some(Some(UDP)), Some(Some(ICMPV6))]);
        assert_eq!([parse("-1"), parse("50"), parse("6")], [Some(None), Some(Some(50)), Some(Some(TCP))]);
        assert_eq!([parse("256"), parse("-2"), parse("sctp"), parse("")], [None; 4]);
    }

    #[test]
    fn ports_and_messages_become_points() {
        assert_eq!(points(Some(TCP), 80, 90), Some((80, 90)));
        assert_eq!(points(Some(ICMP), -1, -1), Some(ALL));
        assert_eq!(points(Some(ICMP), 8, -1), Some((0x0800, 0x08ff)));
        assert_eq!(points(Some(ICMPV6), 3, 4), Some((0x0304, 0x0304)));
        assert_eq!(points(Some(50), -1, -1), Some(ALL));
        assert_eq!(points(None, 1, 0), Some(ALL));
        assert_eq!([points(Some(TCP), 2, 1), points(Some(UDP), -1, 5), points(Some(TCP), 0, 65_536)], [None; 3]);
        assert_eq!([points(Some(ICMP), -1, 0), points(Some(ICMP), 256, -1), points(Some(ICMPV6), 1, 256)], [None; 3]);
    }
}
