//! What a frame costs either side: `cargo bench -p mosquitto-rocketmq-handoff`.
//!
//! Append and poll take turns in one thread, in batches, so that each is measured alone and no side ever sleeps.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use handoff::{AppendError, LogOptions, Reader, ReaderOptions, SyncPolicy, Writer};

const BATCH: u64 = 1000;

struct Log {
    writer: Writer,
    reader: Reader,
    payload: Vec<u8>,
    _dir: tempfile::TempDir,
}

impl Log {
    fn new(len: usize) -> Log {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions {
            sync: SyncPolicy::None,
            ..LogOptions::default()
        };
        let writer = Writer::open(dir.path(), &options).unwrap();
        let reader = Reader::open(dir.path(), &ReaderOptions::default()).unwrap();
        Log {
            writer,
            reader,
            payload: vec![0x5A; len],
            _dir: dir,
        }
    }

    fn append(&mut self, n: u64) -> Duration {
        let begun = Instant::now();
        for _ in 0..n {
            // The disk may be behind with the next segment; the wait is part of what is measured.
            while let Err(AppendError::Full) = self.writer.append(black_box(&self.payload)) {
                self.writer
                    .wait_for_room(self.payload.len(), Duration::from_secs(1));
            }
        }
        begun.elapsed()
    }

    fn poll(&mut self) -> Duration {
        let begun = Instant::now();
        while let Some(frame) = self.reader.poll().unwrap() {
            black_box(frame.payload);
        }
        self.reader.release(self.reader.position());
        begun.elapsed()
    }
}

fn bench(c: &mut Criterion) {
    for len in [128, 1024] {
        let mut group = c.benchmark_group(format!("{len} B"));
        group.throughput(Throughput::Elements(1));
        group.measurement_time(Duration::from_secs(3));
        for side in ["append", "poll"] {
            let mut log = Log::new(len);
            group.bench_function(side, |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut spent = Duration::ZERO;
                    let mut left = iterations;
                    while left > 0 {
                        let n = left.min(BATCH);
                        let (append, poll) = (log.append(n), log.poll());
                        spent += if side == "append" { append } else { poll };
                        left -= n;
                    }
                    spent
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
