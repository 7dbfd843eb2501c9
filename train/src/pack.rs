//! Tokenization of rows to documents with a loss mask, and packing of documents into sequences.

use crate::data::{Example, Hole, ORDER_SITE, Turn, permutation};
use crate::file_counts::{FileCounts, LeftOut};
use codelsi_engine::rng::RngKey;
use codelsi_engine::{At, Error, Result};
use codelsi_model::chat_template::{ChatTemplate, EncodedConversation};
use codelsi_model::template::PromptTemplate;
use codelsi_model::tokenizer::Tokenizer;
use rayon::prelude::*;
use std::path::Path;

/// The target of a position that is excluded from the loss, as in PyTorch.
pub const IGNORE_INDEX: i32 = -100;

/// A tokenized row: for a conversation of one turn `<s> prompt output </s>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub tokens: Vec<u32>,
    /// The next token of each position, or [`IGNORE_INDEX`] where that is in a prompt: the loss is on answers and the
    /// `</s>` after each.
    pub targets: Vec<i32>,
}

impl Document {
    /// A document whose loss is on the tokens that `in_loss` marks, each predicted by the one before it.
    pub fn new(tokens: Vec<u32>, in_loss: &[bool]) -> Document {
        let target = |(&token, &in_loss)| if in_loss { token as i32 } else { IGNORE_INDEX };
        let mut targets: Vec<i32> = tokens.iter().zip(in_loss).skip(1).map(target).collect();
        targets.extend((!tokens.is_empty()).then_some(IGNORE_INDEX));
        Document { tokens, targets }
    }

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
    /// The model's chat template, which [`PromptTemplate::Chat`] needs.
    pub chat: Option<ChatTemplate>,
    /// The maximum length of a document, in tokens.
    pub seq: usize,
}

/// The documents of a data set, and the rows that did not become one as they are, see [`Example::row`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EncodedDataset {
    pub documents: Vec<Document>,
    /// The row of each document.
    pub rows: Vec<usize>,
    /// Rows whose document is cut to `seq` tokens; it ends without `</s>`.
    pub truncated: Vec<usize>,
    /// Rows whose prompt alone fills `seq` tokens, which leaves no output to learn.
    pub too_long: Vec<usize>,
    /// Rows of conversations for which the template has no form.
    pub without_form: Vec<usize>,
    /// Rows in a template of their own.
    pub own_template: usize,
    /// Rows that fill a hole.
    pub infilling: usize,
}

impl EncodedDataset {
    /// Counts the rows that were left out or cut, each with its file.
    pub(crate) fn count_by_file(&self, files: &mut [FileCounts]) {
        let mut count = |rows: &[usize], of: fn(&mut LeftOut) -> &mut usize| {
            for row in rows {
                let next = files.partition_point(|file| file.first_row <= *row);
                *of(&mut files[next - 1].left_out) += 1;
            }
        };
        count(&self.truncated, |left_out| &mut left_out.truncated);
        count(&self.too_long, |left_out| &mut left_out.too_long);
        count(&self.without_form, |left_out| &mut left_out.without_form);
    }
}

impl<'a> Encoder<'a> {
    /// Creates an encoder for the model in the folder `model`, with its chat template if `template` is that.
    ///
    /// # Errors
    /// When the model has no chat template, or a malformed one.
    pub fn for_model(
        model: &Path,
        tokenizer: &'a Tokenizer,
        template: PromptTemplate,
        seq: usize,
    ) -> Result<Self> {
        let chat = (template == PromptTemplate::Chat).then(|| ChatTemplate::require(model)).transpose()?;
        Ok(Encoder { tokenizer, template, chat, seq })
    }

