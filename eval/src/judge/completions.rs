//! Completions to judge, in our own form or in MultiPL-E's.

use crate::jsonl::{self, Placed};
use crate::problem::{CandidateProgram, Problem, check_problems};
use codelsi_engine::{At, Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

/// A completion of a problem.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRecord {
    pub id: String,
    /// The problem's name.
    pub name: String,
    pub completion: String,
    /// True if the completion is judged as it stands, false if it ends at the first stop token.
    pub truncated: bool,
}

impl CompletionRecord {
    /// Assembles the program of the completion with its problem.
    pub fn program(&self, problem: &Problem) -> CandidateProgram {
        match self.truncated {
            true => problem.program_of_truncated(&self.completion),
            false => problem.program(&self.completion),
        }
    }
}

/// Completions to judge, and what MultiPL-E's files hold beside them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completions {
    pub records: Vec<CompletionRecord>,
    /// Each of MultiPL-E's objects without its completions, by the problem's name: the problem, and how they were sampled.
    objects: BTreeMap<String, Placed<Map<String, Value>>>,
}

/// A value of a completions file.
#[derive(Deserialize)]
struct FileValue {
    id: Option<String>,
    name: String,
    completion: Option<String>,
    /// MultiPL-E's: all completions of one problem.
    completions: Option<Vec<String>>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Completions {
    /// Reads the completions of a file, or of every `.json`, `.jsonl` and `.gz` file of a folder by the order of their names. A
    /// file holds JSON Lines of `id`, `name` and `completion`, each to be truncated at a stop token, or MultiPL-E's objects of a
    /// problem's `name` and its `completions`, which are truncated already and whose ids become `NAME/0`, `NAME/1` and so on.
    ///
    /// # Errors
    /// Names the file and line that cannot be read, and a problem that two of MultiPL-E's objects are of.
    pub fn read(path: &Path) -> Result<Self> {
        let mut all = Completions::default();
        for (place, value) in jsonl::read_placed(path)? {
            all.add(place, value).at(path.display().to_string())?;
        }
        Ok(all)
    }

    fn add(&mut self, place: String, value: FileValue) -> Result<()> {
        let missing = |field: &str| {
            let forms =
                "{\"id\", \"name\", \"completion\"} or MultiPL-E's {\"name\", \"completions\"} is expected";
            Error::new(format!("{place}: no field `{field}`; {forms}"))
        };
        let FileValue { id, name, completion, completions, others } = value;
        let Some(completions) = completions else {
            self.records.push(CompletionRecord {
                id: id.ok_or_else(|| missing("id"))?,
                name,
                completion: completion.ok_or_else(|| missing("completion"))?,
                truncated: false,
            });
            return Ok(());
        };
        let object = [("name".into(), name.clone().into())].into_iter().chain(others).collect();
        match self.objects.entry(name.clone()) {
            Entry::Occupied(earlier) => {
                let (earlier, _) = earlier.get();
                return Err(Error::new(format!("{earlier} and {place}: both hold completions of `{name}`")));
            }
            Entry::Vacant(entry) => entry.insert((place, object)),
        };
        self.records.extend(completions.into_iter().enumerate().map(|(sample, completion)| {
            CompletionRecord {
                id: format!("{name}/{sample}"),
                name: name.clone(),
                completion,
                truncated: true,
            }
        }));
        Ok(())
    }

    /// Returns the problems that MultiPL-E's objects hold.
    ///
    /// # Errors
    /// When there is none, or one that lacks a field or cannot be measured.
    pub fn problems(&self) -> Result<Vec<Problem>> {
        let problem = |(place, object): &Placed<Map<String, Value>>| {
            let problem = serde_json::from_value(Value::Object(object.clone()));
            let problem = problem
                .map_err(|e| Error::new(format!("{place}: no problem beside the completions: {e}")))?;
            Ok((place.clone(), problem))
        };
        let problems: Vec<Placed<Problem>> = self.objects.values().map(problem).collect::<Result<_>>()?;
        check_problems(&problems)?;
        match problems.is_empty() {
            true => Err(Error::new("holds completions alone; give their problems by --problems")),
            false => Ok(problems.into_iter().map(|(_, problem)| problem).collect()),
        }
    }

    /// Returns what MultiPL-E's object of a problem holds beside its completions.
    pub fn object(&self, problem: &str) -> Option<&Map<String, Value>> {
        self.objects.get(problem).map(|(_, object)| object)
    }

    /// Counts MultiPL-E's objects that hold another prompt or other tests than the problem of their name.
    pub fn count_of_other_problems(&self, problems: &[Problem]) -> usize {
        let differs = |problem: &&Problem| {
            let object = self.object(&problem.name);
            let differs = |key: &str, text: &str| {
                object.and_then(|object| object.get(key)).is_some_and(|value| value != text)
            };
            differs("prompt", &problem.prompt) || differs("tests", &problem.tests)
        };
        problems.iter().filter(differs).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::fs;
    use std::io::Write;

    fn pack(path: &Path, text: &str) {
        let mut packed = GzEncoder::new(fs::File::create(path).unwrap(), Compression::default());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap();
    }

    #[test]
    fn multipl_e_s_own_files_are_read_packed_and_by_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        pack(
            &dir.path().join("b.json.gz"),
            "{\"name\": \"b\",\n \"prompt\": \"\", \"completions\": [\"x\", \"y\"]}",
        );
        fs::write(dir.path().join("a.json"), "{\"name\": \"a\", \"completions\": [\"z\"]}").unwrap();
        fs::write(dir.path().join("a.results.json"), "{}").unwrap();
        let ids = |path: &Path| -> Vec<String> {
            Completions::read(path)
                .unwrap()
                .records
                .into_iter()
                .map(|r| format!("{} {}", r.id, r.completion))
                .collect()
        };
        assert_eq!(ids(dir.path()), ["a/0 z", "b/0 x", "b/1 y"]);
        assert_eq!(ids(&dir.path().join("b.json.gz")), ["b/0 x", "b/1 y"]);
    }

    #[test]
    fn our_lines_are_read_packed_and_with_a_byte_order_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.jsonl.gz");
        pack(
            &path,
            "\u{feff}{\"id\":\"1\",\"name\":\"p\",\"completion\":\"x\"}\n\n{\"id\":\"2\",\"name\":\"p\",\"completion\":\"\"}\n",
        );
        let records = Completions::read(&path).unwrap().records;
        assert_eq!(records.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
        fs::write(&path, [0x1f, 0x8b, 0, 1]).unwrap();
        assert!(Completions::read(&path).unwrap_err().to_string().contains("c.jsonl.gz"));
        fs::write(&path, "{\"name\":\"p\",\"completion\":\"\"}\n").unwrap();
        assert!(Completions::read(&path).unwrap_err().to_string().contains("no field `id`"));
    }

    #[test]
    fn problems_lie_beside_the_completions_and_one_problem_has_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "p.json",
            r##"{"name": "p", "language": "ts", "temperature": 0.8, "prompt": "(", "tests": ")", "stop_tokens": ["#"],
                "completions": ["1 # 2"]}"##,
        );
        let read = || Completions::read(dir.path());
        let (all, problem) = (read().unwrap(), read().unwrap().problems().unwrap().remove(0));
        assert_eq!((problem.name.as_str(), problem.stop_tokens.len()), ("p", 1));
        assert!(all.records[0].truncated && all.object("p").unwrap()["temperature"] == 0.8);
        assert_eq!(all.count_of_other_problems(std::slice::from_ref(&problem)), 0);
        assert_eq!(all.count_of_other_problems(&[Problem { tests: "]".into(), ..problem }]), 1);

        write("q.json", r#"{"name": "q", "completions": []}"#);
        let message = read().unwrap().problems().unwrap_err().to_string();
        assert!(message.contains("q.json, line 1: no problem") && message.contains("language"), "{message}");
        write("q.json", r#"{"name": "p", "completions": []}"#);
        let message = read().unwrap_err().to_string();
        assert!(message.contains("p.json, line 1 and q.json, line 1: both hold"), "{message}");
    }
}
