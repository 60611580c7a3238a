//! Scope: the account and region in which a call happens. Two accounts never see each other.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// An account: 12 decimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct AccountId(u64);

impl AccountId {
    /// The account of callers who name none: `000000000000`.
    pub const DEFAULT: Self = Self(0);

    /// The account with this number, if it has at most 12 digits.
    pub const fn from_number(number: u64) -> Option<Self> {
        if number < 1_000_000_000_000 { Some(Self(number)) } else { None }
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand: it begins every key and every index entry.
        let mut digits = [b'0'; 12];
        let mut rest = self.0;
        for digit in digits.iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        f.write_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl FromStr for AccountId {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let digits = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| text.parse().ok().and_then(Self::from_number))
            .flatten()
            .ok_or_else(|| Refusal::invalid("gureum-account", format!("\"{text}\" is no account: expected 12 digits")))
    }
}

/// A region's name: `us-east-1`. Every name is a region; its zones are the name with a, b or c.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Region(Arc<str>);

/// The zones of every region, as letters behind its name.
pub const ZONE_LETTERS: [char; 3] = ['a', 'b', 'c'];

/// The longest name of a region; longer ones help nobody and would sit in every key.
pub const MAX_REGION_LENGTH: usize = 32;

impl Region {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The zone with this letter: `us-east-1a`.
    pub fn zone(&self, letter: char) -> String {
        format!("{}{letter}", self.0)
    }

    /// The three zones' names, in order.
    pub fn zones(&self) -> [String; 3] {
        ZONE_LETTERS.map(|letter| self.zone(letter))
    }

    /// The letter of one of this region's zones.
    pub fn zone_letter(&self, zone: &str) -> Option<char> {
        let mut rest = zone.strip_prefix(self.as_str())?.chars();
        let letter = rest.next()?;
        (rest.next().is_none() && ZONE_LETTERS.contains(&letter)).then_some(letter)
    }

    /// AWS's id of a zone: `use1-az1` for the first zone of us-east-1.
    pub fn zone_id(&self, letter: char) -> String {
        let parts: Vec<&str> = self.0.split('-').filter(|part| !part.is_empty()).collect();
        let mut short = String::new();
        for (place, part) in parts.iter().enumerate() {
            match *part {
                "northeast" => short.push_str("ne"),
                "northwest" => short.push_str("nw"),
                "southeast" => short.push_str("se"),
                "southwest" => short.push_str("sw"),
                part if place == 0 || place + 1 == parts.len() => short.push_str(part),
                part => short.extend(part.chars().next()),
            }
        }
        let number = ZONE_LETTERS.iter().position(|known| *known == letter).map_or(0, |place| place + 1);
        format!("{short}-az{number}")
    }
}

impl Default for Region {
    fn default() -> Self {
        Self(Arc::from("us-east-1"))
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Region {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        // A digit at the end keeps `us-east-1a` a zone and never a region.
        let fits =
            (1..=MAX_REGION_LENGTH).contains(&text.len()) && text.bytes().all(plain) && text.ends_with(|last: char| last.is_ascii_digit());
        fits.then(|| Self(Arc::from(text))).ok_or_else(|| {
            Refusal::invalid(
                "gureum-region",
                format!("\"{text}\" is no region: expected at most {MAX_REGION_LENGTH} letters, digits and hyphens that end in a digit, such as us-east-1"),
            )
        })
    }
}

/// The account and region of a call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Scope {
    pub account: AccountId,
    pub region: Region,
}

impl Scope {
    /// A scope from its two texts.
    pub fn parse(account: &str, region: &str) -> Result<Self, Refusal> {
        Ok(Self { account: account.parse()?, region: region.parse()? })
    }

    /// An Amazon Resource Name in this scope: `arn:aws:ec2:us-east-1:000000000000:instance/i-…`.
    pub fn arn(&self, service: &str, resource: impl fmt::Display) -> String {
        format!("arn:aws:{service}:{}:{}:{resource}", self.region, self.account)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.account.fmt(f)?;
        f.write_str("/")?;
        f.write_str(&self.region.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_keep_their_zeros() {
        assert_eq!("000000000042".parse::<AccountId>().map(|id| id.to_string()), Ok("000000000042".into()));
        assert!("42".parse::<AccountId>().is_err());
        assert!("+00000000042".parse::<AccountId>().is_err());
    }

    #[test]
    fn a_zone_is_no_region() {
        let region = Region::default();
        assert_eq!(region.zones(), ["us-east-1a", "us-east-1b", "us-east-1c"]);
        assert_eq!(region.zone_letter("us-east-1b"), Some('b'));
        assert_eq!(region.zone_letter("us-east-1d"), None);
        assert!("us-east-1a".parse::<Region>().is_err());
    }
}
