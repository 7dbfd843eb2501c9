//! Rows to token documents with a loss mask, and documents to packed sequences.

use crate::data::{Example, ORDER, permutation};
use codelsi_engine::Result;
use codelsi_engine::rng::Key;
use codelsi_model::template::Template;
use rayon::prelude::*;
use std::ops::Range;

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
        self.targets.iter().filter(|&&t| t != IGNORED).count()
    }
}

/// Turns rows into documents.
pub struct Encoder<'a> {
    /// Text to tokens, without `<s>`.
    pub encode: &'a (dyn Fn(&str) -> Result<Vec<u32>> + Sync),
    pub bos: u32,
    pub eos: u32,
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

    /// Encodes one row at full length. The prompt's tokens are those that generation starts from.
    pub fn document(&self, row: &Example) -> Result<Document> {
        let mut tokens = vec![self.bos];
        tokens.extend((self.encode)(&self.template.wrap(&row.instruction))?);
        let prompt = tokens.len();
        tokens.extend(self.continuation(&row.output)?);
        tokens.push(self.eos);
        let mut targets: Vec<i32> = tokens[1..].iter().map(|&t| t as i32).collect();
        targets[..prompt - 1].fill(IGNORED);
        targets.push(IGNORED);
        Ok(Document { tokens, targets })
    }

    /// Tokens of a text that goes on from another.
    ///
    /// Llama's tokenizers put a space before whatever they encode. Behind a newline, which they never merge with
    /// what follows, the text is encoded as it stands; a tokenizer that does merge newlines has no such space.
    fn continuation(&self, text: &str) -> Result<Vec<u32>> {
        let newline = (self.encode)("\n")?;
        let behind = (self.encode)(&format!("\n{text}"))?;
        match behind.strip_prefix(newline.as_slice()) {
            Some(tokens) => Ok(tokens.to_vec()),
            None => (self.encode)(text),
        }
    }
}

/// Documents side by side, none of which sees another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// (T)
    pub tokens: Vec<u32>,
    /// (T) See [`Document::targets`].
    pub targets: Vec<i32>,
    /// (T) Counted from 0 in each document.
    pub positions: Vec<u32>,
    /// (documents + 1) Where each document starts, and T.
    pub starts: Vec<u32>,
}

impl Sequence {
    /// Lays documents side by side.
    pub fn of<'d>(documents: impl IntoIterator<Item = &'d Document>) -> Sequence {
        let mut all =
            Sequence { tokens: Vec::new(), targets: Vec::new(), positions: Vec::new(), starts: vec![0] };
        for document in documents {
            all.tokens.extend(&document.tokens);
            all.targets.extend(&document.targets);
            all.positions.extend(0..document.tokens.len() as u32);
            all.starts.push(all.tokens.len() as u32);
        }
        all
    }

    /// Positions that carry loss.
    pub fn labelled(&self) -> usize {
        self.targets.iter().filter(|&&t| t != IGNORED).count()
    }

    /// The documents' ranges of tokens.
    pub fn documents(&self) -> impl Iterator<Item = Range<usize>> {
        self.starts.windows(2).map(|pair| pair[0] as usize..pair[1] as usize)
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

    /// A tokenizer of characters that, like Llama's, starts with a space of its own.
    fn spaced(text: &str) -> Result<Vec<u32>> {
        Ok(if text.is_empty() { vec![] } else { format!(" {text}").chars().map(|c| c as u32).collect() })
    }

    fn encoder(seq: usize) -> Encoder<'static> {
        Encoder { encode: &spaced, bos: 1, eos: 2, template: Template::Plain, seq }
    }

    fn row(instruction: &str, output: &str) -> Example {
        Example { instruction: instruction.into(), output: output.into() }
    }

    #[test]
    fn loss_is_on_the_output_and_its_end_only() {
        let document = encoder(100).document(&row("ab", "xy")).unwrap();
        let text: Vec<u32> = " ab\nxy".chars().map(|c| c as u32).collect();
        assert_eq!(document.tokens, [&[1], text.as_slice(), &[2]].concat());
        let (x, y) = ('x' as i32, 'y' as i32);
        assert_eq!(document.targets, [-100, -100, -100, -100, x, y, 2, -100]);
        assert_eq!(document.labelled(), 3);
    }

    #[test]
    fn a_tokenizer_that_merges_newlines_encodes_the_output_as_it_is() {
        let merging =
            |text: &str| Ok(text.replace("\n\n", "N").chars().map(|c| c as u32).collect::<Vec<u32>>());
        let encoder = Encoder { encode: &merging, ..encoder(100) };
        assert_eq!(encoder.continuation("\nx").unwrap(), ['\n' as u32, 'x' as u32]);
        assert_eq!(encoder.continuation("x").unwrap(), ['x' as u32]);
    }

    #[test]
    fn what_is_too_long_is_cut_or_dropped_and_counted() {
        // "<s> ab\n" is 5 tokens, so 6 leave one to learn from and 5 only the first label.
        let rows = [row("ab", "xyz"), row("abcdef", "x")];
        let all = encoder(6).documents(&rows).unwrap();
        assert_eq!((all.documents.len(), all.truncated, all.dropped), (1, 1, 1));
        assert_eq!(all.documents[0].tokens.len(), 6);
        assert_eq!(all.documents[0].targets[4..], ['x' as i32, 'y' as i32]);
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
    fn positions_restart_in_each_document() {
        let sequence = Sequence::of(&documents(&[2, 3]));
        assert_eq!(sequence.tokens, [2, 2, 3, 3, 3]);
        assert_eq!(sequence.positions, [0, 1, 0, 1, 2]);
        assert_eq!(sequence.starts, [0, 2, 5]);
        assert_eq!(sequence.documents().collect::<Vec<_>>(), [0..2, 2..5]);
        assert_eq!(sequence.labelled(), 5);
    }

    /// The golden tokenizer, or `None` (said aloud) where the shared data is absent.
    fn llama() -> Option<tokenizers::Tokenizer> {
        let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
        let shared = std::env::var("CODELSI_SHARED").unwrap_or_else(|_| default.into());
        let file = format!("{shared}/data/codellama-tokenizer/llama2-tokenizer.json");
        if std::path::Path::new(&file).exists() {
            return Some(tokenizers::Tokenizer::from_file(file).unwrap());
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
        let encode = |text: &str| Ok(llama.encode(text, false).unwrap().get_ids().to_vec());
        for template in [Template::Paper, Template::Inst, Template::Plain] {
            let encoder = Encoder { encode: &encode, bos: 1, eos: 2, template, seq: 4096 };
            for output in ["function f() {\n  return 1;\n}", "\nx", "  indented", "é", ""] {
                let row = row("Do it.", output);
                let document = encoder.document(&row).unwrap();
                let prompt = encode(&template.wrap(&row.instruction)).unwrap();
                assert_eq!(document.tokens[1..=prompt.len()], prompt);
                assert_eq!(document.labelled(), document.tokens.len() - 1 - prompt.len());
                let text = llama.decode(&document.tokens, true).unwrap();
                assert_eq!(text, template.wrap(&row.instruction) + output);
            }
        }
    }
}
