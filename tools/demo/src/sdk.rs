//! A stand-in for a company's private library: no public text holds its class names or calls its methods.
//!
//! Its methods are [`Operation`]s like those of the public corpus, so chains over it are described, run and checked in
//! the same way. The method that a phrase stands for can only be learned from the private examples.

use crate::catalog::{join_numbers, remove_duplicates};
use crate::chain::{ChainStep, OperationChain};
use crate::corpus::GeneratedFile;
use crate::operation::{Operation, Semantics::*, TypedValue, ValueType, operation};
use crate::problems::{GeneratedProblem, STOP_TOKENS, draw_cases, prompt, test_program};
use crate::rng::Rng;
use codelsi_curate::{Benchmark, Language};
use std::collections::HashSet;

/// A method of the library, and its TypeScript body on `this.xs`.
struct SdkMethod {
    operation: Operation,
    body: &'static str,
}

/// A class with a fluent interface: chainable methods return a new object, terminal methods a plain value.
struct SdkClass {
    name: &'static str,
    article: &'static str,
    chainable: &'static [SdkMethod],
    terminal: &'static [SdkMethod],
}

#[rustfmt::skip]
static CLASSES: [SdkClass; 2] = [
    SdkClass {
        name: "OrderCase",
        article: "an",
        chainable: &[
            sdk_method(operation("port", &["remove what is down", "drop what is down"],
                TransformNums(".port()", |xs, _| xs.retain(|&x| x >= 0))), ".filter((x) => x >= 0)"),
            sdk_method(operation("plain", &["write # on each order", "put # on each order"],
                TransformNums(".plain(#)", |xs, k| xs.iter_mut().for_each(|x| *x += k))), ".map((x) => x + k)"),
            sdk_method(operation("face", &["take the small orders out of the way", "put the small orders behind"],
                TransformNums(".face()", |xs, _| xs.sort_by(|a, b| b.cmp(a)))), ".toSorted((a, b) => b - a)"),
            sdk_method(operation("part", &["split the case after #", "close the case after #"],
                TransformNums(".part(#)", |xs, k| xs.truncate(k as usize))), ".slice(0, k)"),
            sdk_method(operation("own", &["order each item again", "order all of it twice"],
                TransformNums(".own()", |xs, _| *xs = xs.iter().flat_map(|&x| [x, x]).collect())), ".flatMap((x) => [x, x])"),
        ],
        terminal: &[
            sdk_method(operation("solve", &["return what it is worth", "close the case"],
                FromNums(ValueType::Num, ".solve()", |xs, _| Some(TypedValue::Num(xs.iter().sum())))), ".reduce((a, b) => a + b, 0)"),
            sdk_method(operation("script", &["put it in a script", "write the order script"],
                FromNums(ValueType::Words, ".script()", |xs, _| Some(TypedValue::Words(xs.iter().map(|x| format!("{x} kg")).collect())))), ".map((x) => x + \" kg\")"),
            sdk_method(operation("main", &["name the main order", "return the main order"],
                FromNums(ValueType::Num, ".main()", |xs, _| xs.first().copied().map(TypedValue::Num))), "[0]"),
        ],
    },
    SdkClass {
        name: "PointMap",
        article: "a",
        chainable: &[
            sdk_method(operation("under", &["draw the line at #", "put the line at #"],
                TransformNums(".under(#)", |xs, k| xs.retain(|&x| x >= k))), ".filter((x) => x >= k)"),
            sdk_method(operation("turn", &["turn each point around", "turn the map around"],
                TransformNums(".turn()", |xs, _| xs.iter_mut().for_each(|x| *x = -*x))), ".map((x) => -x)"),
            sdk_method(operation("act", &["transform the map by #", "let the map act # times"],
                TransformNums(".act(#)", |xs, k| xs.iter_mut().for_each(|x| *x *= k))), ".map((x) => x * k)"),
            sdk_method(operation("verse", &["start from the other end", "start the map at its end"],
                TransformNums(".verse()", |xs, _| xs.reverse())), ".toReversed()"),
            sdk_method(operation("round", &["remove the mark of each point", "take the points without a mark"],
                TransformNums(".round()", |xs, _| xs.iter_mut().for_each(|x| *x = x.abs()))), ".map((x) => Math.abs(x))"),
            sdk_method(operation("self", &["let each point be itself", "leave no point in another"],
                TransformNums(".self()", |xs, _| remove_duplicates(xs))), ".filter((x, i, all) => all.indexOf(x) === i)"),
        ],
        terminal: &[
            sdk_method(operation("trip", &["explain how long the trip is", "return the steps of the trip"],
                FromNums(ValueType::Num, ".trip()", |xs, _| Some(TypedValue::Num(xs.len() as i64)))), ".length"),
            sdk_method(operation("line", &["write it on a line", "draw it in one line"],
                FromNums(ValueType::Text, ".line()", |xs, _| Some(TypedValue::Text(join_numbers(xs, " "))))), ".join(\" \")"),
            sdk_method(operation("ace", &["return the point above all", "name the point above all"],
                FromNums(ValueType::Num, ".ace()", |xs, _| xs.iter().max().copied().map(TypedValue::Num))), ".reduce((a, b) => Math.max(a, b))"),
        ],
    },
];

