//! Who stands behind a proof and behind a verdict: keys and signatures.

mod common;

use std::fs;

use common::{Place, Run, command, pol, train_small};

#[test]
fn a_signature_is_the_prover_s_or_nothing() {
    let (place, run) = (Place::new(), Run::new());
    let (key, thief) = (place.key("key.pem"), place.key("thief.pem"));
    train_small(&run, &["--key", &key]);
    let (public, other) = (format!("{key}.pub"), format!("{thief}.pub"));
    let signed = pol(&["verify", run.path(), "--trust", &public, "--json"])
        .expect(0)
        .json();
    assert!(signed["evidence"]["signed_by"].as_str().unwrap().len() == 64);
    let refused = pol(&["verify", run.path(), "--trust", &other]).expect(1);
    assert!(
        refused.stdout.contains("not signed by a trusted key"),
        "{}",
        refused.stdout
    );
    // Signing what somebody else trained, or nobody did.
    let refused = pol(&["sign", run.path(), "--key", &thief]).expect(4);
    assert!(
        refused.stderr.contains("begun with the key"),
        "{}",
        refused.stderr
    );
    let nobodys = Run::new();
    train_small(&nobodys, &[]);
    assert!(
        pol(&["sign", nobodys.path(), "--key", &key])
            .expect(4)
            .stderr
            .contains("without a key")
    );
    let refused = pol(&["verify", nobodys.path(), "--trust", &public]).expect(1);
    assert!(refused.stdout.contains("not signed"), "{}", refused.stdout);

    // An altered signature; another proof's; none.
    let file = run.file("attestations/signature.dsse.json");
    let envelope = fs::read_to_string(&file).unwrap();
    fs::write(&file, envelope.replace("\"sig\": \"ME", "\"sig\": \"MF")).unwrap();
    pol(&["verify", run.path(), "--trust", &public]).expect(1);
    let again = Run::new();
    train_small(&again, &["--key", &key, "--seed", "1"]);
    fs::copy(again.file("attestations/signature.dsse.json"), &file).unwrap();
    let refused = pol(&["verify", run.path(), "--trust", &public]).expect(1);
    assert!(
        refused.stdout.contains("of the commitment"),
        "{}",
        refused.stdout
    );
    fs::remove_file(&file).unwrap();
    pol(&["verify", run.path(), "--trust", &public]).expect(1);
    pol(&["verify", run.path()]).expect(0);
    pol(&["sign", run.path(), "--key", &key]).expect(0);
    pol(&["verify", run.path(), "--trust", &public]).expect(0);
}

#[test]
fn a_resumed_training_needs_the_key_it_was_begun_with() {
    let (place, run) = (Place::new(), Run::new());
    let (key, other) = (place.key("key.pem"), place.key("other.pem"));
    let mut args = vec![
        "train",
        "--steps",
        "300",
        "--interval",
        "5",
        "--out",
        run.path(),
        "--key",
        &key,
    ];
    args.push("--private-data");
    let mut training = command(&args)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !fs::metadata(run.file("journal.mp")).is_ok_and(|journal| journal.len() > 2000) {
        std::thread::sleep(std::time::Duration::from_millis(5));
        if training.try_wait().unwrap().is_some() {
            break;
        }
    }
    training.kill().unwrap();
    training.wait().unwrap();
    let resume = ["train", "--resume", "--out", run.path()];
    assert!(pol(&resume).expect(2).stderr.contains("--key"));
    pol(&[&resume[..], &["--key", &other]].concat()).expect(2);
    pol(&[&resume[..], &["--key", &key]].concat()).expect(0);
    pol(&[
        "verify",
        run.path(),
        "--key",
        &key,
        "--trust",
        &format!("{key}.pub"),
    ])
    .expect(0);
}

