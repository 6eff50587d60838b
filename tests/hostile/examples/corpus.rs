//! Writes the valid inputs of every target to files, for a fuzzer to start from:
//! `cargo run -p pol-hostile --example corpus -- fuzz/corpus`.

use std::fs;
use std::path::PathBuf;

use pol_hostile::TARGETS;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1);
    let folder = PathBuf::from(folder.unwrap_or_else(|| "fuzz/corpus".into()));
    for target in TARGETS {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
