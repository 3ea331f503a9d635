use proptest::prelude::*;
use rstest::rstest;

use super::head::{HeadRecord, is_due, sleeper_ms};
use super::plan::{Bucket, Document, Installed, Plan, Step, Wanted, altered, decide, expiring, plan, rules};
use super::record::RetentionRecord;
use super::rule::{Expires, MAX_ID, filter, id_of, written};
use super::{DAY_MS, days_of_topic, whole_days, xml};

#[rstest]
#[case(1, 1)]
#[case(1000, 1)]
#[case(DAY_MS, 1)]
#[case(DAY_MS + 1, 2)]
#[case(7 * DAY_MS, 7)]
#[case(0, 1)]
#[case(i64::MAX, u32::MAX)]
fn milliseconds_in_whole_days(#[case] ms: i64, #[case] days: u32) {
    assert_eq!(whole_days(ms), days);
}

#[rstest]
#[case(Some("604800000"), Some(7))]
#[case(Some("1000"), Some(1))]
#[case(Some("86400001"), Some(2))]
#[case(Some("-1"), None)]
#[case(Some("9223372036854775807"), None)]
#[case(Some("nonsense"), None)]
#[case(None, None)]
fn days_of_a_topic(#[case] setting: Option<&str>, #[case] days: Option<u32>) {
    assert_eq!(days_of_topic(setting), days);
}

// ---- the document ---------------------------------------------------------------------------------------------------

/// Rules of others as they are met with, or could be: what a typed model would lose.
const FOREIGN: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- kept by the platform team -->
<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Rule>
    <ID>only small ones</ID>
    <Filter><ObjectSizeLessThan>500</ObjectSizeLessThan></Filter>
    <Status>Enabled</Status><Expiration><Days>1</Days></Expiration>
  </Rule>
  <Rule><ID>kafka-backup:somebody-else/</ID><Prefix>somebody-else/</Prefix><Status>Enabled</Status>
    <NoncurrentVersionExpiration><NoncurrentDays>3</NoncurrentDays>
      <NewerNoncurrentVersions>5</NewerNoncurrentVersions></NoncurrentVersionExpiration></Rule>
  <Rule new-attribute='>'><ID>&lt;odd&gt; &#38; <![CDATA[<Rule>]]></ID><Filter><And><Prefix>logs/</Prefix>
    <Tag><Key>a</Key><Value>b</Value></Tag></And></Filter><Status>Disabled</Status><Unknown a="1"/>
    <Expiration><Date>2030-01-01T00:00:00Z</Date></Expiration></Rule>
</LifecycleConfiguration>
"#;

fn wanted(topic: &str, days: Option<u32>) -> Wanted {
    Wanted { topic: topic.to_owned(), days, last: None, hindrance: None }
}

fn planned(document: Option<&str>, all: &[Wanted], allow: bool) -> Plan {
    plan(Bucket { document, prefix: "", versioned: false }, all, allow).unwrap()
}

fn text(plan: &Plan) -> &str {
    match &plan.document {
        Document::Put(text) => text,
        other => panic!("{other:?}"),
    }
}

fn with_rule(topic: &str, days: u32) -> String {
    text(&planned(None, &[wanted(topic, Some(days))], false)).to_owned()
}

#[test]
fn a_rule_is_added_and_every_other_byte_stays() {
    let plan = planned(Some(FOREIGN), &[wanted("orders", Some(30))], false);
    let rule = written("", "orders/", 30, false);
    assert_eq!(text(&plan), FOREIGN.replace("</LifecycleConfiguration>", &format!("{rule}</LifecycleConfiguration>")));
    let again = planned(Some(text(&plan)), &[wanted("orders", Some(30))], false);
    assert_eq!((again.document, again.topics[0].step), (Document::Same, Step::Leave));
    let gone = planned(Some(text(&plan)), &[wanted("orders", None)], false);
    assert_eq!(text(&gone), FOREIGN);
}

