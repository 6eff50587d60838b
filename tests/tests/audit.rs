//! Audits between parties that share nothing but files, on the toy training: what an honest exchange
//! gives, and every way in which it may be broken.

use std::ops::ControlFlow;
use std::sync::Arc;

use pol_core::audit::{Challenge, Draw, OpenedRecord, Opening, PublicCommitment, open};
use pol_core::digest::tagged;
use pol_core::identity::ProverKey;
use pol_core::learner::LearnerError;
use pol_core::manifest::{Manifest, Start, Terms};
use pol_core::merkle::{self, Tree};
use pol_core::model_file;
use pol_core::object;
use pol_core::policy::{NumericsRule, OpeningRule, Policy, StartRule};
use pol_core::random::{Purpose, Seed};
use pol_core::recipe::{Numerics, Profile, Recipe};
use pol_core::records::{DataCommitment, MemoryRecords, Records, SaltSecret, leaves};
use pol_core::schedule::{BatchPlan, Schedule};
use pol_core::state::{Entry, State};
use pol_core::store::{Item, MemoryStore, Store};
use pol_core::training::{Outcome, Training};
use pol_core::verify::{Report, Verdict, VerifiedPrior, Verifier, final_state};
use pol_tests::forge::Forgery;
use pol_tests::toy::{self, INTERVAL, STEPS, Toy};

fn seed(name: &str) -> Seed {
    Seed::from_digest(tagged(name, &[]))
}

fn key(last: u8) -> ProverKey {
    let mut bytes = [7; 33];
    (bytes[0], bytes[32]) = (2, last);
    ProverKey::from_bytes(bytes).unwrap()
}

fn run(training: &Training<'_>) -> (Arc<MemoryStore>, Manifest) {
    let store = Arc::new(MemoryStore::new());
    let mut learner = Toy::new(&training.terms().recipe);
    let outcome = training.run(&mut learner, Arc::clone(&store) as _, |_, _| {
        ControlFlow::Continue(())
    });
    match outcome.unwrap() {
        Outcome::Sealed(manifest) => (store, *manifest),
        Outcome::Interrupted { .. } => unreachable!(),
    }
}

fn public(store: &MemoryStore) -> PublicCommitment {
    let bytes = store.read(Item::Manifest, u64::MAX).unwrap();
    let claim = Manifest::decode(&bytes).unwrap().claim;
    let file = PublicCommitment::new(claim, vec![]).encode();
    PublicCommitment::decode(&file).unwrap()
}

/// The prover's answer, through a file.
fn answer(store: &MemoryStore, secret: Option<&SaltSecret>, challenge: &Challenge) -> Opening {
    let recipe = public(store).claim.terms.recipe;
    let mut learner = || -> Result<_, LearnerError> { Ok(Box::new(Toy::new(&recipe)) as _) };
    let opening = open(store, &toy::records(), secret, challenge, &mut learner).unwrap();
    Opening::decode(&opening.encode()).unwrap()
}

/// The verifier's judgement of it, with no data at hand.
fn judge(public: &PublicCommitment, challenge: &Challenge, opening: Opening) -> Report {
    let mut learner = Toy::new(&public.claim.terms.recipe);
    Verifier::without_data()
        .verify_opening(public, challenge, opening, &mut learner, None, |_| {})
        .unwrap()
}

fn accepted(report: &Report) {
    assert_eq!(report.verdict, Verdict::Accepted, "{:?}", report.reasons);
}

#[track_caller]
fn rejected(report: &Report, words: &str) {
    assert_eq!(report.verdict, Verdict::Rejected, "{:?}", report.reasons);
    let reasons: Vec<String> = report.reasons.iter().map(ToString::to_string).collect();
    assert!(
        reasons.iter().any(|reason| reason.contains(words)),
        "{words:?} is not in {reasons:?}"
    );
}

