//! Restore: look the backup over, plan, check everything against the target, then act.
//!
//! ```text
//! gather   listings and metadata of the store  ──┐
//! target   cluster id, offsets, settings       ──┴─> model::restore::plan ──> act ──> report
//!
//! plan_file                the plan is written down before the first record
//! resume                   an unfinished plan goes on where the target ends
//! act      per partition:  fetch (async, ranges) ──bounded──> write (a thread: decode, produce, check deliveries)
//! ```
//!
//! Nothing is created or produced before the plan has agreed. `tasks_max` partitions are restored at the same time; one
//! that fails stops, the others go on, and the end says which.

pub mod act;
pub mod compacted;
pub mod failure;
pub mod fetch;
pub mod fingerprint;
pub mod gather;
pub mod groups;
mod header;
pub mod object;
pub mod plan_file;
pub mod progress;
pub mod report;
mod request;
pub mod resume;
mod settings;
pub mod stop;
pub mod target;
pub mod text;
pub mod write;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use self::compacted::Pins;
use self::fetch::Throttle;
use self::fingerprint::Resumed;
use self::groups::GroupReport;
use self::plan_file::PlanFile;
use self::progress::Progress;
pub use self::request::Restore;
use self::stop::Stop;
use self::target::{KafkaSinks, KafkaTarget};
use self::text::print;
use crate::clock::{now_ms, rfc3339};
use crate::config::ConsumerGroups;
use crate::error::{Error, Exit, Result};
use crate::model::catalog::Catalog;
use crate::model::groups::plan::GroupPlan;
use crate::model::restore::saved::{PLAN_FORMAT_VERSION, SavedPlan, plan_id, same_topic};
use crate::model::restore::window::Offsets;
use crate::model::restore::{self as model, Mapping, Plan, Refusal, Request, Target, refused};

/// What is known before anything is changed.
struct Prepared {
    target: KafkaTarget,
    facts: Target,
    /// Where the plan is or will be written down; `None` in append mode and for a dry run.
    file: Option<PlanFile>,
    saved: SavedPlan,
    /// What earlier runs have produced; `None` when this is the first.
    resumed: Option<BTreeMap<(String, i32), Resumed>>,
    /// Every record is there: only the groups are left.
    only_groups: bool,
}

/// What the store holds of the topics that are wanted.
struct Looked {
    mappings: Vec<Mapping>,
    catalog: Catalog,
    /// Where snapshots of compacted topics end.
    limits: BTreeMap<(String, i32), i64>,
    warnings: Vec<String>,
}

/// Runs a restore from the first look to the report. Prints to stdout; the exit code says how it went.
pub async fn run(restore: Restore, stop: Stop) -> Result<Exit> {
    let throttle = Arc::new(Throttle::new(restore.rate_limit));
    // Until the plan is agreed nothing has been changed anywhere: a signal may end it at any point.
    let mut pins = Pins::new(restore.store.clone(), !restore.dry_run);
    let prepared = tokio::select! {
        prepared = prepare(&restore, &throttle, &mut pins) => Some(prepared),
        () = stop.wait() => None,
    };
    let Prepared { target, mut facts, file, mut saved, resumed, only_groups } = match prepared {
        Some(Ok(prepared)) => prepared,
        nothing => {
            // Nothing is planned that would be read: what was pinned for it may be deleted at once.
            pins.release().await;
            return nothing.map_or(Ok(stop.asked().unwrap_or(Exit::Interrupted)), |refused| refused.map(|_| Exit::Ok));
        }
    };
    if only_groups {
        return groups_only(&restore, &target, saved, file).await;
    }
    if restore.dry_run {
        show_plan(&saved, &restore)?;
        return Ok(Exit::Ok);
    }
    warn(&saved.plan.warnings, restore.json)?;
    if resumed.is_none() {
        facts.topics.extend(create(&target, &saved.plan, &restore).await?.topics);
        for topic in &mut saved.plan.topics {
            topic.target_id = facts.topics.get(&topic.target).and_then(|found| found.id.clone());
        }
        if let Some(file) = &file {
            file.write(&saved)?;
            tracing::info!(plan = %file.path().display(), "plan written: the same restore started again goes on with it");
        }
    }
    let resumed = resumed.unwrap_or_default();
    let progress = Arc::new(Progress::new(&saved.plan, resumed.values().map(|resumed| resumed.done).sum()));
    let act = act::Act {
        store: restore.store.clone(),
        sinks: Arc::new(KafkaSinks::new(restore.kafka.clone(), &saved.plan, &facts)),
        tasks_max: restore.tasks_max,
        throttle,
        resumed,
        stop: stop.clone(),
    };
    let mut report = tokio::select! {
        report = act.run(&saved.plan, &progress) => report?,
        () = progress.show(restore.progress_interval, &stop) => unreachable!("progress is shown until it is dropped"),
        () = pins.keep() => unreachable!("pins are kept until that is dropped"),
    };
    progress.clear();
    pins.release().await;
    let is_wanted = restore.apply_topic_config && report.is_restored();
    let refused = if is_wanted { settings::apply(&target, &saved.plan, restore.json).await } else { Ok(0) };
    let mode = restore.consumer_groups;
    report.groups = match saved.groups.clone().filter(|_| mode != ConsumerGroups::None) {
        Some(plan) if mode == ConsumerGroups::Apply && report.is_restored() => Some(groups::apply(&target, plan).await),
        Some(plan) => Some(GroupReport::held_back(mode, plan)),
        None => None,
    };
    saved.groups_done.extend(report.groups.iter().flat_map(GroupReport::done));
    // Without the settings it is not finished: the same restore started again tries them again. Groups are left over by
    // themselves, because from now on others may write to the target.
    if let Some(file) = file.filter(|_| report.is_complete() && refused.is_ok()) {
        file.write(&SavedPlan { finished: Some(rfc3339(now_ms())), ..saved })?;
    }
    print(&if restore.json { report.json() } else { report.text() })?;
    if !restore.append && report.can_be_gone_on_with() {
        tracing::warn!("not everything is restored: the same restore started again goes on where each partition ends");
    }
    Ok(if refused? > 0 { Exit::Incomplete } else { report.exit() })
}

