//! Which of several workers runs which probes.
//!
//! Each worker computes the same split from the same config and takes its part: nobody has to be asked. A target
//! is never split, so that its probes follow one another and do not measure each other's load.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::config::model::Probe;

/// More workers than anybody has targets for.
const COUNT_MAX: usize = 1_000;

/// One part of the probes: `INDEX/COUNT`, counted from 0 as Kubernetes counts an Indexed Job's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// All of them.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// The probes of this part, in the order of the config.
    ///
    /// Targets are dealt out from the one that may take longest (the sum of its probes' deadlines) to the
    /// shortest, each to the part that has least so far: no part waits much longer than it must. The split depends
    /// on names and deadlines alone, not on the order of the file. A new target may move others to another part,
    /// which costs nothing, since no run needs what another one left on its machine.
    #[must_use]
    pub fn of(self, probes: &[Probe]) -> Vec<&Probe> {
        let mut targets: BTreeMap<&str, Duration> = BTreeMap::new();
        for probe in probes {
            let sum = targets.entry(&probe.target).or_default();
            *sum = sum.saturating_add(probe.deadline);
        }
        let mine = self.deal(&targets);
        probes
            .iter()
            .filter(|probe| mine.contains(&probe.target.as_str()))
            .collect()
    }

    /// The names that fall to this part.
    fn deal<'a>(self, targets: &BTreeMap<&'a str, Duration>) -> Vec<&'a str> {
        let mut queue: Vec<(&str, Duration)> = targets.iter().map(|(name, takes)| (*name, *takes)).collect();
        queue.sort_by_key(|(name, takes)| (Reverse(*takes), *name));
        let mut parts: Vec<(Duration, Vec<&str>)> = vec![(Duration::ZERO, vec![]); self.count];
        for (name, takes) in queue {
            // The first of the least busy ones; there is at least one part.
            if let Some((load, names)) = parts.iter_mut().min_by_key(|(load, names)| (*load, names.len())) {
                *load = load.saturating_add(takes);
                names.push(name);
            }
        }
        parts
            .into_iter()
            .nth(self.index)
            .map(|(_, names)| names)
            .unwrap_or_default()
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no part of a whole: write INDEX/COUNT, from 0/COUNT, e.g. 0/3");
        let (index, count) = text.split_once('/').ok_or_else(wrong)?;
        let number = |digits: &str| digits.parse::<usize>().map_err(|_| wrong());
        let (index, count) = (number(index)?, number(count)?);
        if count == 0 || count > COUNT_MAX {
            return Err(format!("{count} parts: write a number from 1 to {COUNT_MAX}"));
        }
        if index >= count {
            return Err(format!(
                "there is no part {index} of {count}: parts are counted from 0 to {}",
                count - 1
            ));
        }
        Ok(Self { index, count })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(targets: &[(&'static str, u64)]) -> BTreeMap<&'static str, Duration> {
        targets
            .iter()
            .map(|(name, takes)| (*name, Duration::from_secs(*takes)))
            .collect()
    }

    fn deal<'a>(targets: &BTreeMap<&'a str, Duration>, count: usize) -> Vec<Vec<&'a str>> {
        (0..count)
            .map(|index| Shard { index, count }.deal(targets))
            .collect()
    }

    #[test]
    fn the_longest_target_has_a_part_for_itself() {
        let targets = seconds(&[("a", 30), ("b", 30), ("c", 30), ("long", 90)]);
        assert_eq!(deal(&targets, 2), [vec!["long"], vec!["a", "b", "c"]]);
    }

    #[test]
    fn more_parts_than_targets_leave_some_without_work() {
        assert_eq!(deal(&seconds(&[("a", 30)]), 3), [vec!["a"], vec![], vec![]]);
        // A deadline of nought is no reason to give everything to one.
        assert_eq!(deal(&seconds(&[("a", 0), ("b", 0)]), 2), [vec!["a"], vec!["b"]]);
    }

    #[test]
    fn what_is_no_part_of_a_whole_is_refused_with_what_to_write() {
        assert_eq!("2/3".parse(), Ok(Shard { index: 2, count: 3 }));
        for (text, part) in [
            ("3/3", "counted from 0 to 2"),
            ("0/0", "from 1 to 1000"),
            ("0/1001", "from 1 to 1000"),
            ("1", "INDEX/COUNT"),
            ("-1/3", "INDEX/COUNT"),
            ("$(JOB_COMPLETION_INDEX)/3", "INDEX/COUNT"),
        ] {
            let error = text.parse::<Shard>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn each_target_falls_to_one_part_and_none_is_overloaded(
            targets in proptest::collection::btree_map("[a-z]{1,6}", 1_u64..600, 0..40),
            count in 1_usize..9,
        ) {
            let targets: BTreeMap<&str, Duration> = targets
                .iter()
                .map(|(name, takes)| (name.as_str(), Duration::from_secs(*takes)))
                .collect();
            let parts = deal(&targets, count);
            let mut dealt: Vec<&str> = parts.concat();
            dealt.sort_unstable();
            prop_assert_eq!(dealt, targets.keys().copied().collect::<Vec<_>>());
            // Whoever gets a target has least at that moment: no part is above the mean by more than the longest.
            let load = |names: &Vec<&str>| names.iter().map(|name| targets[name]).sum::<Duration>();
            let mean = targets.values().sum::<Duration>() / u32::try_from(count).unwrap();
            let longest = targets.values().max().copied().unwrap_or_default();
            for part in &parts {
                prop_assert!(load(part) <= mean + longest);
            }
        }
    }
}
