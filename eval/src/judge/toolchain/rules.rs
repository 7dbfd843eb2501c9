//! MultiPL-E's rules by language: the commands that build and run a program, and the reading of its exceptions.

use super::rewriting::{self, Rewriting};
use std::path::{Path, PathBuf};

/// The rule for programs of one language.
pub struct Rule {
    /// The name of its judge on the command line.
    pub name: &'static str,
    /// The language in the notation of [`crate::problem::Problem::language`].
    pub language: &'static str,
    /// The name of the source file.
    pub file: &'static str,
    /// The compiler's command, if the language has one: a tool and its arguments.
    pub build: Option<&'static [&'static str]>,
    pub run: RunCommand,
    /// True if MultiPL-E distinguishes a failed assertion and an unknown name from other exceptions.
    pub distinguishes_exceptions: bool,
    /// Further system paths that the tools need, if they exist.
    pub readable: &'static [&'static str],
    pub guarded: GuardedRun,
    /// A program that does nothing: if it is not `OK`, the tools do not work on this machine.
    pub empty_program: &'static str,
}

/// The command that runs a program.
pub enum RunCommand {
    /// A tool and its arguments.
    Tool(&'static [&'static str]),
    /// The executable `program` that the compiler wrote.
    Executable,
}

/// The way in which a guarded run proves that the tests reached their end.
pub enum GuardedRun {
    /// Node runs candidate and tests in scopes of their own.
    Node,
    /// A Python program runs both parts, and compares for the tests.
    Python,
    /// The program itself is changed, and ends by printing the nonce.
    Rewritten(Rewriting),
}

pub static JAVASCRIPT: Rule = Rule {
    name: "javascript",
    language: "js",
    file: "file.js",
    build: None,
    run: RunCommand::Tool(&["node", "file.js"]),
    distinguishes_exceptions: true,
    readable: &["/usr/share/nodejs", "/etc/ssl/openssl.cnf"],
    guarded: GuardedRun::Node,
    empty_program: ";",
};

pub static PYTHON: Rule = Rule {
    name: "python",
    language: "py",
    file: "file.py",
    build: None,
    run: RunCommand::Tool(&["python3", "file.py"]),
    distinguishes_exceptions: false,
    readable: &[],
    guarded: GuardedRun::Python,
    empty_program: "pass\n",
};

pub static JAVA: Rule = Rule {
    name: "java",
    language: "java",
    file: "file.java",
    build: Some(&[
        "javac",
        "-J-XX:-UsePerfData",
        "-encoding",
        "UTF8",
        "-cp",
        "TUPLES",
        "-d",
        ".",
        "file.java",
    ]),
    run: RunCommand::Tool(&["java", "-XX:-UsePerfData", "-ea", "-cp", ".:TUPLES", "Problem"]),
    distinguishes_exceptions: false,
    readable: &["/etc/alternatives", "/etc/java-11-openjdk", "/etc/java-17-openjdk", "/etc/java-21-openjdk"],
    guarded: GuardedRun::Rewritten(rewriting::JAVA),
    empty_program: "import org.javatuples.*;\nclass Problem { public static void main(String[] args) { Pair.with(1, 2); } }\n",
};

pub static CPP: Rule = Rule {
    name: "cpp",
    language: "cpp",
    file: "file.cpp",
    build: Some(&["g++", "file.cpp", "-o", "program", "-std=c++17"]),
    run: RunCommand::Executable,
    distinguishes_exceptions: false,
    readable: &["/usr/include", "/usr/libexec", "/usr/local/include", "/etc/alternatives"],
    guarded: GuardedRun::Rewritten(rewriting::CPP),
    empty_program: "#include <bits/stdc++.h>\nint main() {}\n",
};

pub static RUST: Rule = Rule {
    name: "rust",
    language: "rs",
    file: "file.rs",
    // Rust's own linker asks /proc for its name; the system's does not.
    build: Some(&["rustc", "-Clink-arg=-fuse-ld=bfd", "file.rs", "-o", "program"]),
    run: RunCommand::Executable,
    distinguishes_exceptions: false,
    readable: &["/usr/libexec", "/etc/alternatives"],
    guarded: GuardedRun::Rewritten(rewriting::RUST),
    empty_program: "fn main() {}\n",
};

/// The rules of all languages that are judged with tools of the machine.
pub static ALL: [&Rule; 5] = [&JAVASCRIPT, &PYTHON, &JAVA, &CPP, &RUST];

/// The arguments that make a launcher print its real program and installation folder, and the parser of that output.
type LauncherQuery = (&'static [&'static str], fn(&str) -> Option<(PathBuf, PathBuf)>);

/// Returns the query for a tool that may be a launcher of the real program; `None` for all others.
pub fn launcher_query(tool: &str) -> Option<LauncherQuery> {
    match tool {
        "python3" => {
            Some((&["-I", "-c", "import sys; print(sys.executable); print(sys.base_prefix)"], |output| {
                let (program, home) = output.trim().split_once('\n')?;
                Some((Path::new(program).canonicalize().ok()?, home.into()))
            }))
        }
        "rustc" => Some((&["--print", "sysroot"], |output| {
            let home = PathBuf::from(output.trim());
            Some((home.join("bin/rustc"), home))
        })),
        _ => None,
    }
}

impl Rule {
    /// Returns the names of the tools that it needs.
    pub fn tools(&self) -> impl Iterator<Item = &'static str> {
        let run = if let RunCommand::Tool(command) = self.run { Some(command[0]) } else { None };
        self.build.map(|command| command[0]).into_iter().chain(run)
    }
}
