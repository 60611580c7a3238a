//! What a simulated instance uses.
//!
//! Processor load is a base of the instance's own, a wave over the day, noise in slots of ten seconds,
//! and a burst now and then. Counters are integrals of rates that follow the same day. All of it is a
//! function of (seed, id, time since the boot, time of the day) in whole numbers, so it is exact, needs no
//! state, and a counter cannot go back.

use gureum_model::Timestamp;

use super::{
    chance::{Purpose, draw_for, up_to},
    machine::{Phase, SimInstance},
};
use crate::driver::Usage;

const DAY_MICROS: u64 = 24 * 3600 * 1_000_000;
const QUARTER: i128 = (DAY_MICROS / 4) as i128;
/// Noise changes this often.
const NOISE_SLOT_MICROS: u64 = 10 * 1_000_000;
/// A burst lasts this long.
const BURST_SLOT_MICROS: u64 = 300 * 1_000_000;
/// One slot of so many has a burst.
const BURST_ONE_IN: u64 = 24;
/// Runs beyond this count no further: the numbers would not fit, and no host is up for a century.
const MAX_UP_MICROS: u64 = 100 * 365 * DAY_MICROS;
/// Bytes in an operation of the disk, and in a packet.
const OPERATION_BYTES: u64 = 16 * 1024;
const PACKET_BYTES: u64 = 800;
const MIB: u64 = 1024 * 1024;

/// What the instance uses at `now`, if it is up. One that hangs does nothing since.
pub fn usage(seed: u64, instance: &SimInstance, now: Timestamp) -> Option<Usage> {
    let since = match instance.phase {
        Phase::Up { since, .. } => since,
        Phase::Booting { .. }
        | Phase::Rebooting { .. }
        | Phase::Stopping { .. }
        | Phase::Off { .. }
        | Phase::Terminating { .. }
        | Phase::Gone => {
            return None;
        }
    };
    let active_until = instance.hung_since.map_or(now, |hung| hung.min(now));
    let cpu_tenths = if instance.hung_since.is_some() { 0 } else { cpu_tenths(seed, instance, now) };
    let total = instance.memory_mib.saturating_mul(MIB);
    let steer = &instance.steer;
    let counter = |steered: Option<u32>, purpose, place, typical| {
        let rate = Rate::of(seed, instance, steered, purpose, place, typical);
        rate.counted(since, active_until)
    };
    let network_received_bytes = counter(steer.network_in, Purpose::NetworkRate, 0, 40_000);
    let network_sent_bytes = counter(steer.network_out, Purpose::NetworkRate, 1, 60_000);
    let disk_read_bytes = counter(steer.disk_read, Purpose::DiskRate, 0, 20_000);
    let disk_written_bytes = counter(steer.disk_write, Purpose::DiskRate, 1, 50_000);
    Some(Usage {
        cpu_percent: f64::from(cpu_tenths) / 10.0,
        memory_used_bytes: total / 100 * memory_percent(seed, instance, active_until),
        memory_total_bytes: total,
        disk_read_bytes,
        disk_written_bytes,
        disk_read_operations: disk_read_bytes / OPERATION_BYTES,
        disk_write_operations: disk_written_bytes / OPERATION_BYTES,
        network_received_bytes,
        network_sent_bytes,
        network_received_packets: network_received_bytes / PACKET_BYTES,
        network_sent_packets: network_sent_bytes / PACKET_BYTES,
    })
}

fn cpu_tenths(seed: u64, instance: &SimInstance, now: Timestamp) -> u32 {
    if let Some(steered) = instance.steer.cpu_tenths {
        return steered;
    }
    let number = |purpose, slot| draw_for(seed, purpose, instance.id, [slot, 0]);
    let pick = |purpose, slot, max| i64::try_from(up_to(number(purpose, slot), max)).unwrap_or_default();
    let micros = now.as_micros();
    let base = 30 + pick(Purpose::CpuBase, 0, 220);
    let height = pick(Purpose::CpuWave, 0, 150);
    let shift = up_to(number(Purpose::CpuPhase, 0), DAY_MICROS / 8);
    let wave = height * wave_permille(micros.wrapping_add(shift)) / 1000;
    let noise = pick(Purpose::CpuNoise, micros / NOISE_SLOT_MICROS, 40) - 20;
    let burst_slot = micros / BURST_SLOT_MICROS;
    let bursts = up_to(number(Purpose::CpuBurst, burst_slot), BURST_ONE_IN - 1) == 0;
    let burst = if bursts { 300 + pick(Purpose::CpuBurst, burst_slot.wrapping_add(1 << 40), 300) } else { 0 };
    u32::try_from((base + wave + noise + burst).clamp(0, 1000)).unwrap_or_default()
}