    /// Encodes all rows in parallel; the documents keep their order.
    ///
    /// # Errors
    /// Text that the tokenizer cannot encode.
    pub fn documents(&self, rows: &[Example]) -> Result<EncodedDataset> {
        let encoded: Vec<Option<Document>> = rows
            .par_iter()
            .map(|row| self.document(row).at(format!("row {}", row.row)))
            .collect::<Result<_>>()?;
        let mut all = EncodedDataset::default();
        for (document, row) in encoded.into_iter().zip(rows) {
            let Some(mut document) = document else {
                all.without_form.push(row.row);
                continue;
            };
            if document.tokens.len() > self.seq {
                document.tokens.truncate(self.seq);
                document.targets.truncate(self.seq);
                if document.labelled() == 0 {
                    all.too_long.push(row.row);
                    continue;
                }
                all.truncated.push(row.row);
            }
            all.own_template += usize::from(row.template.is_some_and(|own| own != self.template));
            all.infilling += usize::from(row.hole.is_some());
            all.documents.push(document);
            all.rows.push(row.row);
        }
        Ok(all)
    }

    /// Encodes one row without truncation; `None` if the template has no form for it. A prompt is tokenized exactly as
    /// generation tokenizes it.
    ///
    /// # Errors
    /// Text that the tokenizer cannot encode, a chat template that a model cannot be trained with, or a hole to fill
    /// where the tokenizer has no markers for it.
    pub fn document(&self, row: &Example) -> Result<Option<Document>> {
        if let Some((hole, middle)) = row.infilled() {
            return self.infill_document(hole, middle).map(Some);
        }
        match (row.template.unwrap_or(self.template), &self.chat) {
            (PromptTemplate::Chat, Some(chat)) => self.chat_document(chat, row),
            (PromptTemplate::Chat, None) => {
                Err(Error::new("names the template `chat`; train with --template chat"))
            }
            (template, _) => self.turns_document(template, row),
        }
    }

    /// Encodes a row that fills a hole, as an infilling prompt: the loss is on what fills it and the end marker.
    fn infill_document(&self, Hole { prefix, suffix }: &Hole, middle: &str) -> Result<Document> {
        let end = self
            .tokenizer
            .require_infill_tokens()
            .map_err(|e| e.advise("leave out rows with `prefix` and `suffix`"))?
            .end;
        let mut tokens = self.tokenizer.infill(prefix, suffix)?;
        let mut in_loss = vec![false; tokens.len()];
        tokens.extend(self.tokenizer.encode_continuation(middle)?);
        tokens.push(end);
        in_loss.resize(tokens.len(), true);
        Ok(Document::new(tokens, &in_loss))
    }

    /// Encodes a row by the model's chat template.
    fn chat_document(&self, chat: &ChatTemplate, row: &Example) -> Result<Option<Document>> {
        match chat.encode_conversation(self.tokenizer, &row.messages) {
            Ok(EncodedConversation { tokens, in_loss }) => Ok(Some(Document::new(tokens, &in_loss))),
            // A template raises an exception for a conversation that it cannot write.
            Err(_) if chat.render(&row.messages, false).is_err() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Encodes a row turn by turn: an answer continues its prompt without the space that the tokenizer puts before a new
    /// text.
    fn turns_document(&self, template: PromptTemplate, row: &Example) -> Result<Option<Document>> {
        let Some(turns) = row.turns().filter(|turns| turns.len() == 1 || template.has_turns()) else {
            return Ok(None);
        };
        let (mut tokens, mut in_loss) = (Vec::new(), Vec::new());
        for Turn { instruction, answer } in turns {
            tokens.extend(self.tokenizer.encode(&template.wrap(&instruction), true)?);
            in_loss.resize(tokens.len(), false);
            tokens.extend(self.tokenizer.encode_continuation(answer)?);
            tokens.extend(self.tokenizer.eos());
            in_loss.resize(tokens.len(), true);
        }
        Ok(Some(Document::new(tokens, &in_loss)))
    }
}

/// The loss on the labelled tokens of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentLoss {
    /// −log p of the next token.
    CrossEntropy,
    /// The divergence of the model's distribution of the next token from its teacher's (soft targets).
    Distillation,
}

/// Concatenated documents. Attention does not cross their boundaries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedSequence {
    /// (T) Token ids.
    pub tokens: Vec<u32>,
    /// (T) Next tokens where the loss is [`DocumentLoss::CrossEntropy`], see [`Document::targets`]; else
    /// [`IGNORE_INDEX`].
    pub targets: Vec<i32>,
    /// (T) Next tokens where the loss is [`DocumentLoss::Distillation`], else [`IGNORE_INDEX`].
    pub soft_targets: Vec<i32>,
    /// (documents) The length of each document; positions restart at 0 in each.
    pub lengths: Vec<usize>,
}

