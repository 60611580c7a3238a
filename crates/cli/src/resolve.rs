//! Names to ids. Whoever gave a resource a name may use it wherever an id is asked for.

use std::collections::BTreeSet;

use gureum_proto::{
    common::v1::Filter,
    compute::v1::{
        DescribeImagesRequest, DescribeInstanceTypesRequest, DescribeInstancesRequest, DescribeVolumesRequest, Image, Instance,
        InstanceTypeInfo, Volume,
    },
    security::v1::{DescribeManagedPrefixListsRequest, DescribeSecurityGroupsRequest, ManagedPrefixList, SecurityGroup},
};

use crate::{client::Client, failure::Failure, output::Output, pages, parse};

/// States in which an instance still answers to its name: one that is going leaves it to its successor.
const NAMED_STATES: [&str; 4] = ["pending", "running", "stopping", "stopped"];

/// How many of several candidates a message names.
const NAMED_CANDIDATES: usize = 5;

/// Whether the text is meant as an id. Whether it is a good one the region says.
pub fn is_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Instances by id, by a `Name` that one of them has, or by a tag `KEY=VALUE` that any number of them has.
pub async fn instances(client: &Client, texts: &[String]) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::with_capacity(texts.len());
    for text in texts {
        let found = match text.split_once('=') {
            _ if is_id(text, "i-") => vec![text.clone()],
            Some((key, value)) => {
                let filter = Filter { name: format!("tag:{key}"), values: vec![value.to_owned()] };
                let found = live_instances(client, filter).await?;
                if found.is_empty() {
                    return Err(no_instance(format!("no instance that still exists has the tag {text}")));
                }
                found.into_iter().map(|instance| instance.instance_id).collect()
            }
            None => vec![named_instance(client, text).await?],
        };
        ids.extend(found);
    }
    let mut seen = BTreeSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    Ok(ids)
}

/// One instance by id or by a `Name` that it alone has.
pub async fn instance(client: &Client, text: &str) -> Result<String, Failure> {
    if is_id(text, "i-") { Ok(text.to_owned()) } else { named_instance(client, text).await }
}

async fn named_instance(client: &Client, name: &str) -> Result<String, Failure> {
    let found = live_instances(client, parse::exact("tag:Name", name)).await?;
    let ids = found.into_iter().map(|instance| instance.instance_id).collect();
    only(ids, || no_instance(format!("no instance that still exists is named \"{name}\"")), name, "instances")
}

async fn live_instances(client: &Client, filter: Filter) -> Result<Vec<Instance>, Failure> {
    let states = Filter { name: "instance-state-name".to_owned(), values: NAMED_STATES.map(str::to_owned).to_vec() };
    let request = DescribeInstancesRequest { filters: vec![filter, states], ..Default::default() };
    pages!(client.compute().describe_instances(request).instances, None)
}

fn no_instance(message: String) -> Failure {
    Failure::NotFound { reason: "InvalidInstanceID.NotFound", message }
}

/// One security group by id or by a name that it alone has.
pub async fn group(client: &Client, text: &str) -> Result<String, Failure> {
    if is_id(text, "sg-") {
        return Ok(text.to_owned());
    }
    let request = DescribeSecurityGroupsRequest { filters: vec![parse::exact("group-name", text)], ..Default::default() };
    let found: Vec<SecurityGroup> = pages!(client.security().describe_security_groups(request).security_groups, None)?;
    let missing = || Failure::NotFound { reason: "InvalidGroup.NotFound", message: format!("no security group is named \"{text}\"") };
    only(found.into_iter().map(|group| group.group_id).collect(), missing, text, "security groups")
}

