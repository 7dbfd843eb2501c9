//! Tokenization of rows to documents with a loss mask, and packing of documents into sequences.

use crate::data::{Example, ORDER_SITE, permutation};
use codelsi_engine::Result;
use codelsi_engine::rng::RngKey;
use codelsi_model::template::PromptTemplate;
use codelsi_model::tokenizer::Tokenizer;
use rayon::prelude::*;

/// The target of a position that is excluded from the loss, as in PyTorch.
pub const IGNORE_INDEX: i32 = -100;

/// A tokenized row: `<s> prompt output </s>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub tokens: Vec<u32>,
    /// The next token of each position, or [`IGNORE_INDEX`] within the prompt: the loss is on the output and `</s>`
    /// only.
    pub targets: Vec<i32>,
}

impl Document {
    /// The number of positions with a loss.
    pub fn labelled(&self) -> usize {
        count_labelled(&self.targets)
    }
}

fn count_labelled(targets: &[i32]) -> usize {
    targets.iter().filter(|&&target| target != IGNORE_INDEX).count()
}

/// Encodes rows as documents.
pub struct Encoder<'a> {
    pub tokenizer: &'a Tokenizer,
    pub template: PromptTemplate,
    /// The maximum length of a document, in tokens.
    pub seq: usize,
}

/// The documents of a data set, and the number of rows that did not fit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EncodedDataset {
    pub documents: Vec<Document>,
    /// Documents cut to `seq` tokens; they end without `</s>`.
    pub truncated: usize,
    /// Rows whose prompt alone fills `seq` tokens, which leaves no output to learn.
    pub dropped: usize,
}

impl Encoder<'_> {
    /// Encodes all rows in parallel; the documents keep their order.
    ///
    /// # Errors
    /// Text that the tokenizer cannot encode.
    pub fn documents(&self, rows: &[Example]) -> Result<EncodedDataset> {
        let encoded: Vec<Document> = rows.par_iter().map(|row| self.document(row)).collect::<Result<_>>()?;
        let mut all = EncodedDataset::default();
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

    /// Encodes one row without truncation. The prompt is tokenized exactly as generation tokenizes it, and the output
    /// continues it without the space that the tokenizer puts before a new text.
    ///
    /// # Errors
    /// Text that the tokenizer cannot encode.
    pub fn document(&self, row: &Example) -> Result<Document> {
        let mut tokens = self.tokenizer.encode(&self.template.wrap(&row.instruction), true)?;
        let prompt = tokens.len();
        tokens.extend(self.tokenizer.encode_continuation(&row.output)?);
        tokens.extend(self.tokenizer.eos());
        let mut targets: Vec<i32> = tokens.iter().skip(1).map(|&t| t as i32).collect();
        targets.push(IGNORE_INDEX);
        targets[..prompt.saturating_sub(1)].fill(IGNORE_INDEX);
        Ok(Document { tokens, targets })
    }
}

/// Concatenated documents. Attention does not cross their boundaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedSequence {
    /// (T) Token ids.
    pub tokens: Vec<u32>,
    /// (T) Next tokens, see [`Document::targets`].
    pub targets: Vec<i32>,
    /// (documents) The length of each document; positions restart at 0 in each.
    pub lengths: Vec<usize>,
}

impl PackedSequence {
    /// Concatenates documents.
    pub fn concat<'d>(documents: impl IntoIterator<Item = &'d Document>) -> PackedSequence {
        let mut all = PackedSequence { tokens: Vec::new(), targets: Vec::new(), lengths: Vec::new() };
        for document in documents {
            all.tokens.extend(&document.tokens);
            all.targets.extend(&document.targets);
            all.lengths.push(document.tokens.len());
        }
        all
    }

    /// The number of positions with a loss.
    pub fn labelled(&self) -> usize {
        count_labelled(&self.targets)
    }
}

