//! Names of addresses, in the forms that EC2 gives them.

use std::net::Ipv4Addr;

use gureum_model::Region;

/// The region whose names are older than the scheme of all others.
const FIRST_REGION: &str = "us-east-1";

fn dashed(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{a}-{b}-{c}-{d}")
}

/// `ip-172-31-0-4.ec2.internal` in us-east-1, `ip-172-31-0-4.eu-west-1.compute.internal` elsewhere.
pub fn private_name(region: &Region, address: Ipv4Addr) -> String {
    let address = dashed(address);
    match region.as_str() {
        FIRST_REGION => format!("ip-{address}.ec2.internal"),
        other => format!("ip-{address}.{other}.compute.internal"),
    }
}

/// `ec2-1-2-3-4.compute-1.amazonaws.com` in us-east-1, `ec2-1-2-3-4.eu-west-1.compute.amazonaws.com` elsewhere.
pub fn public_name(region: &Region, address: Ipv4Addr) -> String {
    let address = dashed(address);
    match region.as_str() {
        FIRST_REGION => format!("ec2-{address}.compute-1.amazonaws.com"),
        other => format!("ec2-{address}.{other}.compute.amazonaws.com"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_ec2s_forms() {
        let address = Ipv4Addr::new(172, 31, 0, 4);
        let ireland: Region = "eu-west-1".parse().unwrap();
        assert_eq!(private_name(&Region::default(), address), "ip-172-31-0-4.ec2.internal");
        assert_eq!(private_name(&ireland, address), "ip-172-31-0-4.eu-west-1.compute.internal");
        assert_eq!(public_name(&Region::default(), address), "ec2-172-31-0-4.compute-1.amazonaws.com");
        assert_eq!(public_name(&ireland, address), "ec2-172-31-0-4.eu-west-1.compute.amazonaws.com");
    }
}