impl PackedSequence {
    /// Concatenates documents whose loss is cross-entropy.
    pub fn concat<'d>(documents: impl IntoIterator<Item = &'d Document>) -> PackedSequence {
        let mut all = PackedSequence::default();
        documents.into_iter().for_each(|document| all.push(document, DocumentLoss::CrossEntropy));
        all
    }

    /// Appends a document.
    pub fn push(&mut self, document: &Document, loss: DocumentLoss) {
        let PackedSequence { tokens, targets, soft_targets, lengths } = self;
        tokens.extend(&document.tokens);
        lengths.push(document.tokens.len());
        let (its, other) = match loss {
            DocumentLoss::CrossEntropy => (targets, soft_targets),
            DocumentLoss::Distillation => (soft_targets, targets),
        };
        its.extend(&document.targets);
        other.resize(tokens.len(), IGNORE_INDEX);
    }

    /// Puts both losses on every labelled token: no mix of documents in these tokens takes more memory.
    pub fn with_both_losses(mut self) -> Self {
        for (target, soft) in self.targets.iter_mut().zip(&mut self.soft_targets) {
            (*target, *soft) = ((*target).max(*soft), (*target).max(*soft));
        }
        self
    }

    /// The number of positions with a loss, of both kinds.
    pub fn labelled(&self) -> usize {
        count_labelled(&self.targets) + self.distilled()
    }

    /// The number of positions with soft targets.
    pub fn distilled(&self) -> usize {
        count_labelled(&self.soft_targets)
    }
}

/// The order in which an epoch goes through the documents, and how they share sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochOrder {
    /// Goes through the documents in a random order; otherwise in their own.
    pub shuffle: bool,
    /// Packs several documents into a sequence; otherwise a sequence is one document.
    pub packing: bool,
    pub seed: u64,
}

impl EpochOrder {
    /// Puts the `chosen` documents into the sequences of one epoch, of at most `seq` tokens, each a list of document indices.
    ///
    /// Packing is first-fit: a document goes into the first sequence that has room for it. No document is split. The
    /// result depends on the seed and the epoch alone, so that a resumed run needs no more than a cursor.
    pub fn sequences(
        self,
        documents: &[Document],
        mut chosen: Vec<usize>,
        seq: usize,
        epoch: u32,
    ) -> Vec<Vec<usize>> {
        if self.shuffle {
            let key = RngKey { seed: self.seed, step: epoch, site: ORDER_SITE };
            chosen = permutation(chosen.len(), key).into_iter().map(|i| chosen[i]).collect();
        }
        match self.packing {
            true => pack(chosen, documents, seq),
            false => chosen.into_iter().map(|index| vec![index]).collect(),
        }
    }
}