/// A challenge that draws two segments, neither the first nor the last, which comes to every draw.
fn challenge(public: &PublicCommitment) -> Challenge {
    (0..)
        .map(|i| {
            let seed = Seed::from_digest(tagged("audit", &[&[i]]));
            Challenge::fresh(public.digest(), Draw::Sample(2), seed)
        })
        .find(|challenge| challenge.segments(&public.claim) == [1, 3, 4])
        .unwrap()
}

fn exact() -> Recipe {
    Recipe {
        numerics: Numerics::Exact(Profile::UnfusedV2),
        ..toy::recipe()
    }
}

#[test]
fn an_honest_exchange_is_accepted_whatever_the_proof_keeps() {
    let records = toy::records();
    let secret = SaltSecret::derive(b"a private key");
    let batches: Vec<BatchPlan> = (0..STEPS)
        .map(|step| BatchPlan {
            step,
            epoch: 0,
            records: (0..4).map(|i| (7 * step + i) % 30).collect(),
        })
        .collect();
    let stock = || Training::new(toy::recipe(), &records, 7, INTERVAL);
    let trainings = [
        ("stock", stock(), None),
        ("salted", stock().with_private_data(&secret), Some(&secret)),
        ("of a prover", stock().of_prover(key(1)), None),
        ("explicit", stock().with_batches(&batches), None),
        (
            "exact",
            Training::new(exact(), &records, 7, 1).keep(10),
            None,
        ),
    ];
    for (name, training, secret) in trainings {
        let (store, _) = run(&training);
        let public = public(&store);
        for draw in [Draw::All, Draw::Sample(1), Draw::Sample(3)] {
            for challenge in [
                Challenge::fresh(public.digest(), draw, seed(name)),
                Challenge::offline(public.digest(), draw),
            ] {
                let report = judge(&public, &challenge, answer(&store, secret, &challenge));
                assert_eq!(
                    report.verdict,
                    Verdict::Accepted,
                    "{name}: {:?}",
                    report.reasons
                );
                let drawn = challenge.segments(&public.claim).len();
                assert_eq!(report.segments.len(), drawn, "{name}");
                let steps: u64 = report
                    .segments
                    .iter()
                    .map(|s| s.last_step - s.first_step)
                    .sum();
                assert_eq!(
                    report.steps_replayed, steps,
                    "{name}: nothing else is replayed"
                );
            }
        }
    }
}

#[test]
fn both_ways_of_verifying_replay_the_same_segments() {
    let (store, _) = toy::proof();
    let public = public(&store);
    let challenge = Challenge::fresh(public.digest(), Draw::Sample(2), seed("audit"));
    let (records, recipe) = (toy::records(), toy::recipe());
    let whole = (Verifier::new(&records).select(challenge.selection()))
        .verify(store.as_ref(), &mut Toy::new(&recipe), |_| {})
        .unwrap();
    let opened = judge(&public, &challenge, answer(&store, None, &challenge));
    let indices = |report: &Report| -> Vec<u64> {
        report
            .segments
            .iter()
            .map(|segment| segment.index)
            .collect()
    };
    assert_eq!(indices(&whole), indices(&opened));
    assert_eq!(indices(&whole), challenge.segments(&public.claim));
    assert_eq!(whole.catches(0.2), opened.catches(0.2));
}

#[test]
fn an_opening_holds_the_audited_records_and_no_others() {
    let (store, _) = toy::proof();
    let public = public(&store);
    let challenge = challenge(&public);
    let opening = answer(&store, None, &challenge);
    let mut schedule = Schedule::new(public.claim.terms.seed, 30, 4).unwrap();
    let mut used: Vec<u64> = (5..10)
        .chain(15..23)
        .flat_map(|step| schedule.batch(step).records)
        .collect();
    used.sort_unstable();
    used.dedup();
    let opened: Vec<u64> = opening.records.iter().map(|record| record.index).collect();
    assert_eq!(opened, used);
    assert!((opened.len() as u64) < toy::records().len());
    assert_eq!(opening.states.len(), 5, "both ends of all three segments");
}

