//! Numbers of recipe files: which are refused, by their fields, and which the shipped policies admit.

use pol_core::digest::tagged;
use pol_core::manifest::Terms;
use pol_core::policy::Policy;
use pol_core::records::DataCommitment;
use pol_core::schedule::BatchSource;
use pol_models::recipe_file::{RecipeFile, SHIPPED};

#[test]
fn a_number_out_of_range_is_named_with_its_file_its_field_and_its_range() {
    let text = |top: &str, optimizer: &str, rate: &str| {
        format!(
            "batch_size = 4\n{top}\n[model]\nname = \"mlp\"\n[data]\nname = \"digits\"\n\
             [optimizer]\n{optimizer}\n[learning_rate]\n{rate}\n"
        )
    };
    let (top, sgd, rate) = ("epochs = 3", "name = \"sgd\"", "base = 0.1");
    let adam = "name = \"adam\"";
    let resolved = |text: &str| RecipeFile::parse("r.toml", text)?.resolve(1000);
    resolved(&text(top, sgd, rate)).unwrap();
    let refused = |top: &str, optimizer: &str, rate: &str| {
        resolved(&text(top, optimizer, rate))
            .unwrap_err()
            .to_string()
    };
    let named = |field: &str, range: &str, error: String| {
        assert!(error.contains("r.toml"), "{error}");
        assert!(error.contains(&format!("`{field}`")), "{error}");
        assert!(error.contains(range), "{error}");
    };
    for line in ["interval = 0", "keep = 0"] {
        let field = line.split(' ').next().unwrap();
        named(
            field,
            "from 1",
            refused(&format!("{top}\n{line}"), sgd, rate),
        );
    }
    named("epochs", "from 1", refused("epochs = 0", sgd, rate));
    named("steps", "from 1", refused("steps = 0", sgd, rate));
    for value in ["-3", "nan", "inf"] {
        let with = |line: &str| line.replace('?', value);
        for (line, range) in [
            ("base = ?", "above 0"),
            ("base = 0.1\nwarmup_epochs = ?", "at least 0"),
            ("base = 0.1\nschedule = \"cosine\"\nmin = ?", "at least 0"),
            (
                "base = 0.1\nschedule = \"multi-step\"\nmilestones = [1, ?]",
                "at least 0",
            ),
            (
                "base = 0.1\nschedule = \"multi-step\"\ngamma = ?",
                "at most 1",
            ),
        ] {
            let field = line.rsplit('\n').next().unwrap().split(' ').next().unwrap();
            let field = format!("learning_rate.{field}");
            named(&field, range, refused(top, sgd, &with(line)));
        }
        for (rule, line, range) in [
            (sgd, "momentum = ?", "below 1"),
            (sgd, "momentum = 0.9\ndampening = ?", "below 1"),
            (sgd, "weight_decay = ?", "at least 0"),
            (adam, "beta1 = ?", "below 1"),
            (adam, "beta2 = ?", "below 1"),
            (adam, "epsilon = ?", "above 0"),
            (adam, "weight_decay = ?", "at least 0"),
        ] {
            let field = line.rsplit('\n').next().unwrap().split(' ').next().unwrap();
            let rule = format!("{rule}\n{}", with(line));
            named(
                &format!("optimizer.{field}"),
                range,
                refused(top, &rule, rate),
            );
        }
    }
}

#[test]
fn what_is_out_of_range_for_this_data_is_named_by_its_field() {
    let refused = |change: fn(&mut RecipeFile)| {
        let mut file = RecipeFile::shipped("cifar10-resnet20").unwrap();
        change(&mut file);
        file.resolve(50_000).unwrap_err().to_string()
    };
    // Put in after the file was read, as flags are.
    assert!(refused(|f| f.learning_rate.base = 0.0).contains("learning_rate.base"));
    assert!(refused(|f| f.learning_rate.base = -1.0).contains("learning_rate.base"));
    assert!(refused(|f| f.batch_size = 0).contains("batch_size"));
    assert!(refused(|f| f.epochs = Some(0)).contains("epochs"));
    let milestones = refused(|f| f.learning_rate.milestones = vec![2.0, 2.0001]);
    assert!(milestones.contains("must ascend strictly"), "{milestones}");
    let warmup = refused(|f| f.learning_rate.warmup_epochs = 165.0);
    assert!(warmup.contains("warmup_epochs"), "{warmup}");
}

#[test]
fn the_bounds_of_the_shipped_policies_admit_every_shipped_recipe() {
    for (name, text) in SHIPPED {
        let mut file = RecipeFile::parse(name, text).unwrap();
        let digits = file.data.name == "digits";
        let data = DataCommitment {
            records: if digits { 1437 } else { 50_000 },
            root: tagged("data", &[]),
            salted: false,
        };
        for epochs in [file.epochs, Some(1)] {
            file.epochs = epochs;
            let recipe = file.resolve(data.records).unwrap();
            let interval = file.interval;
            let terms = Terms::new(recipe, data, 0, BatchSource::Derived, interval);
            for policy in ["calibrated", "strict"] {
                let bounds = Policy::shipped(policy).unwrap().bounds;
                let exceeded = bounds.exceeded(&terms);
                assert!(exceeded.is_empty(), "{name}, {policy}: {exceeded:?}");
            }
        }
    }
}
