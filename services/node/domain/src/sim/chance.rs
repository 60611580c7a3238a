//! Chance that can be repeated: a number for every occasion, from the seed.

use std::time::Duration;

use gureum_model::id::{InstanceId, ResourceId};

/// For what a number is drawn. Two purposes never share their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    TypeBootTime = 1,
    ImageBootTime,
    BootTime,
    BootFailure,
    StopTime,
    TerminateTime,
    CpuBase,
    CpuWave,
    CpuPhase,
    CpuNoise,
    CpuBurst,
    MemoryBase,
    NetworkRate,
    DiskRate,
}

/// A number that looks random and is always the same for the same arguments.
pub fn draw(seed: u64, purpose: Purpose, parts: &[u64]) -> u64 {
    let begin = mix(seed ^ mix(purpose as u64));
    parts.iter().fold(begin, |state, part| mix(state ^ mix(*part)))
}

/// A number for an instance.
pub fn draw_for(seed: u64, purpose: Purpose, id: InstanceId, parts: [u64; 2]) -> u64 {
    let number = id.number();
    draw(seed, purpose, &[low(number), low(number >> 64), parts[0], parts[1]])
}

/// A number for a text.
pub fn draw_text(seed: u64, purpose: Purpose, text: &str) -> u64 {
    text.bytes().fold(draw(seed, purpose, &[]), |state, byte| mix(state ^ u64::from(byte)))
}

/// A number from 0 up to and including `max`, of which none is much likelier than another.
pub fn up_to(number: u64, max: u64) -> u64 {
    // The high half of the product, as multiplying is fairer and faster than dividing.
    let wide = u128::from(number) * (u128::from(max) + 1);
    low(wide >> 64)
}

/// A duration from zero up to and including `max`, to the microsecond.
pub fn duration_up_to(number: u64, max: Duration) -> Duration {
    Duration::from_micros(up_to(number, u64::try_from(max.as_micros()).unwrap_or(u64::MAX)))
}

/// Whether something happens that does so `per_million` times in a million.
pub fn happens(number: u64, per_million: u32) -> bool {
    up_to(number, 999_999) < u64::from(per_million)
}

/// The finaliser of SplitMix64: every bit of the input moves about half of the bits of the output.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn low(wide: u128) -> u64 {
    u64::try_from(wide & u128::from(u64::MAX)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_stay_in_their_range(number in any::<u64>(), max in any::<u64>()) {
            prop_assert!(up_to(number, max) <= max);
        }
    }

    #[test]
    fn chances_come_about_as_often_as_they_should() {
        let hits = (0..20_000).filter(|place| happens(draw(7, Purpose::BootFailure, &[*place]), 250_000)).count();
        assert!((4_700..5_300).contains(&hits), "{hits} of 20,000 at one in four");
    }
}
