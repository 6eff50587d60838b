//! The selected segments, one after another or several at once.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::learner::{Learner, LearnerError};
use crate::policy::Comparison;
use crate::random::Seed;
use crate::schedule::Schedule;

use super::integrity::IntegrityChecked;
use super::reason::Reason;
use super::replay::{Place, Replayer, guarded};
use super::report::SegmentReport;
use super::stop::Stop;

/// What a learner, and a segment's states beside it, hold at once.
const STATES_PER_LEARNER: u64 = 8;
/// Shares of the segments for each learner, so that none waits long for the others at the end.
const SHARES: usize = 4;

/// More learners for one verification, each made on the thread that uses it.
#[derive(Clone, Copy)]
pub(super) struct Learners<'a> {
    pub(super) jobs: usize,
    pub(super) make: &'a MakeLearner<'a>,
}

/// Makes a learner that computes what the first one does.
pub type MakeLearner<'a> = dyn Fn() -> Result<Box<dyn Learner>, LearnerError> + Sync + 'a;

/// How each segment is judged.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) comparison: Comparison,
    pub(super) randomness: &'a Seed,
    pub(super) reference_distance: Option<f64>,
    pub(super) fail_fast: bool,
}

/// What became of the segments, in their order, up to the first that could not be replayed.
pub(super) struct Judged {
    pub(super) segments: Vec<SegmentReport>,
    pub(super) stop: Option<Stop>,
    pub(super) steps: u64,
}

