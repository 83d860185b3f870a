//! The rule table: ids stay what they are, through restarts and crashes.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;
use protocol::rules::{RuleTable, TableError};

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.table");
    (dir, path)
}

#[test]
fn ids_are_stable_over_a_reopen_and_seen_by_the_reader() {
    let (_dir, path) = place();
    let mut reader = RuleTable::open_read(&path).unwrap();
    assert!(reader.is_empty());
    let mut table = RuleTable::open(&path).unwrap();
    assert_eq!(table.id_of("a/# T").unwrap(), 1);
    assert_eq!(
        table.ids_of(["b U", "a/# T", "b U", "c V"]).unwrap(),
        [2, 1, 2, 3]
    );
    drop(table);
    let mut table = RuleTable::open(&path).unwrap();
    assert_eq!(table.id_of("d W").unwrap(), 4);
    assert_eq!(table.id_of("b U").unwrap(), 2);
    reader.reload().unwrap();
    assert_eq!(
        (reader.len(), reader.text_of(2), reader.text_of(5)),
        (4, Some("b U"), None)
    );
    let lines = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = lines.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 8, "each rule stands there twice");
    assert!(lines[0].starts_with("1\t") && lines[0].ends_with("\ta/# T"));
    assert_eq!(lines[6], lines[7]);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_torn_last_line_is_cut_off_and_its_id_given_again() {
    let (_dir, path) = place();
    RuleTable::open(&path)
        .unwrap()
        .ids_of(["a T", "b U"])
        .unwrap();
    let whole = fs::read(&path).unwrap();
    for torn in ["3", "3\t", "3\t00000000\tsome ru", "\0\0\0\0", "\u{e4}"] {
        // Also torn within a character.
        let mut bytes = [whole.as_slice(), torn.as_bytes()].concat();
        bytes.pop();
        fs::write(&path, &bytes).unwrap();
        let reader = RuleTable::open_read(&path).unwrap();
        assert_eq!(reader.len(), 2, "{torn:?}");
        let mut table = RuleTable::open(&path).unwrap();
        assert_eq!(table.id_of("c V").unwrap(), 3);
        assert_eq!(RuleTable::open_read(&path).unwrap().text_of(3), Some("c V"));
    }
}

#[test]
fn a_damaged_copy_is_made_good_when_the_writer_opens_the_table() {
    let (_dir, path) = place();
    RuleTable::open(&path)
        .unwrap()
        .ids_of(["a T", "b U"])
        .unwrap();
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x15;
        fs::write(&path, &bytes).unwrap();
        let reader = RuleTable::open_read(&path).unwrap();
        assert_eq!(
            (reader.text_of(1), reader.text_of(2)),
            (Some("a T"), Some("b U")),
            "byte {at}"
        );
        let mut table = RuleTable::open(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole, "byte {at}");
        assert_eq!(table.ids_of(["b U", "a T", "c V"]).unwrap(), [2, 1, 3]);
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_broken_table_is_an_error_that_names_file_and_line() {
    let (_dir, path) = place();
    for text in [
        "nonsense\n",
        "1\ta T\n",
        "x\t00000000\ta\n",
        "4294967296\t00000000\ta\n",
    ] {
        fs::write(&path, text).unwrap();
        let error = RuleTable::open(&path).unwrap_err();
        assert!(
            matches!(&error, TableError::Corrupt { line: 1, .. }),
            "{text:?}: {error}"
        );
        assert!(error.to_string().contains(path.to_str().unwrap()));
        assert!(RuleTable::open_read(&path).is_err());
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            text,
            "nothing is lost by looking"
        );
    }
}

#[test]
fn a_failed_reload_leaves_the_table_as_it_was() {
    let (_dir, path) = place();
    RuleTable::open(&path).unwrap().id_of("a T").unwrap();
    let mut reader = RuleTable::open_read(&path).unwrap();
    fs::write(&path, "broken\n").unwrap();
    reader.reload().unwrap_err();
    assert_eq!(reader.text_of(1), Some("a T"));
}

#[test]
fn what_can_not_be_an_entry_is_refused() {
    let (_dir, path) = place();
    let mut table = RuleTable::open(&path).unwrap();
    assert!(matches!(
        table.ids_of(["fine", "a\nb"]),
        Err(TableError::Text(_))
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), "", "all or nothing");
    let sum = crc32c::crc32c(format!("{}last", u32::MAX).as_bytes());
    let line = format!("{}\t{sum:08x}\tlast\n\n", u32::MAX);
    fs::write(&path, line.repeat(2)).unwrap();
    let mut table = RuleTable::open(&path).unwrap();
    assert!(matches!(table.id_of("one more"), Err(TableError::Full(_))));
    assert_eq!(table.id_of("last").unwrap(), u32::MAX);
}

#[test]
fn a_reader_gives_no_new_ids() {
    let (_dir, path) = place();
    RuleTable::open(&path).unwrap().id_of("a T").unwrap();
    let mut reader = RuleTable::open_read(&path).unwrap();
    assert_eq!(reader.id_of("a T").unwrap(), 1);
    assert!(matches!(reader.id_of("b U"), Err(TableError::Io { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_a_table_or_a_clean_error(bytes in vec(any::<u8>(), 0..64)) {
        let (_dir, path) = place();
        fs::write(&path, &bytes).unwrap();
        let _ = RuleTable::open_read(&path);
        let _ = RuleTable::open(&path);
    }

    #[test]
    fn a_table_cut_anywhere_keeps_a_beginning_of_its_rules(rules in vec("[a-z]{1,6} [A-Z]{1,4}", 1..8), cut in any::<prop::sample::Index>()) {
        let (_dir, path) = place();
        let ids = RuleTable::open(&path).unwrap().ids_of(rules.iter().map(String::as_str)).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..cut.index(bytes.len() + 1)]).unwrap();
        let table = RuleTable::open(&path).unwrap();
        for (rule, id) in rules.iter().zip(ids) {
            let expected = (id as usize <= table.len()).then_some(rule.as_str());
            prop_assert_eq!(table.text_of(id), expected);
        }
    }
}
