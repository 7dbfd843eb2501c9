//! MultiPL-E's rules by language: what is built and run, and how the end of a run is read.

use std::path::{Path, PathBuf};

/// How programs of one language are judged.
pub struct Rule {
    /// As `--judge` has it.
    pub name: &'static str,
    /// As problems have it.
    pub language: &'static str,
    pub file: &'static str,
    /// The compiler's command, if there is one: a tool and its arguments.
    pub build: Option<&'static [&'static str]>,
    pub run: Run,
    /// Whether MultiPL-E tells a failed assertion and an unknown name apart from other exceptions.
    pub tells_exceptions: bool,
    /// What else a tool needs of the system, where it exists.
    pub readable: &'static [&'static str],
    pub ending: Ending,
    /// A program that does nothing: when it is not `OK`, the tools do not work here.
    pub idle: &'static str,
}

/// What is run.
pub enum Run {
    /// A tool and its arguments.
    Tool(&'static [&'static str]),
    /// The program `program` that the compiler made.
    Built,
}

/// The statement that tells the judge, in its second run, that the tests have come to their end.
pub struct Ending {
    /// What is put where the tests begin: their own tools, however the candidate has changed them.
    pub before: &'static str,
    /// With `WORD` for the word.
    pub statement: &'static str,
    /// How many blocks close behind it.
    pub blocks: usize,
}

pub static JAVASCRIPT: Rule = Rule {
    name: "javascript",
    language: "js",
    file: "file.js",
    build: None,
    run: Run::Tool(&["node", "file.js"]),
    tells_exceptions: true,
    readable: &["/usr/share/nodejs", "/etc/ssl/openssl.cnf"],
    ending: Ending { before: "", statement: "\nrequire('node:fs').writeSync(1, 'WORD');", blocks: 0 },
    idle: ";",
};

pub static PYTHON: Rule = Rule {
    name: "python",
    language: "py",
    file: "file.py",
    build: None,
    run: Run::Tool(&["python3", "file.py"]),
    tells_exceptions: false,
    readable: &[],
    ending: Ending { before: "", statement: "\n__import__('os').write(1, b'WORD')\n", blocks: 0 },
    idle: "pass\n",
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
    run: Run::Tool(&["java", "-XX:-UsePerfData", "-ea", "-cp", ".:TUPLES", "Problem"]),
    tells_exceptions: false,
    readable: &["/etc/alternatives", "/etc/java-11-openjdk", "/etc/java-17-openjdk", "/etc/java-21-openjdk"],
    ending: Ending { before: "", statement: "System.out.print(\"WORD\"); System.out.flush();\n", blocks: 2 },
    idle: "import org.javatuples.*;\nclass Problem { public static void main(String[] args) { Pair.with(1, 2); } }\n",
};

pub static CPP: Rule = Rule {
    name: "cpp",
    language: "cpp",
    file: "file.cpp",
    build: Some(&["g++", "file.cpp", "-o", "program", "-std=c++17"]),
    run: Run::Built,
    tells_exceptions: false,
    readable: &["/usr/include", "/usr/libexec", "/usr/local/include", "/etc/alternatives"],
    ending: Ending {
        before: "\n#undef NDEBUG\n#undef assert\n#include <assert.h>\n",
        statement: "std::fputs(\"WORD\", stdout);\n",
        blocks: 1,
    },
    idle: "#include <bits/stdc++.h>\nint main() {}\n",
};

pub static RUST: Rule = Rule {
    name: "rust",
    language: "rs",
    file: "file.rs",
    // Rust's own linker asks /proc for its name; the system's does not.
    build: Some(&["rustc", "-Clink-arg=-fuse-ld=bfd", "file.rs", "-o", "program"]),
    run: Run::Built,
    tells_exceptions: false,
    readable: &["/usr/libexec", "/etc/alternatives"],
    ending: Ending { before: "", statement: "std::print!(\"WORD\");\n", blocks: 1 },
    idle: "fn main() {}\n",
};

/// Every language that is judged with tools of the machine.
pub static ALL: [&Rule; 5] = [&JAVASCRIPT, &PYTHON, &JAVA, &CPP, &RUST];

/// What a tool that is a launcher says of the program that it launches and of its home: a question, and how the answer
/// is read.
type Question = (&'static [&'static str], fn(&str) -> Option<(PathBuf, PathBuf)>);

/// [`Question`]s by tool. The others are what they are.
pub fn question(tool: &str) -> Option<Question> {
    match tool {
        "python3" => {
            Some((&["-I", "-c", "import sys; print(sys.executable); print(sys.base_prefix)"], |said| {
                let (program, home) = said.trim().split_once('\n')?;
                Some((Path::new(program).canonicalize().ok()?, home.into()))
            }))
        }
        "rustc" => Some((&["--print", "sysroot"], |said| {
            let home = PathBuf::from(said.trim());
            Some((home.join("bin/rustc"), home))
        })),
        _ => None,
    }
}

impl Rule {
    /// The tools that it needs.
    pub fn tools(&self) -> impl Iterator<Item = &'static str> {
        let run = if let Run::Tool(command) = self.run { Some(command[0]) } else { None };
        self.build.map(|command| command[0]).into_iter().chain(run)
    }

    /// The program that proves, by printing `word`, that its tests came to their end.
    pub fn with_ending(&self, text: &str, tests_at: usize, word: &str) -> String {
        let (candidate, tests) = text.split_at(tests_at);
        let mut at = tests.len();
        for _ in 0..self.ending.blocks {
            at = tests[..at].rfind('}').unwrap_or(at);
        }
        let (tests, closing) = tests.split_at(at);
        let statement = self.ending.statement.replace("WORD", word);
        // The end of the candidate's block belongs to the tests where a compiler's language has blocks.
        format!("{candidate}{}{tests}{statement}{closing}", self.ending.before)
    }
}
