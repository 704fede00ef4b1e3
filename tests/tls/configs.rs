//! What a configuration is made of: files, keys, names, and what is wrong with them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use lariat::sim::Sim;
use lariat::tls::rustls::crypto::ring;
use lariat::tls::rustls::pki_types::PrivateKeyDer;
use lariat::tls::rustls::pki_types::pem::PemObject;
use lariat::tls::{ClientConfig, Identity, Roots, ServerConfig, Tls, rustls};

use crate::certs::Authority;
use crate::kit::session_on;

fn sentence<T>(result: Result<T, lariat::tls::TlsError>) -> String {
    result.err().expect("it is an error").to_string()
}

#[test]
fn what_is_wrong_with_a_certificate_or_its_key_is_said() {
    let authority = Authority::new();
    let (chain, key) = authority.issue_pem("localhost", |_| {});
    let (_, other) = authority.issue_pem("localhost", |_| {});
    let pem = |chain: &str, key: &str| Identity::from_pem(chain.as_bytes(), key.as_bytes());
    assert!(pem(&chain, &key).is_ok());
    assert_eq!(sentence(pem(&chain, &other)), "the key is not the key of the certificate");
    let swapped = "the certificate has no certificate in it: it is a private key; are the two \
                   swapped?";
    assert_eq!(sentence(pem(&key, &chain)), swapped);
    let swapped = "the key has no private key in it: it is a certificate; are the two swapped?";
    assert_eq!(sentence(pem(&chain, &chain)), swapped);
    assert_eq!(sentence(pem("", &key)), "the certificate has no certificate in it: it is empty");
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let sentence = sentence(pem(&chain, locked));
    assert!(sentence.contains("it needs a passphrase"), "{sentence}");
}

#[test]
fn one_bad_authority_in_a_list_is_an_error_and_is_not_left_out() {
    let good = Authority::new().pem();
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(Roots::from_pem(good.as_bytes()).is_ok());
    for list in [format!("{good}{bad}"), format!("{bad}{good}")] {
        let sentence = sentence(Roots::from_pem(list.as_bytes()));
        let begins = "the list of authorities has a bad authority: ";
        assert!(sentence.starts_with(begins), "{sentence}");
    }
    let none = sentence(Roots::from_pem(b"no list"));
    assert_eq!(none, "the list of authorities has no certificate in it");
}

#[test]
fn an_error_names_the_file() {
    let directory = std::env::temp_dir().join(format!("lariat-tls-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let path = |name: &str| -> PathBuf { directory.join(name) };
    let (chain, key) = Authority::new().issue_pem("localhost", |_| {});
    fs::write(path("chain.pem"), chain).unwrap();
    fs::write(path("key.pem"), key).unwrap();
    assert!(Identity::from_files(path("chain.pem"), path("key.pem")).is_ok());
    let missing = sentence(Identity::from_files(path("none.pem"), path("key.pem")));
    assert!(missing.starts_with("cannot read ") && missing.contains("none.pem"), "{missing}");
    let swapped = sentence(Identity::from_files(path("key.pem"), path("chain.pem")));
    assert!(swapped.contains("key.pem has no certificate in it"), "{swapped}");
    assert!(Roots::from_file(path("chain.pem")).is_ok());
    assert!(sentence(Roots::from_file(path("key.pem"))).contains("key.pem"));
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_key_is_never_printed() {
    let authority = Authority::new();
    let (chain, key) = authority.issue_pem("localhost", |_| {});
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let printed = format!("{identity:?} {:?}", ServerConfig::new(identity.clone()));
    assert!(!printed.contains("PRIVATE") && printed.len() < 3_000, "{printed}");
}

#[test]
fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let authority = Authority::new();
    let server = ServerConfig::new(authority.issue("localhost"));
    server.add_name("Other.Example", authority.issue("other.example")).unwrap();
    let client = ClientConfig::new(&authority.roots());
    server.add_name("rooted.example.", authority.issue("rooted.example")).unwrap();
    for name in ["localhost", "other.example", "rooted.example"] {
        let (served, heard) = session_on(&mut Sim::new(1), &server, &client, name, b"x");
        assert_eq!(heard.bytes(), b"x", "{name}: {}", heard.reason());
        assert_eq!(served.session().server_name(), Some(name));
    }
}

#[test]
fn a_certificate_is_replaced_while_the_server_runs() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = ServerConfig::new(old.issue("localhost"));
    let client = ClientConfig::new(&new.roots());
    let (_, heard) = session_on(&mut Sim::new(1), &server, &client, "localhost", b"x");
    assert!(!heard.has_opened());
    server.clone().replace_identity(new.issue("localhost")).unwrap();
    let (_, heard) = session_on(&mut Sim::new(1), &server, &client, "localhost", b"x");
    assert_eq!(heard.bytes(), b"x");
}

#[test]
fn the_identity_of_a_name_and_that_of_all_others_are_replaced_apart() {
    let [old, new] = [(); 2].map(|()| Authority::new());
    let server = ServerConfig::new(old.issue("localhost"));
    server.add_name("a.example", old.issue("a.example")).unwrap();
    server.add_name("b.example", old.issue("b.example")).unwrap();
    let is_new = |name: &str| {
        let [of_old, of_new] = [&old, &new].map(|authority| {
            let client = ClientConfig::new(&authority.roots());
            session_on(&mut Sim::new(1), &server, &client, name, b"x").1.has_opened()
        });
        assert_ne!(of_old, of_new, "{name}");
        of_new
    };
    let all = || ["localhost", "a.example", "b.example"].map(is_new);
    assert_eq!(all(), [false, false, false]);
    // A clone is the same configuration.
    server.clone().replace_identity(new.issue("localhost")).unwrap();
    assert_eq!(all(), [true, false, false]);
    server.clone().add_name("A.Example", new.issue("a.example")).unwrap();
    assert_eq!(all(), [true, true, false]);
    let shown = format!("{server:?}");
    assert!(shown.contains("\"a.example\", \"b.example\"") || shown.contains("\"b.example\", \"a"));
}

#[test]
fn the_certificates_of_a_configuration_of_rustls_own_making_stay_as_they_are() {
    let authority = Authority::new();
    let made = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
            authority.issue("localhost").certified_key(),
        )));
    let server = ServerConfig::from(Arc::new(made));
    let why = "the certificates of this configuration are rustls' own";
    assert_eq!(sentence(server.replace_identity(authority.issue("localhost"))), why);
    assert_eq!(sentence(server.add_name("a", authority.issue("a"))), why);
    let client = ClientConfig::new(&authority.roots());
    let (_, heard) = session_on(&mut Sim::new(1), &server, &client, "localhost", b"x");
    assert_eq!(heard.bytes(), b"x", "{}", heard.reason());
}

