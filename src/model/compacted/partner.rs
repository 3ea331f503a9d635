//! What an instance makes of the words of its partner: whether both back up the same topics, and how old a word may be that
//! was there before it began.

use std::collections::BTreeSet;
use std::fmt;

use super::settings::Settings;

/// A partner announces itself at least once in this many times `publish_every`, unless it is away.
const ANNOUNCEMENTS: i64 = 3;

/// Two jobs of a pair with different topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differ {
    /// Topics of which the partner makes no snapshot.
    pub only_own: Vec<String>,
    /// Topics that only the partner has.
    pub only_partner: Vec<String>,
}

/// Compares the topics of this instance's job with those that its partner says its job has.
///
/// | the partner says | |
/// |---|---|
/// | nothing: it is of a version that does not | nothing is known |
/// | the same topics | |
/// | others, or not all | each that only one of them has is named |
pub fn differ(own: &BTreeSet<String>, partner: &BTreeSet<String>) -> Option<Differ> {
    if partner.is_empty() || own == partner {
        return None;
    }
    let only = |these: &BTreeSet<String>, those| these.difference(those).cloned().collect();
    Some(Differ { only_own: only(own, partner), only_partner: only(partner, own) })
}

impl fmt::Display for Differ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            (&self.only_own, "that instance does not back up", "of which no successor will come"),
            (&self.only_partner, "only that instance backs up", "of which this one will make no snapshot"),
        ];
        let lists = lists.iter().filter(|(topics, ..)| !topics.is_empty());
        let parts: Vec<String> =
            lists.map(|(topics, what, then)| format!("{what} {}, {then}", topics.join(", "))).collect();
        f.write_str(&parts.join("; "))
    }
}

/// How long ago a partner counts as heard whose last word was there before this process began, and was written `age_ms`
/// ago by its timestamp.
///
/// The timestamp is that of another machine, so it makes only more suspicious, and not more than so far that a partner that
/// is there is certain to say something before it counts as silent. What silence leads to is a scan, which deletes nothing.
pub fn heard_ago_ms(age_ms: i64, settings: &Settings) -> i64 {
    let grace = settings.publish_every_ms.saturating_mul(ANNOUNCEMENTS);
    age_ms.clamp(0, settings.partner_timeout_ms.saturating_sub(grace).max(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;

    use super::*;
    use crate::model::compacted::settings::{Initial, Rules};

    fn names(text: &str) -> BTreeSet<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[rstest]
    #[case::the_same("t u", "u t", None)]
    #[case::it_does_not_say("t u", "", None)]
    #[case::one_is_missing("t u v", "t", Some("that instance does not back up u, v, of which no successor will come"))]
    #[case::one_more("t", "s t", Some("only that instance backs up s, of which this one will make no snapshot"))]
    #[case::both(
        "t u",
        "s t",
        Some(
            "that instance does not back up u, of which no successor will come; only that instance backs up s, of which this one will make no \
              snapshot"
        )
    )]
    fn different_topics(#[case] own: &str, #[case] partner: &str, #[case] expected: Option<&str>) {
        let found = differ(&names(own), &names(partner)).map(|differ| differ.to_string());
        assert_eq!(found.as_deref(), expected);
    }

    /// The partner announces itself every 100 ms and is waited for for 1,000.
    #[rstest]
    #[case::just_now(0, 0)]
    #[case::a_while_ago(500, 500)]
    #[case::long_ago(700, 700)]
    #[case::it_may_still_be_there(701, 700)]
    #[case::days_ago(i64::MAX, 700)]
    #[case::in_the_future(-5_000, 0)]
    fn an_old_word(#[case] age_ms: i64, #[case] expected: i64) {
        let settings = Arc::new(Settings {
            instance: "a".into(),
            initial: Initial::Activate,
            length_ms: 0,
            interval_offsets: 0,
            partner_timeout_ms: 1_000,
            takeover: true,
            delete_lifetime_ms: 0,
            batch_ms: 0,
            look_every_ms: 0,
            publish_every_ms: 100,
            rules: Rules::default(),
        });
        assert_eq!(heard_ago_ms(age_ms, &settings), expected);
        let seldom = Settings { publish_every_ms: i64::MAX, ..Settings::clone(&settings) };
        assert_eq!(heard_ago_ms(age_ms, &seldom), 0, "one that says nothing for longer than that is never suspicious");
    }
}
