//! `pol attack`: published forgeries, to see what a policy is worth.

use std::time::Instant;

use pol_attacks::{ALL, Options, Victim};
use pol_core::store::{FolderStore, Store};
use pol_core::verify::{final_state, read_claim};
use pol_models::dataset::default_folder;
use pol_models::{dataset_of, image_learner};
use serde::Serialize;

use crate::args::AttackArgs;
use crate::backend::{self, Opening};
use crate::error::{CliError, Exit};
use crate::output;

use super::existing_store;

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    source: &'static str,
    needs: &'static str,
}

#[derive(Serialize)]
struct Forged {
    schema: &'static str,
    attack: &'static str,
    run: String,
    commitment: String,
    /// Training steps that the forger took, and that the honest training has.
    steps: u64,
    honest_steps: u64,
    seconds: f64,
    proof_bytes: u64,
}

pub(crate) fn run(args: &AttackArgs) -> Result<Exit, CliError> {
    if args.name == "list" {
        return list(args.json);
    }
    let attack = pol_attacks::named(&args.name).ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|attack| attack.name()).collect();
        CliError::Usage(format!(
            "there is no attack `{}`; they are {}",
            args.name,
            names.join(", ")
        ))
    })?;
    let (Some(victim), Some(out)) = (&args.victim, &args.out) else {
        return Err(CliError::Usage("--victim and --out are missing".to_owned()));
    };
    if out.exists() {
        return Err(CliError::Usage(format!(
            "{} exists; give a new folder",
            out.display()
        )));
    }
    backend::use_threads(&args.machine)?;
    let store = existing_store(victim)?;
    let manifest = read_claim(&store)?.map_err(|reason| CliError::Malformed(reason.to_string()))?;
    let (_, stolen) = final_state(&store).ok_or_else(|| {
        CliError::Malformed(format!("{} is not a finished proof", victim.display()))
    })?;
    let terms = &manifest.claim.terms;
    let folder = args.machine.data_dir.clone().unwrap_or_else(default_folder);
    let dataset = dataset_of(&terms.recipe)?.load(&folder)?;
    let victim = Victim {
        terms,
        stolen: &stolen,
        records: &dataset.train,
    };
    let defaults = Options::default();
    let options = Options {
        interval: args.interval.unwrap_or(defaults.interval),
        segments: args.segments.unwrap_or(defaults.segments),
        learning_rate: args.learning_rate.unwrap_or(defaults.learning_rate),
        nonce: args.seed,
    };
    if options.interval == 0 || options.segments == 0 {
        return Err(CliError::Usage(
            "--interval and --segments are at least 1".to_owned(),
        ));
    }
    let claimed = attack.claimed(&victim, &options);
    let opened = match backend::open(&args.machine, claimed.numerics)? {
        Opening::Ready(opened) => opened,
        Opening::Delegated(exit) => return Ok(exit),
    };
    let mut learner = image_learner(&claimed, &opened.device)?;
    let into = FolderStore::new(out);
    let started = Instant::now();
    let spent = attack.forge(&victim, &options, learner.as_mut(), &into)?;
    let manifest = read_claim(&into)?.map_err(|reason| CliError::Malformed(reason.to_string()))?;
    let forged = Forged {
        schema: "pol.attack/1",
        attack: attack.name(),
        run: out.display().to_string(),
        commitment: manifest.claim.commitment().to_string(),
        steps: spent.steps,
        honest_steps: spent.honest_steps,
        seconds: started.elapsed().as_secs_f64(),
        proof_bytes: into.size()?,
    };
    if args.json {
        output::json(&forged)?;
        return Ok(Exit::Done);
    }
    output::field(
        "forged",
        format!("{} ({})", forged.run, output::bytes(forged.proof_bytes)),
    );
    output::field(
        "cost",
        format!(
            "{} training steps where the honest training has {}; {:.1} s",
            forged.steps, forged.honest_steps, forged.seconds
        ),
    );
    output::field("commitment", &forged.commitment);
    output::note(format!(
        "judge it: pol verify {} --policy paper",
        forged.run
    ));
    Ok(Exit::Done)
}

fn list(json: bool) -> Result<Exit, CliError> {
    let listed = ALL.map(|attack| Listed {
        name: attack.name(),
        source: attack.source(),
        needs: attack.needs(),
    });
    if json {
        output::json(&listed)?;
    } else {
        for attack in listed {
            output::field(attack.name, attack.source);
            output::field("", format!("needs {}", attack.needs));
        }
    }
    Ok(Exit::Done)
}
