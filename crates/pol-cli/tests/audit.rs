//! Prover and verifier apart: keys, signatures, the exchange of files, signed verdicts, timestamps.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Run, command, pol, train_small};
use serde_json::Value;
use tempfile::TempDir;

/// A folder of somebody's own.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn key(&self, name: &str) -> String {
        let key = self.path(name);
        pol(&["keygen", &key]).expect(0);
        key
    }
}

fn copy(from: &str, to: &str) {
    fs::copy(from, to).unwrap();
}

/// The five steps between two folders that share nothing but the files named. Returns the verdict.
fn exchange(prover: &Place, run: &str, open_with: &[&str], verify_with: &[&str]) -> Value {
    let verifier = Place::new();
    let (at_prover, at_verifier) = (|n: &str| prover.path(n), |n: &str| verifier.path(n));
    pol(&["commit", run, "-o", &at_prover("commitment.mp")]).expect(0);
    assert!(
        fs::metadata(at_prover("commitment.mp")).unwrap().len() < 8000,
        "a few kB"
    );
    copy(&at_prover("commitment.mp"), &at_verifier("c.mp"));
    let challenge = at_verifier("challenge.mp");
    pol(&[
        "challenge",
        &at_verifier("c.mp"),
        "--sample",
        "2",
        "-o",
        &challenge,
    ])
    .expect(0);
    copy(&challenge, &at_prover("challenge.mp"));
    let (challenge, opening) = (at_prover("challenge.mp"), at_prover("opening.mp"));
    let args = [&["open", run, &challenge, "-o", &opening], open_with];
    pol(&args.concat()).expect(0);
    copy(&opening, &at_verifier("opening.mp"));
    let (c, challenge, opening) = (
        at_verifier("c.mp"),
        at_verifier("challenge.mp"),
        at_verifier("opening.mp"),
    );
    let args = [
        &[
            "verify",
            "--opening",
            &opening,
            "--commitment",
            &c,
            "--challenge",
            &challenge,
            "--json",
        ],
        verify_with,
    ];
    pol(&args.concat()).expect(0).json()
}

#[test]
fn five_steps_between_two_folders_end_in_acceptance() {
    let (prover, run) = (Place::new(), Run::new());
    let trained = train_small(&run, &[]);
    let verified = exchange(&prover, run.path(), &[], &["--recipe", &recipe_of(&prover)]);
    assert_eq!(verified["verdict"], "accepted");
    assert_eq!(verified["commitment"], trained["commitment"]);
    assert_eq!(verified["segments_selected"], 2);
    assert_eq!(verified["steps_replayed"], 8);
    assert_eq!(verified["policy"], "calibrated");
    assert!(verified["audit_seed"].is_string());
    // The size is that of the states and records of two segments, and hardly more.
    let opening = fs::metadata(prover.path("opening.mp")).unwrap().len();
    let objects: u64 = run.proof_files()[2..]
        .iter()
        .map(|f| fs::metadata(f).unwrap().len())
        .sum();
    let records = 8 * 32 * 65;
    // Two of three segments have all four states, or three of them.
    assert!(
        opening < (objects + records) * 11 / 10,
        "{opening} of {objects}"
    );
}

#[test]
fn the_opening_of_a_cifar_run_is_hardly_larger_than_its_states_and_records() {
    let Some(data) = std::env::var_os("POL_TEST_DATA").filter(|path| Path::new(path).is_dir())
    else {
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: POL_TEST_DATA names no folder with cifar-10-batches-bin");
        }
        return;
    };
    let data = ["--data-dir", data.to_str().unwrap()];
    let (prover, run) = (Place::new(), Run::new());
    let args = [
        "train",
        "--recipe",
        "cifar10-resnet20",
        "--numerics",
        "exact",
        "--batch-size",
        "32",
        "--steps",
        "8",
        "--interval",
        "2",
        "--test-records",
        "32",
        "--out",
        run.path(),
    ];
    pol(&[&args[..], &data].concat()).expect(0);
    let verified = exchange(&prover, run.path(), &data, &[]);
    assert_eq!(
        (&verified["verdict"], &verified["steps_replayed"]),
        (&"accepted".into(), &4.into())
    );
    let opening = fs::metadata(prover.path("opening.mp")).unwrap().len();
    // With exact numerics an opening holds the states at the start of segments; all are of one size,
    // but for the first, which has no momentum.
    let mut sizes: Vec<u64> = run.proof_files()[2..]
        .iter()
        .map(|f| fs::metadata(f).unwrap().len())
        .collect();
    sizes.sort_unstable();
    let records = 4 * 32 * 3073;
    let segments = verified["segments"].as_array().unwrap();
    let drawn_first = segments.iter().any(|segment| segment["index"] == 0);
    let states = if drawn_first {
        sizes[0] + sizes[1]
    } else {
        2 * sizes[1]
    };
    assert!(
        opening < (states + records) * 11 / 10,
        "{opening} of {states} + {records}"
    );
}