#[test]
fn rules_are_read() {
    let rules = rules(FOREIGN).unwrap();
    let facts: Vec<_> = rules.iter().map(|r| (r.filter.as_str(), r.enabled, r.tagged, r.narrowed)).collect();
    assert_eq!(facts, [("", true, false, true), ("somebody-else/", true, false, false), ("logs/", false, true, false)]);
    assert_eq!(rules[0].expires, Some(Expires::Days(1)));
    assert_eq!((rules[1].expires.clone(), rules[1].noncurrent_days), (None, Some(3)));
    assert_eq!(rules[2].id, "<odd> & <Rule>");
}

/// A rule is ours by its filter *and* its id.
#[rstest]
#[case::anothers_topic("kafka-backup:payments/", "payments/")]
#[case::longer_name("kafka-backup:orders-eu/", "orders-eu/")]
#[case::other_store_prefix("kafka-backup:x/orders/", "x/orders/")]
#[case::hand_made("orders for 30 days", "orders/")]
#[case::without_an_id("", "orders/")]
fn what_is_not_ours_is_left_alone(#[case] id: &str, #[case] filter: &str) {
    let rule = format!(
        "<Rule><ID>{id}</ID><Filter><Prefix>{filter}</Prefix></Filter><Status>Enabled</Status>\
         <Expiration><Days>90</Days></Expiration></Rule>"
    );
    let document = format!("<LifecycleConfiguration>{rule}</LifecycleConfiguration>");
    let kept = planned(Some(&document), &[wanted("orders", None)], true);
    assert_eq!(kept.document, Document::Same);
    assert!(text(&planned(Some(&document), &[wanted("orders", Some(9))], true)).contains(&rule));
}

#[rstest]
#[case::none(None, Document::Same)]
#[case::empty(Some("<LifecycleConfiguration/>"), Document::Same)]
#[case::foreign(Some(FOREIGN), Document::Same)]
fn keeping_everything_changes_nothing(#[case] document: Option<&str>, #[case] expected: Document) {
    assert_eq!(planned(document, &[wanted("a", None), wanted("b", None)], true).document, expected);
}

#[test]
fn the_last_rule_takes_the_document_with_it() {
    let document = with_rule("orders", 3);
    assert_eq!(planned(Some(&document), &[wanted("orders", None)], false).document, Document::Delete);
}

#[rstest]
#[case::empty_root(
    "<LifecycleConfiguration xmlns='u' />",
    "<LifecycleConfiguration xmlns='u' >",
    "</LifecycleConfiguration>"
)]
#[case::namespace_prefix(
    "<s3:LifecycleConfiguration xmlns:s3='u'/>",
    "<s3:LifecycleConfiguration xmlns:s3='u'>",
    "</s3:LifecycleConfiguration>"
)]
fn odd_roots_are_kept(#[case] document: &str, #[case] start: &str, #[case] end: &str) {
    let plan = planned(Some(document), &[wanted("a", Some(2))], false);
    let namespace = if end.contains("s3:") { "s3:" } else { "" };
    assert_eq!(text(&plan), format!("{start}{}{end}", written(namespace, "a/", 2, false)));
    assert_eq!(planned(Some(text(&plan)), &[wanted("a", Some(2))], false).document, Document::Same);
}

#[rstest]
#[case("")]
#[case("no xml")]
#[case("<Other/>")]
#[case("<LifecycleConfiguration><Rule></LifecycleConfiguration>")]
#[case("<LifecycleConfiguration>")]
#[case("<LifecycleConfiguration/>x")]
#[case("<!DOCTYPE a><LifecycleConfiguration/>")]
#[case("<LifecycleConfiguration><Rule><ID>&unknown;</ID></Rule></LifecycleConfiguration>")]
fn what_is_not_understood_is_refused(#[case] document: &str) {
    assert!(plan(Bucket { document: Some(document), prefix: "", versioned: false }, &[], true).is_err());
}

