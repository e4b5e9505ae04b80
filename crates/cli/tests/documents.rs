//! What documents show works: commands parse, Rust is compiled elsewhere, files that are named exist.

mod tracked;

use std::path::Path;

use tracked::{read, root, tracked};

/// The fenced blocks of a document with the word behind the fence.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.trim().to_string(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, content)), None) => *content += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

#[test]
fn rust_in_documents_is_compiled_by_doctests() {
    let with_rust = |path: &String| blocks(&read(path)).iter().any(|(language, _)| language.starts_with("rust"));
    let documents: Vec<String> = tracked("*.md").into_iter().filter(with_rust).collect();
    // The facade's documentation includes it.
    assert_eq!(documents, ["README.md"]);
    let facade = read("crates/robomamba/src/lib.rs");
    assert!(facade.contains("include_str!(\"../../../README.md\")"));
    for (language, _) in blocks(&read("README.md")).iter().filter(|(language, _)| language.starts_with("rust")) {
        assert!(!language.contains("ignore"), "a block of README.md is not compiled");
    }
}

/// The commands of a block of shell, continued lines joined, without comments.
fn commands(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines().map(|line| line.split(" #").next().unwrap_or_default().trim().to_string());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// The arguments that a command gives to `robomamba`, if it is one that runs it.
fn arguments(command: &str) -> Option<Vec<&str>> {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["robomamba", arguments @ ..] => Some(arguments.to_vec()),
        ["cargo", "run", ..] if !words.contains(&"--example") => {
            let end = words.iter().position(|word| *word == "--")?;
            Some(words[end + 1..].to_vec())
        }
        _ => None,
    }
}

#[test]
fn commands_in_documents_parse() {
    let mut checked = 0;
    for path in tracked("*.md") {
        let shell = blocks(&read(&path)).into_iter().filter(|(language, _)| ["sh", "bash"].contains(&&**language));
        for command in shell.flat_map(|(_, block)| commands(&block)) {
            if let Some(arguments) = arguments(&command) {
                if let Err(error) = robomamba_cli::check_arguments(arguments) {
                    panic!("{path}: `{command}`: {error}");
                }
                checked += 1;
            } else if let Some(script) = command.strip_prefix("bash ") {
                let script = script.split_whitespace().next().unwrap_or_default();
                assert!(root().join(script).is_file(), "{path}: `{script}` does not exist");
                checked += 1;
            }
        }
    }
    assert!(checked >= 8, "only {checked} commands were found");
    assert!(robomamba_cli::check_arguments(["demo", "--episode", "1"]).is_err(), "the parser is the real one");
}

#[test]
fn links_in_documents_lead_somewhere() {
    for path in tracked("*.md") {
        let folder = root().join(&path).parent().map(Path::to_path_buf).unwrap_or_default();
        for part in read(&path).split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default().split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                assert!(folder.join(target).exists(), "{path}: `{target}` does not exist");
            }
        }
    }
}
