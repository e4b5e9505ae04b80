//! The tokenizer.

use robomamba_model::{ModelError, TextTokenizer};

const CORPUS: [&str; 4] = [
    "Push the red block to the left zone.",
    "push the blue block to the right zone",
    "Pick up the red ball, then put it into the blue zone!",
    "reach the green circle (twice)",
];

#[test]
fn training_is_deterministic_and_learns_the_words_of_the_corpus() {
    let train = || TextTokenizer::train(CORPUS, 400).unwrap();
    let tokenizer = train();
    assert_eq!(tokenizer.to_json().unwrap(), train().to_json().unwrap());
    // [CLS] push the red block [SEP]
    assert_eq!(tokenizer.encode("Push the RED block", 16).unwrap().len(), 6);
    // A word that was never seen is spelled with smaller pieces.
    let ids = tokenizer.encode("pushover", 16).unwrap();
    assert!(ids.len() > 3, "{ids:?}");
}

#[test]
fn vocabulary_stays_within_its_limit_and_says_what_it_needs() {
    for size in [128, 150, 400, 100_000] {
        assert!(TextTokenizer::train(CORPUS, size).unwrap().vocab_size() <= size);
    }
    let error = TextTokenizer::train(CORPUS, 100).unwrap_err().to_string();
    assert_eq!(
        error,
        "tokenizer: a vocabulary needs at least 109 pieces for the characters alone, found vocab_size 100"
    );
}

#[test]
fn every_printable_ascii_text_has_an_encoding_without_unknown_pieces() {
    let tokenizer = TextTokenizer::characters().unwrap();
    let unknown = 1;
    let all: String = (b' '..=b'~').map(char::from).collect();
    for text in [all.as_str(), "x7Q9 don't (stop)! 3.5cm @#~`", "[]{}<>|\\^_"] {
        let ids = tokenizer.encode(text, 1000).unwrap();
        assert!(!ids.contains(&unknown), "{text}: {ids:?}");
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    }
}

#[test]
fn json_round_trip_keeps_every_encoding() {
    let tokenizer = TextTokenizer::train(CORPUS, 300).unwrap();
    let json = tokenizer.to_json().unwrap();
    let again = TextTokenizer::from_json(&json).unwrap();
    assert_eq!(again.to_json().unwrap(), json);
    for text in CORPUS.into_iter().chain(["Ünïcode 机器人", "unseen words"]) {
        assert_eq!(again.encode(text, 64).unwrap(), tokenizer.encode(text, 64).unwrap(), "{text}");
    }
}

#[test]
fn truncation_and_padding_of_a_public_tokenizer_are_switched_off() {
    let json = String::from_utf8(TextTokenizer::characters().unwrap().to_json().unwrap()).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    json["truncation"] =
        serde_json::json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = serde_json::json!({"strategy": {"Fixed": 32}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"});
    let tokenizer = TextTokenizer::from_json(json.to_string().as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("a b c d e f", 32).unwrap().len(), 8);
}

#[test]
fn empty_and_endless_instructions_are_errors_that_say_why() {
    let tokenizer = TextTokenizer::train(CORPUS, 400).unwrap();
    for text in ["", "   ", "\n\t", "\u{200b}\u{0}"] {
        let error = tokenizer.encode(text, 16).unwrap_err();
        assert!(matches!(error, ModelError::EmptyInstruction { .. }), "{text:?}: {error}");
    }
    let error = tokenizer.encode(&"push ".repeat(10_000), 128).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the instruction has 10000 words, which are 10002 tokens; the text encoder takes at most 128 tokens; \
         shorten it to a sentence or two"
    );
    let as_policy_error = robomamba_policy::PolicyError::from(error);
    assert!(matches!(as_policy_error, robomamba_policy::PolicyError::Instruction { .. }));
    assert_eq!(tokenizer.encode("push the block", 5).unwrap().len(), 5);
    assert!(tokenizer.encode("push the block", 4).is_err());
}

#[test]
fn foreign_files_are_refused_with_a_reason() {
    for json in [&b"not json"[..], b"{}", &[0xff; 16]] {
        assert!(matches!(TextTokenizer::from_json(json), Err(ModelError::Tokenizer { .. })));
    }
    let json = String::from_utf8(TextTokenizer::characters().unwrap().to_json().unwrap()).unwrap();
    let error = TextTokenizer::from_json(json.replace("[SEP]", "[END]").as_bytes()).unwrap_err();
    assert!(error.to_string().contains("`[SEP]`"), "{error}");
}
