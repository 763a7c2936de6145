//! Config, chain and matrix files, good and broken: what is accepted, and the exact words of every refusal.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use throughline::chain;
use throughline::cli::check::check;
use throughline::config::model::Identity;
use throughline::config::{ConfigErrors, ERRORS_MAX, Kind, Loaded, SecretMode, load, load_text};
use throughline::matrix;

/// No message may hold one of these.
const SECRETS: &[&str] = &[
    "hunter2-secret",
    "anon-value",
    "service-value",
    "db-value",
    "temporal-value",
    "jwt-value",
];

fn env(name: &str) -> Option<String> {
    let value = match name {
        "SUPABASE_ANON_KEY" => "anon-value",
        "SUPABASE_SERVICE_ROLE_KEY" => "service-value",
        "SUPABASE_DB_URL" => "postgres://prober:db-value@127.0.0.1:5432/postgres",
        "TEMPORAL_API_KEY" => "temporal-value",
        "SUPABASE_JWT_SECRET" => "jwt-value",
        "EMPTY" => "",
        _ => return None,
    };
    Some(value.to_owned())
}

fn broken_files() -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir("tests/config/broken")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn refusal(path: &Path) -> ConfigErrors {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let refused = if name.starts_with("chain-") {
        chain::load(&path.to_string_lossy(), Path::new(""))
            .map(|_| ())
            .err()
    } else if name.starts_with("matrix-") {
        matrix::load(&path.to_string_lossy(), Path::new(""))
            .map(|_| ())
            .err()
    } else {
        load(path, &env).map(|_| ()).err()
    };
    refused.unwrap_or_else(|| panic!("{} is accepted", path.display()))
}

