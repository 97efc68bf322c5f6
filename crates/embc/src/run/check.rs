//! Whether data and an experiment go together, before anything is built.

use crate::config::Experiment;
use anyhow::{Result, bail};
use embc_core::batch::{Data, Protocol, Split};
use embc_core::layer::Unknown;
use embc_core::metric::Metric;
use embc_core::task::Task;
use embc_data::view::{Candidates, View, VocabRule};

/// What trials learn; an error names the key that does not fit.
pub fn check(e: &Experiment, data: &View) -> Result<Task> {
    if data.needs_negatives() {
        return Err(e.error("dataset", format!(
            "every row of {} is a positive: set [data] negatives = 4, or label = {{ positive_min = 4 }} where there are ratings",
            e.dataset
        )));
    }
    let task = Task::of(data.label_kind(), e.examples()?);
    for (key, metric) in e.named_metrics() {
        if let Some(why) = task.refuses(metric) {
            bail!(e.error(key, why));
        }
        if metric.is_ranking() && task != Task::Ranking {
            data.ranks_items().map_err(|why| e.error(key, format!("{metric}: {why}")))?;
        }
        if metric == Metric::Gauc && data.user_column().is_none() {
            bail!(e.error(
                key,
                "gauc is AUC by user, and no column is called user: name it with [data] user = …"
            ));
        }
    }
    let ranked = e.metrics().iter().any(|metric| metric.is_ranking());
    let of_rankings = [
        ("data.candidates", e.data.candidates != Candidates::default()),
        ("data.valid_queries", e.data.valid_queries.is_some()),
    ];
    if let Some((key, _)) = of_rankings.iter().find(|(_, given)| *given && !ranked) {
        let name = key.trim_start_matches("data.");
        bail!(e.error(key, format!("[data] {name} is read by ranking metrics, and none is asked for; remove it, or add one such as metrics = [\"hr@10\"]")));
    }
    let metric = e.train.select;
    let protocol = match metric.is_ranking() {
        true => Protocol::Ranking,
        false => Protocol::Pointwise,
    };
    if !data.has(Split::Valid, protocol) {
        bail!(e.error("train.select", format!(
            "select = \"{metric}\" needs validation rows{}, which the split of {} does not give",
            if metric.is_ranking() { " with an item to find" } else { "" },
            e.dataset
        )));
    }
    if e.embedding.unknown == Unknown::Trained
        && (data.resolved().vocab == VocabRule::All || task == Task::Ranking)
    {
        bail!(e.error("embedding.unknown", "unknown = \"trained\" trains the unknown id, which vocab = \"all\" and models of histories do not have"));
    }
    Ok(task)
}
