//! Tar archives (POSIX ustar), the same bytes for the same contents: no times, no names of users.

use std::io::{self, Write};

const BLOCK: usize = 512;
/// A path of an image of ours is short; longer ones would need an extension of the format.
const NAME_BYTES_MAX: usize = 100;

/// Writes an archive.
pub(super) struct Archive<W> {
    out: W,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    /// Adds a folder that everybody may enter.
    pub(super) fn folder(&mut self, name: &str) -> io::Result<()> {
        self.out.write_all(&header(&format!("{name}/"), 0o755, 0, b'5')?)
    }

    /// Adds a file of root's.
    pub(super) fn file(&mut self, name: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        self.out.write_all(&header(name, mode, contents.len(), b'0')?)?;
        self.out.write_all(contents)?;
        self.out
            .write_all(&vec![0; contents.len().next_multiple_of(BLOCK) - contents.len()])
    }

    /// Ends the archive and gives the writer back.
    pub(super) fn end(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn header(name: &str, mode: u32, size: usize, kind: u8) -> io::Result<[u8; BLOCK]> {
    if name.len() > NAME_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name} is too long a name"),
        ));
    }
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    // Owner and group are root, by number.
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    // 1970: a file's time says nothing that its contents do not.
    put(136, b"00000000000");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    // The sum of all bytes, with spaces where it will stand.
    put(148, b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}