/// `UPDATE_EXPECT=1 cargo test --test config_files` writes the messages anew: read the diff.
#[test]
fn every_broken_file_is_refused_in_the_expected_words() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let files = broken_files();
    assert!(files.len() >= 30, "only {} broken files", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let expected_path = path.with_extension("expected");
        let refused = refusal(&path);
        let message = format!("{refused}\n");
        let leaked = SECRETS.iter().find(|secret| message.contains(**secret));
        assert_eq!(
            leaked,
            None,
            "{}: a secret is printed:\n{message}",
            path.display()
        );
        let debug = format!("{refused:?}");
        assert!(
            !SECRETS.iter().any(|secret| debug.contains(secret)),
            "{}: {debug}",
            path.display()
        );
        if update {
            std::fs::write(&expected_path, &message).unwrap();
        } else if std::fs::read_to_string(&expected_path).unwrap_or_default() != message {
            wrong.push(format!("--- {}\n{message}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_example_config_is_accepted_without_its_secrets_and_described_in_full() {
    let described = check(
        Path::new("docs/throughline.example.yaml"),
        &no_env,
        SecretMode::Placeholder,
    )
    .unwrap();
    let expected = Path::new("tests/config/example.check");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(expected, &described).unwrap();
    }
    let stale = described != std::fs::read_to_string(expected).unwrap();
    assert!(
        !stale,
        "{} is stale: UPDATE_EXPECT=1 cargo test --test config_files\n{described}",
        expected.display()
    );
}

#[test]
fn the_description_is_yaml_itself() {
    let described = check(
        Path::new("docs/throughline.example.yaml"),
        &no_env,
        SecretMode::Placeholder,
    )
    .unwrap();
    let read: serde_json::Value = serde_saphyr::from_str(&described).unwrap();
    assert_eq!(read["targets"]["staging"]["guard"]["prefix"], "tl-");
    assert_eq!(read["ok"], "1 probe");
}

#[test]
fn what_the_manuals_show_is_true() {
    let page = std::fs::read_to_string("docs/write-a-chain.md").unwrap();
    let example = page
        .split("```yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    chain::parse(Path::new("docs/write-a-chain.md"), example).unwrap_or_else(|errors| panic!("{errors}"));

    let page = std::fs::read_to_string("docs/write-a-matrix.md").unwrap();
    let mut blocks = page
        .split("```yaml\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap());
    let whole = blocks.next().unwrap();
    // The page's other block is a part that could stand at the end of the first.
    let text = format!("{whole}{}", blocks.next().unwrap());
    let matrix = matrix::parse(Path::new("docs/write-a-matrix.md"), &text);
    assert_eq!(matrix.unwrap_or_else(|errors| panic!("{errors}")).undo.len(), 1);

    let broken = std::fs::read_to_string("tests/config/broken/unknown-key-typo.yaml").unwrap();
    let page = std::fs::read_to_string("docs/configure.md").unwrap();
    let message = refused(&broken).to_string();
    assert!(
        page.contains(&message),
        "docs/configure.md does not show\n{message}"
    );
}

#[test]
fn the_description_names_the_source_of_a_secret_and_never_the_secret() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("throughline.yaml");
    std::fs::write(directory.path().join("anon"), "hunter2-secret\n").unwrap();
    std::fs::write(&path, CONFIG.replace("{env: SUPABASE_ANON_KEY}", "{file: anon}")).unwrap();
    let described = check(&path, &env, SecretMode::Read).unwrap();
    assert!(
        described.contains("api_key: <redacted, from file anon>"),
        "{described}"
    );
    assert!(
        described.contains("url: <redacted, from env SUPABASE_DB_URL>"),
        "{described}"
    );
    assert!(described.ends_with("ok: 1 probe\n"), "{described}");
    assert!(!leaks(&described), "{described}");
}

#[test]
fn a_config_means_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("secrets")).unwrap();
    std::fs::write(directory.path().join("secrets/anon"), "from-a-file\r\n").unwrap();
    std::fs::write(
        directory.path().join("mine.yaml"),
        chain::shipped_text("org-bootstrap-events").unwrap(),
    )
    .unwrap();
    let text = CONFIG
        .replace("{env: SUPABASE_ANON_KEY}", "{file: secrets/anon}")
        .replace(
            "chain: org-bootstrap-events",
            "chain: mine.yaml\n    budgets: {notified: {cold: 2s, warm: 1s}}",
        );
    let path = directory.path().join("throughline.yaml");
    std::fs::write(&path, text).unwrap();

    let config = load(&path, &env).unwrap();
    let target = &config.targets["staging"];
    let supabase = target.supabase.as_ref().unwrap();
    assert_eq!(supabase.url, "https://project.supabase.co");
    assert_eq!(
        supabase.realtime_url,
        "wss://project.supabase.co/realtime/v1/websocket"
    );
    assert_eq!(supabase.api_key.expose_secret(), "from-a-file");
    let Identity::Token(token) = &target.identities["service_role"] else {
        panic!("a token is written")
    };
    assert_eq!(token.expose_secret(), "service-value");
    assert_eq!(target.guard.as_ref().unwrap().prefix, "tl-");
    assert_eq!(target.temporal.as_ref().unwrap().namespace, "default");
    let probe = &config.probes[0];
    assert_eq!(probe.deadline, Duration::from_secs(30));
    let chain = probe.work.chain().unwrap();
    let notified = &chain.hops[chain.hop_index("notified").unwrap()];
    let budget = notified.budget.unwrap();
    assert_eq!(
        (budget.cold, budget.warm),
        (Duration::from_secs(2), Duration::from_secs(1))
    );
    assert_eq!(probe.budgets["notified"], budget);
}

/// A config with every kind of identity, for a matrix.
const VISIBILITY: &str = "\
targets:
  staging:
    supabase:
      url: https://project.supabase.co
      api_key: {env: SUPABASE_ANON_KEY}
    database:
      url: {env: SUPABASE_DB_URL}
      authenticator_url: {env: SUPABASE_DB_URL}
    guard: {synthetic: true, prefix: tl-}
    identities:
      anon: {token: {env: SUPABASE_ANON_KEY}}
      service_role: {token: {env: SUPABASE_SERVICE_ROLE_KEY}}
      tenant_a:
        minted:
          secret: {env: SUPABASE_JWT_SECRET}
          claims: {role: authenticated, sub: \"${uuid}\", org_id: \"${uuid}\", email: who@example.com}
      tenant_b:
        minted:
          secret: {env: SUPABASE_JWT_SECRET}
          claims: {role: authenticated, org_id: \"org-${uuid}\", app: {roles: [a, 1, null]}}
          lifetime: 5m
      app_role: {database: {url: {env: SUPABASE_DB_URL}}}
probes:
  visibility:
    kind: visibility
    target: staging
    matrix: org-visibility
";

#[test]
fn a_probe_of_a_matrix_means_what_it_says() {
    let config = load_ok(VISIBILITY).config;
    let target = &config.targets["staging"];
    let url = target.authenticator_url.as_ref().unwrap().expose_secret();
    assert!(url.contains("db-value"), "{url}");
    let Identity::Minted {
        secret,
        claims,
        lifetime,
    } = &target.identities["tenant_b"]
    else {
        panic!("a minted identity is written")
    };
    assert_eq!(secret.expose_secret(), "jwt-value");
    assert_eq!(*lifetime, Duration::from_secs(300));
    let names: Vec<_> = claims.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["role", "org_id", "app"]);
    assert_eq!(claims[1].1.names(), ["uuid"]);
    assert!(matches!(&target.identities["app_role"], Identity::Database(_)));
    let Identity::Minted { lifetime, .. } = &target.identities["tenant_a"] else {
        panic!("a minted identity is written")
    };
    assert_eq!(*lifetime, Duration::from_secs(600));
    let probe = &config.probes[0];
    assert_eq!(probe.deadline, Duration::from_secs(60));
    assert_eq!(probe.work.matrix().unwrap().name, "org-visibility");
    assert!(probe.work.chain().is_none());
}

#[test]
fn a_matrix_is_described_with_its_cells_and_without_what_a_claim_says_of_somebody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("throughline.yaml");
    std::fs::write(&path, VISIBILITY).unwrap();
    let described = check(&path, &env, SecretMode::Read).unwrap();
    assert!(!leaks(&described), "{described}");
    assert!(!described.contains("who@example.com"), "{described}");
    for line in [
        "      authenticator_url: <redacted, from env SUPABASE_DB_URL>",
        "          secret: <redacted, from env SUPABASE_JWT_SECRET>",
        "          claims: {role: authenticated, sub: \"${uuid}\", org_id: \"${uuid}\", email: given}",
        "          lifetime: 10m",
        "    kind: visibility",
        "    matrix: org-visibility",
        "    deadline: 1m",
    ] {
        assert!(
            described.lines().any(|described| described == line),
            "{line} is not in\n{described}"
        );
    }
    let cells = throughline::matrix::load("org-visibility", Path::new(""))
        .unwrap()
        .cells
        .len();
    assert!(
        described.contains(&format!(
            "# matrix org-visibility: {cells} cells, looks as anon, tenant_a,"
        )),
        "{described}"
    );
    assert!(
        described.contains("public.organizations_projection"),
        "{described}"
    );
}

/// A login of the database is no API user, but a matrix may look as nobody else.
#[test]
fn a_matrix_of_logins_alone_needs_neither_the_api_nor_its_roles() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("logins.yaml"),
        "matrix: logins\nidentities: {app_role: {}}\nfunctions: {now: {schema: pg_catalog, function: now}}\n\
         expect: [{functions: [now], paths: [sql], is: {app_role: visible}}]\n",
    )
    .unwrap();
    let path = directory.path().join("throughline.yaml");
    let text = "targets:\n  t:\n    identities: {app_role: {database: {url: {env: SUPABASE_DB_URL}}}}\n\
                probes:\n  p: {kind: visibility, target: t, matrix: logins.yaml}\n";
    std::fs::write(&path, text).unwrap();
    load(&path, &env).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn a_guard_that_does_not_allow_synthetic_data_is_none() {
    let text = CONFIG.replace("synthetic: true", "synthetic: false");
    assert_eq!(load_ok(&text).config.targets["staging"].guard, None);
}

