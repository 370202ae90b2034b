//! Small broken files, each with all that is to be said about it and where.

use super::{check, compiled, only, with_step};

#[test]
fn keys_must_exist() {
    check("version: 1\nname: w\nstep: {}\nsteps: {a: {run: x}}\n", &["unknown-key 3:1"]);
    check(&with_step("run: x\nretires: 3"), &["unknown-key 6:5"]);
    check(&with_step("run: x\nretry: {max: 1, backof: {}}"), &["unknown-key 6:21"]);
    check(&with_step("run: x\nresources: {gpus: 1}"), &["unknown-key 6:17"]);
    check(&with_step("run: x\noutputs: {m: {pth: x}}"), &["unknown-key 6:19"]);
    check("version: 1\nname: w\non: {git.push: {branch: main}}\nsteps: {a: {run: x}}\n", &["unknown-key 3:17"]);
    assert_eq!(
        only(&with_step("run: x\nretires: 3")),
        ("a step has no key `retires`".into(), "did you mean `retry`?".into())
    );
}

#[test]
fn keys_of_later_releases_are_unknown_like_any_other() {
    check("version: 1\nname: w\nconcurrency: {limit: 1}\nsteps: {a: {run: x}}\n", &["unknown-key 3:1"]);
    check(&with_step("run: x\nsweep: {}"), &["unknown-key 6:5"]);
    check("version: 1\nname: w\non: {jira.issue: {project: X}}\nsteps: {a: {run: x}}\n", &["unknown-trigger 3:6"]);
    let (message, help) = only("version: 1\nname: w\non: {git.psh: {}}\nsteps: {a: {run: x}}\n");
    assert_eq!(message, "there is no trigger `git.psh`");
    assert_eq!(
        help,
        "did you mean `git.push`? Known triggers: `git.push`, `dataset.changed`, `manual`, `event`, `cron`"
    );
}

#[test]
fn schedules_must_be_due_some_day() {
    let cron = |keys: &str| format!("version: 1\nname: w\non:\n  cron: {{{keys}}}\nsteps: {{a: {{run: x}}}}\n");
    check(&cron("timezone: UTC"), &["missing-key 4:3"]);
    check("version: 1\nname: w\non: cron\nsteps: {a: {run: x}}\n", &["missing-key 3:5"]);
    check(&cron("schedule: '0 3 * *'"), &["bad-value 4:20"]);
    check(&cron("schedule: '0 25 * * MON'"), &["bad-value 4:23"]);
    check(&cron("schedule: '0 0 30 2 *'"), &["bad-value 4:20"]);
    check(&cron("schedule: '@reboot'"), &["bad-value 4:20"]);
    check(&cron("schedule: 5"), &["wrong-type 4:20"]);
    check(
        &cron("schedule: '* * * * *', timezone: Europe/Berln, missed: last, deadline: 0s"),
        &["bad-value 4:43", "bad-value 4:65", "bad-value 4:81"],
    );
    assert_eq!(
        only(&cron("schedule: '0 3 * * MOO'")),
        (
            "`MOO` cannot be the day of week of a schedule".into(),
            "values are 0 to 7 (0 and 7 are Sunday) or SUN to SAT, ranges ascend, steps are 1 to 7".into()
        )
    );
    assert_eq!(
        only(&cron("schedule: '@daily', timezone: berlin")),
        ("there is no time zone `berlin`".into(), "did you mean `Europe/Berlin`?".into())
    );
    check(&cron("schedule: '@daily', where: event.data.branch == 'x'"), &["unknown-field 4:48"]);
}

#[test]
fn fields_of_what_runs_and_models_say_are_known() {
    let on = |ty: &str, condition: &str| {
        format!("version: 1\nname: w\non:\n  event: {{type: {ty}, where: '{condition}'}}\nsteps: {{a: {{run: x}}}}\n")
    };
    let finished = "dev.kickwheel.run.finished";
    check(&on(finished, "event.data.state == \"succeeded\" && event.data.cause.type != \"\""), &[]);
    check(&on(finished, "event.data.stat == \"x\""), &["unknown-field 4:64"]);
    check(&on(finished, "event.data.branch == \"main\""), &["uncertain-field 4:64"]);
    check(&on("dev.kickwheel.model.promoted", "event.data.metrics.loss < 0.5 && event.data.version > 1"), &[]);
    check(&on("dev.kickwheel.run.finish", "true"), &["unknown-event-type 4:17"]);
}