fn memory_percent(seed: u64, instance: &SimInstance, now: Timestamp) -> u64 {
    if let Some(steered) = instance.steer.memory_percent {
        return u64::from(steered);
    }
    let base = 20 + up_to(draw_for(seed, Purpose::MemoryBase, instance.id, [0, 0]), 40);
    let wave = 5 + wave_permille(now.as_micros()) / 200;
    base + u64::try_from(wave).unwrap_or_default()
}

/// A triangle over the day (UTC) from -1000 to 1000: lowest at 06:00, highest at 18:00.
fn wave_permille(micros: u64) -> i64 {
    let phase = i128::from(micros % DAY_MICROS);
    let height = if phase < QUARTER {
        -phase
    } else if phase < 3 * QUARTER {
        phase - 2 * QUARTER
    } else {
        4 * QUARTER - phase
    };
    i64::try_from(height * 1000 / QUARTER).unwrap_or_default()
}

/// Twice [`QUARTER`] times the integral of the triangle (from -1 to 1) since midnight. Exact.
fn wave_integral(micros: u64) -> i128 {
    let phase = i128::from(micros % DAY_MICROS);
    if phase < QUARTER {
        -phase * phase
    } else if phase < 3 * QUARTER {
        let from_noon = phase - 2 * QUARTER;
        from_noon * from_noon - 2 * QUARTER * QUARTER
    } else {
        let to_midnight = 4 * QUARTER - phase;
        -to_midnight * to_midnight
    }
}

/// Bytes per second.
struct Rate {
    mean: u32,
    /// Follows the day: from half of the mean to one and a half. Else it is always the mean.
    waves: bool,
}

impl Rate {
    fn of(seed: u64, instance: &SimInstance, steered: Option<u32>, purpose: Purpose, place: u64, typical: u32) -> Self {
        match steered {
            Some(mean) => Self { mean, waves: false },
            None => {
                // From a tenth of the typical rate to twice the typical one.
                let number = draw_for(seed, purpose, instance.id, [place, 1]);
                let spread = up_to(number, u64::from(typical) * 19 / 10);
                Self { mean: typical / 10 + u32::try_from(spread).unwrap_or(u32::MAX / 2), waves: true }
            }
        }
    }

    /// Bytes between two times.
    fn counted(&self, since: Timestamp, until: Timestamp) -> u64 {
        let since = since.as_micros();
        let until = until.as_micros().clamp(since, since + MAX_UP_MICROS);
        // Everything times four quarters, so that the wave's integral stays whole.
        let steady = i128::from(until - since) * 4 * QUARTER;
        let wave = if self.waves { wave_integral(until) - wave_integral(since) } else { 0 };
        let bytes = (steady + wave) * i128::from(self.mean) / (4 * QUARTER * 1_000_000);
        u64::try_from(bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_integral_belongs_to_the_wave() {
        // A sum over slices of a second, from midnight, beside the exact integral.
        let mut sum = 0i128;
        for second in 0..24 * 3600u64 {
            let micros = second * 1_000_000;
            let exact = wave_integral(micros) / (2 * QUARTER);
            assert!((sum - exact).abs() < QUARTER / 100, "at {second} s: {sum} beside {exact}");
            sum += i128::from(wave_permille(micros)) * 1000;
        }
        assert_eq!((wave_permille(0), wave_permille(DAY_MICROS / 4), wave_permille(DAY_MICROS / 4 * 3)), (0, -1000, 1000));
    }

    proptest! {
        #[test]
        fn counters_never_go_back(mean in any::<u32>(), waves in any::<bool>(), since in 0u64..u64::MAX / 4, steps in prop::collection::vec(0u64..DAY_MICROS * 40, 1..20)) {
            let rate = Rate { mean, waves };
            let begin = Timestamp::from_micros(since);
            let (mut at, mut last) = (begin, 0);
            for step in steps {
                at = at + std::time::Duration::from_micros(step % 7 * step);
                let counted = rate.counted(begin, at);
                prop_assert!(counted >= last);
                last = counted;
            }
        }

        #[test]
        fn a_day_counts_the_mean(mean in 1u32..1_000_000, since in 0u64..DAY_MICROS) {
            let begin = Timestamp::from_micros(since);
            let counted = Rate { mean, waves: true }.counted(begin, begin + std::time::Duration::from_micros(DAY_MICROS));
            prop_assert_eq!(counted, u64::from(mean) * 24 * 3600);
        }
    }
}
