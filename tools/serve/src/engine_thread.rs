//! The thread that owns the engine. Commands come through a channel, events go out through one channel for each call; where
//! there is no work the thread sleeps on the commands. No reader is waited for: what a call may produce is limited by its
//! tokens, so its channel is not.

use crate::metrics::Latencies;
use codelsi_engine::team::{self, Team};
use codelsi_engine::{Error, Result};
use codelsi_experiment::inference_model::InferenceModel;
use codelsi_model::adapter::Adapter;
use codelsi_model::generate::{
    AdapterId, AddError, Engine, EngineConfig, EngineOutputs, EngineStats, Event, Failure, GenerationRequest,
    RequestId,
};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// News of a call.
#[derive(Debug)]
pub enum Update {
    /// An event of the request of this index.
    Event(usize, Event),
    /// The request failed.
    Failed(String),
}

/// The reason why a call does not run.
#[derive(Debug)]
pub enum StartError {
    Refused(AddError),
    /// The thread has ended.
    Gone,
}

/// Answers the sender of [`Command::Add`].
type Added = oneshot::Sender<std::result::Result<Vec<RequestId>, StartError>>;

enum Command {
    Add { requests: Vec<GenerationRequest>, updates: UnboundedSender<Update>, answer: Added },
    Cancel(Vec<RequestId>),
    LoadAdapter(Box<Adapter>, oneshot::Sender<Result<AdapterId>>),
    UnloadAdapter(AdapterId),
}

/// An end of the channel to the thread, which ends with the last of them.
#[derive(Clone)]
pub struct EngineHandle {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

/// Figures that can be read at any time.
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

/// The thread, to be joined, and an end of its channel.
pub struct EngineThread {
    pub handle: EngineHandle,
    pub thread: JoinHandle<()>,
}

impl EngineThread {
    /// Starts an engine of a model on a thread of its own.
    ///
    /// # Errors
    /// When the engine cannot be made, e.g. for want of memory.
    pub fn start(model: Arc<InferenceModel>, config: EngineConfig) -> Result<Self> {
        let (commands, received) = channel();
        let (started, start) = channel();
        let shared = Arc::new(Shared::default());
        let told = shared.clone();
        let run = move || match Team::gather(team::threads())
            .and_then(|team| Ok((team, new_engine(&model, config)?)))
        {
            Err(error) => drop(started.send(Err(error))),
            Ok((_team, engine)) => {
                drop(started.send(Ok(())));
                let (calls, adapters) = (HashMap::new(), Vec::new());
                Worker { engine, config, model: &model, shared: told, calls, adapters }.run(&received);
            }
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(run);
        let thread = thread.map_err(|e| Error::new(format!("no thread for the engine: {e}")))?;
        start.recv().map_err(|_| gone())??;
        Ok(EngineThread { handle: EngineHandle { commands, shared }, thread })
    }
}

fn new_engine(model: &InferenceModel, config: EngineConfig) -> Result<Engine<'_>> {
    Engine::new(model.device(), &model.model, Some(&model.tokenizer), config)
}

impl EngineHandle {
    /// Adds the requests of a call, all or none.
    ///
    /// # Errors
    /// When one is invalid for the model, or there are too many.
    pub async fn add(&self, requests: Vec<GenerationRequest>) -> std::result::Result<Running, StartError> {
        let (updates, received) = unbounded_channel();
        let (answer, answered) = oneshot::channel();
        let command = Command::Add { requests, updates, answer };
        self.commands.send(command).map_err(|_| StartError::Gone)?;
        // A call that is dropped while it waits closes its channels, which cancels it.
        let ids = answered.await.map_err(|_| StartError::Gone)??;
        Ok(Running { updates: received, ids, commands: self.commands.clone() })
    }

    /// Loads an adapter into the engine.
    ///
    /// # Errors
    /// When it does not fit.
    pub async fn load_adapter(&self, adapter: Adapter) -> Result<AdapterId> {
        self.send_adapter(adapter)?.await.map_err(|_| gone())?
    }

