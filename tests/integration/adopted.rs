//! A backup of the older layout, which says nothing of itself: adopted, gone on with, verified and restored.

use apache_avro::types::Value;
use apache_avro::{Codec, Schema, Writer};

use crate::common::beside_others;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::{Rec, assert_same, numbered};
use crate::common::unique;

/// Its fields: headers in a map, no type of the timestamp.
const OLDER: &str = r#"{"type":"record","name":"Older","fields":[
    {"name":"topic","type":"string"},{"name":"partition","type":"int"},{"name":"offset","type":"long"},
    {"name":"timestamp","type":"long"},{"name":"key","type":["null","bytes"]},{"name":"value","type":["null","bytes"]},
    {"name":"headers","type":["null",{"type":"map","values":"bytes"}]}]}"#;

/// An object as the predecessor wrote it.
fn older(topic: &str, records: &[Rec]) -> Vec<u8> {
    let schema = Schema::parse_str(OLDER).unwrap();
    let mut writer = Writer::with_codec(&schema, Vec::new(), Codec::Snappy).unwrap();
    let optional = |bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => Value::Union(1, Box::new(Value::Bytes(bytes.clone()))),
        None => Value::Union(0, Box::new(Value::Null)),
    };
    for record in records {
        let fields = [
            ("topic", Value::String(topic.to_owned())),
            ("partition", Value::Int(0)),
            ("offset", Value::Long(record.offset)),
            ("timestamp", Value::Long(record.timestamp)),
            ("key", optional(&record.key)),
            ("value", optional(&record.value)),
            ("headers", Value::Union(0, Box::new(Value::Null))),
        ];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
        writer.append_value(Value::Record(fields.collect())).unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn a_backup_of_the_older_layout_is_gone_on_with_verified_and_restored() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("adopted", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..120, 300));
    let records = kafka.read(&topic, 0);
    let env = Env::new().job("adopted", &[&topic], "adopt = true\nflush_size = 30\n");
    let key = |offset: usize| format!("{topic}/0/{topic}-0-{offset:010}.avro");
    // The last one overlaps the one in front of it, as happens there after a crash, and what begins behind them.
    for (from, until) in [(0, 30), (30, 60), (50, 75)] {
        env.bucket.put(&key(from), &older(&topic, &records[from..until]));
    }
    kafka.delete_records(&topic, 0, 60);
    env.back_up("adopted");
    assert!(env.bucket.list(&format!("{topic}/gen-2/0/")).len() >= 2, "ours begins beside it");

    let verify = |mode: &str| env.kafka_backup(&["verify", "--json", "--mode", mode]);
    for mode in ["list", "manifest", "data"] {
        let summary = verify(mode).success();
        assert_eq!((&summary["objects"], &summary["damaged"]), (&5.into(), &0.into()), "{summary}");
    }
    assert_eq!(verify("data").success()["records"], 85 + 60);
    let target = unique("adopted-copy");
    let restored = env.restore(&format!("{topic}:{target}"), &[]).success();
    assert_eq!((&restored["records_planned"], &restored["records_produced"]), (&120.into(), &120.into()), "{restored}");
    let contents = |records: Vec<Rec>| records.into_iter().map(Rec::without_offset).collect::<Vec<_>>();
    assert_same("restored", &contents(records), &contents(kafka.read(&target, 0)));

    // It has no checksum as a whole, but its blocks have.
    let (mut content, _) = env.bucket.get(&key(30));
    let at = content.len() - 100;
    content[at] ^= 1;
    env.bucket.put(&key(30), &content);
    let damaged = verify("data");
    assert_eq!(damaged.code(), 4, "{damaged:?}");
    let finding = damaged.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let finding: Vec<_> = finding.filter(|line| line["severity"] == "damage").collect();
    assert_eq!(finding.len(), 1, "{finding:?}");
    assert_eq!((&finding[0]["object"], &finding[0]["reason"]), (&key(30).into(), &"checksum".into()));
    let target = unique("adopted-damaged");
    let stopped = env.restore(&format!("{topic}:{target}"), &[]);
    assert!(stopped.code() == 3 && stopped.stdout.contains(&key(30)), "{stopped:?}");
    assert_eq!(kafka.end(&target, 0), 30, "not one record of it");
}