#[test]
fn an_opening_answers_its_own_challenge_alone() {
    let (store, _) = toy::proof();
    let public = public(&store);
    let asked = challenge(&public);
    let other = Challenge::fresh(public.digest(), Draw::Sample(1), seed("other"));
    rejected(
        &judge(&public, &asked, answer(&store, None, &other)),
        "answers another one",
    );
    // The same fewer segments, under the right name: a truncated audit.
    let mut truncated = answer(&store, None, &other);
    truncated.challenge = asked.digest();
    rejected(&judge(&public, &asked, truncated), "withholds");
    let foreign = Challenge::fresh(tagged("another", &[]), Draw::Sample(2), seed("audit"));
    let opening = answer(&store, None, &asked);
    rejected(&judge(&public, &foreign, opening), "another commitment");
}

#[test]
fn a_challenge_of_fewer_segments_than_the_policy_demands_decides_nothing() {
    let (store, _) = toy::proof();
    let public = public(&store);
    let mut policy = Policy::bits();
    policy.segments.opened = Some(OpeningRule::Sample(3));
    for (q, verdict) in [(2, Verdict::Inconclusive), (3, Verdict::Accepted)] {
        let challenge = Challenge::fresh(public.digest(), Draw::Sample(q), seed("few"));
        let opening = answer(&store, None, &challenge);
        let mut learner = Toy::new(&toy::recipe());
        let report = (Verifier::without_data().policy(policy.clone(), seed("verifier")))
            .verify_opening(&public, &challenge, opening, &mut learner, None, |_| {})
            .unwrap();
        assert_eq!(report.verdict, verdict, "{:?}", report.reasons);
    }
}

#[test]
fn what_is_withheld_is_missed() {
    // Finer, so that some checkpoints are not opened.
    let records = toy::records();
    let (store, _) = run(&Training::new(toy::recipe(), &records, 7, 2));
    let public = public(&store);
    let challenge = challenge_of_two(&public);
    let broken = |change: fn(&mut Opening)| {
        let mut opening = answer(&store, None, &challenge);
        change(&mut opening);
        judge(&public, &challenge, opening)
    };
    accepted(&broken(|_| {}));
    rejected(&broken(|o| drop(o.records.remove(2))), "withholds record");
    rejected(&broken(|o| o.records.clear()), "withholds record");
    rejected(&broken(|o| drop(o.states.pop())), "withholds");
    rejected(&broken(|o| o.states.clear()), "withholds");
    rejected(&broken(|o| o.checkpoints.truncate(3)), "withholds");
    rejected(&broken(|o| o.states.swap(0, 1)), "the state at step");
    rejected(
        &broken(|o| o.checkpoints.swap(1, 2)),
        "the opened checkpoints",
    );
    rejected(
        &broken(|o| o.checkpoint_nodes.truncate(1)),
        "the opened checkpoints",
    );
    rejected(
        &broken(|o| o.record_nodes.truncate(1)),
        "the opened records",
    );
    rejected(
        &broken(|o| o.record_nodes[0] = tagged("x", &[])),
        "the opened records",
    );
    rejected(
        &broken(|o| o.final_leaves = Some(vec![])),
        "the final state is opened twice",
    );
}

#[test]
fn with_exact_numerics_the_final_state_s_leaves_stand_for_it() {
    let records = toy::records();
    let (store, _) = run(&Training::new(exact(), &records, 7, 2));
    let public = public(&store);
    let challenge = challenge_of_two(&public);
    let broken = |change: fn(&mut Opening)| {
        let mut opening = answer(&store, None, &challenge);
        change(&mut opening);
        judge(&public, &challenge, opening)
    };
    accepted(&broken(|_| {}));
    rejected(&broken(|o| o.final_leaves = None), "withholds the leaves");
    rejected(
        &broken(|o| o.final_leaves.as_mut().unwrap()[0] = tagged("x", &[])),
        "the leaves of the final state",
    );
}

