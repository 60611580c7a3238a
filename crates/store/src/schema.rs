//! The tables of one service as a struct, so that a wrong table does not compile.

use crate::{
    engine::{EngineError, RowSink},
    table::{Record, Table},
};

/// All tables of a service. Made by [`schema!`](crate::schema!).
pub trait Tables: Clone + Default + Send + Sync + 'static {
    /// The tables' names on disk.
    const NAMES: &'static [&'static str];

    /// Takes one change as the engine stored it.
    fn load(&mut self, table: &str, key: &str, value: Option<&[u8]>) -> Result<(), EngineError>;

    /// Hands over every row in its stored form.
    fn dump(&self, entry: RowSink<'_>) -> Result<(), EngineError>;
}

/// That a service's tables hold records of this kind.
pub trait Has<R: Record> {
    fn table(&self) -> &Table<R>;
    fn table_mut(&mut self) -> &mut Table<R>;
}

/// Declares the tables of a service: `schema! { pub struct Schema { pub groups: GroupRow, … } }`.
#[macro_export]
macro_rules! schema {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* $visibility:vis $field:ident: $record:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default)]
        pub struct $name {
            $($(#[$field_doc])* $visibility $field: $crate::Table<$record>,)*
        }

        impl $crate::Tables for $name {
            const NAMES: &'static [&'static str] = &[$(<$record as $crate::Record>::TABLE),*];

            fn load(&mut self, table: &str, key: &str, value: Option<&[u8]>) -> Result<(), $crate::EngineError> {
                $(if table == <$record as $crate::Record>::TABLE {
                    return $crate::schema_support::load(&mut self.$field, key, value);
                })*
                Err($crate::EngineError::UnknownTable { table: table.to_owned() })
            }

            fn dump(&self, entry: $crate::engine::RowSink<'_>) -> Result<(), $crate::EngineError> {
                $($crate::schema_support::dump(&self.$field, entry)?;)*
                Ok(())
            }
        }

        $(impl $crate::Has<$record> for $name {
            fn table(&self) -> &$crate::Table<$record> {
                &self.$field
            }
            fn table_mut(&mut self) -> &mut $crate::Table<$record> {
                &mut self.$field
            }
        })*
    };
}

/// What [`schema!`](crate::schema!) expands to; of no use to anyone else.
#[doc(hidden)]
pub mod support {
    use super::*;

    pub fn load<R: Record>(table: &mut Table<R>, key: &str, value: Option<&[u8]>) -> Result<(), EngineError> {
        table.load(key, value)
    }

    pub fn dump<R: Record>(table: &Table<R>, entry: RowSink<'_>) -> Result<(), EngineError> {
        table.dump(entry)
    }
}
