//! Which rows of a private repository are trained on, and which are kept to measure.

use super::api::Api;
use crate::fingerprint::is_word;
use crate::row::{Kind, Row};
use std::collections::BTreeSet;

/// The order in which rows are most telling: each next one shows most exported names that those before it do not
/// (greedy maximum coverage); when all are shown, the count begins anew. Among equals the shorter one comes first, then
/// the earlier one. The first `n` are the best `n` to train on.
pub fn choose(rows: &[Row], api: &Api, n: usize) -> Vec<usize> {
    let shown: Vec<BTreeSet<String>> = rows.iter().map(|row| shown(row, api)).collect();
    let mut left: BTreeSet<usize> = (0..rows.len()).collect();
    let (mut chosen, mut covered) = (Vec::new(), BTreeSet::new());
    while chosen.len() < n && !left.is_empty() {
        let gain = |&i: &usize| shown[i].difference(&covered).count();
        let best = left
            .iter()
            .copied()
            .min_by_key(|i| (std::cmp::Reverse(gain(i)), rows[*i].output.len(), *i))
            .expect("some are left");
        if gain(&best) == 0 && !covered.is_empty() {
            covered.clear();
            continue;
        }
        left.remove(&best);
        covered.extend(shown[best].iter().cloned());
        chosen.push(best);
    }
    chosen
}

impl Api {
    /// Of the exported classes, methods and functions, how many the rows show, and how many there are.
    pub fn shown_by(&self, rows: &[Row]) -> (usize, usize) {
        let shown: BTreeSet<String> = rows.iter().flat_map(|row| shown(row, self)).collect();
        let methods: usize = self.classes.values().map(BTreeSet::len).sum();
        (shown.len(), self.classes.len() + methods + self.functions.len())
    }
}

