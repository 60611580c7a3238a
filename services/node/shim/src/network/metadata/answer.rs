//! What is answered to a request: whether it may ask, then what it asks for.

use std::time::Duration;

use super::{
    Machine, page,
    token::{TTL_SECONDS, Tokens},
    tree,
};
use crate::network::Network;

/// A request, as far as it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked<'a> {
    pub method: &'a str,
    /// Without a query.
    pub path: &'a str,
    /// `X-aws-ec2-metadata-token`.
    pub token: Option<&'a [u8]>,
    /// `X-aws-ec2-metadata-token-ttl-seconds`.
    pub ttl: Option<&'a [u8]>,
    /// It has `X-Forwarded-For`: somebody asks on behalf of another.
    pub is_forwarded: bool,
    pub has_body: bool,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub status: u16,
    pub body: Vec<u8>,
    pub content_type: &'static str,
    /// How long the token is still good, which was made or shown.
    pub token_seconds: Option<u64>,
    /// The hops that the answer may go; none: as many as any other.
    pub hop_limit: Option<u32>,
}

impl Said {
    fn refused(status: u16, reason: Option<&str>) -> Self {
        Self { content_type: "text/html", ..Self::text(status, page::refusal(status, reason).into_bytes()) }
    }

    fn text(status: u16, body: Vec<u8>) -> Self {
        Self { status, body, content_type: "text/plain", token_seconds: None, hop_limit: None }
    }
}

const TOKEN_PATH: &str = "/latest/api/token";

/// Answers a request of the instance at this moment, in microseconds since the epoch.
pub fn answer(asked: &Asked<'_>, machine: &Machine, network: &Network, tokens: &Tokens, now_micros: u64) -> Said {
    let options = machine.options;
    if !options.enabled {
        return Said::refused(403, Some("the metadata service of this instance is disabled by its metadata options"));
    }
    if asked.has_body {
        return Said::refused(413, Some("a request to the metadata service has no body"));
    }
    let is_token = asked.path.trim_end_matches('/') == TOKEN_PATH;
    match asked.method {
        "PUT" if is_token => return make_token(asked, machine, tokens, now_micros),
        "GET" | "HEAD" if !is_token => {}
        _ => return Said::refused(405, Some("only GET and HEAD are allowed, and PUT for /latest/api/token")),
    }
    let token_seconds = match asked.token {
        Some(token) => match tokens.check(&machine.id, token, now_micros) {
            Some(expiry) => Some(Duration::from_micros(expiry - now_micros).as_secs()),
            None => return Said::refused(401, None),
        },
        None if options.tokens_required => return Said::refused(401, None),
        None => None,
    };
    let said = match tree::find(asked.path, machine, network) {
        tree::Found::Text(text) => Said::text(200, text),
        tree::Found::Json(text) => Said { content_type: "application/json", ..Said::text(200, text.into_bytes()) },
        tree::Found::Nothing(reason) => Said::refused(404, reason),
    };
    Said { token_seconds, ..said }
}

fn make_token(asked: &Asked<'_>, machine: &Machine, tokens: &Tokens, now_micros: u64) -> Said {
    if asked.is_forwarded {
        // A proxy that is open to others would hand tokens to them.
        return Said::refused(403, None);
    }
    let ttl = asked.ttl.and_then(|ttl| std::str::from_utf8(ttl).ok()?.trim().parse().ok()).filter(|ttl| TTL_SECONDS.contains(ttl));
    let Some(seconds) = ttl else {
        return Said::refused(400, Some("X-aws-ec2-metadata-token-ttl-seconds must be a number from 1 to 21600"));
    };
    let token = tokens.make(&machine.id, now_micros.saturating_add(seconds * 1_000_000));
    Said { token_seconds: Some(seconds), hop_limit: Some(machine.options.hop_limit.clamp(1, 64)), ..Said::text(200, token.into_bytes()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::network::metadata::Options;

    const NOW: u64 = 1_700_000_000_000_000;

    fn machine(tokens_required: bool) -> Machine {
        let options = Options { enabled: true, tokens_required, hop_limit: 2, tags_enabled: false };
        Machine { id: "i-1".into(), options, ..Machine::default() }
    }

    fn get<'a>(path: &'a str, token: Option<&'a [u8]>) -> Asked<'a> {
        Asked { method: "GET", path, token, ..Asked::default() }
    }

    fn put<'a>(ttl: &'a str) -> Asked<'a> {
        Asked { method: "PUT", path: TOKEN_PATH, ttl: Some(ttl.as_bytes()), ..Asked::default() }
    }

    #[test]
    fn a_token_is_made_for_the_seconds_that_are_allowed_and_opens_what_requires_one() {
        let (tokens, machine) = (Tokens::random().unwrap(), machine(true));
        let say = |asked: &Asked<'_>, now| answer(asked, &machine, &Network::default(), &tokens, now);
        for ttl in ["0", "21601", "-1", "a minute", ""] {
            assert_eq!(say(&put(ttl), NOW).status, 400, "{ttl}");
        }
        assert_eq!(say(&Asked { ttl: None, ..put("") }, NOW).status, 400);
        assert_eq!(say(&Asked { is_forwarded: true, ..put("60") }, NOW).status, 403);
        let made = say(&put("60"), NOW);
        assert_eq!((made.status, made.token_seconds, made.hop_limit), (200, Some(60), Some(2)));

        let path = "/latest/meta-data/instance-id";
        assert_eq!(say(&get(path, None), NOW).status, 401);
        assert_eq!(say(&get(path, Some(b"nonsense")), NOW).status, 401);
        let said = say(&get(path, Some(&made.body)), NOW + 10_000_000);
        assert_eq!((said.status, said.body.as_slice(), said.token_seconds), (200, b"i-1".as_slice(), Some(50)));
        assert_eq!(say(&get(path, Some(&made.body)), NOW + 60_000_000).status, 401);
        assert_eq!(say(&get("/latest/meta-data/none", None), NOW).status, 401, "nothing is told to who may not ask");
    }

    #[test]
    fn the_first_version_needs_no_token_but_takes_no_wrong_one() {
        let (tokens, machine) = (Tokens::random().unwrap(), machine(false));
        let say = |asked: &Asked<'_>| answer(asked, &machine, &Network::default(), &tokens, NOW).status;
        let path = "/latest/meta-data/instance-id";
        assert_eq!(say(&get(path, None)), 200);
        assert_eq!(say(&get(path, Some(b"nonsense"))), 401);
        assert_eq!(say(&Asked { method: "POST", ..get(path, None) }), 405);
        assert_eq!(say(&get(TOKEN_PATH, None)), 405);
        assert_eq!(say(&Asked { has_body: true, ..get(path, None) }), 413);
    }

    #[test]
    fn a_disabled_service_answers_nothing() {
        let (tokens, mut machine) = (Tokens::random().unwrap(), machine(false));
        machine.options.enabled = false;
        for asked in [get("/latest/meta-data/", None), put("60")] {
            assert_eq!(answer(&asked, &machine, &Network::default(), &tokens, NOW).status, 403);
        }
    }
}
