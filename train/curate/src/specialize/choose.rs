//! The choice of rows of a private repository for training, and of held-out rows for evaluation.

use super::api::ExportedApi;
use crate::fingerprint::is_identifier_char;
use crate::row::{CuratedRow, ItemKind};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Returns `n` rows in the order of greedy maximum coverage: each next row shows the most exported names that the rows
/// before it do not show and, among equals, says the most pairs of words that they do not say, since a name is asked for
/// in many words. When all names (or pairs) are shown, their coverage starts again from none. Ties are broken by shorter
/// output, then by position.
pub fn choose_rows(rows: &[CuratedRow], api: &ExportedApi, n: usize) -> Vec<usize> {
    let mut names = Coverage::new(rows.iter().map(|row| names_shown(row, api)));
    let mut wording = Coverage::new(rows.iter().map(word_pairs));
    let mut left: BTreeSet<usize> = (0..rows.len()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < n && !left.is_empty() {
        names.restart_if_complete(&left);
        wording.restart_if_complete(&left);
        let rank = |i: &usize| (Reverse((names.gain(*i), wording.gain(*i))), rows[*i].output.len(), *i);
        let best = left.iter().copied().min_by_key(rank).expect("some are left");
        left.remove(&best);
        names.add(best);
        wording.add(best);
        chosen.push(best);
    }
    chosen
}

/// Coverage: the features of each row, and those of the rows added so far.
struct Coverage {
    shown: Vec<BTreeSet<String>>,
    covered: BTreeSet<String>,
}

impl Coverage {
    fn new(shown: impl Iterator<Item = BTreeSet<String>>) -> Self {
        Coverage { shown: shown.collect(), covered: BTreeSet::new() }
    }

    /// The number of things that row `i` shows and no row before it.
    fn gain(&self, i: usize) -> usize {
        self.shown[i].difference(&self.covered).count()
    }

    fn add(&mut self, i: usize) {
        self.covered.extend(self.shown[i].iter().cloned());
    }

    /// Forgets what is covered if no row that is left would add to it.
    fn restart_if_complete(&mut self, left: &BTreeSet<usize>) {
        if left.iter().all(|&i| self.gain(i) == 0) {
            self.covered.clear();
        }
    }
}

/// The pairs of adjacent words of a row's instruction, in lower case.
fn word_pairs(row: &CuratedRow) -> BTreeSet<String> {
    let words: Vec<String> = split_words(&row.instruction).map(str::to_lowercase).collect();
    words.windows(2).map(|pair| pair.join(" ")).collect()
}

impl ExportedApi {
    /// The number of exported classes, methods and functions that the rows show, and the number of all of them.
    pub fn coverage(&self, rows: &[CuratedRow]) -> (usize, usize) {
        let shown: BTreeSet<String> = rows.iter().flat_map(|row| names_shown(row, self)).collect();
        let methods: usize = self.classes.values().map(BTreeSet::len).sum();
        (shown.len(), self.classes.len() + methods + self.functions.len())
    }
}

/// The exported names that a row shows: its own, the functions and classes that it names, and the methods of these
/// classes that it calls, as `Class.method`.
fn names_shown(row: &CuratedRow, api: &ExportedApi) -> BTreeSet<String> {
    let words: BTreeSet<&str> = split_words(&row.output).collect();
    let called: BTreeSet<&str> = row.output.split('.').skip(1).filter_map(first_word).collect();
    let own = row.name.split('.').next().unwrap_or(&row.name);
    let mut shown: BTreeSet<String> =
        api.functions.iter().filter(|f| words.contains(f.as_str())).cloned().collect();
    for (class, methods) in &api.classes {
        let is_own = row.kind != ItemKind::Function && own == class;
        if !is_own && !words.contains(class.as_str()) {
            continue;
        }
        shown.insert(class.clone());
        let declared =
            |m: &str| is_own && (row.kind == ItemKind::Class || row.name.ends_with(&format!(".{m}")));
        let methods = methods.iter().filter(|m| called.contains(m.as_str()) || declared(m));
        shown.extend(methods.map(|method| format!("{class}.{method}")));
    }
    shown
}

fn split_words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_identifier_char(c)).filter(|word| !word.is_empty())
}

/// The word at the start of `text`.
fn first_word(text: &str) -> Option<&str> {
    let end = text.find(|c| !is_identifier_char(c)).unwrap_or(text.len());
    (end > 0).then(|| &text[..end])
}

/// Splits rows into `wanted` rows for training, in the order of [`choose_rows`], and held-out rows. At least a
/// fifth of all rows is not used for training. If choosing classes, which contain all of their methods, would leave
/// less than a fifth held out, no classes are chosen.
pub fn split_rows(rows: &[CuratedRow], api: &ExportedApi, wanted: usize) -> (Vec<usize>, Vec<usize>) {
    let min_held_out = rows.len() / 5;
    let wanted = wanted.min(rows.len() - min_held_out);
    let chosen = choose_rows(rows, api, wanted);
    let held = held_out(rows, &chosen);
    if held.len() >= min_held_out {
        return (chosen, held);
    }
    let parts: Vec<usize> = (0..rows.len()).filter(|&i| rows[i].kind != ItemKind::Class).collect();
    let without_classes: Vec<CuratedRow> = parts.iter().map(|&i| rows[i].clone()).collect();
    let wanted = wanted.min(without_classes.len().saturating_sub(min_held_out));
    let chosen: Vec<usize> =
        choose_rows(&without_classes, api, wanted).into_iter().map(|i| parts[i]).collect();
    let held = held_out(rows, &chosen);
    (chosen, held)
}

