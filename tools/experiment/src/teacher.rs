//! Teachers of the curation: a model behind an OpenAI-compatible server, or one loaded in this process.

use crate::api_client::{ApiClient, in_request_pool, is_address};
use crate::local::LocalModel;
use crate::output::note;
use crate::placement::Placement;
use codelsi_curate::teacher::{OnAnswer, Teacher, TeacherRequest};
use codelsi_engine::{At, Error, Result};
use codelsi_eval::sampling::{CompletionRequest, Generator};
use codelsi_model::template::PromptTemplate;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

/// Requests that a local model answers between two writes of the cache.
const CHUNK: usize = 16;
/// No nucleus truncation.
const TOP_P: f32 = 1.0;

/// Options of a teacher.
#[derive(Clone, Debug)]
pub struct TeacherOptions {
    /// Address of an OpenAI-compatible server, as `https://host/v1`, or a model folder.
    pub address_or_folder: String,
    /// Model name on the server.
    pub model: Option<String>,
    /// Environment variable of the server's API key.
    pub key_env: Option<String>,
    /// Placement of a local model.
    pub placement: Placement,
}

impl TeacherOptions {
    /// Opens the teacher.
    ///
    /// # Errors
    /// When the address is invalid, the model's name is missing, or the model does not load.
    pub fn open(&self) -> Result<Box<dyn Teacher>> {
        if !is_address(&self.address_or_folder) {
            if self.model.is_some() || self.key_env.is_some() {
                return Err(Error::new(format!(
                    "--teacher-model and --teacher-key-env are for a server, and `{}` is no address; give one as \
                     https://host/v1",
                    self.address_or_folder
                )));
            }
            self.placement.ranks.in_one_process()?;
            return Ok(Box::new(LocalTeacher::open(Path::new(&self.address_or_folder), self.placement)?));
        }
        let Some(model) = &self.model else {
            return Err(Error::new("a server has many models: name the teacher with --teacher-model"));
        };
        Ok(Box::new(RemoteTeacher::new(&self.address_or_folder, model, self.key_env.as_deref())?))
    }
}

/// A chat model on a server.
pub struct RemoteTeacher {
    client: ApiClient,
    model: String,
}

impl RemoteTeacher {
    /// Makes a client of `model` behind `address`; the API key comes from the environment variable `key`, by default as
    /// in [`ApiClient::new`].
    ///
    /// # Errors
    /// As [`ApiClient::new`].
    pub fn new(address: &str, model: &str, key: Option<&str>) -> Result<Self> {
        Ok(RemoteTeacher { client: ApiClient::new(address, key).at("--teacher")?, model: model.to_owned() })
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
        let answer_one = |(i, request): (usize, &&TeacherRequest)| {
            let choices = this.client.choices("chat/completions", &this.body(request))?;
            choices.into_iter().take(1).try_for_each(|answer| answered(i, answer))
        };
        in_request_pool(|| requests.par_iter().enumerate().try_for_each(answer_one))?
            .at(self.client.address())
    }
}

/// A model loaded in this process, prompted in Llama's `[INST]` format.
pub struct LocalTeacher {
    model: LocalModel,
    name: String,
}

impl LocalTeacher {
    /// Loads the model.
    ///
    /// # Errors
    /// When the model does not load or fit.
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
            let mut completions: Vec<CompletionRequest> =
                requests.iter().map(|request| to_completion(request)).collect();
            let room = self.model.room(&completions)?;
            completions.iter_mut().zip(&room).for_each(|(request, room)| request.max_tokens = *room);
            // A prompt that leaves no room is not cut: it has no answer.
            let (asked, unasked): (Vec<usize>, Vec<usize>) = (0..room.len()).partition(|&i| room[i] > 0);
            let batch: Vec<CompletionRequest> = asked.iter().map(|&i| completions[i].clone()).collect();
            if !batch.is_empty() {
                let answers = self.model.generate(&batch, &mut |_| ())?;
                for (i, answer) in asked.into_iter().zip(answers.into_iter().flatten()) {
                    answered(chunk * CHUNK + i, answer)?;
                }
            }
            if !unasked.is_empty() {
                note(&format!(
                    "teacher: {} prompts do not fit its context, and have no answer",
                    unasked.len()
                ));
            }
            for i in unasked {
                answered(chunk * CHUNK + i, String::new())?;
            }
        }
        Ok(())
    }
}

/// Turns a chat into one instruction: Llama's models expect the system message at the start of the user's.
fn to_completion(request: &TeacherRequest) -> CompletionRequest {
    let message: Vec<&str> = request.messages.iter().map(|message| message.content.as_str()).collect();
    CompletionRequest {
        prompt: PromptTemplate::Inst.wrap(&message.join("\n\n")),
        suffix: None,
        chat_template: false,
        message: None,
        n: 1,
        max_tokens: request.max_tokens,
        temperature: request.temperature,
        top_p: TOP_P,
        seed: request.seed,
        stop: Vec::new(),
    }
}