#[cfg(unix)]
#[test]
fn keys_are_kept_from_others_and_may_be_encrypted() {
    use std::os::unix::fs::PermissionsExt;
    let (place, run) = (Place::new(), Run::new());
    let key = place.path("key.pem");
    let with = |passphrase: &str, args: &[&str]| {
        let mut command = command(args);
        common::Ran::from(command.env("POL_PASSPHRASE", passphrase).output().unwrap())
    };
    with("open sesame", &["keygen", &key, "--encrypt"]).expect(0);
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(fs::read_to_string(&key).unwrap().contains("ENCRYPTED"));
    assert!(
        pol(&["keygen", &key])
            .expect(2)
            .stderr
            .contains("not overwritten")
    );

    let train = [
        "train",
        "--steps",
        "2",
        "--interval",
        "1",
        "--out",
        run.path(),
        "--key",
        &key,
    ];
    let refused = with("close sesame", &train).expect(2);
    assert!(
        refused.stderr.contains("passphrase is wrong"),
        "{}",
        refused.stderr
    );
    let refused = pol(&train).expect(2);
    assert!(
        refused.stderr.contains("POL_PASSPHRASE"),
        "{}",
        refused.stderr
    );
    with("open sesame", &train).expect(0);
    let file = place.path("passphrase");
    fs::write(&file, "open sesame\n").unwrap();
    pol(&[
        "sign",
        run.path(),
        "--key",
        &key,
        "--passphrase-file",
        &file,
    ])
    .expect(0);
    pol(&["verify", run.path(), "--trust", &format!("{key}.pub")]).expect(0);

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = with("open sesame", &["sign", run.path(), "--key", &key]).expect(2);
    assert!(refused.stderr.contains("chmod 600"), "{}", refused.stderr);
    let public = format!("{key}.pub");
    fs::set_permissions(&public, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = pol(&["sign", run.path(), "--key", &public]).expect(2);
    assert!(refused.stderr.contains("private key"), "{}", refused.stderr);
}

#[test]
fn a_signed_verdict_says_what_it_rests_on() {
    let (place, run) = (Place::new(), Run::new());
    train_small(&run, &["--numerics", "stock"]);
    let key = place.key("verifier.pem");
    let (public, verdict) = (format!("{key}.pub"), place.path("verdict.json"));
    let flags = ["--tolerance", "l2=1e9", "--sample", "1"];
    let signed = ["--verdict", &verdict, "--verdict-key", &key];
    pol(&[&["verify", run.path()], &flags[..], &signed].concat()).expect(0);
    let shown = pol(&["verdict", &verdict, "--trust", &public])
        .expect(0)
        .stdout;
    for words in [
        "lenet5 on digits, 12 steps",
        "held to no other",
        "calibrated, changed by --sample and --tolerance",
        "comparison   static",
        "own-copy",
        "operating-system",
        "one forged segment with probability",
        "verdict      accepted",
    ] {
        assert!(shown.contains(words), "{words:?} is not in\n{shown}");
    }
}

#[test]
fn a_verdict_is_evidence_only_as_its_verifier_signed_it() {
    let (place, run) = (Place::new(), Run::new());
    let trained = train_small(&run, &[]);
    let (key, other) = (place.key("verifier.pem"), place.key("other.pem"));
    let verdict = place.path("verdict.json");
    pol(&[
        "verify",
        run.path(),
        "--verdict",
        &verdict,
        "--verdict-key",
        &key,
    ])
    .expect(0);
    let public = format!("{key}.pub");
    let shown = pol(&["verdict", &verdict, "--trust", &public, "--json"])
        .expect(0)
        .json();
    assert_eq!(shown["verdict"], "accepted");
    for field in [
        "commitment",
        "policy_digest",
        "randomness",
        "segments",
        "device",
        "comparison",
    ] {
        assert!(!shown[field].is_null(), "{field}");
    }
    assert!(shown["expected"]["data_root"].is_string() && shown["environment"]["threads"].is_u64());
    let commitment = trained["commitment"].as_str().unwrap();
    pol(&[
        "verdict",
        &verdict,
        "--trust",
        &public,
        "--commitment",
        commitment,
    ])
    .expect(0);
    let foreign = "0".repeat(64);
    pol(&[
        "verdict",
        &verdict,
        "--trust",
        &public,
        "--commitment",
        &foreign,
    ])
    .expect(1);
    pol(&["verdict", &verdict, "--trust", &format!("{other}.pub")]).expect(1);
    let text = fs::read_to_string(&verdict).unwrap();
    let at = text.find("\"payload\": \"").unwrap() + 40;
    let mut altered = text.clone().into_bytes();
    altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
    fs::write(&verdict, altered).unwrap();
    let refused = pol(&["verdict", &verdict, "--trust", &public]).expect(1);
    assert!(
        refused.stderr.contains("does not hold"),
        "{}",
        refused.stderr
    );
    // A verdict is never written over.
    pol(&[
        "verify",
        run.path(),
        "--verdict",
        &verdict,
        "--verdict-key",
        &key,
    ])
    .expect(2);

    // A rejection is evidence as well.
    fs::write(run.file("model.safetensors"), b"x").unwrap();
    let rejection = place.path("rejection.json");
    pol(&[
        "verify",
        run.path(),
        "--verdict",
        &rejection,
        "--verdict-key",
        &key,
    ])
    .expect(1);
    pol(&["verdict", &rejection, "--trust", &public]).expect(1);
}