#[test]
fn other_records_than_the_committed_ones_are_told_apart() {
    let (store, _) = toy::proof();
    let public = public(&store);
    let challenge = challenge(&public);
    let broken = |change: fn(&mut Vec<OpenedRecord>)| {
        let mut opening = answer(&store, None, &challenge);
        change(&mut opening.records);
        judge(&public, &challenge, opening)
    };
    rejected(&broken(|r| r[1].bytes[0] ^= 1), "the opened records");
    rejected(&broken(|r| r[1].label += 1), "the opened records");
    rejected(
        &broken(|r| (r[0].bytes, r[1].bytes) = (r[1].bytes.clone(), r[0].bytes.clone())),
        "",
    );
    rejected(&broken(|r| r[1].index += 1), "withholds record");
    rejected(
        &broken(|r| {
            let mut extra = r[0].clone();
            extra.index = 29;
            r.retain(|record| record.index != 29);
            r.push(extra);
        }),
        "",
    );
}

#[test]
fn salts_are_needed_and_those_of_others_do_not_fit() {
    let records = toy::records();
    let secret = SaltSecret::derive(b"mine");
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL).with_private_data(&secret);
    let (store, manifest) = run(&training);
    assert!(manifest.claim.terms.data.salted);
    let public = public(&store);
    let challenge = challenge_of_two(&public);
    let other = SaltSecret::derive(b"another");
    let mut no_learner = || -> Result<_, LearnerError> { unreachable!() };
    for wrong in [None, Some(&other)] {
        let error = open(&*store, &records, wrong, &challenge, &mut no_learner).unwrap_err();
        assert!(error.to_string().contains("secret"), "{error}");
    }
    let broken = |change: fn(&mut OpenedRecord)| {
        let mut opening = answer(&store, Some(&secret), &challenge);
        change(&mut opening.records[1]);
        judge(&public, &challenge, opening)
    };
    accepted(&broken(|_| {}));
    rejected(&broken(|r| r.salt = None), "withholds the salt");
    rejected(
        &broken(|r| r.salt = Some(SaltSecret::derive(b"another").salt(r.index))),
        "the opened records",
    );
    // Whoever has the whole proof but not the secret cannot compare the data: nothing is accepted.
    let report = Verifier::new(&records)
        .verify(store.as_ref(), &mut Toy::new(&toy::recipe()), |_| {})
        .unwrap();
    assert_eq!(report.verdict, Verdict::Inconclusive);
    let report = (Verifier::new(&records).with_secret(&secret))
        .verify(store.as_ref(), &mut Toy::new(&toy::recipe()), |_| {})
        .unwrap();
    accepted(&report);
    let report = (Verifier::new(&records).with_secret(&other))
        .verify(store.as_ref(), &mut Toy::new(&toy::recipe()), |_| {})
        .unwrap();
    rejected(&report, "training data is not the verifier's");
}

fn challenge_of_two(public: &PublicCommitment) -> Challenge {
    Challenge::fresh(public.digest(), Draw::Sample(2), seed("two"))
}

#[test]
fn a_verifier_with_data_of_its_own_compares_the_whole_of_it() {
    let (store, manifest) = toy::proof();
    let public = public(&store);
    let challenge = challenge(&public);
    let judged = |own: &MemoryRecords, root| {
        let mut verifier = Verifier::new(own);
        if let Some(root) = root {
            verifier = verifier.expect_data_root(root);
        }
        let opening = answer(&store, None, &challenge);
        let mut learner = Toy::new(&toy::recipe());
        verifier
            .verify_opening(&public, &challenge, opening, &mut learner, None, |_| {})
            .unwrap()
    };
    let own = toy::records();
    accepted(&judged(&own, Some(manifest.claim.terms.data.root)));
    rejected(
        &judged(&own, Some(tagged("another", &[]))),
        "the data's root",
    );
    let opening = answer(&store, None, &challenge);
    let opened: Vec<u64> = opening.records.iter().map(|record| record.index).collect();
    let unopened = (0..own.len())
        .find(|index| !opened.contains(index))
        .unwrap();
    // The whole root is compared, not the opened records alone: one altered record, opened or not.
    for index in [opened[3], unopened] {
        let mut other = own.clone();
        other.0[index as usize].1[0] ^= 1;
        rejected(&judged(&other, None), "training data is not the verifier's");
    }
    let mut shorter = own;
    shorter.0.pop();
    rejected(
        &judged(&shorter, None),
        "training data is not the verifier's",
    );
}

