//! What a command prints: tables for people, proto3 JSON and bare ids for programs.

use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::json;

use crate::{
    client::Client,
    details,
    failure::Failure,
    message,
    table::{Show, Table},
};

/// In which form results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns, in colour in a terminal
    Table,
    /// The region's messages in their JSON form
    Json,
    /// Ids only, one a line
    Id,
}

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
    colour: bool,
}

impl Output {
    /// For standard output as it is: colour only in a terminal, and never against NO_COLOR.
    pub fn new(format: Format) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { format, colour: io::stdout().is_terminal() && !unwanted && !dumb }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    pub fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    pub fn is_id(&self) -> bool {
        self.format == Format::Id
    }

    pub fn colour(&self) -> bool {
        self.colour
    }

    /// Resources, all at once.
    pub async fn list<T: Show>(&self, client: &Client, items: &[T]) -> Result<(), Failure> {
        match self.format {
            Format::Table => {
                let now = if T::TELLS_TIME && !items.is_empty() { client.now().await } else { None };
                self.write(&Table::new::<T>(self.colour).render(items, now))
            }
            Format::Json => {
                let values = items.iter().map(message::to_json).collect::<Result<Vec<_>, _>>()?;
                self.write(&format!("{:#}\n", serde_json::Value::Array(values)))
            }
            Format::Id => self.write(&items.iter().map(|item| format!("{}\n", item.id())).collect::<String>()),
        }
    }

    /// The one resource that a command made or changed: a row, or its message.
    pub async fn one<T: Show>(&self, client: &Client, item: &T) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.write(&format!("{:#}\n", message::to_json(item)?)),
            Format::Table | Format::Id => self.list(client, std::slice::from_ref(item)).await,
        }
    }

    /// Everything about one resource, a line for each field.
    pub async fn details<T: Show>(&self, client: &Client, item: &T) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.write(&details::render(&message::dynamic(item)?, client.now().await)),
            Format::Json | Format::Id => self.one(client, item).await,
        }
    }

    /// One of a stream of resources: a row of a table that goes on, or one line of JSON.
    pub fn next<T: Show>(&self, table: &mut Table, item: &T, now: Option<crate::time::Timestamp>) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.write(&table.render(std::slice::from_ref(item), now)),
            Format::Json => self.write(&format!("{}\n", message::to_json(item)?)),
            Format::Id => self.write(&format!("{}\n", item.id())),
        }
    }

    /// What was done to resources that have no more to show.
    pub fn done(&self, id: &str, deed: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.write(&format!("{id} {deed}\n")),
            Format::Json => self.write(&format!("{}\n", json!({ "id": id, "done": deed }))),
            Format::Id => self.write(&format!("{id}\n")),
        }
    }

    /// Text as it is.
    pub fn write(&self, text: &str) -> Result<(), Failure> {
        self.write_bytes(text.as_bytes())
    }

    /// Bytes as they are.
    pub fn write_bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Broken(format!("cannot write to standard output: {error}")),
        })
    }

    /// Bytes as they are, for standard error.
    pub fn write_error_bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        io::stderr().lock().write_all(bytes).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Broken(format!("cannot write to standard error: {error}")),
        })
    }

    /// A remark for the person who waits. Programs do not see it.
    pub fn remark(&self, text: &str) {
        if self.is_table() {
            // Nobody may be reading.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// How far a wait has come, on one line that is written again; only in a terminal.
    pub fn progress(&self, text: &str) {
        if self.is_table() && io::stderr().is_terminal() {
            // Nobody may be reading.
            let _ = write!(io::stderr().lock(), "\r\x1b[K{text}");
        }
    }

    /// Why the command did not succeed, on standard error.
    pub fn failure(&self, failure: &Failure) {
        let text = match self.format {
            Format::Json => format!("{:#}", failure.to_json()),
            Format::Table | Format::Id => failure.to_text(),
        };
        // Nobody may be reading; the exit code tells.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}
