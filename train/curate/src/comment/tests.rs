use super::*;

fn typescript(comment: &str) -> DocComment {
    DocComment::parse(comment, Language::TypeScript)
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
fn links_and_code_spans_leave_no_hole_in_a_sentence() {
    for (comment, expected) in [
        (
            "Uses a token as acquired from https://t.me/BotFather for calls.",
            "Uses a token as acquired from https://t.me/BotFather for calls.",
        ),
        ("As defined by {@link https://a.b/c} alone.", "As defined by https://a.b/c alone."),
        ("See {@link https://a.b/c | the guide} first.", "See the guide first."),
        ("See {@link Foo.bar} and {@linkcode Baz}.", "See `Foo.bar` and `Baz`."),
        ("See {@link Foo|the foo}, {@linkplain Bar the bar}.", "See the foo, the bar."),
        ("See [the foo]{@link Foo} now.", "See the foo now."),
        ("{@inheritDoc}\n * Adds {@inheritDoc Base.add}.", "Adds `Base.add`."),
        ("Reads [`a[0]`](https://a.b/c_(d)) and [b [c]](d).", "Reads `a[0]` and b [c]."),
        ("Shows ![a chart](a.png) of <https://a.b/c>.", "Shows a chart of https://a.b/c."),
        ("Ask <https://a.b/c> for it.", "Ask https://a.b/c for it."),
        (
            "Keeps `a ** b`, `<b>`, `{@link X}`, ``a`b`` and `http://x/y  z` as code.",
            "Keeps `a ** b`, `<b>`, `{@link X}`, ``a`b`` and `http://x/y  z` as code.",
        ),
        ("A lone ` tick and a `span`.", "A lone ` tick and a `span`."),
        ("Joins.\n *\n * https://a.b/c", "Joins."),
    ] {
        assert_eq!(typescript(&format!("/**\n * {comment}\n */")).description, expected);
    }
    let returns =
        typescript("/** Adds.\n * @returns {number} the sum of {@link Term | terms} by https://a.b */")
            .returns;
    assert_eq!(returns, "the sum of terms by https://a.b");
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
    assert_eq!(typescript("// @ts-expect-error hard to type"), DocComment::default());
}

#[test]
fn unclosed_markup_is_kept_as_it_is() {
    assert_eq!(typescript("/** a {@link b */").description, "a {@link b");
    assert_eq!(typescript("/** a [b](c */").description, "a [b](c");
    assert_eq!(typescript("/** @returns {x */").returns, "x");
}

/// Description, parameters, result, errors.
fn parts(doc: &DocComment) -> (&str, Vec<(&str, &str)>, &str, Vec<&str>) {
    let params = doc.params.iter().map(|(name, meaning)| (name.as_str(), meaning.as_str())).collect();
    (&doc.description, params, &doc.returns, doc.throws.iter().map(String::as_str).collect())
}

#[test]
fn javadoc_loses_its_html_and_keeps_its_code() {
    let doc = DocComment::parse(
        "/**\n * Joins <b>all</b> parts, {@code List<T> a} and &lt;T&gt;.\n * <p>Lists:\n * <ul><li>one</li>\n * <li>two</ul>\n *\n \
         * @param parts the parts\n * @return the whole\n * @throws IOException if it fails\n * @since 1.2\n */",
        Language::Java,
    );
    let description = "Joins all parts, `List<T> a` and <T>.\n\nLists:\n- one\n- two";
    assert_eq!(
        parts(&doc),
        (description, vec![("parts", "the parts")], "the whole", vec!["IOException if it fails"])
    );
    assert!(DocComment::parse("/** Gone. @since 1\n * @deprecated use other */", Language::Java).deprecated);
}

#[test]
fn doxygen_has_two_markers_for_a_tag() {
    let expected = (
        "Adds two.\n\nNever wraps.",
        vec![("a", "the first"), ("T", "a number")],
        "the sum",
        vec!["E when large"],
    );
    let lines = "/// \\brief Adds two.\n///\n/// \\param[in] a the first\n/// \\tparam T a number\n/// \\return the sum\n\
                 /// \\throws E when large\n/// \\details Never wraps.";
    assert_eq!(parts(&DocComment::parse(lines, Language::Cpp)), expected);
    let block = "/*!\n * @brief Adds two.\n * @param[in,out] a the first\n * @tparam T a number\n * @return the sum\n \
                 * @throw E when large\n * @details Never wraps.\n */";
    assert_eq!(parts(&DocComment::parse(block, Language::Cpp)), expected);
    assert_eq!(
        DocComment::parse("//! See \\c Stack of \\p n.", Language::Cpp).description,
        "See Stack of n."
    );
}

#[test]
fn rustdoc_is_read_by_its_headings() {
    let doc = DocComment::parse(
        "/// Joins [`Vec`]s, see [the list][list] and [the book](https://a.b).\n///\n/// # Arguments\n///\n/// * `a` - The first,\n\
         ///   of two\n/// * `b`: the second\n///\n/// # Returns\n/// The whole.\n///\n/// # Errors\n///\n/// If it is long.\n///\n\
         /// # Panics\n/// If it is empty.\n///\n/// # Examples\n///\n/// ```\n/// # use a;\n/// join(1);\n/// ```\n///\n/// # Safety\n/// None.\n\
         ///\n/// [list]: crate::list",
        Language::Rust,
    );
    let params = vec![("a", "The first, of two"), ("b", "the second")];
    let description = "Joins `Vec`s, see the list and the book.\n\nNone.";
    assert_eq!(parts(&doc), (description, params, "The whole.", vec!["If it is long.", "If it is empty."]));
}

#[test]
fn docstrings_have_three_conventions() {
    let params = vec![("a", "the first, of two"), ("b", "the second")];
    let expected = ("Adds two.\n\nNever `wraps`.", params, "the sum", vec!["ValueError: when large"]);
    let google = "\"\"\"Adds two.\n\n    Never :func:`wraps`.\n\n    Args:\n        a (int): the first,\n            of two\n        b: the second\n\n    \
                  Returns:\n        int: the sum\n\n    Raises:\n        ValueError: when large\n\n    Example:\n        >>> add(1, 2)\n        3\n    \"\"\"";
    let numpy = "r'''Adds two.\n\n    Never ``wraps``.\n\n    Parameters\n    ----------\n    a : int\n        the first,\n        of two\n    b : int, optional\n        \
                 the second\n\n    Returns\n    -------\n    int\n        the sum\n\n    Raises\n    ------\n    ValueError\n        when large\n\n    \
                 Notes\n    -----\n    None.\n    '''";
    let rest = "\"\"\"\n    Adds two.\n\n    Never ``wraps``.\n\n    :param int a: the first,\n        of two\n    :type a: int\n    :param b: the second\n\n    \
                :returns: the sum\n    :rtype: int\n    :raises ValueError: when large\n    \"\"\"";
    for docstring in [google, numpy, rest] {
        assert_eq!(parts(&DocComment::parse(docstring, Language::Python)), expected, "{docstring}");
    }
    let doctest = "\"\"\" Adds.\nMore of it.\n>>> add(1, 2)\n3\n\nThe end.\"\"\"";
    assert_eq!(DocComment::parse(doctest, Language::Python).description, "Adds. More of it.\n\nThe end.");
    assert_eq!(DocComment::parse("# noqa: E501\n# Adds\n# two.", Language::Python).description, "Adds two.");
    assert!(DocComment::parse("\"\"\"Adds.\n\n.. deprecated:: 1.2\n\"\"\"", Language::Python).deprecated);
}
