//! Templates of functions, files and MultiPL-E's problems in each language.

use crate::operation::TypedValue;
use codelsi_curate::Language;

/// Code templates of one language. Placeholders are `DOC` (the description), `SIGNATURE`, `BODY`, `NAME`, `LIST` (the
/// parameter) and `TYPE` (of the result).
pub struct LanguageTemplates {
    pub language: Language,
    /// Type of a list of numbers.
    pub list: &'static str,
    /// Type of a number.
    pub number: &'static str,
    /// First line of a function.
    pub signature: &'static str,
    /// A function with its documentation, in the language's convention.
    pub documented: &'static str,
    /// Text before and after the functions of a file; `NOUN` is the file's name.
    pub file: (&'static str, &'static str),
    pub indent: &'static str,
    /// Prompt of a problem, as in MultiPL-E.
    pub prompt: &'static str,
    /// Text that closes the function, in a reference solution.
    pub close: &'static str,
    /// Text before the tests, one test of `ARGUMENT` and `EXPECTED`, text after the tests.
    pub tests: (&'static str, &'static str, &'static str),
    /// A test whose expected value is a list, if it differs from that of a number.
    pub test_of_list: Option<&'static str>,
    pub stop_tokens: &'static [&'static str],
    /// A list literal of `ITEMS`, and each item of it, `ITEM`.
    pub list_literal: (&'static str, &'static str),
    /// A number literal, `ITEM`.
    pub number_literal: &'static str,
}

impl LanguageTemplates {
    /// Writes the first line of a function.
    pub fn signature(&self, name: &str, list: &str, returns_list: bool) -> String {
        let result = if returns_list { self.list } else { self.number };
        self.signature.replace("NAME", name).replace("LIST", list).replace("TYPE", result)
    }

    /// Writes the test program of `cases` of (argument, expected).
    pub fn tests(&self, candidate: &str, cases: &[(TypedValue, TypedValue)]) -> String {
        let (before, number, after) = self.tests;
        let test = |(argument, expected): &(TypedValue, TypedValue)| {
            let template = match expected {
                TypedValue::Nums(_) => self.test_of_list.unwrap_or(number),
                _ => number,
            };
            template.replace("ARGUMENT", &self.literal(argument)).replace("EXPECTED", &self.literal(expected))
        };
        let asserts: String = cases.iter().map(test).collect();
        format!("{before}{asserts}{after}").replace("NAME", candidate)
    }

    fn literal(&self, value: &TypedValue) -> String {
        let (list, item) = self.list_literal;
        let item_literal = |template: &str, x: &i64| template.replace("ITEM", &x.to_string());
        match value {
            TypedValue::Nums(xs) => {
                let items: Vec<String> = xs.iter().map(|x| item_literal(item, x)).collect();
                list.replace("ITEMS", &items.join(", "))
            }
            TypedValue::Num(x) => item_literal(self.number_literal, x),
            _ => unreachable!("the languages' operations are on numbers"),
        }
    }
}

/// Languages of the demo other than TypeScript.
pub static LANGUAGES: [LanguageTemplates; 4] = [
    LanguageTemplates {
        language: Language::JavaScript,
        list: "",
        number: "",
        signature: "function NAME(LIST) {",
        documented: "/**\n * DOC\n */\nSIGNATURE\nBODY}\n",
        file: ("", ""),
        indent: "    ",
        prompt: "//DOC\nSIGNATURE\n",
        close: "}\n",
        tests: (
            "const assert = require('node:assert');\n\n\nfunction test() {\n  let candidate = NAME;\n",
            "  assert.deepEqual(candidate(ARGUMENT),EXPECTED);\n",
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
        signature: "def NAME(LIST: List[int]) -> TYPE:",
        documented: "SIGNATURE\n    \"\"\"DOC\"\"\"\nBODY\n",
        file: ("from typing import List\n\n\n", ""),
        indent: "    ",
        prompt: "from typing import List\n\nSIGNATURE\n    \"\"\" DOC\n    \"\"\"\n",
        close: "",
        tests: (
            "def check(candidate):\n",
            "    assert candidate(ARGUMENT) == EXPECTED\n",
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
        signature: "public static TYPE NAME(ArrayList<Long> LIST) {",
        documented: "    /**\n     * DOC\n     */\n    SIGNATURE\nBODY    }\n",
        file: ("import java.util.*;\n\npublic class NOUN {\n", "}\n"),
        indent: "        ",
        prompt: "import java.util.*;\nimport java.lang.reflect.*;\nimport org.javatuples.*;\nimport java.security.*;\nimport java.math.*;\nimport java.io.*;\nimport java.util.stream.*;\nclass Problem {\n    // DOC\n    SIGNATURE\n",
        close: "    }\n",
        tests: (
            "    }\n    public static void main(String[] args) {\n",
            "    assert(NAME(ARGUMENT) == EXPECTED);\n",
            "    }\n\n}\n",
        ),
        test_of_list: Some("    assert(NAME(ARGUMENT).equals(EXPECTED));\n"),
        // Rows hold a method without its class's indentation, so a model may close it in either way.
        stop_tokens: &["\n    }\n", "\n}"],
        list_literal: ("(new ArrayList<Long>(Arrays.asList(ITEMS)))", "(long)ITEML"),
        number_literal: "(ITEML)",
    },
    LanguageTemplates {
        language: Language::Cpp,
        list: "std::vector<long>",
        number: "long",
        signature: "TYPE NAME(std::vector<long> LIST) {",
        documented: "/// DOC\nSIGNATURE\nBODY}\n",
        file: ("#include <algorithm>\n#include <numeric>\n#include <vector>\n\n", ""),
        indent: "    ",
        prompt: "#include<assert.h>\n#include<bits/stdc++.h>\n// DOC\nSIGNATURE\n",
        close: "}\n",
        tests: (
            "}\nint main() {\n    auto candidate = NAME;\n",
            "    assert(candidate(ARGUMENT) == EXPECTED);\n",
            "}\n",
        ),
        test_of_list: None,
        stop_tokens: &["\n}"],
        list_literal: ("(std::vector<long>{ITEMS})", "(long)ITEM"),
        number_literal: "(ITEM)",
    },
];
