//! Signals that stop a command. Between the two manifests of a node a stop would leave neither.

use super::show;
use anyhow::{Context as _, bail};
use std::{cell::Cell, pin::pin};
use tokio::signal::unix::{SignalKind, signal};

thread_local! {
    /// Whether a [`Span`] lives. A command runs on one thread.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// While this value lives, no signal stops the command. Every wait meanwhile has an end.
#[derive(Debug)]
pub(super) struct Span(());

impl Span {
    pub(super) fn begin() -> Self {
        INSIDE.set(true);
        Self(())
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// Does the work, unless a signal stops it outside of a [`Span`].
pub(super) async fn unless_stopped<T>(
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if !INSIDE.get() {
            bail!("stopped: run the same command again, or xvip migrate rollback");
        }
        show::say("not stopped: neither manifest is in its folder now");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::{sleep, timeout};

    #[test]
    fn a_signal_stops_the_work_only_outside_of_a_span() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let work = async |inside: bool| {
            let span = inside.then(Span::begin);
            // SAFETY: the call has no preconditions; the signal has a handler by now.
            assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
            sleep(Duration::from_millis(200)).await;
            drop(span);
            Ok(())
        };
        for inside in [true, false] {
            let ended = async { timeout(Duration::from_secs(20), unless_stopped(work(inside))).await };
            assert_eq!(runtime.block_on(ended).unwrap().is_ok(), inside);
        }
    }
}
