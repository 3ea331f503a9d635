//! A job that is being put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::Value;

use super::Job;
use super::finding::Origin;
use super::layers::View;

/// A job with the places of its values.
#[derive(Debug)]
pub(super) struct Draft {
    pub job: Arc<Job>,
    pub view: View,
    /// The effective references, which the view does not hold.
    pub references: Vec<(&'static str, Value)>,
    /// Where each literal topic stands.
    pub topic_origins: BTreeMap<String, Origin>,
}

impl Draft {
    /// Where a key was given; the beginning of the file where it was not.
    pub fn origin(&self, key: &str) -> Origin {
        match self.view.origin(key) {
            Origin::Named(_) => Origin::start(&self.job.path),
            file => file,
        }
    }
}
