//! Cloud-config: `bootcmd`, `write_files` and `runcmd`, as a script that does them in this order.
//!
//! The script does not stop where something of it fails, as cloud-init does not, but its exit code is that of what
//! failed first, and it says what that was. Files are written within the instance, by itself: no link in its root
//! volume leads anybody anywhere else.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    shell,
    yaml::{self, Fault, Node, Value},
};

/// What a cloud-config wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloudConfig {
    bootcmd: Vec<Run>,
    write_files: Vec<WriteFile>,
    runcmd: Vec<Run>,
    /// Keys that say nothing here.
    pub ignored: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Run {
    /// Lines of a shell's script.
    Lines(String),
    /// A program and its arguments.
    Program(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct WriteFile {
    path: String,
    content: Vec<u8>,
    /// The content is compressed by gzip.
    compressed: bool,
    /// In octal.
    permissions: String,
    /// A user, and perhaps a group behind a colon; none: root.
    owner: Option<String>,
    append: bool,
}

/// What a file that says nothing else has.
const PERMISSIONS: &str = "0644";

/// Reads the text of a cloud-config.
pub fn read(text: &str) -> Result<CloudConfig, Fault> {
    let mut config = CloudConfig::default();
    for (key, node) in entries(&yaml::read(text)?, "a cloud-config")? {
        match key.as_str() {
            "bootcmd" => config.bootcmd = runs(node, key)?,
            "runcmd" => config.runcmd = runs(node, key)?,
            "write_files" => {
                for file in list(node, key)? {
                    config.write_files.push(write_file(file, &mut config.ignored)?);
                }
            }
            "packages" | "package_update" | "package_upgrade" | "package_reboot_if_required" if wants_something(node) => {
                let words = format!(
                    "{key}: packages are not installed here; take {key} out, and put what is needed into an image (gureum images import)"
                );
                return Err(Fault::new(node.line, words));
            }
            key => config.ignored.push(key.to_owned()),
        }
    }
    Ok(config)
}

fn entries<'a>(node: &'a Node, what: &str) -> Result<&'a [(String, Node)], Fault> {
    match &node.value {
        Value::Map(entries) => Ok(entries),
        Value::Null => Ok(&[]),
        Value::Text(_) | Value::List(_) => Err(Fault::new(node.line, format!("{what} is a map: keys with a colon behind them"))),
    }
}

fn list<'a>(node: &'a Node, what: &str) -> Result<&'a [Node], Fault> {
    match &node.value {
        Value::List(items) => Ok(items),
        Value::Null => Ok(&[]),
        Value::Text(_) | Value::Map(_) => Err(Fault::new(node.line, format!("{what} is a list: items with - before them"))),
    }
}

/// A text that can be said to a shell.
fn text<'a>(node: &'a Node, what: &str) -> Result<&'a str, Fault> {
    match &node.value {
        Value::Text(text) if text.contains('\0') => Err(Fault::new(node.line, format!("{what} has a zero byte in it"))),
        Value::Text(text) => Ok(text),
        Value::Null | Value::List(_) | Value::Map(_) => Err(Fault::new(node.line, format!("{what} is a text"))),
    }
}

/// What YAML 1.1, in which cloud-config is written, takes for true and false.
fn flag(node: &Node, what: &str) -> Result<bool, Fault> {
    match text(node, what)?.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(Fault::new(node.line, format!("{what} is true or false"))),
    }
}

fn wants_something(node: &Node) -> bool {
    match &node.value {
        Value::Null => false,
        Value::Text(_) => flag(node, "").unwrap_or(true),
        Value::List(items) => !items.is_empty(),
        Value::Map(entries) => !entries.is_empty(),
    }
}

fn runs(node: &Node, what: &str) -> Result<Vec<Run>, Fault> {
    let mut runs = Vec::new();
    for item in list(node, what)? {
        match &item.value {
            Value::Null => {}
            Value::Text(_) => runs.push(Run::Lines(text(item, what)?.to_owned())),
            Value::List(words) if words.is_empty() => {}
            Value::List(words) => {
                runs.push(Run::Program(words.iter().map(|word| Ok(text(word, what)?.to_owned())).collect::<Result<_, Fault>>()?));
            }
            Value::Map(_) => {
                let words = format!("an item of {what} is a text or a list of words; a text with a colon and a blank in it needs quotes");
                return Err(Fault::new(item.line, words));
            }
        }
    }
    Ok(runs)
}

