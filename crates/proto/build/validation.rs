//! Turns the `buf.validate` rules of the protos into Rust.
//!
//! Only the rules that Gureum's contracts use are known; any other fails the build, so that no rule
//! can stand in a proto without being enforced.

use std::fmt::Write as _;

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor, Value};

type Error = Box<dyn std::error::Error>;

/// `impl Validate` for every message of the packages `gureum.*`.
pub fn generate(pool: &DescriptorPool) -> Result<String, Error> {
    let mut code = String::new();
    for message in pool.all_messages().filter(|message| message.package_name().starts_with("gureum.") && !message.is_map_entry()) {
        let mut body = String::new();
        for field in message.fields().filter(|field| real_oneof(field).is_none()) {
            body += &field_checks(pool, &field)?;
        }
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            body += &oneof_checks(pool, &message, &oneof)?;
        }
        let bounds = bounds(pool, &message)?;
        let (path, found) = if body.is_empty() { ("_path", "_found") } else { ("path", "found") };
        writeln!(
            code,
            "impl crate::Validate for {} {{\n fn check(&self, {path}: crate::validate::Path<'_>, {found}: &mut crate::validate::Found) {{\n{body} }}\n fn bound(&mut self) {{\n{bounds} }}\n}}",
            rust_type(&message)
        )?;
    }
    Ok(code)
}

fn real_oneof(field: &FieldDescriptor) -> Option<OneofDescriptor> {
    field.containing_oneof().filter(|oneof| !oneof.is_synthetic())
}

fn field_checks(pool: &DescriptorPool, field: &FieldDescriptor) -> Result<String, Error> {
    let rules = rules_of(pool, field)?;
    let (name, place) = (rust_name(field.name()), format!("&path.field({:?})", field.name()));
    let mut code = String::new();
    if field.is_map() {
        return if rules.is_empty() { Ok(code) } else { Err(format!("{}: rules on maps are not known", field.full_name()).into()) };
    }
    if field.is_list() {
        let items: Vec<_> = rules.iter().filter(|rule| rule.path.starts_with("repeated.items.")).collect();
        for rule in rules.iter().filter(|rule| !rule.path.starts_with("repeated.items.")) {
            let value = rule.unsigned(field)?;
            match rule.path.as_str() {
                "repeated.min_items" => writeln!(code, "crate::validate::min_items({place}, self.{name}.len(), {value}, found);")?,
                "repeated.max_items" => writeln!(code, "crate::validate::max_items({place}, self.{name}.len(), {value}, found);")?,
                _ => return Err(rule.unknown(field)),
            }
        }
        let mut inner = String::new();
        for rule in items {
            let plain = Rule { path: rule.path.trim_start_matches("repeated.items.").to_owned(), value: rule.value.clone() };
            inner +=
                &value_check(field, &plain, "value", "&path.item(FIELD, place)".replace("FIELD", &format!("{:?}", field.name())).as_str())?;
        }
        if own_message(&field.kind()) {
            writeln!(inner, "crate::Validate::check(value, path.item({:?}, place), found);", field.name())?;
        }
        if !inner.is_empty() {
            writeln!(code, "for (place, value) in self.{name}.iter().enumerate() {{ {inner} }}")?;
        }
        return Ok(code);
    }
    let optional = field.supports_presence();
    let mut inner = String::new();
    for rule in &rules {
        if rule.path == "required" {
            if !optional {
                return Err(format!("{}: \"required\" is for messages and optional fields; use min_len or gte", field.full_name()).into());
            }
            writeln!(code, "if self.{name}.is_none() {{ crate::validate::missing({place}, found); }}")?;
        } else {
            inner += &value_check(field, rule, "value", &place)?;
        }
    }
    if own_message(&field.kind()) {
        writeln!(inner, "crate::Validate::check(value, path.field({:?}), found);", field.name())?;
    }
    if !inner.is_empty() {
        let source = if optional { format!("if let Some(value) = &self.{name}") } else { format!("let value = &self.{name};") };
        writeln!(code, "{source} {{ {inner} }}")?;
    }
    Ok(code)
}

fn oneof_checks(pool: &DescriptorPool, message: &MessageDescriptor, oneof: &OneofDescriptor) -> Result<String, Error> {
    let mut code = String::new();
    let name = rust_name(oneof.name());
    if oneof_required(pool, oneof)? {
        writeln!(code, "if self.{name}.is_none() {{ crate::validate::missing(&path.field({:?}), found); }}", oneof.name())?;
    }
    for field in oneof.fields() {
        let mut inner = String::new();
        for rule in rules_of(pool, &field)? {
            inner += &value_check(&field, &rule, "value", &format!("&path.field({:?})", field.name()))?;
        }
        if own_message(&field.kind()) {
            writeln!(inner, "crate::Validate::check(value, path.field({:?}), found);", field.name())?;
        }
        if !inner.is_empty() {
            let variant = format!("{}::{}::{}", rust_module(message), camel(oneof.name()), camel(field.name()));
            // A boxed variant is dereferenced by the call itself.
            writeln!(code, "if let Some({variant}(value)) = &self.{name} {{ {inner} }}")?;
        }
    }
    Ok(code)
}

