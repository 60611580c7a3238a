//! Domain records as rows.

/// Declares the row of a domain record that has `scope`, `id` and filters.
///
/// ```ignore
/// row! {
///     /// Groups by scope and id.
///     pub struct GroupRow(SecurityGroup) = "security_group";
///     filters: ["group-name", "vpc-id"];
///     also: |group, add| for id in group.references() { add("references", &format_args!("{}/{id}", group.scope)) };
/// }
/// ```
///
/// The record stays what it is: the row derefs to it, is stored as it, and is listed by its filters;
/// `filters` are those that an index answers.
#[macro_export]
macro_rules! row {
    (
        $(#[$doc:meta])*
        pub struct $row:ident($record:ty) = $table:literal;
        filters: [$($filter:literal),* $(,)?];
        $(also: |$it:ident, $add:ident| $body:expr;)?
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(transparent)]
        pub struct $row(pub $record);

        impl ::std::ops::Deref for $row {
            type Target = $record;

            fn deref(&self) -> &$record {
                &self.0
            }
        }

        impl $crate::Record for $row {
            const TABLE: &'static str = $table;

            fn key(&self) -> String {
                <Self as $crate::Listed>::list_key(&self.0.scope, &self.0.id)
            }

            fn index(&self, add: $crate::IndexSink<'_>) {
                $crate::Listed::index_filters(self, add);
                $({
                    let ($it, $add) = (&self.0, add);
                    $body
                })?
            }
        }

        impl $crate::Listed for $row {
            const INDEXED_FILTERS: &'static [&'static str] = &[$($filter),*];

            fn scope(&self) -> &::gureum_model::Scope {
                &self.0.scope
            }
        }

        impl ::gureum_model::Filterable for $row {
            const FILTER_NAMES: &'static [&'static str] = <$record as ::gureum_model::Filterable>::FILTER_NAMES;

            fn filter_values(&self, name: &str) -> Vec<::std::borrow::Cow<'_, str>> {
                ::gureum_model::Filterable::filter_values(&self.0, name)
            }

            fn filter_tags(&self) -> Option<&::gureum_model::Tags> {
                ::gureum_model::Filterable::filter_tags(&self.0)
            }
        }
    };
}
