//! Teams: the threads that share the loops of one thread's ops (fork and join, in OpenMP's terms).
//!
//! An op of a decoding step takes tens of microseconds, as long as waking a thread that sleeps. So a member of a team that
//! waits spins for 50 µs before it parks, and gives way to other processes as it spins. Members take pieces of a loop as
//! they come, and one that is late, because its processor has other work, is not waited for: it finds the loop closed.
//!
//! A thread has a team from [`Team::gather`] on; loops of other threads run on rayon's current pool. Which thread runs a
//! piece changes no result.

use crate::{Error, Result};
use rayon::iter::IndexedParallelIterator;
use rayon::iter::plumbing::{Producer, ProducerCallback};
use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Time for which a waiting thread spins: longer than what lies between the loops of a step, and short beside a time slice.
const SPIN: Duration = Duration::from_micros(50);
/// Looks at what is waited for, between two yields of the processor.
const LOOKS: usize = 64;
/// Pieces of a loop for each thread: a thread that is late leaves pieces to the others.
const PIECES_PER_THREAD: usize = 4;

thread_local! {
    static TEAM: RefCell<Option<Rc<Members>>> = const { RefCell::new(None) };
    /// True while the thread runs a piece: loops inside it are its own.
    static IN_PIECE: Cell<bool> = const { Cell::new(false) };
}

/// Runs a loop on the calling thread's team.
pub trait ForEachOnTeam: IndexedParallelIterator {
    /// Calls `f` on every item, on all threads of the team.
    fn for_each_on_team(self, f: impl Fn(Self::Item) + Send + Sync) {
        let team = TEAM.with_borrow(Option::clone);
        if team.is_none() && !IN_PIECE.get() {
            return self.for_each(f);
        }
        let len = self.len();
        self.with_producer(Pieces { team: team.as_deref(), len, f });
    }
}

impl<I: IndexedParallelIterator> ForEachOnTeam for I {}

/// Number of threads that share the calling thread's loops: 1 inside of a loop.
pub fn threads() -> usize {
    if IN_PIECE.get() {
        return 1;
    }
    TEAM.with_borrow(|team| team.as_ref().map(|team| 1 + team.threads.len()))
        .unwrap_or_else(rayon::current_num_threads)
}

/// The team of the thread that gathered it; dropped, its other threads end.
pub struct Team {
    members: Rc<Members>,
    handles: Vec<JoinHandle<()>>,
}

impl Team {
    /// Gives the calling thread a team of `threads`, itself among them, in place of one that it has.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn gather(threads: usize) -> Result<Team> {
        let shared = Arc::new(Shared::new(threads.saturating_sub(1)));
        let mut handles = Vec::with_capacity(shared.parked.len());
        for index in 0..shared.parked.len() {
            let own = shared.clone();
            let member = thread::Builder::new().name(format!("team-{}", index + 1));
            match member.spawn(move || own.serve(index)) {
                Ok(handle) => handles.push(handle),
                Err(e) => {
                    shared.end(handles);
                    return Err(Error::new(format!("no thread for an op's loops: {e}")));
                }
            }
        }
        let threads = handles.iter().map(|handle| handle.thread().clone()).collect();
        let members = Rc::new(Members { shared, threads });
        TEAM.set(Some(members.clone()));
        Ok(Team { members, handles })
    }

    /// Keeps the team for as long as the process lives.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        TEAM.with_borrow_mut(|team| team.take_if(|team| Rc::ptr_eq(team, &self.members)));
        self.members.shared.end(std::mem::take(&mut self.handles));
    }
}

/// Cuts a loop into pieces for a team. Inside of a piece, and without a team, it stays on its thread.
struct Pieces<'a, F> {
    team: Option<&'a Members>,
    len: usize,
    f: F,
}

impl<T, F: Fn(T) + Sync> ProducerCallback<T> for Pieces<'_, F> {
    type Output = ();

    fn callback<P: Producer<Item = T>>(self, items: P) {
        let Pieces { team, len, f } = self;
        let Some(team) = team.filter(|team| !team.threads.is_empty() && !IN_PIECE.get()) else {
            return items.into_iter().for_each(f);
        };
        let pieces = (PIECES_PER_THREAD * (1 + team.threads.len())).min(len / items.min_len().max(1));
        if pieces <= 1 {
            return items.into_iter().for_each(f);
        }
        let (mut cut, mut rest, mut left) = (Vec::with_capacity(pieces), items, len);
        for behind in (1..pieces).rev() {
            let size = left.div_ceil(behind + 1);
            let (piece, others) = rest.split_at(size);
            cut.push(Mutex::new(Some(piece)));
            (rest, left) = (others, left - size);
        }
        cut.push(Mutex::new(Some(rest)));
        team.run(pieces, &|piece| {
            let items = cut[piece].lock().unwrap_or_else(PoisonError::into_inner).take();
            items.into_iter().flat_map(Producer::into_iter).for_each(&f);
        });
    }
}

