//! `cargo xtask image`: a container image from scratch, without Docker.
//!
//! Linked against musl, the program needs nothing of a distribution, not even for name look-ups (glibc loads its
//! resolver at run time, so a static program of glibc's resolves no name in an empty image). The image holds the
//! program, root certificates and a user's name.

mod oci;
mod tar;
mod trial;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cargo;
use crate::cli::ImageArgs;
use crate::environment::Environment;
use crate::interrupt::Interrupt;
use crate::process::{Group, Running};
use crate::progress;

/// A release build with link-time optimization takes ten minutes on two idle cores.
const BUILD_DEADLINE: Duration = Duration::from_secs(90 * 60);
/// The bundle of Debian's `ca-certificates`.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

pub(crate) fn run(environment: &Environment, interrupt: &Interrupt, args: &ImageArgs) -> Result<ExitCode> {
    let workspace = cargo::workspace(environment);
    let machine = Machine::here()?;
    progress::stage("a compiler for a program that needs nothing else");
    machine.check(environment)?;
    progress::stage(&format!("the program, for {}", machine.target));
    let program = build(environment, interrupt, &workspace, &machine, &args.profile)?;
    progress::stage("the image");
    let read =
        |path: &Path| std::fs::read(path).with_context(|| format!("could not read {}", path.display()));
    let certificates = read(Path::new(CERTIFICATES))
        .context("the image's root certificates come from this machine: apt-get install ca-certificates")?;
    let program = read(&program)?;
    let contents = oci::Contents {
        program: &program,
        certificates: &certificates,
        architecture: machine.architecture,
        version: env!("CARGO_PKG_VERSION"),
        tag: &args.tag,
    };
    let out = workspace.join(&args.out);
    let file = std::fs::File::create(&out).with_context(|| format!("could not make {}", out.display()))?;
    let digest = oci::write(&contents, std::io::BufWriter::new(file))
        .with_context(|| format!("could not write {}", out.display()))?;
    progress::stage("a trial: read-only, as nobody in particular");
    let said = trial::run(&read(&out)?, &["--version"])?;
    let size = std::fs::metadata(&out).map_or(0, |about| about.len());
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", out.display())?;
    writeln!(stdout, "{} {digest}", args.tag)?;
    writeln!(
        stdout,
        "{:.1} MB, of which the program {:.1} MB; it says: {}",
        size as f64 / 1e6,
        program.len() as f64 / 1e6,
        said.trim()
    )?;
    Ok(ExitCode::SUCCESS)
}

/// What this machine builds for: itself, with musl.
struct Machine {
    target: &'static str,
    architecture: &'static str,
}

impl Machine {
    fn here() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self {
                target: "x86_64-unknown-linux-musl",
                architecture: "amd64",
            }),
            "aarch64" => Ok(Self {
                target: "aarch64-unknown-linux-musl",
                architecture: "arm64",
            }),
            other => bail!("images are built for x86_64 and aarch64, and this machine is {other}"),
        }
    }

    /// Whether there is Rust's standard library for the target, and a C compiler for `ring`. The library comes from
    /// nowhere but rustup's own server, so fetching it is left to whoever knows that they may.
    fn check(&self, environment: &Environment) -> Result<()> {
        if environment.on_path("musl-gcc").is_none() {
            bail!(
                "`musl-gcc` is not on the PATH; it compiles the C and assembly of the cryptography. To install it: \
                 apt-get install -y --no-install-recommends musl-tools"
            );
        }
        if !self.has_standard_library() {
            bail!(
                "this Rust has no standard library for {0}. To install it: rustup target add {0}",
                self.target
            );
        }
        Ok(())
    }

    fn has_standard_library(&self) -> bool {
        let output = Command::new("rustc")
            .args(["--print", "target-libdir", "--target", self.target])
            .stderr(Stdio::null())
            .output();
        output.is_ok_and(|output| {
            output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
        })
    }
}

