//! Prefix lists: named CIDRs that rules mean together, in versions.
//!
//! A list's CIDRs change at once: whoever judges a flow after the change judges by the new ones. Rules count by
//! how large a list may grow, so a change of entries never makes a group exceed its limit.

use std::{borrow::Cow, collections::BTreeSet};

use gureum_model::{Filterable, Refusal, RefusalKind, Scope, Tags, id::PrefixListId, id::SecurityGroupId, refusal::Violations};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Directory, MAX_TEXT_CHARS, SecurityGroup, rule::within_limit, some_of};

/// Lists that one scope may have, as EC2 has it by default. More get `PrefixListLimitExceeded`.
pub const MAX_LISTS: usize = 100;
/// The largest size that a list may be given, as in EC2.
pub const MAX_ENTRIES: u32 = 1000;
/// Versions of a list that are kept, the current one among them. Older ones can no longer be read.
pub const KEPT_VERSIONS: u64 = 100;

/// Names that begin so are the cloud's own.
const RESERVED_NAME: &str = "com.amazonaws";

/// The one kind of network that a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressFamily {
    Ipv4,
    Ipv6,
}

impl AddressFamily {
    /// As EC2 writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    fn has(self, network: IpNet) -> bool {
        match network {
            IpNet::V4(_) => self == Self::Ipv4,
            IpNet::V6(_) => self == Self::Ipv6,
        }
    }
}

/// A named list of CIDRs of one family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrefixList {
    pub scope: Scope,
    pub id: PrefixListId,
    pub name: String,
    pub family: AddressFamily,
    /// As many as the list may have, and as many rules as it counts for.
    pub max_entries: u32,
    /// Grows by one with every change of entries.
    pub version: u64,
    /// In ascending order of their CIDRs, each once.
    pub entries: Vec<PrefixListEntry>,
    /// It was changed since it was made.
    pub modified: bool,
    pub tags: Tags,
}

/// One CIDR of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixListEntry {
    /// The network address.
    pub cidr: IpNet,
    /// Empty if the user gave none.
    pub description: String,
}

impl PrefixList {
    /// `arn:aws:ec2:REGION:ACCOUNT:prefix-list/ID`.
    pub fn arn(&self) -> String {
        self.scope.arn("ec2", format_args!("prefix-list/{}", self.id))
    }

    /// The CIDRs of the current version.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> {
        self.entries.iter().map(|entry| entry.cidr)
    }
}

/// An entry as a request names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryInput {
    pub cidr: String,
    pub description: String,
}

/// A checked request for a new list.
#[derive(Debug, Clone, PartialEq)]
pub struct NewList {
    pub name: String,
    pub family: AddressFamily,
    pub max_entries: u32,
    pub entries: Vec<PrefixListEntry>,
    pub tags: Tags,
}

impl NewList {
    /// Reads a list; every violation is recorded.
    ///
    /// Codes: `InvalidParameterValue` (name, family, size, a CIDR of the other family or given twice),
    /// `PrefixListMaxEntriesExceeded` (more entries than its size).
    pub fn parse(
        name: &str,
        address_family: &str,
        max_entries: i32,
        entries: &[EntryInput],
        tags: Tags,
        violations: &mut Violations,
    ) -> Option<Self> {
        let named = check_name(name, violations);
        let family = [AddressFamily::Ipv4, AddressFamily::Ipv6].into_iter().find(|family| family.as_str() == address_family);
        if family.is_none() {
            violations
                .add("address_family", format!("Value ({address_family}) for parameter AddressFamily is invalid: expected IPv4 or IPv6"));
        }
        let max_entries = parse_size(max_entries, violations);
        let entries = parse_entries("entries", entries, violations);
        let (family, max_entries) = (family?, max_entries?);
        check_family("entries", family, entries.iter().map(|entry| entry.cidr), violations);
        if entries.len() > to_size(max_entries) {
            violations.add_as("PrefixListMaxEntriesExceeded", "entries", too_many(entries.len(), max_entries));
        }
        named.then(|| Self { name: name.to_owned(), family, max_entries, entries, tags })
    }
}

