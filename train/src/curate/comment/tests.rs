use super::*;

fn typescript(comment: &str) -> Doc {
    Doc::parse(comment, Language::TypeScript)
}

#[test]
fn jsdoc_becomes_prose() {
    let doc = typescript(
        "/**\n * Adds **two** numbers, see {@link\n * subtract} and\n * [the docs](https://a.b/c).\n *\n * - first\n * - second\n *\n \
         * Example:\n * ```ts\n * @decorated\n * add(1, 2);\n * ```\n * @param {number} a - The first\n *   number\n *\n * See below.\n \
         * @param [b=1] the second\n * @param c\n * @returns {Map<string, {x: number}>} The sum\n * @throws {RangeError} when negative\n \
         * @example add(1, 2)\n * @since 2.0\n */",
    );
    assert_eq!(doc.description, "Adds two numbers, see `subtract` and the docs.\n- first\n- second");
    let params = [("a", "The first number"), ("b", "the second")];
    assert_eq!(doc.params, params.map(|(a, b)| (a.to_string(), b.to_string())));
    assert_eq!(
        (doc.returns.as_str(), doc.throws.as_slice()),
        ("The sum", &["when negative".to_string()][..])
    );
    assert!(!doc.deprecated);
}

#[test]
fn tagged_descriptions_count_and_a_repeated_summary_does_not() {
    let doc = typescript(
        "/**\n * @name f\n * @summary Add days.\n *\n * @description\n * Add days.\n * @deprecated\n */",
    );
    assert_eq!((doc.description.as_str(), doc.deprecated), ("Add days.", true));
    let doc = typescript("/** @summary Add days. */");
    assert_eq!(doc.description, "Add days.");
}

#[test]
fn line_comments_lose_their_slashes_and_directives() {
    let doc = typescript("// eslint-disable-next-line no-x\n// Joins the parts\n// of a path.");
    assert_eq!(doc.description, "Joins the parts of a path.");
    assert_eq!(typescript("// @ts-expect-error hard to type"), Doc::default());
}

#[test]
fn unclosed_markup_is_kept_as_it_is() {
    assert_eq!(typescript("/** a {@link b */").description, "a {@link b");
    assert_eq!(typescript("/** a [b](c */").description, "a [b](c");
    assert_eq!(typescript("/** @returns {x */").returns, "x");
}