/// Puts groups back on what is restored already.
async fn groups_only(
    restore: &Restore,
    target: &KafkaTarget,
    mut saved: SavedPlan,
    file: Option<PlanFile>,
) -> Result<Exit> {
    let began = std::time::Instant::now();
    warn(&saved.plan.warnings, restore.json)?;
    let plan = saved.groups_left().unwrap_or_default();
    let report = match restore.consumer_groups {
        ConsumerGroups::Apply if !restore.dry_run => groups::apply(target, plan).await,
        _ => GroupReport::planned(plan),
    };
    if let Some(file) = file {
        saved.groups_done.extend(report.done());
        file.write(&saved)?;
    }
    if restore.json {
        let summary = json!({
            "message_type": "summary",
            "dry_run": restore.dry_run,
            "records_planned": 0,
            "records_produced": 0,
            "partitions": 0,
            "seconds": began.elapsed().as_secs_f64(),
            "bytes": 0,
            "consumer_groups": report.summary(),
        });
        report.json().iter().chain([&summary]).try_for_each(|line| print(&line.to_string()))?;
    } else {
        print(report.text().trim_end())?;
    }
    Ok(if report.is_complete() { Exit::Ok } else { Exit::Incomplete })
}

/// A plan whose records are all there, and whose groups are asked for: by name, or because some are left of it.
fn has_groups_left(restore: &Restore, saved: &SavedPlan) -> bool {
    let is_asked = restore.consumer_groups != ConsumerGroups::None;
    let left = || saved.groups_left().is_some_and(|groups| !groups.commits.is_empty());
    let was_asked = || saved.request.get("consumer_groups") == Some(&json!(ConsumerGroups::Apply.word()));
    saved.finished.is_some() && is_asked && (restore.resume || was_asked() && left())
}

