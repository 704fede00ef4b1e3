//! The log of keys: written when asked for, and for nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use lariat::Incoming;
use lariat::capture::{Capture, CaptureOptions};
use lariat::sim::Sim;
use lariat::tls::{ClientConfig, ServerConfig, Tls};
use lariat::tunnel::Tunnel;

use crate::capture::Tapped;
use crate::certs::Authority;
use crate::kit::{End, Told};

const CHILD: &str = "LARIAT_TEST_LOGS_KEYS";

/// A session through a relay that captures what is on the wire, in a process whose environment
/// names a file for the keys.
#[test]
fn a_session_of_a_child_with_a_file_for_keys() {
    let (Ok(who), Ok(file)) = (std::env::var(CHILD), std::env::var("SSLKEYLOGFILE")) else {
        return;
    };
    let authority = Authority::new();
    let (mut server, mut client) =
        (ServerConfig::new(authority.issue("localhost")), ClientConfig::new(&authority.roots()));
    match who.as_str() {
        "server" => server = server.log_keys(),
        "client" => client = client.log_keys(),
        _ => {}
    }
    let mut sim = Sim::new(1);
    let echo = move |_: &Incoming| {
        let end = End { told: Told::default(), says: vec![], echoes: true, listener: None };
        Some(Tls::server(&server, end))
    };
    sim.listen("10.0.0.1:443", echo).unwrap();
    let capture = Capture::in_memory(CaptureOptions::default());
    let made = capture.clone();
    let target: std::net::SocketAddr = "10.0.0.1:443".parse().unwrap();
    sim.listen("10.0.0.2:443", move |_: &Incoming| Some(Tapped(made.clone(), Tunnel::to(target))))
        .unwrap();
    let heard = Told::default();
    let end =
        End { told: heard.clone(), says: b"a secret".to_vec(), echoes: false, listener: None };
    sim.connect("10.0.0.2:443", Tls::client(&client, "localhost", end).unwrap());
    sim.run_for(std::time::Duration::from_secs(20)).unwrap();
    assert_eq!(heard.bytes(), b"a secret");
    std::fs::write(Path::new(&file).with_extension("pcapng"), capture.bytes()).unwrap();
}

/// Runs the test above in a process of its own: what its keys are logged to, and the capture.
fn child(who: &str) -> (Option<String>, PathBuf) {
    let name = format!("lariat-keys-{who}-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "keys::a_session_of_a_child_with_a_file_for_keys"])
        .envs([(CHILD, who.as_ref()), ("SSLKEYLOGFILE", file.as_os_str())])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    let keys = std::fs::read_to_string(&file).ok();
    (keys, file)
}

fn remove(file: &Path) {
    let _ = std::fs::remove_file(file);
    let _ = std::fs::remove_file(file.with_extension("pcapng"));
}

#[test]
fn keys_are_logged_when_asked_for_in_the_form_that_others_read() {
    for who in ["server", "client"] {
        let (keys, file) = child(who);
        let keys = keys.expect("they were asked for");
        let mut labels = Vec::new();
        for line in keys.lines() {
            let [label, random, secret] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("three words: {line}")
            };
            let is_hex = |text: &str| text.bytes().all(|b| b"0123456789abcdef".contains(&b));
            assert!(random.len() == 64 && is_hex(random), "{line}");
            assert!([64, 96].contains(&secret.len()) && is_hex(secret), "{line}");
            labels.push(label);
        }
        for label in [
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
            "SERVER_HANDSHAKE_TRAFFIC_SECRET",
            "CLIENT_TRAFFIC_SECRET_0",
            "SERVER_TRAFFIC_SECRET_0",
        ] {
            assert!(labels.contains(&label), "{label} of the {who} in {labels:?}");
        }
        if Command::new("tshark").arg("--version").output().is_err() {
            eprintln!("tshark is not installed: nobody but the tests reads the keys");
        } else {
            let tshark = |keys: &Path| {
                let option = format!("tls.keylog_file:{}", keys.display());
                let done = Command::new("tshark")
                    .arg("-r")
                    .arg(file.with_extension("pcapng"))
                    .args(["-o", &option, "-q", "-z", "follow,tls,ascii,0"])
                    .output()
                    .unwrap();
                String::from_utf8_lossy(&done.stdout).into_owned()
            };
            let read = tshark(&file);
            assert_eq!(read.matches("a secret").count(), 2, "both directions: {read}");
            let read = tshark(Path::new("/dev/null"));
            assert!(!read.contains("a secret"), "without the keys: {read}");
        }
        remove(&file);
    }
}

#[test]
fn keys_are_not_logged_unless_asked_for() {
    let (keys, file) = child("nobody");
    assert_eq!(keys, None);
    assert!(file.with_extension("pcapng").exists(), "the session has been");
    remove(&file);
}