/// Packs the documents of one epoch into sequences of at most `seq` tokens, each a list of document indices.
///
/// Shuffles the documents and packs them first-fit: a document goes into the first sequence that has room for it. No
/// document is split. The result depends on (seed, epoch) alone, so that a resumed run needs no more than a cursor.
pub fn pack(documents: &[Document], seq: usize, seed: u64, epoch: u32) -> Vec<Vec<usize>> {
    let mut sequences: Vec<Vec<usize>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    for index in permutation(documents.len(), RngKey { seed, step: epoch, site: ORDER_SITE }) {
        let length = documents[index].tokens.len();
        match free.iter().position(|&free| free >= length) {
            Some(sequence) => {
                free[sequence] -= length;
                sequences[sequence].push(index);
            }
            None => {
                free.push(seq.saturating_sub(length));
                sequences.push(vec![index]);
            }
        }
    }
    sequences
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_testing::shared;

    /// A tokenizer of single characters that, as Llama's, puts a space before a text.
    fn char_tokenizer() -> Tokenizer {
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

    fn example(instruction: &str, output: &str) -> Example {
        Example { instruction: instruction.into(), output: output.into() }
    }

    #[test]
    fn loss_is_on_the_output_and_its_end_only() {
        let encoder = Encoder { tokenizer: &char_tokenizer(), template: PromptTemplate::Plain, seq: 100 };
        let document = encoder.document(&example("ab", "xy")).unwrap();
        let (space, newline, letter) = (3, 30, |c: char| c as u32 - 'a' as u32 + 4);
        let [a, b, x, y] = ['a', 'b', 'x', 'y'].map(letter);
        assert_eq!(document.tokens, [1, space, a, b, newline, x, y, 2]);
        assert_eq!(document.targets, [-100, -100, -100, -100, x as i32, y as i32, 2, -100]);
        assert_eq!(document.labelled(), 3);
    }

    #[test]
    fn what_is_too_long_is_cut_or_dropped_and_counted() {
        // `<s> ab\n` is 5 tokens; the last of them already predicts the output.
        let rows = [example("ab", "xyz"), example("abcdef", "x")];
        let tokenizer = char_tokenizer();
        let encoder = |seq| Encoder { tokenizer: &tokenizer, template: PromptTemplate::Plain, seq };
        let all = encoder(6).documents(&rows).unwrap();
        assert_eq!((all.documents.len(), all.truncated, all.dropped), (1, 1, 1));
        assert_eq!((all.documents[0].tokens.len(), all.documents[0].labelled()), (6, 2));
        assert_eq!(encoder(8).documents(&rows[..1]).unwrap().truncated, 1);
        assert_eq!(encoder(9).documents(&rows[..1]).unwrap().truncated, 0);
    }

    fn documents_of(lengths: &[usize]) -> Vec<Document> {
        lengths.iter().map(|&n| Document { tokens: vec![n as u32; n], targets: vec![n as i32; n] }).collect()
    }

    #[test]
    fn every_document_is_packed_once_within_the_length() {
        let documents = documents_of(&[5, 9, 1, 3, 10, 2, 7, 4, 6, 8]);
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
    fn documents_are_concatenated() {
        let sequence = PackedSequence::concat(&documents_of(&[2, 3]));
        assert_eq!(sequence.tokens, [2, 2, 3, 3, 3]);
        assert_eq!((sequence.lengths.as_slice(), sequence.labelled()), (&[2, 3][..], 5));
    }

    /// The golden tokenizer.
    fn llama() -> Option<Tokenizer> {
        Some(Tokenizer::load(shared("data/codellama-tokenizer/llama2-tokenizer.json")?).unwrap())
    }

    #[test]
    fn llamas_tokens_read_back_as_prompt_and_output_without_a_space_between() {
        let Some(llama) = llama() else {
            return;
        };
        for template in [PromptTemplate::Paper, PromptTemplate::Inst, PromptTemplate::Plain] {
            let encoder = Encoder { tokenizer: &llama, template, seq: 4096 };
            for output in ["function f() {\n  return 1;\n}", "\nx", "  indented", "é", ""] {
                let row = example("Do it.", output);
                let document = encoder.document(&row).unwrap();
                let prompt = llama.encode(&template.wrap(&row.instruction), true).unwrap();
                assert_eq!(document.tokens[..prompt.len()], prompt);
                assert_eq!(document.labelled(), document.tokens.len() - prompt.len());
                assert_eq!(llama.decode(&document.tokens), template.wrap(&row.instruction) + output);
            }
        }
    }
}