/// Builds the program and says where it is. Paths of this machine are not in it.
fn build(
    environment: &Environment,
    interrupt: &Interrupt,
    workspace: &Path,
    machine: &Machine,
    profile: &str,
) -> Result<PathBuf> {
    let cargo_home = environment
        .variable("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            environment
                .variable("HOME")
                .map(|home| Path::new(home).join(".cargo"))
        })
        .unwrap_or_default();
    let flags = [
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        format!("--remap-path-prefix={}=/throughline", workspace.display()),
    ];
    let mut command = cargo::command(environment, workspace);
    command
        .args([
            "build",
            "--locked",
            "--package",
            "throughline",
            "--bin",
            "throughline",
        ])
        .args(["--profile", profile, "--target", machine.target])
        .args(["--message-format", "json-render-diagnostics"])
        .env(format!("CC_{}", machine.target.replace('-', "_")), "musl-gcc")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let output =
        Running::start(command, "cargo build", Group::Shared)?.wait(BUILD_DEADLINE, interrupt, |_| {});
    interrupt.check()?;
    let output = output?;
    if !output.status.success() {
        bail!("the build failed ({}): cargo says why above", output.status);
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| {
            let is_program = message.pointer("/target/kind/0")? == "bin";
            is_program.then(|| message.get("executable")?.as_str().map(PathBuf::from))?
        })
        .context("cargo built no program")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A program without any library: it says who runs it and whether it may write, as the shell would.
    const WHO: &str = r#"
        #include <errno.h>
        #include <fcntl.h>
        #include <stdio.h>
        #include <unistd.h>
        int main(void) {
            int written = open("/written", O_CREAT | O_WRONLY, 0600);
            printf("%d %d\n", (int)getuid(), written < 0 ? errno : 0);
            return 0;
        }
    "#;

    fn image(program: &[u8]) -> (Vec<u8>, String) {
        let contents = oci::Contents {
            program,
            certificates: b"certificates",
            architecture: "amd64",
            version: "1.2.3",
            tag: "throughline:1.2.3",
        };
        let mut archive = Vec::new();
        let digest = oci::write(&contents, &mut archive).unwrap();
        (archive, digest)
    }

    fn unpacked(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        trial::unpack(archive, folder.path()).unwrap();
        let mut files = BTreeMap::new();
        let mut open = vec![folder.path().to_path_buf()];
        while let Some(next) = open.pop() {
            for entry in std::fs::read_dir(next).unwrap().map(Result::unwrap) {
                if entry.path().is_dir() {
                    open.push(entry.path());
                } else {
                    let name = entry.path().strip_prefix(folder.path()).unwrap().to_path_buf();
                    files.insert(
                        name.to_str().unwrap().to_owned(),
                        std::fs::read(entry.path()).unwrap(),
                    );
                }
            }
        }
        files
    }

    fn json(files: &BTreeMap<String, Vec<u8>>, name: &str) -> Value {
        serde_json::from_slice(&files[name]).unwrap()
    }

    /// The blob that a descriptor names, which must be what it says.
    fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let digest = descriptor["digest"].as_str().unwrap();
        let blob = &files[&format!("blobs/{}", digest.replace(':', "/"))];
        assert_eq!(oci::digest(blob), digest);
        assert_eq!(descriptor["size"], blob.len());
        blob
    }

    #[test]
    fn the_layout_is_whole_from_the_index_to_the_layer() {
        let (archive, digest) = image(b"program");
        let files = unpacked(&archive);
        assert_eq!(json(&files, "oci-layout")["imageLayoutVersion"], "1.0.0");
        let entry = json(&files, "index.json")["manifests"][0].clone();
        assert_eq!(entry["digest"], digest);
        let manifest: Value = serde_json::from_slice(blob(&files, &entry)).unwrap();
        let config: Value = serde_json::from_slice(blob(&files, &manifest["config"])).unwrap();
        let layer = blob(&files, &manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], oci::digest(layer));
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"][0], "/throughline");
        // What an older `docker load` reads instead.
        let docker = json(&files, "manifest.json")[0].clone();
        assert!(files.contains_key(docker["Config"].as_str().unwrap()));
        assert_eq!(files[docker["Layers"][0].as_str().unwrap()], layer);
        assert_eq!(docker["RepoTags"][0], "throughline:1.2.3");
        let root = unpacked(layer);
        assert_eq!(root["throughline"], b"program");
        assert_eq!(root[oci::CERTIFICATES], b"certificates");
        assert_eq!(root.len(), 3, "{:?}", root.keys());
    }

    #[test]
    fn the_same_contents_make_the_same_bytes_and_others_do_not() {
        assert_eq!(image(b"program"), image(b"program"));
        assert_ne!(image(b"program").1, image(b"programs").1);
    }

    #[test]
    fn the_program_runs_read_only_as_somebody_without_rights() {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("who.c"), folder.path().join("who"));
        std::fs::write(&source, WHO).unwrap();
        let compiled = Command::new("cc")
            .arg("-static")
            .arg("-o")
            .args([&program, &source])
            .status()
            .unwrap();
        assert!(compiled.success());
        let (archive, _) = image(&std::fs::read(program).unwrap());
        let said = trial::run(&archive, &[]).unwrap();
        // EROFS: not even root could have written there.
        let read_only = 30;
        let user = if is_root() { oci::USER } else { 0 };
        assert_eq!(said.trim(), format!("{user} {read_only}"));
    }

    fn is_root() -> bool {
        Environment::current().is_root()
    }

    #[test]
    fn a_program_that_is_not_static_is_told_apart() {
        let (archive, _) = image(&std::fs::read("/bin/ls").unwrap());
        let error = trial::run(&archive, &[]).unwrap_err();
        assert!(format!("{error:#}").contains("did not run"), "{error:#}");
    }
}
