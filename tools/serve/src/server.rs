//! The server: a model behind an address.

use crate::adapters::check_name;
use crate::app::App;
use crate::chat::Chat;
use crate::connection::accept;
use crate::drain::Drain;
use crate::engine_thread::EngineThread;
use crate::metrics::HttpMetrics;
use crate::models::Models;
use crate::options::ServeOptions;
use crate::router::router;
use crate::signals;
use codelsi_engine::{At, Error, Result};
use codelsi_experiment::inference_model::InferenceModel;
use codelsi_model::adapter::Adapter;
use codelsi_model::config::{Architecture, ModelConfig};
use codelsi_model::hub;
use codelsi_model::parallel::RankLayout;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// Time for connections to send their last answers once no request runs.
const CLOSING_TIME: Duration = Duration::from_secs(10);
/// Threads that serve connections: their work is small beside the engine's.
const THREADS: usize = 2;

/// A loaded model and a bound port.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    options: ServeOptions,
    app: Arc<App>,
    engine: JoinHandle<()>,
    drain: Drain,
    /// The threads of connections and of the signals' handlers.
    runtime: Runtime,
}

impl Server {
    /// Binds the port, loads the model and its adapters, and starts the engine.
    ///
    /// # Errors
    /// When the port is taken or may not be opened, or a part does not load or fit.
    pub fn open(options: ServeOptions) -> Result<Self> {
        let host = options.access.address()?;
        let adapter_dir = options
            .adapter_dir
            .as_deref()
            .map(|folder| folder.canonicalize().map_err(|e| Error::io(folder, e)).at("--adapter-dir"));
        let adapter_dir = adapter_dir.transpose()?;
        let to = SocketAddr::from((host, options.access.port));
        let in_use = |e| Error::new(format!("cannot listen on {to}: {e}; choose another --port"));
        let listener = TcpListener::bind(to).map_err(in_use)?;
        let address = listener.local_addr().map_err(in_use)?;
        let device = options.device.open()?;
        let (compute, packing) = (options.compute, options.pack_weights);
        let model =
            InferenceModel::open_on_rank(RankLayout::from(&device), &options.model, compute, packing, None)?;
        let chat = Chat::load(&options.model, &model.tokenizer)?;
        let model = Arc::new(model);
        let adapters = options.adapters.iter().map(|(name, folder)| read_adapter(&model, name, folder));
        let adapters = adapters.collect::<Result<Vec<_>>>()?;
        let ranks: Vec<usize> = adapters.iter().map(|(_, adapter)| rank_of(adapter)).collect();
        let slots = options.limits.adapter_slots(&ranks, adapter_dir.is_some());
        let config = options.limits.engine(model.checkpoint.config(), model.model.compute(), slots)?;
        let EngineThread { handle, thread } = EngineThread::start(model.clone(), config)?;
        let drain = Drain::default();
        let app = App {
            models: Models::new(&name_of(&options.model), is_code_llama(&model)),
            model,
            chat,
            engine: handle,
            adapter_dir,
            max_model_len: config.max_model_len,
            adapter_turn: tokio::sync::Mutex::new(()),
            drain: drain.clone(),
            http: HttpMetrics::default(),
            log_prompts: options.log_prompts,
        };
        adapters.into_iter().try_for_each(|(name, adapter)| add_adapter(&app, name, adapter))?;
        let runtime = runtime().map_err(cannot_start)?;
        {
            // Before anybody is told the address: a signal that comes at once ends the server in order.
            let _within = runtime.enter();
            signals::begin_on_signal(drain.clone()).map_err(cannot_start)?;
        }
        Ok(Server { listener, address, options, app: Arc::new(app), engine: thread, drain, runtime })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The names that clients see.
    pub fn model_ids(&self) -> Vec<String> {
        self.app.models.all().into_iter().map(|model| model.id).collect()
    }

    /// The server's end, to be begun by another thread.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Serves until SIGTERM, SIGINT or [`Drain::begin`], and then until no request runs.
    ///
    /// # Errors
    /// When the listener cannot be waited for, or the engine's thread has failed.
    pub fn run(self) -> Result<()> {
        let Server { listener, address, options, app, engine, drain, runtime } = self;
        listener.set_nonblocking(true).map_err(cannot_start)?;
        let router = router(app, options.access.rules(address.ip()));
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(cannot_start)?;
            let (end, ended) = watch::channel(false);
            let accepting = tokio::spawn(accept(listener, router, ended));
            drain.begun().await;
            tracing::info!("ending: requests that run are finished, no others are taken");
            drain.idle().await;
            end.send_replace(true);
            if tokio::time::timeout(CLOSING_TIME, accepting).await.is_err() {
                tracing::warn!("some connections did not take their answers in time");
            }
            Ok(())
        })?;
        // With the connections the last handles of the engine are gone, which ends it.
        runtime.shutdown_timeout(Duration::from_secs(1));
        engine.join().map_err(|_| Error::new("the engine's thread failed; see the message above"))
    }
}

fn cannot_start(e: std::io::Error) -> Error {
    Error::new(format!("the server cannot start: {e}"))
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(THREADS).thread_name("serve").enable_all().build()
}

/// Reads an adapter that was named at the start.
fn read_adapter<'n>(model: &InferenceModel, name: &'n str, folder: &Path) -> Result<(&'n str, Adapter)> {
    check_name(name).map_err(|message| Error::new(format!("--adapter {name:?}: the name {message}")))?;
    Ok((name, Adapter::load(folder, model.checkpoint.config())?))
}

/// The largest rank of an adapter's modules.
fn rank_of(adapter: &Adapter) -> usize {
    adapter.modules.values().map(|module| module.b.shape().as_matrix().1).max().unwrap_or(0)
}

/// Hands an adapter to the engine.
fn add_adapter(app: &App, name: &str, adapter: Adapter) -> Result<()> {
    let id = app.engine.load_adapter_blocking(adapter).at(format!("--adapter {name}"))?;
    let added = app.models.add(name, id);
    added.map_err(|error| Error::new(format!("--adapter {name}: {}", error.message)))
}

/// Returns the name of a model folder: `org/name` in the Hugging Face cache, else its last part.
fn name_of(folder: &Path) -> String {
    let absolute = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = hub::name_of(&absolute);
    match name == absolute.display().to_string() {
        false => name,
        true => absolute.file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned()),
    }
}

/// True for Code Llama: its infilling markers, or (of those that do not infill) its vocabulary, positions and rotation.
fn is_code_llama(model: &InferenceModel) -> bool {
    let config: &ModelConfig = model.checkpoint.config();
    let of_code = config.rope.theta == 1e6 && config.max_positions == 16384;
    let vocabulary = matches!(config.vocab, 32000 | 32016);
    let markers = model.tokenizer.infill_tokens().is_some_and(|tokens| {
        model.tokenizer.piece(tokens.prefix).is_some_and(|piece| piece.ends_with("<PRE>"))
    });
    config.architecture == Architecture::Llama && (markers || of_code && vocabulary)
}
