//! The embedded judge: strips the types and runs the JavaScript with QuickJS in a locked-down child of our own binary.
//!
//! Nothing needs to be installed. Types are not checked, so a program that TypeScript's compiler refuses may pass here.
//! Uncaught errors are printed as Node prints them, and the same rule reads them. A program is one process; it never sees
//! the host, only the emulation of Node in `js`. What that lacks is listed (`needs_node`): a program that used it and failed
//! gets the status `NeedsNode`, so that it is not taken for wrong.

mod math;
mod natives;
pub mod needs_node;

use super::diagnosis::{classify, diagnostics};
use super::guard::Guard;
use super::judgement::{Judge, Judgement, Status};
use super::program_folder::program_folder;
use super::source::{Engine, StrippedProgram, guarded_program, strip_types};
use crate::problem::CandidateProgram;
use crate::sandbox::{EntryPoint, ProcessOutput, ResourceLimits, Sandbox, Termination};
use codelsi_engine::Result;
use math::replace_functions;
use natives::{eval, natives};
use rquickjs::{Context, Ctx, Function, Object, Persistent, Runtime, Value};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

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
        let limits = if guard.is_some() { Guard::limits() } else { ResourceLimits::multipl_e() };
        let output = self.sandbox.run(ENTRY.task(&EmbeddedRun { guard }), folder.path(), &[], limits)?;
        let message = diagnostics(&output, folder.path());
        Ok((output, message))
    }
}

impl Judge for EmbeddedJudge {
    fn languages(&self) -> &'static [&'static str] {
        LANGUAGES
    }

    fn describe(&self) -> String {
        "embedded: types stripped by oxc, run by QuickJS, 15 s; no type check; a listed part of Node is absent (NeedsNode)".into()
    }

    fn judge(&self, program: &CandidateProgram) -> Result<Judgement> {
        let (output, message) = self.run(program, None)?;
        let stdout = output.stdout.printable();
        let needs = match output.end {
            Termination::Exited(0) | Termination::LimitExceeded(_) => Vec::new(),
            Termination::Exited(_) => needs_node::reported(&stdout),
        };
        let (status, message) = match needs.as_slice() {
            [] => (classify(&output), message),
            needs => (Status::NeedsNode, format!("needs Node: {}\n{message}", needs.join(", "))),
        };
        Ok(Judgement { status, message, seconds: output.seconds })
    }

    fn reaches_end(&self, program: &CandidateProgram) -> Result<bool> {
        let guard = Guard::new(program);
        let (output, _) = self.run(program, Some(guard.clone()))?;
        Ok(guard.is_held(&output))
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
    /// Bytes of stack: enough for the parser's deepest recursion.
    const STACK: usize = 256 << 20;
    /// Bytes of stack of the program: about as many calls fit as in Node (some 11,000 of a small function).
    const JS_STACK: usize = 7_500_000;
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
        let strip = |part: &str| strip_types(part, Engine::QuickJs).map_err(|e| format!("SyntaxError: {e}"));
        let program = match &self.guard {
            None => strip(&source)?,
            Some(guard) => {
                let guarded = guarded_program(&source, guard.tests_at, |part| strip(part).map(|s| s.code))?;
                StrippedProgram::of_javascript(guarded.candidate + &guarded.tests)
            }
        };
        let runtime = Runtime::new().map_err(|e| e.to_string())?;
        runtime.set_memory_limit(Self::JS_MEMORY);
        runtime.set_max_stack_size(Self::JS_STACK);
        let tracker = RejectionTracker::default();
        tracker.watch(&runtime);
        let context = Context::full(&runtime).map_err(|e| e.to_string())?;
        let nonce = self.guard.map(|guard| guard.nonce);
        context
            .with(|ctx| drive(&ctx, &tracker, program, nonce).map_err(|e| format!("{e}: {:?}", ctx.catch())))
    }
}

/// Starts the program and runs the event loop until the program ends the process. With a nonce, the program is a guarded
/// one, and the nonce is printed when its tests have reached their end.
fn drive(
    ctx: &Ctx<'_>,
    tracker: &RejectionTracker,
    program: StrippedProgram,
    nonce: Option<String>,
) -> rquickjs::Result<()> {
    let program = Rc::new(program);
    let node = emulation(ctx, &program)?;
    let rejection: Function = node.get("rejection")?;
    *tracker.0.borrow_mut() = Some(Persistent::save(ctx, rejection));
    match nonce {
        None => node.get::<_, Function>("main")?.call::<_, ()>((program.code.as_str(),))?,
        Some(nonce) => {
            let reached = Function::new(ctx.clone(), move || {
                let mut stdout = std::io::stdout();
                let _ = stdout.write_all(nonce.as_bytes()).and_then(|()| stdout.flush());
            })?;
            node.get::<_, Function>("guarded")?.call::<_, ()>((program.code.as_str(), reached))?;
        }
    }
    let turn: Function = node.get("turn")?;
    loop {
        while ctx.execute_pending_job() {}
        turn.call::<_, ()>(())?;
    }
}

/// Evaluates the emulation of Node, and returns what the host calls in it.
fn emulation<'js>(ctx: &Ctx<'js>, program: &Rc<StrippedProgram>) -> rquickjs::Result<Object<'js>> {
    let files = Object::new(ctx.clone())?;
    for (name, code) in [
        ("assert", include_str!("../js/assert.js")),
        ("buffer", include_str!("../js/buffer.js")),
        ("clone", include_str!("../js/clone.js")),
        ("decoder", include_str!("../js/decoder.js")),
        ("inspect", include_str!("../js/inspect.js")),
        ("locale", include_str!("../js/locale.js")),
        ("modules", include_str!("../js/modules.js")),
        ("path", include_str!("../js/path.js")),
        ("sort", include_str!("../js/sort.js")),
        ("url", include_str!("../js/url.js")),
    ] {
        files.set(name, eval::<Value>(ctx, code, &format!("{name}.js"))?)?;
    }
    replace_functions(ctx)?;
    let host: Function = eval(ctx, include_str!("../js/node.js"), "node.js")?;
    host.call((natives(ctx, program)?, files))
}

/// The function `rejection(promise, reason, handled)` of the emulation, once it is there: it is told of every promise that is
/// rejected without a handler, or handled later.
#[derive(Default)]
struct RejectionTracker(Rc<RefCell<Option<Persistent<Function<'static>>>>>);

impl RejectionTracker {
    /// Tells it of the promises of `runtime`, whose contexts nobody uses yet.
    fn watch(&self, runtime: &Runtime) {
        let function = self.0.clone();
        runtime.set_host_promise_rejection_tracker(Some(Box::new(move |ctx, promise, reason, handled| {
            let function = function.borrow().clone();
            if let Some(Ok(function)) = function.map(|function| function.restore(&ctx)) {
                let _ = function.call::<_, ()>((promise, reason, handled));
            }
        })));
    }
}
