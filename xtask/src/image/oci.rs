//! An image of one layer, as an OCI layout in an archive. `docker load` reads it by its `manifest.json`, which the
//! layout allows beside its own files.

use std::io::{self, Write};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::tar::Archive;

/// Who runs in it: the number that the manifests use, too.
pub(super) const USER: u32 = 65532;
/// Where the program is.
pub(super) const PROGRAM: &str = "throughline";
/// Where the prober's TLS looks for root certificates, among other places.
pub(super) const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// What goes into the image.
pub(super) struct Contents<'a> {
    pub(super) program: &'a [u8],
    pub(super) certificates: &'a [u8],
    /// Go's word for the machine: `amd64`, `arm64`.
    pub(super) architecture: &'a str,
    pub(super) version: &'a str,
    /// `name:tag`.
    pub(super) tag: &'a str,
}

/// Writes the archive and says the image's digest.
pub(super) fn write(contents: &Contents<'_>, out: impl Write) -> io::Result<String> {
    let layer = layer(contents)?;
    let diff_id = digest(&layer);
    let config = bytes(&json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": contents.architecture,
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "Entrypoint": [format!("/{PROGRAM}")],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "throughline",
                "org.opencontainers.image.version": contents.version,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask image"}],
    }));
    let manifest = bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        // Not compressed: whoever pushes it does that, and here it would only make the bytes depend on a library.
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }));
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["platform"] = json!({"architecture": contents.architecture, "os": "linux"});
    entry["annotations"] = json!({
        "org.opencontainers.image.ref.name": contents.tag.rsplit_once(':').map_or("latest", |(_, tag)| tag),
        "io.containerd.image.name": contents.tag,
    });
    let index = bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    }));
    let docker = bytes(&json!([{
        "Config": blob(&config),
        "RepoTags": [contents.tag],
        "Layers": [blob(&layer)],
    }]));

    let mut archive = Archive::new(out);
    archive.file(
        "oci-layout",
        0o644,
        &bytes(&json!({"imageLayoutVersion": "1.0.0"})),
    )?;
    archive.file("index.json", 0o644, &index)?;
    archive.file("manifest.json", 0o644, &docker)?;
    archive.folder("blobs")?;
    archive.folder("blobs/sha256")?;
    for part in [&config, &manifest, &layer] {
        archive.file(&blob(part), 0o644, part)?;
    }
    archive.end()?;
    Ok(digest(&manifest))
}

/// The file system: the program, root certificates, and a name for the user's number.
fn layer(contents: &Contents<'_>) -> io::Result<Vec<u8>> {
    let mut layer = Archive::new(Vec::new());
    layer.folder("etc")?;
    let user = format!("{PROGRAM}:x:{USER}:{USER}::/:/sbin/nologin\n");
    layer.file("etc/passwd", 0o644, user.as_bytes())?;
    layer.folder("etc/ssl")?;
    layer.folder("etc/ssl/certs")?;
    layer.file(CERTIFICATES, 0o644, contents.certificates)?;
    layer.file(PROGRAM, 0o755, contents.program)?;
    layer.end()
}

fn descriptor(kind: &str, part: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": digest(part), "size": part.len()})
}

fn blob(part: &[u8]) -> String {
    format!("blobs/{}", digest(part).replace(':', "/"))
}

pub(super) fn digest(part: &[u8]) -> String {
    let hex: String = Sha256::digest(part)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}
