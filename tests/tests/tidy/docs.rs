//! What is written is still true: examples compile, commands exist, codes are explained, links lead somewhere.

use std::collections::BTreeSet;

use kickwheel_spec::{Code, PluginCatalog, PluginInfo, compile};

use crate::tree;

/// Pages that a user or contributor reads.
fn pages() -> Vec<&'static str> {
    tree::files_ending(".md").into_iter().filter(|path| !path.starts_with("plugins/")).collect()
}

fn catalog() -> PluginCatalog {
    let shipped = kickwheel_wasm::builtin_catalog();
    PluginCatalog(
        shipped.into_iter().map(|(name, (digest, manifest))| (name, PluginInfo { digest, manifest })).collect(),
    )
}

/// Adds one complaint for each mistake in a workflow document.
fn check_workflow(name: &str, text: &str, complaints: &mut Vec<String>) {
    let compiled = compile(text, &catalog());
    for found in compiled.diagnostics {
        complaints.push(format!("{name}:{}:{}: {} ({})", found.line, found.column, found.message, found.code));
    }
}

/// The fenced blocks of a page: (line of the fence, language, text).
fn blocks(page: &str) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (number, line) in tree::read(page).lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((number + 1, language.trim().to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some((_, _, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a fence is not closed");
    found
}

#[test]
fn example_workflows_compile() {
    let mut complaints = Vec::new();
    let examples: Vec<_> = tree::files()
        .iter()
        .filter(|path| path.starts_with("workflows/") && (path.ends_with(".yaml") || path.ends_with(".yml")))
        .collect();
    assert!(examples.len() >= 2, "workflows/ holds examples");
    for path in examples {
        check_workflow(path, &tree::read(path), &mut complaints);
    }
    tree::none(complaints);
}

#[test]
fn workflows_printed_in_pages_compile() {
    let mut complaints = Vec::new();
    let mut checked = 0;
    for page in pages() {
        for (line, language, text) in blocks(page) {
            if language == "yaml" && text.starts_with("version: 1\n") {
                checked += 1;
                check_workflow(&format!("{page} (block at line {line})"), &text, &mut complaints);
            }
        }
    }
    assert!(checked >= 2, "README.md and docs/workflows.md print whole workflows");
    tree::none(complaints);
}

#[test]
fn every_example_folder_says_what_it_is() {
    let folders: BTreeSet<&str> = tree::files()
        .iter()
        .filter_map(|path| path.strip_prefix("workflows/"))
        .filter_map(|path| path.split_once('/').map(|(folder, _)| folder))
        .collect();
    tree::none(
        folders
            .iter()
            .filter(|folder| !tree::root().join("workflows").join(folder).join("README.md").is_file())
            .map(|folder| format!("workflows/{folder} has no README.md"))
            .collect(),
    );
}

#[test]
fn dev_commands_named_in_pages_exist() {
    let usage = std::process::Command::new(tree::root().join("dev")).output().expect("./dev runs");
    let usage = String::from_utf8(usage.stdout).expect("its usage is text");
    let known: BTreeSet<&str> =
        usage.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    assert!(known.contains("demo") && known.contains("test"), "{known:?}");
    let mut complaints = Vec::new();
    for page in pages() {
        for (number, line) in tree::read(page).lines().enumerate() {
            for rest in line.split("./dev ").skip(1) {
                let word: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
                if !word.is_empty() && !known.contains(word.as_str()) {
                    complaints.push(format!("{page}:{}: ./dev {word} does not exist", number + 1));
                }
            }
        }
    }
    tree::none(complaints);
}

#[test]
fn commands_printed_in_pages_exist() {
    let binary = std::env::var("KICKWHEEL_BIN").unwrap_or_default();
    if !std::path::Path::new(&binary).is_file() {
        assert!(std::env::var("REQUIRE_ALL").as_deref() != Ok("1"), "KICKWHEEL_BIN names no binary, and REQUIRE_ALL=1");
        eprintln!("SKIPPED: KICKWHEEL_BIN names no binary; ./dev test sets it");
        return;
    }
    let mut complaints = Vec::new();
    let mut checked = 0;
    for page in pages() {
        for (line, language, text) in blocks(page) {
            for command in text.lines().filter_map(|line| line.trim_start_matches("$ ").strip_prefix("kickwheel ")) {
                if language != "sh" {
                    continue;
                }
                checked += 1;
                // What follows `#`, a pipe or a redirection is the shell's. An unknown word is refused before --help.
                let ours = command.split([' ']).take_while(|word| !matches!(*word, "#" | "|" | ">" | "&" | "&&"));
                let arguments = ours.filter(|word| !word.is_empty()).map(|word| word.trim_matches(['"', '\'']));
                let output = std::process::Command::new(&binary)
                    .args(arguments.chain(["--help"]))
                    .output()
                    .expect("the binary runs");
                if !output.status.success() {
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    complaints.push(format!("{page} (block at line {line}): kickwheel {command}\n    {said}"));
                }
            }
        }
    }
    assert!(checked > 20, "only {checked} commands found in the pages");
    tree::none(complaints);
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut complaints = Vec::new();
    for page in pages() {
        let folder = std::path::Path::new(page).parent().expect("a file has a folder").to_owned();
        for (number, line) in tree::read(page).lines().enumerate() {
            for rest in line.split("](").skip(1) {
                let target = rest.split(')').next().unwrap_or("");
                let path = target.split('#').next().unwrap_or("");
                if path.is_empty() || path.contains("://") {
                    continue;
                }
                if !tree::root().join(&folder).join(path).exists() {
                    complaints.push(format!("{page}:{}: {target} does not exist", number + 1));
                }
            }
        }
    }
    tree::none(complaints);
}

/// Where codes of errors are written in the code: right after these words, as the first text.
const CODE_PLACES: &[&str] = &[
    "code: ",
    "Failure::new(",
    "Refusal::new(",
    "Self::new(",
    "Refusal::invalid(",
    "not_found(",
    "invalid(",
    "conflict(",
    "unavailable(",
];

/// A text literal that looks like a code: `run_not_found`. Codes of diagnostics have hyphens and are listed by the crate.
fn code_after(text: &str) -> Option<&str> {
    // The code is among the first arguments; a closing bracket or a statement's end before it ends the search.
    let upto = text.find([';', '{']).unwrap_or(text.len()).min(text.len());
    let rest = &text[..upto];
    let start = rest.find('"')? + 1;
    let end = start + rest[start..].find('"')?;
    let code = &rest[start..end];
    let fits = code.len() > 2 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    fits.then_some(code)
}

/// The product code that may name codes: what a user's request or command passes through.
fn texts_with_codes() -> Vec<String> {
    let folders = ["engine/runtime/src/", "engine/server/src/", "engine/cli/src/", "triggers/src/"];
    tree::files_ending(".rs")
        .into_iter()
        .filter(|path| folders.iter().any(|folder| path.starts_with(folder)) && !super::sources::is_test(path))
        .map(|path| super::sources::code_lines(path).into_iter().map(|(_, line)| line + "\n").collect())
        .collect()
}

#[test]
fn every_error_code_is_explained_and_none_is_explained_in_vain() {
    let texts = texts_with_codes();
    let diagnostics: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let mut used = diagnostics.clone();
    for text in &texts {
        for place in CODE_PLACES {
            used.extend(text.match_indices(place).filter_map(|(at, _)| code_after(&text[at..])));
        }
    }
    assert!(used.len() > diagnostics.len() + 20, "too few codes found: this test looks in the wrong place: {used:?}");

    // The first cell of a row of `docs/errors.md` names one or more codes.
    let page = tree::read("docs/errors.md");
    let explained: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next())
        .flat_map(|cell| cell.split(", "))
        .map(|code| code.trim_matches('`'))
        .collect();
    let mut complaints: Vec<String> =
        used.difference(&explained).map(|code| format!("docs/errors.md does not explain {code}")).collect();
    // A code may also be chosen by a `match` first: then its text is all that can be found.
    let written = |code: &str| texts.iter().any(|text| text.contains(&format!("\"{code}\"")));
    for code in explained.difference(&used).filter(|code| !written(code)) {
        complaints.push(format!("docs/errors.md explains {code}, which is never used"));
    }
    tree::none(complaints);
}

#[test]
fn exit_codes_in_the_page_are_those_of_the_program() {
    let page = tree::read("docs/cli.md");
    let code = tree::read("engine/cli/src/exit.rs");
    let help =
        code.split("pub const HELP").nth(1).and_then(|rest| rest.split("\";").next()).expect("exit.rs lists the codes");
    let documented: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next())
        .filter(|word| word.bytes().all(|b| b.is_ascii_digit()))
        .collect();
    let known: BTreeSet<&str> = help
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| word.bytes().all(|b| b.is_ascii_digit()))
        .collect();
    assert!(known.len() > 3, "{help}");
    assert_eq!(documented, known);
}