/// Packs documents first-fit, in this order.
fn pack(order: Vec<usize>, documents: &[Document], seq: usize) -> Vec<Vec<usize>> {
    let mut sequences: Vec<Vec<usize>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    for index in order {
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
    use codelsi_model::message::{Message, Role};
    use codelsi_testing::shared;

    /// A tokenizer of single characters that, as Llama's, puts a space before a text.
    fn char_tokenizer() -> Tokenizer {
        tokenizer_with(&[])
    }

    /// The same with more pieces, from id 31 on.
    fn tokenizer_with(more: &[&str]) -> Tokenizer {
        let pieces = ["<unk>", "<s>", "</s>", "▁"].into_iter().map(String::from);
        let letters = ('a'..='z').chain(['\n']).map(String::from).chain(more.iter().map(|s| s.to_string()));
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
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
            },
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "vocab": vocab, "merges": []},
        });
        Tokenizer::parse(&json.to_string(), "").unwrap()
    }

    fn example(instruction: &str, output: &str) -> Example {
        Example::new(instruction, output)
    }

    #[test]
    fn loss_is_on_the_output_and_its_end_only() {
        let encoder =
            Encoder { tokenizer: &char_tokenizer(), template: PromptTemplate::Plain, chat: None, seq: 100 };
        let document = encoder.document(&example("ab", "xy")).unwrap().unwrap();
        let (space, newline, letter) = (3, 30, |c: char| c as u32 - 'a' as u32 + 4);
        let [a, b, x, y] = ['a', 'b', 'x', 'y'].map(letter);
        assert_eq!(document.tokens, [1, space, a, b, newline, x, y, 2]);
        assert_eq!(document.targets, [-100, -100, -100, -100, x as i32, y as i32, 2, -100]);
        assert_eq!(document.labelled(), 3);
    }

    #[test]
    fn the_loss_of_a_hole_is_on_what_fills_it_and_the_end_marker() {
        let code_llama = ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"];
        let qwen = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"];
        let row = Example {
            hole: Some(Hole { prefix: "ab".into(), suffix: " c".into() }),
            messages: vec![Message { role: Role::Assistant, content: " x".into() }],
            ..example("", "")
        };
        let [a, b, c, x] = ['a', 'b', 'c', 'x'].map(|letter| letter as u32 - 'a' as u32 + 4);
        for markers in [code_llama, qwen] {
            let tokenizer = tokenizer_with(&markers);
            let encoder =
                |seq| Encoder { tokenizer: &tokenizer, template: PromptTemplate::Paper, chat: None, seq };
            let all = encoder(1000).documents(&[row.clone(), example("a", "x")]).unwrap();
            let document = &all.documents[0];
            assert_eq!(document.tokens, [1, 31, 3, a, b, 32, 3, c, 33, 3, x, 34]);
            let learned = [[-100; 8].as_slice(), &[3, x as i32, 34, -100]].concat();
            assert_eq!((&document.targets, all.infilling, all.documents.len()), (&learned, 1, 2));
            let cut = encoder(8).documents(std::slice::from_ref(&row)).unwrap();
            assert_eq!(cut.too_long, [0], "no room for the answer");
        }
        let encoder =
            Encoder { tokenizer: &char_tokenizer(), template: PromptTemplate::Plain, chat: None, seq: 100 };
        let message = encoder.documents(&[row]).unwrap_err().to_string();
        assert!(message.contains("row 0") && message.contains("leave out rows with `prefix`"), "{message}");
    }

    #[test]
    fn a_row_may_name_its_own_template() {
        let tokenizer = char_tokenizer();
        let own = |template| Example { template, ..example("ab", "xy") };
        let rows = [own(None), own(Some(PromptTemplate::Plain)), own(Some(PromptTemplate::Inst))];
        let of = |template| Encoder { tokenizer: &tokenizer, template, chat: None, seq: 100 };
        let (encoder, plain) = (of(PromptTemplate::Inst), of(PromptTemplate::Plain));
        let all = encoder.documents(&rows).unwrap();
        assert_eq!(all.documents[0], all.documents[2]);
        assert_eq!(all.documents[1], plain.document(&example("ab", "xy")).unwrap().unwrap());
        assert_eq!(all.own_template, 1);
        let refused = encoder.documents(&[own(Some(PromptTemplate::Chat))]).unwrap_err().to_string();
        assert!(refused.contains("row 0: names the template `chat`"), "{refused}");
    }

    #[test]
    fn what_is_too_long_is_cut_or_dropped_and_counted() {
        // `<s> ab\n` is 5 tokens; the last of them already predicts the output.
        let rows = [example("ab", "xyz"), example("abcdef", "x")];
        let tokenizer = char_tokenizer();
        let encoder =
            |seq| Encoder { tokenizer: &tokenizer, template: PromptTemplate::Plain, chat: None, seq };
        let all = encoder(6).documents(&rows).unwrap();
        assert_eq!((all.documents.len(), all.truncated.len(), all.too_long.len()), (1, 1, 1));
        assert_eq!((all.documents[0].tokens.len(), all.documents[0].labelled()), (6, 2));
        assert_eq!(encoder(8).documents(&rows[..1]).unwrap().truncated.len(), 1);
        assert_eq!(encoder(9).documents(&rows[..1]).unwrap().truncated.len(), 0);
    }

    #[test]
    fn a_chat_template_writes_conversations_with_their_ends_in_the_loss() {
        let source = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}\
                      {% if m.role == 'user' %}{{ bos_token }}{% endif %}{{ m.content }}\
                      {% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}";
        let variables = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let variables = variables.map(|(name, text)| (name.to_string(), text.to_string())).into();
        let chat = Some(ChatTemplate::new(source, variables, "chat_template.jinja".into()).unwrap());
        let tokenizer = char_tokenizer();
        let encoder = Encoder { tokenizer: &tokenizer, template: PromptTemplate::Chat, chat, seq: 100 };
        let row = |roles: &[(Role, &str)]| Example {
            messages: roles.iter().map(|&(role, text)| Message { role, content: text.into() }).collect(),
            hole: None,
            template: None,
            row: 3,
        };
        let (user, assistant) = (Role::User, Role::Assistant);
        let turns = [(user, "ab"), (assistant, "xy"), (user, "c"), (assistant, "z")];
        let all = encoder.documents(&[row(&turns), row(&[(Role::Tool, "t"), (assistant, "x")])]).unwrap();
        assert_eq!((all.documents.len(), all.without_form.len()), (1, 1));
        let document = &all.documents[0];
        let learned: Vec<u32> =
            document.targets.iter().filter(|&&t| t != IGNORE_INDEX).map(|&t| t as u32).collect();
        let letter = |c: char| c as u32 - 'a' as u32 + 4;
        assert_eq!(learned, [letter('x'), letter('y'), 2, letter('z'), 2]);
        assert_eq!(document.tokens.iter().filter(|&&token| token == 1).count(), 2, "{:?}", document.tokens);
    }

    fn documents_of(lengths: &[usize]) -> Vec<Document> {
        lengths.iter().map(|&n| Document { tokens: vec![n as u32; n], targets: vec![n as i32; n] }).collect()
    }

    #[test]
    fn every_document_is_packed_once_within_the_length() {
        let documents = documents_of(&[5, 9, 1, 3, 10, 2, 7, 4, 6, 8]);
        let pack = |seed, epoch| {
            let order = EpochOrder { shuffle: true, packing: true, seed };
            order.sequences(&documents, (0..10).collect(), 10, epoch)
        };
        let epoch = pack(42, 0);
        let mut all: Vec<usize> = epoch.concat();
        all.sort();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        for sequence in &epoch {
            let total: usize = sequence.iter().map(|&i| documents[i].tokens.len()).sum();
            assert!(total <= 10, "{total} tokens");
        }
        assert!(epoch.len() <= 7, "55 tokens in {} sequences of 10", epoch.len());
        assert_eq!(pack(42, 0), epoch);
        assert_ne!(pack(42, 1), epoch);
        assert_ne!(pack(43, 0), epoch);
    }

    #[test]
    fn without_shuffling_or_packing_a_sequence_is_a_row_in_the_file_s_order() {
        let documents = documents_of(&[5, 9, 1, 3]);
        let sequences = |shuffle, packing| {
            EpochOrder { shuffle, packing, seed: 42 }.sequences(&documents, (0..4).collect(), 10, 1)
        };
        assert_eq!(sequences(false, false), [[0], [1], [2], [3]]);
        assert_eq!(sequences(false, true), [vec![0, 2, 3], vec![1]]);
        let mut shuffled = sequences(true, false);
        assert_ne!(shuffled, sequences(false, false));
        shuffled.sort();
        assert_eq!(shuffled, sequences(false, false));
    }

    #[test]
    fn a_conversation_is_one_document_where_the_template_has_turns() {
        let tokenizer = char_tokenizer();
        let encode = |template, roles: &[(Role, &str)]| {
            let messages = roles.iter().map(|&(role, text)| Message { role, content: text.into() }).collect();
            let encoder = Encoder { tokenizer: &tokenizer, template, chat: None, seq: 1000 };
            encoder.documents(&[Example { messages, hole: None, template: None, row: 7 }]).unwrap()
        };
        let (user, assistant) = (Role::User, Role::Assistant);
        let two = [(user, "ab"), (assistant, "xy"), (user, "c"), (assistant, "z")];
        let all = encode(PromptTemplate::Inst, &two);
        let single = |instruction, answer| {
            let encoder =
                Encoder { tokenizer: &tokenizer, template: PromptTemplate::Inst, chat: None, seq: 1000 };
            encoder.document(&example(instruction, answer)).unwrap().unwrap()
        };
        let (first, second) = (single("ab", "xy"), single("c", "z"));
        assert_eq!(all.documents[0].tokens, [first.tokens, second.tokens].concat());
        assert_eq!(all.documents[0].targets, [first.targets, second.targets].concat());
        assert_eq!((all.rows.as_slice(), all.documents[0].labelled()), (&[7][..], 5));
        for template in [PromptTemplate::Paper, PromptTemplate::Plain] {
            let all = encode(template, &two);
            assert_eq!((all.documents.len(), all.without_form.len()), (0, 1));
            let system = [(Role::System, "s"), (user, "ab"), (assistant, "xy")];
            let encoder = Encoder { tokenizer: &tokenizer, template, chat: None, seq: 1000 };
            let joined = encoder.document(&example("s\n\nab", "xy")).unwrap();
            assert_eq!(Some(encode(template, &system).documents.remove(0)), joined);
        }
        assert_eq!(
            encode(PromptTemplate::Inst, &[(assistant, "x"), (user, "a"), (assistant, "y")])
                .without_form
                .len(),
            1
        );
    }

    #[test]
    fn documents_are_concatenated() {
        let sequence = PackedSequence::concat(&documents_of(&[2, 3]));
        assert_eq!(sequence.tokens, [2, 2, 3, 3, 3]);
        assert_eq!((sequence.lengths.as_slice(), sequence.labelled()), (&[2, 3][..], 5));
    }

    #[test]
    fn a_sequence_may_hold_documents_of_both_losses() {
        let documents = documents_of(&[2, 3, 1]);
        let mut sequence = PackedSequence::default();
        for (document, loss) in documents.iter().zip([
            DocumentLoss::CrossEntropy,
            DocumentLoss::Distillation,
            DocumentLoss::CrossEntropy,
        ]) {
            sequence.push(document, loss);
        }
        assert_eq!(sequence.targets, [2, 2, -100, -100, -100, 1]);
        assert_eq!(sequence.soft_targets, [-100, -100, 3, 3, 3, -100]);
        assert_eq!((sequence.labelled(), sequence.distilled()), (6, 3));
        let both = sequence.with_both_losses();
        assert_eq!((&both.targets, &both.soft_targets), (&vec![2, 2, 3, 3, 3, 1], &both.targets));
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
            let encoder = Encoder { tokenizer: &llama, template, chat: None, seq: 4096 };
            for output in ["function f() {\n  return 1;\n}", "\nx", "  indented", "é", ""] {
                let row = example("Do it.", output);
                let document = encoder.document(&row).unwrap().unwrap();
                let prompt = llama.encode(&template.wrap("Do it."), true).unwrap();
                assert_eq!(document.tokens[..prompt.len()], prompt);
                assert_eq!(document.labelled(), document.tokens.len() - prompt.len());
                assert_eq!(llama.decode(&document.tokens), template.wrap("Do it.") + output);
            }
        }
    }
}
