//! What is to be done so that each of our topics has the rule it should have, and the document in which that is done.
//!
//! One decision for each topic, [`decide`]; `last` is what the topic's retention record says was in force last:
//!
//! | wanted | our rule | last | step |
//! |---|---|---|---|
//! | keep | none | | leave |
//! | keep | any | | remove |
//! | W days | W days | | leave; repair where a part of it is missing |
//! | W days | fewer | | lengthen |
//! | W days | more | | shorten |
//! | W days | switched off, or altered | | shorten: somebody wanted objects kept |
//! | W days | none | nothing | install |
//! | W days | none | W days or fewer | install |
//! | W days | none | more days, or kept | shorten |
//!
//! *Shorten* needs the operator's permission; everything else keeps objects at least as long as before. That is also why
//! daemons that share a bucket do not fight: each touches the rules of its own topics only, and where two of them want
//! different things for one topic, the longer retention stays and the other one shows the difference.

use std::ops::Range;

use super::MAX_RULES;
use super::rule::{self, Expires, Rule};
use super::xml::{self, Element, XmlError};

/// What a bucket has.
#[derive(Debug, Clone, Copy)]
pub struct Bucket<'a> {
    /// The lifecycle document; `None` where there is none.
    pub document: Option<&'a str>,
    /// The prefix of the store, empty or with its final slash.
    pub prefix: &'a str,
    /// Objects that are removed stay as noncurrent versions.
    pub versioned: bool,
}

/// What is wanted for one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The topic.
    pub topic: String,
    /// Objects expire after so many days; `None`: they do not.
    pub days: Option<u32>,
    /// What its retention record says was in force last; `None` where there is no record.
    pub last: Option<Option<u32>>,
    /// Why nothing may be done about it, if so.
    pub hindrance: Option<String>,
}

/// What is to be done about one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum Step {
    /// Everything is as it should be.
    Leave,
    /// There is no rule: add one.
    Install {
        /// Its days.
        days: u32,
    },
    /// The rule is right, but lacks a part.
    Repair {
        /// Its days.
        days: u32,
    },
    /// Objects are to be kept longer.
    Lengthen {
        /// As it is.
        from: u32,
        /// As it is to be.
        to: u32,
    },
    /// Objects are to be kept for ever.
    Remove,
    /// Objects are to be kept for a shorter time, which only happens with permission.
    Shorten {
        /// As it is; `None`: they are kept.
        from: Option<u32>,
        /// As it is to be.
        to: u32,
    },
}

impl Step {
    /// Whether it is taken without being asked for.
    pub fn is_safe(self) -> bool {
        !matches!(self, Self::Shorten { .. })
    }

    /// The days of the rule that it writes, if it writes one.
    fn writes(self) -> Option<u32> {
        match self {
            Self::Install { days } | Self::Repair { days } => Some(days),
            Self::Lengthen { to, .. } | Self::Shorten { to, .. } => Some(to),
            Self::Leave | Self::Remove => None,
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Leave => write!(f, "as it should be"),
            Self::Install { days } => write!(f, "install a rule of {days} days"),
            Self::Repair { days } => write!(f, "repair the rule of {days} days"),
            Self::Lengthen { from, to } => write!(f, "lengthen {from} days to {to} days"),
            Self::Remove => write!(f, "remove the rule"),
            Self::Shorten { from: Some(from), to } => write!(f, "shorten {from} days to {to} days"),
            Self::Shorten { from: None, to } => write!(f, "let objects that are kept expire after {to} days"),
        }
    }
}

/// The rule that there is for a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Installed {
    /// There is one.
    pub there: bool,
    /// After how many days it removes objects; `None` where it is switched off or altered.
    pub days: Option<u32>,
    /// It lacks nothing.
    pub whole: bool,
}

/// Decides for one topic: the table of this module.
pub fn decide(wanted: Option<u32>, installed: Installed, last: Option<Option<u32>>) -> Step {
    let Some(to) = wanted else { return if installed.there { Step::Remove } else { Step::Leave } };
    match (installed.there, installed.days) {
        (true, Some(days)) if days == to => {
            if installed.whole {
                Step::Leave
            } else {
                Step::Repair { days }
            }
        }
        (true, Some(from)) if from < to => Step::Lengthen { from, to },
        (true, from) => Step::Shorten { from, to },
        (false, _) => match last {
            None => Step::Install { days: to },
            Some(Some(days)) if days <= to => Step::Install { days: to },
            Some(from) => Step::Shorten { from, to },
        },
    }
}

