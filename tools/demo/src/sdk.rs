//! A library that stands in for a company's own: its class names stand in no public text, its methods are called in none.
//!
//! Its methods are [`Op`]s like those of the public language, so programs over it are described, run and checked in
//! the same way. What a phrase is called in the library can only be learned from the private examples.

use crate::corpus::SourceFile;
use crate::op::{Kind, Meaning::*, Op, Value, op};
use crate::operations::joined;
use crate::problems::{Problem, STOP_TOKENS, cases, prompt, tests};
use crate::program::{Program, Step};
use crate::rng::Rng;
use codelsi_curate::{Benchmark, Language};
use std::collections::{HashMap, HashSet};

/// A method: what it is called and means, and its TypeScript on `this.xs`.
struct Method {
    op: Op,
    body: &'static str,
}

/// A class whose methods return it anew, up to a last one that returns a plain value.
struct Class {
    name: &'static str,
    article: &'static str,
    steps: &'static [Method],
    ends: &'static [Method],
}

#[rustfmt::skip]
static CLASSES: [Class; 2] = [
    Class {
        name: "OrderCase",
        article: "an",
        steps: &[
            method(op("plain", &["write # on each order", "put # on each order"],
                OnNums(".plain(#)", |xs, k| xs.iter_mut().for_each(|x| *x += k))), ".map((x) => x + k)"),
            method(op("face", &["take the small orders out of the way", "put the small orders behind"],
                OnNums(".face()", |xs, _| xs.sort_by(|a, b| b.cmp(a)))), ".toSorted((a, b) => b - a)"),
            method(op("part", &["split the case after #", "close the case after #"],
                OnNums(".part(#)", |xs, k| xs.truncate(k as usize))), ".slice(0, k)"),
            method(op("own", &["order each item again", "order all of it twice"],
                OnNums(".own()", |xs, _| *xs = xs.iter().flat_map(|&x| [x, x]).collect())), ".flatMap((x) => [x, x])"),
        ],
        ends: &[
            method(op("solve", &["return what it is worth", "close the case"],
                FromNums(Kind::Num, ".solve()", |xs, _| Some(Value::Num(xs.iter().sum())))), ".reduce((a, b) => a + b, 0)"),
            method(op("script", &["put it in a script", "write the order script"],
                FromNums(Kind::Words, ".script()", |xs, _| Some(Value::Words(xs.iter().map(|x| format!("{x} kg")).collect())))), ".map((x) => x + \" kg\")"),
        ],
    },
    Class {
        name: "PointMap",
        article: "a",
        steps: &[
            method(op("under", &["draw the line at #", "put the line at #"],
                OnNums(".under(#)", |xs, k| xs.retain(|&x| x >= k))), ".filter((x) => x >= k)"),
            method(op("turn", &["turn each point around", "turn the map around"],
                OnNums(".turn()", |xs, _| xs.iter_mut().for_each(|x| *x = -*x))), ".map((x) => -x)"),
            method(op("act", &["transform the map by #", "let the map act # times"],
                OnNums(".act(#)", |xs, k| xs.iter_mut().for_each(|x| *x *= k))), ".map((x) => x * k)"),
            method(op("verse", &["start from the other end", "start the map at its end"],
                OnNums(".verse()", |xs, _| xs.reverse())), ".toReversed()"),
        ],
        ends: &[
            method(op("trip", &["explain how long the trip is", "return the steps of the trip"],
                FromNums(Kind::Num, ".trip()", |xs, _| Some(Value::Num(xs.len() as i64)))), ".length"),
            method(op("line", &["write it on a line", "draw it in one line"],
                FromNums(Kind::Text, ".line()", |xs, _| Some(Value::Text(joined(xs, " "))))), ".join(\" \")"),
        ],
    },
];

const fn method(op: Op, body: &'static str) -> Method {
    Method { op, body }
}

impl Class {
    /// Its TypeScript.
    fn source(&self) -> String {
        let mut text = format!("class {} {{\n  constructor(private xs: number[]) {{}}\n", self.name);
        let parameter = |m: &Method| if m.op.phrases[0].contains('#') { "k: number" } else { "" };
        for m in self.steps {
            let (name, body) = (m.op.name, m.body);
            text += &format!(
                "  {name}({}): {} {{\n    return new {}(this.xs{body});\n  }}\n",
                parameter(m),
                self.name,
                self.name
            );
        }
        for m in self.ends {
            let (name, body) = (m.op.name, m.body);
            text += &format!("  {name}(): {} {{\n    return this.xs{body};\n  }}\n", m.op.to().typescript());
        }
        text + "}\n"
    }

    /// One to three steps and an end, in which every step matters.
    fn program(&'static self, rng: &mut Rng) -> Program {
        loop {
            let mut methods: Vec<&Method> = (0..1 + rng.below(3)).map(|_| rng.pick(self.steps)).collect();
            methods.push(rng.pick(self.ends));
            let steps =
                methods.iter().map(|m| Step { op: &m.op, literal: 2 + rng.below(8) as i64 }).collect();
            let program = Program { steps };
            if program.every_step_matters(rng) {
                return program;
            }
        }
    }

