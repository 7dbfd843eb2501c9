//! A rank that waits for a card cannot see that another is gone. A thread beside it can.

use super::{Comm, Host};
use crate::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often ranks show each other that they live.
const PULSE: Duration = Duration::from_millis(500);

/// While it lives, the ranks meet on a link of their own again and again.
pub(super) struct Watch {
    over: Arc<AtomicBool>,
}

impl Watch {
    /// Every rank starts one. `ended` hears why there is no run any more, should that be before this is dropped.
    pub fn start(host: Arc<Host>, ended: impl FnOnce(Error) + Send + 'static) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let watch = Watch { over: over.clone() };
        std::thread::spawn(move || {
            loop {
                let met = host.pulse().barrier();
                match met {
                    _ if over.load(Ordering::Relaxed) => return,
                    Ok(()) => std::thread::sleep(PULSE),
                    Err(why) => return ended(why),
                }
            }
        });
        watch
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
