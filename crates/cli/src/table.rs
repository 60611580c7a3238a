//! Tables without lines: what a person reads and what `awk` can take apart.

use comfy_table::{Attribute, Cell as Painted, Color, ColumnConstraint, Width, presets};
use gureum_proto::common::v1::Tag;
use serde_json::Value as Json;

use crate::time::{self, Timestamp};

/// A message that has an id and a row.
pub trait Show: prost::Message {
    /// The message's full name.
    const NAME: &'static str;
    /// Heads of the columns.
    const COLUMNS: &'static [&'static str];
    /// Widths that columns have at least, where rows come one by one and a table cannot look ahead.
    const LEAST_WIDTHS: &'static [u16] = &[];
    /// A column tells how long ago something was.
    const TELLS_TIME: bool = false;
    /// What `-o id` prints.
    fn id(&self) -> &str;
    /// As `-o json` prints it: by default as protobuf has it.
    fn json(json: Json) -> Json {
        json
    }
    /// A cell for each column.
    fn row(&self, now: Option<Timestamp>) -> Vec<Cell>;
    /// Heads of the columns behind those that only a wide table has.
    const WIDE: &'static [&'static str] = &[];
    /// A cell for each column of [`Self::WIDE`].
    fn wide(&self) -> Vec<Cell> {
        Vec::new()
    }
}

/// What a cell says beside its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    /// As it should be.
    Good,
    /// On its way to another state.
    Passing,
    /// At rest or gone.
    Quiet,
    /// A person may want to look.
    Bad,
}

/// One cell. A terminal's control characters never get into it: names and tags are other people's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    fn new(text: &str, tone: Tone) -> Self {
        Self { text: one_line(text), tone }
    }

    /// The word of a state, in its colour.
    pub fn state(name: &str) -> Self {
        Self::new(name, tone_of(name))
    }

    /// How long ago something was.
    pub fn ago(at: Option<&prost_types::Timestamp>, now: Option<Timestamp>) -> Self {
        time::ago(at, now).into()
    }

    /// Something of which a person may want to know.
    pub fn bad(text: &str) -> Self {
        Self::new(text, Tone::Bad)
    }

    /// Several things in one cell.
    pub fn join<I: AsRef<str>>(parts: impl IntoIterator<Item = I>) -> Self {
        let parts: Vec<_> = parts.into_iter().map(|part| part.as_ref().to_owned()).collect();
        parts.join(",").into()
    }

    /// A number, or nothing for none.
    pub fn number(number: impl Into<i64>) -> Self {
        match number.into() {
            0 => "".into(),
            number => number.to_string().into(),
        }
    }

    /// "yes", or nothing.
    pub fn flag(on: bool) -> Self {
        if on { "yes".into() } else { "".into() }
    }

    fn paint(&self) -> Painted {
        // An empty cell would make the columns behind it shift for programs that split at blanks.
        let painted = Painted::new(if self.text.is_empty() { "-" } else { &self.text });
        match self.tone {
            _ if self.text.is_empty() => painted.fg(Color::DarkGrey),
            Tone::Plain => painted,
            Tone::Good => painted.fg(Color::Green),
            Tone::Passing => painted.fg(Color::Yellow),
            Tone::Quiet => painted.fg(Color::DarkGrey),
            Tone::Bad => painted.fg(Color::Red),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

/// Text that cannot steer a terminal or break a line.
pub fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn tone_of(state: &str) -> Tone {
    match state {
        "running" | "available" | "in-use" | "attached" | "associated" | "completed" | "ok" | "active" => Tone::Good,
        "stopped" | "terminated" | "deleted" | "deregistered" | "detached" => Tone::Quiet,
        "failed" | "error" | "impaired" | "insufficient-data" | "blackhole" => Tone::Bad,
        "pending" | "stopping" | "shutting-down" | "creating" | "deleting" | "attaching" | "detaching" | "initializing" | "waiting" => {
            Tone::Passing
        }
        _ => Tone::Plain,
    }
}

/// The word of an enum's value: `INSTANCE_STATE_SHUTTING_DOWN` behind `INSTANCE_STATE_` is `shutting-down`;
/// the unspecified one is nothing.
pub fn word(value: &str, prefix: &str) -> String {
    match value.strip_prefix(prefix).unwrap_or(value) {
        "UNSPECIFIED" => String::new(),
        name => name.to_lowercase().replace('_', "-"),
    }
}

/// The value of the tag `Name`.
pub fn name_of(tags: &[Tag]) -> &str {
    tags.iter().find(|tag| tag.key == "Name").map_or("", |tag| &tag.value)
}

/// A table that may go on: rows that are rendered later keep the widths that its columns have.
#[derive(Debug)]
pub struct Table {
    columns: &'static [&'static str],
    widths: Vec<u16>,
    colour: bool,
    wide: bool,
    begun: bool,
}

/// Blanks between columns.
const GAP: u16 = 3;

impl Table {
    pub fn new<T: Show>(colour: bool) -> Self {
        Self { columns: T::COLUMNS, widths: T::LEAST_WIDTHS.to_vec(), colour, wide: false, begun: false }
    }

    /// The table with the columns that only a wide one has, if it is to be wide.
    pub fn wide(self, wide: bool) -> Self {
        Self { wide, ..self }
    }

    /// Rows, and before the first of them the heads.
    pub fn render<T: Show>(&mut self, items: &[T], now: Option<Timestamp>) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).force_no_tty();
        if self.colour {
            table.enforce_styling();
            table.style_text_only();
        }
        if !self.begun {
            let more = if self.wide { T::WIDE } else { &[] };
            table.add_row(self.columns.iter().chain(more).map(|head| Painted::new(head).add_attribute(Attribute::Bold)));
        } else if items.is_empty() {
            return String::new();
        }
        self.begun = true;
        for item in items {
            let more = if self.wide { item.wide() } else { Vec::new() };
            table.add_row(item.row(now).iter().chain(&more).map(Cell::paint));
        }
        self.widths = table
            .column_max_content_widths()
            .into_iter()
            .enumerate()
            .map(|(index, width)| width.max(self.widths.get(index).copied().unwrap_or(0)))
            .collect();
        for (column, width) in table.column_iter_mut().zip(&self.widths) {
            column.set_padding((0, GAP));
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width + GAP)));
        }
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