#[test]
fn what_must_be_there_is_missed() {
    check("{}", &["missing-key 1:1", "missing-key 1:1", "missing-key 1:1"]);
    check("version: 1\nname: w\nsteps: {}\n", &["bad-value 3:8"]);
    check("version: 1\nname: w\nsteps:\n", &["wrong-type 3:1"]);
    check("version: 1\nname: w\nsteps:\n  a:\n", &["wrong-type 4:3"]);
    check("version: 1\nname: w\non: {event: {id: x}}\nsteps: {a: {run: x}}\n", &["missing-key 3:6"]);
    check("version: 1\nname: w\non: {}\nsteps: {a: {run: x}}\n", &["bad-value 3:5"]);
    check("version: 1\nname: w\non: []\nsteps: {a: {run: x}}\n", &["bad-value 3:5"]);
    check("version: 1\nname: w\non: event\nsteps: {a: {run: x}}\n", &["missing-key 3:5"]);
    check("version: 1\nname: w\ninputs: {x: {default: 1}}\nsteps: {a: {run: x}}\n", &["missing-key 3:10"]);
}

#[test]
fn version_is_one() {
    check("version: 2\nname: w\nsteps: {a: {run: x}}\n", &["bad-version 1:10"]);
    check("version: \"1\"\nname: w\nsteps: {a: {run: x}}\n", &["bad-version 1:10"]);
}

#[test]
fn values_have_types() {
    check("- a\n", &["wrong-type 1:1"]);
    check("version: 1\nname: [w]\nsteps: {a: {run: x}}\n", &["wrong-type 2:7"]);
    check(&with_step("run: 1"), &["wrong-type 5:10"]);
    check(&with_step("run: x\nneeds: {b: c}"), &["wrong-type 6:12"]);
    check(&with_step("run: x\nneeds: [1]"), &["wrong-type 6:13"]);
    check(&with_step("run: x\ntimeout: 5"), &["wrong-type 6:14"]);
    check(&with_step("run: x\ncache: yes"), &["wrong-type 6:12"]);
    check(&with_step("run: x\nenv: {A: [1]}"), &["wrong-type 6:14"]);
    check(
        &with_step("run: x\nfiles: {a: [1, 'dataset:x', y], b: 2}"),
        &["wrong-type 6:17", "bad-value 6:33", "wrong-type 6:40"],
    );
    check(&with_step("run: x\nenv:\n  A:"), &["wrong-type 7:7"]);
    check(&with_step("run: x\nif: [true]"), &["wrong-type 6:9"]);
    check(&with_step("image: i\ncommand: ls -l"), &["wrong-type 6:14"]);
    check(&with_step("run: x\nresources: {gpu: 0.5, cpu: [1]}"), &["wrong-type 6:22", "bad-value 6:32"]);
}

#[test]
fn quantities_must_be_usable() {
    check(&with_step("run: x\ntimeout: 5min"), &["bad-value 6:14"]);
    check(&with_step("run: x\ntimeout: 0s"), &["bad-value 6:14"]);
    check(&with_step("run: x\nretry: -1"), &["bad-value 6:12"]);
    check(
        &with_step("run: x\nretry: {max: 1, backoff: {initial: 1h, factor: 0.5, max: 1m}}"),
        &["bad-value 6:52", "bad-value 6:62"],
    );
    check(
        &with_step("run: x\nresources: {cpu: 0, memory: 2gb, gpu: -1}"),
        &["bad-value 6:22", "bad-value 6:33", "bad-value 6:43"],
    );
    check(&with_step("run: x\nresources: {cpu: 500x, memory: -5}"), &["bad-value 6:22", "bad-value 6:36"]);
    check(&with_step("run: ' '"), &["bad-value 5:10"]);
    check(&with_step("image: a b\nrun: x"), &["bad-value 5:12"]);
    check(&with_step("image: a\ncommand: []"), &["bad-value 6:14"]);
}

