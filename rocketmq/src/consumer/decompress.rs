//! Bodies that their producer has compressed: RocketMQ's clients do that by themselves, from 4 KiB on.
//!
//! Not by the client library, which takes no bound (a few bytes can become gigabytes) and reads another LZ4 than Java's client writes.

use std::io::{self, Read};

use bytes::Bytes;
use rocketmq_model::common::sys_flag::message_sys_flag::MessageSysFlag;

use super::lz4;

/// What a body may become: as much as a segment of the downlink log holds with default settings.
pub(super) const BODY_MAX: usize = 16 << 20;
/// As a power of two, what a Zstandard frame may have the decoder remember.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// Why a body can't be made out of its compressed form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("it is damaged")]
    Damaged,
    #[error("it would have more than {BODY_MAX} bytes")]
    TooLarge,
    #[error("its way of compression is unknown ({0})")]
    Unknown(i32),
    #[error("{0}")]
    Decoder(String),
}

/// The body as its producer meant it.
pub(super) fn body(sys_flag: i32, body: &Bytes) -> Result<Bytes, Problem> {
    if body.is_empty() || sys_flag & MessageSysFlag::COMPRESSED_FLAG == 0 {
        return Ok(body.clone());
    }
    let bytes = match (sys_flag & MessageSysFlag::COMPRESSION_TYPE_COMPARATOR) >> 8 {
        1 => lz4::decompress(body, BODY_MAX)?,
        2 => {
            let mut decoder = zstd::stream::read::Decoder::new(&body[..]).map_err(failed)?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(failed)?;
            read(decoder)?
        }
        // 0: producers from before there was a choice.
        0 | 3 => read(flate2::read::ZlibDecoder::new(&body[..]))?,
        other => return Err(Problem::Unknown(other)),
    };
    Ok(bytes.into())
}

fn read(decoder: impl Read) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::new();
    decoder
        .take(BODY_MAX as u64 + 1)
        .read_to_end(&mut out)
        .map_err(failed)?;
    if out.len() > BODY_MAX {
        return Err(Problem::TooLarge);
    }
    Ok(out)
}

fn failed(error: io::Error) -> Problem {
    Problem::Decoder(error.to_string())
}

#[cfg(test)]
mod tests {
    use rocketmq_model::common::compression::compression_type::CompressionType;

    use super::*;

    const WAYS: [CompressionType; 3] = [
        CompressionType::LZ4,
        CompressionType::Zstd,
        CompressionType::Zlib,
    ];

    fn flag(way: CompressionType) -> i32 {
        MessageSysFlag::COMPRESSED_FLAG | way.get_compression_flag()
    }

    #[test]
    fn what_was_compressed_is_undone() {
        let text = Bytes::from("as it was, and once more ".repeat(1000));
        for way in WAYS {
            let compressed = way.try_compression(&text).expect("compresses");
            assert!(compressed.len() < text.len());
            assert_eq!(body(flag(way), &compressed), Ok(text.clone()), "{way:?}");
            assert_eq!(body(0, &compressed), Ok(compressed), "not marked");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let zeros = vec![0; BODY_MAX + 1];
        for way in WAYS {
            let compressed = way.try_compression(&zeros).expect("compresses");
            assert!(compressed.len() < 1 << 18);
            assert_eq!(
                body(flag(way), &compressed),
                Err(Problem::TooLarge),
                "{way:?}"
            );
        }
    }

    #[test]
    fn what_is_damaged_or_unknown_has_a_reason() {
        let nonsense = Bytes::from_static(b"\x04\x22\x4d\x18 nonsense of some length");
        for way in WAYS {
            assert!(body(flag(way), &nonsense).is_err(), "{way:?}");
        }
        let unknown = MessageSysFlag::COMPRESSED_FLAG | 0x500;
        assert_eq!(body(unknown, &nonsense), Err(Problem::Unknown(5)));
    }
}
