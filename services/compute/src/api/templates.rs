//! Launch templates and their versions.

use std::sync::Arc;

use gureum_compute_domain::launch_template::{
    self, LaunchTemplate, LaunchTemplateError, LaunchTemplateVersion, NewVersion, VersionOf, VersionRef,
};
use gureum_model::{Filters, PageRequest, Refusal, Scope, Tags, id::LaunchTemplateId, refusal::Violations};
use gureum_proto::compute::v1 as proto;
use gureum_service::{Answer, Error, mutate, scope, wire};
use gureum_store::{Listed, Row, list};

use crate::{
    convert,
    core::Core,
    store::{LaunchTemplateRow, Schema, TEMPLATE_NAME_INDEX, VersionRow, put_template, put_version, remove_template, remove_version},
};

/// How a call names a template.
#[derive(Debug, Clone)]
pub enum Named {
    Id(String),
    Name(String),
}

/// The oneof of each request that names a template.
macro_rules! named {
    ($request:expr, $module:ident) => {
        match $request.launch_template.clone() {
            Some(proto::$module::LaunchTemplate::LaunchTemplateId(id)) => Ok(Some(Named::Id(id))),
            Some(proto::$module::LaunchTemplate::LaunchTemplateName(name)) => Ok(Some(Named::Name(name))),
            None => Ok::<_, Refusal>(None),
        }
        .and_then(|named| named.ok_or_else(|| Refusal::missing("launch_template")))
    };
}

/// The template that is named. Errors: `InvalidLaunchTemplateId.Malformed`, `InvalidLaunchTemplateId.NotFound`,
/// `InvalidLaunchTemplateName.NotFoundException`.
pub fn find_template<'a>(tables: &'a Schema, scope: &Scope, named: &Named) -> Result<&'a Arc<Row<LaunchTemplateRow>>, Refusal> {
    match named {
        Named::Id(text) => {
            let id: LaunchTemplateId = text.parse().map_err(|error| Refusal::from(error).of_field("launch_template_id"))?;
            Ok(tables.launch_templates.get(&LaunchTemplateRow::list_key(scope, id)).ok_or(LaunchTemplateError::NotFound { id })?)
        }
        Named::Name(name) => {
            let mut rows = tables.launch_templates.find(TEMPLATE_NAME_INDEX, &format!("{scope}/{name}")).collect::<Vec<_>>();
            Ok(rows.pop().ok_or_else(|| LaunchTemplateError::NameNotFound { name: name.clone() })?)
        }
    }
}

/// A version of a template. Errors: `InvalidLaunchTemplateId.VersionNotFound`.
pub fn find_version<'a>(tables: &'a Schema, template: &LaunchTemplate, version: VersionRef) -> Result<&'a LaunchTemplateVersion, Refusal> {
    let key = VersionRow::key_of(&template.scope, template.id, template.resolve(version));
    let row = tables.versions.get(&key).ok_or_else(|| template.version_not_found(version))?;
    Ok(&row.record.0)
}

/// The caller, as EC2 shows who made a template. There are no other principals than the account yet.
fn caller(scope: &Scope) -> String {
    format!("arn:aws:iam::{}:root", scope.account)
}

fn new_version(scope: &Scope, description: String, data: Option<proto::LaunchSpec>) -> Result<NewVersion, Refusal> {
    Ok(NewVersion { description, data: convert::launch_spec::read(data.unwrap_or_default())?, created_by: caller(scope) })
}

/// Makes a template with its version 1.
pub async fn create_launch_template(
    core: &Arc<Core>,
    request: proto::CreateLaunchTemplateRequest,
) -> Result<proto::CreateLaunchTemplateResponse, Error> {
    let scope = scope();
    let tags = Tags::from_user("tags", wire::tag_pairs(request.tags.clone()))?;
    let new = new_version(&scope, request.version_description.clone(), request.launch_template_data.clone())?;
    let (id, name): (LaunchTemplateId, _) = (core.ids.next(), request.launch_template_name.clone());
    let caller = scope.clone();
    let made = mutate(&core.store, &caller, &request, move |tx| {
        let taken = tx.launch_templates.find(TEMPLATE_NAME_INDEX, &format!("{scope}/{name}")).next().is_some();
        let (template, version) = launch_template::create(scope.clone(), id, &name, taken, tags, new, tx.now())?;
        let answer = proto::CreateLaunchTemplateResponse { launch_template: Some(convert::template::template(&template)) };
        put_template(tx, "LaunchTemplateCreated", template.clone());
        put_version(tx, &template, version);
        Ok(Answer::created::<LaunchTemplateRow>(answer, LaunchTemplateRow::list_key(&scope, id)))
    });
    made.await
}

