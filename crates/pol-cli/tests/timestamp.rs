//! When a proof was there: timestamps by a real authority, OpenSSL's, on loopback.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Place, Run, copy, pol, train_small};

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
            let folder = place.folder().to_owned();
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
            answer(self.place.folder());
            self.place.folder().join("answer")
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