#[test]
fn nesting_has_a_limit() {
    let deep = "<a>".repeat(10_000) + &"</a>".repeat(10_000);
    assert!(xml::parse(&deep).is_err());
}

// ---- decisions ------------------------------------------------------------------------------------------------------

const NONE: Installed = Installed { there: false, days: None, whole: false };

fn rule_of(days: u32) -> Installed {
    Installed { there: true, days: Some(days), whole: true }
}

#[rstest]
#[case::keep(None, NONE, None, Step::Leave)]
#[case::keep_again(None, rule_of(7), Some(Some(7)), Step::Remove)]
#[case::keep_altered(None, Installed { days: None, ..rule_of(1) }, None, Step::Remove)]
#[case::the_same(Some(7), rule_of(7), None, Step::Leave)]
#[case::a_part_is_missing(Some(7), Installed { whole: false, ..rule_of(7) }, None, Step::Repair { days: 7 })]
#[case::longer(Some(7), rule_of(3), None, Step::Lengthen { from: 3, to: 7 })]
#[case::shorter(Some(7), rule_of(8), None, Step::Shorten { from: Some(8), to: 7 })]
#[case::switched_off(Some(7), Installed { days: None, ..rule_of(1) }, None, Step::Shorten { from: None, to: 7 })]
#[case::first(Some(7), NONE, None, Step::Install { days: 7 })]
#[case::removed_by_hand(Some(7), NONE, Some(Some(7)), Step::Install { days: 7 })]
#[case::was_shorter(Some(7), NONE, Some(Some(1)), Step::Install { days: 7 })]
#[case::was_longer(Some(7), NONE, Some(Some(30)), Step::Shorten { from: Some(30), to: 7 })]
#[case::was_kept(Some(7), NONE, Some(None), Step::Shorten { from: None, to: 7 })]
fn every_row(
    #[case] wanted: Option<u32>,
    #[case] installed: Installed,
    #[case] last: Option<Option<u32>>,
    #[case] step: Step,
) {
    assert_eq!(decide(wanted, installed, last), step);
}

#[test]
fn shortening_waits_for_permission() {
    let document = with_rule("orders", 30);
    let plan = planned(Some(&document), &[wanted("orders", Some(1))], false);
    assert_eq!((plan.document.clone(), plan.topics[0].drifts()), (Document::Same, true));
    let plan = planned(Some(&document), &[wanted("orders", Some(1))], true);
    assert_eq!(text(&plan), with_rule("orders", 1));
    assert!(!plan.topics[0].drifts());
}

#[test]
fn a_hindrance_keeps_the_document_as_it_is() {
    let hindered = Wanted { hindrance: Some("foreign keys".to_owned()), ..wanted("a", Some(1)) };
    let plan = planned(Some(FOREIGN), &[hindered], true);
    assert_eq!((plan.document, plan.topics[0].hindrance.as_deref()), (Document::Same, Some("foreign keys")));
}

#[test]
fn an_id_of_ours_with_another_filter_is_in_the_way() {
    let document = with_rule("orders", 3).replace("<Prefix>orders/", "<Prefix>else/");
    let plan = planned(Some(&document), &[wanted("orders", Some(3))], true);
    assert_eq!(plan.document, Document::Same);
    assert!(plan.topics[0].hindrance.as_ref().unwrap().contains("another filter"));
}

#[test]
fn there_are_at_most_a_thousand_rules() {
    let all: Vec<_> = (0..1001).map(|n| wanted(&format!("t{n}"), Some(1))).collect();
    let plan = planned(None, &all, false);
    assert_eq!(rules(text(&plan)).unwrap().len(), 1000);
    assert!(plan.topics[1000].hindrance.as_ref().unwrap().contains("1000"));
    assert!(plan.topics[..1000].iter().all(|topic| topic.done));
}

