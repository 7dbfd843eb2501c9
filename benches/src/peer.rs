//! A peer in a process of its own, which times one run of a case whenever it is asked, so that both can take turns.

use codelsi_engine::{At, Error, Result};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Answer of a peer to a case.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Time(Duration),
    /// The peer does not have this case; the text is its reason.
    Absent(String),
}

/// A program that reads `CASE PASS` lines and answers each with seconds, or with `absent REASON`.
pub struct Peer {
    /// The first line that the program prints: what it is, and on what.
    pub title: String,
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts the program that `command` names, words separated by spaces, and reads its title.
    ///
    /// # Errors
    /// When it does not start, or ends without a title; its own message goes to stderr.
    pub fn start(command: &str) -> Result<Self> {
        let failed = |e: String| Error::new(e).at(format!("peer `{command}`"));
        let mut words = command.split_whitespace();
        let program = words.next().ok_or_else(|| failed("no program is named".into()))?;
        let mut process = Command::new(program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed(format!("does not start: {e}")))?;
        let (Some(requests), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(failed("has no pipes".into()));
        };
        let mut peer = Peer { title: String::new(), process, requests, answers: BufReader::new(answers) };
        peer.title = peer.line().map_err(|_| failed("ended before it said what it is".into()))?;
        Ok(peer)
    }

    /// Asks for the time of one run of `case`.
    ///
    /// # Errors
    /// When the program has ended, or answers with something else.
    pub fn time(&mut self, case: &str) -> Result<Answer> {
        writeln!(self.requests, "{case}").map_err(|e| Error::new(e.to_string())).at(self.title.clone())?;
        let answer = self.line()?;
        match answer.strip_prefix("absent ") {
            Some(reason) => Ok(Answer::Absent(reason.into())),
            None => {
                let seconds =
                    answer.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                let seconds = seconds.filter(|time| !time.is_zero());
                seconds.map(Answer::Time).ok_or_else(|| {
                    Error::new(format!("answered {answer:?} to `{case}`, not seconds")).at(self.title.clone())
                })
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(1..) => Ok(line.trim_end().into()),
            Ok(0) => Err(Error::new("the program ended").at(self.title.clone())),
            Err(e) => Err(Error::new(e.to_string()).at(self.title.clone())),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a peer whose program is the shell script `body`, in one word.
    fn script(body: &str) -> (tempfile::TempDir, Result<Peer>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peer.sh");
        std::fs::write(&path, body).unwrap();
        let peer = Peer::start(&format!("sh {}", path.display()));
        (folder, peer)
    }

    #[test]
    fn a_peer_answers_each_case_with_its_time_or_a_reason() {
        let body = "echo Peer 1.0; while read case; do case $case in gemm*) echo 0.25 ;; rope*) echo absent no rope ;; *) echo NaN ;; esac; done";
        let (_folder, peer) = script(body);
        let mut peer = peer.unwrap();
        assert_eq!(peer.title, "Peer 1.0");
        assert_eq!(peer.time("gemm/BF16 T=1 Forward").unwrap(), Answer::Time(Duration::from_millis(250)));
        assert_eq!(peer.time("rope/BF16 T=1 Forward").unwrap(), Answer::Absent("no rope".into()));
        let refused = peer.time("xent/BF16 T=1 Forward").unwrap_err().to_string();
        assert!(refused.contains("answered \"NaN\""), "{refused}");
    }

    #[test]
    fn a_peer_that_ends_is_an_error() {
        let message = |peer: Result<Peer>| peer.err().unwrap().to_string();
        assert!(message(script("exit 1").1).contains("ended before it said what it is"));
        assert!(message(Peer::start("/no/such/program")).contains("does not start"));
        assert!(message(Peer::start(" ")).contains("no program is named"));
        let (_folder, peer) = script("echo Peer; read case; exit");
        let mut peer = peer.unwrap();
        assert!(peer.time("gemm").unwrap_err().to_string().contains("the program ended"));
    }
}
