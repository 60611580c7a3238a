//! `gureum types`: kinds of instances.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::compute::v1::{DescribeInstanceTypesRequest, InstanceTypeInfo};

use crate::{
    client::Client,
    failure::Failure,
    list::ListArgs,
    output::Output,
    pages, parse,
    table::{Cell, Show},
    time::Timestamp,
};

/// MiB in a GiB.
const MIB: f64 = 1024.0;

/// Instance types: processors, memory, network, price
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum types ls --min-vcpus 8 --min-memory 32
  gureum types ls --family t3,t4g --arch arm64
  gureum types ls --gpu
  gureum types ls -o id | sort")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List instance types, the cheapest first
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  gureum types ls --min-vcpus 8 --min-memory 32\n  gureum types ls --class memory --arch arm64\n  gureum types ls --filter instance-type='m5.*'"
    )]
    Ls(LsArgs),
}

#[derive(Debug, Default, ClapArgs)]
struct LsArgs {
    /// At least so many vCPUs
    #[arg(long, value_name = "COUNT")]
    min_vcpus: Option<i32>,
    /// At most so many vCPUs
    #[arg(long, value_name = "COUNT")]
    max_vcpus: Option<i32>,
    /// At least so much memory, in GiB
    #[arg(long, value_name = "GIB")]
    min_memory: Option<f64>,
    /// At most so much memory, in GiB
    #[arg(long, value_name = "GIB")]
    max_memory: Option<f64>,
    /// Only of these families, such as t3
    #[arg(long = "family", value_name = "FAMILY", value_delimiter = ',')]
    families: Vec<String>,
    /// Only of this class
    #[arg(long, value_parser = ["general", "compute", "memory", "storage", "accelerated", "burstable"])]
    class: Option<String>,
    /// Only for this architecture
    #[arg(long, value_parser = ["x86_64", "arm64"])]
    arch: Option<String>,
    /// Only with accelerators
    #[arg(long)]
    gpu: bool,
    #[command(flatten)]
    list: ListArgs,
}

impl LsArgs {
    /// Filters compare texts; what compares numbers is done here.
    fn wants(&self, kind: &InstanceTypeInfo) -> bool {
        let (vcpus, memory_gib) = (vcpus(kind), memory_gib(kind));
        let family = kind.instance_type.split('.').next().unwrap_or_default();
        self.min_vcpus.is_none_or(|least| vcpus >= least)
            && self.max_vcpus.is_none_or(|most| vcpus <= most)
            && self.min_memory.is_none_or(|least| memory_gib >= least)
            && self.max_memory.is_none_or(|most| memory_gib <= most)
            && (self.families.is_empty() || self.families.iter().any(|wanted| wanted == family))
            && self.class.as_ref().is_none_or(|class| kind.family_class == *class)
            && (!self.gpu || !kind.accelerators.is_empty())
    }
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    let Verb::Ls(args) = args.verb.unwrap_or_else(|| Verb::Ls(LsArgs::default()));
    let mut filters = args.list.filters.clone();
    filters.extend(args.arch.as_ref().map(|arch| parse::exact("processor-info.supported-architecture", arch)));
    let request = DescribeInstanceTypesRequest { filters, ..Default::default() };
    let mut kinds: Vec<InstanceTypeInfo> = pages!(client.compute().describe_instance_types(request).instance_types, None)?;
    kinds.retain(|kind| args.wants(kind));
    // A price of 0 is not known: behind the others.
    kinds.sort_by_key(|kind| (kind.price_microdollars_per_hour == 0, kind.price_microdollars_per_hour));
    kinds.truncate(args.list.limit.unwrap_or(usize::MAX));
    out.list(client, &kinds).await
}

fn vcpus(kind: &InstanceTypeInfo) -> i32 {
    kind.vcpu_info.as_ref().map_or(0, |info| info.default_vcpus)
}

fn memory_gib(kind: &InstanceTypeInfo) -> f64 {
    kind.memory_size_mib as f64 / MIB
}

impl Show for InstanceTypeInfo {
    const NAME: &'static str = "gureum.compute.v1.InstanceTypeInfo";
    const COLUMNS: &'static [&'static str] = &["TYPE", "CLASS", "VCPUS", "GIB", "ARCH", "NETWORK", "DISKS", "GPUS", "USD/H"];

    fn id(&self) -> &str {
        &self.instance_type
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        let disks = self.instance_storage_info.as_ref().map(|info| format!("{} GB", info.total_size_gb)).unwrap_or_default();
        let price = match self.price_microdollars_per_hour {
            0 => String::new(),
            micros => format!("{:.4}", micros as f64 / 1e6),
        };
        vec![
            self.id().into(),
            (&self.family_class).into(),
            vcpus(self).to_string().into(),
            memory_gib(self).to_string().into(),
            Cell::join(self.processor_info.iter().flat_map(|info| &info.supported_architectures)),
            self.network_info.as_ref().map_or("", |info| info.network_performance.as_str()).into(),
            disks.into(),
            Cell::join(self.accelerators.iter().map(|kind| format!("{}x{}", kind.count, kind.name))),
            price.into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use gureum_proto::compute::v1::VCpuInfo;

    use super::*;
    use crate::table::Table;

    fn kind(name: &str, default_vcpus: i32, memory_size_mib: i64) -> InstanceTypeInfo {
        let vcpu_info = Some(VCpuInfo { default_vcpus, ..Default::default() });
        InstanceTypeInfo {
            instance_type: name.into(),
            family_class: "burstable".into(),
            vcpu_info,
            memory_size_mib,
            price_microdollars_per_hour: 5200,
            ..Default::default()
        }
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        let wants = |args: &LsArgs| args.wants(&kind("t3.nano", 2, 512));
        assert!(wants(&LsArgs { min_vcpus: Some(2), max_memory: Some(0.5), families: vec!["t3".into()], ..Default::default() }));
        assert!(!wants(&LsArgs { min_vcpus: Some(3), ..Default::default() }));
        assert!(!wants(&LsArgs { min_memory: Some(1.0), ..Default::default() }));
        assert!(!wants(&LsArgs { families: vec!["t3a".into()], ..Default::default() }));
        assert!(!wants(&LsArgs { gpu: true, ..Default::default() }));
    }

    #[test]
    fn types_as_they_are_shown() {
        let expected = "\
TYPE      CLASS       VCPUS   GIB   ARCH   NETWORK   DISKS   GPUS   USD/H
t3.nano   burstable   2       0.5   -      -         -       -      0.0052
";
        assert_eq!(Table::new::<InstanceTypeInfo>(false).render(&[kind("t3.nano", 2, 512)], None), expected);
    }
}
