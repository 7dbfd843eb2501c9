//! The whole pipeline runs in a process that may open no socket: nothing of a private repository can leave.
//!
//! It has a `main` of its own, since judged programs run in re-executions of this binary.

use codelsi_eval::judge::child_entry;
use codelsi_experiment::judging::JudgeOptions;
use codelsi_experiment::output::Output;
use codelsi_experiment::pipeline;
use codelsi_experiment::placement::Placement;
use codelsi_experiment::recipe::Recipe;
use codelsi_experiment::sources::Sources;
use codelsi_experiment::stages::Experiment;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;

/// Numbers of socket(2) and socketpair(2) on x86-64.
const SOCKET_CALLS: [i64; 2] = [41, 53];

fn main() {
    child_entry();
    assert!(UdpSocket::bind("127.0.0.1:0").is_ok(), "sockets work before they are forbidden");
    forbid_sockets();
    assert!(UdpSocket::bind("127.0.0.1:0").is_err());
    assert!(TcpListener::bind("127.0.0.1:0").is_err());
    assert!(UnixDatagram::unbound().is_err());
    the_whole_pipeline_runs();
    println!("test the_whole_pipeline_runs_without_sockets ... ok");
    println!("\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// Makes every system call for a socket fail, in all threads and children of this process from now on.
fn forbid_sockets() {
    let calls = SOCKET_CALLS.map(|call| (call, Vec::new())).into_iter().collect();
    let refuse = SeccompAction::Errno(1);
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, refuse, TargetArch::x86_64).unwrap();
    apply_filter_all_threads(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

fn the_whole_pipeline_runs() {
    let run = tempfile::tempdir().unwrap();
    let mut recipe = Recipe::demo(3);
    for stage in [&mut recipe.general, &mut recipe.specialized] {
        stage.max_steps = Some(2);
        stage.epochs = 1;
    }
    recipe.protocol.n = 1;
    recipe.protocol.limit = Some(6);
    let sources = Sources::demo(&run.path().join("sources"), 3).unwrap();
    let judge = JudgeOptions { judge: recipe.judge, ..JudgeOptions::default() };
    let folder = run.path().to_path_buf();
    let experiment = Experiment { recipe, sources, folder, placement: Placement::default(), judge };
    let report = pipeline::run(&experiment, &Output::detect()).unwrap();
    assert_eq!(report.sets.len(), 2);
    assert!(report.sets.iter().all(|set| set.results.len() == 3));
    assert!(report.curves.iter().all(|curve| curve.training.len() == 2));
    let html = std::fs::read_to_string(run.path().join("report.html")).unwrap();
    assert!(html.contains("specialized") && !html.contains("src=\"http"));
}
