//! The thread that owns the engine. Commands come through a channel, events go out through one channel for each call; where
//! there is no work the thread sleeps on the commands. No reader is waited for: what a call may produce is limited by its
//! tokens, so its channel is not.

use crate::metrics::Latencies;
use codelsi_engine::{Error, Result};
use codelsi_experiment::inference_model::InferenceModel;
use codelsi_model::adapter::Adapter;
use codelsi_model::generate::{AdapterId, GenerationRequest};
use crate::engine::{AddError, Engine, EngineConfig, EngineStats, Event, RequestId};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// What a call hears of its requests.
#[derive(Debug)]
pub enum Update {
    /// An event of the request of this index.
    Event(usize, Event),
    /// The engine failed, and with it the request.
    Failed(String),
}

enum Command {
    Add {
        requests: Vec<GenerationRequest>,
        updates: UnboundedSender<Update>,
        answer: oneshot::Sender<std::result::Result<Vec<RequestId>, AddError>>,
    },
    Cancel(Vec<RequestId>),
    LoadAdapter(Box<Adapter>, oneshot::Sender<Result<AdapterId>>),
    UnloadAdapter(AdapterId),
}

/// The engine's thread, for the rest of the program.
#[derive(Clone)]
pub struct EngineHandle {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

/// What the thread tells without being asked.
#[derive(Default)]
struct Shared {
    stats: Mutex<EngineStats>,
    latencies: Latencies,
}

/// The requests of a call; dropped, it cancels what is left of them.
pub struct Running {
    updates: UnboundedReceiver<Update>,
    ids: Vec<RequestId>,
    commands: Sender<Command>,
}

/// The thread, to be joined, and an end of the channel for others.
pub struct EngineThread {
    pub handle: EngineHandle,
    pub thread: JoinHandle<()>,
}

impl EngineThread {
    /// Starts an engine of a model on a thread of its own, which ends when the last handle is gone.
    ///
    /// # Errors
    /// When the engine cannot be made, e.g. for want of memory.
    pub fn start(model: Arc<InferenceModel>, config: EngineConfig) -> Result<Self> {
        let (commands, received) = channel();
        let (started, start) = channel();
        let shared = Arc::new(Shared::default());
        let told = shared.clone();
        let run = move || {
            let InferenceModel { model: llama, tokenizer, .. } = &*model;
            match Engine::new(model.device(), llama, Some(tokenizer), config) {
                Err(error) => drop(started.send(Err(error))),
                Ok(engine) => {
                    drop(started.send(Ok(())));
                    Worker { engine, model: &model, shared: told, calls: HashMap::new() }.run(&received);
                }
            }
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(run);
        let thread = thread.map_err(|e| Error::new(format!("no thread for the engine: {e}")))?;
        start.recv().map_err(|_| gone())??;
        Ok(EngineThread { handle: EngineHandle { commands, shared }, thread })
    }
}

impl EngineHandle {
    /// Adds the requests of a call, all or none.
    ///
    /// # Errors
    /// When one is invalid for the model, or there are too many.
    pub async fn add(&self, requests: Vec<GenerationRequest>) -> std::result::Result<Running, AddError> {
        let (updates, received) = unbounded_channel();
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(Command::Add { requests, updates, answer });
        let lost = || AddError::Overloaded(gone());
        sent.map_err(|_| lost())?;
        // Where the call is gone before its answer comes, its channel is closed, which cancels it.
        let ids = answered.await.map_err(|_| lost())??;
        Ok(Running { updates: received, ids, commands: self.commands.clone() })
    }

    /// Loads an adapter into the engine.
    ///
    /// # Errors
    /// When it does not fit.
    pub async fn load_adapter(&self, adapter: Adapter) -> Result<AdapterId> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::LoadAdapter(Box::new(adapter), answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Loads an adapter into the engine, from a thread that may wait.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn load_adapter_blocking(&self, adapter: Adapter) -> Result<AdapterId> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::LoadAdapter(Box::new(adapter), answer)).map_err(|_| gone())?;
        answered.blocking_recv().map_err(|_| gone())?
    }

    /// Unloads an adapter; its requests fail.
    pub fn unload_adapter(&self, id: AdapterId) {
        // Without a thread there is nothing to unload.
        drop(self.commands.send(Command::UnloadAdapter(id)));
    }

    /// The engine's counts after its last step.
    pub fn stats(&self) -> EngineStats {
        *lock(&self.shared.stats)
    }

