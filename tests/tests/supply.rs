//! What the source itself promises.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The compiler forbids it elsewhere; here it is counted, so that a reader of docs/robustness.md finds as
/// many blocks as are said to be there, each with its reason.
#[test]
fn unsafe_is_in_the_kernels_alone_and_every_block_says_why() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut files = Vec::new();
    sources(&crates, &mut files);
    assert!(files.len() > 100);
    let mut blocks = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if !line.contains("unsafe {") || line.trim_start().starts_with("//") {
                continue;
            }
            let shown = file.display();
            let in_kernels = file
                .components()
                .any(|part| part.as_os_str() == "pol-exact");
            assert!(in_kernels, "{shown}:{}", number + 1);
            let before = &lines[number.saturating_sub(6)..=number];
            let reason = before.iter().any(|line| line.contains("SAFETY:"));
            assert!(reason, "{shown}:{} has no reason", number + 1);
            blocks += 1;
        }
    }
    let said = fs::read_to_string(crates.join("../docs/robustness.md")).unwrap();
    assert!(
        said.contains(&format!("{blocks} blocks of `unsafe`")),
        "{blocks}"
    );
}
