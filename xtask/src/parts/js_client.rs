//! The official JavaScript client, which the tests set on our Realtime server and a bench beside the prober, from
//! the tests' lock file.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Context, Found, first_number, npm, version_line};

pub(crate) const NAME: &str = "JS client";

const FOLDER: &str = "sandbox/tests/js";
const LOCK: &str = "package-lock.json";
const VARIABLE: &str = "THROUGHLINE_NODE_MODULES";
const PACKAGE: &str = "@supabase/supabase-js";

pub(crate) fn obtain(context: &Context<'_>) -> Result<Found> {
    let folder = context.workspace.join(FOLDER);
    let read = |name: &str| {
        let file = folder.join(name);
        std::fs::read(&file)
            .with_context(|| format!("could not read {}: the checkout is not whole", file.display()))
    };
    let (manifest, lock) = (read("package.json")?, read(LOCK)?);
    let why = format!("it runs {PACKAGE} for the tests and for a bench");
    let node = npm::node(context, &why)?;
    let node_version = first_number(&version_line(context, &node, &["--version"])?)?.to_owned();
    let slot = context
        .cache
        .slot("js", &format!("{:016x}", fingerprint(&[&manifest, &lock])));
    let (version, origin) = slot.obtain(
        context.interrupt,
        |dir| client_version(&dir.join("node_modules")),
        |dir| {
            for (name, content) in [("package.json", &manifest), (LOCK, &lock)] {
                std::fs::write(dir.join(name), content).with_context(|| format!("could not write {name}"))?;
            }
            npm::clean_install(context, &why, dir)
        },
    )?;
    Ok(Found {
        name: NAME,
        version: format!("{version}, node {node_version}"),
        how: origin.into(),
        path: slot.dir().join("node_modules"),
        variable: Some(VARIABLE),
    })
}

/// The version in the installed client's own manifest. npm renames a whole tree into place at its end, so a
/// client whose manifest is there is there whole.
fn client_version(modules: &Path) -> Result<String> {
    let manifest = modules.join(PACKAGE).join("package.json");
    let text = std::fs::read_to_string(&manifest)
        .with_context(|| format!("could not read {}", manifest.display()))?;
    let manifest: serde_json::Value =
        serde_json::from_str(&text).context("the client's manifest is not JSON")?;
    match manifest.get("version").and_then(serde_json::Value::as_str) {
        Some(version) => Ok(version.to_owned()),
        None => bail!("the client's manifest has no version"),
    }
}

/// FNV-1a, 64 bits: names a folder, guards nothing. std's own hasher may change with the compiler.
fn fingerprint(texts: &[&[u8]]) -> u64 {
    texts.concat().iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::How;
    use crate::parts::testing::Machine;

    #[test]
    fn the_fingerprint_is_the_published_one() {
        assert_eq!(fingerprint(&[b""]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(&[b"a"]), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fingerprint(&[b"foo", b"bar"]), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn another_lock_file_is_another_install() {
        let machine = Machine::new();
        let folder = machine.path(FOLDER);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("package.json"), "{}").unwrap();
        std::fs::write(folder.join(LOCK), "{}").unwrap();
        machine.install("node", "echo v20.20.2");
        let manifest = format!("node_modules/{PACKAGE}");
        machine.install(
            "npm",
            &format!("mkdir -p {manifest}; echo '{{\"version\":\"2.1.0\"}}' > {manifest}/package.json"),
        );
        let first = obtain(&machine.context()).unwrap();
        assert_eq!(
            (first.version.as_str(), first.how),
            ("2.1.0, node 20.20.2", How::Installed)
        );
        assert_eq!(
            obtain(&machine.context()).unwrap(),
            Found {
                how: How::Cached,
                ..first.clone()
            }
        );
        std::fs::write(folder.join(LOCK), "{\"lockfileVersion\":3}").unwrap();
        let second = obtain(&machine.context()).unwrap();
        assert_eq!(second.how, How::Installed);
        assert_ne!(first.path, second.path);
    }

    #[test]
    fn a_checkout_without_the_lock_file_is_said_so() {
        let machine = Machine::new();
        let error = obtain(&machine.context()).unwrap_err().to_string();
        assert!(error.contains("the checkout is not whole"), "{error}");
    }
}