#[test]
fn versioned_buckets_lose_noncurrent_versions_too() {
    let bucket = |document, versioned| Bucket { document, prefix: "p/", versioned };
    let all = [wanted("a", Some(5))];
    let plain = plan(bucket(None, false), &all, false).unwrap();
    let repaired = plan(bucket(Some(text(&plain)), true), &all, false).unwrap();
    assert_eq!(repaired.topics[0].step, Step::Repair { days: 5 });
    let rule = &rules(text(&repaired)).unwrap()[0];
    assert_eq!((rule.filter.as_str(), rule.noncurrent_days), ("p/a/", Some(1)));
    assert_eq!(plan(bucket(Some(text(&repaired)), true), &all, false).unwrap().document, Document::Same);
}

#[test]
fn ids_are_short_enough_and_differ() {
    let long = |end: &str| filter(&"p".repeat(500), &format!("{}{end}", "t".repeat(248)));
    let ids = [id_of("orders/"), id_of(&long("a")), id_of(&long("b"))];
    assert_eq!(ids[0], "kafka-backup:orders/");
    assert!(ids.iter().all(|id| id.len() <= MAX_ID) && ids[1] != ids[2]);
}

// ---- rules of others that remove what is ours -----------------------------------------------------------------------

fn foreign(filter: &str, more: &str, days: u32) -> String {
    format!(
        "<LifecycleConfiguration><Rule><ID>x</ID><Filter>{filter}</Filter><Status>Enabled</Status>{more}\
         <Expiration><Days>{days}</Days></Expiration></Rule></LifecycleConfiguration>"
    )
}

#[rstest]
#[case::whole_bucket("<Prefix></Prefix>", "", true)]
#[case::no_filter("", "", true)]
#[case::the_folder("<Prefix>orders/</Prefix>", "", true)]
#[case::a_part_of_the_name("<Prefix>ord</Prefix>", "", true)]
#[case::one_partition("<Prefix>orders/3/</Prefix>", "", true)]
#[case::by_size("<ObjectSizeGreaterThan>1</ObjectSizeGreaterThan>", "", true)]
#[case::older_form("", "<Prefix>orders/</Prefix>", true)]
#[case::by_tag("<Tag><Key>a</Key><Value>b</Value></Tag>", "", false)]
#[case::another_folder("<Prefix>orders-eu/</Prefix>", "", false)]
fn rules_that_would_expire_a_topic(#[case] filter: &str, #[case] more: &str, #[case] found: bool) {
    let document = foreign(filter, more, 5);
    let rules = rules(&document).unwrap();
    assert_eq!(!expiring(&rules, "orders/").is_empty(), found);
    for (days, threatens) in [(None, found), (Some(6), found), (Some(5), false), (Some(4), false)] {
        let plan = planned(Some(&document), &[wanted("orders", days)], false);
        assert_eq!(!plan.topics[0].threats.is_empty(), threatens, "{days:?}");
    }
}

#[test]
fn rules_that_would_expire_our_records_of_the_backup() {
    assert!(planned(Some(&foreign("<Prefix>orders/</Prefix>", "", 5)), &[], false).threats.is_empty());
    assert_eq!(planned(Some(&foreign("", "", 5)), &[], false).threats.len(), 1);
}

#[test]
fn what_a_server_made_of_a_foreign_rule_is_noticed() {
    let ours = ["a/".to_owned()];
    let sent = text(&planned(Some(FOREIGN), &[wanted("a", Some(1))], false)).to_owned();
    let respaced = sent.replace("\n", " ").replace("  ", " ");
    assert_eq!(altered(&sent, Some(&respaced), &ours), Ok(vec![]));
    let lost = sent.replace("<Filter><ObjectSizeLessThan>500</ObjectSizeLessThan></Filter>", "<Filter></Filter>");
    assert_eq!(altered(&sent, Some(&lost), &ours).unwrap().len(), 1);
    assert_eq!(altered(&sent, None, &ours).unwrap().len(), 3);
}