/// Makes a further version.
pub async fn create_launch_template_version(
    core: &Arc<Core>,
    request: proto::CreateLaunchTemplateVersionRequest,
) -> Result<proto::CreateLaunchTemplateVersionResponse, Error> {
    let scope = scope();
    let named = named!(request, create_launch_template_version_request)?;
    let new = new_version(&scope, request.version_description.clone(), request.launch_template_data.clone())?;
    let source = (!request.source_version.is_empty()).then(|| request.source_version.parse::<VersionRef>()).transpose()?;
    let caller = scope.clone();
    let made = mutate(&core.store, &caller, &request, move |tx| {
        let (template, version) = {
            let template = find_template(tx, &scope, &named)?;
            let source = source.map(|version| find_version(tx, template, version)).transpose()?;
            launch_template::create_version(template, source, new, tx.now())?
        };
        let shown = convert::template::version(&template, &version);
        put_template(tx, "LaunchTemplateChanged", template.clone());
        put_version(tx, &template, version);
        Ok(proto::CreateLaunchTemplateVersionResponse { launch_template_version: Some(shown) })
    });
    made.await
}

/// Sets the default version.
pub async fn modify_launch_template(
    core: &Arc<Core>,
    request: proto::ModifyLaunchTemplateRequest,
) -> Result<proto::ModifyLaunchTemplateResponse, Error> {
    let scope = scope();
    let named = named!(request, modify_launch_template_request)?;
    let version: VersionRef = request.default_version.parse()?;
    let caller = scope.clone();
    let modified = mutate(&core.store, &caller, &request, move |tx| {
        let (template, next) = {
            let template = find_template(tx, &scope, &named)?;
            let exists = find_version(tx, template, version).is_ok();
            (template.record.0.clone(), launch_template::set_default(template, version, exists)?)
        };
        let template = next.inspect(|next| put_template(tx, "LaunchTemplateChanged", next.clone())).unwrap_or(template);
        Ok(proto::ModifyLaunchTemplateResponse { launch_template: Some(convert::template::template(&template)) })
    });
    modified.await
}

/// One page of the templates.
pub async fn describe_launch_templates(
    core: &Arc<Core>,
    request: proto::DescribeLaunchTemplatesRequest,
) -> Result<proto::DescribeLaunchTemplatesResponse, Error> {
    let (scope, state) = (scope(), core.read());
    let filters = Filters::for_kind::<LaunchTemplate>(wire::filters(request.filters))?;
    let by_id = request.launch_template_ids.into_iter().enumerate();
    let by_id = by_id.map(|(place, id)| (format!("launch_template_ids[{place}]"), Named::Id(id)));
    let by_name = request.launch_template_names.into_iter().enumerate();
    let by_name = by_name.map(|(place, name)| (format!("launch_template_names[{place}]"), Named::Name(name)));
    let names: Vec<(String, Named)> = by_id.chain(by_name).collect();
    let (rows, next_page_token) = if names.is_empty() {
        let page = PageRequest::new(request.page_size, &request.page_token, &("launch templates", &scope, &filters))?;
        list(&state.launch_templates, &scope, &filters, &page)
    } else {
        let found =
            names.iter().map(|(field, named)| find_template(&state, &scope, named).cloned().map_err(|refusal| refusal.of_field(field)));
        let mut rows = Refusal::all(found)?;
        rows.sort_by_key(|row| row.id);
        rows.dedup_by_key(|row| row.id);
        rows.retain(|row| filters.pass(&row.record));
        (rows, String::new())
    };
    let launch_templates = rows.iter().map(|row| convert::template::template(row)).collect();
    Ok(proto::DescribeLaunchTemplatesResponse { launch_templates, next_page_token })
}

