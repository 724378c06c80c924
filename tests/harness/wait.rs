//! Waiting for something to become true.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Looks until there is something to see, for at most `limit`. `what` names it.
///
/// # Errors
/// When the time is up, or a look fails.
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        if start.elapsed() > limit {
            bail!("after {limit:?} there is still no {what}");
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}
