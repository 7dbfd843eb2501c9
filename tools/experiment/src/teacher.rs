//! Who teaches: a model behind an OpenAI-compatible address, or one of our own.

use crate::local::LocalModel;
use crate::placement::Placement;
use crate::server::{Server, at_once, is_address};
use codelsi_curate::teacher::{OnAnswer, Teacher, TeacherRequest};
use codelsi_engine::{At, Error, Result};
use codelsi_eval::sampling::{CompletionRequest, Generator};
use codelsi_model::template::PromptTemplate;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

/// Requests that our own model answers between two writes of the cache.
const CHUNK: usize = 16;
/// All of the distribution: temperature alone decides.
const TOP_P: f32 = 1.0;

/// The teacher that a command asks for.
#[derive(Clone, Debug)]
pub struct TeacherOptions {
    /// Address of a server that speaks OpenAI's protocol, as `https://host/v1`, or a model folder.
    pub teacher: String,
    /// The server's name for its model.
    pub model: Option<String>,
    /// Environment variable that holds the server's key.
    pub key_env: Option<String>,
    /// Where a model folder's model runs.
    pub placement: Placement,
}

impl TeacherOptions {
    /// Opens the teacher.
    ///
    /// # Errors
    /// What the server's address or the model's folder lacks.
    pub fn open(&self) -> Result<Box<dyn Teacher>> {
        if !is_address(&self.teacher) {
            if self.model.is_some() || self.key_env.is_some() {
                return Err(Error::new(format!(
                    "--teacher-model and --teacher-key-env are for a server, and `{}` is no address; give one as \
                     https://host/v1",
                    self.teacher
                )));
            }
            self.placement.ranks.in_one_process()?;
            return Ok(Box::new(LocalTeacher::open(Path::new(&self.teacher), self.placement)?));
        }
        let Some(model) = &self.model else {
            return Err(Error::new("a server has many models: name the teacher with --teacher-model"));
        };
        Ok(Box::new(RemoteTeacher::new(&self.teacher, model, self.key_env.as_deref())?))
    }
}

/// A model on a server that chats.
pub struct RemoteTeacher {
    server: Server,
    model: String,
}

impl RemoteTeacher {
    /// `model` behind `address`; its key is in the environment variable `key`, or where [`Server::new`] looks for it.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn new(address: &str, model: &str, key: Option<&str>) -> Result<Self> {
        Ok(RemoteTeacher { server: Server::new(address, key).at("--teacher")?, model: model.to_owned() })
    }

    fn body(&self, request: &TeacherRequest) -> Value {
        let messages = request.messages.iter().map(|m| json!({"role": m.role, "content": m.content}));
        json!({
            "model": self.model, "messages": messages.collect::<Vec<_>>(), "temperature": request.temperature,
            "max_tokens": request.max_tokens, "seed": request.seed,
        })
    }
}

impl Teacher for RemoteTeacher {
    fn name(&self) -> &str {
        &self.model
    }

    fn answer(&mut self, requests: &[&TeacherRequest], answered: &OnAnswer) -> Result<()> {
        let this = &*self;
        let one = |(i, request): (usize, &&TeacherRequest)| {
            let choices = this.server.choices("chat/completions", &this.body(request))?;
            choices.into_iter().take(1).try_for_each(|answer| answered(i, answer))
        };
        at_once(|| requests.par_iter().enumerate().try_for_each(one))?.at(self.server.address())
    }
}

/// A model folder of our own, asked in Llama's `[INST]` form.
pub struct LocalTeacher {
    model: LocalModel,
    name: String,
}

impl LocalTeacher {
    /// Loads the model.
    ///
    /// # Errors
    /// One line on what does not load or fit.
    pub fn open(folder: &Path, placement: Placement) -> Result<Self> {
        Ok(LocalTeacher { model: LocalModel::open(folder, placement)?, name: folder.display().to_string() })
    }
}

impl Teacher for LocalTeacher {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(&mut self, requests: &[&TeacherRequest], answered: &OnAnswer) -> Result<()> {
        for (chunk, requests) in requests.chunks(CHUNK).enumerate() {
            let asks: Vec<CompletionRequest> = requests.iter().map(|request| ask(request)).collect();
            let answers = self.model.generate(&asks, &mut |_| ())?;
            for (i, answer) in answers.into_iter().flatten().enumerate() {
                answered(chunk * CHUNK + i, answer)?;
            }
        }
        Ok(())
    }
}

/// A chat as one instruction: Llama's models take what a system says at the head of the user's message.
fn ask(request: &TeacherRequest) -> CompletionRequest {
    let message: Vec<&str> = request.messages.iter().map(|message| message.content.as_str()).collect();
    CompletionRequest {
        prompt: PromptTemplate::Inst.wrap(&message.join("\n\n")),
        message: None,
        n: 1,
        max_tokens: request.max_tokens,
        temperature: request.temperature,
        top_p: TOP_P,
        seed: request.seed,
        stop: Vec::new(),
    }
}