    /// Times to first token and between tokens.
    pub fn latencies(&self) -> &Latencies {
        &self.shared.latencies
    }
}

impl Running {
    /// Polls for the next update; `None` after the last.
    pub fn poll(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Update>> {
        self.updates.poll_recv(cx)
    }

    /// Cancels what is left.
    pub fn cancel(&mut self) {
        // Without a thread nothing runs.
        drop(self.commands.send(Command::Cancel(std::mem::take(&mut self.ids))));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel();
    }
}

fn gone() -> Error {
    Error::new("the engine has ended")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request in the engine.
struct Call {
    /// Index among those of its call.
    index: usize,
    updates: UnboundedSender<Update>,
    adapter: Option<AdapterId>,
    /// Samples that are not finished.
    unfinished: usize,
    added: Instant,
    /// The time of each sample's newest token.
    newest: HashMap<usize, Instant>,
}

struct Worker<'m> {
    engine: Engine<'m>,
    model: &'m InferenceModel,
    shared: Arc<Shared>,
    calls: HashMap<RequestId, Call>,
}

impl Worker<'_> {
    fn run(mut self, commands: &Receiver<Command>) {
        self.publish();
        loop {
            if !self.engine.has_work() {
                match commands.recv() {
                    Ok(command) => self.handle(command),
                    Err(_) => return,
                }
            }
            while let Ok(command) = commands.try_recv() {
                self.handle(command);
            }
            if self.engine.has_work() {
                match self.engine.step() {
                    Ok(events) => events.into_iter().for_each(|event| self.tell(event)),
                    Err(error) => self.fail_all(error),
                }
            }
            self.publish();
        }
    }

    fn publish(&self) {
        *lock(&self.shared.stats) = self.engine.stats();
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Add { requests, updates, answer } => self.add(requests, &updates, answer),
            Command::Cancel(ids) => ids.into_iter().for_each(|id| self.cancel(id)),
            Command::LoadAdapter(adapter, answer) => {
                let loaded = self.engine.load_adapter(&adapter);
                if let Err(Ok(id)) = answer.send(loaded) {
                    self.engine.unload_adapter(id);
                }
            }
            Command::UnloadAdapter(id) => {
                let mut calls = std::mem::take(&mut self.calls);
                for (request, call) in calls.extract_if(|_, call| call.adapter == Some(id)) {
                    self.engine.cancel(request);
                    drop(call.updates.send(Update::Failed("the adapter was unloaded".into())));
                }
                self.calls = calls;
                self.engine.unload_adapter(id);
            }
        }
    }

    fn add(
        &mut self,
        requests: Vec<GenerationRequest>,
        updates: &UnboundedSender<Update>,
        answer: oneshot::Sender<std::result::Result<Vec<RequestId>, AddError>>,
    ) {
        let mut ids = Vec::with_capacity(requests.len());
        for (index, request) in requests.into_iter().enumerate() {
            let (unfinished, adapter) = (request.n, request.adapter);
            match self.engine.add(request) {
                Ok(id) => {
                    let (added, newest) = (Instant::now(), HashMap::new());
                    let updates = updates.clone();
                    self.calls.insert(id, Call { index, updates, adapter, unfinished, added, newest });
                    ids.push(id);
                }
                Err(error) => {
                    ids.into_iter().for_each(|id| self.cancel(id));
                    drop(answer.send(Err(error)));
                    return;
                }
            }
        }
        if let Err(Ok(ids)) = answer.send(Ok(ids)) {
            ids.into_iter().for_each(|id| self.cancel(id));
        }
    }

    fn cancel(&mut self, id: RequestId) {
        if self.calls.remove(&id).is_some() {
            self.engine.cancel(id);
        }
    }

    /// Hands an event to its call; where nobody listens any more, the request is cancelled.
    fn tell(&mut self, event: Event) {
        let (Event::Prefilled { request: id, .. }
        | Event::Token { request: id, .. }
        | Event::Finished { request: id, .. }) = event;
        let Some(call) = self.calls.get_mut(&id) else { return };
        match &event {
            Event::Token { sample, .. } => {
                let now = Instant::now();
                match call.newest.insert(*sample, now) {
                    Some(before) => self.shared.latencies.between_tokens(now - before),
                    None => self.shared.latencies.first_token(now - call.added),
                }
            }
            Event::Finished { .. } => call.unfinished -= 1,
            Event::Prefilled { .. } => {}
        }
        let finished = call.unfinished == 0;
        let heard = call.updates.send(Update::Event(call.index, event)).is_ok();
        if finished {
            self.calls.remove(&id);
        } else if !heard {
            self.cancel(id);
        }
    }

    /// After an error of the engine every request is told so and cancelled; the engine goes on with those to come.
    fn fail_all(&mut self, error: Error) {
        let message = self.model.explain(error).to_string();
        tracing::error!("the engine failed: {message}");
        for (id, call) in std::mem::take(&mut self.calls) {
            self.engine.cancel(id);
            drop(call.updates.send(Update::Failed(message.clone())));
        }
    }
}
