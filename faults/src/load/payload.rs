//! What the messages of the load say. Each byte of it follows from the message's number, so that an arrival can be held against
//! what was sent: cut short, mixed up with another one, or with a single byte changed, it is no arrival.

use harness::ledger::{Number, number, payload};

/// Length of what comes down.
const DOWN_BYTES: usize = 128;

/// The payload of a device's message, as long as this or as its number needs.
pub(crate) fn up(message: Number, bytes: usize) -> String {
    filled(payload(message), message, bytes)
}

/// The body of a message on its way down.
pub(crate) fn down(message: Number, attempt: u32) -> String {
    let text = format!("{} attempt {attempt}", payload(message));
    filled(text, message, DOWN_BYTES)
}

/// The number of a message that [`up`] made; what is wrong with it where it is not that.
pub(crate) fn read_up(body: &[u8], bytes: usize) -> Result<Number, String> {
    let message = number(body).ok_or_else(|| format!("no message of ours: {}", shown(body)))?;
    same(body, &up(message, bytes)).map(|()| message)
}

/// Number and attempt of a message that [`down`] made; what is wrong with it where it is not that.
pub(crate) fn read_down(body: &[u8]) -> Result<(Number, u32), String> {
    let attempt = || {
        std::str::from_utf8(body)
            .ok()?
            .split(' ')
            .nth(5)?
            .parse()
            .ok()
    };
    let (message, attempt) = number(body)
        .zip(attempt())
        .ok_or_else(|| format!("no message of ours: {}", shown(body)))?;
    same(body, &down(message, attempt)).map(|()| (message, attempt))
}

fn same(body: &[u8], sent: &str) -> Result<(), String> {
    if body == sent.as_bytes() {
        return Ok(());
    }
    let at = body.iter().zip(sent.as_bytes()).position(|(a, b)| a != b);
    Err(format!(
        "differs from what was sent at byte {} ({} bytes of {}): {}",
        at.unwrap_or(body.len().min(sent.len())),
        body.len(),
        sent.len(),
        shown(body)
    ))
}

fn shown(body: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&body[..body.len().min(60)]))
}

/// The text, and letters behind it that no other message has at the same places.
fn filled(mut text: String, (device, sequence): Number, bytes: usize) -> String {
    text.push(' ');
    // Knuth's generator (MMIX); its high bits are the better ones.
    let mut state = sequence ^ ((device as u64) << 48);
    while text.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let letter = u8::try_from((state >> 33) % 26).unwrap_or(0);
        text.push(char::from(b'a' + letter));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_read_back() {
        for bytes in [0, 128, 2_000] {
            let text = up((3, 14), bytes);
            assert_eq!(read_up(text.as_bytes(), bytes), Ok((3, 14)));
        }
        assert_eq!(read_down(down((3, 14), 2).as_bytes()), Ok(((3, 14), 2)));
    }

    #[test]
    fn a_damaged_message_is_no_arrival() {
        let sent = up((3, 14), 128);
        let mut flipped = sent.clone().into_bytes();
        flipped[100] ^= 1;
        let other = up((3, 15), 128);
        let mixed = [&sent.as_bytes()[..64], &other.as_bytes()[64..]].concat();
        for damaged in [&flipped[..], &mixed, &sent.as_bytes()[..127], b"", b"x"] {
            assert!(read_up(damaged, 128).is_err(), "{}", shown(damaged));
        }
        let longer = [sent.as_bytes(), b"x"].concat();
        assert!(read_up(&longer, 128).is_err());
        let mut flipped = down((3, 14), 2).into_bytes();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(read_down(&flipped).is_err());
        assert!(read_down(sent.as_bytes()).is_err());
    }
}