/// The recipe of `train_small`, as a file of the verifier's.
fn recipe_of(place: &Place) -> String {
    let text = include_str!("../../../recipes/digits-lenet.toml");
    let file = place.path("recipe.toml");
    fs::write(&file, text.replace("epochs = 12", "steps = 12")).unwrap();
    file
}

#[test]
fn a_proof_that_keeps_few_states_opens_what_it_recomputes() {
    let (prover, run) = (Place::new(), Run::new());
    let args = [
        "train",
        "--numerics",
        "exact",
        "--steps",
        "12",
        "--interval",
        "1",
        "--keep",
        "12",
    ];
    pol(&[&args[..], &["--out", run.path()]].concat()).expect(0);
    let verified = exchange(&prover, run.path(), &[], &[]);
    assert_eq!(verified["verdict"], "accepted");
    assert_eq!(verified["steps_replayed"], 2, "no more than was drawn");
}

#[test]
fn private_data_is_opened_by_its_owner_alone() {
    let (prover, run) = (Place::new(), Run::new());
    let key = prover.key("key.pem");
    let trained = train_small(&run, &["--key", &key, "--private-data"]);
    let public = format!("{key}.pub");
    let verified = exchange(
        &prover,
        run.path(),
        &["--key", &key],
        &["--trust", &public, "--own-data"],
    );
    assert_eq!(verified["verdict"], "accepted");
    assert!(verified["evidence"]["signed_by"].is_string());
    // The same training without salts, and with another key's, have other roots and weights.
    let (open_run, other_run) = (Run::new(), Run::new());
    let other = prover.key("other.pem");
    assert_ne!(
        train_small(&open_run, &["--key", &key])["commitment"],
        trained["commitment"]
    );
    assert_ne!(
        train_small(&other_run, &["--key", &other, "--private-data"])["commitment"],
        trained["commitment"]
    );

    let challenge = prover.path("challenge.mp");
    let x = prover.path("x.mp");
    for with in [&[][..], &["--key", &other]] {
        let args = [&["open", run.path(), &challenge, "-o", &x], with].concat();
        let refused = pol(&args).expect(4);
        assert!(
            refused.stderr.contains("secret") && refused.stderr.contains("--key"),
            "{}",
            refused.stderr
        );
    }
    // The whole folder without the key: nothing is accepted; with it, all.
    let unknown = pol(&["verify", run.path()]).expect(3);
    assert!(
        unknown.stdout.contains("the data is private"),
        "{}",
        unknown.stdout
    );
    pol(&["verify", run.path(), "--key", &key]).expect(0);
}

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
        "audit_seed",
        "segments",
        "device",
        "comparison",
    ] {
        assert!(!shown[field].is_null() || field == "audit_seed", "{field}");
    }
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

