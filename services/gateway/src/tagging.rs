//! Tags of the resources of all services: a call is split by the ids' prefixes.
//!
//! All parts are tried dry first, so an id that does not exist leaves nothing half-tagged. The parts
//! carry tokens derived from the call's own, so a repeated call repeats none of them.

use gureum_model::{Refusal, refusal::RefusalKind};
use gureum_proto::{
    common::v1::TagDescription, compute::v1 as compute, compute::v1::compute_service_client::ComputeServiceClient, gateway::v1 as proto,
    gateway::v1::tagging_service_server::TaggingService, network::v1 as network, network::v1::network_service_client::NetworkServiceClient,
    security::v1 as security, security::v1::security_service_client::SecurityServiceClient,
};
use gureum_service::{Error, Peer, mutate};
use tonic::{Request, Response, Status};

/// Ids' prefixes and whose they are.
const OWNERS: [(&str, Owner); 18] = [
    ("sg-", Owner::Security),
    ("sgr-", Owner::Security),
    ("key-", Owner::Security),
    ("pl-", Owner::Security),
    ("vpc-", Owner::Network),
    ("subnet-", Owner::Network),
    ("eni-", Owner::Network),
    ("igw-", Owner::Network),
    ("rtb-", Owner::Network),
    ("eipalloc-", Owner::Network),
    ("i-", Owner::Compute),
    ("ami-", Owner::Compute),
    ("vol-", Owner::Compute),
    ("snap-", Owner::Compute),
    ("lt-", Owner::Compute),
    ("r-", Owner::Compute),
    ("node-", Owner::Compute),
    ("eipassoc-", Owner::Network),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Security,
    Network,
    Compute,
}

const OWNER_ORDER: [Owner; 3] = [Owner::Security, Owner::Network, Owner::Compute];

/// Serves TaggingService.
pub struct Tagging {
    pub security: Peer,
    pub network: Peer,
    pub compute: Peer,
}

/// The longest prefix decides: `eipalloc-` begins with no other, but `i-` begins many words.
fn owner(id: &str) -> Option<Owner> {
    OWNERS.iter().filter(|(prefix, _)| id.starts_with(prefix)).max_by_key(|(prefix, _)| prefix.len()).map(|(_, owner)| *owner)
}

/// The ids of one owner, and the place of each in the call.
#[derive(Debug)]
struct Part {
    owner: Owner,
    ids: Vec<String>,
    places: Vec<usize>,
}

impl Part {
    /// A field of the part's request, as the call's own request names it.
    fn field(&self, field: &str) -> Option<String> {
        let place =
            field.strip_prefix("resource_ids[").and_then(|rest| rest.strip_suffix(']')).and_then(|place| place.parse::<usize>().ok());
        match place {
            Some(place) => self.places.get(place).map(|place| format!("resource_ids[{place}]")),
            None => Some(field.to_owned()),
        }
    }
}

/// Everything that is wrong with any part.
fn all_of(failures: Vec<Error>) -> Result<(), Error> {
    failures.into_iter().reduce(Error::and).map_or(Ok(()), Err)
}

/// Ids by owner; every id of no known kind is named.
fn split(ids: &[String]) -> Result<Vec<Part>, Refusal> {
    let mut violations = gureum_model::refusal::Violations::new();
    for (place, id) in ids.iter().enumerate().filter(|(_, id)| owner(id).is_none()) {
        violations.add_as(
            "InvalidID",
            format!("resource_ids[{place}]"),
            format!("the ID '{id}' is not valid: no kind of resource has such ids"),
        );
    }
    violations.finish()?;
    let of = |wanted: Owner| {
        let (places, ids) = ids.iter().cloned().enumerate().filter(|(_, id)| owner(id) == Some(wanted)).unzip();
        Part { owner: wanted, ids, places }
    };
    Ok(OWNER_ORDER.map(of).into_iter().filter(|part| !part.ids.is_empty()).collect())
}

fn part_token(token: &str, owner: Owner) -> String {
    if token.is_empty() {
        String::new()
    } else {
        format!("{:032x}", gureum_store::token::fingerprint(format!("{token}/{owner:?}").as_bytes()))
    }
}

/// A dry run that would have succeeded is what a check is for.
fn passed(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.reason().as_deref() == Some("DryRunOperation") => Ok(()),
        other => other,
    }
}

/// Calls one service with its own request type: the fields are the same in all.
macro_rules! call {
    ($self:ident, $owner:expr, $method:ident, $request:ident { $($field:ident: $value:expr),* $(,)? }) => {
        match $owner {
            Owner::Security => SecurityServiceClient::new($self.security.channel()).$method(security::$request { $($field: $value),* }).await.map_err(|status| $self.security.error(status))
                .map(|answer| drop(answer)),
            Owner::Network => NetworkServiceClient::new($self.network.channel()).$method(network::$request { $($field: $value),* }).await.map_err(|status| $self.network.error(status))
                .map(|answer| drop(answer)),
            Owner::Compute => ComputeServiceClient::new($self.compute.channel()).$method(compute::$request { $($field: $value),* }).await.map_err(|status| $self.compute.error(status))
                .map(|answer| drop(answer)),
        }
    };
}

impl Tagging {
    async fn create(&self, part: &Part, request: &proto::CreateTagsRequest, dry_run: bool) -> Result<(), Error> {
        let owner = part.owner;
        let client_token = if dry_run { String::new() } else { part_token(&request.client_token, owner) };
        let outcome: Result<(), Error> = call!(
            self,
            owner,
            create_tags,
            CreateTagsRequest { client_token: client_token, dry_run: dry_run, resource_ids: part.ids.clone(), tags: request.tags.clone() }
        );
        passed(outcome).map_err(|error| error.of_fields(|field| part.field(field)))
    }

