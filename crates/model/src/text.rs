//! From an instruction to token ids.

use std::collections::{BTreeMap, BTreeSet};

use tokenizers::{
    AddedToken, Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    Tokenizer, decoders::wordpiece::WordPiece as WordPieceDecoder, models::wordpiece::WordPiece,
    normalizers::BertNormalizer, pre_tokenizers::bert::BertPreTokenizer, processors::bert::BertProcessing,
};

use crate::ModelError;

const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const CLS: &str = "[CLS]";
const SEP: &str = "[SEP]";
const CONTINUATION: &str = "##";

/// BERT's tokenizer: lower-cased WordPiece between `[CLS]` and `[SEP]`.
///
/// The file format is that of the Hugging Face `tokenizers` library, so a public `tokenizer.json` works unchanged.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
}

impl std::fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextTokenizer").field("vocab_size", &self.vocab_size()).finish()
    }
}

impl TextTokenizer {
    /// Reads a `tokenizer.json`, without its settings of truncation and padding.
    ///
    /// [`TextTokenizer::encode`] reports long texts instead of truncating them, and a single text needs no padding.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when the file is malformed or lacks `[CLS]` or `[SEP]`.
    pub fn from_json(json: &[u8]) -> Result<Self, ModelError> {
        let mut inner = Tokenizer::from_bytes(json)
            .map_err(|error| ModelError::tokenizer(format!("tokenizer.json cannot be read: {error}")))?;
        inner.with_truncation(None).map_err(ModelError::tokenizer)?;
        inner.with_padding(None);
        for token in [CLS, SEP] {
            if inner.token_to_id(token).is_none() {
                return Err(ModelError::tokenizer(format!(
                    "the vocabulary must have `{token}`, found {} other pieces; use a BERT tokenizer",
                    inner.get_vocab_size(true)
                )));
            }
        }
        Ok(Self { inner })
    }

    /// The `tokenizer.json` of this tokenizer; equal tokenizers give equal bytes.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when it cannot be written as JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, ModelError> {
        self.inner.to_string(true).map(String::into_bytes).map_err(ModelError::tokenizer)
    }

    /// Builds a vocabulary of at most `vocab_size` pieces from `corpus`.
    ///
    /// It holds the special tokens, then every printable ASCII character, so that any ASCII text can be encoded. The
    /// other pieces come from merging the most frequent neighbours, as in the WordPiece trainer of `tokenizers`. Ties
    /// are broken by spelling, so the same corpus always gives the same vocabulary.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when `vocab_size` is below the number of characters and special tokens.
    pub fn train<'a>(corpus: impl IntoIterator<Item = &'a str>, vocab_size: usize) -> Result<Self, ModelError> {
        let words = count_words(corpus)?;
        let mut pieces: Vec<String> = SPECIAL.iter().map(ToString::to_string).chain(alphabet()).collect();
        if vocab_size < pieces.len() {
            return Err(ModelError::tokenizer(format!(
                "a vocabulary needs at least {} pieces for the characters alone, found vocab_size {vocab_size}",
                pieces.len()
            )));
        }
        Merger::new(&words).grow(&mut pieces, vocab_size);
        Self::from_pieces(pieces)
    }

    /// A tokenizer over the printable ASCII characters alone, for tests and as a fallback.
    ///
    /// # Errors
    /// As [`TextTokenizer::train`].
    pub fn characters() -> Result<Self, ModelError> {
        Self::from_pieces(SPECIAL.iter().map(ToString::to_string).chain(alphabet()).collect())
    }

    /// Token ids of `text`, `[CLS]` first and `[SEP]` last. Long texts are not truncated.
    ///
    /// # Errors
    /// [`ModelError::EmptyInstruction`] when `text` has no word, [`ModelError::InstructionTooLong`] when it has more
    /// than `max_len` tokens.
    pub fn encode(&self, text: &str, max_len: usize) -> Result<Vec<u32>, ModelError> {
        let encoding = self.inner.encode_fast(text, true).map_err(ModelError::tokenizer)?;
        let ids = encoding.get_ids();
        if ids.len() <= 2 {
            return Err(ModelError::EmptyInstruction { found: text.chars().take(40).collect() });
        }
        if ids.len() > max_len {
            return Err(ModelError::InstructionTooLong {
                n_words: text.split_whitespace().count(),
                found: ids.len(),
                limit: max_len,
            });
        }
        Ok(ids.to_vec())
    }

    /// Number of pieces; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    fn from_pieces(pieces: Vec<String>) -> Result<Self, ModelError> {
        let model = wordpiece(pieces)?;
        let id = |token: &str| model.token_to_id(token).map(|id| (token.to_string(), id));
        let (Some(sep), Some(cls)) = (id(SEP), id(CLS)) else {
            return Err(ModelError::tokenizer("the vocabulary must have [CLS] and [SEP]"));
        };
        let mut inner = Tokenizer::new(model);
        inner.with_normalizer(Some(BertNormalizer::default())).map_err(ModelError::tokenizer)?;
        inner.with_pre_tokenizer(Some(BertPreTokenizer));
        inner.with_post_processor(Some(BertProcessing::new(sep, cls)));
        inner.with_decoder(Some(WordPieceDecoder::default()));
        inner.add_special_tokens(SPECIAL.map(|token| AddedToken::from(token, true))).map_err(ModelError::tokenizer)?;
        Ok(Self { inner })
    }
}

