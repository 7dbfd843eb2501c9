//! A cache of the teacher's answers, one JSON line each: an answer is never requested twice.

use super::request::{Teacher, TeacherRequest};
use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A file of answers; each is flushed to disk before it is used.
pub struct AnswerCache {
    path: PathBuf,
    file: File,
    answers: HashMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct CachedAnswer {
    key: String,
    answer: String,
}

impl AnswerCache {
    /// Opens the answers of earlier runs, or an empty file. An incomplete last line of an interrupted run is removed.
    ///
    /// # Errors
    /// A file that cannot be read or written, or a line that is not an answer.
    pub fn open(path: &Path) -> Result<AnswerCache> {
        let io = |e: &dyn std::fmt::Display| Error::io(path, e);
        let mut file =
            OpenOptions::new().create(true).read(true).append(true).open(path).map_err(|e| io(&e))?;
        let bytes = fs::read(path).map_err(|e| io(&e))?;
        let complete = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let mut answers = HashMap::new();
        for (number, line) in
            (1..).zip(bytes[..complete].split(|&b| b == b'\n')).filter(|(_, l)| !l.is_empty())
        {
            let line: CachedAnswer = serde_json::from_slice(line).map_err(|e| {
                io(&format!("line {number} is not an answer ({e}); delete the line or the file"))
            })?;
            answers.insert(line.key, line.answer);
        }
        if complete < bytes.len() {
            file.set_len(complete as u64).map_err(|e| io(&e))?;
        }
        file.flush().map_err(|e| io(&e))?;
        Ok(AnswerCache { path: path.to_path_buf(), file, answers })
    }

    /// Returns the answer to each request; only those without a cached answer are sent to the teacher. Calls `progress`
    /// with the number of new answers.
    ///
    /// # Errors
    /// When the teacher fails (the error states that its answers so far are kept), or the disk.
    pub fn ask(
        &mut self,
        teacher: &mut dyn Teacher,
        requests: &[TeacherRequest],
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<String>> {
        let keys: Vec<String> = requests.iter().map(|request| key(teacher.name(), request)).collect();
        let mut missing: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, key) in keys.iter().enumerate().filter(|(_, key)| !self.answers.contains_key(*key)) {
            missing.entry(key).or_insert(i);
        }
        let mut indices: Vec<usize> = missing.into_values().collect();
        indices.sort_unstable();
        progress(requests.len() - indices.len());
        let missing_requests: Vec<&TeacherRequest> = indices.iter().map(|&i| &requests[i]).collect();
        let (file, path) = (Mutex::new(&self.file), &self.path);
        let new = Mutex::new(Vec::new());
        let result = teacher.answer(&missing_requests, &|i, answer| {
            let line = CachedAnswer { key: keys[indices[i]].clone(), answer };
            append(*file.lock().unwrap_or_else(|e| e.into_inner()), path, &line)?;
            new.lock().unwrap_or_else(|e| e.into_inner()).push(line);
            progress(1);
            Ok(())
        });
        let new = new.into_inner().unwrap_or_else(|e| e.into_inner());
        self.answers.extend(new.into_iter().map(|line| (line.key, line.answer)));
        result.map_err(|e| {
            e.advise(&format!("{} answers are kept in {}", self.answers.len(), self.path.display()))
        })?;
        let answer = |key: &String| self.answers.get(key).cloned();
        let answers: Option<Vec<String>> = keys.iter().map(answer).collect();
        answers.ok_or_else(|| Error::new(format!("{} left a request without an answer", teacher.name())))
    }
}

/// Appends a line in one write and flushes it to disk.
fn append(mut file: &File, path: &Path, line: &CachedAnswer) -> Result<()> {
    let mut text = serde_json::to_string(line).map_err(|e| Error::io(path, e))?;
    text.push('\n');
    file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(|e| Error::io(path, e))
}

/// The key of an answer: a hash of everything that it depends on.
fn key(teacher: &str, request: &TeacherRequest) -> String {
    let TeacherRequest { messages, temperature, max_tokens, seed } = request;
    let messages: Vec<[&str; 2]> = messages.iter().map(|m| [m.role, m.content.as_str()]).collect();
    let all = serde_json::json!([teacher, messages, temperature, max_tokens, seed]);
    Sha256::digest(all.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
}
