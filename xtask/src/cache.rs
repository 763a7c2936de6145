//! The folder where installed parts last between runs and clones, and the locks that keep it whole.
//!
//! A part is installed beside its place and then renamed into it, under a lock: whoever looks sees either no
//! part or a whole one, however many set-ups run at once and wherever one of them was cut off.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::environment::Environment;
use crate::interrupt::Interrupt;
use crate::progress;

/// How long to wait for another set-up that holds a lock; the longest install (Temporal, cold) takes three
/// minutes on two idle cores.
const LOCK_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// How often a wait for a lock looks up for Ctrl-C.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Where root keeps parts that an unprivileged user has to execute when root's own cache is closed to others.
const OPEN_TO_ALL: &str = "/var/cache/throughline";

/// The cache folder.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
    is_root: bool,
    open_to_all: PathBuf,
}

impl Cache {
    /// `$THROUGHLINE_CACHE`, else `$XDG_CACHE_HOME/throughline`, else `~/.cache/throughline`.
    ///
    /// # Errors
    /// None of the three variables behind them is set.
    pub(crate) fn locate(environment: &Environment) -> Result<Self> {
        let root = if let Some(chosen) = environment.variable("THROUGHLINE_CACHE") {
            std::path::absolute(chosen).context("THROUGHLINE_CACHE is no usable path")?
        } else if let Some(base) = environment.variable("XDG_CACHE_HOME") {
            Path::new(base).join("throughline")
        } else if let Some(home) = environment.variable("HOME") {
            Path::new(home).join(".cache/throughline")
        } else {
            bail!("no cache folder: set THROUGHLINE_CACHE (or HOME) to a folder that may be written");
        };
        Ok(Self {
            root,
            is_root: environment.is_root(),
            open_to_all: OPEN_TO_ALL.into(),
        })
    }

    /// The place of one part at one version.
    pub(crate) fn slot(&self, name: &str, version: &str) -> Slot {
        Slot {
            dir: self.root.join(name).join(version),
        }
    }

    /// The same, in a place that every user can reach. PostgreSQL refuses to run as root, so as root it runs as
    /// somebody else, who cannot enter a cache under `/root`.
    pub(crate) fn shared_slot(&self, name: &str, version: &str) -> Slot {
        let root = if self.is_root && !reachable_by_all(&self.root) {
            &self.open_to_all
        } else {
            &self.root
        };
        Slot {
            dir: root.join(name).join(version),
        }
    }

    /// The log of one install, emptied of older runs when it has grown past a megabyte.
    pub(crate) fn log(&self, name: &str) -> Result<PathBuf> {
        const LIMIT_BYTES: u64 = 1 << 20;
        let folder = self.root.join("logs");
        create_folder(&folder)?;
        let log = folder.join(format!("{name}.log"));
        if std::fs::metadata(&log).is_ok_and(|found| found.len() > LIMIT_BYTES) {
            std::fs::remove_file(&log).with_context(|| format!("could not remove {}", log.display()))?;
        }
        Ok(log)
    }
}

/// Whether others may enter every folder down to this one; those that do not exist yet are made open.
fn reachable_by_all(folder: &Path) -> bool {
    folder
        .ancestors()
        .all(|step| std::fs::metadata(step).map_or(true, |found| found.permissions().mode() & 0o001 != 0))
}

/// The place of one part at one version.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    dir: PathBuf,
}

/// What was done to have the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Cached,
    Installed,
}

