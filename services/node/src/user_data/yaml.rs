//! A YAML document as a tree whose nodes know their lines.
//!
//! It is a user's text, read by the node: aliases, which can make a tree of any size of a few lines, are copied within
//! a bound, and so is the depth. Scalars are their text: what 0644 or yes is, who reads them knows.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

/// Nodes and the bytes of their texts together: what user data of 16 KiB has without aliases, many times over.
const LARGEST: usize = 1 << 20;
/// Levels of lists and maps in each other.
const DEEPEST: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The line in which it begins, from 1.
    pub line: usize,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Text(String),
    List(Vec<Node>),
    /// In their order, each key once.
    Map(Vec<(String, Node)>),
}

/// Why a text cannot be used, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Fault {
    pub line: usize,
    pub message: String,
}

impl Fault {
    pub fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// A list or map that is not yet whole.
struct Open {
    line: usize,
    anchor: usize,
    value: Value,
    /// Of a map: the key whose value is next.
    key: Option<Node>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    size: usize,
    document: Option<Node>,
}

/// Reads a text of one document; an empty one is [`Value::Null`].
pub fn read(text: &str) -> Result<Node, Fault> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Fault::new(error.marker().line(), error.info()))?;
        builder.take(event, span)?;
    }
    Ok(builder.document.unwrap_or(Node { line: 1, value: Value::Null }))
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                known(tag.as_deref(), line)?;
                let null = style == ScalarStyle::Plain && tag.is_none() && ["", "~", "null", "Null", "NULL"].contains(&&*text);
                self.put(Node { line, value: if null { Value::Null } else { Value::Text(text.into_owned()) } }, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.begin(line, anchor, tag.as_deref(), Value::List(Vec::new())),
            Event::MappingStart(anchor, tag) => self.begin(line, anchor, tag.as_deref(), Value::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { line, anchor, value, .. }) => self.put(Node { line, value }, anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| Fault::new(line, "an alias of what is not yet whole"))?;
                self.put(Node { line, ..node }, 0)
            }
            Event::DocumentStart(_) if self.document.is_some() => Err(Fault::new(line, "a second document begins; there may be one only")),
            Event::DocumentStart(_) | Event::DocumentEnd | Event::StreamStart | Event::StreamEnd | Event::Nothing => Ok(()),
        }
    }

    fn begin(&mut self, line: usize, anchor: usize, tag: Option<&Tag>, value: Value) -> Result<(), Fault> {
        known(tag, line)?;
        if self.open.len() == DEEPEST {
            return Err(Fault::new(line, format!("more than {DEEPEST} lists and maps in each other")));
        }
        self.open.push(Open { line, anchor, value, key: None });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        let (size, depth) = measure(&node);
        self.size += size;
        if self.size > LARGEST || self.open.len() + depth > DEEPEST {
            return Err(Fault::new(node.line, "its aliases make too much of it; write what they stand for"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.document = Some(node),
            Some(Open { value: Value::List(items), .. }) => items.push(node),
            Some(Open { value: Value::Map(entries), key, .. }) => match key.take() {
                None => *key = Some(node),
                Some(Node { line, value: Value::Text(name) }) => {
                    if entries.iter().any(|(known, _)| *known == name) {
                        return Err(Fault::new(line, format!("{name} is there twice")));
                    }
                    entries.push((name, node));
                }
                Some(Node { line, .. }) => return Err(Fault::new(line, "a key that is no text")),
            },
            // No scalar is ever open.
            Some(Open { value: Value::Null | Value::Text(_), .. }) => {}
        }
        Ok(())
    }
}

/// Tags say of which type a value is. All but those of plain values would mean something that is not done here.
fn known(tag: Option<&Tag>, line: usize) -> Result<(), Fault> {
    match tag {
        Some(tag)
            if !(tag.is_yaml_core_schema() && ["str", "int", "bool", "float", "null", "seq", "map"].contains(&tag.suffix.as_str())) =>
        {
            Err(Fault::new(
                line,
                format!("the tag {}{} is not known; for binary content there is encoding: base64", tag.handle, tag.suffix),
            ))
        }
        _ => Ok(()),
    }
}

/// The size of a tree, and its depth.
fn measure(node: &Node) -> (usize, usize) {
    let sum = |parts: &mut dyn Iterator<Item = &Node>| {
        parts.map(measure).fold((1, 0), |(size, depth), (of_part, deep)| (size + of_part, depth.max(deep + 1)))
    };
    match &node.value {
        Value::Null => (1, 0),
        Value::Text(text) => (1 + text.len(), 0),
        Value::List(items) => sum(&mut items.iter()),
        Value::Map(entries) => sum(&mut entries.iter().map(|(_, value)| value)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(line: usize, text: &str) -> Node {
        Node { line, value: Value::Text(text.into()) }
    }

    #[test]
    fn nodes_know_their_lines() {
        let read = read("# first\na: 0644\nb:\n  - &it yes\n  - \"null\"\n  - ~\n  - *it\n").unwrap();
        let list = vec![text(4, "yes"), text(5, "null"), Node { line: 6, value: Value::Null }, text(7, "yes")];
        let map = vec![("a".into(), text(2, "0644")), ("b".into(), Node { line: 4, value: Value::List(list) })];
        assert_eq!(read, Node { line: 2, value: Value::Map(map) });
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_line() {
        let fault = |text: &str| read(text).unwrap_err();
        assert_eq!(fault("a: [1\nb: 2\n").line, 2);
        assert_eq!(fault("a: 1\nb: 2\na: 3\n").to_string(), "line 3: a is there twice");
        assert_eq!(fault("a: 1\n---\nb: 2\n").to_string(), "line 2: a second document begins; there may be one only");
        assert_eq!(fault("a:\n- !!binary aGk=\n").line, 2);
        assert!(fault(&"[".repeat(100)).message.contains("more than 32"));
        let laughs: String =
            (1..9).map(|number| format!("a{number}: &a{number} [{}]\n", vec![format!("*a{}", number - 1); 9].join(","))).collect();
        assert!(fault(&format!("a0: &a0 ha\n{laughs}")).message.contains("too much"));
        assert_eq!(read("# nothing\n").unwrap().value, Value::Null);
    }

    proptest! {
        /// Whatever a user writes, the node goes on.
        #[test]
        fn any_text_is_read_or_refused(text in "[-a-c:#&*!|>\"'{}\\[\\], \n\t~?%@\\\\0]{0,80}") {
            let _ = read(&text);
        }

        #[test]
        fn any_text_is_itself_where_it_is_quoted(text in "\\PC{0,40}") {
            let quoted = format!("a: '{}'\n", text.replace('\'', "''"));
            prop_assume!(!text.contains(['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}']));
            prop_assert_eq!(read(&quoted).unwrap().value, Value::Map(vec![("a".into(), Node { line: 1, value: Value::Text(text) })]));
        }
    }
}