#[test]
fn names_have_a_form() {
    check("version: 1\nname: my workflow\nsteps: {a.b: {run: x}}\n", &["bad-name 2:7", "bad-name 3:9"]);
    check(&with_step("run: x\nenv: {A-B: 1, KICKWHEEL_RUN: x}"), &["bad-name 6:11", "bad-name 6:19"]);
    check(&with_step("run: x\nmatrix: {a-b: [1]}"), &["bad-name 6:14"]);
    check("version: 1\nname: w\ninputs: {a-b: {type: string}}\nsteps: {a: {run: x}}\n", &["bad-name 3:10"]);
    check(&with_step("run: x\nfiles: {a: 'dataset:../x'}"), &["bad-name 6:16"]);
    check(&with_step("run: x\noutputs: {m: {path: x, dataset: 'a b'}}"), &["bad-name 6:37"]);
    check("version: 1\nname: w\non: {manual: [{id: a}, {id: a}]}\nsteps: {a: {run: x}}\n", &["bad-name 3:24"]);
}

#[test]
fn a_step_does_exactly_one_thing() {
    check(&with_step("timeout: 1s"), &["step-kind 4:3"]);
    check(&with_step("image: i"), &["step-kind 4:3"]);
    check(&with_step("command: [x]"), &["step-kind 4:3"]);
    check(&with_step("run: x\ncommand: [x]"), &["step-kind 4:3"]);
    check(&with_step("run: x\nuses: best-of\nwith: {candidates: [], metric: m}"), &["step-kind 4:3"]);
    check(&with_step("run: x\nwith: {a: 1}"), &["misplaced-key 6:5"]);
    check(
        &with_step("uses: best-of\nwith: {candidates: [], metric: m}\nenv: {A: 1}\nfiles: {}"),
        &["misplaced-key 7:5", "misplaced-key 8:5"],
    );
}

#[test]
fn a_misspelt_key_is_one_mistake_and_not_two() {
    let (message, help) = only(&with_step("rum: echo hi"));
    assert_eq!((message.as_str(), help.as_str()), ("a step has no key `rum`", "did you mean `run`?"));
    check(&with_step("image: i\ncomand: [x]"), &["unknown-key 6:5"]);
    check(&with_step("use: best-of\nwith: {candidates: [], metric: m}"), &["unknown-key 5:5"]);
    check("version: 1\nname: w\nstpes: {a: {run: x}}\n", &["unknown-key 3:1"]);
    // Nor does it take away from what stands beside it.
    check(&with_step("rum: x\nuses: best-of\nwith: {candidates: [], metric: m}"), &["unknown-key 5:5"]);
    check(
        &with_step("run: x\ncomand: [x]\nuses: best-of\nwith: {candidates: [], metric: m}"),
        &["step-kind 4:3", "unknown-key 6:5"],
    );
}

#[test]
fn needs_name_steps_of_the_same_phase() {
    check(&with_step("run: x\nneeds: [a]"), &["self-need 6:13"]);
    check(
        "version: 1\nname: w\nsteps:\n  build: {run: x}\n  test: {run: x, needs: [build, bild]}\n",
        &["unknown-step 5:33"],
    );
    check(
        "version: 1\nname: w\nsteps: {a: {run: x, needs: f}}\nfinally: {f: {run: x, needs: a}}\n",
        &["cross-phase 3:28", "cross-phase 4:30"],
    );
    check("version: 1\nname: w\nsteps: {a: {run: x}}\nfinally: {a: {run: x}}\n", &["duplicate-key 4:11"]);
}

#[test]
fn a_cycle_is_named() {
    let source = "version: 1\nname: w\nsteps:\n  a: {run: x, needs: b}\n  b: {run: x, needs: [c]}\n  c: {run: x, needs: [a]}\n  d: {run: x, needs: [a]}\n";
    check(source, &["cycle 4:22"]);
    assert_eq!(only(source).0, "steps need each other in a circle: a -> b -> c -> a");
    let inferred =
        "version: 1\nname: w\nsteps:\n  a: {run: x, env: {V: \"${{ steps.b.state }}\"}}\n  b: {run: x, needs: [a]}\n";
    check(inferred, &["cycle 4:35"]);
}