/// The exported names that a row shows: itself, functions that it names, classes that it names, and of those (its own
/// among them) the methods that it calls. `Class.method` for a method.
fn shown(row: &Row, api: &Api) -> BTreeSet<String> {
    let words: BTreeSet<&str> = words(&row.output).collect();
    let called: BTreeSet<&str> = row.output.split('.').skip(1).filter_map(first_word).collect();
    let own = row.name.split('.').next().unwrap_or(&row.name);
    let mut shown: BTreeSet<String> =
        api.functions.iter().filter(|f| words.contains(f.as_str())).cloned().collect();
    for (class, methods) in &api.classes {
        let is_own = row.kind != Kind::Function && own == class;
        if !is_own && !words.contains(class.as_str()) {
            continue;
        }
        shown.insert(class.clone());
        let declared = |m: &str| is_own && (row.kind == Kind::Class || row.name.ends_with(&format!(".{m}")));
        let methods = methods.iter().filter(|m| called.contains(m.as_str()) || declared(m));
        shown.extend(methods.map(|method| format!("{class}.{method}")));
    }
    shown
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

/// The word that `text` begins with.
fn first_word(text: &str) -> Option<&str> {
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    (end > 0).then(|| &text[..end])
}

/// The `wanted` most telling rows, or fewer such that a fifth of all is left, and the rows that are held out. A class stands
/// for all of its methods: where choosing classes would leave less than that, they are not chosen.
pub fn split(rows: &[Row], api: &Api, wanted: usize) -> (Vec<usize>, Vec<usize>) {
    let aside = rows.len() / 5;
    let wanted = wanted.min(rows.len() - aside);
    let chosen = choose(rows, api, wanted);
    let held = held_out(rows, &chosen);
    if held.len() >= aside {
        return (chosen, held);
    }
    let parts: Vec<usize> = (0..rows.len()).filter(|&i| rows[i].kind != Kind::Class).collect();
    let alone: Vec<Row> = parts.iter().map(|&i| rows[i].clone()).collect();
    let wanted = wanted.min(alone.len().saturating_sub(aside));
    let chosen: Vec<usize> = choose(&alone, api, wanted).into_iter().map(|i| parts[i]).collect();
    let held = held_out(rows, &chosen);
    (chosen, held)
}

/// The rows that are not `chosen`. A row that holds a chosen one, or stands in one, as a
/// method in its class, would be no test: it is neither.
fn held_out(rows: &[Row], chosen: &[usize]) -> Vec<usize> {
    let bare = |i: &usize| rows[*i].output.split_whitespace().collect::<String>();
    let trained: Vec<String> = chosen.iter().map(bare).collect();
    let fresh = |i: &usize| {
        let own = bare(i);
        !trained.iter().any(|t| t.contains(&own) || own.contains(t.as_str()))
    };
    let chosen: BTreeSet<usize> = chosen.iter().copied().collect();
    (0..rows.len()).filter(|i| !chosen.contains(i) && fresh(i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;
    use crate::style::Style;

    fn row(name: &str, kind: Kind, output: &str) -> Row {
        Row {
            instruction: String::new(),
            output: output.into(),
            repo: None,
            path: "a.ts".into(),
            language: Language::TypeScript,
            lines: (1, 1),
            name: name.into(),
            kind,
            license: None,
            style: Style::Write,
            teacher: None,
            evolved: 0,
        }
    }

    fn api() -> Api {
        let set = |names: &str| names.split_whitespace().map(str::to_string).collect::<BTreeSet<_>>();
        Api {
            classes: [("Client".to_string(), set("get post")), ("Cache".to_string(), set("get"))].into(),
            functions: set("open"),
            types: BTreeSet::new(),
        }
    }

    #[test]
    fn the_rows_that_show_most_names_come_first_and_no_name_twice() {
        let rows = [
            row("Client.get", Kind::Method, "get(a) { return this.post(a); }"),
            row("Client.post", Kind::Method, "post(a) { return 1; }"),
            row("open", Kind::Function, "function open() { return new Cache().get(1); }"),
            row("aside", Kind::Function, "function aside() { return x.get(); }"),
        ];
        let names = |i: usize| shown(&rows[i], &api()).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(names(0), "Client Client.get Client.post");
        assert_eq!(names(2), "Cache Cache.get open");
        assert_eq!(names(3), "", "whose get it is, nobody knows");
        assert_eq!(api().shown_by(&rows[..2]), (3, 6));
        // Both show three; the shorter one first. Then the count begins anew.
        assert_eq!(choose(&rows, &api(), 4), [0, 2, 1, 3]);
        assert_eq!(choose(&rows, &api(), 1), [0]);
        assert_eq!(choose(&[], &api(), 3), [0; 0]);
    }

    #[test]
    fn what_stands_in_a_chosen_row_is_not_held_out() {
        let rows = [
            row("A", Kind::Class, "class A {\n  one() { return 1; }\n}"),
            row("A.one", Kind::Method, "one() {\n  return 1; }"),
            row("b", Kind::Function, "function b() {}"),
            row("c", Kind::Function, "function c() {}"),
        ];
        assert_eq!(held_out(&rows, &[0]), [2, 3]);
        assert_eq!(held_out(&rows, &[1]), [2, 3], "the class holds the method");
    }

    #[test]
    fn a_fifth_is_left_even_where_classes_would_take_all() {
        let api = Api {
            classes: [("A".to_string(), (0..9).map(|i| format!("m{i}")).collect())].into(),
            ..Api::default()
        };
        let method = |i: usize| format!("m{i}() {{ return {i}; }}");
        let class = format!("class A {{\n{}\n}}", (0..9).map(method).collect::<Vec<_>>().join("\n"));
        let mut rows = vec![row("A", Kind::Class, &class)];
        rows.extend((0..9).map(|i| row(&format!("A.m{i}"), Kind::Method, &method(i))));
        assert_eq!(choose(&rows, &api, 1), [0], "the class shows most");
        let (chosen, held) = split(&rows, &api, 9);
        assert_eq!((chosen.len(), held.len()), (7, 2));
        assert!(!chosen.contains(&0) && !held.contains(&0) && held.iter().all(|i| !chosen.contains(i)));
        // Where there is enough, classes are chosen.
        rows.extend((0..9).map(|i| row(&format!("f{i}"), Kind::Function, &format!("function f{i}() {{}}"))));
        assert!(split(&rows, &api, 1).0 == [0]);
    }
}