/// Finds the unfinished plan of this very restore and looks where its target stands, or makes a new plan.
async fn prepare(restore: &Restore, throttle: &Throttle, pins: &mut Pins) -> Result<Prepared> {
    let target = KafkaTarget::open(&restore.kafka)?;
    let cluster_id = target.cluster_id().await?;
    let request = restore.words();
    let id = plan_id(restore.store.url(), &cluster_id, &request);
    let path = restore.plan.clone().unwrap_or_else(|| restore.plans.join(format!("{id}.json")));
    // Behind the records of others nobody can say later which were ours.
    let file = (!restore.append && !restore.dry_run).then(|| PlanFile::lock(&path)).transpose()?;
    let earlier = if restore.append { None } else { plan_file::read(&path)? };
    let usable = |plan: &SavedPlan| plan.finished.is_none() || has_groups_left(restore, plan);
    if let Some(mut saved) = earlier.filter(usable) {
        if saved.id != id {
            let what = format!("the unfinished plan {} is of another restore", path.display());
            let hint = format!("go on with that one (--resume {}), or name another file with --plan", path.display());
            return Err(Error::new(Exit::Failed, what).hint(hint));
        }
        if saved.finished.is_some() {
            let facts = unchanged(&target, &saved, restore.json).await?;
            saved.plan.warnings =
                vec![format!("everything is restored ({}): only groups are put back", path.display())];
            go_on_with_groups(restore, &target, &mut saved, request, throttle).await?;
            return Ok(Prepared { target, facts, file, saved, resumed: None, only_groups: true });
        }
        let (resumed, facts) = resume::look(&target, &restore.kafka, &saved).await.map_err(|error| {
            let hint = format!("to begin anew, delete the target topics and the plan {}", path.display());
            if error.exit == Exit::Failed && error.hint.is_none() { error.hint(hint) } else { error }
        })?;
        let done: u64 = resumed.values().map(|resumed| resumed.done).sum();
        saved.plan.warnings =
            vec![format!("going on with the plan of {} ({}): {done} records are there", saved.written, path.display())];
        for (topic, instance) in instances(&saved.plan) {
            saved.plan.warnings.extend(pins.pin_again(&topic, &instance.into()).await?);
        }
        if go_on_with_groups(restore, &target, &mut saved, request, throttle).await?
            && let Some(file) = &file
        {
            file.write(&saved)?;
        }
        return Ok(Prepared { target, facts, file, saved, resumed: Some(resumed), only_groups: false });
    }
    if restore.resume {
        let what = format!("there is no unfinished restore in {}", path.display());
        let hint = "start the restore itself instead of --resume; groups of a finished one are put back with \
                    --consumer-groups apply";
        return Err(Error::new(Exit::NotFound, what).hint(hint));
    }
    let Looked { mappings, catalog, limits, warnings } = look(restore, pins).await?;
    let facts = target.facts(&mappings.iter().map(|mapping| mapping.target.clone()).collect()).await?;
    let mut plan = decide(restore, mappings, &catalog, limits, &facts)?;
    plan.warnings.extend(warnings);
    can_create(&target, &plan, restore.json).await?;
    if restore.append {
        let warning = "if_not_empty = \"append\": a restore that is interrupted cannot be gone on with; started again, it appends \
                       everything once more";
        plan.warnings.push(warning.to_owned());
    }
    let groups = plan_groups(restore, &target, &mut plan, (None, &BTreeSet::new()), throttle).await?;
    let saved = SavedPlan {
        format_version: PLAN_FORMAT_VERSION,
        id,
        written: rfc3339(now_ms()),
        finished: None,
        store: restore.store.url().to_owned(),
        cluster_id,
        request,
        plan,
        groups,
        groups_done: BTreeSet::new(),
    };
    Ok(Prepared { target, facts, file, saved, resumed: None, only_groups: false })
}

/// What is done about consumer groups; nothing where that is not asked for. What `earlier` says of a group holds, and
/// those that are `done` are left alone.
async fn plan_groups(
    restore: &Restore,
    target: &KafkaTarget,
    plan: &mut Plan,
    (earlier, done): (Option<GroupPlan>, &BTreeSet<String>),
    throttle: &Throttle,
) -> Result<Option<GroupPlan>> {
    if restore.consumer_groups == ConsumerGroups::None {
        return Ok(None);
    }
    let (mut groups, warnings) = groups::plan(restore, plan, throttle).await?;
    plan.warnings.extend(warnings);
    for (group, commits) in earlier.into_iter().flat_map(|earlier| earlier.commits) {
        groups.commits.entry(group).and_modify(|now| *now = commits);
    }
    groups.commits.retain(|group, _| !done.contains(group));
    check_groups(restore, target, plan, &groups).await?;
    Ok(Some(groups))
}

/// Refuses what speaks against committing; where nothing is to be committed it is only said.
async fn check_groups(restore: &Restore, target: &KafkaTarget, plan: &mut Plan, groups: &GroupPlan) -> Result<()> {
    let against = groups::refusals(target, groups).await?;
    match restore.consumer_groups {
        ConsumerGroups::Apply if !against.is_empty() => return Err(refuse(against, restore.json)),
        _ => plan.warnings.extend(groups::warnings(against)),
    }
    Ok(())
}

