//! What can be changed in a rule file, one change at a time.

use std::collections::BTreeMap;
use std::ops::Range;

/// One changed place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mutant {
    /// The rule and the change, unique in its file.
    pub(crate) name: String,
    at: Range<usize>,
    with: String,
}

impl Mutant {
    /// The rules with the change.
    pub(crate) fn applied(&self, rules: &str) -> String {
        let mut text = rules.to_owned();
        text.replace_range(self.at.clone(), &self.with);
        text
    }
}

/// Every mutant of a rule file that `throughline render alerts` wrote. Names and places of hops, and annotations,
/// are left alone: the first are data, the second are compared word for word by the tests anyway.
pub(crate) fn of(rules: &str) -> Vec<Mutant> {
    let mut found = Found {
        rules,
        mutants: Vec::new(),
        seen: BTreeMap::new(),
        rule: String::new(),
    };
    let mut offset = 0;
    let mut part = Part::Other;
    for line in rules.split_inclusive('\n') {
        let bare = line.trim_start();
        let start = offset + (line.len() - bare.len());
        offset += line.len();
        let bare = bare.trim_end();
        let rule = ["- record: ", "- alert: "]
            .iter()
            .find_map(|head| bare.strip_prefix(head));
        if let Some(rule) = rule {
            found.rule = rule.to_owned();
            part = Part::Other;
        } else if let Some(expression) = bare.strip_prefix("expr: ") {
            part = Part::Expression;
            if expression != "|" {
                found.expression(start + "expr: ".len(), expression);
            }
        } else if bare.starts_with("labels:") || bare.starts_with("annotations:") || bare.starts_with('#') {
            part = Part::Other;
        } else if let Some((key, time)) = bare
            .split_once(": ")
            .filter(|(key, _)| ["for", "keep_firing_for"].contains(key))
        {
            part = Part::Other;
            let at = start + key.len() + 2;
            found.time(key, at..at + time.len(), time);
        } else if part == Part::Expression {
            found.expression(start, bare);
        }
    }
    found.mutants
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Expression,
    Other,
}

struct Found<'a> {
    rules: &'a str,
    mutants: Vec<Mutant>,
    /// How often a change of that name was made.
    seen: BTreeMap<String, usize>,
    rule: String,
}

impl Found<'_> {
    fn add(&mut self, at: Range<usize>, with: &str) {
        let was = self.rules.get(at.clone()).unwrap_or_default().trim();
        let name = format!("{}: `{was}` to `{}`", self.rule, with.trim());
        let count = self.seen.entry(name.clone()).or_default();
        *count += 1;
        let name = if *count > 1 {
            format!("{name} ({count})")
        } else {
            name
        };
        self.mutants.push(Mutant {
            name,
            at,
            with: with.to_owned(),
        });
    }

    fn time(&mut self, key: &str, at: Range<usize>, time: &str) {
        let before = self.rule.clone();
        self.rule = format!("{before} {key}");
        for changed in times(time) {
            self.add(at.clone(), &changed);
        }
        self.rule = before;
    }

    fn expression(&mut self, start: usize, text: &str) {
        if self.rule == "throughline:hop_position"
            || self.rule == "ThroughlineWatchdog"
            || self.rule.ends_with("owner_info")
        {
            return;
        }
        let tokens = tokens(text);
        for (index, (range, token)) in tokens.iter().enumerate() {
            let at = start + range.start..start + range.end;
            let after = tokens.get(index + 1).map(|(_, token)| *token);
            let before = index
                .checked_sub(1)
                .and_then(|index| tokens.get(index))
                .map(|(_, token)| *token);
            let others: &[&str] = match *token {
                "==" => &["!="],
                "!=" => &["="],
                ">" => &["<", ">="],
                "<" => &[">", "<="],
                ">=" => &["<", ">"],
                "and" => &["unless"],
                "unless" => &["and"],
                "or" => &["and"],
                "min" => &["max"],
                "max" => &["min"],
                "sum" => &["max"],
                "avg_over_time" => &["max_over_time", "min_over_time"],
                "max_over_time" => &["min_over_time"],
                "last_over_time" => &["max_over_time", "min_over_time"],
                "changes" => &["resets"],
                "abs" => &["-"],
                "+" => &["-"],
                "*" => &["/"],
                "-" if after != Some("(") || before == Some(")") => &["+"],
                _ => &[],
            };
            for other in others {
                self.add(at.clone(), other);
            }
            if before == Some("[") {
                for changed in times(token) {
                    self.add(at.clone(), &changed);
                }
            } else if token.starts_with(|first: char| first.is_ascii_digit()) {
                for changed in numbers(token) {
                    self.add(at.clone(), &changed);
                }
            }
            if after == Some("(") && ["on", "by", "ignoring"].contains(token) {
                self.labels(start, &tokens, index + 2);
            }
        }
    }

    /// A list of labels, each of them left out once.
    fn labels(&mut self, start: usize, tokens: &[(Range<usize>, &str)], first: usize) {
        let rest = tokens.get(first..).unwrap_or_default();
        let Some(end) = rest.iter().position(|(_, token)| *token == ")") else {
            return;
        };
        let list = rest.get(..end).unwrap_or_default();
        let (Some((from, _)), Some((to, _))) = (list.first(), list.last()) else {
            return;
        };
        let labels: Vec<&str> = list
            .iter()
            .map(|(_, token)| *token)
            .filter(|token| *token != ",")
            .collect();
        for left_out in &labels {
            let kept: Vec<&str> = labels.iter().copied().filter(|label| label != left_out).collect();
            self.add(start + from.start..start + to.end, &kept.join(", "));
        }
    }
}

