//! The clock with two faces.
//!
//! *Domain time* ([`Clock::now`], [`Clock::sleep_until`]) is what life-cycles, periods and schedules
//! follow: real, scaled or virtual. *Real monotonic time* ([`monotonic`]) serves I/O, deadlines,
//! retries and leases. Nothing else in Gureum asks the system for the time.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime},
};

use gureum_model::{ClockSetting, Timestamp};
use tokio::sync::watch;

/// Real monotonic time.
#[allow(clippy::disallowed_methods, reason = "this is the one place that asks")]
pub fn monotonic() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "this is the one place that asks")]
fn wall_clock() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

/// Domain time of a region. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Face>);

#[derive(Debug)]
enum Face {
    Real,
    Scaled { factor: f64, origin: Timestamp },
    Virtual(VirtualClock),
}

#[derive(Debug)]
struct VirtualClock {
    now: watch::Sender<Timestamp>,
    /// When someone waits, and how many do.
    timers: Mutex<BTreeMap<Timestamp, usize>>,
    /// Where the time is kept, if it outlives the process.
    path: Option<PathBuf>,
}

impl Clock {
    /// A clock as a region sets it. `origin` is when the region first started, by the wall clock:
    /// scaled time runs from there, so that a restart neither repeats nor skips any.
    pub fn new(setting: ClockSetting, origin: Timestamp) -> Self {
        Self(Arc::new(match setting {
            ClockSetting::Real => Face::Real,
            ClockSetting::Scaled { factor } => Face::Scaled { factor, origin },
            ClockSetting::Virtual { start } => {
                Face::Virtual(VirtualClock { now: watch::Sender::new(start), timers: Mutex::default(), path: None })
            }
        }))
    }

    /// As [`Clock::new`], but virtual time goes on from where it was when the service with this
    /// directory last stopped, and is durable there whenever it moves.
    pub fn open(setting: ClockSetting, origin: Timestamp, directory: Option<&Path>) -> io::Result<Self> {
        let (ClockSetting::Virtual { start }, Some(directory)) = (setting, directory) else {
            return Ok(Self::new(setting, origin));
        };
        std::fs::create_dir_all(directory)?;
        let path = directory.join("virtual-time");
        let start = match std::fs::read_to_string(&path) {
            Ok(text) => text
                .trim()
                .parse()
                .map(Timestamp::from_micros)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no time", path.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => start,
            Err(error) => return Err(error),
        };
        Ok(Self(Arc::new(Face::Virtual(VirtualClock { now: watch::Sender::new(start), timers: Mutex::default(), path: Some(path) }))))
    }

    /// The wall clock's time now, as the origin of a region that starts for the first time.
    pub fn origin_now() -> Timestamp {
        wall_clock()
    }

    /// The wall clock's time now, for what others hold against their own clocks: signatures, certificates.
    pub fn wall_now() -> Timestamp {
        wall_clock()
    }

