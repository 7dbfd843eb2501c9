//! Extraction of a completion of the problem's prompt from a chat model's answer.
//!
//! A chat model repeats the signature, puts its code in a fenced block, and explains it. Only the requested function
//! counts: its body becomes the completion. Helpers that the answer declares outside of the function move into it:
//! after it a stop token would cut them off, and before it is the prompt.

use crate::problem::Problem;

/// Extracts a completion such that prompt + completion is a program. An answer without the function is returned
/// unchanged.
pub fn extract_completion(problem: &Problem, answer: &str) -> String {
    let Some(name) = function_name(&problem.prompt) else { return answer.to_string() };
    let code = code_block(answer, name);
    match find_function(code, name) {
        Some(function) => body_with_helpers(code, &function),
        None => with_closing_brace(code),
    }
}

/// Returns the name of the function that the completion must finish.
fn function_name(prompt: &str) -> Option<&str> {
    let after = &prompt[prompt.rfind("function ")? + "function ".len()..];
    let end = after.find(|c: char| !is_identifier_char(c))?;
    (end > 0).then(|| &after[..end])
}

/// Returns true for a character of an identifier.
pub(crate) fn is_identifier_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Returns the fenced block with the function, else the first block, else the answer. The last fence may be missing.
fn code_block<'a>(answer: &'a str, name: &str) -> &'a str {
    let mut blocks = answer.split("```").skip(1).step_by(2).map(|block| match block.split_once('\n') {
        Some((info, code)) if info.trim().chars().all(|c| c.is_alphanumeric() || "+-#._".contains(c)) => code,
        _ => block,
    });
    let first = blocks.clone().next();
    blocks.find(|block| find_function(block, name).is_some()).or(first).unwrap_or(answer)
}

/// The position of a function in a text: its declaration, and its body without the braces.
struct FunctionSpan {
    start: usize,
    body: std::ops::Range<usize>,
    end: usize,
    /// True if the body is an expression (`=> expression`), not a block.
    is_expression: bool,
}

/// Finds `function name(…) {`, `const name = (…) => {` or `const name = (…) => expression`.
fn find_function(code: &str, name: &str) -> Option<FunctionSpan> {
    let declarations = ["function ", "const ", "let ", "var "];
    declarations.iter().find_map(|keyword| {
        let starts = code.match_indices(keyword).map(|(at, _)| at);
        starts.filter(|&at| !code[..at].ends_with(is_identifier_char)).find_map(|at| {
            let rest = code[at + keyword.len()..].strip_prefix(name)?;
            if rest.starts_with(is_identifier_char) {
                return None;
            }
            let after_name = code.len() - rest.len();
            match *keyword {
                "function " => {
                    block_function(code, at, body_brace(code, after_parameters(code, after_name)?)?)
                }
                _ => arrow_function(code, at, after_name),
            }
        })
    })
}

fn arrow_function(code: &str, start: usize, after_name: usize) -> Option<FunctionSpan> {
    let arrow = after_name + code[after_name..].find("=>")? + 2;
    let body = arrow + (code[arrow..].len() - code[arrow..].trim_start().len());
    if code[body..].starts_with('{') {
        return block_function(code, start, body);
    }
    let end = code[body..]
        .find(";\n")
        .or_else(|| code[body..].find("\n\n"))
        .map_or(code.trim_end().len(), |n| body + n);
    Some(FunctionSpan { start, body: body..end, end: (end + 1).min(code.len()), is_expression: true })
}

fn block_function(code: &str, start: usize, open: usize) -> Option<FunctionSpan> {
    // The body of an answer that breaks off ends with the answer.
    let close = matching_bracket(code, open).unwrap_or(code.len());
    Some(FunctionSpan {
        start,
        body: open + 1..close,
        end: (close + 1).min(code.len()),
        is_expression: false,
    })
}

fn after_parameters(code: &str, from: usize) -> Option<usize> {
    let open = from + code[from..].find('(')?;
    matching_bracket(code, open).map(|close| close + 1)
}

/// Returns the position of the brace that opens the body; the return type before it may contain braces too.
fn body_brace(code: &str, from: usize) -> Option<usize> {
    let mut at = from;
    // Directly after these characters a brace opens an object type.
    let mut expects_type = false;
    while let Some(c) = code[at..].chars().next() {
        match c {
            '{' if !expects_type => return Some(at),
            '{' | '(' | '[' => at = matching_bracket(code, at)?,
            ';' => return None,
            _ => {}
        }
        if !c.is_whitespace() {
            expects_type = matches!(c, ':' | '|' | '&' | '<' | ',' | '>') && !code[..at].ends_with("[]");
        }
        at += code[at..].chars().next()?.len_utf8();
    }
    None
}

/// Returns the position of the bracket that closes the one at `open`; strings, templates and comments are skipped.
fn matching_bracket(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    let mut at = open;
    while let Some(c) = code[at..].chars().next() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            '"' | '\'' | '`' => at = string_end(code, at, c)?,
            '/' if code[at..].starts_with("//") => at += code[at..].find('\n')?,
            '/' if code[at..].starts_with("/*") => at += code[at..].find("*/")? + 1,
            _ => {}
        }
        at += code[at..].chars().next()?.len_utf8();
    }
    None
}