fn check_name(name: &str, violations: &mut Violations) -> bool {
    let length = name.chars().count();
    if name.starts_with(RESERVED_NAME) {
        violations.add("prefix_list_name", format!("Value ({name}) for parameter PrefixListName is invalid: {RESERVED_NAME} is reserved"));
    } else if !(1..=MAX_TEXT_CHARS).contains(&length) {
        violations.add("prefix_list_name", format!("the name has {length} characters: expected 1 to {MAX_TEXT_CHARS}"));
    } else {
        return true;
    }
    false
}

fn parse_size(size: i32, violations: &mut Violations) -> Option<u32> {
    let parsed = u32::try_from(size).ok().filter(|size| (1..=MAX_ENTRIES).contains(size));
    if parsed.is_none() {
        violations.add("max_entries", format!("Must specify a max size between 1 and {MAX_ENTRIES}, not {size}"));
    }
    parsed
}

/// Reads entries, in ascending order of their CIDRs.
fn parse_entries(field: &str, inputs: &[EntryInput], violations: &mut Violations) -> Vec<PrefixListEntry> {
    let (mut seen, mut entries) = (BTreeSet::new(), Vec::with_capacity(inputs.len()));
    for (place, input) in inputs.iter().enumerate() {
        if input.description.chars().count() > MAX_TEXT_CHARS {
            violations.add(format!("{field}[{place}].description"), format!("expected at most {MAX_TEXT_CHARS} characters"));
        }
        let Some(cidr) = parse_cidr(&format!("{field}[{place}].cidr"), &input.cidr, violations) else { continue };
        if seen.insert(cidr) {
            entries.push(PrefixListEntry { cidr, description: input.description.clone() });
        } else {
            violations.add(format!("{field}[{place}].cidr"), format!("{cidr} is given twice"));
        }
    }
    entries.sort_by_key(|entry| entry.cidr);
    entries
}

/// Bits behind the mask are dropped, as in rules.
fn parse_cidr(field: &str, text: &str, violations: &mut Violations) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok().map(|network| network.trunc());
    if network.is_none() {
        violations.add(field, format!("CIDR block {text} is malformed: expected a network such as 10.0.0.0/16 or 2001:db8::/32"));
    }
    network
}

fn check_family(field: &str, family: AddressFamily, networks: impl Iterator<Item = IpNet>, violations: &mut Violations) {
    let strange: Vec<_> = networks.filter(|network| !family.has(*network)).collect();
    if !strange.is_empty() {
        violations.add(field, format!("{}: the list takes {} networks only", some_of(&strange), family.as_str()));
    }
}

fn too_many(entries: usize, max_entries: u32) -> String {
    format!("The prefix list would have {entries} entries; its maximum is {max_entries}: remove some, or raise it first")
}

/// A size fits wherever a length does.
fn to_size(size: u32) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// Makes a list, at version 1. `lists_in_scope` is how many there are already. Error: `PrefixListLimitExceeded`.
pub fn create(new: NewList, scope: &Scope, id: PrefixListId, lists_in_scope: usize) -> Result<PrefixList, PrefixListError> {
    if lists_in_scope >= MAX_LISTS {
        return Err(PrefixListError::LimitExceeded);
    }
    let NewList { name, family, max_entries, entries, tags } = new;
    Ok(PrefixList { scope: scope.clone(), id, name, family, max_entries, version: 1, entries, modified: false, tags })
}

/// Parameters of ModifyManagedPrefixList as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModifyInput {
    /// None: whatever version the list has.
    pub current_version: Option<i64>,
    /// None: as it is.
    pub name: Option<String>,
    pub add: Vec<EntryInput>,
    /// CIDRs.
    pub remove: Vec<String>,
    /// None: as it is.
    pub max_entries: Option<i32>,
}

/// A checked change of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modification {
    current_version: Option<i64>,
    name: Option<String>,
    add: Vec<PrefixListEntry>,
    remove: BTreeSet<IpNet>,
    max_entries: Option<u32>,
}