impl Slot {
    /// The folder; it exists once `obtain` has returned.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Gives what `verify` makes of the installed part, after `install` has put it there if need be.
    ///
    /// `verify` is cheap and says whether the part in a folder works (it runs its `--version`): a cached part
    /// that does not is installed anew. `install` fills the empty folder it is given.
    ///
    /// # Errors
    /// `install` failed, or what it installed does not pass `verify`; nothing of it is left then.
    pub(crate) fn obtain<T>(
        &self,
        interrupt: &Interrupt,
        verify: impl Fn(&Path) -> Result<T>,
        install: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<(T, Origin)> {
        if self.dir.is_dir()
            && let Ok(part) = verify(&self.dir)
        {
            return Ok((part, Origin::Cached));
        }
        interrupt.check()?;
        let _lock = self.lock(interrupt)?;
        // Whoever held the lock before may have installed it meanwhile.
        if self.dir.is_dir() {
            match verify(&self.dir) {
                Ok(part) => return Ok((part, Origin::Cached)),
                Err(error) => {
                    interrupt.check()?;
                    progress::note(&format!(
                        "{} is broken, installing it again ({error:#})",
                        self.dir.display()
                    ));
                }
            }
        }
        let part = self.replace(verify, install)?;
        Ok((part, Origin::Installed))
    }

    fn replace<T>(
        &self,
        verify: impl Fn(&Path) -> Result<T>,
        install: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<T> {
        let (partial, broken) = (self.beside("partial"), self.beside("broken"));
        // Under the lock, whatever stands there was left by a set-up that was cut off.
        remove_folder(&partial)?;
        remove_folder(&broken)?;
        create_folder(&partial)?;
        let result = install(&partial).and_then(|()| {
            if self.dir.exists() {
                rename(&self.dir, &broken)?;
            }
            rename(&partial, &self.dir)?;
            // Only now: a part may hold absolute paths, so what counts is that it works where it stays.
            verify(&self.dir).context("it was installed, but does not work")
        });
        if result.is_err() {
            remove_folder(&partial)?;
            remove_folder(&self.dir)?;
        }
        remove_folder(&broken)?;
        result
    }

    /// Takes the lock of this slot, waiting for another process that has it.
    fn lock(&self, interrupt: &Interrupt) -> Result<File> {
        let path = self.beside("lock");
        if let Some(folder) = path.parent() {
            create_folder(folder)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("could not open the lock file {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("could not lock {}", path.display()));
            }
        }
        progress::note(&format!(
            "another set-up is at work here; waiting for its lock {}",
            path.display()
        ));
        let (send, locked) = mpsc::channel();
        // A blocking lock has no deadline of its own; the thread ends with the process if ours passes.
        thread::spawn(move || send.send(file.lock().map(|()| file)).ok());
        let give_up = Instant::now() + LOCK_DEADLINE;
        while Instant::now() < give_up {
            interrupt.check()?;
            match locked.recv_timeout(LOOK_UP) {
                Ok(lock) => return lock.with_context(|| format!("could not lock {}", path.display())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the waiter for {} is gone", path.display()),
            }
        }
        bail!(
            "another set-up has held {} for {} minutes: end it, then try again",
            path.display(),
            LOCK_DEADLINE.as_secs() / 60
        )
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.dir.file_name().unwrap_or_default());
        name.push(".");
        name.push(suffix);
        self.dir.with_file_name(name)
    }
}

fn create_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| {
        format!(
            "could not make {}; set THROUGHLINE_CACHE to a folder that may be written",
            folder.display()
        )
    })
}