    async fn delete(&self, part: &Part, request: &proto::DeleteTagsRequest, dry_run: bool) -> Result<(), Error> {
        let owner = part.owner;
        let client_token = if dry_run { String::new() } else { part_token(&request.client_token, owner) };
        let outcome: Result<(), Error> = call!(
            self,
            owner,
            delete_tags,
            DeleteTagsRequest { client_token: client_token, dry_run: dry_run, resource_ids: part.ids.clone(), tags: request.tags.clone() }
        );
        passed(outcome).map_err(|error| error.of_fields(|field| part.field(field)))
    }

    async fn page(
        &self,
        owner: Owner,
        request: &proto::DescribeTagsRequest,
        page_size: i32,
        page_token: String,
    ) -> Result<(Vec<TagDescription>, String), Status> {
        let filters = request.filters.clone();
        match owner {
            Owner::Security => {
                let request = security::DescribeTagsRequest { page_size, page_token, filters };
                let answer = SecurityServiceClient::new(self.security.channel()).describe_tags(request).await;
                answer
                    .map(|answer| {
                        let page = answer.into_inner();
                        (page.tags, page.next_page_token)
                    })
                    .map_err(|status| self.security.error(status).into())
            }
            Owner::Network => {
                let request = network::DescribeTagsRequest { page_size, page_token, filters };
                let answer = NetworkServiceClient::new(self.network.channel()).describe_tags(request).await;
                answer
                    .map(|answer| {
                        let page = answer.into_inner();
                        (page.tags, page.next_page_token)
                    })
                    .map_err(|status| self.network.error(status).into())
            }
            Owner::Compute => {
                let request = compute::DescribeTagsRequest { page_size, page_token, filters };
                let answer = ComputeServiceClient::new(self.compute.channel()).describe_tags(request).await;
                answer
                    .map(|answer| {
                        let page = answer.into_inner();
                        (page.tags, page.next_page_token)
                    })
                    .map_err(|status| self.compute.error(status).into())
            }
        }
    }
}

#[tonic::async_trait]
impl TaggingService for Tagging {
    async fn create_tags(&self, request: Request<proto::CreateTagsRequest>) -> Result<Response<proto::CreateTagsResponse>, Status> {
        let request = request.into_inner();
        let parts = split(&request.resource_ids).map_err(Error::from)?;
        let mut failures = Vec::new();
        for part in &parts {
            failures.extend(self.create(part, &request, true).await.err());
        }
        all_of(failures)?;
        if request.dry_run {
            return Err(Error::from(mutate::dry_run_refusal()).into());
        }
        for part in &parts {
            self.create(part, &request, false).await?;
        }
        Ok(Response::new(proto::CreateTagsResponse {}))
    }

    async fn delete_tags(&self, request: Request<proto::DeleteTagsRequest>) -> Result<Response<proto::DeleteTagsResponse>, Status> {
        let request = request.into_inner();
        let parts = split(&request.resource_ids).map_err(Error::from)?;
        let mut failures = Vec::new();
        for part in &parts {
            failures.extend(self.delete(part, &request, true).await.err());
        }
        all_of(failures)?;
        if request.dry_run {
            return Err(Error::from(mutate::dry_run_refusal()).into());
        }
        for part in &parts {
            self.delete(part, &request, false).await?;
        }
        Ok(Response::new(proto::DeleteTagsResponse {}))
    }

    /// One service after another, in a fixed order; a page's token says which one and where in it.
    async fn describe_tags(&self, request: Request<proto::DescribeTagsRequest>) -> Result<Response<proto::DescribeTagsResponse>, Status> {
        let request = request.into_inner();
        let (mut place, mut inner) = read_token(&request.page_token).map_err(Error::from)?;
        let wanted = match usize::try_from(request.page_size).unwrap_or(0) {
            0 => gureum_model::page::DEFAULT_PAGE_SIZE,
            size => size.min(gureum_model::page::MAX_PAGE_SIZE),
        };
        let mut tags = Vec::new();
        while place < OWNER_ORDER.len() && tags.len() < wanted {
            let size = (wanted - tags.len()) as i32;
            let (more, next) = self.page(OWNER_ORDER[place], &request, size, std::mem::take(&mut inner)).await?;
            tags.extend(more);
            if next.is_empty() {
                place += 1;
            } else {
                inner = next;
            }
        }
        let next_page_token = if place < OWNER_ORDER.len() { format!("{place}.{inner}") } else { String::new() };
        Ok(Response::new(proto::DescribeTagsResponse { tags, next_page_token }))
    }
}

fn read_token(token: &str) -> Result<(usize, String), Refusal> {
    if token.is_empty() {
        return Ok((0, String::new()));
    }
    let parts = token.split_once('.').and_then(|(place, inner)| Some((place.parse::<usize>().ok()?, inner.to_owned())));
    parts.filter(|(place, _)| *place < OWNER_ORDER.len()).ok_or_else(|| {
        Refusal::new(RefusalKind::Invalid, "InvalidNextToken", "the page token was not given for this call; begin again without one")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_find_their_owners() {
        assert_eq!(owner("i-0123456789abcdef0"), Some(Owner::Compute));
        assert_eq!(owner("igw-0123456789abcdef0"), Some(Owner::Network));
        assert_eq!(owner("sgr-1"), Some(Owner::Security));
        let refused = split(&["i-1".into(), "bogus".into(), "x-1".into()]).map_err(|refusal| (refusal.reason, refusal.violations.len()));
        assert_eq!(refused.err(), Some(("InvalidID", 2)));
    }
}
