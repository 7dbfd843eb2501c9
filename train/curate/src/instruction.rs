//! The instruction of an item: its signature, description, parameters, result and errors.

use crate::comment::DocComment;
use crate::extract::Item;
use crate::language::Language;
use crate::row::ItemKind;

/// Longer signatures are replaced by the name: they would reveal too much of the answer.
const MAX_SIGNATURE_CHARS: usize = 300;

/// The instruction to write an item: `Write the TypeScript …`, then its specification.
pub fn instruction(item: &Item, doc: &DocComment) -> String {
    let text = format!("Write the {}.\n\n{}", heading_with_language(item), specification(doc, item.language));
    text.trim_end().to_string()
}

/// The description, then the documented parameters, result and errors, separated by empty lines.
pub fn specification(doc: &DocComment, language: Language) -> String {
    let raises = language.table().raises;
    let mut parts = vec![doc.description.clone()];
    if !doc.params.is_empty() {
        let params = doc.params.iter().map(|(name, meaning)| format!("\n- `{name}`: {meaning}"));
        parts.push(format!("Parameters:{}", params.collect::<String>()));
    }
    if !doc.returns.is_empty() {
        parts.push(format!("Returns: {}", doc.returns));
    }
    parts.extend(doc.throws.iter().map(|error| format!("{raises}: {error}")));
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

/// `TypeScript function `f(a: A): R``, `method `m()` of the TypeScript class `C``.
fn heading_with_language(item: &Item) -> String {
    let signature = heading(item);
    let (language, owner) = (item.language.table().name, item.language.table().owner);
    match (item.kind, item.name.split_once('.')) {
        (ItemKind::Method, Some((class, _))) => {
            format!("{} `{signature}` of the {language} {owner} `{class}`", item.noun)
        }
        _ => format!("{language} {} `{signature}`", item.noun),
    }
}

/// The signature, or the own name if the signature is too long.
pub fn heading(item: &Item) -> &str {
    match item.signature.chars().count() > MAX_SIGNATURE_CHARS {
        true => item.name.rsplit('.').next().unwrap_or(&item.name),
        false => &item.signature,
    }
}

/// The parts of its file that an item uses: imports, and signatures of the items that it calls. `None` if it uses
/// nothing.
pub fn file_context(item: &Item) -> Option<String> {
    let fence = |lines: &[String]| format!("```{}\n{}\n```", item.language.name(), lines.join("\n"));
    let part =
        |what: &str, lines: &[String]| (!lines.is_empty()).then(|| format!("{what}\n{}", fence(lines)));
    let parts = [part("Its file imports:", &item.imports), part("Its file also has:", &item.uses)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: ItemKind, name: &str, signature: &str, noun: &str) -> Item {
        let (name, signature, noun) = (name.into(), signature.into(), noun.into());
        let language = Language::TypeScript;
        Item {
            language,
            kind,
            name,
            signature,
            noun,
            comment: String::new(),
            code: String::new(),
            broken: false,
            too_deep: false,
            commented: 0,
            lines: (1, 1),
            bytes: 0..0,
            imports: Vec::new(),
            uses: Vec::new(),
        }
    }

    #[test]
    fn an_instruction_holds_the_signature_and_the_documentation() {
        let doc = DocComment::parse(
            "/** Adds.\n@param a the first\n@param b the second\n@returns the sum\n@throws never */",
            Language::TypeScript,
        );
        assert_eq!(
            instruction(&item(ItemKind::Function, "add", "add(a, b)", "function"), &doc),
            "Write the TypeScript function `add(a, b)`.\n\nAdds.\n\nParameters:\n- `a`: the first\n- `b`: the second\n\n\
             Returns: the sum\n\nThrows: never"
        );
    }

    #[test]
    fn the_context_is_imports_and_called_signatures() {
        let alone = item(ItemKind::Function, "f", "f()", "function");
        assert_eq!(file_context(&alone), None);
        let uses = vec!["g(a: A): B".to_string(), "h(): A".to_string()];
        let calling = Item { uses, imports: vec!["import { A } from './a';".into()], ..alone };
        assert_eq!(
            file_context(&calling).unwrap(),
            "Its file imports:\n```typescript\nimport { A } from './a';\n```\n\nIts file also has:\n```typescript\ng(a: A): B\nh(): A\n```"
        );
    }

    #[test]
    fn a_method_names_its_class_and_a_long_signature_is_replaced_by_the_name() {
        let method = item(ItemKind::Method, "Heap.push", "push(x: T): void", "static method");
        let text = instruction(&method, &DocComment::default());
        assert_eq!(text, "Write the static method `push(x: T): void` of the TypeScript class `Heap`.");
        let long = item(ItemKind::Function, "f", &"x".repeat(301), "function");
        assert_eq!(instruction(&long, &DocComment::default()), "Write the TypeScript function `f`.");
    }
}