/// The library's builder takes a map type that it does not export, so the model goes through its file format.
fn wordpiece(pieces: Vec<String>) -> Result<WordPiece, ModelError> {
    let vocab: BTreeMap<String, u32> = pieces.into_iter().zip(0..).collect();
    let json = serde_json::json!({
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": CONTINUATION,
        "max_input_chars_per_word": 100,
        "vocab": vocab,
    });
    WordPiece::from_bytes(json.to_string()).map_err(ModelError::tokenizer)
}

/// Letters, digits and punctuation as the first piece of a word; letters and digits also as later ones.
/// Punctuation is never a later piece, because BERT splits words at it.
fn alphabet() -> impl Iterator<Item = String> {
    let printable = || (b'!'..=b'~').map(char::from).filter(|c| !c.is_ascii_uppercase());
    let later = printable().filter(char::is_ascii_alphanumeric).map(|c| format!("{CONTINUATION}{c}"));
    printable().map(String::from).chain(later)
}

/// The words of the corpus as BERT splits them, with their counts.
fn count_words<'a>(corpus: impl IntoIterator<Item = &'a str>) -> Result<BTreeMap<String, u64>, ModelError> {
    let mut words = BTreeMap::new();
    for text in corpus {
        let mut normalized = NormalizedString::from(text);
        BertNormalizer::default().normalize(&mut normalized).map_err(ModelError::tokenizer)?;
        let mut split = PreTokenizedString::from(normalized);
        BertPreTokenizer.pre_tokenize(&mut split).map_err(ModelError::tokenizer)?;
        for (word, _, _) in split.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            *words.entry(word.to_string()).or_insert(0) += 1;
        }
    }
    Ok(words)
}

/// Words as sequences of pieces, merged step by step.
struct Merger {
    words: Vec<(Vec<String>, u64)>,
}

impl Merger {
    fn new(counts: &BTreeMap<String, u64>) -> Self {
        let pieces = |word: &str| {
            let piece = |(i, c): (usize, char)| if i == 0 { c.to_string() } else { format!("{CONTINUATION}{c}") };
            word.chars().enumerate().map(piece).collect()
        };
        Self { words: counts.iter().map(|(word, &count)| (pieces(word), count)).collect() }
    }

    /// Adds pieces until there are `vocab_size` or nothing is left to merge.
    fn grow(&mut self, pieces: &mut Vec<String>, vocab_size: usize) {
        let mut known: BTreeSet<String> = pieces.iter().cloned().collect();
        let mut add = |piece: &str, pieces: &mut Vec<String>| {
            if pieces.len() < vocab_size && known.insert(piece.to_string()) {
                pieces.push(piece.to_string());
            }
        };
        let characters: BTreeSet<String> = self.words.iter().flat_map(|(word, _)| word.iter().cloned()).collect();
        characters.iter().for_each(|piece| add(piece, pieces));
        while pieces.len() < vocab_size
            && let Some((left, right)) = self.most_frequent_pair()
        {
            let merged = format!("{left}{}", right.trim_start_matches(CONTINUATION));
            self.merge(&left, &right, &merged);
            add(&merged, pieces);
        }
    }

    fn most_frequent_pair(&self) -> Option<(String, String)> {
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for (word, count) in &self.words {
            for pair in word.windows(2) {
                *counts.entry((&pair[0], &pair[1])).or_insert(0) += count;
            }
        }
        let by_count_then_spelling =
            |a: &(&(&str, &str), &u64), b: &(&(&str, &str), &u64)| a.1.cmp(b.1).then(b.0.cmp(a.0));
        let (pair, _) = counts.iter().max_by(by_count_then_spelling)?;
        Some((pair.0.to_string(), pair.1.to_string()))
    }

    fn merge(&mut self, left: &str, right: &str, merged: &str) {
        for (word, _) in &mut self.words {
            let mut i = 0;
            while i + 1 < word.len() {
                if word[i] == left && word[i + 1] == right {
                    word[i] = merged.to_string();
                    word.remove(i + 1);
                }
                i += 1;
            }
        }
    }
}