/// The root of private data is of no use without its salts: the opened records are compared.
#[test]
fn a_verifier_with_a_copy_of_private_data_compares_what_is_opened_of_it() {
    let records = toy::records();
    let secret = SaltSecret::derive(b"mine");
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL).with_private_data(&secret);
    let (store, _) = run(&training);
    let public = public(&store);
    let challenge = challenge_of_two(&public);
    let judged = |own: &MemoryRecords, known: Option<&SaltSecret>| {
        let mut verifier = Verifier::new(own);
        if let Some(known) = known {
            verifier = verifier.with_secret(known);
        }
        let opening = answer(&store, Some(&secret), &challenge);
        let mut learner = Toy::new(&toy::recipe());
        verifier
            .verify_opening(&public, &challenge, opening, &mut learner, None, |_| {})
            .unwrap()
    };
    accepted(&judged(&records, None));
    accepted(&judged(&records, Some(&secret)));
    let opening = answer(&store, Some(&secret), &challenge);
    let opened: Vec<u64> = opening.records.iter().map(|record| record.index).collect();
    let unopened = (0..records.len())
        .find(|index| !opened.contains(index))
        .unwrap();
    let altered = |index: u64| {
        let mut other = records.clone();
        other.0[index as usize].1[0] ^= 1;
        other
    };
    rejected(
        &judged(&altered(opened[3]), None),
        &format!("record {} is not the one", opened[3]),
    );
    accepted(&judged(&altered(unopened), None));
    rejected(
        &judged(&altered(unopened), Some(&secret)),
        "training data is not the verifier's",
    );
    let mut shorter = records.clone();
    shorter.0.pop();
    rejected(&judged(&shorter, None), "is not the one");
}

#[test]
fn no_altered_byte_of_an_opening_is_accepted() {
    let (store, _) = toy::proof();
    let public = public(&store);
    let challenge = challenge(&public);
    let bytes = answer(&store, None, &challenge).encode();
    for position in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[position] ^= 1 << (position % 8);
        if let Ok(opening) = Opening::decode(&altered) {
            let report = judge(&public, &challenge, opening);
            assert_eq!(report.verdict, Verdict::Rejected, "byte {position}");
        }
        assert!(Opening::decode(&bytes[..position]).is_err());
    }
    let file = public.encode();
    for position in 0..file.len() {
        let mut altered = file.clone();
        altered[position] ^= 1 << (position % 8);
        if let Ok(altered) = PublicCommitment::decode(&altered) {
            let opening = answer(&store, None, &challenge);
            let report = judge(&altered, &challenge, opening);
            assert_eq!(report.verdict, Verdict::Rejected, "byte {position}");
        }
    }
}

/// A forged state in the middle of a proof that is sealed again.
fn forged(index: usize) -> MemoryStore {
    let (store, _) = toy::proof();
    let mut forgery = Forgery::of(&store);
    forgery.alter(index, "model/w", |entry| entry.bytes[3] ^= 1);
    forgery.seal()
}