#[cfg(test)]
mod tests {
    use gureum_proto::compute::v1::InstanceStateChange;

    use super::*;

    fn change(id: &str, from: i32, to: i32) -> InstanceStateChange {
        InstanceStateChange { instance_id: id.into(), previous_state: from, current_state: to }
    }

    #[test]
    fn columns_line_up_and_have_no_blanks_at_the_end() {
        let rendered = Table::new::<InstanceStateChange>(false).render(&[change("i-1", 2, 3), change("i-22", 2, 5)], None);
        assert_eq!(rendered, "ID     FROM      TO\ni-1    running   stopping\ni-22   running   shutting-down\n");
    }

    #[test]
    fn a_table_goes_on_with_its_widths() {
        let mut table = Table::new::<InstanceStateChange>(false);
        table.render(&[change("i-22", 5, 6)], None);
        assert_eq!(table.render(&[change("i-1", 2, 0)], None), "i-1    running         -\n");
        assert_eq!(table.render::<InstanceStateChange>(&[], None), "");
    }

    #[test]
    fn colour_is_on_words_only() {
        let rendered = Table::new::<InstanceStateChange>(true).render(&[change("i-1", 1, 2)], None);
        assert!(rendered.contains("\u{1b}[1mID\u{1b}[0m"), "{rendered:?}");
        assert!(rendered.contains("running"), "{rendered:?}");
        assert!(!Table::new::<InstanceStateChange>(false).render(&[change("i-1", 1, 2)], None).contains('\u{1b}'));
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(Cell::from("a\u{1b}[2Jb\nc").text, "a [2Jb c");
    }
}
