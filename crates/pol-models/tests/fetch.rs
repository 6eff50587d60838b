//! Fetching archives from a server on the loopback interface.
#![cfg(feature = "fetch")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use pol_models::fetch::{Archive, FetchError};
use sha2::{Digest, Sha256};

/// How the server answers.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Whole files, and ranges where asked for.
    Ranges,
    /// Whole files, whatever is asked for.
    NoRanges,
    /// Breaks off after so many bytes of each answer.
    BreaksOff(usize),
    /// Answers that nothing is there.
    Missing,
}

/// Serves `content` until the test ends. Returns its address and the ranges asked for.
fn serve(content: Vec<u8>, manner: Manner) -> (String, Arc<Mutex<Vec<Option<usize>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a.tar.gz", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let start = answer(stream.unwrap(), &content, manner);
            log.lock().unwrap().push(start);
        }
    });
    (url, asked)
}

fn answer(mut stream: TcpStream, content: &[u8], manner: Manner) -> Option<usize> {
    let mut start = None;
    for line in BufReader::new(&stream).lines() {
        let line = line.unwrap().to_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    let from = match manner {
        Manner::NoRanges => 0,
        _ => start.unwrap_or(0),
    };
    let status = match (manner, from) {
        (Manner::Missing, _) => "404 Not Found",
        (_, 0) => "200 OK",
        _ => "206 Partial Content",
    };
    let body = &content[from..];
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let sent = match manner {
        Manner::BreaksOff(limit) => &body[..limit.min(body.len())],
        _ => body,
    };
    // The client may hang up first.
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(sent));
    start
}

/// A gzipped tar of these files.
fn tar_gz(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // Written by hand: the builder refuses the paths that a hostile archive has.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn archive(url: &str, content: &[u8]) -> Archive {
    Archive {
        url: url.to_owned(),
        sha256: Sha256::digest(content)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect(),
        bytes: content.len() as u64,
        folder: "set".to_owned(),
        files: vec!["a.bin".to_owned(), "b.bin".to_owned()],
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn good() -> Vec<u8> {
    let a = noise(300_000);
    tar_gz(&[
        ("set/readme.html", b"x"),
        ("set/a.bin", &a),
        ("set/b.bin", b"bb"),
    ])
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_archive_is_fetched_checked_and_unpacked() {
    let content = good();
    let (url, _) = serve(content.clone(), Manner::Ranges);
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(&url, &content);
    assert!(!archive.is_unpacked(folder.path()));
    let mut last = 0;
    let unpacked = archive
        .fetch(folder.path(), &mut |done| last = done)
        .unwrap();
    assert_eq!(last, archive.bytes);
    assert_eq!(files_below(&unpacked), ["a.bin", "b.bin"]);
    assert_eq!(
        std::fs::read(unpacked.join("a.bin")).unwrap(),
        noise(300_000)
    );
    assert_eq!(
        files_below(folder.path()),
        ["set"],
        "nothing is left behind"
    );
    assert!(archive.is_unpacked(folder.path()));
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let content = good();
    for manner in [Manner::Ranges, Manner::NoRanges] {
        let folder = tempfile::tempdir().unwrap();
        let (bad_url, _) = serve(content.clone(), Manner::BreaksOff(100_000));
        let broken = archive(&bad_url, &content).fetch(folder.path(), &mut |_| {});
        let Err(FetchError::Download { kept, .. }) = broken else {
            panic!("{broken:?}");
        };
        assert!(kept > 0 && kept <= 100_000);
        let (url, asked) = serve(content.clone(), manner);
        archive(&url, &content)
            .fetch(folder.path(), &mut |_| {})
            .unwrap();
        assert_eq!(asked.lock().unwrap()[0], Some(kept as usize));
    }
}

#[test]
fn another_file_than_the_pinned_one_is_not_used() {
    let content = good();
    let mut other = content.clone();
    other[1000] ^= 1;
    let (url, _) = serve(other, Manner::Ranges);
    let folder = tempfile::tempdir().unwrap();
    let refused = archive(&url, &content).fetch(folder.path(), &mut |_| {});
    assert!(
        matches!(refused, Err(FetchError::WrongDigest { .. })),
        "{refused:?}"
    );
    assert!(files_below(folder.path()).is_empty());
}

#[test]
fn a_missing_file_and_a_dead_server_are_errors_with_the_address() {
    let content = good();
    let folder = tempfile::tempdir().unwrap();
    let (url, _) = serve(content.clone(), Manner::Missing);
    let error = archive(&url, &content)
        .fetch(folder.path(), &mut |_| {})
        .unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{port}/a.tar.gz");
    let error = archive(&url, &content)
        .fetch(folder.path(), &mut |_| {})
        .unwrap_err();
    assert!(error.to_string().contains(&url), "{error}");
}

#[test]
fn hostile_archives_write_nothing_outside_and_nothing_unlisted() {
    let outside = [
        ("../evil", &b"x"[..]),
        ("/tmp/evil", b"x"),
        ("set/../../evil", b"x"),
    ];
    let listed = [("set/a.bin", &b"a"[..]), ("set/b.bin", b"b")];
    let content = tar_gz(&[&outside[..], &listed[..]].concat());
    let (url, _) = serve(content.clone(), Manner::Ranges);
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("data");
    let unpacked = archive(&url, &content).fetch(&folder, &mut |_| {}).unwrap();
    assert_eq!(files_below(&unpacked), ["a.bin", "b.bin"]);
    assert_eq!(files_below(base.path()), ["data"]);

    let without = tar_gz(&listed[..1]);
    let truncated = &good()[..5000];
    for content in [&without[..], truncated, b"not an archive"] {
        let (url, _) = serve(content.to_vec(), Manner::Ranges);
        let folder = tempfile::tempdir().unwrap();
        let refused = archive(&url, content).fetch(folder.path(), &mut |_| {});
        assert!(
            matches!(
                refused,
                Err(FetchError::Archive { .. } | FetchError::Io { .. })
            ),
            "{refused:?}"
        );
        assert!(!folder.path().join("set").exists());
    }
}
