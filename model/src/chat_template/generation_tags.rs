//! `{% generation %}`, with which templates mark the assistant's text for transformers: a block that changes nothing.

/// Replaces the tags `generation` and `endgeneration` by those of a block without variables, `with` and `endwith`.
/// Text, expressions, comments and raw blocks stay as they are, and so do the marks of whitespace control.
pub(super) fn pass_through(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        let (text, tag) = rest.split_at(start);
        out.push_str(text);
        let length = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map_or(tag.len(), |end| end + 2),
            Some(b'{') => end_of(tag, "}}"),
            Some(b'%') => end_of(tag, "%}"),
            _ => 1,
        };
        let (tag, after) = tag.split_at(length);
        let body = tag.trim_start_matches(['{', '%', '-', '+']).trim_end_matches(['}', '%', '-', '+']);
        let is_block = tag.starts_with("{%") && tag.ends_with("%}");
        rest = after;
        match body.trim() {
            "generation" if is_block => out.push_str(&tag.replacen("generation", "with", 1)),
            "endgeneration" if is_block => {
                out.push_str(&tag.replacen("endgeneration", "endwith", 1));
            }
            "raw" if is_block => {
                let end = end_of_raw(after);
                out.push_str(tag);
                out.push_str(&after[..end]);
                rest = &after[end..];
            }
            _ => out.push_str(tag),
        }
    }
    out + rest
}

/// Returns the length of a tag up to and with `close`, which does not count within strings and brackets.
fn end_of(tag: &str, close: &str) -> usize {
    let (mut quote, mut depth) = (None, 0usize);
    let mut chars = tag.char_indices().skip(2);
    while let Some((i, c)) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, _) if depth == 0 && tag[i..].starts_with(close) => return i + close.len(),
            (None, '{' | '[' | '(') => depth += 1,
            (None, '}' | ']' | ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    tag.len()
}

/// Returns the offset of the tag `endraw`.
fn end_of_raw(text: &str) -> usize {
    let tags = text.match_indices("{%").map(|(start, _)| start);
    let is_end =
        |start: &usize| text[start + 2..].trim_start_matches(['-', '+']).trim_start().starts_with("endraw");
    tags.into_iter().find(is_end).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tags_are_replaced() {
        for (source, expected) in [
            ("a{% generation %}b{% endgeneration %}c", "a{% with %}b{% endwith %}c"),
            ("{%- generation -%}b{%+ endgeneration +%}", "{%- with -%}b{%+ endwith +%}"),
            ("{%generation%}{%-endgeneration-%}", "{%with%}{%-endwith-%}"),
            ("generation {generation} {{ 'generation' }}", "generation {generation} {{ 'generation' }}"),
            ("{{ '{% generation %}' }}{% generation %}", "{{ '{% generation %}' }}{% with %}"),
            ("{{ {'a': {'b': '}}'}} }}{% generation %}", "{{ {'a': {'b': '}}'}} }}{% with %}"),
            ("{# {% generation %} #}", "{# {% generation %} #}"),
            (
                "{% raw %}{% generation %}{%- endraw %}{% generation %}",
                "{% raw %}{% generation %}{%- endraw %}{% with %}",
            ),
            (
                "{% set generation = '%}' %}{% if generation %}",
                "{% set generation = '%}' %}{% if generation %}",
            ),
            ("{{ 'it\\'s {%' }}é{% generation %}", "{{ 'it\\'s {%' }}é{% with %}"),
            ("{% generation", "{% generation"),
        ] {
            assert_eq!(pass_through(source), expected, "{source}");
        }
    }
}
