//! Waits until a request is due.
//!
//! tokio's timers have a resolution of a millisecond, which is too coarse for latencies of 100 us. On Linux a timerfd is
//! precise to some microseconds; other systems use tokio's timer.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;

#[cfg(target_os = "linux")]
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
#[cfg(target_os = "linux")]
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) enum Timer {
    #[cfg(target_os = "linux")]
    TimerFd(AsyncFd<OwnedFd>),
    #[cfg_attr(target_os = "linux", allow(dead_code, reason = "tests on paused time use it"))]
    Tokio,
}

impl Timer {
    /// The most precise timer of the system.
    #[cfg(target_os = "linux")]
    #[allow(
        deprecated,
        reason = "unsound for a type whose descriptor may change under it, which an `OwnedFd`'s does not; the other needs `unsafe`"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self::TimerFd(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    /// The most precise timer of the system.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self::Tokio)
    }

    pub(super) async fn until(&self, due: Instant) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::TimerFd(timer) => {
                let wait = due.saturating_duration_since(Instant::now());
                // A time of zero would disarm it.
                if wait.is_zero() {
                    return Ok(());
                }
                let once = Itimerspec {
                    it_interval: Timespec::default(),
                    it_value: Timespec::try_from(wait).map_err(io::Error::other)?,
                };
                timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
                loop {
                    let mut ready = timer.readable().await?;
                    let mut ticks = [0; 8];
                    match ready.try_io(|timer| Ok(rustix::io::read(timer, &mut ticks)?)) {
                        Ok(read) => return read.map(drop),
                        // A stale readiness.
                        Err(_would_block) => continue,
                    }
                }
            }
            Self::Tokio => {
                tokio::time::sleep_until(due).await;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn it_is_never_early_and_mostly_exact() {
        let timer = Timer::new().unwrap();
        let mut late = Vec::new();
        for _ in 0..50 {
            let due = Instant::now() + Duration::from_micros(300);
            timer.until(due).await.unwrap();
            late.push(Instant::now().checked_duration_since(due).expect("early"));
        }
        timer.until(Instant::now()).await.unwrap();
        late.sort();
        // A tick of tokio's would be 700 us late; this machine may be busy, so only the best tenth must be exact.
        if cfg!(target_os = "linux") {
            assert!(late[5] < Duration::from_micros(400), "{:?}", late[5]);
        }
    }
}