#[test]
fn a_forged_segment_is_found_if_it_is_drawn_and_only_then() {
    let store = forged(2);
    let public = public(&store);
    let mut met = 0;
    for i in 0..40u8 {
        let seed = Seed::from_digest(tagged("draw", &[&[i]]));
        let challenge = Challenge::fresh(public.digest(), Draw::Sample(2), seed);
        // The segments that end and begin at checkpoint 2.
        let drawn = challenge.segments(&public.claim);
        let report = judge(&public, &challenge, answer(&store, None, &challenge));
        if drawn.contains(&1) || drawn.contains(&2) {
            rejected(&report, "does not arrive");
            met += 1;
        } else {
            accepted(&report);
        }
    }
    assert!(
        (20..40).contains(&met),
        "7 of 10 draws meet it: {met} of 40"
    );
}

#[test]
fn another_model_than_the_final_state_s_is_rejected() {
    let (store, _) = toy::proof();
    let mut forgery = Forgery::of(&store);
    let stolen = Forgery::of(&forged(5));
    forgery.model = model_file::root(&stolen.states[5].1);
    let store = forgery.seal();
    let public = public(&store);
    let challenge = challenge(&public);
    let report = judge(&public, &challenge, answer(&store, None, &challenge));
    rejected(&report, "model.safetensors");
    // Also where the final state is opened whole.
    let all = Challenge::fresh(public.digest(), Draw::All, seed("all"));
    rejected(
        &judge(&public, &all, answer(&store, None, &all)),
        "model.safetensors",
    );
}

/// The same states under other terms.
fn with_terms(change: impl FnOnce(Terms) -> Terms) -> MemoryStore {
    let (store, _) = toy::proof();
    let mut forgery = Forgery::of(&store);
    forgery.terms = change(forgery.terms);
    forgery.seal()
}

#[test]
fn a_stolen_proof_does_not_verify_under_another_key() {
    let training_of = |key| {
        let records = toy::records();
        let training = Training::new(toy::recipe(), &records, 7, INTERVAL).of_prover(key);
        run(&training).0
    };
    let store = training_of(key(1));
    accepted(&toy::verify(&store));
    let mut forgery = Forgery::of(&store);
    forgery.terms.key = Some(key(2));
    rejected(
        &toy::verify(&forgery.seal()),
        "the seed is not the one derived",
    );
    // With the seed that follows from the thief's key, the initial state is another.
    let mut forgery = Forgery::of(&store);
    forgery.terms = forgery.terms.of_prover(Some(key(2)));
    rejected(&toy::verify(&forgery.seal()), "the initial state");
}

#[test]
fn a_seed_rolled_again_after_the_data_was_fixed_is_told_apart() {
    let rolled = with_terms(|terms| Terms { nonce: 8, ..terms });
    rejected(&toy::verify(&rolled), "the seed is not the one derived");
    let rolled = with_terms(|terms| Terms { nonce: 8, ..terms }.of_prover(None));
    rejected(&toy::verify(&rolled), "the initial state");
}

/// A proof that fine-tunes the model of another, and that other.
fn fine_tuned() -> (Arc<MemoryStore>, Arc<MemoryStore>) {
    let (prior, _) = toy::proof();
    let (commitment, state) = final_state(prior.as_ref()).unwrap();
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 9, INTERVAL);
    let (store, manifest) = run(&training.from_prior(commitment, &state));
    assert_eq!(manifest.claim.terms.start, Start::Prior { commitment });
    (store, prior)
}