impl ModifyInput {
    /// Codes: `InvalidParameterValue` (also a CIDR that is both added and removed), `InvalidParameterCombination`
    /// (entries and size together), `MissingParameter` (nothing is changed).
    pub fn parse(&self, violations: &mut Violations) -> Modification {
        if let Some(name) = &self.name {
            check_name(name, violations);
        }
        let add = parse_entries("add_entries", &self.add, violations);
        let mut remove = BTreeSet::new();
        for (place, text) in self.remove.iter().enumerate() {
            remove.extend(parse_cidr(&format!("remove_entries[{place}].cidr"), text, violations));
        }
        for both in add.iter().filter(|entry| remove.contains(&entry.cidr)) {
            let text = format!("Request cannot contain Cidr {} in both AddPrefixListEntries and RemovePrefixListEntries", both.cidr);
            violations.add("remove_entries", text);
        }
        let entries = !self.add.is_empty() || !self.remove.is_empty();
        if entries && self.max_entries.is_some() {
            let text = "You cannot modify the entries and the maximum number of entries for the prefix list in the same request.";
            violations.add_as("InvalidParameterCombination", "max_entries", text);
        }
        if !entries && self.max_entries.is_none() && self.name.is_none() {
            let text = "one of prefix_list_name, add_entries, remove_entries and max_entries is required";
            violations.add_as("MissingParameter", "prefix_list_name", text);
        }
        let max_entries = self.max_entries.and_then(|size| parse_size(size, violations));
        Modification { current_version: self.current_version, name: self.name.clone(), add, remove, max_entries }
    }
}

/// Changes a list, all or nothing. `naming` are the groups whose rules name it.
///
/// Errors: `PrefixListVersionMismatch`, `InvalidRequest` (an entry to add is there, or one to remove is not),
/// `PrefixListMaxEntriesExceeded`, `InvalidParameterValue` (a network of the other family),
/// `RulesPerSecurityGroupLimitExceeded` (a group that names it has no room for its new size).
pub fn modify(
    list: &PrefixList,
    change: &Modification,
    naming: &[&SecurityGroup],
    directory: &impl Directory,
) -> Result<PrefixList, Refusal> {
    if let Some(given) = change.current_version.filter(|given| u64::try_from(*given) != Ok(list.version)) {
        return Err(PrefixListError::Version { id: list.id, given, current: list.version }.into());
    }
    let mut next = PrefixList { modified: true, ..list.clone() };
    if let Some(name) = &change.name {
        next.name.clone_from(name);
    }
    change_entries(&mut next, change)?;
    if let Some(size) = change.max_entries {
        next.max_entries = size;
    }
    if next.entries.len() > to_size(next.max_entries) {
        return Err(PrefixListError::TooMany { entries: next.entries.len(), max_entries: next.max_entries }.into());
    }
    if next.max_entries > list.max_entries {
        let resized = Resized { list: &next, directory };
        let full: Vec<_> = naming.iter().filter(|group| !within_limit(group, &resized)).map(|group| group.id).collect();
        if !full.is_empty() {
            return Err(PrefixListError::NoRoom { id: list.id, size: next.max_entries, groups: full }.into());
        }
    }
    Ok(next)
}

fn change_entries(next: &mut PrefixList, change: &Modification) -> Result<(), Refusal> {
    if change.add.is_empty() && change.remove.is_empty() {
        return Ok(());
    }
    let present: BTreeSet<IpNet> = next.networks().collect();
    let missing: Vec<IpNet> = change.remove.iter().filter(|cidr| !present.contains(cidr)).copied().collect();
    let repeated: Vec<IpNet> = change.add.iter().map(|entry| entry.cidr).filter(|cidr| present.contains(cidr)).collect();
    if !missing.is_empty() || !repeated.is_empty() {
        return Err(PrefixListError::Entries { id: next.id, missing, repeated }.into());
    }
    let mut violations = Violations::new();
    check_family("add_entries", next.family, change.add.iter().map(|entry| entry.cidr), &mut violations);
    violations.finish()?;
    next.entries.retain(|entry| !change.remove.contains(&entry.cidr));
    next.entries.extend(change.add.iter().cloned());
    next.entries.sort_by_key(|entry| entry.cidr);
    next.version += 1;
    Ok(())
}

/// The scope with one list as it shall be.
struct Resized<'a, D> {
    list: &'a PrefixList,
    directory: &'a D,
}