/// Returns the position of the quote that ends the string at `open`. A quote without an end on its line, for example an
/// apostrophe in a regular expression, opens no string: then returns `open`.
fn string_end(code: &str, open: usize, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (i, c) in code[open + 1..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' if quote != '`' => return Some(open),
            c if c == quote => return Some(open + 1 + i),
            _ => {}
        }
    }
    Some(open)
}

/// Returns the function's body as a completion, preceded by the declarations outside of the function.
fn body_with_helpers(code: &str, function: &FunctionSpan) -> String {
    let mut completion = String::new();
    for helper in helpers(&code[..function.start]).chain(helpers(&code[function.end..])) {
        // Indented, so that no stop token begins in it.
        helper.lines().for_each(|line| completion.push_str(&format!("  {line}\n")));
    }
    let body = &code[function.body.clone()];
    if function.is_expression {
        completion.push_str(&format!("  return {};\n}}", body.trim()));
        return completion;
    }
    completion.push_str(body.strip_prefix("\r\n").or_else(|| body.strip_prefix('\n')).unwrap_or(body));
    if function.body.end < code.len() {
        completion.push('}');
    }
    completion
}

/// Returns the functions and constants declared at the beginning of a line.
fn helpers(code: &str) -> impl Iterator<Item = &str> {
    let starts = code.match_indices(['f', 'c', 'a']).map(|(at, _)| at);
    let starts =
        starts.filter(|&at| at == 0 || code[..at].ends_with('\n') || code[..at].ends_with("export "));
    starts.filter_map(|at| {
        let rest = &code[at..];
        if rest.starts_with("function ") || rest.starts_with("async function ") {
            let open = body_brace(code, after_parameters(code, at)?)?;
            return Some(&code[at..=matching_bracket(code, open)?]);
        }
        let end = rest.starts_with("const ").then(|| rest.find(";\n"))??;
        Some(&rest[..=end])
    })
}

/// Appends the closing brace of the function to a body with balanced braces.
fn with_closing_brace(code: &str) -> String {
    let depth =
        |open: char, close: char| code.matches(open).count() as i64 - code.matches(close).count() as i64;
    let code = code.trim_end();
    if depth('{', '}') == 0 { format!("{code}\n}}") } else { code.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(head: &str) -> Problem {
        Problem {
            name: "p".into(),
            language: "ts".into(),
            prompt: format!("//Adds.\n{head} {{\n"),
            tests: String::new(),
            stop_tokens: vec!["\nfunction ".into()],
        }
    }

    const ADD: &str = "function add(a: number, b: number): number";

    fn extracted(answer: &str) -> String {
        extract_completion(&problem(ADD), answer)
    }

    #[test]
    fn a_fenced_function_in_prose_is_found() {
        let answer = "Sure!\n```typescript\nfunction add(a: number, b: number): number {\n  return a + b;\n}\n```\nIt adds `a`.";
        assert_eq!(extracted(answer), "  return a + b;\n}");
        let unclosed = "```ts\nexport function add(a: number, b: number): number {\n  return a + b;\n}\n";
        assert_eq!(extracted(unclosed), "  return a + b;\n}");
        let second = "```sh\nnpm i\n```\nthen\n```ts\nfunction add(a, b) {\n  return a;\n}\n```";
        assert_eq!(extracted(second), "  return a;\n}");
    }

    #[test]
    fn a_bare_function_and_a_bare_body_work_alike() {
        assert_eq!(
            extracted(
                "Here it is.\n\nfunction add(a: number, b: number): number {\n  return a + b;\n}\n\nDone."
            ),
            "  return a + b;\n}"
        );
        assert_eq!(extracted("  return a + b;\n}"), "  return a + b;\n}");
        assert_eq!(extracted("```\n  return a + b;\n```"), "  return a + b;\n}");
    }

    #[test]
    fn arrows_are_functions_too() {
        assert_eq!(
            extracted("```ts\nconst add = (a: number, b: number): number => {\n  return a + b;\n};\n```"),
            "  return a + b;\n}"
        );
        assert_eq!(
            extracted("```ts\nconst add = (a: number, b: number) => a + b;\n```"),
            "  return a + b;\n}"
        );
    }

    #[test]
    fn helpers_move_inside_where_no_stop_token_cuts_them() {
        let answer = "```ts\nconst ONE = 1;\n\nfunction add(a: number, b: number): number {\n  return inc(a) + b - ONE;\n}\n\nfunction inc(a: number): number {\n  return a + ONE;\n}\nconsole.log(add(1, 2));\n```";
        let completion = extracted(answer);
        assert_eq!(
            completion,
            "  const ONE = 1;\n  function inc(a: number): number {\n    return a + ONE;\n  }\n  return inc(a) + b - ONE;\n}"
        );
        assert_eq!(problem(ADD).truncate_at_stop_token(&completion), completion);
    }

    #[test]
    fn braces_in_types_strings_and_comments_are_not_the_bodys() {
        let head = "function histogram(test: string): {[key: string]: number}";
        let answer =
            format!("{head} {{\n  const s = \"}}\"; // }}\n  return {{ [`${{s}}`]: 1 }};\n}}\nMore.");
        assert_eq!(
            extract_completion(&problem(head), &answer),
            "  const s = \"}\"; // }\n  return { [`${s}`]: 1 };\n}"
        );
        let other =
            "function addAll(): void {\n}\nfunction add(a: number, b: number): number {\n  return 2;\n}";
        assert!(extracted(other).ends_with("  return 2;\n}"));
    }

    #[test]
    fn an_answer_that_breaks_off_is_extracted_up_to_its_end() {
        assert_eq!(
            extracted("```ts\nfunction add(a: number, b: number): number {\n  return a +"),
            "  return a +"
        );
        assert_eq!(extracted("I cannot — sorry, “no”."), "I cannot — sorry, “no”.\n}");
    }
}
