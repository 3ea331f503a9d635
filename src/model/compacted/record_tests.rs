use rstest::rstest;
use serde_json::{Value, json};

use super::record::{
    Pin, Record, RecordName, RunRecord, TaintMark, TermRecord, parse, pin_key, run_key, taint_key, term_key,
};

fn term() -> Value {
    json!({
        "format_version": 1, "term": 3, "topic": "t", "instance": "a", "run": "r", "created_ms": 30,
        "scan_started_ms": 10, "scan_ended_ms": 20, "objects": 2, "bytes": 9,
        "partitions": {"0": {"from": 0, "to": 9, "objects": [
            {"offset": 0, "next_offset": 4, "size": 5, "etag": "x"},
            {"offset": 4, "next_offset": 8, "size": 4, "etag": "y"},
        ]}},
    })
}

fn read(value: &Value) -> Result<TermRecord, super::record::RecordError> {
    TermRecord::from_json(&term_key("t", 3), value.to_string().as_bytes())
}

#[test]
fn records_come_back() {
    let term = read(&term()).expect("a TERM");
    assert!(!term.void);
    assert_eq!(TermRecord::from_json(&term.key(), &term.to_json()), Ok(term));
    let run = json!({
        "format_version": 1, "number": 2, "run": "r", "topic": "t", "instance": "a-b", "job": "j", "cluster_id": "c",
        "topic_id": "", "isolation": "read_committed", "started_ms": 1, "after_term": 0, "partitions": 2, "origins": {"0": 7},
    });
    let run = RunRecord::from_json(&run_key("t", "a-b", 2), run.to_string().as_bytes()).expect("a run");
    assert_eq!((run.origin(0), run.origin(1)), (7, 0));
    assert_eq!(RunRecord::from_json(&run.key(), &run.to_json()), Ok(run));
    let taint = TaintMark { format_version: 1, term: 3, topic: "t".to_owned(), marked_ms: 1 };
    assert_eq!(TaintMark::from_json(&taint_key("t", 3), &taint.to_json()), Ok(taint));
    let [id, topic] = ["p", "t"].map(str::to_owned);
    let pin = Pin { format_version: 1, id, topic, instance: "a".into(), run: "r".into(), renewed_ms: 1, expires_ms: 2 };
    assert_eq!(Pin::from_json(&pin_key("p"), &pin.to_json()), Ok(pin));
}

#[rstest]
#[case::newer("/format_version", json!(2))]
#[case::another_number("/term", json!(4))]
#[case::another_topic("/topic", json!("u"))]
#[case::void_with_objects("/void", json!(true))]
#[case::nothing_in_it("/partitions", json!({}))]
#[case::a_hole("/partitions/0/objects/1/offset", json!(5))]
#[case::not_from_the_beginning("/partitions/0/from", json!(-1))]
#[case::an_object_that_ends_where_it_begins("/partitions/0/objects/1/next_offset", json!(4))]
#[case::objects_behind_the_end("/partitions/0/to", json!(7))]
#[case::no_run("/run", json!(null))]
fn refused(#[case] at: &str, #[case] value: Value) {
    let mut record = term();
    record["void"] = json!(false);
    *record.pointer_mut(at).expect("a field") = value;
    let error = read(&record).expect_err("refused").to_string();
    assert!(error.starts_with("record _kafka_backup/compacted/t/TERM-3.json: "), "{error}");
}

#[test]
fn void_terms_have_no_partitions() {
    let mut record = term();
    record["void"] = json!(true);
    record["partitions"] = json!({});
    assert!(read(&record).expect("a TERM").void);
}

#[rstest]
#[case("_kafka_backup/compacted/t/TERM-12.json", Some(RecordName::Term(12)))]
#[case("_kafka_backup/compacted/t/TERM-12.tainted.json", Some(RecordName::Taint(12)))]
#[case("_kafka_backup/compacted/t/RUN-a-b-3.json", Some(RecordName::Run { instance: "a-b".to_owned(), number: 3 }))]
#[case::zeros("_kafka_backup/compacted/t/TERM-012.json", None)]
#[case::no_number("_kafka_backup/compacted/t/TERM-.json", None)]
#[case::number_0("_kafka_backup/compacted/t/TERM-0.json", None)]
#[case::sign("_kafka_backup/compacted/t/TERM-+1.json", None)]
#[case::another_topic("_kafka_backup/compacted/u/TERM-1.json", None)]
#[case::something_else("_kafka_backup/compacted/t/NOTE-1.json", None)]
fn names(#[case] key: &str, #[case] name: Option<RecordName>) {
    assert_eq!(parse("t", key), name);
}
