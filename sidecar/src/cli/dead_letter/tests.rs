use clap::Parser;
use rocketmq::Outgoing;

use super::*;
use crate::cli::{Cli, Command};
use crate::dead_letter::{DeadLetters, Letter, each};

fn parse(args: &[&str]) -> Result<DeadLetterArgs, clap::Error> {
    let cli = Cli::try_parse_from([&["mosquitto-rocketmq", "dead-letter"], args].concat())?;
    match cli.command {
        Command::DeadLetter(args) => Ok(args),
        other => panic!("{other:?}"),
    }
}

fn call(spool: &Path, args: &[&str]) -> Result<(), String> {
    let spool = spool.display().to_string();
    let args = parse(&[args, &["--spool-dir", &spool]].concat()).map_err(|e| e.to_string())?;
    let code = run(&args).map_err(|error| format!("{error:#}"))?;
    if format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS) {
        Ok(())
    } else {
        Err(format!("{code:?}"))
    }
}

fn spool_with_letters() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let dead = DeadLetters::open(&dir.path().join(FOLDER), 1 << 20).unwrap();
    let message = Outgoing::default();
    let mut letters = [
        Letter::refused("T", &message, "a A", "too large"),
        Letter::refused("T", &message, "b B", "too large"),
        Letter::refused("T", &message, "b B", "too large"),
    ];
    letters[0].time_ms = 1;
    dead.append(&mut letters).unwrap();
    dir
}

fn left(spool: &Path) -> Vec<String> {
    let mut ids = Vec::new();
    each(&spool.join(FOLDER), |letter| {
        ids.push(letter.id);
        Ok(true)
    })
    .unwrap();
    ids
}

#[test]
fn what_is_meant_must_be_said() {
    for wrong in [
        &["show", "x"][..],
        &["purge", "1-1", "--all"],
        &["purge", "--all", "--older-than", "1d"],
        &["replay", "1-1", "--rule", "a A"],
        &["show", "1-1", "--json", "--payload"],
        &["list", "--direction", "sideways"],
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
    let dir = spool_with_letters();
    for wrong in [
        &["purge"][..],
        &["replay"],
        &["purge", "--older-than", "soon"],
        &["purge", "--rule", "a A"],
    ] {
        assert!(call(dir.path(), wrong).is_err(), "{wrong:?}");
    }
    assert_eq!(left(dir.path()).len(), 3);
}

#[test]
fn letters_are_shown_and_purged_without_a_sidecar() {
    let dir = spool_with_letters();
    for good in [
        &["list"][..],
        &["list", "--json", "--limit", "1", "--since", "2h"],
        &["show", "1-2"],
        &["show", "1-2", "--payload"],
    ] {
        call(dir.path(), good).unwrap();
    }
    let error = call(dir.path(), &["show", "9-1"]).unwrap_err();
    assert!(error.contains("9-1"), "{error}");
    let error = call(dir.path(), &["purge", "1-2", "9-1"]).unwrap_err();
    assert!(
        error.contains("9-1") && left(dir.path()).len() == 3,
        "{error}"
    );
    call(dir.path(), &["purge", "--older-than", "1d"]).unwrap();
    assert_eq!(left(dir.path()), ["1-2", "1-3"]);
    call(dir.path(), &["purge", "1-3"]).unwrap();
    call(dir.path(), &["purge", "--all", "--rule", "a A"]).unwrap();
    assert_eq!(left(dir.path()), ["1-2"]);
    call(dir.path(), &["purge", "--all"]).unwrap();
    assert!(left(dir.path()).is_empty());
}

#[test]
fn without_a_sidecar_nothing_is_replayed_and_nothing_lost() {
    let dir = spool_with_letters();
    let error = call(dir.path(), &["replay", "--all"]).unwrap_err();
    assert!(error.contains("no sidecar runs on"), "{error}");
    assert_eq!(left(dir.path()).len(), 3);
    let error = call(&dir.path().join("none"), &["list"]).unwrap_err();
    assert!(error.contains("there is no spool"), "{error}");
}
