//! The commands of xvip in the documents, and in the play for Kubespray: each is one that the command
//! line and kube-vip's flags take. Nothing is run.

use super::*;
use crate::adapter::{
    self,
    flags::{Flags, Own},
};
use std::{fs, path::Path};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Documents and what they contain.
fn documents() -> Vec<(String, String)> {
    let mut paths = vec![Path::new(REPOSITORY).join("README.md")];
    let docs = fs::read_dir(Path::new(REPOSITORY).join("docs")).unwrap();
    paths.extend(docs.map(|entry| entry.unwrap().path()));
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "md"));
    let read =
        |path: &std::path::PathBuf| (path.display().to_string(), fs::read_to_string(path).unwrap());
    paths.iter().map(read).collect()
}

/// The commands of the blocks of a document, one a line.
fn commands(text: &str) -> Vec<String> {
    let (mut inside, mut found, mut begun) = (false, Vec::new(), String::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with("```") {
            inside = !inside;
        } else if inside {
            match line.strip_suffix('\\') {
                Some(part) => begun += part,
                None => found.push(std::mem::take(&mut begun) + line),
            }
        }
    }
    found
}

/// The words of a command of xvip, without what the shell does with them; `None` if it is none.
fn words(command: &str) -> Option<Vec<OsString>> {
    let mut words = command.split_whitespace().peekable();
    // `env NAME=VALUE…`.
    if words.next_if_eq(&"env").is_some() {
        while words.next_if(|word| word.contains('=')).is_some() {}
    }
    words.next_if(|word| matches!(*word, "xvip" | "kube-vip"))?;
    let rest = words.take_while(|word| !word.starts_with(['>', '|', '#', ';', '&']));
    Some(std::iter::once("xvip").chain(rest).map(OsString::from).collect())
}

/// Fails if the command line or a flag is wrong.
fn check(place: &str, words: &[OsString]) {
    let parsed = Cli::try_parse_from(arranged(words.to_vec()));
    let command = parsed.unwrap_or_else(|error| panic!("{place}: {error}")).command;
    let read = |flags: &[OsString], own: &[Own]| -> Flags {
        let words: Vec<String> = flags.iter().map(|flag| flag.to_str().unwrap().to_owned()).collect();
        adapter::flags::parse(&words, own)
    };
    let flags = match &command {
        Command::Manager(settings) => read(&settings.flags, &[manager::CHECK]),
        Command::Manifest { settings, .. } | Command::Kubeadm { settings, .. } => {
            read(&settings.flags, &manifest::OWN)
        }
        _ => return,
    };
    assert!(flags.refused.is_empty(), "{place}: {words:?}: {:?}", flags.refused);
}

#[test]
fn the_commands_of_the_documents_are_taken() {
    let mut count = 0;
    for (place, text) in documents() {
        for words in commands(&text).iter().filter_map(|command| words(command)) {
            check(&place, &words);
            count += 1;
        }
    }
    assert!(count >= 20, "only {count} commands were found");
}

#[test]
fn the_flags_of_the_play_are_taken() {
    let path = Path::new(REPOSITORY).join("deploy/kube-vip/kubespray-play.yml");
    let play: serde_json::Value = serde_norway::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let flags = play[0]["vars"]["xvip_flags"].as_str().unwrap();
    // What Ansible puts in: a variable, or the flag that an expression may add.
    let (mut line, mut rest) = (String::from("xvip manifest pod "), flags);
    while let Some((before, inside)) = rest.split_once("{{") {
        let (expression, after) = inside.split_once("}}").unwrap();
        let flag = expression.trim().strip_prefix('\'').and_then(|quoted| quoted.split_once('\''));
        line = line
            + before
            + &flag.map_or("x".to_owned(), |(flag, _)| flag.replace("interface ", "interface x"));
        rest = after;
    }
    for flag in ["--first", "--perfmon", "--interface x", "--address x", "--leaseRetry x"] {
        assert!(line.contains(flag), "{flag}: {line}");
    }
    check("the play", &words(&line).unwrap()[..]);
}
