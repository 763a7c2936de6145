//! The secrets of a sandbox, to find them where they must not be.

use std::path::Path;

/// The shortest value that is looked for: a shorter one would be found by chance.
const LENGTH_MIN: usize = 12;

/// Every value that no output may hold, with its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(Vec<(String, String)>);

impl Secrets {
    /// All files of a sandbox's `secrets` folder, and the passwords inside the connection strings.
    pub(crate) fn of(state_dir: &Path) -> Self {
        let mut all = Self::default();
        for entry in std::fs::read_dir(state_dir.join("secrets")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let value = std::fs::read_to_string(&path).unwrap();
            if let Some(password) = password_of(&value) {
                all.add(&format!("the password in {name}"), password);
            }
            all.add(&name, &value);
        }
        all
    }

    /// One more.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        let value = value.trim();
        assert!(value.len() >= LENGTH_MIN, "{name} is too short to be looked for");
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// The value of a file of the `secrets` folder.
    pub(crate) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        &found
            .unwrap_or_else(|| panic!("the sandbox has no secret {name}"))
            .1
    }

    /// Fails when a secret stands in `text`. The message names it and does not repeat it.
    pub(crate) fn assert_absent(&self, place: &str, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        for (name, value) in &self.0 {
            assert!(!text.contains(value.as_str()), "{place} shows {name}");
        }
    }
}

/// `postgres://USER:PASSWORD@...`
fn password_of(url: &str) -> Option<&str> {
    let (credentials, _) = url.strip_prefix("postgres://")?.split_once('@')?;
    Some(credentials.split_once(':')?.1)
}