/// The other threads of a team, in the hands of the one that gathered it.
struct Members {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
}

impl Members {
    /// Calls `piece` with each index below `pieces`, and returns when all calls have.
    fn run(&self, pieces: usize, piece: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; `close` returns when no member is inside, and none enters after it.
        let piece: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(piece) };
        let job = Job { piece, pieces };
        // SAFETY: the loop before was closed, so that no member reads it.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.store(0, Ordering::Relaxed);
        let number = State(shared.state.load(Ordering::Relaxed)).number().wrapping_add(1);
        shared.state.store(State::open(number).0, Ordering::SeqCst);
        for (parked, thread) in shared.parked.iter().zip(&self.threads).take(pieces - 1) {
            if parked.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
        IN_PIECE.set(true);
        shared.work(job);
        IN_PIECE.set(false);
        shared.close();
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

/// A loop.
#[derive(Clone, Copy)]
struct Job {
    piece: &'static (dyn Fn(usize) + Sync),
    pieces: usize,
}

/// The number of the newest loop (upper half), a bit while it takes members, and the number of members inside it.
#[derive(Clone, Copy)]
struct State(u64);

impl State {
    const OPEN: u64 = 1 << 31;

    fn open(number: u32) -> Self {
        State(u64::from(number) << 32 | State::OPEN)
    }

    fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn is_open(self) -> bool {
        self.0 & State::OPEN != 0
    }

    fn members(self) -> u32 {
        self.0 as u32 & !(State::OPEN as u32)
    }
}

/// Memory that all threads of a team see.
struct Shared {
    state: AtomicU64,
    /// Written while the loop before is closed and empty; read by members inside a loop.
    job: UnsafeCell<Option<Job>>,
    /// The next piece that nobody has taken.
    next: AtomicUsize,
    /// True for each member that sleeps, or is about to.
    parked: Vec<AtomicBool>,
    /// The thread that gathered the team, and true while it sleeps or is about to.
    owner: Thread,
    owner_parked: AtomicBool,
    /// The first panic of a piece.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    ended: AtomicBool,
}

// SAFETY: `job` is written and read at the times that its comment names, ordered by `state`.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(members: usize) -> Self {
        Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            parked: (0..members).map(|_| AtomicBool::new(false)).collect(),
            owner: thread::current(),
            owner_parked: AtomicBool::new(false),
            panic: Mutex::new(None),
            ended: AtomicBool::new(false),
        }
    }

    fn state(&self) -> State {
        State(self.state.load(Ordering::SeqCst))
    }

    /// Ends the members, and waits for them.
    fn end(&self, members: Vec<JoinHandle<()>>) {
        self.ended.store(true, Ordering::SeqCst);
        members.iter().for_each(|member| member.thread().unpark());
        // A member does not panic: pieces are caught.
        members.into_iter().for_each(|member| drop(member.join()));
    }

    /// Works in loop after loop, until the team ends.
    fn serve(&self, index: usize) {
        IN_PIECE.set(true);
        let mut last = 0;
        loop {
            let news = || self.state().number() != last || self.ended.load(Ordering::SeqCst);
            wait(news, &self.parked[index]);
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            last = self.state().number();
            if let Some(job) = self.enter(last) {
                self.work(job);
                self.leave();
            }
        }
    }

    /// Enters a loop, unless it is closed.
    fn enter(&self, number: u32) -> Option<Job> {
        let entered = |state| {
            let open = State(state).is_open() && State(state).number() == number;
            open.then_some(state + 1)
        };
        self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, entered).ok()?;
        // SAFETY: inside of an open loop; it is not closed before this member leaves.
        unsafe { *self.job.get() }
    }

    /// Leaves a loop; the last member wakes the owner that waits for it.
    fn leave(&self) {
        let before = State(self.state.fetch_sub(1, Ordering::SeqCst));
        if before.members() == 1 && !before.is_open() && self.owner_parked.load(Ordering::SeqCst) {
            self.owner.unpark();
        }
    }

    /// Runs pieces until none is left. After a panic the others are left out.
    fn work(&self, Job { piece, pieces }: Job) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= pieces {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| piece(index))) {
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
                self.next.store(pieces, Ordering::Relaxed);
            }
        }
    }

    /// Lets no other member into the loop, and waits for those inside.
    fn close(&self) {
        self.state.fetch_and(!State::OPEN, Ordering::SeqCst);
        wait(|| self.state().members() == 0, &self.owner_parked);
    }
}

