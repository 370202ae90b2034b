//! A workflow file with mistakes disables itself and nothing else, and is reported where its author looks.

use kickwheel_tests::{
    harness::{Engine, on_each_database},
    repo::Repo,
    wait::until,
};
use serde_json::Value;

const GOOD: &str = "version: 1\nname: good\non: {git.push: {repo: wheel}}\nsteps: {turn: {run: 'true'}}\n";
/// With a warning, too: nothing reads its input.
const BROKEN: &str = "version: 1\nname: broken\non: {git.push: {repo: wheel}}\nsteps: {turn: {rum: 'true'}}\n\
    inputs: {depth: {type: integer, default: 1}}\n";

fn workflow(page: &Value, named: impl Fn(&str) -> bool) -> Option<Value> {
    page["items"].as_array()?.iter().find(|w| w["id"].as_str().is_some_and(&named)).cloned()
}

#[test]
fn a_broken_workflow_file_disables_only_itself_and_is_reported_everywhere() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        let repo = Repo::make(&engine.folder().join("git"), "wheel");
        engine.bind(&repo, "wheel");
        let commit = repo.push(&[(".kickwheel/good.yaml", GOOD), (".kickwheel/broken.yaml", BROKEN)]);
        engine.pushed(&commit).wait_for("succeeded");
        assert_eq!(engine.run()["workflow"], "good");
        assert_eq!(engine.runs().len(), 1);

        let is_broken = |id: &str| id.contains("broken");
        for page in [engine.api().get("workflows"), engine.cli_json(&["workflows", "ls"])] {
            let broken = workflow(&page, is_broken).unwrap_or_else(|| panic!("it is not listed: {page:#}"));
            assert_eq!(broken["state"], "broken", "{broken:#}");
            let diagnostic = &broken["diagnostics"][0];
            assert_eq!(diagnostic["line"], 4, "{broken:#}");
            let severities: Vec<_> =
                broken["diagnostics"].as_array().into_iter().flatten().map(|d| d["severity"].clone()).collect();
            assert_eq!(severities, ["error", "warning"], "{broken:#}");
            assert!(diagnostic["help"].as_str().is_some_and(|h| h.contains("run")), "{broken:#}");
            assert_eq!(workflow(&page, |id| id == "good").expect("it is listed")["state"], "active");
        }
        let shown = String::from_utf8_lossy(&engine.cli(&["workflows", "ls"]).stdout).into_owned();
        assert!(shown.contains("broken"), "{shown}");
        let note = until("the note tells of the mistake", || repo.note(&commit).filter(|n| n.contains("broken.yaml")));
        assert!(note.contains(":4:") && !note.contains("depth"), "a warning is no mistake: {note}");
        let event = note.lines().find_map(|line| line.strip_prefix("event: ")).expect("the section names the event");
        assert!(note.contains(&format!("kickwheel explain {event}")), "{note}");
        let explained = engine.cli(&["explain", event]);
        assert!(explained.status.success(), "{}", String::from_utf8_lossy(&explained.stderr));
        until("and of the run", || repo.note(&commit).filter(|n| n.contains("succeeded")));

        // Mended, it is as good as any other.
        let mended = repo.push(&[(".kickwheel/broken.yaml", &BROKEN.replace("rum", "run"))]);
        until("both have run", || {
            let runs = engine.runs();
            let of = |w: &str| {
                runs.iter().any(|r| r["commit"] == mended.as_str() && r["workflow"] == w && r["state"] == "succeeded")
            };
            (of("good") && of("broken")).then_some(())
        });
    });
}