#[test]
fn a_pair_that_does_not_fit_leaves_the_old_certificate_in_place_and_is_said() {
    let authority = Authority::new();
    let server = ServerConfig::new(authority.issue("localhost"));
    let client = ClientConfig::new(&authority.roots());
    let (chain, _) = authority.issue_pem("localhost", |_| {});
    let (_, other) = authority.issue_pem("localhost", |_| {});
    let read = Identity::from_pem(chain.as_bytes(), other.as_bytes());
    let replaced = read.and_then(|identity| server.replace_identity(identity));
    assert_eq!(sentence(replaced), "the key is not the key of the certificate");
    let (_, heard) = session_on(&mut Sim::new(1), &server, &client, "localhost", b"x");
    assert_eq!(heard.bytes(), b"x", "{}", heard.reason());
}

#[test]
fn a_name_that_is_none_is_an_error() {
    let client = ClientConfig::new(&Authority::new().roots());
    let error = sentence(Tls::client(&client, "not a name", ()));
    assert_eq!(error, "\"not a name\" is neither a host name nor an IP address");
    assert!(Tls::client(&client, "127.0.0.1", ()).is_ok());
}

/// A key of a kind that neither library knows: Ed448.
const ODD: &str = "-----BEGIN PRIVATE KEY-----
MEcCAQAwBQYDK2VxBDsEOV0fTQXPo/532539u0OOoOVtLZpz1DeenBhCXlmN25bD
2BJVmnGYinT13JgzcChvZcWuWJswxs7RvQ==
-----END PRIVATE KEY-----
";

#[test]
fn the_one_of_two_that_cannot_be_used_is_named_and_no_other() {
    let (chain, key) = Authority::new().issue_pem("localhost", |_| {});
    let pem = |chain: &[u8], key: &[u8]| sentence(Identity::from_pem(chain, key));
    let odd = pem(chain.as_bytes(), ODD.as_bytes());
    assert!(odd.starts_with("the key in the key cannot be used: "), "{odd}");
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let bad = pem(bad.as_bytes(), key.as_bytes());
    assert!(bad.starts_with("the first certificate in the certificate is not valid"), "{bad}");
    let garbled = pem(b"-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n", b"");
    assert!(garbled.starts_with("the certificate is not PEM: "), "{garbled}");
    // What has no text in it, and nothing at all.
    let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let binary = der.secret_der();
    let hint = "it seems to be DER, which openssl turns into PEM (-inform der)";
    let said = pem(chain.as_bytes(), binary);
    assert_eq!(said, format!("the key has no private key in it: {hint}"));
    let said = pem(binary, key.as_bytes());
    assert_eq!(said, format!("the certificate has no certificate in it: {hint}"));
    let said = pem(chain.as_bytes(), b"");
    assert_eq!(said, "the key has no private key in it: it is empty");
    assert_eq!(pem(b"words\n", key.as_bytes()), "the certificate has no certificate in it");
    // The old way to put a passphrase on a key.
    let locked = b"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                   DEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let said = pem(chain.as_bytes(), locked);
    assert!(said.contains("it needs a passphrase"), "{said}");
}

