//! The log against a model of it: random operations, with both sides closed and opened again at random points.
#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests too, not only the tests.

mod common;

use std::collections::VecDeque;
use std::time::Duration;

use common::{fast, open_reader, open_writer};
use handoff::AppendError;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Poll,
    Release,
    ReopenReader,
    ReopenWriter,
    RestartMachine,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0usize..1500).prop_map(Step::Append),
        1 => (3900usize..4200).prop_map(Step::Append),
        10 => Just(Step::Poll),
        3 => Just(Step::Release),
        1 => Just(Step::ReopenReader),
        1 => Just(Step::ReopenWriter),
        1 => Just(Step::RestartMachine),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn the_log_is_a_queue_whatever_is_reopened_when(steps in vec(step(), 1..150)) {
        let dir = tempfile::Builder::new().tempdir_in(fast()).unwrap();
        let mut writer = Some(open_writer(dir.path()));
        let mut reader = Some(open_reader(dir.path()));
        // Appended and not released; the first `polled` of them were polled.
        let mut queue: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
        let (mut polled, mut last) = (0, None);
        for (i, step) in steps.into_iter().enumerate() {
            let (w, r) = (writer.as_mut().unwrap(), reader.as_mut().unwrap());
            match step {
                Step::Append(len) => {
                    let payload = vec![i as u8; len];
                    let mut appended = w.append(&payload);
                    // With nothing in the log there will be room, however slow the machine is.
                    let patience = if queue.is_empty() && w.released() == w.end() { 60_000 } else { 20 };
                    if matches!(appended, Err(AppendError::Full)) && w.wait_for_room(len, Duration::from_millis(patience)) {
                        appended = w.append(&payload);
                    }
                    match appended {
                        Ok(position) => {
                            prop_assert!(last < Some(position));
                            last = Some(position);
                            queue.push_back((position, payload));
                        }
                        Err(AppendError::TooLarge { max, .. }) => prop_assert!(len > max),
                        Err(AppendError::Full) => prop_assert!(!queue.is_empty() || w.released() < w.end()),
                        Err(error) => panic!("{error}"),
                    }
                }
                Step::Poll => {
                    let frame = r.poll().unwrap().map(|f| (f.position, f.payload.to_vec()));
                    prop_assert_eq!(frame.as_ref(), queue.get(polled));
                    polled += usize::from(frame.is_some());
                }
                Step::Release => {
                    r.release(r.position());
                    queue.drain(..polled);
                    polled = 0;
                }
                Step::ReopenReader => {
                    reader = None;
                    reader.get_or_insert_with(|| open_reader(dir.path()));
                    polled = 0;
                }
                Step::ReopenWriter => {
                    writer = None;
                    writer.get_or_insert_with(|| open_writer(dir.path()));
                }
                Step::RestartMachine => {
                    drop((writer.take(), reader.take()));
                    let cursor = std::fs::OpenOptions::new().write(true).open(dir.path().join("cursor")).unwrap();
                    std::os::unix::fs::FileExt::write_all_at(&cursor, &[0xEE; 8], 192).unwrap();
                    writer = Some(open_writer(dir.path()));
                    reader = Some(open_reader(dir.path()));
                    polled = 0;
                }
            }
        }
    }
}