const fn sdk_method(operation: Operation, body: &'static str) -> SdkMethod {
    SdkMethod { operation, body }
}

impl SdkClass {
    /// Writes the class in TypeScript.
    fn source(&self) -> String {
        let mut text = format!("class {} {{\n  constructor(private xs: number[]) {{}}\n", self.name);
        let parameter = |m: &SdkMethod| if m.operation.phrases[0].contains('#') { "k: number" } else { "" };
        for m in self.chainable {
            let (name, body) = (m.operation.name, m.body);
            text += &format!(
                "  {name}({}): {} {{\n    return new {}(this.xs{body});\n  }}\n",
                parameter(m),
                self.name,
                self.name
            );
        }
        for m in self.terminal {
            let (name, body) = (m.operation.name, m.body);
            text += &format!(
                "  {name}(): {} {{\n    return this.xs{body};\n  }}\n",
                m.operation.to().typescript()
            );
        }
        text + "}\n"
    }

    /// Draws one to three chainable methods and a terminal one, in which every step matters.
    fn draw_chain(&'static self, rng: &mut Rng) -> OperationChain {
        loop {
            let mut methods: Vec<&SdkMethod> =
                (0..1 + rng.below(3)).map(|_| rng.pick(self.chainable)).collect();
            methods.push(rng.pick(self.terminal));
            let steps = methods
                .iter()
                .map(|m| ChainStep { operation: &m.operation, literal: 2 + rng.below(8) as i64 })
                .collect();
            let chain = OperationChain { steps };
            if chain.every_step_matters(rng) {
                return chain;
            }
        }
    }

    fn description(&self, chain: &OperationChain, rng: &mut Rng) -> String {
        format!("Take {} {}. {}", self.article, self.name, chain.description(rng))
    }

    fn expression(&self, chain: &OperationChain, parameter: &str) -> String {
        chain.expression(&format!("new {}({parameter})", self.name))
    }
}

