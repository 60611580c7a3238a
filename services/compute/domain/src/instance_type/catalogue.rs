//! Reading of the two tables.

use std::{str::FromStr, sync::LazyLock};

use super::{Accelerators, Burst, Disks, EbsBandwidth, Family, FamilyClass, InstanceType, Network};

const FAMILIES_TEXT: &str = include_str!("../../data/instance_families.csv");
const TYPES_TEXT: &str = include_str!("../../data/instance_types.csv");

/// Fields of a line of `instance_families.csv`.
const FAMILY_FIELDS: usize = 18;
/// Fields of a line of `instance_types.csv`.
const TYPE_FIELDS: usize = 20;

// The tables are part of the program, and a test reads them: a table that cannot be read never ships,
// so the empty fallbacks are never used.
static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(|| read_families(FAMILIES_TEXT).unwrap_or_default());
static TYPES: LazyLock<Vec<InstanceType>> = LazyLock::new(|| read_types(TYPES_TEXT, &FAMILIES).unwrap_or_default());

/// All instance types, by name.
pub fn all() -> &'static [InstanceType] {
    &TYPES
}

/// What is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    #[error("line {line} has {found} fields, and {expected} were expected")]
    Fields { line: usize, found: usize, expected: usize },
    #[error("\"{value}\" in line {line} is no {what}")]
    Value { line: usize, what: &'static str, value: &'static str },
    #[error("line {line} is not in the order of the names")]
    Order { line: usize },
}

/// One line: its fields are taken from the left.
struct Line {
    number: usize,
    fields: std::vec::IntoIter<&'static str>,
}

impl Line {
    fn text(&mut self) -> &'static str {
        // The count of fields was checked when the line was split.
        self.fields.next().unwrap_or_default()
    }

    fn list(&mut self) -> Vec<&'static str> {
        self.text().split('+').filter(|word| !word.is_empty()).collect()
    }

    fn bad(&self, what: &'static str, value: &'static str) -> CatalogueError {
        CatalogueError::Value { line: self.number, what, value }
    }

    fn parse<T: FromStr>(&self, what: &'static str, value: &'static str) -> Result<T, CatalogueError> {
        value.parse().map_err(|_| self.bad(what, value))
    }

    fn number<T: FromStr>(&mut self, what: &'static str) -> Result<T, CatalogueError> {
        let value = self.text();
        self.parse(what, value)
    }

    fn optional<T: FromStr>(&mut self, what: &'static str) -> Result<Option<T>, CatalogueError> {
        match self.text() {
            "" => Ok(None),
            value => self.parse(what, value).map(Some),
        }
    }
}

/// The lines behind comments and the heading; each has `expected` fields.
fn lines(text: &'static str, expected: usize) -> impl Iterator<Item = Result<Line, CatalogueError>> {
    let numbered = text.lines().enumerate().map(|(place, line)| (place + 1, line));
    numbered.filter(|(_, line)| !line.starts_with('#')).skip(1).map(move |(number, line)| {
        let fields: Vec<&'static str> = line.split(',').collect();
        match fields.len() {
            found if found == expected => Ok(Line { number, fields: fields.into_iter() }),
            found => Err(CatalogueError::Fields { line: number, found, expected }),
        }
    })
}

/// Reads a table of families.
pub fn read_families(text: &'static str) -> Result<Vec<Family>, CatalogueError> {
    let mut families: Vec<Family> = Vec::new();
    for line in lines(text, FAMILY_FIELDS) {
        let line = line?;
        let number = line.number;
        let family = read_family(line)?;
        if families.last().is_some_and(|last| last.name >= family.name) {
            return Err(CatalogueError::Order { line: number });
        }
        families.push(family);
    }
    Ok(families)
}

fn read_family(mut line: Line) -> Result<Family, CatalogueError> {
    let name = line.text();
    let class = match line.text() {
        "general" => FamilyClass::General,
        "burstable" => FamilyClass::Burstable,
        "compute" => FamilyClass::Compute,
        "memory" => FamilyClass::Memory,
        "storage" => FamilyClass::Storage,
        "accelerated" => FamilyClass::Accelerated,
        other => return Err(line.bad("class", other)),
    };
    let current_generation = match line.text() {
        "current" => true,
        "previous" => false,
        other => return Err(line.bad("generation", other)),
    };
    let mut family = Family {
        name,
        class,
        current_generation,
        architectures: line.list(),
        manufacturer: line.text(),
        clock_mhz: line.optional("clock")?.unwrap_or_default(),
        threads_per_core: line.number("count of threads")?,
        hypervisor: line.text(),
        ena: line.text(),
        boot_modes: line.list(),
        ebs_optimized: line.text(),
        ebs_nvme: line.text(),
        disk_type: line.text(),
        disk_nvme: line.text(),
        usage_classes: line.list(),
        virtualization: line.list(),
        root_devices: line.list(),
        hibernation: false,
        dedicated_hosts: false,
        auto_recovery: false,
    };
    for flag in line.list() {
        match flag {
            "hibernation" => family.hibernation = true,
            "hosts" => family.dedicated_hosts = true,
            "recovery" => family.auto_recovery = true,
            other => return Err(line.bad("flag", other)),
        }
    }
    Ok(family)
}

