//! How each language writes functions, files and MultiPL-E's problems, as text with words to be filled in.

use crate::op::Value;
use codelsi_curate::Language;

/// Code templates of one language. Filled in are `DOC` (what a function does), `HEAD`, `BODY`, `NAME`, `LIST` (the parameter) and
/// `TYPE` (of the result).
pub struct LanguageTemplates {
    pub language: Language,
    /// The types of a list of numbers and of a number.
    pub list: &'static str,
    pub number: &'static str,
    /// The first line of a function.
    pub head: &'static str,
    /// A function with its documentation, in this language's way.
    pub documented: &'static str,
    /// Before and after the functions of a file, `NOUN` for what it is about.
    pub file: (&'static str, &'static str),
    pub indent: &'static str,
    /// Of a problem, as MultiPL-E has it.
    pub prompt: &'static str,
    /// What closes the function, in a right answer.
    pub close: &'static str,
    /// Before the tests, one test of `GIVEN` and `WANTED`, after the tests.
    pub tests: (&'static str, &'static str, &'static str),
    /// How a test compares a list, if not as a number.
    pub test_of_list: Option<&'static str>,
    pub stop_tokens: &'static [&'static str],
    /// A list of numbers, `ITEMS` for them; a number, `ITEM`.
    pub list_literal: (&'static str, &'static str),
    pub number_literal: &'static str,
}

impl LanguageTemplates {
    /// The first line of a function.
    pub fn head(&self, name: &str, list: &str, gives_list: bool) -> String {
        let result = if gives_list { self.list } else { self.number };
        self.head.replace("NAME", name).replace("LIST", list).replace("TYPE", result)
    }

    /// The tests of `cases` of (argument, expected).
    pub fn tests(&self, candidate: &str, cases: &[(Value, Value)]) -> String {
        let (before, number, after) = self.tests;
        let case = |(given, wanted): &(Value, Value)| {
            let form = match wanted {
                Value::Nums(_) => self.test_of_list.unwrap_or(number),
                _ => number,
            };
            form.replace("GIVEN", &self.literal(given)).replace("WANTED", &self.literal(wanted))
        };
        let cases: String = cases.iter().map(case).collect();
        format!("{before}{cases}{after}").replace("NAME", candidate)
    }

    fn literal(&self, value: &Value) -> String {
        let (list, item) = self.list_literal;
        let one = |form: &str, x: &i64| form.replace("ITEM", &x.to_string());
        match value {
            Value::Nums(xs) => {
                let items: Vec<String> = xs.iter().map(|x| one(item, x)).collect();
                list.replace("ITEMS", &items.join(", "))
            }
            Value::Num(x) => one(self.number_literal, x),
            _ => unreachable!("the languages' operations are on numbers"),
        }
    }
}

/// Every language of the demo beside TypeScript.
pub static LANGUAGES: [LanguageTemplates; 4] = [
    LanguageTemplates {
        language: Language::JavaScript,
        list: "",
        number: "",
        head: "function NAME(LIST) {",
        documented: "/**\n * DOC\n */\nHEAD\nBODY}\n",
        file: ("", ""),
        indent: "    ",
        prompt: "//DOC\nHEAD\n",
        close: "}\n",
        tests: (
            "const assert = require('node:assert');\n\n\nfunction test() {\n  let candidate = NAME;\n",
            "  assert.deepEqual(candidate(GIVEN),WANTED);\n",
            "}\n\ntest();",
        ),
        test_of_list: None,
        stop_tokens: &["\nfunction ", "\n/*", "\n//", "\nconsole.log"],
        list_literal: ("[ITEMS]", "ITEM"),
        number_literal: "ITEM",
    },
    LanguageTemplates {
        language: Language::Python,
        list: "List[int]",
        number: "int",
        head: "def NAME(LIST: List[int]) -> TYPE:",
        documented: "HEAD\n    \"\"\"DOC\"\"\"\nBODY\n",
        file: ("from typing import List\n\n\n", ""),
        indent: "    ",
        prompt: "from typing import List\n\nHEAD\n    \"\"\" DOC\n    \"\"\"\n",
        close: "",
        tests: (
            "def check(candidate):\n",
            "    assert candidate(GIVEN) == WANTED\n",
            "\ndef test_check():\n    check(NAME)\n\ntest_check()\n",
        ),
        test_of_list: None,
        stop_tokens: &["\ndef", "\n#", "\nif", "\nclass"],
        list_literal: ("[ITEMS]", "ITEM"),
        number_literal: "ITEM",
    },
    LanguageTemplates {
        language: Language::Java,
        list: "ArrayList<Long>",
        number: "long",
        head: "public static TYPE NAME(ArrayList<Long> LIST) {",
        documented: "    /**\n     * DOC\n     */\n    HEAD\nBODY    }\n",
        file: ("import java.util.*;\n\npublic class NOUN {\n", "}\n"),
        indent: "        ",
        prompt: "import java.util.*;\nimport java.lang.reflect.*;\nimport org.javatuples.*;\nimport java.security.*;\nimport java.math.*;\nimport java.io.*;\nimport java.util.stream.*;\nclass Problem {\n    // DOC\n    HEAD\n",
        close: "    }\n",
        tests: (
            "    }\n    public static void main(String[] args) {\n",
            "    assert(NAME(GIVEN) == WANTED);\n",
            "    }\n\n}\n",
        ),
        test_of_list: Some("    assert(NAME(GIVEN).equals(WANTED));\n"),
        // Rows hold a method without its class's indentation: a model may close it so.
        stop_tokens: &["\n    }\n", "\n}"],
        list_literal: ("(new ArrayList<Long>(Arrays.asList(ITEMS)))", "(long)ITEML"),
        number_literal: "(ITEML)",
    },
    LanguageTemplates {
        language: Language::Cpp,
        list: "std::vector<long>",
        number: "long",
        head: "TYPE NAME(std::vector<long> LIST) {",
        documented: "/// DOC\nHEAD\nBODY}\n",
        file: ("#include <algorithm>\n#include <numeric>\n#include <vector>\n\n", ""),
        indent: "    ",
        prompt: "#include<assert.h>\n#include<bits/stdc++.h>\n// DOC\nHEAD\n",
        close: "}\n",
        tests: (
            "}\nint main() {\n    auto candidate = NAME;\n",
            "    assert(candidate(GIVEN) == WANTED);\n",
            "}\n",
        ),
        test_of_list: None,
        stop_tokens: &["\n}"],
        list_literal: ("(std::vector<long>{ITEMS})", "(long)ITEM"),
        number_literal: "(ITEM)",
    },
];