impl<D: Directory> Directory for Resized<'_, D> {
    fn group(&self, id: SecurityGroupId) -> Option<&SecurityGroup> {
        self.directory.group(id)
    }

    fn group_named(&self, vpc: gureum_model::id::VpcId, name_key: &str) -> Option<&SecurityGroup> {
        self.directory.group_named(vpc, name_key)
    }

    fn prefix_list(&self, id: PrefixListId) -> Option<&PrefixList> {
        if id == self.list.id { Some(self.list) } else { self.directory.prefix_list(id) }
    }
}

/// Whether a list may go: no rule names it. `naming` are the groups whose rules do.
pub fn delete(list: &PrefixList, naming: &[&SecurityGroup]) -> Result<(), PrefixListError> {
    let groups: Vec<_> = naming.iter().map(|group| group.id).collect();
    if groups.is_empty() { Ok(()) } else { Err(PrefixListError::InUse { id: list.id, groups }) }
}

/// The oldest version that is kept of a list at this one.
pub fn oldest_kept(current: u64) -> u64 {
    current.saturating_sub(KEPT_VERSIONS - 1).max(1)
}

/// Why something is not done with a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixListError {
    #[error("the account has {MAX_LISTS} prefix lists in this region already; delete one that is not used")]
    LimitExceeded,
    #[error("The prefix list has the incorrect version number: {id} is at version {current}, not {given}; read it again")]
    Version { id: PrefixListId, given: i64, current: u64 },
    #[error("{}", too_many(*entries, *max_entries))]
    TooMany { entries: usize, max_entries: u32 },
    #[error("{id} {}", entries_in_words(missing, repeated))]
    Entries { id: PrefixListId, missing: Vec<IpNet>, repeated: Vec<IpNet> },
    #[error("{id} cannot have {size} entries: it counts for as many rules, and there is no room for them in {}", some_of(groups))]
    NoRoom { id: PrefixListId, size: u32, groups: Vec<SecurityGroupId> },
    #[error("resource {id} has a dependent object: it is named in rules of {}", some_of(groups))]
    InUse { id: PrefixListId, groups: Vec<SecurityGroupId> },
    #[error("the version {version} of {id} is not kept; its versions go from {oldest} to {current}")]
    NoVersion { id: PrefixListId, version: i64, oldest: u64, current: u64 },
}

fn entries_in_words(missing: &[IpNet], repeated: &[IpNet]) -> String {
    match (missing.is_empty(), repeated.is_empty()) {
        (false, false) => format!("has no entry {}, and has an entry {} already", some_of(missing), some_of(repeated)),
        (false, true) => format!("has no entry {}", some_of(missing)),
        (true, _) => format!("has an entry {} already; remove it before it is added with another description", some_of(repeated)),
    }
}

impl From<PrefixListError> for Refusal {
    fn from(error: PrefixListError) -> Self {
        let text = error.to_string();
        match error {
            PrefixListError::LimitExceeded => Self::new(RefusalKind::Exhausted, "PrefixListLimitExceeded", text),
            PrefixListError::Version { .. } => Self::new(RefusalKind::Conflict, "PrefixListVersionMismatch", text),
            PrefixListError::TooMany { .. } => Self::new(RefusalKind::Exhausted, "PrefixListMaxEntriesExceeded", text),
            PrefixListError::Entries { .. } => Self::wrong_state("InvalidRequest", text),
            PrefixListError::NoRoom { .. } => Self::new(RefusalKind::Exhausted, "RulesPerSecurityGroupLimitExceeded", text),
            PrefixListError::InUse { .. } => Self::wrong_state("DependencyViolation", text),
            PrefixListError::NoVersion { .. } => Self::invalid("target_version", text),
        }
    }
}

impl Filterable for PrefixList {
    const FILTER_NAMES: &'static [&'static str] = &["owner-id", "prefix-list-id", "prefix-list-name"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "owner-id" => vec![Cow::Owned(self.scope.account.to_string())],
            "prefix-list-id" => vec![Cow::Owned(self.id.to_string())],
            "prefix-list-name" => vec![Cow::Borrowed(&self.name)],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}

#[cfg(test)]
#[path = "prefix_list_tests.rs"]
mod tests;