/// A duration, longer and shorter.
fn times(time: &str) -> Vec<String> {
    let digits = time.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let (Ok(count), unit) = (digits.parse::<u64>(), &time[digits.len()..]) else {
        return Vec::new();
    };
    let seconds = count
        * match unit {
            "d" => 86_400,
            "h" => 3_600,
            "m" => 60,
            _ => 1,
        };
    vec![format!("{}s", seconds * 3), format!("{}s", (seconds / 3).max(1))]
}

/// A threshold, higher and lower.
fn numbers(number: &str) -> Vec<String> {
    match number.parse::<f64>() {
        Ok(value) if number.contains('.') => vec![format!("{}", value * 2.0), format!("{}", value / 2.0)],
        Ok(value) if value <= 3.0 => vec![format!("{}", value + 1.0), format!("{}", value - 1.0)],
        Ok(value) => vec![format!("{}", value * 2.0), format!("{}", value / 2.0)],
        Err(_) => Vec::new(),
    }
}

/// Words, numbers with their units, operators. Strings are one token, quotes included.
fn tokens(text: &str) -> Vec<(Range<usize>, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let word = |letter: char| letter.is_ascii_alphanumeric() || "_:.".contains(letter);
        let length = if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        } else if first == '"' {
            rest[1..].find('"').map_or(rest.len(), |end| end + 2)
        } else if word(first) {
            rest.find(|letter| !word(letter)).unwrap_or(rest.len())
        } else if ["==", "!=", ">=", "<=", "=~"]
            .iter()
            .any(|operator| rest.starts_with(operator))
        {
            2
        } else {
            first.len_utf8()
        };
        found.push((at..at + length, &rest[..length]));
        at += length;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "\
groups:
- name: g
  interval: 30s
  rules:
    # min by (a) of 3
    - record: r
      expr: 1 - avg_over_time(s[5m])
    - alert: A
      expr: |
        r >= 3
          and on (chain, target) (x > 0.5)
      for: 2m
      labels:
        severity: page
      annotations:
        summary: \"a and b > 3\"
";

    #[test]
    fn each_place_is_changed_alone_and_nothing_but_expressions_and_times() {
        let names: Vec<String> = of(RULES).into_iter().map(|mutant| mutant.name).collect();
        assert_eq!(
            names,
            [
                "r: `1` to `2`",
                "r: `1` to `0`",
                "r: `-` to `+`",
                "r: `avg_over_time` to `max_over_time`",
                "r: `avg_over_time` to `min_over_time`",
                "r: `5m` to `900s`",
                "r: `5m` to `100s`",
                "A: `>=` to `<`",
                "A: `>=` to `>`",
                "A: `3` to `4`",
                "A: `3` to `2`",
                "A: `and` to `unless`",
                "A: `chain, target` to `target`",
                "A: `chain, target` to `chain`",
                "A: `>` to `<`",
                "A: `>` to `>=`",
                "A: `0.5` to `1`",
                "A: `0.5` to `0.25`",
                "A for: `2m` to `360s`",
                "A for: `2m` to `40s`",
            ]
        );
    }

    #[test]
    fn a_mutant_differs_from_the_rules_in_its_place_only() {
        let all = of(RULES);
        let join = all
            .iter()
            .find(|mutant| mutant.name.ends_with("to `target`"))
            .unwrap();
        let expected = RULES.replace("on (chain, target)", "on (target)");
        assert_eq!(join.applied(RULES), expected);
        for mutant in &all {
            assert_ne!(mutant.applied(RULES), RULES, "{}", mutant.name);
        }
    }

    #[test]
    fn no_two_mutants_have_one_name() {
        let twice = RULES.replace("r >= 3", "r >= 3 or r >= 3");
        let all = of(&twice);
        let names: std::collections::BTreeSet<&str> = all.iter().map(|mutant| mutant.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
    }
}
