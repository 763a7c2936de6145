//! Running an image's program as a cluster would: from its own files alone, read-only, without rights.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::oci::{PROGRAM, USER};
use crate::environment::Environment;

/// In a mount namespace of its own: `$1` becomes the root, read-only, and the rest is run in it.
const READ_ONLY: &str = r#"
    mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && root=$1 && shift && exec chroot $OPTIONS "$root" "$@"
"#;

/// Runs the image's program and gives what it printed.
///
/// As root it becomes the image's user. Others cannot become somebody else: for them a user namespace, in which
/// they are called root, has to do.
pub(super) fn run(archive: &[u8], arguments: &[&str]) -> Result<String> {
    let folder = tempfile::tempdir().context("could not make a folder")?;
    let (layout, root) = (folder.path().join("layout"), folder.path().join("root"));
    for folder in [&layout, &root] {
        std::fs::create_dir(folder).with_context(|| format!("could not make {}", folder.display()))?;
    }
    unpack(archive, &layout)?;
    let docker: Value = serde_json::from_slice(&std::fs::read(layout.join("manifest.json"))?)?;
    let layer = docker
        .pointer("/0/Layers/0")
        .and_then(Value::as_str)
        .context("the image has no layer")?;
    unpack(&std::fs::read(layout.join(layer))?, &root)?;
    // The folder of a temporary directory is closed to others, and the user is somebody else.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;

    let mut command = Command::new("unshare");
    let options = if Environment::current().is_root() {
        command.arg("--mount");
        format!("--userspec={USER}:{USER}")
    } else {
        command.args(["--user", "--map-root-user", "--mount"]);
        String::new()
    };
    let output = command
        .args(["sh", "-c", READ_ONLY, "sh"])
        .arg(&root)
        .arg(format!("/{PROGRAM}"))
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("OPTIONS", options)
        .stdin(Stdio::null())
        .output()
        .context("could not run `unshare` (package util-linux)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "the image's program did not run ({}): {}",
            output.status,
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Unpacks with the machine's own tar: an archive that only we can read is none.
pub(super) fn unpack(archive: &[u8], into: &Path) -> Result<()> {
    let file = into.with_extension("tar");
    std::fs::write(&file, archive).with_context(|| format!("could not write {}", file.display()))?;
    let output = Command::new("tar")
        .args(["--extract", "--no-same-owner", "--file"])
        .arg(&file)
        .arg("--directory")
        .arg(into)
        .stdin(Stdio::null())
        .output()
        .context("could not run `tar`")?;
    std::fs::remove_file(&file).with_context(|| format!("could not remove {}", file.display()))?;
    if !output.status.success() || !output.stderr.is_empty() {
        bail!(
            "tar does not read it: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
