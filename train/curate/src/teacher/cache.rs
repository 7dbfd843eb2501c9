//! Answers that were given, one JSON line each: what was paid for is not asked for again.

use super::request::{Request, Teacher};
use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A file of answers, each on the disk before the next step builds on it.
pub struct Cache {
    path: PathBuf,
    file: File,
    answers: HashMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    answer: String,
}

impl Cache {
    /// Opens the answers of earlier runs, or none. Half a last line, which a run left that was cut short, is dropped.
    ///
    /// # Errors
    /// A file that cannot be read or written, or a line of it that is no answer.
    pub fn open(path: &Path) -> Result<Cache> {
        let io = |e: &dyn std::fmt::Display| Error::io(path, e);
        let mut file =
            OpenOptions::new().create(true).read(true).append(true).open(path).map_err(|e| io(&e))?;
        let bytes = fs::read(path).map_err(|e| io(&e))?;
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let mut answers = HashMap::new();
        for (number, line) in (1..).zip(bytes[..whole].split(|&b| b == b'\n')).filter(|(_, l)| !l.is_empty())
        {
            let line: Line = serde_json::from_slice(line).map_err(|e| {
                io(&format!("line {number} is no answer ({e}); take the line or the file away"))
            })?;
            answers.insert(line.key, line.answer);
        }
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(|e| io(&e))?;
        }
        file.flush().map_err(|e| io(&e))?;
        Ok(Cache { path: path.to_path_buf(), file, answers })
    }

    /// The answer to each request; only those that were never answered are put to the teacher. `progress` hears of
    /// each answer.
    ///
    /// # Errors
    /// The teacher's, with the word that what it answered is kept; or the disk's.
    pub fn ask(
        &mut self,
        teacher: &mut dyn Teacher,
        requests: &[Request],
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<String>> {
        let keys: Vec<String> = requests.iter().map(|request| key(teacher.name(), request)).collect();
        let mut missing: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, key) in keys.iter().enumerate().filter(|(_, key)| !self.answers.contains_key(*key)) {
            missing.entry(key).or_insert(i);
        }
        let mut places: Vec<usize> = missing.into_values().collect();
        places.sort_unstable();
        progress(requests.len() - places.len());
        let asked: Vec<&Request> = places.iter().map(|&i| &requests[i]).collect();
        let (file, path) = (Mutex::new(&self.file), &self.path);
        let new = Mutex::new(Vec::new());
        let done = teacher.answer(&asked, &|i, answer| {
            let line = Line { key: keys[places[i]].clone(), answer };
            append(*file.lock().unwrap_or_else(|e| e.into_inner()), path, &line)?;
            new.lock().unwrap_or_else(|e| e.into_inner()).push(line);
            progress(1);
            Ok(())
        });
        let new = new.into_inner().unwrap_or_else(|e| e.into_inner());
        self.answers.extend(new.into_iter().map(|line| (line.key, line.answer)));
        done.map_err(|e| {
            e.advise(&format!("{} answers are kept in {}", self.answers.len(), self.path.display()))
        })?;
        let answer = |key: &String| self.answers.get(key).cloned();
        let answers: Option<Vec<String>> = keys.iter().map(answer).collect();
        answers.ok_or_else(|| Error::new(format!("{} left a request without an answer", teacher.name())))
    }
}

/// One line at once, and on the disk.
fn append(mut file: &File, path: &Path, line: &Line) -> Result<()> {
    let mut text = serde_json::to_string(line).map_err(|e| Error::io(path, e))?;
    text.push('\n');
    file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(|e| Error::io(path, e))
}

/// What an answer depends on.
fn key(teacher: &str, request: &Request) -> String {
    let Request { messages, temperature, max_tokens, seed } = request;
    let messages: Vec<[&str; 2]> = messages.iter().map(|m| [m.role, m.content.as_str()]).collect();
    let all = serde_json::json!([teacher, messages, temperature, max_tokens, seed]);
    Sha256::digest(all.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
}
