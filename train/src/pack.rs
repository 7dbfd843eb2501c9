//! Rows to token documents with a loss mask, and documents to packed sequences.

use crate::data::{Example, ORDER, permutation};
use codelsi_engine::Result;
use codelsi_engine::rng::Key;
use codelsi_model::template::Template;
use codelsi_model::tokenizer::Tokenizer;
use rayon::prelude::*;

/// The label of a position that has no loss.
pub const IGNORED: i32 = -100;

/// One row as tokens: `<s> prompt output </s>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub tokens: Vec<u32>,
    /// For each token the one to predict after it, or [`IGNORED`]: only the output and `</s>` are predicted.
    pub targets: Vec<i32>,
}

impl Document {
    /// Positions that carry loss.
    pub fn labelled(&self) -> usize {
        labelled(&self.targets)
    }
}

fn labelled(targets: &[i32]) -> usize {
    targets.iter().filter(|&&target| target != IGNORED).count()
}

/// Turns rows into documents.
pub struct Encoder<'a> {
    pub tokenizer: &'a Tokenizer,
    pub template: Template,
    /// The longest document, in tokens.
    pub seq: usize,
}

/// The documents of a data set and what did not fit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Documents {
    pub documents: Vec<Document>,
    /// Documents cut at `seq` tokens; they end without `</s>`.
    pub truncated: usize,
    /// Rows whose prompt alone fills `seq` tokens, so that nothing is left to learn.
    pub dropped: usize,
}

impl Encoder<'_> {
    /// Encodes every row, in order, in parallel.
    pub fn documents(&self, rows: &[Example]) -> Result<Documents> {
        let encoded: Vec<Document> = rows.par_iter().map(|row| self.document(row)).collect::<Result<_>>()?;
        let mut all = Documents::default();
        for mut document in encoded {
            if document.tokens.len() > self.seq {
                document.tokens.truncate(self.seq);
                document.targets.truncate(self.seq);
                if document.labelled() == 0 {
                    all.dropped += 1;
                    continue;
                }
                all.truncated += 1;
            }
            all.documents.push(document);
        }
        Ok(all)
    }

    /// Encodes one row at full length. The prompt's tokens are those that generation starts from, and the output
    /// goes on from them without the space that the tokenizer puts before a text of its own.
    pub fn document(&self, row: &Example) -> Result<Document> {
        let mut tokens = self.tokenizer.encode(&self.template.wrap(&row.instruction), true)?;
        let prompt = tokens.len();
        tokens.extend(self.tokenizer.encode_continuation(&row.output)?);
        tokens.extend(self.tokenizer.eos());
        let mut targets: Vec<i32> = tokens.iter().skip(1).map(|&t| t as i32).collect();
        targets.push(IGNORED);
        targets[..prompt.saturating_sub(1)].fill(IGNORED);
        Ok(Document { tokens, targets })
    }
}

/// Documents side by side, none of which sees another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// (T)
    pub tokens: Vec<u32>,
    /// (T) See [`Document::targets`].
    pub targets: Vec<i32>,
    /// (documents) The tokens of each; positions restart with it.
    pub lengths: Vec<usize>,
}

impl Sequence {
    /// Lays documents side by side.
    pub fn of<'d>(documents: impl IntoIterator<Item = &'d Document>) -> Sequence {
        let mut all = Sequence { tokens: Vec::new(), targets: Vec::new(), lengths: Vec::new() };
        for document in documents {
            all.tokens.extend(&document.tokens);
            all.targets.extend(&document.targets);
            all.lengths.push(document.tokens.len());
        }
        all
    }

    /// Positions that carry loss.
    pub fn labelled(&self) -> usize {
        labelled(&self.targets)
    }
}