#[test]
fn probes_keep_the_order_of_the_file() {
    let mut text = CONFIG.to_owned();
    for name in ["zebra", "ant", "mule"] {
        writeln!(text, "  {name}: {{target: staging, chain: org-bootstrap-events}}").unwrap();
    }
    let names: Vec<_> = load_ok(&text)
        .config
        .probes
        .iter()
        .map(|probe| probe.name.clone())
        .collect();
    assert_eq!(names, ["bootstrap", "zebra", "ant", "mule"]);
}

#[test]
fn anchors_and_aliases_spare_repetition() {
    let text = CONFIG
        .replace(
            "api_key: {env: SUPABASE_ANON_KEY}",
            "api_key: &anon {env: SUPABASE_ANON_KEY}",
        )
        .replace("    identities:", "    identities:\n      anon: {token: *anon}");
    let Identity::Token(token) = &load_ok(&text).config.targets["staging"].identities["anon"] else {
        panic!("a token is written")
    };
    assert_eq!(token.expose_secret(), "anon-value");
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let missing = load(&directory.path().join("none.yaml"), &env).unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("none.yaml: cannot read the file: there is no such file"),
        "{missing}"
    );
    let a_directory = load(directory.path(), &env).unwrap_err();
    assert!(
        a_directory.to_string().contains("this is a directory"),
        "{a_directory}"
    );
    let large = directory.path().join("large.yaml");
    std::fs::write(&large, "# long\n".repeat(200_000)).unwrap();
    assert_eq!(load(&large, &env).unwrap_err().errors[0].kind, Kind::TooLarge);
}

