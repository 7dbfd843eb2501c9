//! `codelsi train` as several ranks: threads or processes, the bits are those of one; and no death goes unseen.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TIMEOUT: f64 = 4.0;

/// A model and data, and the runs made of them.
struct RankRuns {
    folder: tempfile::TempDir,
}

impl RankRuns {
    fn new() -> Self {
        let runs = RankRuns { folder: tempfile::tempdir().unwrap() };
        let made = codelsi().args(["mkmodel", "--shape", "tiny", "--out"]).arg(runs.path("model")).output();
        succeeded(&made.unwrap());
        let row = |i: usize| {
            let output = "return x; ".repeat(3 + i % 9);
            format!("{{\"instruction\": \"write f{i}\", \"output\": \"{output}\"}}\n")
        };
        fs::write(runs.path("data.jsonl"), (0..90).map(row).collect::<String>()).unwrap();
        runs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `codelsi train` into `out`: five micro-batches a step on few steps of uneven ends.
    fn train(&self, out: &str) -> Command {
        self.train_for("8", "4", out)
    }

    /// A run of so many epochs, with a checkpoint every so many steps.
    fn train_for(&self, epochs: &str, save_every: &str, out: &str) -> Command {
        let mut command = codelsi();
        command.arg("train").arg("--model").arg(self.path("model"));
        command.arg("--data").arg(self.path("data.jsonl")).arg("--out").arg(self.path(out));
        command.args([
            "--device",
            "cpu",
            "--seq",
            "96",
            "--batch",
            "5",
            "--epochs",
            epochs,
            "--validation",
            "6",
        ]);
        command.args(["--save-every", save_every, "--rank", "4"]).env("CODELSI_TIMEOUT", TIMEOUT.to_string());
        command
    }

    /// The trained bytes of a run.
    fn adapter(&self, out: &str) -> Vec<u8> {
        fs::read(self.path(out).join("adapter_model.safetensors")).unwrap()
    }

    /// Both processes of a run of two ranks.
    fn pair(&self, out: &str) -> [Child; 2] {
        let port = free_port();
        [0, 1].map(|rank| launched(self.train(out), rank, 2, port).spawn().unwrap())
    }
}

fn codelsi() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codelsi"));
    let torch = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "CODELSI_TIMEOUT"];
    let others = ["PMI_RANK", "PMI_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"];
    torch.into_iter().chain(others).for_each(|name| {
        command.env_remove(name);
    });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The command as torchrun starts it.