    /// Domain time now.
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Face::Real => wall_clock(),
            Face::Scaled { factor, origin } => *origin + wall_clock().since(*origin).mul_f64(*factor),
            Face::Virtual(clock) => *clock.now.borrow(),
        }
    }

    /// Waits until domain time reaches `time`; at once if it has.
    pub async fn sleep_until(&self, time: Timestamp) {
        match &*self.0 {
            Face::Virtual(clock) => clock.sleep_until(time).await,
            Face::Real | Face::Scaled { .. } => loop {
                let now = self.now();
                if now >= time {
                    return;
                }
                tokio::time::sleep(self.real(time.since(now)).max(Duration::from_micros(100))).await;
            },
        }
    }

    /// Waits for so much domain time.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }

    /// How long a stretch of domain time takes in real time; without end for virtual time.
    pub fn real(&self, domain: Duration) -> Duration {
        match &*self.0 {
            Face::Real => domain,
            Face::Scaled { factor, .. } => Duration::try_from_secs_f64(domain.as_secs_f64() / factor).unwrap_or(Duration::MAX),
            Face::Virtual(_) => Duration::MAX,
        }
    }

    /// Moves virtual time forward; it never goes back. Answers the time now, or none if this clock is
    /// not virtual. The time is durable before anyone sees it. Blocks for a disk's sync.
    pub fn advance_to(&self, time: Timestamp) -> io::Result<Option<Timestamp>> {
        let Face::Virtual(clock) = &*self.0 else { return Ok(None) };
        if let Some(path) = clock.path.as_deref().filter(|_| time > *clock.now.borrow()) {
            keep(path, time)?;
        }
        clock.now.send_if_modified(|now| {
            let later = time > *now;
            *now = time.max(*now);
            later
        });
        let now = *clock.now.borrow();
        Ok(Some(now))
    }

    /// The earliest time for which someone waits; none if nobody does or the clock is not virtual.
    pub fn earliest_timer(&self) -> Option<Timestamp> {
        let Face::Virtual(clock) = &*self.0 else { return None };
        clock.timers().keys().next().copied()
    }

    pub fn is_virtual(&self) -> bool {
        matches!(&*self.0, Face::Virtual(_))
    }
}

/// Replaces the file whole: a crash leaves the old time or the new one.
fn keep(path: &Path, time: Timestamp) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(time.as_micros().to_string().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

impl VirtualClock {
    async fn sleep_until(&self, time: Timestamp) {
        let mut now = self.now.subscribe();
        if *now.borrow() >= time {
            return;
        }
        let _timer = Timer::new(self, time);
        // The sender lives in the clock that this method borrows, so waiting cannot fail.
        let _ = now.wait_for(|now| *now >= time).await;
    }

    fn timers(&self) -> MutexGuard<'_, BTreeMap<Timestamp, usize>> {
        // Counting cannot leave the map half-changed, so a poisoned lock is as good as any.
        self.timers.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Counts a waiter, also when its future is dropped.
struct Timer<'a>(&'a VirtualClock, Timestamp);

impl<'a> Timer<'a> {
    fn new(clock: &'a VirtualClock, time: Timestamp) -> Self {
        *clock.timers().entry(time).or_default() += 1;
        Self(clock, time)
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let mut timers = self.0.timers();
        if let Some(count) = timers.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                timers.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn virtual_time_wakes_in_order_and_never_goes_back() {
        let start = Timestamp::from_secs(100);
        let clock = Clock::new(ClockSetting::Virtual { start }, start);
        let waiter = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep(Duration::from_secs(60)).await;
                clock.now()
            }
        });
        while clock.earliest_timer().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(clock.earliest_timer(), Some(Timestamp::from_secs(160)));
        assert!(clock.advance_to(Timestamp::from_secs(160)).is_ok());
        assert_eq!(waiter.await.ok(), Some(Timestamp::from_secs(160)));
        assert_eq!(clock.advance_to(start).ok().flatten(), Some(Timestamp::from_secs(160)));
        assert_eq!(clock.earliest_timer(), None);
    }

    #[test]
    fn virtual_time_outlives_the_process() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (setting, later) = (ClockSetting::Virtual { start: Timestamp::from_secs(1) }, Timestamp::from_secs(99));
        Clock::open(setting, Timestamp::EPOCH, Some(folder.path()))?.advance_to(later)?;
        assert_eq!(Clock::open(setting, Timestamp::EPOCH, Some(folder.path()))?.now(), later);
        Ok(())
    }

    #[test]
    fn scaled_time_runs_from_the_regions_origin() {
        let origin = wall_clock() - Duration::from_secs(10);
        let clock = Clock::new(ClockSetting::Scaled { factor: 60.0 }, origin);
        let passed = clock.now().since(origin);
        assert!(passed >= Duration::from_secs(600) && passed < Duration::from_secs(660), "{passed:?}");
        assert_eq!(clock.real(Duration::from_secs(60)), Duration::from_secs(1));
    }
}