#[test]
fn a_file_full_of_faults_is_answered_with_the_first_twenty() {
    let mut text = CONFIG.to_owned();
    for number in 0..30 {
        writeln!(
            text,
            "  probe-{number}: {{target: nowhere, chain: org-bootstrap-events}}"
        )
        .unwrap();
    }
    let errors = refused(&text);
    assert_eq!((errors.errors.len(), errors.more), (ERRORS_MAX, 10));
    assert!(errors.to_string().ends_with("\n\nand 10 more"));
}

/// As large as a file may be, and wrong on every line.
#[test]
fn a_large_file_of_faults_is_answered_and_not_pondered() {
    let lines: String = (0..20_000).fold(String::new(), |mut text, number| {
        writeln!(text, "x{number}: y").unwrap();
        text
    });
    let errors = refused(&lines);
    assert!(errors.to_string().ends_with("and many more"), "{errors}");
}

/// A valid config.
const CONFIG: &str = "\
targets:
  staging:
    supabase:
      url: https://project.supabase.co
      api_key: {env: SUPABASE_ANON_KEY}
    database:
      url: {env: SUPABASE_DB_URL}
    temporal:
      address: http://temporal:7233
      task_queue: bootstrap
    guard: {synthetic: true, prefix: tl-}
    identities:
      service_role: {token: {env: SUPABASE_SERVICE_ROLE_KEY}}
probes:
  bootstrap:
    target: staging
    chain: org-bootstrap-events
";

/// A config with a place for every secret.
const CARELESS: &str = "\
targets:
  staging:
    supabase:
      url: https://project.supabase.co
      api_key: SECRET
    database:
      url: SECRET
    temporal:
      address: https://temporal:7233
      task_queue: bootstrap
      api_key: SECRET
    guard: {synthetic: true, prefix: tl-}
    identities:
      anon: SECRET
      service_role: {token: SECRET}
      tenant_a: {password: {email: a@example.com, password: SECRET}}
probes:
  bootstrap: {target: staging, chain: org-bootstrap-events}
export:
  otlp: {endpoint: http://collector:4318, headers: {Authorization: SECRET}}
";

/// The config with one secret written out, and the others as they should be.
fn careless(place: usize, written: &str) -> String {
    let parts: Vec<_> = CARELESS.split("SECRET").collect();
    let last = parts.len() - 1;
    let place = place % last;
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        text.push_str(part);
        if index < last {
            let reference = if part.ends_with("anon: ") {
                "{token: {env: X}}"
            } else {
                "{env: X}"
            };
            text.push_str(if index == place { written } else { reference });
        }
    }
    text
}

fn no_env(_: &str) -> Option<String> {
    None
}