    fn description(&self, program: &Program, rng: &mut Rng) -> String {
        format!("Take {} {}. {}", self.article, self.name, program.description(rng))
    }

    fn expression(&self, program: &Program, parameter: &str) -> String {
        program.expression(&format!("new {}({parameter})", self.name))
    }
}

/// The private repository: the library, whose methods nobody documented, and `count` documented functions that use
/// it, none of which composes what one of `problems` does or repeats its text. Every method is used about as often.
pub fn private_files(seed: u64, count: usize, problems: &[Problem], against: &Benchmark) -> Vec<SourceFile> {
    let mut rng = Rng::new(seed, "private");
    let mut files: Vec<SourceFile> = CLASSES
        .iter()
        .map(|class| SourceFile {
            path: format!("src/{}.ts", class.name.to_lowercase()),
            content: format!("export {}", class.source()),
        })
        .collect();
    let mut used: HashMap<&'static str, usize> = HashMap::new();
    let mut names = HashSet::new();
    for i in 0..count {
        let class = &CLASSES[i % CLASSES.len()];
        let mut drafts = Vec::new();
        while drafts.len() < 12 {
            let program = class.program(&mut rng);
            let name = format!("example{i}");
            let comment = format!("/** {} */", class.description(&program, &mut rng));
            let code = usage(class, &program, &name, &mut rng);
            let composition = program.composition();
            if problems.iter().all(|p| p.composition != composition)
                && !names.contains(&program.composition())
                && against.find(Language::TypeScript, &name, &comment, &code).is_none()
            {
                drafts.push((program, format!("{comment}\n{code}\n")));
            }
        }
        // The program with the rarest method, and otherwise rare ones.
        let uses = |p: &Program| {
            p.steps.iter().map(|s| used.get(s.op.name).copied().unwrap_or(0)).collect::<Vec<_>>()
        };
        let rarity = |p: &Program| (uses(p).into_iter().min(), uses(p).into_iter().sum::<usize>());
        let (program, text) = drafts.into_iter().min_by_key(|(p, _)| rarity(p)).expect("twelve drafts");
        program.steps.iter().for_each(|s| *used.entry(s.op.name).or_default() += 1);
        names.insert(program.composition());
        let import = format!("import {{ {} }} from \"../src/{}\";", class.name, class.name.to_lowercase());
        files.push(SourceFile {
            path: format!("examples/example{i}.ts"),
            content: format!("{import}\n\n{text}"),
        });
    }
    files
}

fn usage(class: &Class, program: &Program, name: &str, rng: &mut Rng) -> String {
    let parameter = rng.pick(Kind::Nums.parameters());
    let signature = program.signature(name, parameter);
    format!("export function {signature} {{\n    return {};\n}}", class.expression(program, parameter))
}

/// Problems that only someone who knows the library can solve, each a composition that no example holds.
/// The library's source stands in the tests, out of the model's sight.
pub fn problems(seed: u64, count: usize) -> Vec<Problem> {
    let mut rng = Rng::new(seed, "private problems");
    let mut seen = HashSet::new();
    let mut problems = Vec::with_capacity(count);
    while problems.len() < count {
        let class = &CLASSES[problems.len() % CLASSES.len()];
        let program = class.program(&mut rng);
        if seen.contains(&program.composition()) {
            continue;
        }
        let Some(cases) = cases(&program, &mut rng) else { continue };
        seen.insert(program.composition());
        let name = format!("job{}", problems.len());
        let parameter = rng.pick(Kind::Nums.parameters());
        let description = class.description(&program, &mut rng);
        problems.push(Problem {
            name: format!("Private_{}", problems.len()),
            language: "ts",
            stop_tokens: &STOP_TOKENS,
            prompt: prompt(&description, &name, parameter, &program),
            solution: format!("    return {};\n}}", class.expression(&program, parameter)),
            tests: tests(&name, &class.source(), &cases),
            composition: program.composition(),
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
            for method in class.steps.iter().chain(class.ends) {
                assert!(!public.contains(&format!(".{}(", method.op.name)), "{}", method.op.name);
                assert!(!public.contains(method.op.phrases[0]), "{}", method.op.phrases[0]);
            }
        }
    }

    #[test]
    fn examples_use_every_method() {
        let files = private_files(1, 40, &[], &Benchmark::default());
        let examples: Vec<&str> =
            files.iter().filter(|f| f.path.starts_with("examples/")).map(|f| f.content.as_str()).collect();
        assert_eq!(examples.len(), 40);
        for class in &CLASSES {
            for method in class.steps.iter().chain(class.ends) {
                let uses = examples.iter().filter(|e| e.contains(&format!(".{}(", method.op.name))).count();
                assert!(uses >= 2, "{} is used {uses} times", method.op.name);
            }
        }
    }
}