// ---- records --------------------------------------------------------------------------------------------------------

#[test]
fn a_retention_record_tells_what_may_have_expired() {
    let day = 1000;
    let mut record = RetentionRecord::new("t");
    assert!(!record.begin(None, 0, "j"), "nothing is new where everything is kept");
    assert!(!record.may_have_expired(None, 1_000_000, day));
    assert!(record.begin(Some(5), 10_000, "j") && !record.begin(Some(5), 11_000, "j"));
    // Written at 6,000 it is five days old at 11,000; at 4,999 it was so when the term began.
    assert!(record.may_have_expired(Some(6_000), 11_000, day) && !record.may_have_expired(Some(6_001), 11_000, day));
    assert!(record.may_have_expired(Some(0), 10_000, day));
    assert!(record.begin(None, 20_000, "j"));
    assert!(!record.may_have_expired(Some(15_001), 1_000_000, day), "too young when it ended");
    assert!(record.may_have_expired(Some(15_000), 1_000_000, day));
    assert!(record.begin(Some(30), 30_000, "j"));
    assert_eq!((record.shortest_since(None), record.shortest_since(Some(25_000))), (Some(5), Some(30)));
    assert_eq!(record.shortest_since(Some(19_999)), Some(5));
    let json = serde_json::to_vec(&record).unwrap();
    assert_eq!(RetentionRecord::from_json("t", &json), Ok(record));
    assert!(RetentionRecord::from_json("u", &json).is_err());
    assert!(RetentionRecord::from_json("t", br#"{"format_version":2,"topic":"t","terms":[]}"#).is_err());
}

#[test]
fn head_records() {
    let head = |generation: &str, next_offset| HeadRecord {
        format_version: 1,
        generation: generation.to_owned(),
        next_offset,
        leader_epoch: 3,
        written_ms: 5,
    };
    let there = head("u", 10);
    assert_eq!(HeadRecord::from_json(&serde_json::to_vec(&there).unwrap()), Some(there.clone()));
    assert_eq!(HeadRecord::from_json(b"{}"), None);
    assert!(there.replaces(None) && head("u", 11).replaces(Some(&there)) && head("v", 1).replaces(Some(&there)));
    assert!(!head("u", 10).replaces(Some(&there)) && !head("u", 9).replaces(Some(&there)));
    assert!(is_due(0, 15 * DAY_MS, 30, DAY_MS) && !is_due(1, 15 * DAY_MS, 30, DAY_MS));
    assert_eq!(
        [sleeper_ms(None, DAY_MS), sleeper_ms(Some(1), DAY_MS), sleeper_ms(Some(1), 8_000)],
        [3_600_000, 3_600_000, 2_000]
    );
}

// ---- properties -----------------------------------------------------------------------------------------------------

/// A rule of somebody else, with elements nobody knows.
fn foreign_rule() -> impl Strategy<Value = String> {
    let text = "[a-zA-Z0-9 ./&;-]{0,12}".prop_map(|text| xml::escaped(&text));
    let spaces = "[ \n\t]{0,3}";
    let part = (0usize..6, text.clone()).prop_map(|(kind, text)| match kind {
        0 => format!("<Filter><Prefix>{text}</Prefix></Filter>"),
        1 => format!("<Prefix>{text}</Prefix>"),
        2 => "<Expiration><Days>3</Days></Expiration>".to_owned(),
        3 => format!("<Future a='{}'><B/></Future>", text.len()),
        4 => format!("<!-- {} -->", text.replace('-', "")),
        _ => "<Transition><Days>1</Days></Transition>".to_owned(),
    });
    (text, spaces, prop::collection::vec(part, 0..5)).prop_map(|(id, spaces, parts)| {
        format!(
            "<Rule>{spaces}<ID>other {id}</ID><Status>Enabled</Status>{}</Rule>{spaces}",
            parts.join(spaces.as_str())
        )
    })
}

proptest! {
    /// Whatever others have in the document, in whatever order with ours: it stays, byte for byte and in its order; ours
    /// are as wanted; and doing it again changes nothing.
    #[test]
    fn rules_of_others_survive(
        foreign in prop::collection::vec(foreign_rule(), 0..6),
        ours in prop::collection::vec((0usize..7, 0u32..4, 1u32..5), 0..4),
        wishes in prop::collection::btree_map(0u32..4, prop::option::of(1u32..5), 0..4),
    ) {
        let mut parts = foreign.clone();
        let mut used = std::collections::BTreeSet::new();
        for (at, topic, days) in ours {
            if used.insert(topic) {
                parts.insert(at.min(parts.len()), written("", &format!("t{topic}/"), days, false));
            }
        }
        let document = format!("<LifecycleConfiguration>{}</LifecycleConfiguration>", parts.concat());
        let all: Vec<_> = wishes.iter().map(|(topic, days)| wanted(&format!("t{topic}"), *days)).collect();
        let first = planned(Some(&document), &all, true);
        let after = match &first.document {
            Document::Same => document.clone(),
            Document::Put(text) => text.clone(),
            Document::Delete => {
                prop_assert!(foreign.is_empty());
                return Ok(());
            }
        };
        let mut rest = after.as_str();
        for rule in &foreign {
            let at = rest.find(rule.as_str());
            prop_assert!(at.is_some(), "{rule} is not in {after}");
            rest = &rest[at.unwrap_or(0) + rule.len()..];
        }
        for (topic, days) in &wishes {
            let filter = format!("t{topic}/");
            let found: Vec<_> = rules(&after).unwrap().into_iter().filter(|rule| rule.is_ours(&filter)).collect();
            prop_assert_eq!(found.first().map(|rule| rule.days_in_force()), days.map(Some));
        }
        for topic in used.iter().filter(|topic| !wishes.contains_key(topic)) {
            prop_assert!(after.contains(&id_of(&format!("t{topic}/"))), "a topic that is not ours lost its rule");
        }
        prop_assert_eq!(planned(Some(&after), &all, true).document, Document::Same);
    }

    /// Without permission nothing is kept for a shorter time than before.
    #[test]
    fn nothing_is_shortened_unasked(
        wish in prop::option::of(1u32..9), rule in prop::option::of(1u32..9), last in prop::option::of(prop::option::of(1u32..9)),
    ) {
        let installed = rule.map_or(NONE, rule_of);
        let step = decide(wish, installed, last);
        let before = rule.map(Some).or(last).unwrap_or(Some(0)).unwrap_or(u32::MAX);
        prop_assert!(!step.is_safe() || wish.unwrap_or(u32::MAX) >= before || step == Step::Leave && rule == wish);
    }
}

#[test]
fn a_sweep_removes_the_beginning_of_each_partition() {
    let mut sweep = super::sweep::Sweep::new("t", 2, 10_000, 1_000);
    let key =
        |branch: &str, partition: i32, offset: i64| format!("t/{branch}{partition}/t-{partition}-{offset:020}.avro");
    let expired = [
        (key("", 0, 0), 7_999, true),
        (key("", 0, 5), 8_000, false),
        (key("", 0, 9), 1_000, false),
        (key("", 1, 0), 1_000, true),
        (key("gen-2/", 0, 0), 1_000, true),
        (key("a/", 0, 0), 1_000, false),
        ("t/0/t-0-0000000000.avro".to_owned(), 1_000, false),
        ("t/0/notes.txt".to_owned(), 1_000, false),
        ("u/0/u-0-00000000000000000000.avro".to_owned(), 1_000, false),
        ("_kafka_backup/topics/t/1.json".to_owned(), 1_000, false),
    ];
    for (key, modified_ms, expected) in expired {
        assert_eq!(sweep.expires(&key, modified_ms), expected, "{key}");
    }
}