fn load_ok(text: &str) -> Loaded {
    load_text(Path::new("throughline.yaml"), text, &env, SecretMode::Read)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

fn refused(text: &str) -> ConfigErrors {
    load_text(Path::new("throughline.yaml"), text, &env, SecretMode::Read).unwrap_err()
}

fn leaks(text: &str) -> bool {
    SECRETS.iter().any(|secret| text.contains(secret))
}

/// One slip of a careless hand.
fn slip(text: &str, position: usize, kind: u8, inserted: char) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let position = position % chars.len();
    match kind % 4 {
        0 => {
            chars.remove(position);
        }
        1 => chars.insert(position, inserted),
        2 => chars[position] = inserted,
        _ => chars.truncate(position),
    }
    chars.into_iter().collect()
}

fn load_as_config(text: &str) -> Option<ConfigErrors> {
    load_text(Path::new("c.yaml"), text, &env, SecretMode::Placeholder).err()
}

fn load_as_chain(text: &str) -> Option<ConfigErrors> {
    chain::parse(Path::new("chain.yaml"), text).err()
}

fn load_as_matrix(text: &str) -> Option<ConfigErrors> {
    matrix::parse(Path::new("matrix.yaml"), text).err()
}

fn load_as_each(text: &str) -> Vec<ConfigErrors> {
    [load_as_config, load_as_chain, load_as_matrix]
        .into_iter()
        .filter_map(|load| load(text))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_loader_panic(text in "[ -~\\n\\t\u{e9}\u{2028}]{0,200}") {
        for errors in load_as_each(&text) {
            prop_assert!(!errors.errors.is_empty());
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn no_yaml_like_text_makes_the_loader_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "targets", "probes", ": ", "\n", "\n  ", "- ", "{", "}", "[", "]", "&a ", "*a", "<<: ", "? ", "| ", "> ",
                "!!int ", "!x ", "\"", "'", "null", "~", "0x1f", "1e999", ".nan", "#", "hops", "id", "${", "---\n", ", ",
                "expect", "rows", "is", "others",
            ]),
            0..60,
        )
    ) {
        for errors in load_as_each(&words.concat()) {
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn no_bytes_make_the_loader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        prop_assert!(load(file.path(), &env).is_err());
    }

    #[test]
    fn a_slip_in_a_valid_file_never_panics(
        slips in prop::collection::vec((any::<usize>(), any::<u8>(), prop::sample::select(vec![' ', ':', '{', '"', '\n', '$', 'x', '-'])), 1..4)
    ) {
        for (original, load) in [
            (CONFIG.to_owned(), load_as_config as fn(&str) -> Option<ConfigErrors>),
            (chain::shipped_text("org-bootstrap-events").unwrap().to_owned(), load_as_chain),
            (matrix::shipped_text("org-visibility").unwrap().to_owned(), load_as_matrix),
        ] {
            let mut text = original;
            for (position, kind, inserted) in &slips {
                if !text.is_empty() {
                    text = slip(&text, *position, *kind, *inserted);
                }
            }
            if let Some(errors) = load(&text) {
                prop_assert!(!errors.to_string().is_empty());
            }
        }
    }

    /// The secrets stay whole, or nearly, whatever happens around them.
    #[test]
    fn no_slip_around_a_secret_prints_it(
        place in any::<usize>(),
        written in prop::sample::select(vec![
            "hunter2-secret", "\"hunter2-secret\"", "'hunter2-secret'", "{env: hunter2-secret}", "[hunter2-secret]",
            "postgres://prober:hunter2-secret@db/postgres", "|\n          hunter2-secret", "{hunter2-secret}",
        ]),
        slips in prop::collection::vec(
            (
                any::<usize>(),
                0u8..3,
                prop::sample::select(vec![
                    ' ', ':', '{', '}', '"', '\'', '\n', ',', 'x', '-', '&', '*', '#', '|', '@', '\t',
                ]),
            ),
            0..3,
        )
    ) {
        let text = slips
            .iter()
                        .fold(careless(place, written), |text, (position, kind, inserted)| slip(&text, *position, *kind, *inserted));
        if let Err(errors) = load_text(Path::new("c.yaml"), &text, &env, SecretMode::Placeholder) {
            prop_assert!(!errors.to_string().contains("hunter2"), "{text}\n{errors}");
            prop_assert!(!format!("{errors:?}").contains("hunter2"), "{errors:?}");
        }
    }
}
