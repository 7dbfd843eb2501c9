//! Help texts in lines that fit a terminal of 80 columns: without its dependency on the terminal's size, clap breaks none.

use clap::{Arg, Command};

/// Columns of a text that begins below its flag, at clap's indent.
const WIDTH: usize = 70;

/// Puts each text below its flag, in lines that fit.
pub fn wrap_help(command: Command) -> Command {
    command.mut_subcommands(|command| command.next_line_help(true).mut_args(wrap_arg))
}

fn wrap_arg(arg: Arg) -> Arg {
    match arg.get_help().map(|text| wrap(&text.to_string(), annotation(&arg))) {
        Some(text) => arg.help(text),
        None => arg,
    }
}

/// Columns of the default and the values that clap adds to the last line.
fn annotation(arg: &Arg) -> usize {
    if !arg.get_action().takes_values() {
        return 0;
    }
    let columns = |title: &str, values: Vec<String>| match values.is_empty() {
        true => 0,
        false => format!(" [{title}: {}]", values.join(", ")).len(),
    };
    let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned());
    let values = arg.get_possible_values().into_iter().map(|value| value.get_name().to_owned());
    let defaults = if arg.is_hide_default_value_set() { 0 } else { columns("default", defaults.collect()) };
    defaults + columns("possible values", values.collect())
}

/// Breaks `text` into lines, the last with room for `annotation` more columns.
fn wrap(text: &str, annotation: usize) -> String {
    let (mut lines, mut column) = (String::new(), 0);
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let width = word.chars().count() + if words.peek().is_none() { annotation } else { 0 };
        if column > 0 {
            let fits = column + 1 + width <= WIDTH;
            lines.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        lines += word;
        column += width;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_words_and_leave_room_for_the_default() {
        let text = ["word"; 14].join(" ");
        assert_eq!(wrap(&text, 0), text, "69 columns are one line");
        assert_eq!(wrap(&text, 5), [&["word"; 13].join(" "), "word"].join("\n"));
        assert_eq!(wrap("", 0), "");
    }
}
