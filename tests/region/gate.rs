//! Who shares the machine with whom: a test that measures how soon services are back has it to itself.

use std::sync::{Condvar, Mutex, MutexGuard};

#[derive(Default)]
struct Inside {
    together: usize,
    alone: bool,
}

static INSIDE: Mutex<Inside> = Mutex::new(Inside { together: 0, alone: false });
static LEFT: Condvar = Condvar::new();

fn inside() -> MutexGuard<'static, Inside> {
    // A test that panics leaves the counts whole.
    INSIDE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A test's place, until it is dropped.
pub struct Place {
    alone: bool,
}

/// Waits until nobody is alone.
pub fn enter() -> Place {
    let mut inside = LEFT.wait_while(inside(), |inside| inside.alone).unwrap_or_else(|poisoned| poisoned.into_inner());
    inside.together += 1;
    Place { alone: false }
}

/// Waits until nobody is there.
pub fn enter_alone() -> Place {
    let busy = |inside: &mut Inside| inside.alone || inside.together > 0;
    let mut inside = LEFT.wait_while(inside(), busy).unwrap_or_else(|poisoned| poisoned.into_inner());
    inside.alone = true;
    Place { alone: true }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = inside();
        if self.alone {
            inside.alone = false;
        } else {
            inside.together -= 1;
        }
        LEFT.notify_all();
    }
}
