//! The table of operations: English, TypeScript and Rust semantics side by side.

use crate::operation::{Operation, Semantics::*, TypedValue, ValueType, operation};

/// Every operation of the public corpus; `#` in phrases and code stands for a literal from 2 to 9.
#[rustfmt::skip]
pub static OPERATIONS: &[Operation] = &[
    // Filters of numbers.
    operation("evens", &["keep the even numbers", "keep only the evens"],
        FilterNums("x % 2 === 0", |x, _| x % 2 == 0)),
    operation("odds", &["keep the odd numbers", "keep only the odds"],
        FilterNums("x % 2 !== 0", |x, _| x % 2 != 0)),
    operation("positives", &["keep the positive numbers", "keep the numbers above zero"],
        FilterNums("x > 0", |x, _| x > 0)),
    operation("negatives", &["keep the negative numbers", "keep the numbers below zero"],
        FilterNums("x < 0", |x, _| x < 0)),
    operation("nonzero", &["remove the zeros", "drop every zero"],
        FilterNums("x !== 0", |x, _| x != 0)),
    operation("above", &["keep the numbers greater than #", "keep the numbers above #"],
        FilterNums("x > #", |x, k| x > k)),
    operation("below", &["keep the numbers less than #", "keep the numbers below #"],
        FilterNums("x < #", |x, k| x < k)),
    operation("multiples", &["keep the multiples of #", "keep the numbers divisible by #"],
        FilterNums("x % # === 0", |x, k| x % k == 0)),
    // Maps of numbers.
    operation("doubled", &["double each number", "double them"],
        MapNums("x * 2", |x, _| x * 2)),
    operation("tripled", &["triple each number", "triple them"],
        MapNums("x * 3", |x, _| x * 3)),
    operation("squared", &["square each number", "square them"],
        MapNums("x * x", |x, _| x * x)),
    operation("cubed", &["cube each number", "cube them"],
        MapNums("x * x * x", |x, _| x * x * x)),
    operation("negated", &["negate each number", "negate them"],
        MapNums("-x", |x, _| -x)),
    operation("absolute", &["take absolute values", "take the absolute value of each number"],
        MapNums("Math.abs(x)", |x, _| x.abs())),
    operation("halved", &["halve each number rounding down", "halve them rounding down"],
        MapNums("Math.floor(x / 2)", |x, _| x.div_euclid(2))),
    operation("next", &["add one to each number", "increment each number"],
        MapNums("x + 1", |x, _| x + 1)),
    operation("previous", &["subtract one from each number", "decrement each number"],
        MapNums("x - 1", |x, _| x - 1)),
    operation("plus", &["add # to each number", "increase each number by #"],
        MapNums("x + #", |x, k| x + k)),
    operation("minus", &["subtract # from each number", "decrease each number by #"],
        MapNums("x - #", |x, k| x - k)),
    operation("times", &["multiply each number by #", "scale each number by #"],
        MapNums("x * #", |x, k| x * k)),
    operation("remainders", &["take the remainder by #", "take each number modulo #"],
        MapNums("x % #", |x, k| x % k)),
    // Order and selection of numbers.
    operation("reversed", &["reverse the list", "reverse the order"],
        TransformNums(".toReversed()", |xs, _| xs.reverse())),
    operation("ascending", &["sort the numbers in ascending order", "sort the numbers upwards"],
        TransformNums(".toSorted((a, b) => a - b)", |xs, _| xs.sort())),
    operation("descending", &["sort the numbers in descending order", "sort the numbers downwards"],
        TransformNums(".toSorted((a, b) => b - a)", |xs, _| xs.sort_by(|a, b| b.cmp(a)))),
    operation("first", &["take the first # numbers", "keep the first # numbers"],
        TransformNums(".slice(0, #)", |xs, k| xs.truncate(k as usize))),
    operation("skipped", &["skip the first # numbers", "drop the first # numbers"],
        TransformNums(".slice(#)", |xs, k| drop_first(xs, k as usize))),
    operation("last", &["take the last # numbers", "keep the last # numbers"],
        TransformNums(".slice(-#)", |xs, k| drop_first(xs, xs.len().saturating_sub(k as usize)))),
    operation("rest", &["drop the first number", "skip the first number"],
        TransformNums(".slice(1)", |xs, _| drop_first(xs, 1))),
    operation("front", &["drop the last number", "skip the last number"],
        TransformNums(".slice(0, -1)", |xs, _| { xs.pop(); })),
    operation("unique", &["remove duplicates", "drop the repeated numbers"],
        TransformNums(".filter((x, i, all) => all.indexOf(x) === i)", |xs, _| remove_duplicates(xs))),
    operation("alternate", &["take every other number", "keep every second number"],
        TransformNums(".filter((x, i) => i % 2 === 0)", |xs, _| *xs = xs.iter().step_by(2).copied().collect())),
    operation("repeated", &["repeat each number twice", "write each number twice"],
        TransformNums(".flatMap((x) => [x, x])", |xs, _| *xs = xs.iter().flat_map(|&x| [x, x]).collect())),
    operation("appended", &["append the number #", "add # at the end"],
        TransformNums(".concat(#)", |xs, k| xs.push(k))),
    // Reductions and conversions of numbers.
    operation("sum", &["sum them", "return their sum"],
        FromNums(ValueType::Num, ".reduce((a, b) => a + b, 0)", |xs, _| Some(TypedValue::Num(xs.iter().sum())))),
    operation("product", &["multiply them together", "return their product"],
        FromNums(ValueType::Num, ".reduce((a, b) => a * b, 1)", |xs, _| xs.iter().try_fold(1, |p: i64, &x| p.checked_mul(x)).map(TypedValue::Num))),
    operation("largest", &["find the largest", "return the maximum"],
        FromNums(ValueType::Num, ".reduce((a, b) => Math.max(a, b))", |xs, _| xs.iter().max().copied().map(TypedValue::Num))),
    operation("smallest", &["find the smallest", "return the minimum"],
        FromNums(ValueType::Num, ".reduce((a, b) => Math.min(a, b))", |xs, _| xs.iter().min().copied().map(TypedValue::Num))),
    operation("count", &["count them", "return how many there are"],
        FromNums(ValueType::Num, ".length", |xs, _| Some(TypedValue::Num(xs.len() as i64)))),
    operation("anyNegative", &["tell whether any number is negative", "check if any number is below zero"],
        FromNums(ValueType::Flag, ".some((x) => x < 0)", |xs, _| Some(TypedValue::Flag(xs.iter().any(|&x| x < 0))))),
    operation("allEven", &["tell whether all numbers are even", "check if every number is even"],
        FromNums(ValueType::Flag, ".every((x) => x % 2 === 0)", |xs, _| Some(TypedValue::Flag(xs.iter().all(|x| x % 2 == 0))))),
    operation("contains", &["tell whether # is among them", "check if # is in the list"],
        FromNums(ValueType::Flag, ".includes(#)", |xs, k| Some(TypedValue::Flag(xs.contains(&k))))),
    operation("csv", &["join the numbers with commas", "join them with commas"],
        FromNums(ValueType::Text, ".join(\",\")", |xs, _| Some(TypedValue::Text(join_numbers(xs, ","))))),
    operation("dashed", &["join the numbers with dashes", "join them with dashes"],
        FromNums(ValueType::Text, ".join(\"-\")", |xs, _| Some(TypedValue::Text(join_numbers(xs, "-"))))),
    operation("strings", &["turn each number into a string", "convert each number to text"],
        FromNums(ValueType::Words, ".map((x) => String(x))", |xs, _| Some(TypedValue::Words(xs.iter().map(i64::to_string).collect())))),
    // Filters of words.
    operation("nonEmpty", &["remove the empty words", "drop every empty word"],
        FilterWords("s.length > 0", |s, _| !s.is_empty())),
    operation("longer", &["keep the words longer than #", "keep words with more than # letters"],
        FilterWords("s.length > #", |s, k| s.len() as i64 > k)),
    operation("shorter", &["keep the words shorter than #", "keep words with fewer than # letters"],
        FilterWords("s.length < #", |s, k| (s.len() as i64) < k)),
    operation("startA", &["keep the words that start with a", "keep words starting with a"],
        FilterWords("s.startsWith(\"a\")", |s, _| s.starts_with('a'))),
    operation("withE", &["keep the words that contain e", "keep words containing e"],
        FilterWords("s.includes(\"e\")", |s, _| s.contains('e'))),
    // Maps of words.
    operation("upper", &["turn each word to upper case", "make each word upper case"],
        MapWords("s.toUpperCase()", |s| s.to_uppercase())),
    operation("lower", &["turn each word to lower case", "make each word lower case"],
        MapWords("s.toLowerCase()", |s| s.to_lowercase())),
    operation("trimmed", &["trim each word", "trim them"],
        MapWords("s.trim()", |s| s.trim().to_string())),
    operation("initials", &["take the first letter of each word", "shorten each word to its first letter"],
        MapWords("s.charAt(0)", |s| s.chars().take(1).collect())),
    operation("echoed", &["write each word twice in a row", "repeat each word after itself"],
        MapWords("s + s", |s| s.repeat(2))),
    operation("shouted", &["add an exclamation mark to each word", "end each word with an exclamation mark"],
        MapWords("s + \"!\"", |s| format!("{s}!"))),
    operation("flipped", &["spell each word backwards", "reverse the letters of each word"],
        MapWords("[...s].reverse().join(\"\")", |s| s.chars().rev().collect())),
    // Order and selection of words.
    operation("backwards", &["reverse the words", "reverse the order of the words"],
        TransformWords(".toReversed()", |ws, _| ws.reverse())),
    operation("sorted", &["sort the words", "sort them alphabetically"],
        TransformWords(".toSorted()", |ws, _| ws.sort())),
    operation("leading", &["take the first # words", "keep the first # words"],
        TransformWords(".slice(0, #)", |ws, k| ws.truncate(k as usize))),
    operation("later", &["skip the first # words", "drop the first # words"],
        TransformWords(".slice(#)", |ws, k| drop_first(ws, k as usize))),
    operation("tail", &["drop the first word", "skip the first word"],
        TransformWords(".slice(1)", |ws, _| drop_first(ws, 1))),
    operation("distinct", &["remove duplicate words", "drop the repeated words"],
        TransformWords(".filter((s, i, all) => all.indexOf(s) === i)", |ws, _| remove_duplicates(ws))),
    // Reductions and conversions of words.
    operation("lengths", &["take the length of each word", "replace each word by its length"],
        FromWords(ValueType::Nums, ".map((s) => s.length)", |ws| TypedValue::Nums(ws.iter().map(|s| s.len() as i64).collect()))),
    operation("total", &["count the words", "return the number of words"],
        FromWords(ValueType::Num, ".length", |ws| TypedValue::Num(ws.len() as i64))),
    operation("anyEmpty", &["tell whether any word is empty", "check if some word is empty"],
        FromWords(ValueType::Flag, ".some((s) => s.length === 0)", |ws| TypedValue::Flag(ws.iter().any(String::is_empty)))),
    operation("phrase", &["join the words with spaces", "join them with spaces"],
        FromWords(ValueType::Text, ".join(\" \")", |ws| TypedValue::Text(ws.join(" ")))),
    operation("listing", &["join the words with commas", "write the words with commas between"],
        FromWords(ValueType::Text, ".join(\",\")", |ws| TypedValue::Text(ws.join(",")))),
    operation("glued", &["join the words without spaces", "glue the words together"],
        FromWords(ValueType::Text, ".join(\"\")", |ws| TypedValue::Text(ws.concat()))),
    // Texts.
    operation("words", &["split the text into words", "split the text at spaces"],
        FromText(ValueType::Words, ".split(\" \")", |s| split(s, ' '))),
    operation("fields", &["split the text at commas", "take the fields between commas"],
        FromText(ValueType::Words, ".split(\",\")", |s| split(s, ','))),
    operation("capitals", &["turn the text to upper case", "make the text upper case"],
        FromText(ValueType::Text, ".toUpperCase()", |s| TypedValue::Text(s.to_uppercase()))),
    operation("small", &["turn the text to lower case", "make the text lower case"],
        FromText(ValueType::Text, ".toLowerCase()", |s| TypedValue::Text(s.to_lowercase()))),
    operation("stripped", &["trim the text", "strip the spaces around the text"],
        FromText(ValueType::Text, ".trim()", |s| TypedValue::Text(s.trim().to_string()))),
    operation("size", &["return the length of the text", "count the characters"],
        FromText(ValueType::Num, ".length", |s| TypedValue::Num(s.len() as i64))),
];

fn drop_first<T>(items: &mut Vec<T>, n: usize) {
    items.drain(..n.min(items.len()));
}

/// Keeps the first occurrence of each item.
pub fn remove_duplicates<T: PartialEq + Clone>(items: &mut Vec<T>) {
    let mut kept: Vec<T> = Vec::new();
    for item in items.drain(..) {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    *items = kept;
}

/// Joins numbers with `separator` between them.
pub fn join_numbers(xs: &[i64], separator: &str) -> String {
    xs.iter().map(i64::to_string).collect::<Vec<_>>().join(separator)
}

fn split(text: &str, separator: char) -> TypedValue {
    TypedValue::Words(text.split(separator).map(str::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_phrase_means_one_operation_and_a_literal_is_said_and_used() {
        let mut meanings: HashMap<(&str, ValueType), &str> = HashMap::new();
        for operation in OPERATIONS {
            for phrase in operation.phrases {
                assert_eq!(
                    phrase.contains('#'),
                    operation.call().contains('#'),
                    "{}: {phrase}",
                    operation.name
                );
                if let Some(other) = meanings.insert((phrase, operation.from()), operation.name) {
                    panic!("`{phrase}` means {other} and {}", operation.name);
                }
            }
        }
    }
}