#[test]
fn a_directory_and_a_file_without_a_line_are_said_too() {
    let directory = std::env::temp_dir().join(format!("lariat-odd-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let (chain, key) = Authority::new().issue_pem("localhost", |_| {});
    let path = |name: &str| directory.join(name);
    fs::write(path("chain.pem"), chain).unwrap();
    fs::write(path("key.pem"), key).unwrap();
    fs::write(path("empty.pem"), "").unwrap();
    let said = sentence(Identity::from_files(&directory, path("key.pem")));
    let shown = directory.display();
    assert!(said.starts_with(&format!("cannot read {shown}: ")), "{said}");
    assert!(sentence(Roots::from_file(&directory)).starts_with(&format!("cannot read {shown}: ")));
    let said = sentence(Roots::from_file(path("empty.pem")));
    assert_eq!(said, format!("{shown}/empty.pem has no certificate in it: it is empty"));
    // `main` may return it: its other form is the same sentence.
    let error = Roots::from_file(path("empty.pem")).unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string());
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_certificate_for_a_wildcard_is_for_one_word_and_gives_way_to_the_name_itself() {
    let authority = Authority::new();
    let server = ServerConfig::new(authority.issue("localhost"));
    server.add_name("*.Example.org", authority.issue("*.example.org")).unwrap();
    server.add_name("b.example.org", authority.issue("b.example.org")).unwrap();
    let shown = |name: &str| {
        // A client of its own: one that resumes a session is shown no certificate.
        let client = ClientConfig::new(&authority.roots());
        let (_, heard) = session_on(&mut Sim::new(1), &server, &client, name, b"x");
        match heard.has_opened() {
            true => heard.session().peer_certificates()[0].to_vec(),
            false => Vec::new(),
        }
    };
    let (wild, own) = (shown("a.example.org"), shown("b.example.org"));
    assert!(!wild.is_empty() && !own.is_empty() && wild != own);
    assert_eq!(shown("C.example.org"), wild);
    // These get the certificate that is for all others, which is for another name.
    for name in ["a.b.example.org", "example.org"] {
        assert!(shown(name).is_empty(), "{name}");
    }
    let identity = || authority.issue("localhost");
    for name in ["", "*", "*.", "a.*.org", "not a name", "127.0.0.1", "**.example.org"] {
        let said = sentence(server.add_name(name, identity()));
        assert_eq!(said, format!("{name:?} is not a host name"));
    }
    // A later one for the same name takes its place.
    server.add_name("B.EXAMPLE.ORG", authority.issue("b.example.org")).unwrap();
    assert_ne!(shown("b.example.org"), own);
}

#[test]
fn a_certificate_and_its_key_may_be_in_one_file() {
    let path = std::env::temp_dir().join(format!("lariat-both-{}.pem", std::process::id()));
    let (chain, key) = Authority::new().issue_pem("localhost", |_| {});
    for both in [format!("{chain}{key}"), format!("words\n{key}more\r\n{chain}")] {
        fs::write(&path, both.replace('\n', "\r\n")).unwrap();
        assert!(Identity::from_files(&path, &path).is_ok());
    }
    fs::remove_file(&path).unwrap();
}

const ROOTS: &str = "LARIAT_TEST_ROOTS";

#[test]
fn the_systems_authorities_are_those_that_its_file_has() {
    if let Some(wanted) = std::env::var_os(ROOTS) {
        match wanted.to_str() {
            Some("some") => drop(Roots::system().unwrap()),
            _ => {
                let sentence = sentence(Roots::system());
                let none = "this system has no list of trusted authorities";
                assert!(sentence.starts_with(none), "{sentence}");
            }
        }
        return;
    }
    // The variable is the process's: each case has one of its own.
    let name = "configs::the_systems_authorities_are_those_that_its_file_has";
    let folder = std::env::temp_dir().join(format!("lariat-roots-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for (wanted, text) in [("some", Authority::new().pem()), ("none", String::new())] {
        let file = folder.join(wanted);
        fs::write(&file, text).unwrap();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(ROOTS, wanted)
            .env("SSL_CERT_FILE", &file)
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap();
        assert!(output.status.success(), "{wanted}: {output:?}");
    }
    fs::remove_dir_all(&folder).unwrap();
}
