//! CRC32C run backwards: finds the one damaged byte that explains a wrong checksum.
//!
//! A CRC is linear: the difference of two checksums over equally many bytes depends on the difference of these bytes alone. One damaged byte, `k` bytes from the
//! end and changed by `e`, makes the difference `T^k(TABLE[e])`, where `T` is the step of the CRC over a zero byte. `T` can be undone, so the damage is found by
//! undoing steps until what is left is a single byte: a table look-up for each byte of the data.

/// Castagnoli's polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82F6_3B78;
/// Shorter data is searched in one go; longer data in lanes, since the steps of one lane wait for each other.
const LANES: usize = 8;
const LANES_FROM: usize = 4096;
/// More places than this explain nothing.
pub(crate) const PLACES_MAX: usize = 8;

const TABLE: [u32; 256] = table();
/// By the upper byte of a state: what undoes a step. In a reflected CRC the upper bytes of the table are all different.
const UNDO: [u32; 256] = undo_table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

const fn undo_table() -> [u32; 256] {
    let mut undo = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        undo[(TABLE[byte] >> 24) as usize] = TABLE[byte] << 8 | byte as u32;
        byte += 1;
    }
    undo
}

fn undo(state: u32) -> u32 {
    state << 8 ^ UNDO[(state >> 24) as usize]
}

/// A damaged byte: its distance from the end of the checked bytes (0: the last one), and what it was changed by (xor).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) from_end: usize,
    pub(crate) change: u8,
}

/// Every place in `len` checked bytes where a change of one byte makes the difference `syndrome` (not 0) between the checksum that is and the one that should
/// be. `None` when there are more than anyone could choose from.
pub(crate) fn places(syndrome: u32, len: usize) -> Option<Vec<Damage>> {
    let mut found = Vec::new();
    let lane = if len < LANES_FROM {
        len
    } else {
        len.div_ceil(LANES)
    };
    let mut starts = [syndrome; LANES];
    if lane < len {
        let jump = power(undo, lane);
        for i in 1..LANES {
            starts[i] = apply(&jump, starts[i - 1]);
        }
    }
    let lanes = if lane < len { LANES } else { 1 };
    for step in 0..lane {
        let mut hit = false;
        for state in &mut starts[..lanes] {
            *state = undo(*state);
            hit |= *state < 256;
        }
        if !hit {
            continue;
        }
        for (i, &state) in starts[..lanes].iter().enumerate() {
            let from_end = i * lane + step;
            if state < 256 && from_end < len {
                if found.len() == PLACES_MAX {
                    return None;
                }
                found.push(Damage {
                    from_end,
                    change: state as u8,
                });
            }
        }
    }
    Some(found)
}

/// The difference between two states, a growing number of bytes later.
pub(crate) struct Later {
    map: Map,
    /// The last step and its map: steps are mostly equal.
    step: (usize, Map),
}

impl Later {
    pub(crate) fn new() -> Later {
        Later {
            map: identity(),
            step: (0, identity()),
        }
    }

    /// `bytes` further on.
    pub(crate) fn advance(&mut self, bytes: usize) {
        if self.step.0 != bytes {
            self.step = (bytes, power(zero_step, bytes));
        }
        self.map = self.map.map(|column| apply(&self.step.1, column));
    }

    /// What the difference has become.
    pub(crate) fn of(&self, difference: u32) -> u32 {
        apply(&self.map, difference)
    }
}

fn zero_step(state: u32) -> u32 {
    state >> 8 ^ TABLE[(state & 0xFF) as usize]
}

/// A linear map of states: what it makes of each bit.
type Map = [u32; 32];

fn identity() -> Map {
    std::array::from_fn(|bit| 1 << bit)
}

fn apply(map: &Map, state: u32) -> u32 {
    let mut out = 0;
    for (bit, column) in map.iter().enumerate() {
        out ^= column & 0u32.wrapping_sub(state >> bit & 1);
    }
    out
}

/// `n` steps at once.
fn power(step: impl Fn(u32) -> u32, mut n: usize) -> Map {
    let mut out = identity();
    let mut square: Map = std::array::from_fn(|bit| step(1 << bit));
    while n > 0 {
        if n & 1 == 1 {
            out = out.map(|column| apply(&square, column));
        }
        square = square.map(|column| apply(&square, column));
        n >>= 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_one_byte_is_found_and_no_other_place_in_short_data() {
        let data: Vec<u8> = (0..300u32).map(|i| (i * 7) as u8).collect();
        let good = crc32c::crc32c(&data);
        for at in 0..data.len() {
            for change in [1u8, 0x80, 0x5A, 0xFF] {
                let mut bad = data.clone();
                bad[at] ^= change;
                let found = places(crc32c::crc32c(&bad) ^ good, data.len());
                let from_end = data.len() - 1 - at;
                assert_eq!(found, Some(vec![Damage { from_end, change }]));
            }
        }
    }

    #[test]
    fn a_difference_goes_on_as_the_checksum_does() {
        let (one, other) = (crc32c::crc32c(b"one"), crc32c::crc32c(b"other"));
        let mut later = Later::new();
        let mut rest = Vec::new();
        for bytes in [0, 1, 16, 16, 300, 65_536] {
            later.advance(bytes);
            rest.resize(rest.len() + bytes, 0x77);
            let found = crc32c::crc32c_append(one, &rest) ^ crc32c::crc32c_append(other, &rest);
            assert_eq!(later.of(one ^ other), found);
        }
    }

    #[test]
    fn a_change_is_found_in_each_lane_of_long_data() {
        for len in [4096, 4097, 100_003, (1 << 20) + 5] {
            let mut data = vec![0x33; len];
            let good = crc32c::crc32c(&data);
            for at in [0, 1, len / 9, len / 3, len / 2, len - len / 8, len - 1] {
                data[at] ^= 0x41;
                let found = places(crc32c::crc32c(&data) ^ good, len).unwrap();
                data[at] ^= 0x41;
                let here = Damage {
                    from_end: len - 1 - at,
                    change: 0x41,
                };
                assert!(found.contains(&here), "{len} {at}");
            }
        }
    }
}
