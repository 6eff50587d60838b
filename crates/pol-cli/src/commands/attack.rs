//! `pol attack`: forgeries, to see what a policy is worth.

use std::collections::BTreeMap;
use std::time::Instant;

use pol_attacks::{ALL, Figure, Options, Victim};
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
    /// Gradients of a batch that the forger computed, and that the honest training has.
    gradients: u64,
    honest_gradients: u64,
    seconds: f64,
    proof_bytes: u64,
    /// The folder of the records that the proof commits to, where they are not the victim's.
    data: Option<String>,
    /// What the attack measured of itself.
    figures: BTreeMap<&'static str, f64>,
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
    let store = existing_store(victim)?;
    let manifest =
        read_claim(store.as_ref())?.map_err(|reason| CliError::Malformed(reason.to_string()))?;
    let (_, stolen) = final_state(store.as_ref()).ok_or_else(|| {
        CliError::Malformed(format!("{} is not a finished proof", victim.display()))
    })?;
    let terms = &manifest.claim.terms;
    let folder = args.machine.data_dir.clone().unwrap_or_else(default_folder);
    let dataset = dataset_of(&terms.recipe)?.load(&folder)?;
    let victim = Victim {
        terms,
        proof: store.as_ref(),
        stolen: &stolen,
        data: &dataset,
    };
    let defaults = Options::default();
    let options = Options {
        interval: args.interval.unwrap_or(defaults.interval),
        segments: args.segments.unwrap_or(defaults.segments),
        learning_rate: args.learning_rate,
        nonce: args.seed,
        access: args.access,
        iterations: args.iterations,
        adaptive: args.adaptive,
        sample: args.sample,
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
    let made = attack.forge(&victim, &options, learner.as_mut(), &into)?;
    let data = match &made.records {
        None => None,
        Some(records) => {
            let folder = out.with_added_extension("data");
            dataset.name.save(records, &dataset.test, &folder)?;
            Some(folder.display().to_string())
        }
    };
    let manifest = read_claim(&into)?.map_err(|reason| CliError::Malformed(reason.to_string()))?;
    let forged = Forged {
        schema: "pol.attack/2",
        attack: attack.name(),
        run: out.display().to_string(),
        commitment: manifest.claim.commitment().to_string(),
        gradients: made.spent.gradients,
        honest_gradients: made.spent.honest_steps,
        seconds: started.elapsed().as_secs_f64(),
        proof_bytes: into.size()?,
        data,
        figures: (made.figures.iter())
            .map(|&Figure { name, value }| (name, value))
            .collect(),
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
            "{} gradients of a batch where the honest training has {}; {:.1} s",
            forged.gradients, forged.honest_gradients, forged.seconds
        ),
    );
    for (name, value) in &forged.figures {
        output::field(name, format!("{value:.4}"));
    }
    output::field("commitment", &forged.commitment);
    let data_dir = match &forged.data {
        None => String::new(),
        Some(folder) => format!(" --data-dir {folder}"),
    };
    output::note(format!(
        "judge it: pol verify {} --policy paper{data_dir}",
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
