//! A fetcher: long polls on one queue, one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rocketmq_protocol::code::response_code::ResponseCode;
use tokio::sync::mpsc;

use super::ahead::{Fetched, Mark, Progress, hand_over};
use super::by_tag::ByTag;
use super::decode::Answer;
use super::follow::{Following, Plan, until_more_is_wanted};
use super::positions::Positions;
use super::pull::{Pull, Pulled, name};
use super::reading::Reading;
use super::start::Begin;
use super::wanted::{Selection, Wanted};
use super::{Reader, Shared, offsets};
use crate::client::unix_ms;
use crate::link::lock;
use crate::{Error, Queue, Select};

/// How long a broker may hold a pull that finds nothing. Brokers look only every five seconds for pulls that were held long
/// enough (`PullRequestHoldService`), so the answer comes within six. Short, because a broker that hangs, or that no packet reaches,
/// is only noticed when this and the margin have passed. (One that is gone is noticed at once: see `link::watch`.)
const HOLD: Duration = Duration::from_secs(1);
/// A slave is not let hold pulls: when it becomes the master, those that it holds wait for that look of five seconds, and until then
/// it may say "again, at once" all the time. So it is asked again after this.
const SLAVE_PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often it is told that the queue was read to its end.
const READ_UNTIL_EVERY_MS: i64 = 1000;
/// So many answers are read back for each that is read on: what is read back has to get there.
const READ_BACK_RUN: usize = 4;

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The broker had something to say, even if no message for us was in it.
    Next,
    /// There is a slave alone, and it had nothing.
    Wait,
    /// Nobody takes messages any more.
    Closed,
}

pub(super) struct Fetch {
    shared: Arc<Shared>,
    queue: Queue,
    progress: Arc<Progress>,
    outgoing: mpsc::Sender<Fetched>,
    reading: Reading,
    wanted: Wanted,
    positions: Positions,
    /// Unless what is wanted never changes.
    following: Option<Following>,
    /// The group had read the queue before, up to where this began.
    is_known: bool,
    told_until_ms: i64,
}