/// What brings a message's numbers and lists within their declared bounds.
fn bounds(pool: &DescriptorPool, message: &MessageDescriptor) -> Result<String, Error> {
    let mut code = String::new();
    for field in message.fields().filter(|field| !field.is_map()) {
        let rules = rules_of(pool, &field)?;
        let name = rust_name(field.name());
        let mut inner = String::new();
        if field.is_list() {
            for rule in rules.iter().filter(|rule| rule.path == "repeated.max_items") {
                writeln!(code, "self.{name}.truncate({});", rule.unsigned(&field)?)?;
            }
            for rule in rules.iter().filter(|rule| rule.path.starts_with("repeated.items.")) {
                let plain = Rule { path: rule.path.trim_start_matches("repeated.items.").to_owned(), value: rule.value.clone() };
                inner += &value_bound(&field, &plain)?;
            }
        } else {
            for rule in &rules {
                inner += &value_bound(&field, rule)?;
            }
        }
        if own_message(&field.kind()) {
            writeln!(inner, "crate::Validate::bound(&mut *value);")?;
        }
        if inner.is_empty() {
            continue;
        }
        let place = match real_oneof(&field) {
            Some(oneof) => {
                let variant = format!("{}::{}::{}", rust_module(message), camel(oneof.name()), camel(field.name()));
                format!("if let Some({variant}(value)) = &mut self.{}", rust_name(oneof.name()))
            }
            None if field.is_list() => format!("for value in &mut self.{name}"),
            None if field.supports_presence() => format!("if let Some(value) = &mut self.{name}"),
            None => format!("let value = &mut self.{name};"),
        };
        writeln!(code, "{place} {{ {inner} }}")?;
    }
    Ok(code)
}

/// Texts stay as they are: a message's own size bounds them, and half of a name names something else.
fn value_bound(field: &FieldDescriptor, rule: &Rule) -> Result<String, Error> {
    let bound = match rule.path.split_once('.') {
        Some(("int32" | "int64" | "uint32" | "uint64", bound)) => {
            let limit = rule.integer(field)?;
            match bound {
                "gte" => format!("*value = (*value).max({limit})"),
                "lte" => format!("*value = (*value).min({limit})"),
                "gt" => format!("*value = (*value).max({})", limit + 1),
                "lt" => format!("*value = (*value).min({})", limit - 1),
                _ => return Err(rule.unknown(field)),
            }
        }
        // Half of some bytes names nothing.
        Some(("bytes", "max_len")) => format!("value.truncate({})", rule.unsigned(field)?),
        // What is no number becomes the bound, too.
        Some(("double" | "float", "gte")) => format!("*value = (*value).max({:?})", rule.float(field)?),
        Some(("double" | "float", "lte")) => format!("*value = (*value).min({:?})", rule.float(field)?),
        _ => return Ok(String::new()),
    };
    Ok(format!("{bound};\n"))
}

fn value_check(field: &FieldDescriptor, rule: &Rule, value: &str, place: &str) -> Result<String, Error> {
    let check = match rule.path.as_str() {
        "string.min_len" => format!("min_length({place}, {value}.chars().count(), {}, found)", rule.unsigned(field)?),
        "string.max_len" => format!("max_length({place}, {value}.chars().count(), {}, \"characters\", found)", rule.unsigned(field)?),
        "bytes.min_len" => format!("min_length({place}, {value}.len(), {}, found)", rule.unsigned(field)?),
        "bytes.max_len" => format!("max_length({place}, {value}.len(), {}, \"bytes\", found)", rule.unsigned(field)?),
        "string.ip" => format!("ip_address({place}, {value}, found)"),
        "string.in" => {
            let Value::List(allowed) = &rule.value else { return Err(rule.unknown(field)) };
            let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
            format!("one_of({place}, {value}, &{allowed:?}, found)")
        }
        "enum.defined_only" => {
            let Kind::Enum(kind) = field.kind() else { return Err(rule.unknown(field)) };
            let numbers: Vec<i32> = kind.values().map(|value| value.number()).collect();
            let names: Vec<String> = kind.values().map(|value| value.name().to_owned()).collect();
            format!("defined({place}, *{value}, &{numbers:?}, &{names:?}, found)")
        }
        "enum.not_in" => {
            let (Kind::Enum(kind), Value::List(refused)) = (field.kind(), &rule.value) else { return Err(rule.unknown(field)) };
            let numbers: Vec<i32> = refused.iter().filter_map(Value::as_i32).collect();
            let names: Vec<String> =
                kind.values().filter(|value| !numbers.contains(&value.number())).map(|value| value.name().to_owned()).collect();
            format!("not_among({place}, *{value}, &{numbers:?}, &{names:?}, found)")
        }
        path => match path.split_once('.') {
            Some(("int32" | "int64" | "uint32" | "uint64", bound @ ("gte" | "lte" | "gt" | "lt"))) => {
                let limit = rule.integer(field)?;
                format!(
                    "{}({place}, i128::from(*{value}), {limit}, found)",
                    match bound {
                        "gte" => "at_least",
                        "lte" => "at_most",
                        "gt" => "above",
                        _ => "below",
                    }
                )
            }
            Some(("double" | "float", bound @ ("gte" | "lte"))) => {
                let limit = rule.float(field)?;
                format!(
                    "{}({place}, f64::from(*{value}), {limit:?}, found)",
                    if bound == "gte" { "float_at_least" } else { "float_at_most" }
                )
            }
            _ => return Err(rule.unknown(field)),
        },
    };
    Ok(format!("crate::validate::{check};\n"))
}