    /// Loads an adapter into the engine, on a thread that may wait.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn load_adapter_blocking(&self, adapter: Adapter) -> Result<AdapterId> {
        self.send_adapter(adapter)?.blocking_recv().map_err(|_| gone())?
    }

    fn send_adapter(&self, adapter: Adapter) -> Result<oneshot::Receiver<Result<AdapterId>>> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::LoadAdapter(Box::new(adapter), answer)).map_err(|_| gone())?;
        Ok(answered)
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
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Update>> {
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
    /// Samples that are not finished.
    unfinished: usize,
    added: Instant,
    /// The time of each sample's newest token.
    newest: HashMap<usize, Instant>,
}

/// An adapter in the engine, kept for another engine after a failure.
struct LoadedAdapter {
    /// The id that requests name.
    id: AdapterId,
    /// The id in the engine that runs now.
    current: AdapterId,
    adapter: Adapter,
}

struct Worker<'m> {
    engine: Engine<'m>,
    config: EngineConfig,
    model: &'m InferenceModel,
    shared: Arc<Shared>,
    calls: HashMap<RequestId, Call>,
    adapters: Vec<LoadedAdapter>,
}

impl Worker<'_> {
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            *lock(&self.shared.stats) = self.engine.stats();
            if !self.engine.has_work() {
                match commands.recv() {
                    Ok(command) => self.handle(command),
                    Err(_) => return,
                }
            }
            while let Ok(command) = commands.try_recv() {
                self.handle(command);
            }
            if !self.engine.has_work() {
                continue;
            }
            match self.engine.step() {
                Ok(EngineOutputs { events, failures }) => {
                    events.into_iter().for_each(|event| self.tell(event));
                    failures.into_iter().for_each(|failure| self.fail(failure));
                }
                Err(error) => {
                    if let Err(error) = self.start_anew(error) {
                        tracing::error!(
                            "the engine cannot start anew, and the server answers no more: {error}"
                        );
                        return;
                    }
                }
            }
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Add { requests, updates, answer } => {
                if let Err(Ok(ids)) = answer.send(self.add(requests, &updates)) {
                    ids.into_iter().for_each(|id| self.cancel(id));
                }
            }
            Command::Cancel(ids) => ids.into_iter().for_each(|id| self.cancel(id)),
            Command::LoadAdapter(adapter, answer) => {
                if let Err(Ok(id)) = answer.send(self.load_adapter(*adapter)) {
                    self.unload_adapter(id);
                }
            }
            Command::UnloadAdapter(id) => self.unload_adapter(id),
        }
    }

    fn add(
        &mut self,
        requests: Vec<GenerationRequest>,
        updates: &UnboundedSender<Update>,
    ) -> std::result::Result<Vec<RequestId>, StartError> {
        let mut ids = Vec::with_capacity(requests.len());
        for (index, mut request) in requests.into_iter().enumerate() {
            let unfinished = request.n;
            request.adapter = request.adapter.map(|id| self.current(id));
            match self.engine.add(request) {
                Ok(id) => {
                    let (updates, newest) = (updates.clone(), HashMap::new());
                    let call = Call { index, updates, unfinished, added: Instant::now(), newest };
                    self.calls.insert(id, call);
                    ids.push(id);
                }
                Err(error) => {
                    ids.into_iter().for_each(|id| self.cancel(id));
                    return Err(StartError::Refused(error));
                }
            }
        }
        Ok(ids)
    }

    fn cancel(&mut self, id: RequestId) {
        if self.calls.remove(&id).is_some() {
            self.engine.cancel(id);
        }
    }

    /// Returns the id of an adapter in the engine that runs now; an unloaded one keeps its own, which the engine refuses.
    fn current(&self, id: AdapterId) -> AdapterId {
        self.adapters.iter().find(|loaded| loaded.id == id).map_or(id, |loaded| loaded.current)
    }

    fn load_adapter(&mut self, adapter: Adapter) -> Result<AdapterId> {
        let id = self.engine.load_adapter(&adapter)?;
        self.adapters.push(LoadedAdapter { id, current: id, adapter });
        Ok(id)
    }

    fn unload_adapter(&mut self, id: AdapterId) {
        let cancelled = self.engine.unload_adapter(self.current(id));
        self.adapters.retain(|loaded| loaded.id != id);
        for call in cancelled.iter().filter_map(|request| self.calls.remove(request)) {
            drop(call.updates.send(Update::Failed("the adapter was unloaded".into())));
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

    /// Tells a request that it failed, alone.
    fn fail(&mut self, Failure { request, error }: Failure) {
        let Some(call) = self.calls.remove(&request) else { return };
        let message = self.model.explain(error).to_string();
        tracing::error!("a request failed: {message}");
        drop(call.updates.send(Update::Failed(message)));
    }

    /// After a failure of the engine every request is told so, and another engine with the same adapters takes those to come.
    fn start_anew(&mut self, error: Error) -> Result<()> {
        let message = self.model.explain(error).to_string();
        tracing::error!("the engine failed, and starts anew: {message}");
        for call in std::mem::take(&mut self.calls).into_values() {
            drop(call.updates.send(Update::Failed(message.clone())));
        }
        self.engine = new_engine(self.model, self.config)?;
        for loaded in &mut self.adapters {
            loaded.current = self.engine.load_adapter(&loaded.adapter)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_engine::{DType, Device};
    use codelsi_model::config::LinearName;
    use codelsi_model::generate::{AdapterSlots, SchedulerConfig};
    use codelsi_model::synthetic;

    #[test]
    fn after_a_failure_the_engine_starts_anew_with_the_adapters_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let config = synthetic::config("tiny").unwrap();
        synthetic::write_random_model(folder.path(), &config, 7, &mut |_, _| {}).unwrap();
        let model = InferenceModel::open(folder.path(), &Device::cpu(), Some(DType::F32), None).unwrap();
        let room = AdapterSlots { count: 2, rank: 4 };
        let config =
            EngineConfig { adapters: room, ..EngineConfig::new(SchedulerConfig::default(), 64, 256) };
        let engine = new_engine(&model, config).unwrap();
        let (shared, calls) = (Arc::default(), HashMap::new());
        let mut worker = Worker { engine, config, model: &model, shared, calls, adapters: Vec::new() };
        let adapters = [1, 2].map(|seed| worker.load_adapter(adapter(&model, seed)).unwrap());
        // Loaded anew, what is left comes first.
        worker.unload_adapter(adapters[0]);
        let answer = |worker: &mut Worker, adapter| {
            let (updates, mut received) = unbounded_channel();
            let request = GenerationRequest { adapter, ..GenerationRequest::greedy(vec![3, 4, 5], 6) };
            worker.add(vec![request], &updates).unwrap();
            while worker.engine.has_work() {
                let outputs = worker.engine.step().unwrap();
                outputs.events.into_iter().for_each(|event| worker.tell(event));
            }
            let mut tokens = Vec::new();
            while let Ok(update) = received.try_recv() {
                if let Update::Event(_, Event::Token { token, .. }) = update {
                    tokens.push(token.id);
                }
            }
            tokens
        };
        let before = [None, Some(adapters[1])].map(|adapter| answer(&mut worker, adapter));
        assert_ne!(before[0], before[1]);

        let (updates, mut received) = unbounded_channel();
        worker.add(vec![GenerationRequest::greedy(vec![3, 4], 6)], &updates).unwrap();
        worker.start_anew(Error::new("the device is gone")).unwrap();
        assert!(matches!(received.try_recv(), Ok(Update::Failed(why)) if why == "the device is gone"));
        assert!(!worker.engine.has_work() && worker.calls.is_empty());
        assert_eq!([None, Some(adapters[1])].map(|adapter| answer(&mut worker, adapter)), before);
    }

    /// An adapter that changes the model's answers.
    fn adapter(model: &InferenceModel, seed: u64) -> Adapter {
        let config = model.model.config();
        let mut adapter = Adapter::init_lora(config, 4, 64.0, 0.0, &[LinearName::Q], seed).unwrap();
        for module in adapter.modules.values_mut() {
            let b: &mut [f32] = module.b.slice_mut().unwrap();
            b.iter_mut().enumerate().for_each(|(i, x)| *x = (i % 11) as f32 / 5.0 - 1.0);
        }
        adapter
    }
}