impl Fetch {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: Queue,
        select: &Select,
        begin: Begin,
        progress: Arc<Progress>,
        outgoing: mpsc::Sender<Fetched>,
    ) -> Fetch {
        let (main, following) = match select {
            Select::Tags(tags) => (ByTag::of_expression(tags, i64::MIN), None),
            Select::Interest(interest) => {
                (ByTag::default(), Some(Following::new(interest.clone())))
            }
        };
        let at = (begin.offset > 0).then(Instant::now);
        Fetch {
            shared,
            queue,
            progress,
            outgoing,
            reading: Reading::default(),
            wanted: Wanted::new(main),
            positions: Positions::starting(at, begin.offset),
            following,
            is_known: begin.is_known,
            told_until_ms: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let what = name(&self.queue);
        let mut pause = PAUSE_MIN;
        let mut failing = false;
        loop {
            match self.step().await {
                Ok(found @ (Step::Next | Step::Wait)) => {
                    pause = PAUSE_MIN;
                    if std::mem::take(&mut failing) {
                        self.shared.works(&what);
                    }
                    if found == Step::Wait {
                        self.shared.hurry.notify_one();
                        tokio::time::sleep(SLAVE_PAUSE).await;
                    }
                }
                Ok(Step::Closed) => return,
                Err(Error::TopicMissing { .. }) if self.reading.is_fresh() => {
                    // Where to start, should it come back, is for the scout to find out anew: the offsets went with the topic.
                    lock(&self.shared.fetchers).remove(&self.queue);
                    self.shared.works(&what);
                    return;
                }
                Err(error) => {
                    if matches!(error, Error::TopicMissing { .. }) {
                        self.begin_again(0);
                    }
                    failing = true;
                    self.shared.fails(&what, error);
                    // The broker may have another address now.
                    self.shared.hurry.notify_one();
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Step, Error> {
        self.follow().await?;
        let mut run = 0;
        while run < READ_BACK_RUN
            && let Some(lane) = self.wanted.nearest()
        {
            match self.read_back(lane).await? {
                Step::Next => run += 1,
                Step::Wait => break,
                Step::Closed => return Ok(Step::Closed),
            }
        }
        if !self.tell_settled().await {
            return Ok(Step::Closed);
        }
        let found = self.read_on().await?;
        Ok(if found == Step::Wait && run > 0 {
            Step::Next
        } else {
            found
        })
    }

    fn present(&self) -> i64 {
        self.progress.next.load(Ordering::Relaxed)
    }

    fn pull<'a>(&'a self, selection: &'a Selection) -> Pull<'a> {
        Pull {
            shared: &self.shared,
            queue: &self.queue,
            expression: &selection.expression,
        }
    }

    fn begin_again(&mut self, offset: i64) {
        let course = (&*self.progress, &mut self.wanted);
        if self.reading.begin_again(&self.queue, course, offset) {
            self.positions = Positions::starting(None, offset);
        }
    }

    /// Takes up what of the interest is new, and leaves off what is not of interest any more.
    async fn follow(&mut self) -> Result<(), Error> {
        let present = self.present();
        let Some(following) = &mut self.following else {
            return Ok(());
        };
        let Some(interest) = following.changed().filter(|_| self.wanted.has_room()) else {
            return Ok(());
        };
        let is_first = following.taken_up.is_none();
        let settled_ms = Some(interest.settled_ms)
            .filter(|settled_ms| is_first && self.is_known && *settled_ms > 0);
        self.wanted.leave_off(&interest, present);
        let new = self.wanted.additions(&interest);
        let keys: Vec<Option<String>> = new.keys().map(|key| key.map(str::to_owned)).collect();
        let now = (Instant::now(), unix_ms());
        let plan = Plan::of(new, settled_ms, &self.positions, now);
        let (asked, since_ms) = plan.asked;
        let first = if asked.is_empty() {
            present
        } else {
            offsets::since(&self.shared, &self.queue, since_ms).await?
        };
        for (group, first) in [
            (plan.settled, present),
            (plan.reached, 0),
            (asked, first),
            (plan.whole, 0),
        ] {
            if !group.is_empty() {
                self.wanted.take_up(group, first, present);
            }
        }
        self.reading.wants_more(keys.into_iter(), present);
        if let Some(following) = &mut self.following {
            following.take_up(interest);
        }
        Ok(())
    }

    /// Says, behind the messages that were read back, that nothing more is to be. False when nobody wants to know.
    async fn tell_settled(&mut self) -> bool {
        let Some(following) = &mut self.following else {
            return true;
        };
        if following.is_told || !self.wanted.is_read_back() {
            return true;
        }
        let Some(interest) = &following.taken_up else {
            return true;
        };
        let settled = Mark::Settled(Arc::clone(interest));
        following.is_told = true;
        self.mark(settled).await
    }

    /// Says, behind the messages, how far they go. False when nobody wants to know.
    async fn mark(&self, mark: Mark) -> bool {
        let mark = Some((Arc::clone(&self.progress), mark));
        hand_over(&self.shared, Vec::new(), mark, &self.outgoing).await
    }

    /// Says, now and then, that the queue was read to its end as that was at `asked_ms`.
    async fn tell_read_until(&mut self, asked_ms: i64) -> bool {
        let is_due = asked_ms.abs_diff(self.told_until_ms) >= READ_UNTIL_EVERY_MS.unsigned_abs();
        if !is_due || !self.wanted.is_read_back() {
            return true;
        }
        self.told_until_ms = asked_ms;
        self.mark(Mark::ReadUntil(asked_ms)).await
    }

    /// The next answer of a lane. [`Step::Wait`] when there is nothing to be had.
    async fn read_back(&mut self, at: usize) -> Result<Step, Error> {
        let present = self.present();
        let reader = self.shared.reader_of(&self.queue)?;
        let lane = self.wanted.lane(at);
        let (offset, selection) = (lane.next, Arc::clone(&lane.selection));
        let pull = self.pull(&selection);
        let mut pulled = pull.ask(&reader.address, offset, Duration::ZERO).await?;
        if pulled.header.max_offset < present {
            if reader.is_master && self.reading.was_there() {
                self.begin_again(pulled.header.min_offset);
                return Ok(Step::Next);
            }
            if reader.is_master || offset >= pulled.header.max_offset {
                // Where its end is shows when it is read on; or a slave has not yet got what its master had.
                return Ok(Step::Wait);
            }
        }
        let mut next = next_of(&pulled, offset);
        if let Some(body) = pulled.take_body() {
            let mut answer = Answer::new(&self.queue, offset, body, &selection.filter);
            let mut due = self.reading.due();
            while let Some(mut messages) = answer.part() {
                let lane = self.wanted.lane(at);
                messages
                    .retain(|message| message.offset < present && self.wanted.owes(lane, message));
                if messages.is_empty() {
                    continue;
                }
                if let Some(mark) = due.take()
                    && self.pull(&selection).is_of_another_queue(mark).await?
                {
                    drop(answer);
                    self.begin_again(pulled.header.min_offset);
                    return Ok(Step::Next);
                }
                for message in &mut messages {
                    message.is_read_back = true;
                }
                if !hand_over(&self.shared, messages, None, &self.outgoing).await {
                    return Ok(Step::Closed);
                }
            }
            next = answer.broke_off_at().unwrap_or(next);
        }
        self.wanted.advance(at, next, present);
        Ok(if next > offset {
            Step::Next
        } else {
            Step::Wait
        })
    }

    /// The next answer of the main line, unless it is given up because there is something new to follow.
    async fn pull_on(&mut self, reader: &Reader, offset: i64) -> Result<Option<Pulled>, Error> {
        let hold = if reader.is_master && self.wanted.is_read_back() {
            HOLD
        } else {
            Duration::ZERO
        };
        let selection = Arc::clone(&self.wanted.selection);
        let pull = Pull {
            shared: &self.shared,
            queue: &self.queue,
            expression: &selection.expression,
        };
        tokio::select! {
            pulled = pull.ask(&reader.address, offset, hold) => pulled.map(Some),
            () = until_more_is_wanted(self.following.as_mut(), &self.wanted) => Ok(None),
        }
    }

    async fn read_on(&mut self) -> Result<Step, Error> {
        let (offset, asked_ms) = (self.present(), unix_ms());
        let reader = self.shared.reader_of(&self.queue)?;
        let Some(mut pulled) = self.pull_on(&reader, offset).await? else {
            return Ok(Step::Next);
        };
        let (at, header) = (Instant::now(), &pulled.header);
        self.progress
            .max
            .store(header.max_offset, Ordering::Relaxed);
        if pulled.code == ResponseCode::PullOffsetMoved {
            if offset > header.max_offset && !reader.is_master {
                // It has not yet got what its master had.
                return Ok(Step::Wait);
            }
            if offset > header.max_offset && self.reading.was_there() {
                // The broker proposes to go on at the queue's end. But what is before it was never read.
                self.begin_again(header.min_offset);
                return Ok(Step::Next);
            }
            log::warn!(
                "{}: offset {offset} is not there (kept: {} to {}); going on at {}",
                name(&self.queue),
                header.min_offset,
                header.max_offset,
                header.next_begin_offset
            );
        }
        let mut next = next_of(&pulled, offset);
        let (min_offset, max_offset) = (pulled.header.min_offset, pulled.header.max_offset);
        if let Some(body) = pulled.take_body() {
            let selection = Arc::clone(&self.wanted.selection);
            let mut answer = Answer::new(&self.queue, offset, body, &selection.filter);
            let mut due = self.reading.due();
            while let Some(mut messages) = answer.part() {
                if !messages.is_empty()
                    && let Some(mark) = due.take()
                    && self.pull(&selection).is_of_another_queue(mark).await?
                {
                    drop(answer);
                    self.begin_again(min_offset);
                    return Ok(Step::Next);
                }
                self.reading.take_note(&mut messages);
                if !messages.is_empty()
                    && !hand_over(&self.shared, messages, None, &self.outgoing).await
                {
                    return Ok(Step::Closed);
                }
            }
            next = answer.broke_off_at().unwrap_or(next);
        }
        self.reading.is_there();
        self.progress.next.store(next, Ordering::Relaxed);
        self.positions.note(at, next);
        if next >= max_offset && reader.is_master && !self.tell_read_until(asked_ms).await {
            return Ok(Step::Closed);
        }
        // A master has let it wait, unless something was to be read back.
        let is_at_once = !reader.is_master || !self.wanted.is_read_back();
        Ok(if next == offset && is_at_once {
            Step::Wait
        } else {
            Step::Next
        })
    }
}

/// Where the broker says that reading goes on.
fn next_of(pulled: &Pulled, offset: i64) -> i64 {
    let header = &pulled.header;
    if offset < header.min_offset {
        // A slave leaves the offset as it was.
        return header.next_begin_offset.max(header.min_offset);
    }
    header.next_begin_offset
}