fn launched(mut command: Command, rank: usize, world: usize, port: u16) -> Command {
    let numbers = [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", world), ("LOCAL_WORLD_SIZE", world)];
    command.envs(numbers.map(|(name, n)| (name, n.to_string())));
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    command
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[track_caller]
fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until the run has written the checkpoint of a step, and is in the middle of a later one.
fn reached(out: &Path, step: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let lines = || fs::read_to_string(out.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    while lines() < step {
        assert!(Instant::now() < deadline, "the run did not come to step {step}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The one line by which a process ends in failure, within the timeout and a moment.
#[track_caller]
fn last_words(process: Child) -> String {
    let started = Instant::now();
    let output = process.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(started.elapsed().as_secs_f64() < TIMEOUT + 1.0, "{:?}: {errors}", started.elapsed());
    let line = errors.lines().last().unwrap_or_default().to_owned();
    assert!(line.starts_with("codelsi: rank ") && !errors.contains("panicked"), "{errors}");
    line
}

#[test]
fn threads_and_processes_leave_the_bytes_of_one() {
    let runs = RankRuns::new();
    succeeded(&runs.train("alone").output().unwrap());
    for ranks in ["2", "3"] {
        succeeded(&runs.train(ranks).args(["--ranks", ranks]).output().unwrap());
        assert!(runs.adapter(ranks) == runs.adapter("alone"), "{ranks} threads");
    }
    let pair = runs.pair("pair").map(|process| process.wait_with_output().unwrap());
    pair.iter().for_each(succeeded);
    assert!(runs.adapter("pair") == runs.adapter("alone"), "two processes");
    succeeded(&runs.train("shards").args(["--ranks", "3", "--layout", "shard"]).output().unwrap());
    assert!(
        runs.adapter("shards") == runs.adapter("alone"),
        "three threads, each with a third of the weights"
    );
    let port = free_port();
    let half = |rank| {
        let mut command = runs.train("halves");
        command.args(["--layout", "shard"]);
        launched(command, rank, 2, port).spawn().unwrap()
    };
    let halves = [0, 1].map(half).map(|process| process.wait_with_output().unwrap());
    halves.iter().for_each(succeeded);
    assert!(runs.adapter("halves") == runs.adapter("alone"), "two processes, each with half of the weights");
    assert!(!pair[0].stdout.is_empty() && pair[1].stdout.is_empty() && pair[1].stderr.is_empty());
}

#[test]
fn processes_of_srun_and_mpiexec_are_ranks_or_told_where_to_meet() {
    let runs = RankRuns::new();
    succeeded(&runs.train("alone").output().unwrap());
    for (rank, world) in [("PMI_RANK", "PMI_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")] {
        let start = |i: usize, port: Option<u16>| {
            let mut command = runs.train(rank);
            command.env(rank, i.to_string()).env(world, "2").env("SLURM_NTASKS", "2");
            if let Some(port) = port {
                command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
            }
            command.spawn().unwrap()
        };
        for output in [0, 1].map(|i| start(i, None)).map(|process| process.wait_with_output().unwrap()) {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(1) && errors.contains("set MASTER_ADDR to"), "{errors}");
            assert_eq!(errors.lines().count(), 1, "{errors}");
        }
        assert!(!runs.path(rank).exists(), "nobody has trained");
        let port = free_port();
        let pair = [0, 1].map(|i| start(i, Some(port))).map(|process| process.wait_with_output().unwrap());
        pair.iter().for_each(succeeded);
        assert!(runs.adapter(rank) == runs.adapter("alone"), "{rank}");
    }
    let mut batch_script = runs.train("batch");
    batch_script.env("SLURM_PROCID", "0").env("SLURM_NTASKS", "2");
    succeeded(&batch_script.output().unwrap());
}

/// Ends a run of `--ranks` at a later step by a signal; returns its exit code and last lines.
fn ended_by(runs: &RankRuns, out: &str, ranks: &str, signal: &str) -> (Option<i32>, String) {
    let child = runs.train_for("8", "0", out).args(["--ranks", ranks]).spawn().unwrap();
    reached(&runs.path(out), 9);
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_signal_ends_a_run_after_its_step_and_the_printed_line_resumes_to_the_same_bytes() {
    let runs = RankRuns::new();
    succeeded(&runs.train("whole").output().unwrap());
    for (signal, code, ranks) in [("-TERM", 143, "1"), ("-INT", 130, "1"), ("-TERM", 143, "2")] {
        let out = format!("run{signal}{ranks}");
        let (ended, errors) = ended_by(&runs, &out, ranks, signal);
        assert_eq!(ended, Some(code), "{errors}");
        let lines: Vec<&str> = errors.lines().collect();
        let [.., said, line] = lines[..] else { panic!("{errors}") };
        assert!(said.contains("stopped by SIG") && said.contains("is saved in"), "{errors}");
        let line = line.strip_prefix("go on with: ").expect("the line to go on with");
        assert!(line.ends_with("--resume") && !runs.path(&out).join("adapter_model.safetensors").exists());
        assert!(!runs.path(&out).join(".lock").exists());
        let mut args = line.split(' ');
        let mut resumed = Command::new(args.next().unwrap());
        let resumed = resumed.args(args).output().unwrap();
        succeeded(&resumed);
        assert!(runs.adapter(&out) == runs.adapter("whole"), "{out}");
    }
}

#[test]
fn a_signal_to_one_process_of_a_run_ends_all_of_them_after_the_same_step() {
    let runs = RankRuns::new();
    succeeded(&runs.train("whole").output().unwrap());
    let pair = runs.pair("pair");
    reached(&runs.path("pair"), 9);
    assert!(Command::new("kill").arg(pair[1].id().to_string()).status().unwrap().success());
    for process in pair {
        let output = process.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(143), "{}", String::from_utf8_lossy(&output.stderr));
    }
    succeeded(&runs.train("pair").arg("--resume").output().unwrap());
    assert!(runs.adapter("pair") == runs.adapter("whole"));
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let runs = RankRuns::new();
    let child = runs.train_for("500", "4", "out").spawn().unwrap();
    reached(&runs.path("out"), 2);
    let id = child.id().to_string();
    let both = format!("kill -STOP {id}; kill -TERM {id}; kill -CONT {id}; kill -TERM {id}");
    assert!(Command::new("sh").args(["-c", &both]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn two_runs_into_one_folder_are_one_run_and_one_line() {
    let runs = RankRuns::new();
    for (seed, name) in [("1", "one"), ("2", "two")] {
        succeeded(&runs.train(name).args(["--seed", seed]).output().unwrap());
    }
    for i in 0..4 {
        let out = format!("race{i}");
        let start = |seed: &str| runs.train(&out).args(["--seed", seed]).spawn().unwrap();
        let both = [start("1"), start("2")].map(|child| child.wait_with_output().unwrap());
        let winners: Vec<usize> = (0..2).filter(|&i| both[i].status.success()).collect();
        assert_eq!(winners.len(), 1, "{both:?}");
        let (winner, loser) = (winners[0], &both[1 - winners[0]]);
        let errors = String::from_utf8_lossy(&loser.stderr).into_owned();
        assert!(loser.status.code() == Some(1) && errors.lines().count() == 1, "{errors}");
        assert!(errors.contains("writes to it") || errors.contains("holds a run already"), "{errors}");
        assert!(runs.adapter(&out) == runs.adapter(["one", "two"][winner]));
        let recipe = fs::read_to_string(runs.path(&out).join("recipe.json")).unwrap();
        assert!(recipe.contains(&format!("\"seed\": {}", winner + 1)), "{recipe}");
    }
}

#[test]
fn a_process_that_dies_or_hangs_is_named_and_the_run_resumes_to_the_same_bytes() {
    let runs = RankRuns::new();
    succeeded(&runs.train("whole").output().unwrap());
    for (victim, signal) in [(1, "KILL"), (0, "KILL"), (1, "STOP"), (0, "STOP")] {
        let out = format!("{victim}-{signal}");
        let [zero, one] = runs.pair(&out);
        reached(&runs.path(&out), 9);
        let (mut victim_process, survivor) = if victim == 0 { (zero, one) } else { (one, zero) };
        let id = victim_process.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap().success());
        let line = last_words(survivor);
        victim_process.kill().unwrap();
        victim_process.wait().unwrap();
        let expected = if signal == "KILL" { "is gone" } else { "did not come to" };
        assert!(line.contains(&format!("rank {victim} {expected}")), "{line}");
        let resumed = runs.train(&out).args(["--resume", "--ranks", "2", "--json"]).output().unwrap();
        succeeded(&resumed);
        assert!(String::from_utf8_lossy(&resumed.stderr).contains("going on after step "));
        assert!(runs.adapter(&out) == runs.adapter("whole"), "{out}");
    }
}

#[test]
fn a_process_that_fails_tells_the_other_why() {
    let runs = RankRuns::new();
    let port = free_port();
    let zero = launched(runs.train("out"), 0, 2, port).spawn().unwrap();
    let one = launched(runs.train("out"), 1, 2, port).arg("--lr=-1").spawn().unwrap();
    let (zero, one) = (last_words(zero), last_words(one));
    assert!(one.contains("rank 1: training options: --lr is -1.0, not a number above 0"), "{one}");
    assert!(zero.contains(one.trim_start_matches("codelsi: ")), "{zero}");
}

#[test]
fn what_does_not_fit_together_is_refused_in_one_line() {
    let runs = RankRuns::new();
    let refused = |mut command: Command, words: &str| {
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(words) && errors.trim_end().lines().count() == 1, "{errors}");
    };
    let train = |args: &[&str]| {
        let mut command = runs.train("refused");
        command.args(args);
        command
    };
    let mut half = train(&[]);
    half.env("RANK", "0").env("WORLD_SIZE", "2");
    refused(half, "LOCAL_RANK, MASTER_ADDR, MASTER_PORT missing");
    refused(launched(train(&[]), 2, 2, 1), "RANK is 2 and WORLD_SIZE is 2");
    refused(launched(train(&["--ranks", "3"]), 0, 2, 1), "--ranks is 3, and the launcher started 2");
    refused(train(&["--ranks", "2", "--timeout", "0"]), "a timeout is 0.1 to 1000000 seconds");
    let mut command = launched(train(&[]), 1, 2, free_port());
    command.args(["--compute", "f32"]);
    refused(command, "rank 0 does not listen");
    let generate = |args: &[&str]| {
        let mut command = codelsi();
        command.arg("generate").arg("--model").arg(runs.path("model")).args(["--prompt", "x"]).args(args);
        command
    };
    refused(generate(&["--ranks", "2"]), "use --ranks 1");
    refused(launched(generate(&[]), 0, 2, 1), "use --ranks 1");
    refused(generate(&["--ranks", "3", "--layout", "tensor"]), "4 attention heads to 3 ranks");
    let problem = r#"{"name": "a", "language": "ts", "prompt": "", "tests": "1;", "stop_tokens": []}"#;
    fs::write(runs.path("problems.jsonl"), problem).unwrap();
    let mut command = codelsi();
    command.args(["evaluate", "--judge", "embedded"]);
    for (flag, path) in [("--model", "model"), ("--problems", "problems.jsonl"), ("--out", "judged")] {
        command.arg(flag).arg(runs.path(path));
    }
    refused(launched(command, 0, 2, 1), "start it without a launcher");
}