/// What was found and decided for one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// The topic.
    pub topic: String,
    /// What is wanted.
    pub wanted: Option<u32>,
    /// What our rule does now.
    pub installed: Option<u32>,
    /// After how many days objects expire now by whatever rule, where that is known.
    pub in_force: Option<u32>,
    /// What is to be done.
    pub step: Step,
    /// Why it is not done.
    pub hindrance: Option<String>,
    /// Rules of others that remove objects of the topic earlier than wanted.
    pub threats: Vec<String>,
    /// It is done in the document of the plan.
    pub done: bool,
}

impl TopicPlan {
    /// Whether the bucket is not as it should be, and stays so.
    pub fn drifts(&self) -> bool {
        !self.threats.is_empty() || (self.step != Step::Leave && !self.done)
    }
}

/// The document that a plan leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// The one that is there.
    Same,
    /// This one.
    Put(String),
    /// None: the last rule was ours.
    Delete,
}

/// What is to be done about a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Topic by topic, as they were asked for.
    pub topics: Vec<TopicPlan>,
    /// The document afterwards.
    pub document: Document,
    /// Rules that remove what is not records: generation records, heads.
    pub threats: Vec<String>,
}

/// The rules of a document.
///
/// # Errors
/// It is not a lifecycle document, or not understood.
pub fn rules(document: &str) -> Result<Vec<Rule>, XmlError> {
    Ok(rule_elements(&root(document)?).map(Rule::read).collect())
}

fn root(document: &str) -> Result<Element<'_>, XmlError> {
    let root = xml::parse(document)?;
    match root.name {
        "LifecycleConfiguration" => Ok(root),
        other => Err(XmlError { at: root.span.start, why: format!("{other:?} is not a lifecycle document") }),
    }
}

fn rule_elements<'e, 'a>(root: &'e Element<'a>) -> impl Iterator<Item = &'e Element<'a>> {
    root.children.iter().filter(|child| child.name == "Rule")
}

/// Rules that can remove objects under `folder`, by whomever they are. For a compacted topic there must be none.
pub fn expiring<'r>(rules: &'r [Rule], folder: &str) -> Vec<&'r Rule> {
    rules.iter().filter(|rule| rule.expires_under(folder)).collect()
}

/// Plans for all `wanted` topics. With `allow_decrease` objects may be kept for a shorter time than now.
///
/// # Errors
/// The document is not understood: nothing may be changed in it.
pub fn plan(bucket: Bucket<'_>, wanted: &[Wanted], allow_decrease: bool) -> Result<Plan, XmlError> {
    let document = bucket.document.unwrap_or(EMPTY);
    let root = root(document)?;
    let rules: Vec<Rule> = rule_elements(&root).map(Rule::read).collect();
    let mut edit = Edit { rules: rules.len(), ..Edit::default() };
    let topics = wanted.iter().map(|wanted| edit.topic(&bucket, root.prefix, &rules, wanted, allow_decrease)).collect();
    let bookkeeping = format!("{}{}/", bucket.prefix, crate::model::key::SYSTEM);
    let threats = expiring(&rules, &bookkeeping).into_iter().map(Rule::name).collect();
    Ok(Plan { topics, document: edit.apply(document, &root), threats })
}

/// What a document begins as.
const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                     <LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"></LifecycleConfiguration>";

/// Changes of a document.
#[derive(Default)]
struct Edit {
    /// Rules that there will be.
    rules: usize,
    /// What is put into which place.
    replaced: Vec<(Range<usize>, String)>,
    added: String,
    removed: usize,
}