#[test]
fn fine_tuning_is_verified_with_what_it_starts_from() {
    let (base, tuned, other) = (Run::new(), Run::new(), Run::new());
    train_small(&base, &[]);
    train_small(
        &tuned,
        &["--prior", base.path(), "--learning-rate", "0.005"],
    );
    train_small(&other, &["--seed", "5"]);
    let verified = pol(&["verify", tuned.path(), "--prior", base.path(), "--json"])
        .expect(0)
        .json();
    assert_eq!(verified["start"], "prior");
    assert_eq!(verified["chain"].as_array().unwrap().len(), 1);
    let missing = pol(&["verify", tuned.path()]).expect(1);
    assert!(
        missing.stdout.contains("was not given"),
        "{}",
        missing.stdout
    );
    let wrong = pol(&["verify", tuned.path(), "--prior", other.path()]).expect(1);
    assert!(
        wrong.stdout.contains("the one given is"),
        "{}",
        wrong.stdout
    );
    fs::write(base.file("model.safetensors"), b"x").unwrap();
    let broken = pol(&["verify", tuned.path(), "--prior", base.path()]).expect(1);
    assert!(
        broken.stdout.contains("the prior proof"),
        "{}",
        broken.stdout
    );
    // Two links.
    let (first, second, third) = (Run::new(), Run::new(), Run::new());
    train_small(&first, &[]);
    train_small(&second, &["--prior", first.path()]);
    train_small(&third, &["--prior", second.path(), "--seed", "3"]);
    let chain = [
        "verify",
        third.path(),
        "--prior",
        second.path(),
        "--prior",
        first.path(),
        "--json",
    ];
    assert_eq!(
        pol(&chain).expect(0).json()["chain"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    pol(&["verify", third.path(), "--prior", second.path()]).expect(1);
}

#[test]
fn audits_are_planned_and_policies_are_obeyed() {
    let planned = pol(&[
        "audit-plan",
        "--segments",
        "1000",
        "--forged",
        "1%",
        "--confidence",
        "99%",
        "--json",
    ]);
    let planned = planned.expect(0).json();
    assert_eq!(planned["sample"], 368);
    assert!(planned["probability"].as_f64().unwrap() >= 0.99);
    let run = Run::new();
    train_small(&run, &[]);
    let planned = pol(&["audit-plan", "--run", run.path(), "--json"])
        .expect(0)
        .json();
    assert_eq!(planned["segments"], 3);

    let strict = pol(&["verify", run.path(), "--policy", "strict"]).expect(1);
    for words in [
        "numerics",
        "a signature",
        "a trusted timestamp",
        "own recipe",
        "min_epochs",
    ] {
        assert!(strict.stdout.contains(words), "{words}: {}", strict.stdout);
    }
    let paper = pol(&["verify", run.path(), "--policy", "paper"]).expect(0);
    assert!(
        paper.stdout.contains("known to be broken"),
        "{}",
        paper.stdout
    );
    let place = Place::new();
    let file = place.path("mine.toml");
    fs::write(&file, "name = \"mine\"\n[bounds]\nmax_interval = 3\n").unwrap();
    let refused = pol(&["verify", run.path(), "--policy", &file]).expect(1);
    assert!(
        refused.stdout.contains("max_interval"),
        "{}",
        refused.stdout
    );
    fs::write(&file, "name = \"mine\"\n[bound]\nmax_interval = 3\n").unwrap();
    let usage = pol(&["verify", run.path(), "--policy", &file]).expect(2);
    assert!(
        usage.stderr.contains("bound") && usage.stderr.contains("mine.toml"),
        "{}",
        usage.stderr
    );
    assert!(
        pol(&["verify", run.path(), "--policy", "none"])
            .expect(2)
            .stderr
            .contains("strict")
    );
    let capped = pol(&["verify", run.path(), "--max-steps", "11"]).expect(3);
    assert!(capped.stdout.contains("max_steps"), "{}", capped.stdout);
    let offline = pol(&["verify", run.path(), "--sample", "1", "--offline-challenge"]).expect(0);
    assert!(
        offline.stdout.contains("follows from the commitment"),
        "{}",
        offline.stdout
    );
}

#[test]
fn files_of_the_exchange_that_are_not_what_they_should_be_are_named() {
    let (place, run) = (Place::new(), Run::new());
    train_small(&run, &[]);
    let [c, challenge, opening] = ["c.mp", "challenge.mp", "opening.mp"].map(|n| place.path(n));
    pol(&["commit", run.path(), "-o", &c]).expect(0);
    pol(&["challenge", &c, "--sample", "1", "-o", &challenge]).expect(0);
    pol(&["open", run.path(), &challenge, "-o", &opening]).expect(0);
    let verify = [
        "verify",
        "--opening",
        &opening,
        "--commitment",
        &c,
        "--challenge",
        &challenge,
    ];
    pol(&verify).expect(0);
    for file in [&c, &challenge, &opening] {
        let whole = fs::read(file).unwrap();
        for bad in [
            &b""[..],
            b"{}",
            &whole[..whole.len() - 1],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
        ] {
            fs::write(file, bad).unwrap();
            let refused = pol(&verify).expect(1);
            let name = Path::new(file).file_name().unwrap().to_str().unwrap();
            assert!(refused.stderr.contains(name), "{}", refused.stderr);
        }
        fs::write(file, whole).unwrap();
    }
    // A challenge to another proof.
    let other = Run::new();
    train_small(&other, &["--seed", "2"]);
    let refused = pol(&["open", other.path(), &challenge, "-o", &place.path("x.mp")]).expect(4);
    assert!(
        refused.stderr.contains("this proof's is"),
        "{}",
        refused.stderr
    );
}

/// OpenSSL as an authority on loopback.
mod authority {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::process::Command;

    pub(super) struct Authority {
        place: Place,
        pub(super) url: String,
    }

    fn openssl(folder: &Path, args: &[&str]) -> bool {
        let done = Command::new("openssl")
            .args(args)
            .current_dir(folder)
            .output();
        done.is_ok_and(|output| output.status.success())
    }

    impl Authority {
        /// `None`, saying so, where there is no openssl. `days` is how long its certificate is valid
        /// from now; negative, and it has expired.
        pub(super) fn start(days: &str) -> Option<Self> {
            let place = Place::new();
            let folder = place.0.path().to_owned();
            let config = "\
                [ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n\
                [tsa]\nbasicConstraints=CA:FALSE\nextendedKeyUsage=critical,timeStamping\n\
                [req]\ndistinguished_name=dn\n[dn]\n\
                [ts]\nserial=serial\nsigner_digest=sha256\ndefault_policy=1.2.3.4\n\
                digests=sha256\naccuracy=secs:1\ness_cert_id_alg=sha256\n";
            fs::write(folder.join("conf"), config).unwrap();
            fs::write(folder.join("serial"), "01\n").unwrap();
            let run = |args: &str| openssl(&folder, &args.split(' ').collect::<Vec<_>>());
            let made = run(
                "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=root -days 30 -config conf -extensions ca",
            ) && run(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tsa.key -out tsa.csr -subj /CN=tsa -config conf",
            ) && run(&format!(
                "x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out tsa.pem -days {days} -extfile conf -extensions tsa"
            ));
            if !made {
                #[expect(clippy::print_stderr, reason = "a skipped test says so")]
                {
                    eprintln!("skipped: openssl cannot make an authority here");
                }
                return None;
            }
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let (mut length, mut line) = (0, String::new());
                    while reader.read_line(&mut line).unwrap() > 2 {
                        let lower = line.to_lowercase();
                        if let Some(value) = lower.strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        line.clear();
                    }
                    let mut query = vec![0; length];
                    reader.read_exact(&mut query).unwrap();
                    fs::write(folder.join("query"), query).unwrap();
                    answer(&folder);
                    let body = fs::read(folder.join("answer")).unwrap();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/timestamp-reply\r\n\
                         Content-Length: {}\r\nConnection: close\r\n\r\n",
                        body.len()
                    );
                    stream.write_all(head.as_bytes()).unwrap();
                    stream.write_all(&body).unwrap();
                }
            });
            Some(Self { place, url })
        }

        pub(super) fn root(&self) -> String {
            self.place.path("ca.pem")
        }

        /// The answer to a request in a file.
        pub(super) fn answer(&self, request: &str) -> PathBuf {
            copy(request, &self.place.path("query"));
            answer(self.place.0.path());
            self.place.0.path().join("answer")
        }
    }

    fn answer(folder: &Path) {
        let args = "ts -reply -queryfile query -out answer -signer tsa.pem -inkey tsa.key -chain ca.pem -config conf -section ts";
        assert!(
            openssl(folder, &args.split(' ').collect::<Vec<_>>()),
            "openssl ts"
        );
    }
}

