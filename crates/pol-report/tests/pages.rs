//! Pages about hostile proofs and experiments: what is text stays text.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use pol_report::{Cell, Fact, experiment, render, run};
use pol_report::{Figure, Page, Run, Section, Series, Table};

/// Everything that could end a tag, an attribute, a script or a line.
const HOSTILE: &str = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\
                       ' \" & ${7*7} {{ 7*7 }} {% raw %} \u{2028}\u{202e}\u{1b}[2J<!--";

fn verified(hostile: &str) -> String {
    let text = serde_json::to_string(hostile).unwrap();
    format!(
        r#"{{"schema": "pol.verify/3", "verdict": "rejected", "reasons": [{text}], "numerics": {text},
        "commitment": {text}, "policy": {text}, "policy_digest": {text}, "warning": {text}, "start": {text},
        "backend": {text}, "device": {text}, "segments_total": 3, "segments_selected": 2,
        "steps_replayed": 20, "catches_one_segment": 0.4, "catches_1_percent": 0.5,
        "policy_changes": [{text}], "data": {text}, "randomness_from": {text},
        "recipes": {{"claimed": {{"digest": {text}, "description": {text}}}, "expected": null}},
        "bridge": {{"distance_l2": 3.0, "segments": 2, "probability": 0.6}}, "randomness": {text},
        "claimed_recipe": {{"model": {{"name": {text}, "options": {{{text}: 1}}}},
            "data": {{"name": {text}, "options": {{}}}}, "optimizer": {{{text}: {{{text}: 2}}}},
            "learning_rate": {{"base": 0.1}}, "batch_size": 32, "steps": 30, "numerics": {text}}},
        "comparison": {{"kind": "calibrated", "floor": 0.01}},
        "expected": {{"recipe": {text}}}, "environment": {{"program": {text}, "os": {text}}},
        "evidence": {{"signed_by": {text}, "timestamps": [{{"of": {text}, "seconds": 5}}]}},
        "chain": [{text}],
        "priors": [{{"commitment": {text}, "steps": {text}, "held_to": {text},
            "recipe": {{"model": {{"name": {text}}}, "data": {{"name": {text}}}}}}}],
        "segments": [
            {{"index": 0, "first_step": 0, "last_step": 10, "digests_equal": false, "accepted": true,
              "l1": 1.0, "l2": 0.5, "linf": 0.1, "cosine": 1e-9, "movement_l2": 3.0,
              "relative_to_movement": 0.17, "noise": {{"l2": 0.1, "tolerance_l2": 1.6, "rho": 30.0}}}},
            {{"index": 2, "first_step": 20, "last_step": 30, "digests_equal": true, "accepted": false,
              "l1": 0.0, "l2": 0.0, "linf": 0.0, "cosine": 0.0, "movement_l2": 2.0, "noise": null}}
        ]}}"#
    )
}

fn hostile_run() -> Page {
    let verified = verified(HOSTILE);
    let environment = format!(
        r#"{{"device": {}}}"#,
        serde_json::to_string(HOSTILE).unwrap()
    );
    let subject = Run {
        name: HOSTILE,
        verified: &verified,
        inspected: None,
        curve: Some("step,loss,<b>\n1,2.0,x\n2,nan,\n3,1.0,\n\"<script>\",1,\n"),
        environment: Some(&environment),
    };
    run(&subject).unwrap()
}

fn hostile_experiment() -> Page {
    let text = serde_json::to_string(HOSTILE).unwrap();
    let summary = format!(
        r#"{{"schema": "pol.measure/1", "experiment": "reproduction", "title": {text}, "about": {text},
        "size": {text}, "seconds": 1.0, "machine": {{"processor": {text}, "threads": 2,
        "memory_gib": null, "system": {text}, "devices": [{text}], "program": {text}, "burn": "0.22.1"}},
        "seeds": [0, 1], "notes": [{text}], "tables": [{{"caption": {text},
        "columns": [{{"name": {text}, "number": true}}], "rows": [[{text}], [{text}, "too many"]]}}]}}"#
    );
    let field = format!("\"{}\"", HOSTILE.replace('"', "\"\""));
    let mut rows =
        "cell,training,numerics,setting,interval,start,metric,epsilon,movement\n".to_owned();
    for k in [1, 10] {
        rows += &format!("c,{field},{field},{field},{k},0,l2,0.0{k},1.0\n");
        rows += &format!("c,{field},{field},reference,{k},0,l2,30.0,0.0\n");
    }
    experiment(&summary, &rows).unwrap()
}

