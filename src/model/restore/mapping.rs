//! Which topics are restored and what they are called on the target: `a`, `a:b`, a pattern, and a renaming in the
//! notation of sed.

use regex::Regex;
use serde::Serialize;

use super::Refusal;

/// One topic of the backup and its name on the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// In the backup.
    pub source: String,
    /// On the target.
    pub target: String,
}

/// A pattern of topic names; two are equal when they are written the same.
#[derive(Debug, Clone)]
pub struct Pattern(pub Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}
impl Eq for Pattern {}

/// Which topics were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// `source` or `source:target`.
    pub topics: Vec<String>,
    /// Besides these all that match.
    pub pattern: Option<Pattern>,
    /// Target names of topics that are not given one with `source:target`.
    pub rename: Option<Rename>,
}

impl Selection {
    /// The topics to restore, given those of the backup: first those by name, in the order they were given, then those
    /// by pattern. A pattern that matches nothing is a mistake.
    pub fn resolve(&self, available: &[String]) -> Result<Vec<Mapping>, Vec<Refusal>> {
        let renamed = |source: &str| self.rename.as_ref().map_or_else(|| source.to_owned(), |r| r.apply(source));
        let mut mappings: Vec<Mapping> = Vec::new();
        for text in &self.topics {
            let mapping = match text.split_once(':') {
                Some((source, target)) => Mapping { source: source.to_owned(), target: target.to_owned() },
                None => Mapping { source: text.clone(), target: renamed(text) },
            };
            if !mappings.contains(&mapping) {
                mappings.push(mapping);
            }
        }
        if let Some(Pattern(pattern)) = &self.pattern {
            let matching: Vec<&String> = available.iter().filter(|topic| pattern.is_match(topic)).collect();
            if matching.is_empty() {
                return Err(vec![Refusal::NoTopicMatches { pattern: pattern.as_str().to_owned() }]);
            }
            for topic in matching {
                // A topic given by name is not restored a second time.
                if mappings.iter().all(|mapping| mapping.source != *topic) {
                    mappings.push(Mapping { source: topic.clone(), target: renamed(topic) });
                }
            }
        }
        Ok(mappings)
    }
}

/// Targets must be names that Kafka takes, and each must belong to one source.
pub fn check_targets(mappings: &[Mapping], refusals: &mut Vec<Refusal>) {
    for (i, mapping) in mappings.iter().enumerate() {
        if !is_topic_name(&mapping.target) {
            refusals.push(Refusal::BadTopicName { topic: mapping.target.clone() });
        }
        if KAFKAS_OWN.contains(&mapping.target.as_str()) {
            refusals.push(Refusal::KafkasOwn { topic: mapping.target.clone() });
        }
        if let Some(other) = mappings[..i].iter().find(|other| other.target == mapping.target) {
            refusals.push(Refusal::SameTarget {
                first: other.source.clone(),
                second: mapping.source.clone(),
                target: mapping.target.clone(),
            });
        }
    }
}

/// Topics that the brokers themselves write; what others put there, they read as their own.
const KAFKAS_OWN: [&str; 4] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"];

/// Kafka's own rule for topic names.
pub fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// A partition as it is typed: `TOPIC/N`.
pub fn parse_partition(text: &str) -> Option<(String, i32)> {
    let (topic, partition) = text.rsplit_once('/')?;
    let partition = partition.parse().ok().filter(|p| *p >= 0)?;
    (!topic.is_empty()).then(|| (topic.to_owned(), partition))
}

/// A renaming: `s/PATTERN/REPLACEMENT/` with sed's `&`, `\1` to `\9` and the flag `g`. Any character may stand for the
/// slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    text: String,
    pattern: Pattern,
    replacement: String,
    all: bool,
}

/// A renaming that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rename {text:?}: {why}; expected s/PATTERN/REPLACEMENT/, for example s/^/dr-/")]
pub struct RenameError {
    /// What was typed.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl std::str::FromStr for Rename {
    type Err = RenameError;

    fn from_str(text: &str) -> Result<Self, RenameError> {
        let wrong = |why: &str| RenameError { text: text.to_owned(), why: why.to_owned() };
        let mut chars = text.chars();
        let delimiter = match (chars.next(), chars.next()) {
            (Some('s'), Some(d)) if !d.is_alphanumeric() && d != '\\' && !d.is_whitespace() => d,
            _ => return Err(wrong("it does not begin with s/")),
        };
        let [pattern, replacement, flags] =
            <[String; 3]>::try_from(split(chars.as_str(), delimiter)).map_err(|_| wrong("it has not three parts"))?;
        let all = match flags.as_str() {
            "" => false,
            "g" => true,
            _ => return Err(wrong("the only flag is g")),
        };
        let pattern = Pattern(Regex::new(&pattern).map_err(|e| wrong(&e.to_string()))?);
        let replacement = expand(&replacement).ok_or_else(|| wrong("it ends in a lone backslash"))?;
        Ok(Self { text: text.to_owned(), pattern, replacement, all })
    }
}