#[test]
fn timestamps_hold_for_their_digest_and_authority_alone() {
    let Some(authority) = authority::Authority::start("30") else {
        return;
    };
    let (place, run) = (Place::new(), Run::new());
    let root = authority.root();
    // While it trains, after every second checkpoint, and at the end.
    train_small(
        &run,
        &["--authority", &authority.url, "--timestamp-every", "2"],
    );
    let trusting = ["verify", run.path(), "--trust-authority", &root, "--json"];
    let verified = pol(&trusting).expect(0).json();
    let stamps = verified["evidence"]["timestamps"].as_array().unwrap();
    let of: Vec<_> = stamps
        .iter()
        .map(|stamp| stamp["of"].as_str().unwrap())
        .collect();
    assert_eq!(
        of,
        [
            "commitment",
            "journal after 2 checkpoints",
            "journal after 4 checkpoints"
        ]
    );
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(
        stamps
            .iter()
            .all(|stamp| stamp["seconds"].as_u64().unwrap().abs_diff(now) < 600)
    );

    // Of another digest: the tokens exchanged.
    let token = |name: &str| run.file(&format!("attestations/{name}"));
    let (commitment, journal) = (token("commitment.tsr"), token("journal-2.tsr"));
    let (good, other) = (fs::read(&commitment).unwrap(), fs::read(&journal).unwrap());
    fs::write(&commitment, &other).unwrap();
    let refused = pol(&trusting).expect(1);
    assert!(
        refused.stdout.contains("of another digest"),
        "{}",
        refused.stdout
    );
    // Any byte altered: refused, or it is in a part that nobody vouches for.
    for position in (0..good.len()).step_by(7) {
        let mut altered = good.clone();
        altered[position] ^= 0x10;
        fs::write(&commitment, altered).unwrap();
        let out = pol(&trusting);
        assert!(
            matches!(out.code, Some(0 | 1)),
            "{position}: {}",
            out.stderr
        );
    }
    fs::write(&commitment, &good).unwrap();
    fs::write(&journal, &good).unwrap();
    assert!(pol(&trusting).expect(1).stdout.contains("journal after 2"));
    fs::write(&journal, &other).unwrap();
    pol(&trusting).expect(0);

    // By an authority that is not trusted; by none.
    let stranger = authority::Authority::start("30").unwrap();
    let refused = pol(&["verify", run.path(), "--trust-authority", &stranger.root()]).expect(1);
    assert!(
        refused.stdout.contains("authority is not trusted"),
        "{}",
        refused.stdout
    );
    fs::remove_file(&commitment).unwrap();
    assert!(pol(&trusting).expect(1).stdout.contains("not timestamped"));

    // By hand: a request in a file, and its answer.
    let request = place.path("request.tsq");
    pol(&["timestamp", run.path(), "--request", &request]).expect(0);
    let answer = authority.answer(&request);
    pol(&[
        "timestamp",
        run.path(),
        "--answer",
        answer.to_str().unwrap(),
    ])
    .expect(0);
    pol(&trusting).expect(0);
    // Another proof's answer is not taken.
    let second = Run::new();
    train_small(&second, &["--seed", "4"]);
    let refused = pol(&[
        "timestamp",
        second.path(),
        "--answer",
        answer.to_str().unwrap(),
    ])
    .expect(4);
    assert!(
        refused.stderr.contains("another digest"),
        "{}",
        refused.stderr
    );
    // From the authority itself, later.
    pol(&["timestamp", second.path(), "--authority", &authority.url]).expect(0);
    pol(&["verify", second.path(), "--trust-authority", &root]).expect(0);
    let silent = pol(&[
        "timestamp",
        second.path(),
        "--authority",
        "http://127.0.0.1:9/",
    ])
    .expect(4);
    assert!(
        silent.stderr.contains("does not answer"),
        "{}",
        silent.stderr
    );
}

