//! The pruner beside backups, folded backups, copies, restores and drills, in an order that a seed gives: whole steps,
//! and steps at once that take turns at every call.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use backup_core::Result;
use backup_core::error::{Error, ErrorKind};
use backup_core::id::{ClusterTime, OperationId};
use backup_core::operation::{
    BackupDetail, Detail, Failure, Level, Operation, OperationKind, OperationState, RestoreDetail,
    RestoreTime, Trigger,
};
use backup_core::ports::{Catalog, Clock};
use backup_testkit::Faults;
use backup_testkit::fixture::{Step, World, lead};

use crate::invariants::{check, check_no_orphans, has_manifest, prune};
use crate::scene::{DAY, HOUR};

/// Draws numbers: the same seed, the same numbers.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap())).unwrap()
    }
}

type Running<'a> = Option<Pin<Box<dyn Future<Output = Result<()>> + 'a>>>;

/// Runs steps at once, which take turns as the dice say, after the first of them had some turns alone. Gives what they
/// came to, and how many turns that took.
pub(crate) async fn interleave(
    dice: &mut Dice,
    world: &World,
    steps: &[(OperationId, Step)],
    head_start: u64,
) -> (Vec<Result<()>>, u64) {
    let faults = Faults::none();
    let mut running: Vec<Running<'_>> = Vec::new();
    for (id, step) in steps {
        running.push(Some(Box::pin(world.step(&faults, *id, *step))));
    }
    let mut outcomes: Vec<Option<Result<()>>> = steps.iter().map(|_| None).collect();
    let mut turns = 0;
    poll_fn(|context| {
        let open: Vec<usize> = (0..running.len()).filter(|at| running[*at].is_some()).collect();
        if open.is_empty() {
            return Poll::Ready(());
        }
        let at = if turns < head_start { open[0] } else { open[dice.index(open.len())] };
        turns += 1;
        if let Poll::Ready(outcome) = running[at].as_mut().unwrap().as_mut().poll(context) {
            (running[at], outcomes[at]) = (None, Some(outcome));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    (outcomes.into_iter().flatten().collect(), turns)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Protect,
    Synthesize,
    Restore,
    Drill,
    Replicate,
    Capture,
    Prune,
}

/// An execution of a state machine.
#[derive(Debug)]
struct Execution {
    task: Task,
    kind: OperationKind,
    id: OperationId,
    steps: VecDeque<Step>,
    is_planned: bool,
    retries: u32,
}

/// What a seed lets happen.
struct Play {
    world: World,
    dice: Dice,
    running: Vec<Execution>,
    /// The instants of the backups that were good, oldest first.
    instants: Vec<ClusterTime>,
    newest: Option<OperationId>,
    written: i32,
}

impl Play {
    async fn begin(seed: u64) -> Self {
        let (world, dice) = (World::with_data(), Dice::new(seed));
        let mut play =
            Self { world, dice, running: Vec::new(), instants: Vec::new(), newest: None, written: 1000 };
        for _ in 0..2 {
            play.start(Task::Protect).await;
            play.end_all("the first backups").await;
            play.world.clock.advance(HOUR);
        }
        play
    }

    /// Starts something, unless there is one under way.
    async fn start(&mut self, task: Task) {
        if self.running.iter().any(|it| it.task == task) {
            return;
        }
        self.written += 1;
        self.world.cluster.write("leads", &lead(self.written));
        let (world, none) = (&self.world, OperationId::from_bytes([0; 16]));
        let (kind, id) = match task {
            Task::Protect => {
                let detail = BackupDetail::requested(Trigger::Automated, false);
                (OperationKind::Backup, world.request(&[], Detail::Backup(detail)).await)
            }
            Task::Synthesize => {
                world.capture().await.unwrap();
                (OperationKind::Backup, world.request_synthesis().await)
            }
            Task::Restore => {
                let instant = self.instants.get(self.dice.index(2 * self.instants.len()));
                let at = instant.copied().map(RestoreTime::At);
                let detail = RestoreDetail { may_replace: true, at, ..RestoreDetail::requested(true) };
                (OperationKind::Restore, world.request(&[], Detail::Restore(detail)).await)
            }
            Task::Drill => (OperationKind::Drill, world.request_drill(Level::SampleRestored, None).await),
            Task::Prune => {
                let force = self.dice.below(2) == 0;
                (OperationKind::Prune, world.request_prune(force).await)
            }
            Task::Replicate | Task::Capture => (OperationKind::Backup, none),
        };
        let first = match task {
            Task::Replicate | Task::Capture => Step::CaptureLog,
            _ => world.first_step(kind, id).await,
        };
        let steps = VecDeque::from([first]);
        self.running.push(Execution { task, kind, id, steps, is_planned: false, retries: 0 });
    }

    /// One to three executions make a step, at once.
    async fn turn(&mut self, when: &str) {
        let mut chosen: Vec<(Task, OperationId, Step)> = Vec::new();
        for _ in 0..=self.dice.below(3) {
            let it = &self.running[self.dice.index(self.running.len())];
            let next = (it.task, it.id, it.steps[0]);
            // A run of the pruner may be doubled; of the others, tests of their own tell.
            if it.task == Task::Prune || !chosen.contains(&next) {
                chosen.push(next);
            }
        }
        let steps: Vec<(OperationId, Step)> = chosen.iter().map(|(_, id, step)| (*id, *step)).collect();
        let (outcomes, _) = interleave(&mut self.dice, &self.world, &steps, 0).await;
        for ((task, id, step), outcome) in chosen.into_iter().zip(outcomes) {
            self.conclude((task, id), outcome, &format!("{when}: {step:?} of {task:?} {id}")).await;
        }
        check(&self.world, &format!("{when}, after {steps:?}")).await;
        if let Some(newest) = self.newest {
            let row = self.world.operation(OperationKind::Backup, newest).await;
            assert!(has_manifest(&self.world.store, &row), "{when}: the newest good backup");
        }
        self.world.clock.advance(self.dice.below(40) * 60_000);
    }

    async fn conclude(&mut self, (task, id): (Task, OperationId), outcome: Result<()>, when: &str) {
        let Some(at) = self.running.iter().position(|it| (it.task, it.id) == (task, id)) else { return };
        let it = &mut self.running[at];
        match outcome {
            Ok(()) => {
                it.steps.pop_front();
                if !it.is_planned && !matches!(task, Task::Capture | Task::Replicate) {
                    it.is_planned = true;
                    it.steps.extend(self.world.steps_after_plan(it.kind, id).await);
                }
                if it.steps.is_empty() {
                    let ended = self.running.remove(at);
                    self.ended(&ended).await;
                }
            }
            // The other one of a doubled run may have ended everything.
            Err(why)
                if why.kind().is_retryable() || (task == Task::Prune && why.kind() == ErrorKind::Fenced) =>
            {
                it.retries += 1;
                assert!(it.retries < 20, "{when}: {why}");
            }
            Err(why) => {
                let given_up = self.running.remove(at);
                assert!(self.is_a_clean_refusal(&given_up, &why).await, "{when}: {why}");
                self.give_up(&given_up, &why).await;
            }
        }
    }

    /// A backup that is done is copied to the other regions.
    async fn ended(&mut self, ended: &Execution) {
        if !matches!(ended.task, Task::Protect | Task::Synthesize) {
            return;
        }
        let row = self.world.operation(OperationKind::Backup, ended.id).await;
        assert_eq!(row.state, OperationState::Verified);
        let detail = row.backup().unwrap();
        if detail.lost == 0 {
            self.instants.extend(detail.restorable_from);
            self.newest = self.newest.max(Some(row.id));
        }
        let steps = self.world.steps_of_replication(row.id).await.into();
        let (task, kind, id) = (Task::Replicate, OperationKind::Backup, row.id);
        self.running.push(Execution { task, kind, id, steps, is_planned: true, retries: 0 });
    }

    /// Told in time that a backup is going, or that an instant is in no window any more.
    async fn is_a_clean_refusal(&self, it: &Execution, why: &Error) -> bool {
        let is_told = why.kind() == ErrorKind::Conflict && why.to_string().contains("removed");
        match it.task {
            Task::Protect | Task::Capture | Task::Prune => false,
            Task::Synthesize | Task::Drill => is_told,
            Task::Restore => is_told || why.to_string().contains("is in no window"),
            Task::Replicate => {
                let row = self.world.catalog.operation(OperationKind::Backup, it.id).await;
                row.is_err_and(|why| why.kind() == ErrorKind::NotFound)
            }
        }
    }

    /// What the state machine does with an operation that failed.
    async fn give_up(&self, it: &Execution, why: &Error) {
        if it.task == Task::Replicate {
            return;
        }
        let row = self.world.operation(it.kind, it.id).await;
        let failed = Operation { failure: Some(Failure::of("test", why)), ..row };
        self.world.catalog.fail_operation(&failed, self.world.clock.now_millis()).await.unwrap();
        self.world.catalog.release_lease(&failed.resource(), it.id).await.unwrap();
    }

    async fn end_all(&mut self, when: &str) {
        while !self.running.is_empty() {
            self.turn(when).await;
        }
    }
}

async fn play(seed: u64) {
    const TURNS: u32 = 100;
    /// Before anything goes to cold storage: what is there has to be thawed first.
    const DAYS_MAX: u64 = 25;
    let mut play = Play::begin(seed).await;
    let began = play.world.clock.now_millis();
    for turn in 0..TURNS {
        let is_early = play.world.clock.now_millis() - began < DAYS_MAX * DAY;
        if play.running.is_empty() && is_early {
            play.world.clock.advance((6 + play.dice.below(30)) * HOUR);
        }
        if play.running.is_empty() || play.dice.below(3) == 0 {
            let tasks = [
                Task::Protect,
                Task::Synthesize,
                Task::Restore,
                Task::Restore,
                Task::Drill,
                Task::Capture,
                Task::Prune,
                Task::Prune,
                Task::Prune,
            ];
            let task = tasks[play.dice.index(tasks.len())];
            play.start(task).await;
        }
        play.turn(&format!("seed {seed}, turn {turn}")).await;
    }
    play.end_all(&format!("seed {seed}, the end")).await;
    for _ in 0..2 {
        play.world.clock.advance(2 * HOUR);
        let id = play.world.request_prune(true).await;
        prune(&play.world, id).await.unwrap();
    }
    check(&play.world, &format!("seed {seed}, pruned")).await;
    check_no_orphans(&play.world, &format!("seed {seed}")).await;
}

/// Whether the play removes backups at all is told by the others; this one tells that it never removes too much.
#[tokio::test]
async fn beside_everything_else_no_manifest_ever_refers_to_what_is_gone() {
    for seed in 0..16 {
        play(seed).await;
    }
}
