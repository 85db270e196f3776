//! The signals that ask a program to stop.

use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use super::output;

/// Waits for the signals that ask a program to stop.
pub(crate) struct Stop {
    runtime: tokio::runtime::Runtime,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    /// From here on they are waited for, and end nothing by themselves.
    pub(crate) fn prepare() -> anyhow::Result<Stop> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        drop(entered);
        Ok(Stop { runtime, terminate, interrupt })
    }

    /// Waits for the next of them.
    pub(crate) fn wait(mut self) -> Stop {
        let Stop { runtime, terminate, interrupt } = &mut self;
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = interrupt.recv() => (),
            }
        });
        self
    }

    /// From here on the next one ends the program at once, for whoever does not want to wait for the drain.
    pub(crate) fn or_at_once(self) -> std::io::Result<()> {
        self.then(|| {
            output::complain("told to stop a second time: what was begun is cut off");
            std::process::exit(1);
        })
    }

    /// Does something when the next one comes, if it does.
    pub(crate) fn then(self, act: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let waiting = move || {
            self.wait();
            act();
        };
        thread::Builder::new().name("bellwether-stop".to_owned()).spawn(waiting).map(drop)
    }

    /// Does something when the next one comes, and when the one after that does, of which it is told.
    pub(crate) fn then_twice(self, mut act: impl FnMut(bool) + Send + 'static) -> std::io::Result<()> {
        let waiting = move || {
            let stop = self.wait();
            act(false);
            stop.wait();
            act(true);
        };
        thread::Builder::new().name("bellwether-stop".to_owned()).spawn(waiting).map(drop)
    }
}
