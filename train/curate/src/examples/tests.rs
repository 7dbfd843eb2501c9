use super::*;

/// The assertions of the examples of `f` in a comment of these lines.
fn assertions(lines: &str) -> Vec<String> {
    let comment = format!("/**\n * {}\n */", lines.replace('\n', "\n * "));
    CommentExamples::read(&comment, "f", false).examples.iter().map(Example::assertion).collect()
}

#[test]
fn every_form_of_an_example_is_read() {
    for form in [
        "@example f([1], 'a') // 2",
        "@example\nf([1], 'a'); // => 2",
        "@example <caption>A list</caption> f([1], 'a') // 2",
        "```ts\nf([1], 'a')\n// returns 2\n```",
        "```\nf([1], 'a') /* 2 */\n```",
        "~~~\nconsole.log(f([1], 'a')); // -> 2\n~~~",
        "@example\nconst n = f([1], 'a'); // n === 2\nf([1], 'a') === 2",
        "@example\nf([1], 'a') === 2; // true",
        "@example\nf([1], 'a') => 2",
        "@example\nf([1], 'a') returns 2",
        "@example\n>> f([1], 'a')\n2",
        "@example\n> f([1], 'a')\n// returns 2",
        "@example\nassert.deepEqual(f([1], 'a'), 2);",
        "```ts\nassert.strictEqual(\n  f([1], 'a'),\n  2,\n);\n```",
        "```ts\ntest('it', () => {\n  expect(f([1], 'a')).toBe(2);\n});\n```",
        ">>> f([1], 'a')\n2",
        "- `f([1], 'a')` → `2`.",
        "f([1], 'a') // => 2",
    ] {
        assert_eq!(assertions(form), ["assert.deepEqual(f([1], 'a'), 2);"], "{form}");
    }
    assert_eq!(assertions("@example await f(1) // 'b'"), ["assert.deepEqual(await f(1), 'b');"]);
    assert_eq!(
        assertions("@example\nf(1)\n// => [\n//   { a: 'x' },\n//   -2,\n// ]\nf(')') === \"(\""),
        ["assert.deepEqual(f(1), [ { a: 'x' }, -2, ]);", "assert.deepEqual(f(')'), \"(\");"]
    );
}

#[test]
fn constants_of_the_code_stand_for_their_values() {
    let made = assertions(
        "@example\nconst xs = [1, 2];\nconst o = { a: xs };\nconst s = f(xs, x => [...xs, x]);\n// => 3",
    );
    assert_eq!(made, ["assert.deepEqual(f([1, 2], x => [...([1, 2]), x]), 3);"]);
    for changed in ["xs.push(3);", "xs[0] = 3;", "const xs = [2];"] {
        let made = assertions(&format!("@example\nconst xs = [1];\n{changed}\nf(xs); // 3\nf([4]); // 4"));
        assert_eq!(made, ["assert.deepEqual(f([4]), 4);"], "{changed}");
    }
}

#[test]
fn what_is_no_example_is_not_read() {
    for none in [
        "Like f(1) => 2 in the middle of a line.",
        "f(1) // 2",
        "f(1)",
        "f(1) is 2",
        "@example\nf(1) === f(2) // false",
        "@example\nf(1) === 2 // false",
        "@example\nf(x) === 2",
        "@example\nf(1) // [1, ...]",
        "@example\nassert.equal(g(1), 2)",
        "@example\nexpect(f(1)).not.toBe(2)",
        "@example\nexpect(f(1)).toThrow()",
        "@param a\n>> f(1)\n2",
        "@example\nf((1",
    ] {
        assert_eq!(assertions(none), [""; 0], "{none}");
    }
    let listing = format!("@example\n{}f(1) // 2", "f(0)\n".repeat(MAX_BLOCK / 5));
    assert_eq!(assertions(&listing), [""; 0]);
}

#[test]
fn a_call_without_a_readable_value_is_known() {
    let calls = |text: &str| CommentExamples::read(text, "f", false).calls;
    assert!(calls("/**\n * @example f(1) // something\n */"));
    assert!(!calls("/** Calls f(1). */") && !calls("/**\n * @example g(1) // 2\n */"));
}

#[test]
fn examples_are_taken_out_with_what_stands_around_them() {
    let comment = "/**\n * Adds.\n *\n * @param a a number\n * @example f(1) // 2\n * @example\n * ```ts\n * f(2) // 3\n * \
                   ```\n * @returns it\n * @example\n * f(3) // 4\n * f(4) // 5\n */";
    let read = CommentExamples::read(comment, "f", false);
    assert_eq!(read.examples.len(), 4);
    let without = |held_back: &[usize]| {
        let held_back: Vec<Example> = held_back.iter().map(|&i| read.examples[i].clone()).collect();
        read.lines_without(&held_back).join("\n").trim().to_string()
    };
    let head = "Adds.\n\n@param a a number";
    assert_eq!(without(&[1, 2]), format!("{head}\n@example f(1) // 2\n@returns it\n@example\nf(4) // 5"));
    assert_eq!(without(&[0, 1, 2, 3]), format!("{head}\n@returns it"));
}