/// The groups of a restore that goes on: as they were planned, so that what an earlier run has committed is not taken for
/// somebody else's. Planned again only where others are asked for now; says whether the plan has changed.
async fn go_on_with_groups(
    restore: &Restore,
    target: &KafkaTarget,
    saved: &mut SavedPlan,
    request: Map<String, Value>,
    throttle: &Throttle,
) -> Result<bool> {
    if restore.consumer_groups == ConsumerGroups::None {
        return Ok(false);
    }
    let same = |word: &str| saved.request.get(word) == request.get(word);
    if let Some(groups) = saved.groups_left().filter(|_| same("groups_regex") && same("groups_exclude_regex")) {
        check_groups(restore, target, &mut saved.plan, &groups).await?;
        return Ok(false);
    }
    let earlier = saved.groups.take();
    let (plan, done) = (&mut saved.plan, &saved.groups_done);
    saved.groups = plan_groups(restore, target, plan, (earlier, done), throttle).await?;
    for word in ["consumer_groups", "groups_regex", "groups_exclude_regex"] {
        match request.get(word) {
            Some(value) => _ = saved.request.insert(word.to_owned(), value.clone()),
            None => _ = saved.request.remove(word),
        }
    }
    Ok(true)
}

/// What is known of the targets of a finished plan, which must be those that it was made for.
async fn unchanged(target: &KafkaTarget, saved: &SavedPlan, json: bool) -> Result<Target> {
    let facts = target.facts(&saved.plan.topics.iter().map(|topic| topic.target.clone()).collect()).await?;
    let changed = saved.plan.topics.iter().filter_map(|topic| {
        let change = same_topic(topic, &facts).err()?;
        Some(Refusal::TargetChanged { topic: topic.target.clone(), change })
    });
    let changed: Vec<Refusal> = changed.collect();
    if changed.is_empty() { Ok(facts) } else { Err(refuse(changed, json)) }
}

/// Which topics are wanted, and what the store holds of them.
async fn look(restore: &Restore, pins: &mut Pins) -> Result<Looked> {
    let available = gather::topics(&restore.store).await?;
    let mappings = restore.selection.resolve(&available).map_err(|refusals| refuse(refusals, restore.json))?;
    let mut catalog = Catalog::default();
    let (mut limits, mut warnings) = (BTreeMap::new(), Vec::new());
    for source in mappings.iter().map(|mapping| &mapping.source).collect::<BTreeSet<_>>() {
        let Some(mut backup) = gather::outline(&restore.store, source).await? else { continue };
        if backup.newest().is_none() || restore.instance.is_some() {
            let instance = restore.instance.as_deref();
            if let Some(snapshot) = compacted::snapshot(&restore.store, source, instance, pins).await? {
                refuse_of_snapshots(restore, source)?;
                limits.extend(snapshot.limits.into_iter().map(|(p, limit)| ((source.clone(), p), limit)));
                warnings.extend(snapshot.warnings);
                catalog.topics.insert(source.clone(), snapshot.backup);
                continue;
            }
        }
        let numbers = restore.partitions.iter().filter(|(topic, _)| topic == source).map(|(_, p)| *p);
        let numbers: BTreeSet<i32> = numbers.collect();
        let wanted = (!restore.partitions.is_empty()).then_some(&numbers);
        if let Some(generation) = restore.generation.or(backup.newest()) {
            gather::fill(&restore.store, source, &mut backup, generation, wanted).await?;
            gather::fill_reaches(&restore.store, source, &mut backup, (restore.expiry)(source)).await?;
        }
        catalog.topics.insert(source.clone(), backup);
    }
    Ok(Looked { mappings, catalog, limits, warnings })
}

/// What a snapshot of a compacted topic cannot be asked for.
fn refuse_of_snapshots(restore: &Restore, topic: &str) -> Result<()> {
    let refuse = |key: &str, why: &str| {
        let what = format!("topic {topic} is compacted: {key} {why}");
        Err(Error::new(Exit::Config, what).hint(format!("leave {key} out for this topic")))
    };
    if !restore.times.is_unlimited() {
        return refuse("from/until", "cannot be kept, because older versions of its keys are not in the backup");
    }
    if restore.generation.is_some() {
        return refuse("generation", "means nothing: it has instances instead");
    }
    Ok(())
}

/// The instances of compacted topics that a plan reads, by topic.
fn instances(plan: &Plan) -> BTreeSet<(String, String)> {
    let keys = plan.topics.iter().flat_map(|topic| &topic.partitions).flat_map(|partition| &partition.objects);
    let names = keys.filter_map(|object| crate::model::key::parse(&object.key));
    let branches = names.filter_map(|name| Some((name.path.topic, name.path.branch?)));
    branches.filter(|(_, branch)| crate::model::key::is_instance(branch)).collect()
}