/// One rule of a field: where it stands in `buf.validate.FieldRules`, and its value.
struct Rule {
    path: String,
    value: Value,
}

impl Rule {
    fn unknown(&self, field: &FieldDescriptor) -> Error {
        format!("{}: the rule {} is not known to crates/proto/build/validation.rs", field.full_name(), self.path).into()
    }

    fn integer(&self, field: &FieldDescriptor) -> Result<i128, Error> {
        Ok(match &self.value {
            Value::I32(number) => i128::from(*number),
            Value::I64(number) => i128::from(*number),
            Value::U32(number) => i128::from(*number),
            Value::U64(number) => i128::from(*number),
            _ => return Err(self.unknown(field)),
        })
    }

    fn unsigned(&self, field: &FieldDescriptor) -> Result<usize, Error> {
        Ok(usize::try_from(self.integer(field)?)?)
    }

    fn float(&self, field: &FieldDescriptor) -> Result<f64, Error> {
        self.value.as_f64().or(self.value.as_f32().map(f64::from)).ok_or_else(|| self.unknown(field))
    }
}

fn rules_of(pool: &DescriptorPool, field: &FieldDescriptor) -> Result<Vec<Rule>, Error> {
    let extension = pool.get_extension_by_name("buf.validate.field").ok_or("buf/validate is not among the protos")?;
    let mut rules = Vec::new();
    let options = field.options();
    if options.has_extension(&extension)
        && let Value::Message(message) = options.get_extension(&extension).into_owned()
    {
        flatten(&message, "", &mut rules);
    }
    Ok(rules)
}

fn flatten(message: &DynamicMessage, prefix: &str, rules: &mut Vec<Rule>) {
    for (field, value) in message.fields() {
        let path = if prefix.is_empty() { field.name().to_owned() } else { format!("{prefix}.{}", field.name()) };
        match value {
            Value::Message(inner) => flatten(inner, &path, rules),
            other => rules.push(Rule { path, value: other.clone() }),
        }
    }
}

fn oneof_required(pool: &DescriptorPool, oneof: &OneofDescriptor) -> Result<bool, Error> {
    let extension = pool.get_extension_by_name("buf.validate.oneof").ok_or("buf/validate is not among the protos")?;
    let options = oneof.options();
    if !options.has_extension(&extension) {
        return Ok(false);
    }
    let value = options.get_extension(&extension);
    let required = value.as_message().and_then(|rules| rules.get_field_by_name("required").map(|value| value.into_owned()));
    Ok(required == Some(Value::Bool(true)))
}

fn own_message(kind: &Kind) -> bool {
    matches!(kind, Kind::Message(message) if message.package_name().starts_with("gureum."))
}

/// `crate::security::v1::CreateKeyPairRequest`, nested ones in their parent's module.
pub fn rust_type(message: &MessageDescriptor) -> String {
    match message.parent_message() {
        Some(parent) => format!("{}::{}", rust_module(&parent), message.name()),
        None => format!("{}::{}", package(message), message.name()),
    }
}

fn rust_module(message: &MessageDescriptor) -> String {
    let parent = message.parent_message().map_or_else(|| package(message), |parent| rust_module(&parent));
    format!("{parent}::{}", snake(message.name()))
}

fn package(message: &MessageDescriptor) -> String {
    format!("crate::{}", message.package_name().trim_start_matches("gureum.").replace('.', "::"))
}

fn rust_name(name: &str) -> String {
    const KEYWORDS: [&str; 8] = ["type", "match", "ref", "in", "use", "move", "where", "mod"];
    if KEYWORDS.contains(&name) { format!("r#{name}") } else { name.to_owned() }
}

fn camel(name: &str) -> String {
    let capital = |part: &str| part[..1].to_uppercase() + &part[1..];
    name.split('_').filter(|part| !part.is_empty()).map(capital).collect()
}

pub fn snake(name: &str) -> String {
    let mut text = String::new();
    for (place, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && place > 0 {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}
