use std::io::Cursor;

use proptest::prelude::*;

use super::*;

type Found = Vec<(String, String, u8)>;

fn read(bytes: &[u8]) -> (Found, Result<(), SavedError>) {
    let mut found = Found::new();
    let saved = Saved::new(Cursor::new(bytes), bytes.len() as u64);
    let result = saved.read(|id, filter, qos| found.push((id.to_owned(), filter.to_owned(), qos)));
    (found, result)
}

fn header(version: u32) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([0; 4]);
    bytes.extend(version.to_be_bytes());
    bytes
}

fn chunk(version: u32, kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = match version {
        5.. => u32::from(kind).to_be_bytes().to_vec(),
        _ => kind.to_be_bytes().to_vec(),
    };
    bytes.extend(u32::try_from(body.len()).expect("short").to_be_bytes());
    bytes.extend(body);
    bytes
}

fn len(text: &str) -> [u8; 2] {
    u16::try_from(text.len()).expect("short").to_be_bytes()
}

fn subscription(version: u32, id: &str, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = Vec::new();
    if version >= 5 {
        body.extend([0, 0, 0, 0]);
        body.extend(len(id));
        body.extend(len(filter));
        body.extend([qos, 0, 0, 0]);
        body.extend(id.as_bytes());
        body.extend(filter.as_bytes());
    } else {
        for text in [id, filter] {
            body.extend(len(text));
            body.extend(text.as_bytes());
        }
        body.push(qos);
    }
    chunk(version, 5, &body)
}

/// With chunks of every other kind, and one of none, around the subscriptions.
fn database(version: u32) -> Vec<u8> {
    let mut bytes = header(version);
    bytes.extend(chunk(version, 1, &[0; 16]));
    bytes.extend(chunk(version, 2, &[7; 300_000]));
    bytes.extend(chunk(version, 6, &[1; 40]));
    bytes.extend(subscription(version, "device", "chat/#", 1));
    bytes.extend(chunk(version, 3, b""));
    bytes.extend(chunk(version, 99, b"later"));
    bytes.extend(subscription(version, "gerät", "$share/g/a/+", 2));
    bytes.extend(chunk(version, 4, &[0; 8]));
    bytes
}

#[test]
fn each_version_is_read() {
    let expected: Found = vec![
        ("device".into(), "chat/#".into(), 1),
        ("gerät".into(), "$share/g/a/+".into(), 2),
    ];
    for version in 2..=6 {
        let (found, result) = read(&database(version));
        assert!(result.is_ok(), "{version}: {result:?}");
        assert_eq!(found, expected, "{version}");
    }
    assert!(matches!(read(&database(7)).1, Err(SavedError::Version(7))));
}

#[test]
fn what_is_none_says_so() {
    assert!(matches!(read(b"").1, Err(SavedError::Short)));
    assert!(matches!(
        read(b"not a database at all, but long").1,
        Err(SavedError::Magic)
    ));
    assert!(matches!(read(&header(6)), (found, Ok(())) if found.is_empty()));
    let broken = [
        subscription(6, "", "a", 0),
        subscription(6, "a", "", 0),
        subscription(6, "a", "b", 3),
        subscription(4, "a", "b", 3),
        chunk(6, 5, &[0; 11]),
        // Lengths of 1 and 1, and one byte too many.
        chunk(6, 5, b"\0\0\0\0\0\x01\0\x01\x01\0\0\0abc"),
        chunk(6, 5, b"\0\0\0\0\0\x01\xff\xff\x01\0\0\0ab"),
        chunk(6, 5, b"\0\0\0\0\0\x01\0\x01\x01\0\0\0\xffb"),
    ];
    for chunk in broken {
        let version = if chunk[0] == 0 && chunk[1] == 5 { 4 } else { 6 };
        let mut bytes = header(version);
        bytes.extend(&chunk);
        let result = read(&bytes).1;
        assert!(
            matches!(result, Err(SavedError::Subscription(23))),
            "{chunk:?} {result:?}"
        );
    }
}

#[test]
fn a_database_that_is_cut_short_is_noticed_wherever_it_is() {
    for version in [4, 6] {
        let whole = database(version);
        let (found, _) = read(&whole);
        // Not each of the 300,000 in the midst.
        let ends = (0..200).chain(whole.len() - 200..whole.len());
        for end in ends {
            let (some, result) = read(&whole[..end]);
            assert!(found.starts_with(&some));
            // Behind a whole chunk, nothing tells.
            let is_short = matches!(result, Err(SavedError::Short));
            assert!(is_short || result.is_ok(), "{end}: {result:?}");
            assert!(is_short || end >= 23, "{end}");
        }
    }
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), version in 0_u32..8) {
        let _ = read(&bytes);
        let mut framed = header(version);
        framed.extend(&bytes);
        let _ = read(&framed);
    }

    #[test]
    fn changed_bytes_are_no_panic(
        version in 2_u32..7,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = header(version);
        bytes.extend(chunk(version, 6, &[1; 40]));
        bytes.extend(subscription(version, "device", "chat/#", 1));
        bytes.extend(subscription(version, "other", "chat/+", 0));
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let (found, result) = read(&bytes);
        prop_assert!(found.len() <= 2 || result.is_ok());
    }
}
