//! The schema every object is written with.

use std::sync::LazyLock;

/// The Avro schema of an object, as it stands in its header.
///
/// It is part of the format: changing a character of it changes every object.
pub const SCHEMA: &str = concat!(
    r#"{"type":"record","name":"KafkaRecord","namespace":"kafka_backup","fields":["#,
    r#"{"name":"topic","type":"string"},"#,
    r#"{"name":"partition","type":"int"},"#,
    r#"{"name":"offset","type":"long"},"#,
    r#"{"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},"#,
    r#"{"name":"timestamp_type","type":{"type":"enum","name":"TimestampType","#,
    r#""symbols":["CREATE_TIME","LOG_APPEND_TIME","NOT_AVAILABLE"]}},"#,
    r#"{"name":"key","type":["null","bytes"]},"#,
    r#"{"name":"value","type":["null","bytes"]},"#,
    r#"{"name":"headers","type":{"type":"array","items":{"type":"record","name":"Header","fields":["#,
    r#"{"name":"key","type":"string","doc":"bytes that are not UTF-8 stand as U+10FF00 + byte"},"#,
    r#"{"name":"value","type":["null","bytes"]}]}}}]}"#,
);

/// Our schema in Avro's parsing canonical form: two schemas with the same one encode the same way.
pub(super) static CANONICAL: LazyLock<String> = LazyLock::new(|| {
    let schema = apache_avro::Schema::parse_str(SCHEMA).expect("the schema is a literal"); // a test parses it
    schema.canonical_form()
});
