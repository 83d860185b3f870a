//! When to end: a signal, or Mosquitto is gone.

use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Becomes true once the sidecar shall end, and stays so.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens for SIGTERM and SIGINT and, when standard input is a pipe, for its end: the plugin holds the other side and
    /// writes nothing. A second signal ends the process at once; what is unsent stays in the spool.
    ///
    /// # Errors
    /// When the system has no room for signal handlers or a thread.
    pub(crate) fn listen() -> std::io::Result<Stop> {
        let (sender, receiver) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let by_signal = sender.clone();
        tokio::spawn(async move {
            let mut is_first = true;
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if !std::mem::replace(&mut is_first, false) {
                    log::warn!("a second signal: ending at once");
                    std::process::exit(i32::from(crate::app::EXIT_LEFT));
                }
                log::info!("asked to end");
                by_signal.send_replace(true);
            }
        });
        if is_life_line(Path::new("/proc/self/fd/0")) {
            std::thread::Builder::new()
                .name("life-line".to_owned())
                .spawn(move || {
                    wait_for_end(std::io::stdin().lock());
                    log::info!("Mosquitto is gone");
                    sender.send_replace(true);
                })?;
        }
        Ok(Stop(receiver))
    }

    /// For tests.
    #[cfg(test)]
    pub(crate) fn never() -> (watch::Sender<bool>, Stop) {
        let (sender, receiver) = watch::channel(false);
        (sender, Stop(receiver))
    }

    /// Returns once the sidecar shall end.
    pub(crate) async fn requested(&mut self) {
        // An error means that nobody is left who could ask: as good as being asked.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether the sidecar shall end.
    pub(crate) fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

/// Only a pipe is a life-line: from systemd standard input is /dev/null, whose end means nothing.
fn is_life_line(stdin: &Path) -> bool {
    std::fs::metadata(stdin).is_ok_and(|data| data.file_type().is_fifo())
}

fn wait_for_end(mut input: impl Read) {
    let mut buffer = [0; 64];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_into_the_life_line_does_not_end_it() {
        wait_for_end(&b"some bytes"[..]);
    }

    #[test]
    fn dev_null_and_files_are_no_life_line() {
        assert!(!is_life_line(Path::new("/dev/null")));
        assert!(!is_life_line(Path::new("/proc/self/exe")));
        assert!(!is_life_line(Path::new("/nonexistent")));
    }

    #[tokio::test]
    async fn a_request_is_seen_and_stays() {
        let (sender, mut stop) = Stop::never();
        assert!(!stop.is_requested());
        sender.send_replace(true);
        stop.requested().await;
        stop.requested().await;
        assert!(stop.is_requested());
    }
}