/// One epoch's sequences, as lists of document indices; made from (seed, epoch), so a cursor restores it.
///
/// Shuffles the documents and packs them first-fit: each goes into the first sequence, in order of opening, that
/// has room for it. No document is split; a sequence has at most `seq` tokens.
pub fn pack(documents: &[Document], seq: usize, seed: u64, epoch: u32) -> Vec<Vec<usize>> {
    let mut sequences: Vec<Vec<usize>> = Vec::new();
    let mut room: Vec<usize> = Vec::new();
    for index in permutation(documents.len(), Key { seed, step: epoch, site: ORDER }) {
        let length = documents[index].tokens.len();
        match room.iter().position(|&free| free >= length) {
            Some(at) => {
                room[at] -= length;
                sequences[at].push(index);
            }
            None => {
                room.push(seq.saturating_sub(length));
                sequences.push(vec![index]);
            }
        }
    }
    sequences
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spells by character and, as Llama's, starts a text with a space of its own.
    fn tokenizer() -> Tokenizer {
        let pieces = ["<unk>", "<s>", "</s>", "▁"].into_iter().map(String::from);
        let letters = ('a'..='z').chain(['\n']).map(String::from);
        let vocab: serde_json::Map<String, serde_json::Value> =
            pieces.chain(letters).enumerate().map(|(id, piece)| (piece, id.into())).collect();
        let special = |id: u32, content: &str| {
            serde_json::json!({"id": id, "content": content, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false})
        };
        let json = serde_json::json!({
            "version": "1.0",
            "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "vocab": vocab, "merges": []},
        });
        Tokenizer::parse(&json.to_string(), "").unwrap()
    }

    fn row(instruction: &str, output: &str) -> Example {
        Example { instruction: instruction.into(), output: output.into() }
    }

    #[test]
    fn loss_is_on_the_output_and_its_end_only() {
        let encoder = Encoder { tokenizer: &tokenizer(), template: Template::Plain, seq: 100 };
        let document = encoder.document(&row("ab", "xy")).unwrap();
        let (space, newline, letter) = (3, 30, |c: char| c as u32 - 'a' as u32 + 4);
        let [a, b, x, y] = ['a', 'b', 'x', 'y'].map(letter);
        assert_eq!(document.tokens, [1, space, a, b, newline, x, y, 2]);
        assert_eq!(document.targets, [-100, -100, -100, -100, x as i32, y as i32, 2, -100]);
        assert_eq!(document.labelled(), 3);
    }

    #[test]
    fn what_is_too_long_is_cut_or_dropped_and_counted() {
        // `<s> ab\n` is 5 tokens; the last of them already predicts the output.
        let rows = [row("ab", "xyz"), row("abcdef", "x")];
        let tokenizer = tokenizer();
        let encoder = |seq| Encoder { tokenizer: &tokenizer, template: Template::Plain, seq };
        let all = encoder(6).documents(&rows).unwrap();
        assert_eq!((all.documents.len(), all.truncated, all.dropped), (1, 1, 1));
        assert_eq!((all.documents[0].tokens.len(), all.documents[0].labelled()), (6, 2));
        assert_eq!(encoder(8).documents(&rows[..1]).unwrap().truncated, 1);
        assert_eq!(encoder(9).documents(&rows[..1]).unwrap().truncated, 0);
    }

    fn documents(lengths: &[usize]) -> Vec<Document> {
        lengths.iter().map(|&n| Document { tokens: vec![n as u32; n], targets: vec![n as i32; n] }).collect()
    }

    #[test]
    fn every_document_is_packed_once_within_the_length() {
        let documents = documents(&[5, 9, 1, 3, 10, 2, 7, 4, 6, 8]);
        let epoch = pack(&documents, 10, 42, 0);
        let mut all: Vec<usize> = epoch.concat();
        all.sort();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        for sequence in &epoch {
            let total: usize = sequence.iter().map(|&i| documents[i].tokens.len()).sum();
            assert!(total <= 10, "{total} tokens");
        }
        assert!(epoch.len() <= 7, "55 tokens in {} sequences of 10", epoch.len());
        assert_eq!(pack(&documents, 10, 42, 0), epoch);
        assert_ne!(pack(&documents, 10, 42, 1), epoch);
        assert_ne!(pack(&documents, 10, 43, 0), epoch);
    }

    #[test]
    fn documents_lie_side_by_side() {
        let sequence = Sequence::of(&documents(&[2, 3]));
        assert_eq!(sequence.tokens, [2, 2, 3, 3, 3]);
        assert_eq!((sequence.lengths.as_slice(), sequence.labelled()), (&[2, 3][..], 5));
    }

    /// The golden tokenizer, or `None` (said aloud) where the shared data is absent.
    fn llama() -> Option<Tokenizer> {
        let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
        let shared = std::env::var("CODELSI_SHARED").unwrap_or_else(|_| default.into());
        let file = format!("{shared}/data/codellama-tokenizer/llama2-tokenizer.json");
        if std::path::Path::new(&file).exists() {
            return Some(Tokenizer::load(file).unwrap());
        }
        assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{file} is absent");
        println!("skipped: {file} is absent");
        None
    }

    #[test]
    fn llamas_tokens_read_back_as_prompt_and_output_without_a_space_between() {
        let Some(llama) = llama() else {
            return;
        };
        for template in [Template::Paper, Template::Inst, Template::Plain] {
            let encoder = Encoder { tokenizer: &llama, template, seq: 4096 };
            for output in ["function f() {\n  return 1;\n}", "\nx", "  indented", "é", ""] {
                let row = row("Do it.", output);
                let document = encoder.document(&row).unwrap();
                let prompt = llama.encode(&template.wrap(&row.instruction), true).unwrap();
                assert_eq!(document.tokens[..prompt.len()], prompt);
                assert_eq!(document.labelled(), document.tokens.len() - prompt.len());
                assert_eq!(llama.decode(&document.tokens), template.wrap(&row.instruction) + output);
            }
        }
    }
}