#[test]
fn fine_tuning_is_accepted_with_the_proof_it_starts_from() {
    let (store, prior) = fine_tuned();
    let (records, recipe) = (toy::records(), toy::recipe());
    let judged = |prior: Option<&VerifiedPrior>| {
        let mut verifier = Verifier::new(&records);
        if let Some(prior) = prior {
            verifier = verifier.with_prior(prior);
        }
        verifier
            .verify(store.as_ref(), &mut Toy::new(&recipe), |_| {})
            .unwrap()
    };
    let verified = |store: &MemoryStore| VerifiedPrior::new(&toy::verify(store), store);
    accepted(&judged(verified(&prior).as_ref()));
    rejected(&judged(None), "was not given");

    // Of another model, verified all the same.
    let training = Training::new(toy::recipe(), &records, 1, INTERVAL);
    let (other, _) = run(&training);
    rejected(&judged(verified(&other).as_ref()), "the one given is");

    // Nothing starts from the prior one, though it was given.
    let report = (Verifier::new(&records).with_prior(&verified(&other).unwrap()))
        .verify(prior.as_ref(), &mut Toy::new(&recipe), |_| {})
        .unwrap();
    rejected(&report, "does not start from another proof");

    // A prior that is not accepted is no prior.
    assert!(verified(&forged(2)).is_none());
    let report = toy::verify(&prior);
    assert!(
        VerifiedPrior::new(&report, other.as_ref()).is_none(),
        "a report of another proof"
    );
}

#[test]
fn a_chain_of_prior_proofs_is_no_longer_than_the_policy_admits() {
    let (second, first) = fine_tuned();
    let records = toy::records();
    let judged = |store: &MemoryStore, prior: Option<&VerifiedPrior>, max_depth| {
        let policy = Policy {
            start: StartRule::Derived { max_depth },
            ..Policy::bits()
        };
        let mut verifier = Verifier::new(&records).policy(policy, seed("verifier"));
        if let Some(prior) = prior {
            verifier = verifier.with_prior(prior);
        }
        verifier
            .verify(store, &mut Toy::new(&toy::recipe()), |_| {})
            .unwrap()
    };
    let first = VerifiedPrior::new(&judged(&first, None, 0), first.as_ref()).unwrap();
    rejected(&judged(&second, Some(&first), 0), "the policy admits 0");
    let report = judged(&second, Some(&first), 1);
    accepted(&report);
    let (commitment, state) = final_state(second.as_ref()).unwrap();
    let training = Training::new(toy::recipe(), &records, 11, INTERVAL);
    let (third, _) = run(&training.from_prior(commitment, &state));
    let second = VerifiedPrior::new(&report, second.as_ref()).unwrap();
    rejected(
        &judged(&third, Some(&second), 1),
        "the chain of them is 2 long; the policy admits 1",
    );
    accepted(&judged(&third, Some(&second), 2));
}

/// A prior proof that another policy accepted is held to this one's bounds.
#[test]
fn a_prior_proof_is_held_to_the_bounds_of_its_verifier_s_policy() {
    let records = toy::records();
    let mut fast = toy::recipe();
    fast.learning_rate.base = 0.02;
    let (prior, manifest) = run(&Training::new(fast.clone(), &records, 7, INTERVAL));
    let state = final_state(prior.as_ref()).unwrap().1;
    let training = Training::new(toy::recipe(), &records, 9, INTERVAL);
    let (store, _) = run(&training.from_prior(manifest.claim.commitment(), &state));
    let report = Verifier::new(&records)
        .verify(prior.as_ref(), &mut Toy::new(&fast), |_| {})
        .unwrap();
    let verified = VerifiedPrior::new(&report, prior.as_ref()).unwrap();
    assert_eq!(verified.terms().recipe, fast);
    let judged = |change: fn(&mut Policy)| {
        let mut policy = Policy::bits();
        change(&mut policy);
        Verifier::new(&records)
            .policy(policy, seed("verifier"))
            .with_prior(&verified)
            .verify(store.as_ref(), &mut Toy::new(&toy::recipe()), |_| {})
            .unwrap()
    };
    accepted(&judged(|policy| {
        policy.bounds.max_learning_rate = Some(0.02)
    }));
    let report = judged(|policy| policy.bounds.max_learning_rate = Some(0.01));
    rejected(
        &report,
        "the prior proof: the policy's `max_learning_rate` is 0.01",
    );
    let report = judged(|policy| policy.numerics = NumericsRule::Exact);
    rejected(&report, "the prior proof: the policy's `numerics`");
    let report = judged(|policy| policy.start = StartRule::Derived { max_depth: 0 });
    rejected(&report, "the chain of them is 1 long; the policy admits 0");
}