#[test]
fn an_expired_authority_is_not_trusted() {
    // A certificate that ended before it began is one that has expired.
    let Some(authority) = authority::Authority::start("-1") else {
        return;
    };
    let run = Run::new();
    train_small(&run, &[]);
    pol(&["timestamp", run.path(), "--authority", &authority.url]).expect(0);
    let refused = pol(&["verify", run.path(), "--trust-authority", &authority.root()]).expect(1);
    assert!(
        refused.stdout.contains("authority is not trusted"),
        "{}",
        refused.stdout
    );
}

#[test]
fn the_strict_policy_accepts_what_has_everything() {
    let Some(authority) = authority::Authority::start("30") else {
        return;
    };
    let (place, run) = (Place::new(), Run::new());
    let key = place.key("key.pem");
    let text = include_str!("../../../recipes/digits-lenet.toml");
    let recipe = place.path("recipe.toml");
    let exact = text.replace("epochs = 12", "epochs = 1\nnumerics = \"exact\"");
    let exact = exact
        .replace("interval = 44", "interval = 10")
        .replace("batch_size = 32", "batch_size = 479");
    fs::write(&recipe, exact).unwrap();
    let args = [
        "train",
        "--recipe",
        &recipe,
        "--interval",
        "1",
        "--key",
        &key,
        "--authority",
        &authority.url,
        "--out",
        run.path(),
    ];
    pol(&args).expect(0);
    let (public, root) = (format!("{key}.pub"), authority.root());
    let strict = [
        "verify",
        run.path(),
        "--policy",
        "strict",
        "--recipe",
        &recipe,
        "--trust",
        &public,
        "--trust-authority",
        &root,
    ];
    let accepted = pol(&strict).expect(0);
    assert!(accepted.stdout.contains("timestamped") && accepted.stdout.contains("signed by"));
    pol(&strict[..strict.len() - 2]).expect(1);
}