#[test]
fn plugins_and_their_arguments_must_exist() {
    check(&with_step("uses: best-off\nwith: {x: '${{ nothing }}'}"), &["unknown-plugin 5:11", "unknown-variable 6:20"]);
    check(&with_step("uses: best-of\nwith: {candidate: [], metric: 5}"), &["unknown-argument 6:12", "wrong-type 6:35"]);
    check(&with_step("uses: best-of"), &["missing-argument 5:11", "missing-argument 5:11"]);
    check(
        &with_step("uses: metrics-gate\nwith: {candidate: {}, baseline: 'churn@production', metric: m}"),
        &["bad-value 6:37"],
    );
}

#[test]
fn expressions_are_forbidden_where_they_would_be_injected() {
    let source = with_step("run: |\n  echo one\n  echo ${{ event.id }} $${{ literal }} ${{ inputs.x }}");
    check(&source, &["expression-forbidden 7:12", "expression-forbidden 7:44"]);
    check(&with_step("image: 'python:${{ inputs.v }}'\nrun: x"), &["expression-forbidden 5:20"]);
    check(
        "version: 1\nname: w\non: {git.push: {branches: ['${{ x }}']}}\nsteps: {a: {run: x}}\n",
        &["expression-forbidden 3:29"],
    );
    let (_, help) = only(&with_step("run: echo ${{ event.id }}"));
    assert!(help.contains("`env`"), "{help}");
}

#[test]
fn paths_and_globs_stay_inside() {
    check(
        &with_step("run: x\nfiles: {/etc/x: 'dataset:a', ../y: 'dataset:a'}\noutputs: {a: /out, b: {path: ../out}}"),
        &["bad-path 6:13", "bad-path 6:34", "bad-path 7:18", "bad-path 7:34"],
    );
    check(&with_step("run: x\nsource: ['src/[a', '!b']"), &["bad-glob 6:14", "bad-glob 6:24"]);
    check(
        "version: 1\nname: w\non: {git.push: {branches: ['{a'], paths: [/src]}}\nsteps: {a: {run: x}}\n",
        &["bad-glob 3:28", "bad-glob 3:43"],
    );
    check("version: 1\nname: w\non: {git.push: {paths: []}}\nsteps: {a: {run: x}}\n", &["bad-value 3:24"]);
}

#[test]
fn a_matrix_has_axes_with_values() {
    check(&with_step("run: x\nmatrix: [1]"), &["wrong-type 6:13"]);
    check(&with_step("run: x\nmatrix: {}"), &["bad-value 6:13"]);
    check(
        &with_step("run: x\nmatrix: {a: [], b: 1, c: 'x ${{ 1 }}'}"),
        &["bad-value 6:17", "wrong-type 6:24", "wrong-type 6:30"],
    );
    let axis = format!("[{}]", vec!["0"; 101].join(","));
    check(&with_step(&format!("run: x\nmatrix: {{a: {axis}, b: {axis}}}")), &["matrix-too-large 6:5"]);
    check(&with_step("run: x\nmatrix: {a: '${{ event.id }}'}"), &["expression-type 6:22"]);
}

#[test]
fn inputs_are_checked_against_their_type() {
    let source = "version: 1\nname: w\ninputs:\n  \
        a: {type: integer, default: x}\n  \
        b: {type: integer, default: 0, minimum: 1, maximum: 0}\n  \
        c: {type: strng}\n  \
        d: {type: string, minimum: 1, choices: [x, 1], default: y}\n  \
        e: {type: string, default: '${{ event.id }}'}\n\
        env: {A: '${{ inputs.a + inputs.b }}', C: '${{ inputs.c + inputs.d + inputs.e }}'}\n\
        steps: {a: {run: x}}\n";
    check(
        source,
        &[
            "wrong-type 4:31",
            "bad-value 5:31",
            "bad-value 5:55",
            "bad-value 6:13",
            "misplaced-key 7:21",
            "wrong-type 7:46",
            "bad-value 7:59",
            "expression-forbidden 8:31",
        ],
    );
}

#[test]
fn triggers_give_what_inputs_need() {
    let source = "version: 1\nname: w\non:\n  git.push:\n    with: {branch: '${{ event.data.branch }}', brnch: x, n: x, m: 'a${{ event.id }}'}\n  dataset.changed:\n  manual:\n\
        inputs: {branch: {type: string}, n: {type: integer}, m: {type: integer, default: 1}}\n\
        env: {A: '${{ inputs }}'}\nsteps: {a: {run: x}}\n";
    check(
        source,
        &[
            "unknown-input 5:48",
            "wrong-type 5:61",
            "expression-type 5:67",
            "missing-input 6:3",
            "missing-input 6:3",
            "expression-type 9:15",
        ],
    );
}