/// One volume by id or by a `Name` that it alone has.
pub async fn volume(client: &Client, text: &str) -> Result<String, Failure> {
    if is_id(text, "vol-") {
        return Ok(text.to_owned());
    }
    let request = DescribeVolumesRequest { filters: vec![parse::exact("tag:Name", text)], ..Default::default() };
    let found: Vec<Volume> = pages!(client.compute().describe_volumes(request).volumes, None)?;
    let missing = || Failure::NotFound { reason: "InvalidVolume.NotFound", message: format!("no volume is named \"{text}\"") };
    only(found.into_iter().map(|volume| volume.volume_id).collect(), missing, text, "volumes")
}

/// One prefix list by id or by a name that it alone has.
pub async fn prefix_list(client: &Client, text: &str) -> Result<String, Failure> {
    if is_id(text, "pl-") {
        return Ok(text.to_owned());
    }
    let request = DescribeManagedPrefixListsRequest { filters: vec![parse::exact("prefix-list-name", text)], ..Default::default() };
    let found: Vec<ManagedPrefixList> = pages!(client.security().describe_managed_prefix_lists(request).prefix_lists, None)?;
    let missing = || Failure::NotFound { reason: "InvalidPrefixListID.NotFound", message: format!("no prefix list is named \"{text}\"") };
    only(found.into_iter().map(|list| list.prefix_list_id).collect(), missing, text, "prefix lists")
}

/// An image by id, or the newest that can be launched and whose name matches; `*` and `?` stand for any letters.
pub async fn image(client: &Client, text: &str) -> Result<Image, Failure> {
    let found = if is_id(text, "ami-") {
        let request = DescribeImagesRequest { image_ids: vec![text.to_owned()], include_deprecated: true, ..Default::default() };
        pages!(client.compute().describe_images(request).images, None)?
    } else {
        launchable_images(client, text, Vec::new()).await?
    };
    newest(found).ok_or_else(|| no_image(&format!("is named \"{text}\"")))
}

/// The image of a launch. A name without `*` and `?` that no image has is how the names of public ones begin; of several that match,
/// those count that the instance type can run.
pub async fn image_to_launch(client: &Client, out: &Output, text: &str, instance_type: Option<&str>) -> Result<Image, Failure> {
    if is_id(text, "ami-") {
        return image(client, text).await;
    }
    let (mut pattern, mut filters) = (text.to_owned(), Vec::new());
    if !text.contains(['*', '?']) {
        if let Some(image) = newest(launchable_images(client, text, Vec::new()).await?) {
            return Ok(image);
        }
        pattern.push('*');
        filters.push(parse::exact("is-public", "true"));
    }
    let architectures = match instance_type {
        Some(name) => architectures(client, name).await?,
        None => Vec::new(),
    };
    let fitting = match instance_type {
        Some(name) if !architectures.is_empty() => format!(" and for {}, which {name} has", architectures.join(" or ")),
        _ => String::new(),
    };
    if !architectures.is_empty() {
        filters.push(Filter { name: "architecture".to_owned(), values: architectures });
    }
    let found = launchable_images(client, &pattern, filters).await?;
    let lines: BTreeSet<_> = found.iter().map(line_of).collect();
    let image = newest(found).ok_or_else(|| no_image(&format!("is named \"{pattern}\"{fitting}")))?;
    if lines.len() > 1 {
        out.remark(&format!("note: \"{text}\" may be one of {} images; taken is {} ({})", lines.len(), image.name, image.image_id));
    }
    Ok(image)
}

async fn launchable_images(client: &Client, pattern: &str, mut filters: Vec<Filter>) -> Result<Vec<Image>, Failure> {
    let filter = |name: &str, value: &str| Filter { name: name.to_owned(), values: vec![value.to_owned()] };
    filters.extend([filter("name", pattern), filter("state", "available")]);
    let request = DescribeImagesRequest { filters, ..Default::default() };
    pages!(client.compute().describe_images(request).images, None)
}