/// Which versions a call asks for.
struct Asked {
    /// None: of all templates.
    named: Option<Named>,
    versions: Vec<VersionRef>,
    range: std::ops::RangeInclusive<u64>,
}

impl Asked {
    /// Errors: `InvalidParameterValue`, `InvalidParameterCombination`, all at once.
    fn read(request: &proto::DescribeLaunchTemplateVersionsRequest) -> Result<Self, Refusal> {
        use proto::describe_launch_template_versions_request::LaunchTemplate as By;
        let named = match request.launch_template.clone() {
            Some(By::LaunchTemplateId(id)) => Some(Named::Id(id)),
            Some(By::LaunchTemplateName(name)) => Some(Named::Name(name)),
            None => None,
        };
        let mut violations = Violations::new();
        let ranged = request.min_version.is_some() || request.max_version.is_some();
        if ranged && !request.versions.is_empty() {
            let words = "give either versions or min_version and max_version";
            violations.add_as("InvalidParameterCombination", "versions", words);
        }
        let mut versions = Vec::with_capacity(request.versions.len());
        for (place, text) in request.versions.iter().enumerate() {
            let field = format!("versions[{place}]");
            let version = violations.check(field.clone(), text.parse::<VersionRef>());
            if let (None, Some(VersionRef::Number(_))) = (&named, version) {
                violations.add(field, "without a template only \"$Latest\" and \"$Default\" can be asked for");
            }
            versions.extend(version);
        }
        if named.is_none() && (ranged || request.versions.is_empty()) {
            let words = "without a template, versions has to say \"$Latest\", \"$Default\" or both";
            violations.add_as("MissingParameter", "launch_template", words);
        }
        violations.finish()?;
        let bound = |version: Option<i64>, default| version.and_then(|version| u64::try_from(version).ok()).unwrap_or(default);
        Ok(Self { named, versions, range: bound(request.min_version, 0)..=bound(request.max_version, u64::MAX) })
    }

    /// The versions of one template, the newest first.
    fn of<'a>(&self, tables: &'a Schema, template: &LaunchTemplate) -> Result<Vec<&'a LaunchTemplateVersion>, Refusal> {
        let mut found = if self.versions.is_empty() {
            let prefix = VersionRow::prefix(&template.scope, template.id);
            let all = tables.versions.scan(&prefix, None).map(|row| &row.record.0);
            all.filter(|version| self.range.contains(&version.number)).collect()
        } else {
            self.versions.iter().map(|version| find_version(tables, template, *version)).collect::<Result<Vec<_>, _>>()?
        };
        found.sort_by_key(|version| std::cmp::Reverse(version.number));
        found.dedup_by_key(|version| version.number);
        Ok(found)
    }
}

/// One page of versions.
pub async fn describe_launch_template_versions(
    core: &Arc<Core>,
    request: proto::DescribeLaunchTemplateVersionsRequest,
) -> Result<proto::DescribeLaunchTemplateVersionsResponse, Error> {
    let (scope, state) = (scope(), core.read());
    let asked = Asked::read(&request)?;
    let filters = Filters::for_kind::<VersionOf<'_>>(wire::filters(request.filters))?;
    let question = ("launch template versions", &scope, &filters, &asked.named, &asked.versions, &asked.range);
    let page = PageRequest::new(request.page_size, &request.page_token, &question)?;
    let prefix = format!("{scope}/");
    let templates: Vec<&Arc<Row<LaunchTemplateRow>>> = match &asked.named {
        Some(named) => vec![find_template(&state, &scope, named)?],
        None => state.launch_templates.scan(&prefix, None).collect(),
    };
    let mut rows = Vec::new();
    'templates: for template in templates {
        for version in asked.of(&state, template)? {
            let later = page.after.as_ref().is_none_or(|after| place(version) > *after);
            if later && filters.pass(&VersionOf { template, version }) {
                rows.push((template, version));
            }
            if rows.len() > page.size {
                break 'templates;
            }
        }
    }
    let (rows, next_page_token) = page.cut(rows, |(_, version)| place(version));
    let launch_template_versions = rows.iter().map(|(template, version)| convert::template::version(template, version)).collect();
    Ok(proto::DescribeLaunchTemplateVersionsResponse { launch_template_versions, next_page_token })
}