#[test]
fn event_types_of_ours_must_exist() {
    check(
        "version: 1\nname: w\non: {event: {type: [com.example.any, dev.kickwheel.git.tag.create, 'a b']}}\nsteps: {a: {run: x}}\n",
        &["unknown-event-type 3:38", "bad-value 3:68"],
    );
}

#[test]
fn an_input_that_nothing_reads_is_only_a_warning() {
    check(
        "version: 1\nname: w\ninputs: {x: {type: string, default: ''}}\nsteps: {a: {run: x}}\n",
        &["unused-input 3:10"],
    );
}

#[test]
fn an_input_that_a_mistake_keeps_from_being_read_is_not_unused() {
    let with_input =
        |input: &str, step: &str| format!("version: 1\nname: w\ninputs: {{x: {input}}}\nsteps: {{a: {step}}}\n");
    let text = "{type: string, default: ''}";
    check(&with_input(text, "{run: 'echo ${{ inputs.x }}'}"), &["expression-forbidden 4:24"]);
    check(&with_input(text, "{run: x, env: {A: '${{ inputs.x + }}'}}"), &["expression-syntax 4:45"]);
    check(&with_input("{type: strng}", "{run: x}"), &["bad-value 3:20"]);
    check(&with_input("{type: 5}", "{run: x}"), &["wrong-type 3:20"]);
    // Another input beside it is unused all the same.
    check(&with_input(text, "{run: 'echo ${{ inputs.y }}'}"), &["unused-input 3:10", "expression-forbidden 4:24"]);
}

#[test]
fn a_value_of_the_wrong_type_says_how_to_write_the_right_one() {
    let help = |lines: &str| only(&with_step(lines)).1;
    assert_eq!(help("run: x\nretry: {max: '3'}"), "write a whole number without quotes, such as `max: 3`");
    assert_eq!(help("run: x\nretry: {max: [3]}"), "write a whole number after `max:`");
    assert_eq!(help("run: x\ncache: 'yes'"), "write true or false without quotes, such as `cache: true`");
    assert_eq!(help("run: 1"), "quote it");
    let gate = "uses: metrics-gate\nwith: {candidate: 3, baseline: 'model:churn@production', metric: m}";
    assert_eq!(help(gate), "write a map after `candidate:`, or one `${{ }}` that gives it");
}

#[test]
fn a_text_that_is_no_yaml_gives_one_diagnostic_with_its_place() {
    check("version: 1\nname: 'w\nsteps: {}\n", &["yaml-syntax 2:7"]);
    check("version: 1\nname: w: x\n", &["yaml-syntax 2:8"]);
    check("", &["yaml-syntax 1:1"]);
    check("version: 1\nname: w\nname: v\nsteps: {a: {run: x}}\n", &["duplicate-key 3:1"]);
}

#[test]
fn a_broken_file_still_says_its_name() {
    assert_eq!(compiled("version: 1\nname: churn\nsteps: {a: {}}\n").name.as_deref(), Some("churn"));
}

#[test]
fn five_mistakes_give_five_diagnostics_each_with_place_excerpt_and_suggestion() {
    let source = r#"version: 1
name: churn
on:
  git.push: {branches: [main]}
  manual: {}
steps:
  prepare:
    run: python prepare.py
    outputs: {features: out/features.csv}
  train:
    run: python train.py --rate ${{ inputs.rate }}
    needs: [prepar]
    env:
      DATA: "${{ steps.prepare.outputs.featurs }}"
      BRANCH: "on ${{ event.data.branch }}"
    timout: 2h
"#;
    let texts: Vec<String> = compiled(source)
        .diagnostics
        .iter()
        .map(|diagnostic| {
            let view = diagnostic.view("churn.yaml", source);
            format!(
                "{}:{}:{}: [{}] {}\n  | {}\n  = {}\n",
                view.file,
                view.line,
                view.column,
                view.code,
                view.message,
                view.excerpt.trim_start(),
                view.help.unwrap_or_default()
            )
        })
        .collect();
    insta::assert_snapshot!(texts.join(""));
}