/// A snapshot ends where it ends; the operator may want less.
fn within(
    mut offsets: BTreeMap<(String, i32), Offsets>,
    limits: BTreeMap<(String, i32), i64>,
) -> BTreeMap<(String, i32), Offsets> {
    for (at, limit) in limits {
        let wanted = offsets.entry(at).or_default();
        wanted.until = Some(wanted.until.map_or(limit, |until| until.min(limit)));
    }
    offsets
}

fn decide(
    restore: &Restore,
    topics: Vec<Mapping>,
    catalog: &Catalog,
    limits: BTreeMap<(String, i32), i64>,
    target: &Target,
) -> Result<Plan> {
    let request = Request {
        topics,
        generation: restore.generation,
        partitions: (!restore.partitions.is_empty()).then(|| restore.partitions.clone()),
        times: restore.times,
        offsets: within(restore.offsets.clone(), limits),
        create_topics: restore.create_topics,
        replication_factor: restore.replication_factor,
        append: restore.append,
        in_place: restore.in_place,
        apply_topic_config: restore.apply_topic_config,
        now_ms: now_ms(),
    };
    model::plan(&request, catalog, target).map_err(|refusals| refuse(refusals, restore.json))
}

/// Asks the brokers whether everything that must be created can be.
async fn can_create(target: &KafkaTarget, plan: &Plan, json: bool) -> Result<()> {
    let mut refusals = Vec::new();
    for topic in &plan.topics {
        if let Some(create) = &topic.create {
            refusals.extend(target.could_create(&topic.target, create).await?);
        }
    }
    if refusals.is_empty() { Ok(()) } else { Err(refuse(refusals, json)) }
}

/// Creates what must be created, and holds the created topics to the same limits as those that were there: the
/// broker's defaults may be stricter than the settings we give.
async fn create(target: &KafkaTarget, plan: &Plan, restore: &Restore) -> Result<Target> {
    let mut created = Vec::new();
    for topic in &plan.topics {
        if let Some(create) = &topic.create {
            target.create(&topic.target, create).await?;
            tracing::info!(topic = topic.target, partitions = create.partitions, "topic created");
            created.push(topic);
        }
    }
    let facts = target.facts(&created.iter().map(|topic| topic.target.clone()).collect()).await?;
    let (mut refusals, mut warnings) = (Vec::new(), Vec::new());
    for topic in created {
        let Some(found) = facts.topics.get(&topic.target) else {
            refusals.push(Refusal::TargetMissing { topic: topic.target.clone() });
            continue;
        };
        model::limits::check(&topic.target, &topic.needs, &found.config, now_ms(), &mut refusals, &mut warnings);
        found.denied.check(&topic.target, restore.apply_topic_config, &mut refusals, &mut warnings);
    }
    warn(&warnings, restore.json)?;
    if refusals.is_empty() { Ok(facts) } else { Err(refuse(refusals, restore.json)) }
}

/// The same with a line for each, for programs.
fn refuse(refusals: Vec<Refusal>, json: bool) -> Error {
    for refusal in refusals.iter().filter(|_| json) {
        let line = json!({ "message_type": "refusal", "message": refusal.to_string() });
        if let Err(error) = print(&line.to_string()) {
            return error;
        }
    }
    refused(refusals)
}

/// Warnings, gaps among them, before anything is done.
fn warn(warnings: &[String], json: bool) -> Result<()> {
    for warning in warnings {
        tracing::warn!("{warning}");
        if json {
            print(&json!({"message_type": "warning", "message": warning}).to_string())?;
        }
    }
    Ok(())
}

fn show_plan(saved: &SavedPlan, restore: &Restore) -> Result<()> {
    let SavedPlan { plan, groups, .. } = saved;
    let groups = groups.clone().filter(|_| restore.consumer_groups != ConsumerGroups::None);
    let groups = groups.map(GroupReport::planned);
    if !restore.json {
        let groups = groups.as_ref().map(|groups| format!("\n{}", groups.text().trim_end())).unwrap_or_default();
        return print(&(report::plan_text(plan) + &groups));
    }
    let totals = plan.totals();
    let line = json!({
        "message_type": "plan",
        "topics": plan.topics,
        "warnings": plan.warnings,
        "totals": totals,
    });
    let mut summary = json!({
        "message_type": "summary",
        "dry_run": true,
        "records_planned": totals.records,
        "records_planned_at_most": totals.records_at_most,
        "records_produced": 0,
        "partitions": totals.partitions,
        "seconds": 0.0,
        "bytes": totals.bytes,
    });
    let mut lines = vec![line];
    if let Some(groups) = &groups {
        lines.extend(groups.json());
        summary["consumer_groups"] = groups.summary();
    }
    lines.push(summary);
    print(&lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"))
}
