//! Nothing that anybody may push makes the compiler panic, hang or disagree with itself.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::compiled;
use crate::diagnostic::MAX_DIAGNOSTICS;

const SEED: &str = r#"version: 1
name: seed
on: {git.push: {branches: ["a/*"], where: 'has(event.data.actor) && event.data.actor == "x"'}, manual: {}}
inputs: {n: {type: integer, default: 1}}
steps:
  a:
    run: |
      echo hi
    matrix: {x: [1, 2], y: "${{ [1, 2].map(i, i + inputs.n) }}"}
    env: {A: &a "${{ matrix.x }} and ${{ matrix.y }}", B: *a}
    outputs: {o: out/o}
  b: {uses: best-of, with: {candidates: "${{ steps.a.tasks }}", metric: m}, if: "steps.a.outputs.o[0].size > 1"}
"#;

/// Places, order and the promise that a workflow comes exactly without errors.
fn assert_sound(source: &str) {
    let compiled = compiled(source);
    assert!(compiled.diagnostics.len() <= MAX_DIAGNOSTICS);
    assert!(compiled.diagnostics.is_sorted_by_key(|d| d.span.start));
    for diagnostic in &compiled.diagnostics {
        assert!(source.get(diagnostic.span.clone()).is_some(), "{diagnostic:?}");
        let view = diagnostic.view("f", source);
        assert!(view.line >= 1 && view.column >= 1);
    }
    if let Some(workflow) = compiled.workflow {
        let stored = serde_json::to_vec(&workflow).expect("a workflow has string keys only");
        assert_eq!(workflow, serde_json::from_slice(&stored).expect("what was stored can be read"));
        for (index, step) in workflow.plan.steps.iter().enumerate() {
            assert!(step.needs.iter().all(|need| *need < index), "needs come before");
        }
    } else {
        assert!(!compiled.diagnostics.is_empty(), "a refusal says why");
    }
}

#[test]
fn the_seed_itself_is_right() {
    super::check(SEED, &[]);
}

#[test]
fn enormous_files_end_quickly_and_with_few_words() {
    let many = |item: fn(usize) -> String, count: usize| (0..count).map(item).collect::<String>();
    let files = [
        format!(
            "version: 1\nname: w\nsteps:\n{}",
            many(|n| format!("  s{n}: {{run: x, needs: [t{n}, u{n}]}}\n"), 5_000)
        ),
        format!("version: 1\nname: w\nsteps: {{a: {{run: x, needs: [{}]}}}}\n", many(|n| format!("b{n}, "), 20_000)),
        format!("version: 1\nname: w\nsteps: {{a: {{run: x{}}}}}\n", many(|n| format!(", k{n}: 1"), 20_000)),
        format!("version: 1\nname: w\nsteps: {{a: {{run: '{}'}}}}\n", "${{ x }} ".repeat(20_000)),
        format!("version: 1\nname: w\nsteps: {{a: {{run: x, env: {{A: '{}'}}}}}}\n", "${{ x }} ".repeat(20_000)),
        format!("version: 1\nname: w\nsteps: {{a: {{run: x, if: '{}x'}}}}\n", "!(".repeat(2_000)),
    ];
    for file in files {
        let started = Instant::now();
        assert_sound(&file);
        // Far above what it takes, so that a busy machine does not matter, and far below what a quadratic search would.
        assert!(started.elapsed() < Duration::from_secs(30), "{:?} for {}…", started.elapsed(), &file[..60]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_survived(source in "\\PC{0,200}|[ \\n:\\-\\[\\]{}'\"&*!|>%@`,?#a-c0-9$.]{0,200}") {
        assert_sound(&source);
    }

    #[test]
    fn any_mutation_of_a_right_file_is_survived(
        at in 0..SEED.len(),
        length in 0_usize..12,
        insert in "[ \\n:\\-\\[\\]{}'\"&*!|>$.()x1ü]{0,8}",
    ) {
        let mut source = SEED.to_owned();
        let at = (0..=at).rev().find(|at| SEED.is_char_boundary(*at)).unwrap_or(0);
        let end = (at + length).min(SEED.len());
        let end = (end..=SEED.len()).find(|end| SEED.is_char_boundary(*end)).unwrap_or(SEED.len());
        source.replace_range(at..end, &insert);
        assert_sound(&source);
    }

    #[test]
    fn any_expression_is_survived(expression in "[a-c.()\\[\\]?:&|!<>=+*\"'{}, 0-9]{0,40}|steps(\\.[a-c]{1,7}|\\[\"a\"\\]|\\[0\\]){0,4}") {
        let source = format!("version: 1\nname: w\nsteps:\n  a: {{run: x}}\n  b:\n    run: x\n    if: |\n      {expression}\n");
        assert_sound(&source);
    }

    /// Needs at random: either a cycle is reported, or every step comes after its needs. Which of the two is found out
    /// here in another way, by following needs for as many rounds as there are steps.
    #[test]
    fn a_cycle_is_reported_exactly_where_there_is_one(needs in prop::collection::vec(prop::collection::vec(0_usize..8, 0..3), 8)) {
        let mut source = String::from("version: 1\nname: w\nsteps:\n");
        for (step, needs) in needs.iter().enumerate() {
            let names: Vec<String> = needs.iter().filter(|need| **need != step).map(|need| format!("s{need}")).collect();
            source.push_str(&format!("  s{step}: {{run: x, needs: [{}]}}\n", names.join(", ")));
        }
        let mut reach: Vec<Vec<bool>> = (0..8).map(|step| (0..8).map(|need| need != step && needs[step].contains(&need)).collect()).collect();
        for _ in 0..8 {
            for step in 0..8 {
                for via in 0..8 {
                    for need in 0..8 {
                        if reach[step][via] && reach[via][need] {
                            reach[step][need] = true;
                        }
                    }
                }
            }
        }
        let cyclic = (0..8).any(|step| reach[step][step]);
        let codes: Vec<&str> = compiled(&source).diagnostics.iter().map(|d| d.code).collect();
        prop_assert_eq!(codes.contains(&"cycle"), cyclic, "{}", source);
        prop_assert_eq!(codes.is_empty(), !cyclic, "{}", source);
        assert_sound(&source);
    }
}