/// Reads a table of types of these families.
pub fn read_types(text: &'static str, families: &'static [Family]) -> Result<Vec<InstanceType>, CatalogueError> {
    let mut types: Vec<InstanceType> = Vec::new();
    for line in lines(text, TYPE_FIELDS) {
        let line = line?;
        let number = line.number;
        let it = read_type(line, families)?;
        if types.last().is_some_and(|last| last.name >= it.name) {
            return Err(CatalogueError::Order { line: number });
        }
        types.push(it);
    }
    Ok(types)
}

fn read_type(mut line: Line, families: &'static [Family]) -> Result<InstanceType, CatalogueError> {
    let name = line.text();
    let family = name.split_once('.').and_then(|(family, _)| families.iter().find(|it| it.name == family));
    let family = family.ok_or_else(|| line.bad("type of a known family", name))?;
    let vcpus: u32 = line.number("count of vCPUs")?;
    let cores = line.optional("count of cores")?.unwrap_or(vcpus / family.threads_per_core.max(1));
    let memory_mib = line.number("memory")?;
    let mut network = read_network(&mut line)?;
    let ebs = read_ebs(&mut line)?;
    let disks = read_disks(&mut line)?;
    let accelerators = read_accelerators(&mut line)?;
    let price_microdollars_per_hour = line.optional("price")?.unwrap_or_default();
    let burst = read_burst(&mut line)?;
    let architectures = line.list();
    let clock_mhz = line.optional("clock")?.unwrap_or_default();
    let mut free_tier = false;
    for flag in line.list() {
        match flag {
            "efa" => network.efa = true,
            "free" => free_tier = true,
            other => return Err(line.bad("flag", other)),
        }
    }
    Ok(InstanceType {
        name,
        family,
        vcpus,
        cores,
        memory_mib,
        network,
        ebs,
        disks,
        accelerators,
        burst,
        price_microdollars_per_hour,
        free_tier,
        architectures,
        clock_mhz,
    })
}

fn read_network(line: &mut Line) -> Result<Network, CatalogueError> {
    Ok(Network {
        baseline_mbps: line.optional("bandwidth")?,
        peak_mbps: line.optional("bandwidth")?,
        text: line.text(),
        max_interfaces: line.number("count of interfaces")?,
        addresses_per_interface: line.number("count of addresses")?,
        efa: false,
    })
}

fn read_ebs(line: &mut Line) -> Result<Option<EbsBandwidth>, CatalogueError> {
    let mut next = || line.optional::<u32>("bandwidth to volumes");
    let (baseline_mbps, peak_mbps, baseline_iops, peak_iops) = (next()?, next()?, next()?, next()?);
    Ok(baseline_mbps.zip(peak_mbps).zip(baseline_iops.zip(peak_iops)).map(|((baseline_mbps, peak_mbps), (baseline_iops, peak_iops))| {
        EbsBandwidth { baseline_mbps, peak_mbps, baseline_iops, peak_iops }
    }))
}

fn read_disks(line: &mut Line) -> Result<Option<Disks>, CatalogueError> {
    let text = line.text();
    if text.is_empty() {
        return Ok(None);
    }
    let (count, size) = text.split_once('x').ok_or_else(|| line.bad("set of disks", text))?;
    Ok(Some(Disks { count: line.parse("count of disks", count)?, size_gb: line.parse("size of a disk", size)? }))
}

fn read_accelerators(line: &mut Line) -> Result<Option<Accelerators>, CatalogueError> {
    let text = line.text();
    if text.is_empty() {
        return Ok(None);
    }
    let words: Vec<&'static str> = text.split(' ').collect();
    let &[count, kind, manufacturer, name, memory] = words.as_slice() else { return Err(line.bad("set of accelerators", text)) };
    Ok(Some(Accelerators {
        count: line.parse("count of accelerators", count)?,
        kind,
        manufacturer,
        name,
        memory_mib: line.parse("memory of an accelerator", memory)?,
    }))
}

fn read_burst(line: &mut Line) -> Result<Option<Burst>, CatalogueError> {
    let text = line.text();
    if text.is_empty() {
        return Ok(None);
    }
    let (credits, baseline) = text.split_once('/').ok_or_else(|| line.bad("credit rate", text))?;
    Ok(Some(Burst {
        millicredits_per_hour: line.parse("credit rate", credits)?,
        baseline_milli_per_vcpu: line.parse("baseline", baseline)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_can_be_read() {
        assert_eq!(read_families(FAMILIES_TEXT).map(|families| families.len()), Ok(FAMILIES.len()));
        assert_eq!(read_types(TYPES_TEXT, &FAMILIES).map(|types| types.len()), Ok(TYPES.len()));
        assert!(TYPES.len() >= 80 && FAMILIES.iter().all(|family| TYPES.iter().any(|it| it.family.name == family.name)));
    }

    #[test]
    fn what_is_wrong_with_a_table_is_said() {
        assert_eq!(read_families("# words\nname\nx,y\n"), Err(CatalogueError::Fields { line: 3, found: 2, expected: FAMILY_FIELDS }));
        let unknown = read_types("name\nzz.large,1,,1,,,,1,1,,,,,,,,,,,\n", &FAMILIES);
        assert_eq!(unknown, Err(CatalogueError::Value { line: 2, what: "type of a known family", value: "zz.large" }));
        let twice = "name\nm5.large,1,,1,,,,1,1,,,,,,,,,,,\nm5.large,1,,1,,,,1,1,,,,,,,,,,,\n";
        assert_eq!(read_types(twice, &FAMILIES), Err(CatalogueError::Order { line: 3 }));
    }
}