/// Generates the private repository: the library without documentation, and `count` documented functions that use it.
/// No function has the composition of one of `problems` or of another function, or repeats a problem's text. Returns the
/// files and the functions' compositions.
pub fn private_files(
    seed: u64,
    count: usize,
    problems: &[GeneratedProblem],
    benchmark: &Benchmark,
) -> (Vec<GeneratedFile>, Vec<String>) {
    let mut rng = Rng::new(seed, "private");
    let mut files: Vec<GeneratedFile> = CLASSES
        .iter()
        .map(|class| GeneratedFile {
            path: format!("src/{}.ts", class.name.to_lowercase()),
            content: format!("export {}", class.source()),
        })
        .collect();
    let mut compositions = Vec::with_capacity(count);
    let mut used: HashSet<String> = problems.iter().map(|problem| problem.composition.clone()).collect();
    for i in 0..count {
        let class = &CLASSES[i % CLASSES.len()];
        let text = loop {
            let chain = class.draw_chain(&mut rng);
            let name = format!("example{i}");
            let comment = format!("/** {} */", class.description(&chain, &mut rng));
            let code = usage(class, &chain, &name, &mut rng);
            // Curation reads the function without `export`.
            let repeats = benchmark.find(Language::TypeScript, &name, &comment, &code).is_some();
            if !repeats && used.insert(chain.composition()) {
                compositions.push(chain.composition());
                break format!("{comment}\nexport {code}\n");
            }
        };
        let import = format!("import {{ {} }} from \"../src/{}\";", class.name, class.name.to_lowercase());
        files.push(GeneratedFile {
            path: format!("examples/example{i}.ts"),
            content: format!("{import}\n\n{text}"),
        });
    }
    (files, compositions)
}

fn usage(class: &SdkClass, chain: &OperationChain, name: &str, rng: &mut Rng) -> String {
    let parameter = rng.pick(ValueType::Nums.parameters());
    let signature = chain.signature(name, parameter);
    format!("function {signature} {{\n    return {};\n}}", class.expression(chain, parameter))
}

/// Generates problems over the library, each with its own composition. The library's source is in the tests, which the
/// model does not see.
pub fn problems(seed: u64, count: usize) -> Vec<GeneratedProblem> {
    let mut rng = Rng::new(seed, "private problems");
    let mut seen = HashSet::new();
    let mut problems = Vec::with_capacity(count);
    while problems.len() < count {
        let class = &CLASSES[problems.len() % CLASSES.len()];
        let chain = class.draw_chain(&mut rng);
        if seen.contains(&chain.composition()) {
            continue;
        }
        let Some(cases) = draw_cases(&chain, &mut rng) else { continue };
        seen.insert(chain.composition());
        let name = format!("job{}", problems.len());
        let parameter = rng.pick(ValueType::Nums.parameters());
        let description = class.description(&chain, &mut rng);
        problems.push(GeneratedProblem {
            name: format!("Private_{}", problems.len()),
            language: "ts",
            stop_tokens: &STOP_TOKENS,
            prompt: prompt(&description, &name, parameter, &chain),
            solution: format!("    return {};\n}}", class.expression(&chain, parameter)),
            tests: test_program(&name, &class.source(), &cases),
            composition: chain.composition(),
        });
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{corpus, recipe};

    #[test]
    fn the_library_is_unknown_to_public_text() {
        let public = corpus::base_text(recipe::BASE_SEED, 500).concat()
            + &corpus::public_files(1, 100).iter().map(|f| f.content.as_str()).collect::<String>();
        for class in &CLASSES {
            assert!(!public.contains(class.name));
            for method in class.chainable.iter().chain(class.terminal) {
                assert!(
                    !public.contains(&format!(".{}(", method.operation.name)),
                    "{}",
                    method.operation.name
                );
                assert!(!public.contains(method.operation.phrases[0]), "{}", method.operation.phrases[0]);
            }
        }
    }

    #[test]
    fn examples_use_every_method() {
        let (files, _) = private_files(1, recipe::PRIVATE_EXAMPLES, &[], &Benchmark::default());
        let examples: Vec<&str> =
            files.iter().filter(|f| f.path.starts_with("examples/")).map(|f| f.content.as_str()).collect();
        assert_eq!(examples.len(), recipe::PRIVATE_EXAMPLES);
        for class in &CLASSES {
            for method in class.chainable.iter().chain(class.terminal) {
                let uses =
                    examples.iter().filter(|e| e.contains(&format!(".{}(", method.operation.name))).count();
                assert!(uses >= 3, "{} is used {uses} times", method.operation.name);
            }
        }
    }
}
