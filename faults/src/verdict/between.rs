//! What devices heard on the nodes of a cluster of what others published there.

use std::collections::BTreeMap;

use harness::ledger;

use super::{SHOWN, Verdict};
use crate::count::{self, Acked};
use crate::load::{Arrival, DEVICES, Listeners, Published, for_each_listener};
use crate::row::{Direction, Row};
use crate::run::log;

impl Verdict<'_> {
    /// The row of it.
    pub(crate) fn between(&self, published: &Published, listeners: &Listeners) -> Row {
        let all = for_each_listener(&published.acked);
        let acked: Acked = all
            .iter()
            .filter(|(_, at)| self.counts(**at))
            .map(|(number, _)| (*number, None))
            .collect();
        self.settle(|| {
            let arrivals = listeners.arrivals(published);
            let counted = count::count(&acked, &arrivals);
            (arrivals.len(), counted.lost.is_empty())
        });
        let arrivals = listeners.arrivals(published);
        let counted = count::count(&acked, &arrivals);
        let mut row = self.row(Direction::Downlink, &counted, &listeners.damaged());
        row.sent = published.sent * DEVICES;
        row.acked = acked.len();
        row.recovery_s = self.recovery(|episode| count::recovery_s(episode, &all, &arrivals));
        log(self.run.name, &format!("between the nodes: {counted}"));
        if row.duplicated > 0 {
            let twice: Vec<_> = repeated(&arrivals).into_iter().take(SHOWN).collect();
            row.notes.push(format!(
                "came twice (listener and publisher, number): {twice:?}"
            ));
        }
        self.judge_recovery(&mut row);
        row
    }
}

/// What arrived more than once under one identity, but for MQTT's own repetitions.
fn repeated(arrivals: &[Arrival]) -> Vec<ledger::Number> {
    let mut seen = BTreeMap::new();
    for arrival in arrivals.iter().filter(|arrival| !arrival.again) {
        *seen.entry((arrival.number, &arrival.identity)).or_insert(0) += 1;
    }
    let twice = seen.into_iter().filter(|(_, times)| *times > 1);
    twice.map(|((number, _), _)| number).collect()
}