/// Waits until `is_done`: spins, and then parks with `parked` set. Who makes it true unparks a thread that is parked.
fn wait(is_done: impl Fn() -> bool, parked: &AtomicBool) {
    let start = Instant::now();
    while start.elapsed() < SPIN {
        for _ in 0..LOOKS {
            if is_done() {
                return;
            }
            std::hint::spin_loop();
        }
        thread::yield_now();
    }
    parked.store(true, Ordering::SeqCst);
    while !is_done() {
        thread::park();
    }
    parked.store(false, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn every_item_is_visited_once_whatever_the_team_and_the_pauses_between_loops() {
        for threads in [1, 2, 3, 8] {
            let team = Team::gather(threads).unwrap();
            assert_eq!(super::threads(), threads);
            for len in (0..200).chain([1000, 4096]) {
                let mut visits = vec![0; len];
                visits.par_iter_mut().enumerate().for_each_on_team(|(i, x)| *x += i + 1);
                assert!(visits.iter().enumerate().all(|(i, &x)| x == i + 1), "{threads} {len}");
                // Long enough for members to park, now and then.
                if len % 40 == 0 {
                    thread::sleep(2 * SPIN);
                }
            }
            drop(team);
            assert_eq!(super::threads(), rayon::current_num_threads());
        }
    }

    #[test]
    fn pieces_are_no_shorter_than_asked_and_loops_inside_them_stay_on_their_thread() {
        let _team = Team::gather(4).unwrap();
        let threads = Mutex::new(Vec::new());
        (0..100usize).into_par_iter().with_min_len(60).for_each_on_team(|_| {
            threads.lock().unwrap().push(thread::current().id());
        });
        assert_eq!(threads.into_inner().unwrap(), [thread::current().id(); 100]);
        let sums: Vec<AtomicUsize> = (0..32).map(|_| AtomicUsize::new(0)).collect();
        let (owner, of_members) = (thread::current().id(), AtomicUsize::new(0));
        sums.par_iter().for_each_on_team(|sum| {
            let own = thread::current().id();
            assert_eq!(super::threads(), 1);
            // Long enough for members to come.
            thread::sleep(2 * SPIN);
            of_members.fetch_add((own != owner).into(), Ordering::Relaxed);
            (0..50usize).into_par_iter().for_each_on_team(|i| {
                assert_eq!(thread::current().id(), own);
                sum.fetch_add(i, Ordering::Relaxed);
            });
        });
        assert!(sums.into_iter().all(|sum| sum.into_inner() == 49 * 50 / 2));
        assert!(of_members.into_inner() > 0, "no member ran a piece");
        assert_eq!(super::threads(), 4);
    }

    #[test]
    fn a_panic_reaches_the_owner_after_the_loop_and_the_team_goes_on() {
        let _team = Team::gather(3).unwrap();
        for bad in [0, 7, 63] {
            let work = || {
                (0..64usize).into_par_iter().for_each_on_team(|i| {
                    assert!(i != bad, "item {i}");
                    thread::yield_now();
                });
            };
            let panic = catch_unwind(work).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().unwrap(), &format!("item {bad}"));
        }
        let count = AtomicUsize::new(0);
        (0..64usize).into_par_iter().for_each_on_team(|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 64);
    }

    #[test]
    fn members_share_a_loop_and_short_loops_end_while_one_sleeps() {
        let _team = Team::gather(2).unwrap();
        let seen = Mutex::new(Vec::new());
        let short = || {
            (0..8usize).into_par_iter().for_each_on_team(|_| {
                thread::sleep(Duration::from_millis(2));
                seen.lock().unwrap().push(thread::current().id());
            });
        };
        short();
        let threads = std::mem::take(&mut *seen.lock().unwrap());
        assert!(threads.iter().any(|&id| id != thread::current().id()), "one thread did it all");
        for _ in 0..1000 {
            thread::sleep(2 * SPIN);
            (0..8usize).into_par_iter().for_each_on_team(|_| ());
        }
    }
}
