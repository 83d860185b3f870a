//! What the broker does not take goes back to the sidecar, over the uplink log, and becomes a dead letter there.

use std::fmt::{self, Write};

use handoff::{AppendError, Frame};
use protocol::message::{DecodeError, Returned};

use crate::inject::InjectError;
use crate::uplink::now_ms;

/// Bytes of a reason; what is longer is cut.
const REASON_MAX: usize = 240;

/// Takes back what can't be injected. After `Ok` it is kept.
pub(crate) trait GiveBack {
    /// Keeps `returned` for the sidecar.
    fn give_back(&mut self, returned: &Returned<'_>) -> Result<(), AppendError>;
}

/// Why a frame of the downlink log was not injected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// It is no message.
    #[error("it can't be read: {0}")]
    Unreadable(DecodeError),
    /// The broker does not take it.
    #[error("{0}")]
    NotInjected(InjectError),
    /// It would reach those whom it is not for.
    #[error(
        "it is for some of its subscribers alone, and this broker can't be told so: put our `plugin` line before all others, without per_listener_settings"
    )]
    CannotSelect,
    /// It is for a shared subscription that has no member here who may have it.
    #[error("no member of its group takes it here")]
    NobodyTakes,
}

/// Gives `frame` back with the reason. Nothing is allocated.
pub(crate) fn give_back(
    frame: &Frame<'_>,
    epoch: u64,
    refusal: &Refusal,
    to: &mut impl GiveBack,
) -> Result<(), AppendError> {
    let mut reason = Reason::default();
    reason.write(format_args!("{refusal}"));
    let returned = Returned {
        reason: reason.as_str(),
        returned_at_ms: now_ms(),
        epoch,
        position: frame.position,
        payload: frame.payload,
    };
    match to.give_back(&returned) {
        Err(AppendError::TooLarge { len, max }) => {
            // The segments of the log down are the smaller ones, unless an earlier version made these: then the reason is kept at least.
            let mut reason = Reason::default();
            reason.write(format_args!(
                "{refusal}; its {len} bytes don't fit into the uplink log ({max} do)"
            ));
            to.give_back(&Returned {
                reason: reason.as_str(),
                payload: &[],
                ..returned
            })
        }
        other => other,
    }
}

/// Text on the stack.
struct Reason {
    bytes: [u8; REASON_MAX],
    len: usize,
    is_cut: bool,
}

impl Default for Reason {
    fn default() -> Self {
        Reason {
            bytes: [0; REASON_MAX],
            len: 0,
            is_cut: false,
        }
    }
}

impl Reason {
    fn write(&mut self, text: fmt::Arguments<'_>) {
        // Never fails: what does not fit is cut.
        let _ = self.write_fmt(text);
    }

    fn as_str(&self) -> &str {
        // Cut at a character's end alone.
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl Write for Reason {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_cut {
            return Ok(());
        }
        let fits = text.floor_char_boundary(REASON_MAX - self.len);
        self.is_cut = fits < text.len();
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_alloc::allocations;

    /// Takes what is at most `max` bytes long.
    struct Log {
        max: usize,
        kept: Vec<(String, usize)>,
    }

    impl GiveBack for Log {
        fn give_back(&mut self, returned: &Returned<'_>) -> Result<(), AppendError> {
            let (len, max) = (returned.encoded_len(), self.max);
            if len > max {
                return Err(AppendError::TooLarge { len, max });
            }
            self.kept
                .push((returned.reason.to_owned(), returned.payload.len()));
            Ok(())
        }
    }

    fn frame(payload: &[u8]) -> Frame<'_> {
        Frame {
            position: 16,
            next: 64,
            payload,
            repaired: false,
        }
    }

    #[test]
    fn what_the_log_can_never_hold_leaves_its_reason_at_least() {
        let mut log = Log {
            max: 400,
            kept: Vec::new(),
        };
        let refusal = Refusal::NotInjected(InjectError::Refused(3));
        give_back(&frame(&[0; 100]), 1, &refusal, &mut log).expect("kept");
        give_back(&frame(&[0; 500]), 1, &refusal, &mut log).expect("kept");
        assert_eq!(
            log.kept[0],
            ("Mosquitto refused it (code 3)".to_owned(), 100)
        );
        assert_eq!(log.kept[1].1, 0);
        assert!(
            log.kept[1]
                .0
                .starts_with("Mosquitto refused it (code 3); its 5")
        );
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let mut reason = Reason::default();
        reason.write(format_args!("a{}{}", "ü".repeat(200), "more"));
        assert_eq!(reason.as_str(), format!("a{}", "ü".repeat(119)));
    }

    #[test]
    fn nothing_is_allocated() {
        struct Nothing;
        impl GiveBack for Nothing {
            fn give_back(&mut self, _: &Returned<'_>) -> Result<(), AppendError> {
                Ok(())
            }
        }
        let before = allocations();
        let refusal = Refusal::NotInjected(InjectError::Topic);
        give_back(&frame(b"x"), 1, &refusal, &mut Nothing).expect("kept");
        assert_eq!(allocations(), before);
    }
}
