//! `validate`: every mistake of workflow files, without a server.

use std::path::{Path, PathBuf};

use kickwheel_schemas::api::{DiagnosticView, Page};
use kickwheel_spec::{Diagnostic, Severity};
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report};

use super::Session;
use crate::{
    check,
    exit::{Exit, Outcome},
    output::{Look, say},
};

/// Width of rendered mistakes where there is no terminal to ask.
const WIDTH: usize = 110;

/// Checks the files; with `--json` a list of `DiagnosticView`, else each mistake with the place in the source.
pub fn validate(session: &Session, files: &[PathBuf]) -> Outcome {
    let mut views: Vec<DiagnosticView> = Vec::new();
    let mut broken = 0;
    for file in files {
        let source = check::read(file)?;
        let compiled = check::check(&source);
        let errors = compiled.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
        broken += usize::from(errors > 0);
        if session.look.json {
            let name = file.display().to_string();
            views.extend(compiled.diagnostics.iter().map(|d| d.view(&name, &source)));
            continue;
        }
        if !compiled.diagnostics.is_empty() {
            say(render(session.look, file, &source, &compiled.diagnostics))?;
        }
        say(verdict(file, errors, compiled.diagnostics.len() - errors))?;
    }
    if session.look.json {
        say(serde_json::to_string(&Page { items: views, next: None }).expect("diagnostics are JSON"))?;
    }
    Ok(if broken == 0 { Exit::Ok } else { Exit::Failed })
}

fn verdict(file: &Path, errors: usize, warnings: usize) -> String {
    let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let file = file.display();
    match (errors, warnings) {
        (0, 0) => format!("{file}: ok"),
        (0, w) => format!("{file}: ok, with {}", count(w, "warning")),
        (e, 0) => format!("{file}: {}", count(e, "mistake")),
        (e, w) => format!("{file}: {} and {}", count(e, "mistake"), count(w, "warning")),
    }
}

/// Each diagnostic with its excerpt, the place marked, and what to do.
pub fn render(look: Look, file: &Path, source: &str, diagnostics: &[Diagnostic]) -> String {
    let theme = if look.color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let width = if look.terminal { terminal_width() } else { WIDTH };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_links(false);
    let mut text = String::new();
    for diagnostic in diagnostics {
        let mut shown = MietteDiagnostic::new(diagnostic.message.clone())
            .with_code(diagnostic.code)
            .with_severity(match diagnostic.severity {
                Severity::Error => miette::Severity::Error,
                Severity::Warning => miette::Severity::Warning,
            })
            .with_label(LabeledSpan::at(diagnostic.span.clone(), "here"));
        if let Some(help) = &diagnostic.help {
            shown = shown.with_help(help.clone());
        }
        let named = NamedSource::new(file.display().to_string(), source.to_owned());
        let report = Report::new(shown).with_source_code(named);
        // Writing to a String does not fail; if the renderer does, the message itself must still be seen.
        if handler.render_report(&mut text, report.as_ref()).is_err() {
            text.push_str(&format!("{}:{}: {}\n", diagnostic.line, diagnostic.column, diagnostic.message));
        }
    }
    text
}

fn terminal_width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout()).map_or(WIDTH, |size| usize::from(size.ws_col).clamp(40, 160))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_shown_where_it_is_with_what_to_do() {
        let source = "version: 1\nname: churn\nsteps:\n  train:\n    rnu: python train.py\n";
        let at = source.find("rnu").expect("it is there");
        let diagnostic = Diagnostic {
            code: "unknown_key",
            message: "there is no key `rnu` in a step".to_owned(),
            help: Some("did you mean `run`?".to_owned()),
            line: 5,
            column: 5,
            span: at..at + 3,
            severity: Severity::Error,
        };
        insta::assert_snapshot!(render(Look::PLAIN, Path::new("churn.yaml"), source, &[diagnostic]));
    }

    #[test]
    fn the_verdict_counts() {
        let file = Path::new("f");
        assert_eq!(verdict(file, 0, 0), "f: ok");
        assert_eq!(verdict(file, 1, 0), "f: 1 mistake");
        assert_eq!(verdict(file, 5, 1), "f: 5 mistakes and 1 warning");
    }
}