impl Edit {
    fn topic(
        &mut self,
        bucket: &Bucket<'_>,
        namespace: &str,
        rules: &[Rule],
        wanted: &Wanted,
        allow_decrease: bool,
    ) -> TopicPlan {
        let filter = rule::filter(bucket.prefix, &wanted.topic);
        let ours = rules.iter().find(|rule| rule.is_ours(&filter));
        let installed = Installed {
            there: ours.is_some(),
            days: ours.and_then(Rule::days_in_force),
            whole: ours.is_some_and(|rule| !bucket.versioned || rule.noncurrent_days.is_some()),
        };
        let step = decide(wanted.days, installed, wanted.last);
        let mut hindrance = wanted.hindrance.clone();
        if hindrance.is_none() && ours.is_none() && rules.iter().any(|rule| rule.id == rule::id_of(&filter)) {
            let id = rule::id_of(&filter);
            hindrance =
                Some(format!("the id {id:?} is that of a rule with another filter; rename or remove that rule"));
        }
        if hindrance.is_none() && ours.is_none() && step.writes().is_some() && self.rules >= MAX_RULES {
            hindrance = Some(format!("the bucket has {MAX_RULES} lifecycle rules, and S3 takes no more"));
        }
        let done = step != Step::Leave && hindrance.is_none() && (step.is_safe() || allow_decrease);
        if done {
            match (ours, step.writes()) {
                (Some(rule), Some(days)) => {
                    let text = rule::written(namespace, &filter, days, bucket.versioned);
                    self.replaced.push((rule.span.clone(), text));
                }
                (Some(rule), None) => {
                    self.replaced.push((rule.span.clone(), String::new()));
                    (self.rules, self.removed) = (self.rules - 1, self.removed + 1);
                }
                (None, Some(days)) => {
                    self.added += &rule::written(namespace, &filter, days, bucket.versioned);
                    self.rules += 1;
                }
                (None, None) => {}
            }
        }
        let others = expiring(rules, &filter).into_iter().filter(|rule| !rule.is_ours(&filter));
        let early = |rule: &&Rule| match (&rule.expires, wanted.days) {
            (Some(Expires::Days(days)), Some(wanted)) => *days < wanted,
            _ => true,
        };
        let of_days = |rule: &Rule| match rule.expires {
            Some(Expires::Days(days)) => Some(days),
            // Whatever it is, it may be soon.
            _ => Some(1),
        };
        TopicPlan {
            topic: wanted.topic.clone(),
            wanted: wanted.days,
            installed: installed.days,
            in_force: expiring(rules, &filter).into_iter().filter_map(of_days).min(),
            step,
            hindrance: hindrance.filter(|_| step != Step::Leave),
            threats: others.filter(early).map(Rule::name).collect(),
            done,
        }
    }

    fn apply(mut self, document: &str, root: &Element<'_>) -> Document {
        if self.replaced.is_empty() && self.added.is_empty() {
            return Document::Same;
        }
        if self.added.is_empty() && self.removed == root.children.len() {
            return Document::Delete;
        }
        if !self.added.is_empty() {
            let end = root.inner.end..root.inner.end;
            match document[root.span.clone()].strip_suffix("/>") {
                // The root is an empty tag.
                Some(tag) if root.inner.is_empty() && root.inner.start == root.span.end => {
                    let at = root.span.start + tag.len();
                    let text = format!(">{}</{}{}>", self.added, root.prefix, root.name);
                    self.replaced.push((at..root.span.end, text));
                }
                _ => self.replaced.push((end, std::mem::take(&mut self.added))),
            }
        }
        self.replaced.sort_by_key(|(range, _)| range.start);
        let mut text = document.to_owned();
        for (range, new) in self.replaced.into_iter().rev() {
            text.replace_range(range, &new);
        }
        Document::Put(text)
    }
}

/// Rules of others that are in `before` and not, or not the same, in `after`: what a server made of what it was sent.
/// How they are spaced does not matter; `ours` are the filters of our topics.
pub fn altered(before: &str, after: Option<&str>, ours: &[String]) -> Result<Vec<String>, XmlError> {
    let (before, after) = (root(before)?, after.map(root).transpose()?);
    let foreign = |element: &&Element<'_>| {
        let rule = Rule::read(element);
        !ours.iter().any(|filter| rule.is_ours(filter))
    };
    let mut left: Vec<String> =
        after.iter().flat_map(|root| rule_elements(root).filter(foreign).map(canonical).collect::<Vec<_>>()).collect();
    let mut gone = Vec::new();
    for element in rule_elements(&before).filter(foreign) {
        match left.iter().position(|other| *other == canonical(element)) {
            Some(at) => drop(left.swap_remove(at)),
            None => gone.push(Rule::read(element).name()),
        }
    }
    Ok(gone)
}

/// An element without what does not matter: spaces around its parts.
fn canonical(element: &Element<'_>) -> String {
    let parts: String = element.children.iter().map(canonical).collect();
    // Only a leaf's own text is its value.
    let text = if element.children.is_empty() { element.text.as_str() } else { "" };
    format!("<{}>{}{parts}</{}>", element.name, xml::escaped(text), element.name)
}
