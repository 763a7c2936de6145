//! Go, which builds the parts that no registry has as a binary.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::{Context, required_tool, version_line};

/// From this one on Go fetches the toolchain that a module asks for by itself.
const OLDEST_MINOR: u32 = 21;

/// A Go that can build it, or a message that says what it is for (`why`) and where to get one.
pub(super) fn find(context: &Context<'_>, why: &str) -> Result<PathBuf> {
    let sudo = if context.environment.is_root() {
        ""
    } else {
        "sudo "
    };
    let remedy = format!(
        "{sudo}apt-get install -y -t bookworm-backports golang-go (Debian 12's own is too old), or unpack the Go \
         project's archive of Go 1.25 or newer into /usr/local/go and put /usr/local/go/bin on the PATH"
    );
    let go = required_tool(context, "go", why, &remedy)?;
    let version = version_line(context, &go, &["version"])?;
    let mut numbers = version
        .split_whitespace()
        .find_map(|word| word.strip_prefix("go1."))
        .unwrap_or_default()
        .split('.');
    let minor: u32 = numbers.next().and_then(|minor| minor.parse().ok()).unwrap_or(0);
    if minor < OLDEST_MINOR {
        bail!("`{version}` is older than 1.{OLDEST_MINOR}; {why}. To install a newer one: {remedy}");
    }
    Ok(go)
}