impl std::fmt::Display for Rename {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Rename {
    /// The new name of `topic`.
    pub fn apply(&self, topic: &str) -> String {
        self.pattern.0.replacen(topic, usize::from(!self.all), self.replacement.as_str()).into_owned()
    }
}

/// Cuts at `delimiter` where no backslash stands before it; such a backslash goes, all others stay.
fn split(text: &str, delimiter: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = parts.len() - 1;
        match c {
            '\\' => match chars.next() {
                Some(next) if next == delimiter => parts[last].push(next),
                next => parts[last].extend(['\\'].into_iter().chain(next)),
            },
            c if c == delimiter => parts.push(String::new()),
            c => parts[last].push(c),
        }
    }
    parts
}

/// sed's replacement text as the regex crate writes it.
fn expand(replacement: &str) -> Option<String> {
    let mut text = String::new();
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        match c {
            '&' => text.push_str("${0}"),
            '$' => text.push_str("$$"),
            '\\' => match chars.next()? {
                digit @ '0'..='9' => text.extend(['$', '{', digit, '}']),
                '$' => text.push_str("$$"),
                other => text.push(other),
            },
            c => text.push(c),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::prefix("s/^/dr-/", "orders", "dr-orders")]
    #[case::suffix("s/$/-copy/", "orders", "orders-copy")]
    #[case::first_only("s/o/0/", "oo", "0o")]
    #[case::all("s/o/0/g", "oo", "00")]
    #[case::group(r"s/^(\w+)\.(\w+)$/\2.\1/", "a.b", "b.a")]
    #[case::whole_match("s/.+/x-&-y/", "a", "x-a-y")]
    #[case::literal_ampersand(r"s/a/\&/", "a", "&")]
    #[case::dollar_is_no_group("s/a/$1/", "a", "$1")]
    #[case::other_delimiter("s|a/b|c|", "a/b", "c")]
    #[case::escaped_delimiter(r"s/a\/b/c/", "a/b", "c")]
    #[case::no_match("s/^x/y/", "orders", "orders")]
    fn renames(#[case] rename: &str, #[case] from: &str, #[case] to: &str) {
        assert_eq!(rename.parse::<Rename>().unwrap().apply(from), to);
    }

    #[rstest]
    #[case("")]
    #[case("x/a/b/")]
    #[case("s/a/b")]
    #[case("s/a/b/i")]
    #[case("s/(/b/")]
    #[case("s/a/b/c/")]
    fn refuses_renames(#[case] rename: &str) {
        assert!(rename.parse::<Rename>().is_err(), "{rename}");
    }

    fn selection(topics: &[&str], pattern: Option<&str>, rename: Option<&str>) -> Selection {
        Selection {
            topics: topics.iter().map(|t| t.to_string()).collect(),
            pattern: pattern.map(|p| Pattern(Regex::new(p).unwrap())),
            rename: rename.map(|r| r.parse().unwrap()),
        }
    }

    #[rstest]
    #[case::by_name(selection(&["a"], None, None), &[("a", "a")])]
    #[case::by_pair(selection(&["a:b"], None, None), &[("a", "b")])]
    #[case::twice(selection(&["a", "a"], None, None), &[("a", "a")])]
    #[case::copies(selection(&["a:x", "a:y"], None, None), &[("a", "x"), ("a", "y")])]
    #[case::by_pattern(selection(&[], Some("^shop"), None), &[("shop.a", "shop.a"), ("shop.b", "shop.b")])]
    #[case::renamed(selection(&[], Some("^shop"), Some("s/^/dr-/")), &[("shop.a", "dr-shop.a"), ("shop.b", "dr-shop.b")])]
    #[case::pair_wins(selection(&["shop.a:z"], Some("^shop"), Some("s/^/dr-/")), &[("shop.a", "z"), ("shop.b", "dr-shop.b")])]
    #[case::name_renamed(selection(&["a"], None, Some("s/^/dr-/")), &[("a", "dr-a")])]
    #[case::pattern_only_repeats(selection(&["shop.a", "shop.b"], Some("^shop"), None), &[("shop.a", "shop.a"), ("shop.b", "shop.b")])]
    fn resolves(#[case] selection: Selection, #[case] expected: &[(&str, &str)]) {
        let available = ["a", "shop.a", "shop.b"].map(str::to_owned);
        let resolved = selection.resolve(&available).unwrap();
        let resolved: Vec<_> = resolved.iter().map(|m| (m.source.as_str(), m.target.as_str())).collect();
        assert_eq!(resolved, expected);
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_refused() {
        assert!(selection(&["a"], Some("^nothing"), None).resolve(&["a".to_owned()]).is_err());
    }

    #[rstest]
    #[case("orders/3", Some(("orders", 3)))]
    #[case("orders", None)]
    #[case("/3", None)]
    #[case("orders/-1", None)]
    #[case("orders/x", None)]
    fn parses_partitions(#[case] text: &str, #[case] expected: Option<(&str, i32)>) {
        assert_eq!(parse_partition(text), expected.map(|(t, p)| (t.to_owned(), p)));
    }
}
