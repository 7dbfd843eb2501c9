//! The embedded judge: strips the types and runs the JavaScript with QuickJS in a locked-down child of our own binary.
//!
//! Nothing needs to be installed. Types are not checked, so a program that TypeScript's compiler refuses may pass here:
//! Pass@1 by this judge is an upper bound of MultiPL-E's. Uncaught errors are printed as Node prints them, and the same
//! rule reads them. A program is one process; it never sees the host, only the emulation of Node in `js/node.js`.

use super::diagnosis::{classify, diagnostics};
use super::guard::Guard;
use super::judgement::{Judge, Judgement};
use super::program_folder::program_folder;
use super::strip_types::{StrippedProgram, strip_types};
use crate::problem::CandidateProgram;
use crate::sandbox::{EntryPoint, ProcessOutput, ResourceLimits, Sandbox};
use codelsi_engine::Result;
use rquickjs::context::EvalOptions;
use rquickjs::{Context, Ctx, Exception, Function, Object, Runtime, Value};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The languages of the problems that it accepts.
pub(super) const LANGUAGES: &[&str] = &["ts", "js"];

/// Runs the program in `file.ts` of the current folder in QuickJS.
pub(super) const ENTRY: EntryPoint = EntryPoint { name: "embedded", main: run_entry };

/// Judges without a type check; see the module documentation.
pub struct EmbeddedJudge {
    sandbox: Sandbox,
}

impl EmbeddedJudge {
    pub fn new(sandbox: Sandbox) -> Self {
        EmbeddedJudge { sandbox }
    }

    fn run(&self, program: &CandidateProgram, guard: Option<Guard>) -> Result<(ProcessOutput, String)> {
        let folder = program_folder(program)?;
        let task = ENTRY.task(&EmbeddedRun { guard });
        let output = self.sandbox.run(task, folder.path(), &[], ResourceLimits::multipl_e())?;
        let message = diagnostics(&output, folder.path());
        Ok((output, message))
    }
}

impl Judge for EmbeddedJudge {
    fn languages(&self) -> &'static [&'static str] {
        LANGUAGES
    }

    fn describe(&self) -> String {
        "embedded: types stripped by oxc, run by QuickJS, 15 s; no type check, so an upper bound".into()
    }

    fn judge(&self, program: &CandidateProgram) -> Result<Judgement> {
        let (output, message) = self.run(program, None)?;
        Ok(Judgement { status: classify(&output), message, seconds: output.seconds })
    }

    fn reaches_end(&self, program: &CandidateProgram) -> Result<bool> {
        let guard = Guard::new(program);
        let (output, _) = self.run(program, Some(guard.clone()))?;
        Ok(output.stdout.contains(&guard.nonce))
    }
}

/// The work of the child.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct EmbeddedRun {
    guard: Option<Guard>,
}

fn run_entry(argument: &str) -> i32 {
    serde_json::from_str::<EmbeddedRun>(argument).expect("written by `Embedded::run`").run()
}

impl EmbeddedRun {
    /// Bytes of stack: enough for the deepest recursion that QuickJS permits, and for the parser's.
    const STACK: usize = 256 << 20;
    const JS_STACK: usize = 32 << 20;
    const JS_MEMORY: usize = 1 << 30;

    /// Runs the program as Node would; ends the process where Node would. Returns the exit code.
    fn run(self) -> i32 {
        let thread = std::thread::Builder::new().stack_size(Self::STACK).spawn(move || self.run_in_quickjs());
        match thread.map(|t| t.join()) {
            Ok(Ok(Ok(()))) => 0,
            Ok(Ok(Err(e))) => {
                eprintln!("{e}");
                1
            }
            Ok(Err(_)) | Err(_) => 1,
        }
    }

    fn run_in_quickjs(self) -> Result<(), String> {
        let source = std::fs::read_to_string("file.ts").map_err(|e| e.to_string())?;
        let syntax = |e: String| format!("SyntaxError: {e}");
        let runtime = Runtime::new().map_err(|e| e.to_string())?;
        runtime.set_memory_limit(Self::JS_MEMORY);
        runtime.set_max_stack_size(Self::JS_STACK);
        let context = Context::full(&runtime).map_err(|e| e.to_string())?;
        let (main, tests) = match &self.guard {
            None => (strip_types(&source).map_err(syntax)?, None),
            Some(guard) => {
                let (candidate, tests) = source.split_at(guard.tests_at);
                let tests = strip_types(tests).map_err(syntax);
                (strip_types(candidate).map_err(syntax)?, Some((tests?, guard.nonce.clone())))
            }
        };
        context.with(|ctx| drive(&ctx, main, tests).map_err(|e| format!("{e}: {:?}", ctx.catch())))
    }
}

