//! The table of names that the emulation of Node lacks, for which a program can get the status `NeedsNode`.
//! `doc/judges.md` repeats it.

/// A group of interfaces, or a limit.
pub struct Need {
    pub names: &'static [&'static str],
    /// The part that is missing.
    pub missing: &'static str,
}

/// Every need that the emulation may name.
pub static NEEDS: [Need; 8] = [
    Need {
        names: &[
            "Number.prototype.toLocaleString",
            "BigInt.prototype.toLocaleString",
            "Intl.NumberFormat",
            "Intl.PluralRules",
            "Intl.ListFormat",
            "String.prototype.toLocaleUpperCase",
            "String.prototype.toLocaleLowerCase",
        ],
        missing: "languages other than American English, units, compact and scientific notation, rare currencies",
    },
    Need {
        names: &[
            "Date.prototype.toLocaleString",
            "Date.prototype.toLocaleDateString",
            "Date.prototype.toLocaleTimeString",
            "Intl.DateTimeFormat",
        ],
        missing: "languages other than American English, every option but `timeZone: 'UTC'`",
    },
    Need {
        names: &["String.prototype.localeCompare", "Intl.Collator"],
        missing: "options other than `sensitivity` and `numeric`, languages that are unknown to Unicode's collation data",
    },
    Need {
        names: &[
            "Intl.RelativeTimeFormat",
            "Intl.Segmenter",
            "Intl.DisplayNames",
            "Intl.Locale",
            "Intl.supportedValuesOf",
        ],
        missing: "all of it",
    },
    Need {
        names: &["more than 65,535 arguments"],
        missing: "for functions of the program's own; Math.max, push and the like take them",
    },
    Need {
        names: &[
            "node:child_process",
            "node:cluster",
            "node:worker_threads",
            "node:net",
            "node:http",
            "node:https",
            "node:http2",
            "node:tls",
            "node:dns",
            "node:dgram",
            "node:readline",
            "node:async_hooks",
            "node:diagnostics_channel",
            "node:inspector",
            "node:module",
            "node:path/win32",
            "node:readline/promises",
            "node:repl",
            "node:stream",
            "node:stream/promises",
            "node:test",
            "node:tty",
            "node:v8",
            "node:vm",
            "node:wasi",
            "node:zlib",
            "path.win32",
            "path.matchesGlob",
        ],
        missing: "processes, threads and connections do nothing, the rest is absent",
    },
    Need {
        names: &["util.inspect"],
        missing: "errors, promises, iterators, generators, weak collections, buffers, Node's own objects; hidden properties, colors, `compact: true`",
    },
    Need {
        names: &[
            "AbortController",
            "AbortSignal",
            "Blob",
            "BroadcastChannel",
            "CompressionStream",
            "DecompressionStream",
            "Event",
            "EventTarget",
            "File",
            "FormData",
            "Headers",
            "MessageChannel",
            "ReadableStream",
            "Request",
            "Response",
            "TransformStream",
            "WebAssembly",
            "WritableStream",
            "fetch",
        ],
        missing: "all of it",
    },
];

/// Prefix of a need's name on the child's standard output, where no program can write.
const MARK: &str = "needs Node: ";

/// Returns the line that reports the use of `name`; `None` if the table does not list it.
pub fn report(name: &str) -> Option<String> {
    NEEDS.iter().any(|need| need.names.contains(&name)).then(|| format!("{MARK}{name}\n"))
}

/// Returns the needs that a child has reported.
pub fn reported(stdout: &str) -> Vec<&str> {
    stdout.lines().filter_map(|line| line.strip_prefix(MARK)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_documented_and_names_all_that_the_emulation_names() {
        let doc = include_str!("../../../../doc/judges.md");
        for name in NEEDS.iter().flat_map(|need| need.names) {
            assert!(doc.contains(&format!("`{name}`")), "doc/judges.md lacks {name}");
        }
        let code = [
            include_str!("../js/locale.js"),
            include_str!("../js/modules.js"),
            include_str!("../js/node.js"),
            include_str!("../js/path.js"),
        ];
        for call in code.iter().flat_map(|code| code.split("Node(\"").skip(1)) {
            let name = call.split('"').next().unwrap_or_default();
            assert!(report(name).is_some(), "the table lacks {name}");
        }
        assert_eq!(reported("needs Node: Intl.Segmenter\nnonce"), ["Intl.Segmenter"]);
    }
}