/// The page without what is this crate's own.
fn own_text(html: &str) -> String {
    let mut text = html.to_owned();
    while let (Some(start), Some(end)) = (text.find("<style>"), text.find("</style>")) {
        text.replace_range(start..end + 8, "");
    }
    text
}

#[test]
fn nothing_from_a_proof_or_an_experiment_becomes_markup() {
    for page in [hostile_run(), hostile_experiment()] {
        let html = own_text(&render(&page).unwrap());
        assert!(!html.contains("<img"), "markup");
        assert!(!html.contains("onerror=\""), "an attribute");
        assert_eq!(
            html.matches("<script").count(),
            3,
            "scripts of its own alone"
        );
        assert_eq!(html.matches("</script>").count(), 3);
        assert!(html.contains("&lt;img src=x"));
        assert!(!html.contains("49"), "a template was evaluated");
        assert!(!html.contains("http://") || html.contains("http://www.w3.org"));
    }
}

/// The same in a browser, where there is one: the title is not taken over, figures are drawn, no error
/// is logged and no origin asked.
#[test]
fn a_browser_shows_hostile_pages_as_they_are() {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| {
            std::process::Command::new(name)
                .arg("--version")
                .output()
                .is_ok()
        })
    else {
        eprintln!("skipped: there is no Chromium here");
        return;
    };
    let folder = std::env::temp_dir().join(format!("pol-report-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, page) in [("run", hostile_run()), ("experiment", hostile_experiment())] {
        let file = folder.join(format!("{name}.html"));
        std::fs::write(&file, render(&page).unwrap()).unwrap();
        let profile = folder.join("profile");
        let output = std::process::Command::new(browser)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--enable-logging=stderr",
            ])
            .args([
                "--disable-dev-shm-usage",
                "--virtual-time-budget=5000",
                "--dump-dom",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("file://{}", file.display()))
            .output()
            .unwrap();
        let dom = String::from_utf8_lossy(&output.stdout);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(
            dom.contains("data-ready=\"yes\""),
            "the script ended: {log}"
        );
        assert!(!dom.contains("<title>owned"), "a script from the data ran");
        assert!(!dom.contains("<img"), "markup from the data");
        assert!(dom.contains("<canvas"), "no figure is drawn");
        let complaints: Vec<&str> = log.lines().filter(|l| l.contains("CONSOLE")).collect();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn verifications_and_summaries_of_other_kinds_are_refused() {
    let refused = |verified: &str| {
        let subject = Run {
            verified,
            ..Run::default()
        };
        run(&subject).unwrap_err().to_string()
    };
    assert!(refused("").contains("the verification"));
    assert!(refused("{}").contains("pol.verify/3"));
    assert!(refused("[1]").contains("pol.verify/3"));
    assert!(
        experiment("{}", "")
            .unwrap_err()
            .to_string()
            .contains("summary.json")
    );
}

/// A page of everything at once renders, whatever is empty.
#[test]
fn empty_parts_are_left_out() {
    let page = Page {
        title: "t".to_owned(),
        sections: vec![Section {
            id: "s".to_owned(),
            heading: "h".to_owned(),
            facts: vec![Fact::code("a", "b")],
            figures: vec![Figure {
                series: vec![Series::default()],
                ..Figure::default()
            }],
            tables: vec![Table {
                columns: vec![("one".to_owned(), true)],
                rows: vec![
                    vec![Cell::plain("1"), Cell::plain("more than columns")],
                    vec![],
                ],
                ..Table::default()
            }],
            ..Section::default()
        }],
        ..Page::default()
    };
    let html = render(&page).unwrap();
    assert!(html.contains("more than columns") && html.contains("class=\"code\""));
}
