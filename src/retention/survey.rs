//! What is wanted: the topics that jobs have now, and after how many days their objects expire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::{Job, KafkaConfig, Retention};
use crate::kafka::KafkaError;
use crate::kafka::admin::{Cluster, TIMEOUT};
use crate::model::lifecycle::days_of_topic;

/// One topic of one job.
#[derive(Debug, Clone)]
pub struct JobTopic {
    /// The job.
    pub job: Arc<Job>,
    /// The topic.
    pub topic: String,
    /// After how many days its objects expire; `None`: never. An error says why nobody knows.
    pub days: Result<Option<u32>, String>,
    /// Why its objects must not expire, whatever the job says.
    pub hindrance: Option<String>,
}

/// What is known of one topic in Kafka.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `retention.ms`.
    pub retention_ms: Option<String>,
    /// `cleanup.policy`.
    pub cleanup_policy: Option<String>,
}

/// Connections to clusters, one for each, however many jobs use it.
#[derive(Default)]
pub struct Clusters(Vec<(Arc<KafkaConfig>, Arc<Cluster>)>);

impl Clusters {
    fn get(&mut self, config: &Arc<KafkaConfig>) -> Result<Arc<Cluster>, KafkaError> {
        if let Some((_, cluster)) = self.0.iter().find(|(known, _)| known == config) {
            return Ok(cluster.clone());
        }
        let cluster = Cluster::connect(config)?;
        self.0.push((config.clone(), cluster.clone()));
        Ok(cluster)
    }
}

/// The topics of all `jobs`. Where the brokers do not answer, what needs them is not known and stays as it is.
pub async fn survey(jobs: &[Arc<Job>], clusters: &mut Clusters) -> Vec<JobTopic> {
    let mut all = Vec::new();
    for job in jobs {
        // Topics by name that are kept need nobody to be asked.
        let asked = if job.topics.include.is_some() || job.retention != Retention::Keep {
            match clusters.get(&job.kafka) {
                Ok(cluster) => ask(job, &cluster).await,
                Err(error) => Err(error),
            }
        } else {
            Ok(BTreeMap::new())
        };
        all.extend(judge(job, &asked.map_err(|error| error.to_string())));
    }
    all
}

/// The topics of a job that exist, with the settings that matter here.
async fn ask(job: &Job, cluster: &Cluster) -> Result<BTreeMap<String, Settings>, KafkaError> {
    let topics = cluster.topics(TIMEOUT).await?;
    let names: Vec<String> = topics.into_iter().map(|topic| topic.name).filter(|name| job.topics.takes(name)).collect();
    if job.retention == Retention::Keep {
        return Ok(names.into_iter().map(|name| (name, Settings::default())).collect());
    }
    let mut configs = cluster.topic_configs(&names, TIMEOUT).await?;
    let mut settings = |name: &String| {
        let mut config = configs.remove(name).unwrap_or_default();
        let mut value = |key: &str| config.remove(key).and_then(|entry| entry.value);
        Settings { retention_ms: value("retention.ms"), cleanup_policy: value("cleanup.policy") }
    };
    Ok(names.into_iter().map(|name| (name.clone(), settings(&name))).collect())
}

/// What is wanted for each topic of `job`, given what the brokers say.
fn judge(job: &Arc<Job>, asked: &Result<BTreeMap<String, Settings>, String>) -> Vec<JobTopic> {
    let mut names: BTreeSet<&String> = job.topics.literal.iter().collect();
    names.extend(asked.iter().flat_map(BTreeMap::keys));
    let of = |topic: &String| {
        let settings = asked.as_ref().map(|all| all.get(topic));
        let missing = || format!("topic {topic} does not exist");
        let days = match (job.retention, &settings) {
            (Retention::Keep, _) => Ok(None),
            (_, Err(why)) => Err((*why).clone()),
            (_, Ok(None)) => Err(missing()),
            (Retention::Days(days), Ok(Some(_))) => Ok(Some(days)),
            (Retention::Topic, Ok(Some(settings))) => match &settings.retention_ms {
                Some(ms) => Ok(days_of_topic(Some(ms))),
                None => Err(format!("the brokers do not tell retention.ms of topic {topic}")),
            },
        };
        let policy = settings.ok().flatten().and_then(|settings| settings.cleanup_policy.as_deref());
        let hindrance = match (&days, policy) {
            // Of "compact,delete" Kafka removes old records itself.
            (Ok(Some(_)), Some("compact")) => Some(
                "the topic is compacted: its oldest records are as alive as its newest, and would be lost; \
                 write retention = \"keep\""
                    .to_owned(),
            ),
            _ => None,
        };
        JobTopic { job: job.clone(), topic: topic.clone(), days, hindrance }
    };
    names.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::tests::job;
    use super::*;

    fn settings(retention_ms: &str, policy: &str) -> Settings {
        Settings { retention_ms: Some(retention_ms.to_owned()), cleanup_policy: Some(policy.to_owned()) }
    }

    #[rstest]
    #[case::keep(Retention::Keep, Some(settings("1000", "delete")), Ok(None))]
    #[case::days(Retention::Days(30), Some(settings("1000", "delete")), Ok(Some(30)))]
    #[case::topic(Retention::Topic, Some(settings("604800001", "delete")), Ok(Some(8)))]
    #[case::topic_for_ever(Retention::Topic, Some(settings("-1", "delete")), Ok(None))]
    #[case::not_told(Retention::Topic, Some(Settings::default()), Err("retention.ms"))]
    #[case::gone(Retention::Topic, None, Err("does not exist"))]
    #[case::gone_days(Retention::Days(3), None, Err("does not exist"))]
    #[case::gone_but_kept(Retention::Keep, None, Ok(None))]
    fn what_is_wanted(
        #[case] retention: Retention,
        #[case] settings: Option<Settings>,
        #[case] expected: Result<Option<u32>, &str>,
    ) {
        let job = job("j", "t", retention);
        let asked = Ok(settings.map(|settings| ("t".to_owned(), settings)).into_iter().collect());
        let all = judge(&job, &asked);
        match (&all[0].days, expected) {
            (Ok(days), expected) => assert_eq!(Ok(*days), expected),
            (Err(why), Err(word)) => assert!(why.contains(word), "{why}"),
            (Err(why), Ok(_)) => panic!("{why}"),
        }
    }

    #[test]
    fn a_compacted_topic_does_not_expire() {
        let job = job("j", "t", Retention::Days(3));
        let with = |policy: &str| {
            let asked = Ok([("t".to_owned(), settings("1000", policy))].into());
            judge(&job, &asked)[0].hindrance.is_some()
        };
        assert!(with("compact") && !with("delete") && !with("compact,delete"));
    }

    #[test]
    fn brokers_that_do_not_answer_leave_everything_as_it_is() {
        let all = judge(&job("j", "t", Retention::Topic), &Err("no answer".to_owned()));
        assert_eq!((all.len(), all[0].days.clone()), (1, Err("no answer".to_owned())));
    }
}