#[test]
fn a_start_that_only_claims_its_prior_is_rejected() {
    let (_, prior) = fine_tuned();
    let verified = VerifiedPrior::new(&toy::verify(&prior), prior.as_ref()).unwrap();
    let commitment = verified.commitment();
    let claimed = with_terms(|terms| terms.from_start(Start::Prior { commitment }));
    let records = toy::records();
    let report = (Verifier::new(&records).with_prior(&verified))
        .verify(&claimed, &mut Toy::new(&toy::recipe()), |_| {})
        .unwrap();
    rejected(&report, "the initial state");
}

#[test]
fn a_claimed_start_is_tested_only_where_the_policy_admits_it() {
    let records = toy::records();
    let policy = |rule| Policy {
        start: rule,
        ..Policy::bits()
    };
    let distribution = StartRule::Distribution {
        level: 0.05,
        corrected: true,
        max_depth: 0,
    };
    let judged = |store: &MemoryStore, rule| {
        Verifier::new(&records)
            .policy(policy(rule), seed("verifier"))
            .verify(store, &mut Toy::new(&toy::recipe()), |_| {})
            .unwrap()
    };
    let start_at = |w: [f32; 2]| {
        let (store, _) = toy::proof();
        let first = &Forgery::of(&store).states[0].1;
        let mut entries = first.entries().to_vec();
        let entry = entries.iter_mut().find(|e| e.name() == "model/w").unwrap();
        *entry = Entry::f32("model/w", vec![2], &w);
        let state = State::new(entries).unwrap();
        run(&Training::new(toy::recipe(), &records, 7, INTERVAL).from_claimed(&state)).0
    };
    let fresh = start_at([0.4, -0.9]);
    accepted(&judged(&fresh, distribution));
    rejected(
        &judged(&fresh, StartRule::default()),
        "which the policy demands",
    );
    rejected(&judged(&start_at([30.0, 31.0]), distribution), "Kolmogorov");
}

#[test]
fn challenge_seeds_differ_and_samples_are_the_verifier_s() {
    let (store, _) = toy::proof();
    let public = public(&store);
    let offline = |q| Challenge::offline(public.digest(), Draw::Sample(q)).segments(&public.claim);
    assert_eq!(offline(3), offline(3));
    assert!((3..=4).contains(&offline(3).len()));
    let fresh = |name| {
        Challenge::fresh(public.digest(), Draw::Sample(2), seed(name)).segments(&public.claim)
    };
    let different = ["a", "b", "c", "d", "e", "f"].map(fresh);
    assert!(different.iter().any(|drawn| *drawn != different[0]));
}

/// Counts, not seconds: what an opening holds beside states and records.
#[test]
fn an_opening_is_hardly_larger_than_its_states_and_records() {
    let many = MemoryRecords(
        (0..5000u32)
            .map(|i| (i % 10, vec![i as u8; 3073]))
            .collect(),
    );
    let all = leaves(&many, None);
    let root = Tree::Records.root(&all);
    assert_eq!(DataCommitment::of(&many).root, root);
    let mut stream = seed("records").stream(Purpose::Audit);
    let drawn = stream.sample(5000, 640);
    let nodes = merkle::open(&all, &drawn).len() * 34;
    let records = drawn.len() * 3073;
    assert!(
        nodes * 20 < records,
        "{nodes} bytes of proof for {records} of records"
    );
    // Whole states, whatever they are stored as.
    let (store, manifest) = toy::proof();
    let public = public(&store);
    let opening = answer(&store, None, &challenge(&public));
    for (state, index) in opening.states.iter().zip([1, 2, 3, 4, 5]) {
        let name = manifest.checkpoints[index].state;
        let decoded = object::decode_state(&name, state).unwrap();
        assert_eq!(**state, object::encode_state(&decoded).unwrap());
    }
}
