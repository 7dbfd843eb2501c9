//! Ollama's Modelfile, beside the GGUF file that it names.

use crate::chat_template::ChatTemplate;
use crate::config::ModelConfig;
use crate::end_tokens::end_tokens;
use crate::tokenizer::Tokenizer;
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// First line of the files that are replaced.
const MARK: &str = "# Written by codelsi export.";

/// Forms of a conversation by a part of their Jinja source, in Ollama's language.
const FORMS: [(&str, &str); 3] = [
    (
        "<|im_start|>",
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{ if .Prompt }}<|im_start|>user\n\
         {{ .Prompt }}<|im_end|>\n{{ end }}<|im_start|>assistant\n{{ .Response }}<|im_end|>\n",
    ),
    (
        "<|start_header_id|>",
        "{{ if .System }}<|start_header_id|>system<|end_header_id|>\n\n{{ .System }}<|eot_id|>{{ end }}{{ if .Prompt }}\
         <|start_header_id|>user<|end_header_id|>\n\n{{ .Prompt }}<|eot_id|>{{ end }}<|start_header_id|>assistant\
         <|end_header_id|>\n\n{{ .Response }}<|eot_id|>",
    ),
    (
        "[INST]",
        "[INST] {{ if .System }}<<SYS>>\n{{ .System }}\n<</SYS>>\n\n{{ end }}{{ .Prompt }} [/INST]{{ .Response }}",
    ),
];

/// The Modelfile beside a GGUF file, which may be written.
///
/// # Errors
/// When there is one that is not ours.
pub fn check_modelfile(gguf: &Path) -> Result<PathBuf> {
    let path = gguf.with_file_name("Modelfile");
    match fs::read(&path) {
        Ok(text) if !text.starts_with(MARK.as_bytes()) => {
            Err(Error::io(path, "is not of this program and is not overwritten; give another folder"))
        }
        _ => Ok(path),
    }
}

/// Writes the Modelfile of a model: its file, its form of prompts as far as the checkpoint says, and its end tokens.
///
/// # Errors
/// When the checkpoint's tokenizer or template cannot be read, or the file cannot be written.
pub fn write_modelfile(gguf: &Path, model: &Path, config: &ModelConfig) -> Result<PathBuf> {
    let tokenizer = Tokenizer::load(model)?;
    let chat = ChatTemplate::load(model)?;
    let form = chat.iter().find_map(|chat| FORMS.iter().find(|(part, _)| chat.source().contains(part)));
    let prompt = form.map_or("{{ .Prompt }}", |(_, form)| form);
    let mut text = format!("{MARK} ollama create NAME -f Modelfile\nFROM ./{}\n", file_name(gguf)?);
    let infill =
        tokenizer.infill_tokens().map(|t| [t.prefix, t.suffix, t.middle].map(|id| tokenizer.piece(id)));
    let prompt = match infill {
        Some([Some(prefix), Some(suffix), Some(middle)]) => format!(
            "{{{{ if .Suffix }}}}{prefix}{{{{ .Prompt }}}}{suffix}{{{{ .Suffix }}}}{middle}{{{{ else }}}}{prompt}{{{{ end }}}}"
        ),
        _ => prompt.to_string(),
    };
    writeln!(text, "TEMPLATE \"\"\"{prompt}\"\"\"").expect("a string takes any text");
    let mut ends = end_tokens(config, Some(&tokenizer));
    ends.extend(tokenizer.infill_tokens().map(|tokens| tokens.end).filter(|end| !ends.contains(end)));
    for id in ends {
        if let Some(piece) = tokenizer.control_token(id).filter(|piece| !piece.contains(['"', '\n'])) {
            writeln!(text, "PARAMETER stop \"{piece}\"").expect("a string takes any text");
        }
    }
    write(gguf, &text)
}

/// Writes the Modelfile of an adapter alone, whose base is a file `base`.gguf beside it.
///
/// # Errors
/// When it cannot be written.
pub fn write_adapter_modelfile(gguf: &Path, base: &Path) -> Result<PathBuf> {
    let base = base.file_name().map_or("base".into(), |name| name.to_string_lossy());
    let text = format!(
        "{MARK} ollama create NAME -f Modelfile\n# FROM is the base: codelsi export --gguf {base}.gguf --model \
         {base}\nFROM ./{base}.gguf\nADAPTER ./{}\n",
        file_name(gguf)?
    );
    write(gguf, &text)
}

fn write(gguf: &Path, text: &str) -> Result<PathBuf> {
    let path = check_modelfile(gguf)?;
    write_atomic(&path, text.as_bytes())?;
    Ok(path)
}

fn file_name(gguf: &Path) -> Result<String> {
    let name = gguf.file_name().ok_or_else(|| Error::io(gguf, "names no file to write"))?;
    Ok(name.to_string_lossy().into_owned())
}
