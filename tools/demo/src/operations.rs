//! The table of operations: English, TypeScript and meaning side by side.

use crate::op::{Kind, Meaning::*, Op, Value, op};

/// Every operation of the little world; in phrases and code `#` stands for a literal, 2 to 9.
#[rustfmt::skip]
pub static OPS: &[Op] = &[
    // Filters of numbers.
    op("evens", &["keep the even numbers", "keep only the evens"],
        KeepNums("x % 2 === 0", |x, _| x % 2 == 0)),
    op("odds", &["keep the odd numbers", "keep only the odds"],
        KeepNums("x % 2 !== 0", |x, _| x % 2 != 0)),
    op("positives", &["keep the positive numbers", "keep the numbers above zero"],
        KeepNums("x > 0", |x, _| x > 0)),
    op("negatives", &["keep the negative numbers", "keep the numbers below zero"],
        KeepNums("x < 0", |x, _| x < 0)),
    op("nonzero", &["remove the zeros", "drop every zero"],
        KeepNums("x !== 0", |x, _| x != 0)),
    op("above", &["keep the numbers greater than #", "keep the numbers above #"],
        KeepNums("x > #", |x, k| x > k)),
    op("below", &["keep the numbers less than #", "keep the numbers below #"],
        KeepNums("x < #", |x, k| x < k)),
    op("multiples", &["keep the multiples of #", "keep the numbers divisible by #"],
        KeepNums("x % # === 0", |x, k| x % k == 0)),
    // Maps of numbers.
    op("doubled", &["double each number", "double them"],
        EachNum("x * 2", |x, _| x * 2)),
    op("tripled", &["triple each number", "triple them"],
        EachNum("x * 3", |x, _| x * 3)),
    op("squared", &["square each number", "square them"],
        EachNum("x * x", |x, _| x * x)),
    op("cubed", &["cube each number", "cube them"],
        EachNum("x * x * x", |x, _| x * x * x)),
    op("negated", &["negate each number", "negate them"],
        EachNum("-x", |x, _| -x)),
    op("absolute", &["take absolute values", "take the absolute value of each number"],
        EachNum("Math.abs(x)", |x, _| x.abs())),
    op("halved", &["halve each number rounding down", "halve them rounding down"],
        EachNum("Math.floor(x / 2)", |x, _| x.div_euclid(2))),
    op("next", &["add one to each number", "increment each number"],
        EachNum("x + 1", |x, _| x + 1)),
    op("previous", &["subtract one from each number", "decrement each number"],
        EachNum("x - 1", |x, _| x - 1)),
    op("plus", &["add # to each number", "increase each number by #"],
        EachNum("x + #", |x, k| x + k)),
    op("minus", &["subtract # from each number", "decrease each number by #"],
        EachNum("x - #", |x, k| x - k)),
    op("times", &["multiply each number by #", "scale each number by #"],
        EachNum("x * #", |x, k| x * k)),
    op("remainders", &["take the remainder by #", "take each number modulo #"],
        EachNum("x % #", |x, k| x % k)),
    // Order and places of numbers.
    op("reversed", &["reverse the list", "reverse the order"],
        OnNums(".toReversed()", |xs, _| xs.reverse())),
    op("ascending", &["sort the numbers in ascending order", "sort the numbers upwards"],
        OnNums(".toSorted((a, b) => a - b)", |xs, _| xs.sort())),
    op("descending", &["sort the numbers in descending order", "sort the numbers downwards"],
        OnNums(".toSorted((a, b) => b - a)", |xs, _| xs.sort_by(|a, b| b.cmp(a)))),
    op("first", &["take the first # numbers", "keep the first # numbers"],
        OnNums(".slice(0, #)", |xs, k| xs.truncate(k as usize))),
    op("skipped", &["skip the first # numbers", "drop the first # numbers"],
        OnNums(".slice(#)", |xs, k| drop_first(xs, k as usize))),
    op("last", &["take the last # numbers", "keep the last # numbers"],
        OnNums(".slice(-#)", |xs, k| drop_first(xs, xs.len().saturating_sub(k as usize)))),
    op("rest", &["drop the first number", "skip the first number"],
        OnNums(".slice(1)", |xs, _| drop_first(xs, 1))),
    op("front", &["drop the last number", "skip the last number"],
        OnNums(".slice(0, -1)", |xs, _| { xs.pop(); })),
    op("unique", &["remove duplicates", "drop the repeated numbers"],
        OnNums(".filter((x, i, all) => all.indexOf(x) === i)", |xs, _| keep_firsts(xs))),
    op("alternate", &["take every other number", "keep every second number"],
        OnNums(".filter((x, i) => i % 2 === 0)", |xs, _| *xs = xs.iter().step_by(2).copied().collect())),
    op("repeated", &["repeat each number twice", "write each number twice"],
        OnNums(".flatMap((x) => [x, x])", |xs, _| *xs = xs.iter().flat_map(|&x| [x, x]).collect())),
    op("appended", &["append the number #", "add # at the end"],
        OnNums(".concat(#)", |xs, k| xs.push(k))),
    // What numbers come to.
    op("sum", &["sum them", "return their sum"],
        FromNums(Kind::Num, ".reduce((a, b) => a + b, 0)", |xs, _| Some(Value::Num(xs.iter().sum())))),
    op("product", &["multiply them together", "return their product"],
        FromNums(Kind::Num, ".reduce((a, b) => a * b, 1)", |xs, _| xs.iter().try_fold(1, |p: i64, &x| p.checked_mul(x)).map(Value::Num))),
    op("largest", &["find the largest", "return the maximum"],
        FromNums(Kind::Num, ".reduce((a, b) => Math.max(a, b))", |xs, _| xs.iter().max().copied().map(Value::Num))),
    op("smallest", &["find the smallest", "return the minimum"],
        FromNums(Kind::Num, ".reduce((a, b) => Math.min(a, b))", |xs, _| xs.iter().min().copied().map(Value::Num))),
    op("count", &["count them", "return how many there are"],
        FromNums(Kind::Num, ".length", |xs, _| Some(Value::Num(xs.len() as i64)))),
    op("anyNegative", &["tell whether any number is negative", "check if any number is below zero"],
        FromNums(Kind::Flag, ".some((x) => x < 0)", |xs, _| Some(Value::Flag(xs.iter().any(|&x| x < 0))))),
    op("allEven", &["tell whether all numbers are even", "check if every number is even"],
        FromNums(Kind::Flag, ".every((x) => x % 2 === 0)", |xs, _| Some(Value::Flag(xs.iter().all(|x| x % 2 == 0))))),
    op("contains", &["tell whether # is among them", "check if # is in the list"],
        FromNums(Kind::Flag, ".includes(#)", |xs, k| Some(Value::Flag(xs.contains(&k))))),
    op("csv", &["join the numbers with commas", "join them with commas"],
        FromNums(Kind::Text, ".join(\",\")", |xs, _| Some(Value::Text(joined(xs, ","))))),
    op("dashed", &["join the numbers with dashes", "join them with dashes"],
        FromNums(Kind::Text, ".join(\"-\")", |xs, _| Some(Value::Text(joined(xs, "-"))))),
    op("strings", &["turn each number into a string", "convert each number to text"],
        FromNums(Kind::Words, ".map((x) => String(x))", |xs, _| Some(Value::Words(xs.iter().map(i64::to_string).collect())))),
    // Filters of words.
    op("nonEmpty", &["remove the empty words", "drop every empty word"],
        KeepWords("s.length > 0", |s, _| !s.is_empty())),
    op("longer", &["keep the words longer than #", "keep words with more than # letters"],
        KeepWords("s.length > #", |s, k| s.len() as i64 > k)),
    op("shorter", &["keep the words shorter than #", "keep words with fewer than # letters"],
        KeepWords("s.length < #", |s, k| (s.len() as i64) < k)),
    op("startA", &["keep the words that start with a", "keep words starting with a"],
        KeepWords("s.startsWith(\"a\")", |s, _| s.starts_with('a'))),
    op("withE", &["keep the words that contain e", "keep words containing e"],
        KeepWords("s.includes(\"e\")", |s, _| s.contains('e'))),
    // Maps of words.
    op("upper", &["turn each word to upper case", "make each word upper case"],
        EachWord("s.toUpperCase()", |s| s.to_uppercase())),
    op("lower", &["turn each word to lower case", "make each word lower case"],
        EachWord("s.toLowerCase()", |s| s.to_lowercase())),
    op("trimmed", &["trim each word", "trim them"],
        EachWord("s.trim()", |s| s.trim().to_string())),
    op("initials", &["take the first letter of each word", "shorten each word to its first letter"],
        EachWord("s.charAt(0)", |s| s.chars().take(1).collect())),
    op("echoed", &["write each word twice in a row", "repeat each word after itself"],
        EachWord("s + s", |s| s.repeat(2))),
    op("shouted", &["add an exclamation mark to each word", "end each word with an exclamation mark"],
        EachWord("s + \"!\"", |s| format!("{s}!"))),
    op("flipped", &["spell each word backwards", "reverse the letters of each word"],
        EachWord("[...s].reverse().join(\"\")", |s| s.chars().rev().collect())),
    // Order and places of words.
    op("backwards", &["reverse the words", "reverse the order of the words"],
        OnWords(".toReversed()", |ws, _| ws.reverse())),
    op("sorted", &["sort the words", "sort them alphabetically"],
        OnWords(".toSorted()", |ws, _| ws.sort())),
    op("leading", &["take the first # words", "keep the first # words"],
        OnWords(".slice(0, #)", |ws, k| ws.truncate(k as usize))),
    op("later", &["skip the first # words", "drop the first # words"],
        OnWords(".slice(#)", |ws, k| drop_first(ws, k as usize))),
    op("tail", &["drop the first word", "skip the first word"],
        OnWords(".slice(1)", |ws, _| drop_first(ws, 1))),
    op("distinct", &["remove duplicate words", "drop the repeated words"],
        OnWords(".filter((s, i, all) => all.indexOf(s) === i)", |ws, _| keep_firsts(ws))),
    // What words come to.
    op("lengths", &["take the length of each word", "replace each word by its length"],
        FromWords(Kind::Nums, ".map((s) => s.length)", |ws| Value::Nums(ws.iter().map(|s| s.len() as i64).collect()))),
    op("total", &["count the words", "return the number of words"],
        FromWords(Kind::Num, ".length", |ws| Value::Num(ws.len() as i64))),
    op("anyEmpty", &["tell whether any word is empty", "check if some word is empty"],
        FromWords(Kind::Flag, ".some((s) => s.length === 0)", |ws| Value::Flag(ws.iter().any(String::is_empty)))),
    op("phrase", &["join the words with spaces", "join them with spaces"],
        FromWords(Kind::Text, ".join(\" \")", |ws| Value::Text(ws.join(" ")))),
    op("listing", &["join the words with commas", "write the words with commas between"],
        FromWords(Kind::Text, ".join(\",\")", |ws| Value::Text(ws.join(",")))),
    op("glued", &["join the words without spaces", "glue the words together"],
        FromWords(Kind::Text, ".join(\"\")", |ws| Value::Text(ws.concat()))),
    // Texts.
    op("words", &["split the text into words", "split the text at spaces"],
        FromText(Kind::Words, ".split(\" \")", |s| split(s, ' '))),
    op("fields", &["split the text at commas", "take the fields between commas"],
        FromText(Kind::Words, ".split(\",\")", |s| split(s, ','))),
    op("capitals", &["turn the text to upper case", "make the text upper case"],
        FromText(Kind::Text, ".toUpperCase()", |s| Value::Text(s.to_uppercase()))),
    op("small", &["turn the text to lower case", "make the text lower case"],
        FromText(Kind::Text, ".toLowerCase()", |s| Value::Text(s.to_lowercase()))),
    op("stripped", &["trim the text", "strip the spaces around the text"],
        FromText(Kind::Text, ".trim()", |s| Value::Text(s.trim().to_string()))),
    op("size", &["return the length of the text", "count the characters"],
        FromText(Kind::Num, ".length", |s| Value::Num(s.len() as i64))),
];

fn drop_first<T>(items: &mut Vec<T>, n: usize) {
    items.drain(..n.min(items.len()));
}

/// Each item where it comes first.
pub fn keep_firsts<T: PartialEq + Clone>(items: &mut Vec<T>) {
    let mut kept: Vec<T> = Vec::new();
    for item in items.drain(..) {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    *items = kept;
}

/// The numbers with `separator` between.
pub fn joined(xs: &[i64], separator: &str) -> String {
    xs.iter().map(i64::to_string).collect::<Vec<_>>().join(separator)
}

fn split(text: &str, at: char) -> Value {
    Value::Words(text.split(at).map(str::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_phrase_means_one_operation_and_a_literal_is_said_and_used() {
        let mut meant: HashMap<(&str, Kind), &str> = HashMap::new();
        for op in OPS {
            for phrase in op.phrases {
                assert_eq!(phrase.contains('#'), op.call().contains('#'), "{}: {phrase}", op.name);
                if let Some(other) = meant.insert((phrase, op.from()), op.name) {
                    panic!("`{phrase}` means {other} and {}", op.name);
                }
            }
        }
    }
}
