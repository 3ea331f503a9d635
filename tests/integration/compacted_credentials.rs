//! Compacted topics: each instance has its own credentials, and may do no more than it needs to.

use serde_json::{Value, json};

use crate::common::{SOON, beside_others, stack, wait_until};
use crate::compacted::{Two, await_term};
use crate::compacted_proofs::{folder, swap, two};

const OWNER: &str = "arn:aws:iam:::user/test";
const PARTNER: &str = "arn:aws:iam:::user/partner";

/// What the two users of the store may do: instance a is that of the bucket's owner, who may not touch what is b's; instance
/// b is that of another user, who may read everything and write where b writes.
fn policy(bucket: &str, topic: &str, further: &[Value]) -> String {
    let keys = |keys: &[&str]| keys.iter().map(|key| format!("arn:aws:s3:::{bucket}/{key}")).collect::<Vec<_>>();
    let of_b = format!("{topic}/b/*");
    let statement = |effect: &str, users: &[&str], actions: &[&str], resources: Vec<String>| json!({ "Effect": effect, "Principal": { "AWS": users }, "Action": actions, "Resource": resources });
    let on_bucket = ["s3:ListBucket", "s3:GetBucketLocation", "s3:GetBucketVersioning", "s3:GetLifecycleConfiguration"];
    let mut statements = vec![
        statement("Allow", &[OWNER, PARTNER], &on_bucket, vec![format!("arn:aws:s3:::{bucket}")]),
        statement("Allow", &[OWNER, PARTNER], &["s3:GetObject"], keys(&["*"])),
        statement("Allow", &[PARTNER], &["s3:PutObject"], keys(&[&of_b, "_kafka_backup/*"])),
        statement("Allow", &[PARTNER], &["s3:DeleteObject"], keys(&[&of_b, "_kafka_backup/check/*"])),
        statement("Deny", &[OWNER], &["s3:PutObject", "s3:DeleteObject"], keys(&[&of_b])),
    ];
    statements.extend_from_slice(further);
    json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
}

#[test]
fn two_users_of_the_store_take_turns_and_a_deletion_that_is_denied_is_said() {
    let _turn = beside_others();
    let mut two = two("users", "");
    let (access, secret) = stack::PARTNER;
    two.b = two.b.variable("AWS_ACCESS_KEY_ID", access).variable("AWS_SECRET_ACCESS_KEY", secret);
    let bucket = two.a.bucket.clone();
    let allow = |further: &[Value]| bucket.set_policy(&policy(&bucket.name, &two.topic, further));
    allow(&[]);
    let topic = two.topic.clone();
    two.write(300);
    let (a, b) = (two.a.daemon().ready(), two.b.daemon().ready());
    await_term(&a, 1.0);
    two.await_restored();
    swap(&two.b, "pair-b");
    await_term(&b, 2.0);
    wait_until("a to clear its folder", SOON, || folder(&two, "a").is_empty());
    two.write(100);
    two.await_restored();

    // b may write and not delete: its folder stays, and it says what it lacks.
    let denied = json!({ "Effect": "Deny", "Principal": { "AWS": [PARTNER] }, "Action": ["s3:DeleteObject"],
        "Resource": [format!("arn:aws:s3:::{}/{topic}/b/*", bucket.name)] });
    bucket.set_policy(&policy(&bucket.name, &topic, &[denied]));
    swap(&two.a, "pair-a");
    await_term(&a, 3.0);
    let status = |two: &Two| two.b.tell(&["status"]).stdout;
    let needed = format!("they go when s3:DeleteObject is allowed on {topic}/b/*");
    wait_until("b to say what it lacks", SOON, || status(&two).contains(&needed));
    assert!(!folder(&two, "b").is_empty() && status(&two).contains("403 AccessDenied"), "{}", status(&two));
    two.write(100);
    two.await_restored();

    bucket.set_policy(&policy(&bucket.name, &topic, &[]));
    wait_until("b to clear its folder", SOON, || folder(&two, "b").is_empty());
    wait_until("b to have nothing to say", SOON, || status(&two).contains("pair-b  running"));
    assert!(a.stop().success() && b.stop().success());
    two.await_restored();
}
