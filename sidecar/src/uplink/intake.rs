//! The intake: a thread that reads the hand-off log, has its frames dealt out, and gives back what is done with.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use handoff::{Position, ReadError, Reader, Waiter};
use protocol::config::Config;
use protocol::message::Epochs;
use tokio::runtime::Handle;

use super::dealer::Dealer;
use super::rules::Rules;
use super::topic;
use super::{Control, DrainOutcome};

/// So many messages are dealt out at once while the log has more.
const DEAL: usize = 256;
/// How long the thread sleeps at the end of the log: with frames under way, whose positions are to be given back, and without.
const NAP_BUSY: Duration = Duration::from_millis(20);
const NAP_IDLE: Duration = Duration::from_millis(500);
/// Messages that come at most this far apart are a stream.
const STREAM_GAP: Duration = Duration::from_millis(1);
/// In a stream the thread looks again after this, and so many times, before it goes to sleep for good: while it only
/// blinks, the plugin has nobody to wake, and Mosquitto's thread is spared a system call of some microseconds for every
/// few messages.
const BLINK: Duration = Duration::from_micros(200);
const BLINKS: usize = 5;
/// The pause after an error of the system, and while a segment is missing.
pub(super) const PAUSE: Duration = Duration::from_millis(500);
/// So much of a damaged stretch is kept as a dead letter.
const DAMAGE_BYTES_MAX: usize = 1 << 20;

pub(super) struct Intake {
    reader: Reader,
    waiter: Waiter,
    control: Arc<Control>,
    in_flight_bytes_max: u64,
    /// Whether the last message came soon after the log had been read to its end.
    is_stream: bool,
    dealer: Dealer,
}

impl Intake {
    pub(super) fn new(
        config: &Config,
        reader: Reader,
        epochs: Epochs,
        rules: Rules,
        shared: Arc<topic::Shared>,
        control: Arc<Control>,
        runtime: Handle,
    ) -> Intake {
        let dealing = Arc::clone(&control);
        let dealer = Dealer::new(config, epochs, rules, shared, dealing, runtime);
        Intake {
            waiter: reader.waiter(),
            reader,
            control,
            in_flight_bytes_max: config.in_flight_bytes_max,
            is_stream: false,
            dealer,
        }
    }

    /// Reads until told to drain; then on to the log's end at that moment, as long as the time allows.
    pub(super) fn run(mut self) -> DrainOutcome {
        let mut goal: Option<(Position, Instant)> = None;
        loop {
            if goal.is_none() {
                goal = self
                    .control
                    .deadline()
                    .map(|deadline| (self.reader.end(), deadline));
            }
            if let Some((end, deadline)) = goal
                && (self.reader.position() >= end
                    || self.dealer.is_stuck
                    || Instant::now() >= deadline)
            {
                return self.end(deadline);
            }
            // With a sidecar that was started apart, Mosquitto may have begun anew meanwhile.
            if let Err(error) = self.dealer.epochs.refresh() {
                log::error!("uplink.epochs can't be read: {error}");
            }
            self.read_on();
            self.release();
        }
    }

    /// Reads what is there, and waits when there is nothing or no room for more.
    fn read_on(&mut self) {
        let window = Arc::clone(&self.dealer.shared.window);
        loop {
            if window.bytes() >= self.in_flight_bytes_max {
                self.dealer.deal();
                window.wait_below(self.in_flight_bytes_max, NAP_BUSY);
                return;
            }
            match self.reader.poll() {
                Ok(Some(frame)) => self.dealer.take(&frame),
                Ok(None) => break,
                Err(ReadError::Corrupt { from, to, reason }) => {
                    let raw = self.reader.raw(from, to, DAMAGE_BYTES_MAX);
                    self.dealer.skip(from, to, &reason, &raw);
                }
                Err(error) => {
                    log::error!("the hand-off log can't be read, trying again: {error}");
                    self.dealer.deal();
                    std::thread::sleep(PAUSE);
                    return;
                }
            }
            if self.dealer.held >= DEAL || self.dealer.is_stuck {
                self.dealer.deal();
                return;
            }
        }
        self.dealer.deal();
        let nap = if window.is_empty() {
            NAP_IDLE
        } else {
            NAP_BUSY
        };
        if window.is_empty() {
            self.release();
        }
        if self.reader.is_stranded() {
            // The end lies further on and would not be waited for: not to look all the time.
            std::thread::sleep(PAUSE);
        } else if !self.control.is_draining() {
            self.wait_for_more(nap);
        }
    }

    /// Waits for the log to grow, at most about `nap`.
    fn wait_for_more(&mut self, nap: Duration) {
        let seen = self.reader.position();
        if self.is_stream {
            for _ in 0..BLINKS {
                std::thread::sleep(BLINK);
                if self.reader.end() > seen {
                    return;
                }
            }
        }
        let asleep = Instant::now();
        self.is_stream = self.waiter.wait_beyond(seen, nap) > seen && asleep.elapsed() < STREAM_GAP;
    }

    fn release(&mut self) {
        let shared = &self.dealer.shared;
        if cfg!(feature = "break-on-purpose") {
            self.reader.release(self.reader.position());
        }
        if let Some(done) = shared.window.take_done() {
            // Counted first: what is released never comes again, and what is counted is not counted again when it comes.
            if !shared.window.is_counted(done.position) {
                let frames = self.reader.frames_before(done.position);
                shared.metrics.settle_uplink(&done, frames);
            }
            self.reader.release(done.position);
        }
        shared
            .metrics
            .uplink_log
            .set(self.reader.released(), self.reader.end());
        let repaired = &shared.metrics.repaired_frames;
        repaired.store(self.reader.repaired(), Relaxed);
    }

    fn end(mut self, deadline: Instant) -> DrainOutcome {
        self.dealer.deal();
        let window = Arc::clone(&self.dealer.shared.window);
        while !window.is_empty() && Instant::now() < deadline {
            window.wait_empty(
                deadline
                    .saturating_duration_since(Instant::now())
                    .min(NAP_BUSY),
            );
            self.release();
        }
        self.release();
        match self.reader.end().saturating_sub(self.reader.released()) {
            0 => DrainOutcome::Drained,
            left => DrainOutcome::TimedOut { left },
        }
    }
}