/// What the images of a type may be built for.
async fn architectures(client: &Client, instance_type: &str) -> Result<Vec<String>, Failure> {
    let request = DescribeInstanceTypesRequest { instance_types: vec![instance_type.to_owned()], ..Default::default() };
    let found: Vec<InstanceTypeInfo> = pages!(client.compute().describe_instance_types(request).instance_types, None)?;
    Ok(found.into_iter().filter_map(|kind| kind.processor_info).flat_map(|info| info.supported_architectures).collect())
}

/// Of those that were made at the same time, as the ones that ship are, the description has the higher version.
fn newest(images: Vec<Image>) -> Option<Image> {
    let made = |image: &Image| image.creation_time.map(|time| (time.seconds, time.nanos));
    images.into_iter().max_by(|one, other| {
        let order = made(one).cmp(&made(other)).then_with(|| one.description.cmp(&other.description));
        order.then_with(|| one.image_id.cmp(&other.image_id))
    })
}

/// What an image has in common with its successors: the architecture, and the name without the digits of dates and versions.
fn line_of(image: &Image) -> (String, String) {
    (image.name.split(|letter: char| letter.is_ascii_digit() || letter == '.').collect(), image.architecture.clone())
}

fn no_image(such: &str) -> Failure {
    let message = format!("no image that can be launched {such}; `gureum images ls` lists them");
    Failure::NotFound { reason: "InvalidAMIID.NotFound", message }
}

/// An image's id; one that is given as an id is taken as it is.
pub async fn image_id(client: &Client, text: &str) -> Result<String, Failure> {
    if is_id(text, "ami-") { Ok(text.to_owned()) } else { Ok(image(client, text).await?.image_id) }
}

fn only(mut ids: Vec<String>, missing: impl Fn() -> Failure, name: &str, kind: &str) -> Result<String, Failure> {
    match ids.pop() {
        None => Err(missing()),
        Some(id) if ids.is_empty() => Ok(id),
        Some(id) => {
            ids.push(id);
            let more = if ids.len() > NAMED_CANDIDATES { ", …" } else { "" };
            let first = ids.iter().take(NAMED_CANDIDATES).map(String::as_str).collect::<Vec<_>>().join(", ");
            Err(Failure::usage(format!("{} {kind} are named \"{name}\": {first}{more}; give the id", ids.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_names() {
        assert!(is_id("i-00000000000000001", "i-"));
        assert!(is_id("i-12", "i-"));
        assert!(!is_id("i-robot", "i-"));
        assert!(!is_id("i-", "i-"));
        assert!(!is_id("web", "i-"));
    }

    #[test]
    fn the_newest_image_is_taken_and_versions_are_told_from_other_images() {
        let image = |name: &str, description: &str, seconds| Image {
            name: name.into(),
            description: description.into(),
            creation_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            architecture: "x86_64".into(),
            ..Default::default()
        };
        let (old, new) = (image("al2023-ami-2023.6.20250115.0-x86_64", "", 1), image("al2023-ami-2023.7.20250301.0-x86_64", "", 2));
        assert_eq!(line_of(&old), line_of(&new));
        assert_eq!(newest(vec![new.clone(), old]), Some(new));
        let (jammy, noble) = (image("ubuntu/z-jammy-22.04", "Ubuntu 22.04", 1), image("ubuntu/a-noble-24.04", "Ubuntu 24.04", 1));
        assert_ne!(line_of(&jammy), line_of(&noble));
        assert_eq!(newest(vec![noble.clone(), jammy]), Some(noble));
        assert_eq!(newest(Vec::new()), None);
    }

    #[test]
    fn a_name_that_several_have_is_no_answer() {
        let missing = || Failure::usage("missing");
        assert!(matches!(only(vec!["a".into()], missing, "web", "instances"), Ok(id) if id == "a"));
        assert!(matches!(only(vec![], missing, "web", "instances"), Err(Failure::Usage(text)) if text == "missing"));
        let two = only(vec!["a".into(), "b".into()], missing, "web", "instances");
        assert!(matches!(two, Err(Failure::Usage(text)) if text == "2 instances are named \"web\": a, b; give the id"));
    }
}