fn write_file(node: &Node, ignored: &mut Vec<String>) -> Result<WriteFile, Fault> {
    let (mut path, mut content, mut encoding) = (None, None, "");
    let (mut permissions, mut owner, mut append) = (PERMISSIONS.to_owned(), None, false);
    for (key, value) in entries(node, "an item of write_files")? {
        match (key.as_str(), &value.value) {
            (_, Value::Null) => {}
            ("path", _) => path = Some(text(value, "path")?),
            // Bytes of any kind can be written.
            ("content", Value::Text(text)) => content = Some((value.line, text.as_str())),
            ("content", _) => return Err(Fault::new(value.line, "content is a text")),
            ("encoding", _) => encoding = text(value, "encoding")?,
            ("permissions", _) => permissions = octal(value)?,
            ("owner", _) => owner = Some(text(value, "owner")?.to_owned()),
            ("append", _) => append = flag(value, "append")?,
            ("source", _) => return Err(Fault::new(value.line, "source is not known here; give the content itself")),
            (key, _) => ignored.push(format!("write_files.{key}")),
        }
    }
    let path = path.filter(|path| path.starts_with('/') && !path.ends_with('/'));
    let path = path.ok_or_else(|| Fault::new(node.line, "an item of write_files has a path, from / on"))?.to_owned();
    let (line, content) = content.unwrap_or((node.line, ""));
    let (encoded, compressed) = match encoding.to_ascii_lowercase().as_str() {
        "" | "text/plain" => (false, false),
        "b64" | "base64" => (true, false),
        "gz+b64" | "gz+base64" | "gzip+b64" | "gzip+base64" => (true, true),
        // YAML has no bytes, so it can only be so.
        "gz" | "gzip" => (true, true),
        other => return Err(Fault::new(node.line, format!("the encoding {other} is not known; there are base64 and gzip+base64"))),
    };
    let content = if encoded {
        let plain: String = content.split_whitespace().collect();
        STANDARD.decode(plain).map_err(|error| Fault::new(line, format!("the content of {path} is not base64: {error}")))?
    } else {
        content.as_bytes().to_vec()
    };
    Ok(WriteFile { path, content, compressed, permissions, owner, append })
}

/// Permissions are octal, whether they are quoted or not.
fn octal(node: &Node) -> Result<String, Fault> {
    let digits = text(node, "permissions")?;
    let digits = digits.strip_prefix("0o").unwrap_or(digits);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(format!("{mode:04o}")),
        _ => Err(Fault::new(node.line, format!("permissions are an octal number as 0644 is, not {digits}"))),
    }
}

/// Notes the exit code that is the first of a failure, and says of what it is.
const BEGIN: &str = r#"#!/bin/sh
# Made of the instance's cloud-config.
gureum_failed=0
gureum_ended() {
    [ "$1" -eq 0 ] && return 0
    echo "cloud-config: $2 failed with exit code $1" >&2
    [ "$gureum_failed" -ne 0 ] || gureum_failed=$1
}
"#;
const END: &str = "exit \"$gureum_failed\"\n";

impl CloudConfig {
    /// A script that does all of it.
    pub fn script(&self) -> String {
        let mut script = BEGIN.to_owned();
        if !self.bootcmd.is_empty() {
            // One that ends its shell does not end the rest.
            script.push_str("(\n");
            push_runs(&mut script, &self.bootcmd, "bootcmd");
            script.push_str(&format!("{END})\ngureum_failed=$?\n"));
        }
        for file in &self.write_files {
            script.push_str(&file.script());
            push_end(&mut script, &format!("write_files of {}", file.path));
        }
        push_runs(&mut script, &self.runcmd, "runcmd");
        script.push_str(END);
        script
    }
}

fn push_runs(script: &mut String, runs: &[Run], what: &str) {
    for (index, run) in runs.iter().enumerate() {
        match run {
            Run::Lines(lines) => script.push_str(lines.trim_end_matches('\n')),
            Run::Program(words) => script.push_str(&words.iter().map(|word| shell::word(word)).collect::<Vec<_>>().join(" ")),
        }
        script.push('\n');
        push_end(script, &format!("item {} of {what}", index + 1));
    }
}

fn push_end(script: &mut String, what: &str) {
    script.push_str(&format!("gureum_ended \"$?\" {}\n", shell::word(what)));
}

impl WriteFile {
    fn script(&self) -> String {
        let path = shell::word(&self.path);
        let folder = match self.path.rsplit_once('/') {
            Some(("", _)) | None => "/",
            Some((folder, _)) => folder,
        };
        let unpacked = if self.compressed { " | gzip -dc" } else { "" };
        let onto = if self.append { ">>" } else { ">" };
        let owner = self.owner.as_ref().map(|owner| format!(" && chown -- {} {path}", shell::word(owner))).unwrap_or_default();
        // Nobody else reads it before its permissions are what they are to be.
        format!(
            "mkdir -p -- {} && (umask 077 && {}{unpacked} {onto}{path}) && chmod -- {} {path}{owner}\n",
            shell::word(folder),
            shell::print(&self.content),
            self.permissions
        )
    }
}

#[cfg(test)]
mod tests;
