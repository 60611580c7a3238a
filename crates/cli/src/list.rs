//! What all listings have in common.

use clap::Args;
use gureum_proto::common::v1::Filter;

use crate::parse;

/// Which of a list, and how much of it.
#[derive(Debug, Clone, Default, Args)]
pub struct ListArgs {
    /// Only what passes: EC2's filter names, tag:KEY, tag-key; may be given again, then all must pass
    #[arg(short, long = "filter", value_name = "NAME=VALUE", value_parser = parse::filter)]
    pub filters: Vec<Filter>,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,
}
