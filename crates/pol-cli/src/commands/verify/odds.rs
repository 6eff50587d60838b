//! What an audit is worth, in sentences.

use pol_core::verify::{Bridge, Outliers, Report};

/// What a choice of segments is worth against a forger, the strongest statement first.
pub(super) fn describe(report: &Report) -> Vec<String> {
    if report.selection.is_some_and(|selection| selection.all) {
        return vec!["every segment was replayed".to_owned()];
    }
    let mut lines = vec![format!(
        "one forged segment is met with probability {:.3}; 1 % of the segments with {:.3}, 10 % with {:.3}",
        report.catches_count(1),
        report.catches(0.01),
        report.catches(0.1)
    )];
    lines.extend(beside(report));
    lines.extend(report.bridge.map(bridge));
    lines
}

/// What is replayed whatever is drawn.
fn beside(report: &Report) -> Option<String> {
    let selection = report.selection?;
    let ends = match (selection.first, selection.last) {
        (true, true) => "the first and the last segment are",
        (true, false) => "the first segment is",
        (false, true) => "the last segment is",
        (false, false) if report.outliers.is_some() => "nothing else is",
        (false, false) => return None,
    };
    Some(match report.outliers {
        None => format!("{ends} always replayed; which stand out by their movement is not known"),
        Some(Outliers { found, replayed }) if found == replayed => format!(
            "{ends} always replayed, and those that move more than their neighbours: {found} here"
        ),
        Some(Outliers { found, replayed }) => format!(
            "{ends} always replayed, and {replayed} of {found} that move more than their neighbours; the \
             others are left to the draw"
        ),
    })
}

fn bridge(bridge: Bridge) -> String {
    let way = format!(
        "the way from the first state to the last (l2 {:.3})",
        bridge.distance_l2
    );
    match bridge.segments {
        Some(1) => format!("{way} takes one forged segment that does not stand out"),
        Some(segments) => format!(
            "{way} takes at least {segments} forged segments that do not stand out, of which one is met \
             with probability {:.3}",
            bridge.probability
        ),
        None => format!("{way} is longer than all segments together that could be forged unmet"),
    }
}