/// Starts the program and runs the event loop until the program ends the process.
fn drive(
    ctx: &Ctx<'_>,
    main: StrippedProgram,
    tests: Option<(StrippedProgram, String)>,
) -> rquickjs::Result<()> {
    let main = Rc::new(main);
    let assert: Value = eval(ctx, include_str!("js/assert.js"), "assert.js")?;
    let host: Function = eval(ctx, include_str!("js/node.js"), "node.js")?;
    let node: Object = host.call((natives(ctx, &main)?, assert))?;
    match tests {
        None => node.get::<_, Function>("main")?.call::<_, ()>((main.code.as_str(),))?,
        Some((tests, nonce)) => {
            let reached = Function::new(ctx.clone(), move || {
                let mut stdout = std::io::stdout();
                let _ = stdout.write_all(nonce.as_bytes()).and_then(|()| stdout.flush());
            })?;
            node.get::<_, Function>("guarded")?.call::<_, ()>((main.code.as_str(), tests.code, reached))?;
        }
    }
    let turn: Function = node.get("turn")?;
    loop {
        while ctx.execute_pending_job() {}
        turn.call::<_, ()>(())?;
    }
}

/// Creates the host functions that `js/node.js` needs.
fn natives<'js>(ctx: &Ctx<'js>, main: &Rc<StrippedProgram>) -> rquickjs::Result<Object<'js>> {
    let object = Object::new(ctx.clone())?;
    let started = Instant::now();
    let add = |name: &str, f: rquickjs::Result<Function<'js>>| object.set(name, f?);
    add(
        "write",
        Function::new(ctx.clone(), |text: rquickjs::String<'_>| {
            let text = text.to_string().unwrap_or_else(|_| "\u{fffd}".into());
            let _ = std::io::stderr().write_all(text.as_bytes());
        }),
    )?;
    add("exit", Function::new(ctx.clone(), exit))?;
    add("kill", Function::new(ctx.clone(), |signal: String| kill(&signal)))?;
    add(
        "sleep",
        Function::new(ctx.clone(), |ms: f64| {
            std::thread::sleep(Duration::from_secs_f64(ms.clamp(0.0, 1e7) / 1e3))
        }),
    )?;
    add("now", Function::new(ctx.clone(), move || started.elapsed().as_secs_f64() * 1e3))?;
    add(
        "hash",
        Function::new(ctx.clone(), |ctx: Ctx<'js>, algorithm: String, text: String| {
            hash(&algorithm, &text)
                .ok_or_else(|| Exception::throw_message(&ctx, "Digest method not supported"))
        }),
    )?;
    add(
        "compile",
        Function::new(ctx.clone(), |ctx: Ctx<'js>, code: String| eval::<Value>(&ctx, &code, "file.js")),
    )?;
    let main = main.clone();
    add("line", Function::new(ctx.clone(), move |row: u32| main.source_line(row).to_string()))?;
    Ok(object)
}

fn eval<'js, V: rquickjs::FromJs<'js>>(ctx: &Ctx<'js>, code: &str, name: &str) -> rquickjs::Result<V> {
    let mut options = EvalOptions::default();
    (options.strict, options.filename) = (false, Some(name.into()));
    ctx.eval_with_options(code, options)
}

fn exit(code: rquickjs::Coerced<f64>) {
    std::process::exit(code.0 as i32 & 0xff)
}

/// Sends this process a signal, handled by default as Node does.
fn kill(signal: &str) {
    use rustix::process::{Signal, getpid, kill_process};
    let signal = match signal {
        "SIGKILL" | "9" => Signal::KILL,
        "SIGSTOP" | "19" => Signal::STOP,
        "SIGABRT" | "6" => Signal::ABORT,
        "SIGSEGV" | "11" => Signal::SEGV,
        "SIGINT" | "2" => Signal::INT,
        "SIGHUP" | "1" => Signal::HUP,
        "0" => return,
        _ => Signal::TERM,
    };
    let _ = kill_process(getpid(), signal);
    // Another thread may receive the signal: wait, so that the program does not end before it is handled.
    std::thread::sleep(Duration::from_millis(100));
}

fn hash(algorithm: &str, text: &str) -> Option<String> {
    use sha2::Digest;
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
    match algorithm {
        "md5" => Some(hex(&md5::Md5::digest(text))),
        "sha256" => Some(hex(&sha2::Sha256::digest(text))),
        "sha512" => Some(hex(&sha2::Sha512::digest(text))),
        _ => None,
    }
}