fn remove_folder(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to)
        .with_context(|| format!("could not rename {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn slot(folder: &tempfile::TempDir) -> Slot {
        Slot {
            dir: folder.path().join("part").join("1.0"),
        }
    }

    fn verify(dir: &Path) -> Result<String> {
        let text = std::fs::read_to_string(dir.join("version"))?;
        if text == "broken" {
            bail!("broken")
        } else {
            Ok(text)
        }
    }

    fn install(dir: &Path) -> Result<()> {
        Ok(std::fs::write(dir.join("version"), "1.0")?)
    }

    /// What stands beside the part, locks aside.
    fn remains(slot: &Slot) -> Vec<OsString> {
        let mut names: Vec<_> = std::fs::read_dir(slot.dir.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| !name.to_string_lossy().ends_with(".lock"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_cache_is_where_the_variables_say_in_their_order() {
        let (chosen, base, home) = (OsStr::new("/chosen"), OsStr::new("/xdg"), OsStr::new("/home/u"));
        let located =
            |variables: &[(&str, &OsStr)]| Cache::locate(&Environment::of(variables)).map(|cache| cache.root);
        let all = [
            ("THROUGHLINE_CACHE", chosen),
            ("XDG_CACHE_HOME", base),
            ("HOME", home),
        ];
        assert_eq!(located(&all).unwrap(), Path::new("/chosen"));
        assert_eq!(located(&all[1..]).unwrap(), Path::new("/xdg/throughline"));
        assert_eq!(
            located(&all[2..]).unwrap(),
            Path::new("/home/u/.cache/throughline")
        );
        assert!(
            located(&[])
                .unwrap_err()
                .to_string()
                .contains("THROUGHLINE_CACHE")
        );
    }

    #[test]
    fn root_keeps_what_others_execute_out_of_a_closed_cache() {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
        let cache = |is_root| Cache {
            root: closed.join("cache"),
            is_root,
            open_to_all: "/open".into(),
        };
        assert_eq!(
            cache(true).shared_slot("pg", "15").dir(),
            Path::new("/open/pg/15")
        );
        assert_eq!(cache(true).slot("pg", "15").dir(), closed.join("cache/pg/15"));
        assert_eq!(
            cache(false).shared_slot("pg", "15").dir(),
            closed.join("cache/pg/15")
        );
    }

    #[test]
    fn a_part_is_installed_once_and_found_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let slot = slot(&folder);
        assert_eq!(
            slot.obtain(&Interrupt::none(), verify, install).unwrap(),
            ("1.0".to_owned(), Origin::Installed)
        );
        let again = slot
            .obtain(&Interrupt::none(), verify, |_| bail!("must not be called"))
            .unwrap();
        assert_eq!(again, ("1.0".to_owned(), Origin::Cached));
        assert_eq!(remains(&slot), ["1.0"]);
    }

    #[test]
    fn a_broken_part_is_installed_anew() {
        let folder = tempfile::tempdir().unwrap();
        let slot = slot(&folder);
        std::fs::create_dir_all(slot.dir()).unwrap();
        std::fs::write(slot.dir().join("version"), "broken").unwrap();
        std::fs::write(slot.dir().join("old"), "").unwrap();
        assert_eq!(
            slot.obtain(&Interrupt::none(), verify, install).unwrap().1,
            Origin::Installed
        );
        assert!(!slot.dir().join("old").exists());
        assert_eq!(remains(&slot), ["1.0"]);
    }

    #[test]
    fn a_failed_install_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let slot = slot(&folder);
        let failed = slot.obtain(&Interrupt::none(), verify, |dir| {
            install(dir)?;
            bail!("no network")
        });
        assert_eq!(failed.unwrap_err().to_string(), "no network");
        assert!(remains(&slot).is_empty());
        let useless = slot.obtain(&Interrupt::none(), verify, |dir| {
            Ok(std::fs::write(dir.join("version"), "broken")?)
        });
        assert_eq!(
            useless.unwrap_err().to_string(),
            "it was installed, but does not work"
        );
        assert!(remains(&slot).is_empty());
    }

    #[test]
    fn what_a_cut_off_install_left_is_swept_away() {
        let folder = tempfile::tempdir().unwrap();
        let slot = slot(&folder);
        std::fs::create_dir_all(slot.beside("partial")).unwrap();
        std::fs::write(slot.beside("partial").join("half"), "").unwrap();
        slot.obtain(&Interrupt::none(), verify, install).unwrap();
        assert!(!slot.dir().join("half").exists());
        assert_eq!(remains(&slot), ["1.0"]);
    }

    #[test]
    fn two_set_ups_at_once_install_once() {
        let folder = tempfile::tempdir().unwrap();
        let slot = slot(&folder);
        let installs = AtomicUsize::new(0);
        let (entered, holding) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let (slot, count) = (&slot, &installs);
        thread::scope(|scope| {
            let first = scope.spawn(move || {
                slot.obtain(&Interrupt::none(), verify, |dir| {
                    count.fetch_add(1, Ordering::Relaxed);
                    entered.send(())?;
                    released.recv_timeout(Duration::from_secs(60))?;
                    install(dir)
                })
            });
            holding.recv_timeout(Duration::from_secs(60)).unwrap();
            let second = scope.spawn(move || {
                slot.obtain(&Interrupt::none(), verify, |dir| {
                    count.fetch_add(1, Ordering::Relaxed);
                    install(dir)
                })
            });
            release.send(()).unwrap();
            assert_eq!(first.join().unwrap().unwrap().1, Origin::Installed);
            assert_eq!(second.join().unwrap().unwrap().1, Origin::Cached);
        });
        assert_eq!(installs.load(Ordering::Relaxed), 1);
    }
}