impl Judge<'_> {
    /// Judges the segments one after another. `progress` is called after each step with those made.
    pub(super) fn in_turn<L: Learner + ?Sized>(
        &self,
        segments: &[u64],
        replayer: &mut Replayer<'_, L>,
        mut second: Option<&mut dyn Learner>,
        progress: &mut dyn FnMut(u64),
    ) -> Judged {
        let mut judged = Judged {
            segments: Vec::new(),
            stop: None,
            steps: 0,
        };
        for &index in segments {
            let mut after_step = || {
                judged.steps += 1;
                progress(judged.steps);
            };
            let outcome = self.judge(index, replayer, second.as_deref_mut(), &mut after_step);
            if self.note(outcome, &mut judged).is_break() {
                break;
            }
        }
        judged
    }

    /// Judges several segments at once, each on a learner of its own. The outcome is the same.
    pub(super) fn at_once(
        &self,
        segments: &[u64],
        place: &Place<'_>,
        learners: Learners<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Judged {
        let shares = shares(place.proof, segments, learners.jobs);
        let team = Team {
            judge: self,
            segments,
            place,
            make: learners.make,
            shares: &shares,
            next: AtomicUsize::new(0),
            end: AtomicUsize::new(usize::MAX),
        };
        let mut outcomes = BTreeMap::new();
        let mut idle = None;
        let mut steps = 0;
        thread::scope(|scope| {
            let (send, messages) = channel();
            for _ in 0..learners.jobs.min(shares.len()) {
                let send = send.clone();
                scope.spawn(|| team.work(send));
            }
            drop(send);
            for message in messages {
                match message {
                    Message::Step => {
                        steps += 1;
                        progress(steps);
                    }
                    Message::Judged(position, outcome) => {
                        outcomes.insert(position, *outcome);
                    }
                    Message::Idle(stop) => idle = Some(*stop),
                }
            }
        });
        let mut judged = Judged {
            segments: Vec::new(),
            stop: None,
            steps,
        };
        for outcome in outcomes.into_values() {
            if self.note(outcome, &mut judged).is_break() {
                break;
            }
        }
        // Others did the work of a thread that got no learner; unless none got one.
        if judged.segments.is_empty() && judged.stop.is_none() {
            judged.stop = idle;
        }
        judged
    }

    /// Adds what became of the next segment; breaks where nothing after it is reported.
    fn note(&self, outcome: Result<SegmentReport, Stop>, judged: &mut Judged) -> ControlFlow<()> {
        let ends = self.is_end(&outcome);
        match outcome {
            Ok(segment) => judged.segments.push(segment),
            Err(stop) => judged.stop = Some(stop),
        }
        match ends {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn judge<L: Learner + ?Sized>(
        &self,
        index: u64,
        replayer: &mut Replayer<'_, L>,
        second: Option<&mut (dyn Learner + '_)>,
        after_step: &mut dyn FnMut(),
    ) -> Result<SegmentReport, Stop> {
        let replay = replayer.replay(index, after_step)?;
        let compared = match self.comparison {
            Comparison::Calibrated(rule) if !replay.arrived() => {
                Some(replayer.compare(&replay, &rule, self.randomness, second, after_step)?)
            }
            _ => None,
        };
        let part = |name: &str| replayer.part(name);
        Ok(replay.judge(&self.comparison, compared, self.reference_distance, &part))
    }

    /// Whether nothing after this segment needs to be replayed.
    fn is_end(&self, outcome: &Result<SegmentReport, Stop>) -> bool {
        match outcome {
            Ok(segment) => {
                self.fail_fast && segment.reasons.iter().any(super::Reason::is_rejection)
            }
            Err(_) => true,
        }
    }
}

/// What all threads share.
struct Team<'a> {
    judge: &'a Judge<'a>,
    segments: &'a [u64],
    place: &'a Place<'a>,
    make: &'a MakeLearner<'a>,
    shares: &'a [Range<usize>],
    /// The next share that nobody works on.
    next: AtomicUsize,
    /// The first position at which it is settled what is reported: nothing after it needs to be replayed.
    end: AtomicUsize,
}

enum Message {
    Step,
    /// By its position among the segments.
    Judged(usize, Box<Result<SegmentReport, Stop>>),
    /// A thread got no learner.
    Idle(Box<Stop>),
}

impl Team<'_> {
    fn work(&self, send: Sender<Message>) {
        let seed = &self.place.proof.claim().terms.seed;
        let made = guarded("another learner", || {
            let mut learner = (self.make)()?;
            learner.initialise(seed)?;
            Ok(learner)
        });
        // The receiver waits for all threads: sending does not fail.
        let tell = |message| drop(send.send(message));
        let mut learner = match made {
            Ok(learner) => learner,
            Err(stop) => return tell(Message::Idle(Box::new(stop))),
        };
        let mut replayer = Replayer::at(self.place.clone(), learner.as_mut());
        let mut after_step = || tell(Message::Step);
        while let Some(share) = (self.shares).get(self.next.fetch_add(1, Ordering::Relaxed)) {
            for position in share.clone() {
                // Shares ascend: all that follow lie beyond the end too.
                if position > self.end.load(Ordering::Relaxed) {
                    return;
                }
                let index = self.segments[position];
                let judge = self.judge;
                let outcome = judge.judge(index, &mut replayer, None, &mut after_step);
                if judge.is_end(&outcome) {
                    self.end.fetch_min(position, Ordering::Relaxed);
                }
                tell(Message::Judged(position, Box::new(outcome)));
            }
        }
    }
}

/// Divides the segments into runs, not between those that are replayed from the same kept state.
fn shares(proof: &IntegrityChecked<'_>, segments: &[u64], jobs: usize) -> Vec<Range<usize>> {
    let least = segments.len().div_ceil(SHARES * jobs).max(1);
    let mut shares = Vec::new();
    let mut start = 0;
    for position in 1..=segments.len() {
        let kept = |position: usize| proof.kept_at_or_before(segments[position]);
        let apart = position == segments.len() || kept(position) != kept(position - 1);
        if apart && (position - start >= least || position == segments.len()) {
            shares.push(start..position);
            start = position;
        }
    }
    shares
}

/// Refuses replays of states of `state_bytes` bytes, if there is too little memory for one learner.
pub(super) fn admit(resources: super::Resources, state_bytes: u64) -> Result<(), Reason> {
    resources.admit("a replay", STATES_PER_LEARNER.saturating_mul(state_bytes))
}

impl Learners<'_> {
    /// As many jobs as memory allows, where each holds states of `state_bytes` bytes and an order of
    /// `records` records.
    pub(super) fn within(
        mut self,
        resources: super::Resources,
        state_bytes: u64,
        records: u64,
    ) -> Self {
        let states = STATES_PER_LEARNER.saturating_mul(state_bytes);
        let fit = resources.memory_for(states.saturating_add(Schedule::bytes(records)));
        self.jobs = self.jobs.min(fit).max(1);
        self
    }
}