/// Where a version stands in the list: by template, the newest first.
fn place(version: &LaunchTemplateVersion) -> String {
    format!("{}/{:020}", version.template_id, u64::MAX - version.number)
}

/// Deletes a template with its versions.
pub async fn delete_launch_template(
    core: &Arc<Core>,
    request: proto::DeleteLaunchTemplateRequest,
) -> Result<proto::DeleteLaunchTemplateResponse, Error> {
    let scope = scope();
    let named = named!(request, delete_launch_template_request)?;
    let caller = scope.clone();
    let deleted = mutate(&core.store, &caller, &request, move |tx| {
        let template = find_template(tx, &scope, &named)?.record.0.clone();
        let prefix = VersionRow::prefix(&template.scope, template.id);
        let numbers: Vec<u64> = tx.versions.scan(&prefix, None).map(|row| row.number).collect();
        for number in numbers {
            remove_version(tx, &template, number);
        }
        remove_template(tx, &template);
        Ok(proto::DeleteLaunchTemplateResponse { launch_template: Some(convert::template::template(&template)) })
    });
    deleted.await
}

/// Deletes versions; each stands for itself.
pub async fn delete_launch_template_versions(
    core: &Arc<Core>,
    request: proto::DeleteLaunchTemplateVersionsRequest,
) -> Result<proto::DeleteLaunchTemplateVersionsResponse, Error> {
    let scope = scope();
    let named = named!(request, delete_launch_template_versions_request)?;
    let versions = request.versions.clone();
    let caller = scope.clone();
    let deleted = mutate(&core.store, &caller, &request, move |tx| {
        let mut template = find_template(tx, &scope, &named)?.record.0.clone();
        let mut answer = proto::DeleteLaunchTemplateVersionsResponse::default();
        for text in &versions {
            match delete_one(tx, &template, text) {
                Ok((number, next)) => {
                    remove_version(tx, &template, number);
                    answer.deleted_version_numbers.push(convert::template::number(number));
                    template = next;
                }
                Err((code, refusal)) => answer.failures.push(proto::LaunchTemplateVersionFailure {
                    version: text.clone(),
                    code: code.to_owned(),
                    message: refusal.message,
                }),
            }
        }
        if !answer.deleted_version_numbers.is_empty() {
            put_template(tx, "LaunchTemplateChanged", template);
        }
        Ok(answer)
    });
    deleted.await
}

/// The number of the version and the template without it, or EC2's code for why not.
fn delete_one(tables: &Schema, template: &LaunchTemplate, text: &str) -> Result<(u64, LaunchTemplate), (&'static str, Refusal)> {
    let unexpected = |refusal| ("unexpectedError", refusal);
    let number = match text.parse::<VersionRef>().map_err(unexpected)? {
        VersionRef::Number(number) => number,
        VersionRef::Latest | VersionRef::Default => {
            let words = format!("\"{text}\" cannot be deleted by that name; give its number");
            return Err(unexpected(Refusal::invalid("versions", words)));
        }
    };
    let prefix = VersionRow::prefix(&template.scope, template.id);
    let mut numbers: Vec<u64> = tables.versions.scan(&prefix, None).map(|row| row.number).collect();
    let exists = numbers.contains(&number);
    numbers.retain(|other| *other != number);
    let latest_left = numbers.last().copied().unwrap_or_default();
    match launch_template::delete_version(template, number, exists, latest_left) {
        Ok(next) => Ok((number, next)),
        Err(error @ LaunchTemplateError::VersionNotFound { .. }) => Err(("launchTemplateVersionDoesNotExist", error.into())),
        Err(error) => Err(unexpected(error.into())),
    }
}