/// The rows that are not `chosen`, without those that contain a chosen row or are contained in one, as a method in its
/// class: such rows would leak.
pub fn held_out(rows: &[CuratedRow], chosen: &[usize]) -> Vec<usize> {
    let code = |i: &usize| rows[*i].output.split_whitespace().collect::<String>();
    let trained: Vec<String> = chosen.iter().map(code).collect();
    let is_independent = |i: &usize| {
        let own = code(i);
        !trained.iter().any(|t| t.contains(&own) || own.contains(t.as_str()))
    };
    let chosen: BTreeSet<usize> = chosen.iter().copied().collect();
    (0..rows.len()).filter(|i| !chosen.contains(i) && is_independent(i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;
    use crate::style::InstructionStyle;

    fn row(name: &str, kind: ItemKind, output: &str) -> CuratedRow {
        CuratedRow {
            instruction: String::new(),
            hole: None,
            output: output.into(),
            repo: None,
            path: "a.ts".into(),
            language: Language::TypeScript,
            lines: (1, 1),
            name: name.into(),
            kind,
            license: None,
            style: InstructionStyle::Write,
            template: None,
            teacher: None,
            evolved: 0,
        }
    }

    fn api() -> ExportedApi {
        let set = |names: &str| names.split_whitespace().map(str::to_string).collect::<BTreeSet<_>>();
        ExportedApi {
            classes: [("Client".to_string(), set("get post")), ("Cache".to_string(), set("get"))].into(),
            functions: set("open"),
            types: BTreeSet::new(),
        }
    }

    #[test]
    fn the_rows_that_show_most_names_come_first_and_no_name_twice() {
        let rows = [
            row("Client.get", ItemKind::Method, "get(a) { return this.post(a); }"),
            row("Client.post", ItemKind::Method, "post(a) { return 1; }"),
            row("open", ItemKind::Function, "function open() { return new Cache().get(1); }"),
            row("aside", ItemKind::Function, "function aside() { return x.get(); }"),
        ];
        let names = |i: usize| names_shown(&rows[i], &api()).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(names(0), "Client Client.get Client.post");
        assert_eq!(names(2), "Cache Cache.get open");
        assert_eq!(names(3), "", "whose get it is, nobody knows");
        assert_eq!(api().coverage(&rows[..2]), (3, 6));
        // Both show three; the shorter one first. Then the count begins anew.
        assert_eq!(choose_rows(&rows, &api(), 4), [0, 2, 1, 3]);
        assert_eq!(choose_rows(&rows, &api(), 1), [0]);
        assert_eq!(choose_rows(&[], &api(), 3), [0; 0]);
    }

    #[test]
    fn what_stands_in_a_chosen_row_is_not_held_out() {
        let rows = [
            row("A", ItemKind::Class, "class A {\n  one() { return 1; }\n}"),
            row("A.one", ItemKind::Method, "one() {\n  return 1; }"),
            row("b", ItemKind::Function, "function b() {}"),
            row("c", ItemKind::Function, "function c() {}"),
        ];
        assert_eq!(held_out(&rows, &[0]), [2, 3]);
        assert_eq!(held_out(&rows, &[1]), [2, 3], "the class holds the method");
    }

    #[test]
    fn a_fifth_is_left_even_where_classes_would_take_all() {
        let api = ExportedApi {
            classes: [("A".to_string(), (0..9).map(|i| format!("m{i}")).collect())].into(),
            ..ExportedApi::default()
        };
        let method = |i: usize| format!("m{i}() {{ return {i}; }}");
        let class = format!("class A {{\n{}\n}}", (0..9).map(method).collect::<Vec<_>>().join("\n"));
        let mut rows = vec![row("A", ItemKind::Class, &class)];
        rows.extend((0..9).map(|i| row(&format!("A.m{i}"), ItemKind::Method, &method(i))));
        assert_eq!(choose_rows(&rows, &api, 1), [0], "the class shows most");
        let (chosen, held) = split_rows(&rows, &api, 9);
        assert_eq!((chosen.len(), held.len()), (7, 2));
        assert!(!chosen.contains(&0) && !held.contains(&0) && held.iter().all(|i| !chosen.contains(i)));
        // Where there is enough, classes are chosen.
        rows.extend(
            (0..9).map(|i| row(&format!("f{i}"), ItemKind::Function, &format!("function f{i}() {{}}"))),
        );
        assert!(split_rows(&rows, &api, 1).0 == [0]);
    }
}
