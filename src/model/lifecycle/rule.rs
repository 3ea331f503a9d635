//! One rule of a lifecycle document: what it says, whether it is ours, and how ours is written.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::xml::{Element, escaped};
use crate::model::hex::hex;

/// The most characters S3 takes in the id of a rule.
pub const MAX_ID: usize = 255;

/// What ids of ours begin with.
const ID_PREFIX: &str = "kafka-backup:";

/// The filter of the rule for `topic`: its folder with the final slash (`orders/` must not match `orders-eu/`), under
/// the prefix of the store, which is empty or ends in a slash.
pub fn filter(store_prefix: &str, topic: &str) -> String {
    format!("{store_prefix}{topic}/")
}

/// The id of our rule with this filter. The filter decides it, so two daemons never give two rules to one topic, and
/// none gives the id of another one's.
pub fn id_of(filter: &str) -> String {
    let readable = format!("{ID_PREFIX}{filter}");
    if readable.chars().count() <= MAX_ID {
        return readable;
    }
    format!("{ID_PREFIX}sha256:{}", hex(&Sha256::digest(filter.as_bytes())))
}

/// When a rule removes objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expires {
    /// So many days after they were written.
    Days(u32),
    /// All of them on a date, or after a time that is not understood.
    Otherwise(String),
}

/// What a rule says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands in the document.
    pub span: Range<usize>,
    /// Its id; empty when it has none.
    pub id: String,
    /// Whether it is in force.
    pub enabled: bool,
    /// The names it applies to begin so; empty is the whole bucket.
    pub filter: String,
    /// It applies only to objects with certain tags: never to ours, which have none.
    pub tagged: bool,
    /// It has other conditions (size, or what is not known): some of our objects may meet them.
    pub narrowed: bool,
    /// When it removes current objects, if it does.
    pub expires: Option<Expires>,
    /// After how many days it removes noncurrent versions, if it does.
    pub noncurrent_days: Option<u32>,
}

impl Rule {
    /// Reads a `Rule` element.
    pub fn read(element: &Element<'_>) -> Self {
        let mut rule = Self {
            span: element.span.clone(),
            id: element.child_text("ID").unwrap_or_default().to_owned(),
            enabled: element.child_text("Status").is_some_and(|status| status.eq_ignore_ascii_case("enabled")),
            // The older form: a prefix without a filter around it.
            filter: raw_text(element, "Prefix"),
            tagged: false,
            narrowed: false,
            expires: None,
            noncurrent_days: None,
        };
        if let Some(filter) = element.child("Filter") {
            rule.read_filter(filter);
        }
        rule.expires = element.child("Expiration").and_then(read_expiration);
        let noncurrent = element.child("NoncurrentVersionExpiration");
        rule.noncurrent_days =
            noncurrent.and_then(|e| e.child_text("NoncurrentDays")).and_then(|days| days.parse().ok());
        rule
    }

    fn read_filter(&mut self, filter: &Element<'_>) {
        for condition in &filter.children {
            match condition.name {
                "Prefix" => self.filter.clone_from(&condition.text),
                "Tag" => self.tagged = true,
                "And" => self.read_filter(condition),
                _ => self.narrowed = true,
            }
        }
    }

    /// Whether it is the rule that we write for this filter.
    pub fn is_ours(&self, filter: &str) -> bool {
        self.filter == filter && self.id == id_of(filter)
    }

    /// After how many days it removes every object with its filter; `None` where it does not, or not all.
    pub fn days_in_force(&self) -> Option<u32> {
        match &self.expires {
            Some(Expires::Days(days)) if self.enabled && !self.tagged && !self.narrowed => Some(*days),
            _ => None,
        }
    }

    /// Whether it can remove objects whose names begin with `folder`.
    pub fn expires_under(&self, folder: &str) -> bool {
        let meets = folder.starts_with(&self.filter) || self.filter.starts_with(folder);
        self.enabled && !self.tagged && self.expires.is_some() && meets
    }

    /// How it is called where people read it.
    pub fn name(&self) -> String {
        let which = if self.id.is_empty() { "a rule without an id".to_owned() } else { format!("rule {:?}", self.id) };
        let when = match &self.expires {
            Some(Expires::Days(1)) => "after 1 day".to_owned(),
            Some(Expires::Days(days)) => format!("after {days} days"),
            Some(Expires::Otherwise(when)) => when.clone(),
            None => "never".to_owned(),
        };
        let filter = if self.filter.is_empty() { "the whole bucket".to_owned() } else { self.filter.clone() };
        format!("{which} (objects of {filter} expire {when})")
    }
}

/// The text of a child as it is: names of objects may begin or end with a space.
fn raw_text(element: &Element<'_>, name: &str) -> String {
    element.child(name).map(|child| child.text.clone()).unwrap_or_default()
}

fn read_expiration(expiration: &Element<'_>) -> Option<Expires> {
    if let Some(days) = expiration.child_text("Days") {
        return Some(days.parse().map_or_else(|_| Expires::Otherwise(format!("after {days:?} days")), Expires::Days));
    }
    if let Some(date) = expiration.child_text("Date") {
        return Some(Expires::Otherwise(format!("on {date}")));
    }
    // Only delete markers that hide nothing any more, or something not known.
    let harmless = expiration.children.iter().all(|child| child.name == "ExpiredObjectDeleteMarker");
    (!harmless).then(|| Expires::Otherwise("at a time that is not understood".to_owned()))
}

/// Our rule, as XML; `prefix` is the namespace prefix of the document with its colon, mostly empty.
pub fn written(prefix: &str, filter: &str, days: u32, versioned: bool) -> String {
    let p = prefix;
    let noncurrent = if versioned {
        // An object that expires in a versioned bucket is only hidden; a day later it is gone.
        format!(
            "<{p}NoncurrentVersionExpiration><{p}NoncurrentDays>1</{p}NoncurrentDays></{p}NoncurrentVersionExpiration>"
        )
    } else {
        String::new()
    };
    format!(
        "<{p}Rule><{p}ID>{}</{p}ID><{p}Filter><{p}Prefix>{}</{p}Prefix></{p}Filter><{p}Status>Enabled</{p}Status>\
         <{p}Expiration><{p}Days>{days}</{p}Days></{p}Expiration>{noncurrent}</{p}Rule>",
        escaped(&id_of(filter)),
        escaped(filter),
    )
}
