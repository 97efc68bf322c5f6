//! Whether data and an experiment go together, before anything is built.

use super::Bench;
use crate::blueprint;
use crate::config::Experiment;
use crate::order::Order;
use crate::plan;
use anyhow::{Result, bail};
use embc_core::batch::{Data, Examples, Protocol, Split};
use embc_core::layer::Unknown;
use embc_core::metric::Metric;
use embc_core::model;
use embc_core::scheme::PlanError;
use embc_core::task::Task;
use embc_data::view::{Candidates, View, VocabRule};

impl Bench<'_> {
    /// Whether an experiment can run here; an error names the key that does not fit.
    pub fn check(&self, e: &Experiment) -> Result<()> {
        check_data(e, self.data)?;
        let kind = model::find(&e.model.kind).expect("checked with the config");
        kind.inputs(self.data.shape()).map_err(|what| e.error("model.kind", what))?;
        let trials = plan::trials(e)?;
        let spec = &trials[0].spec;
        let plan = blueprint::full_plan(self.data.shape(), spec)?;
        let model = blueprint::model(self.data.shape(), spec, &plan.widths(), 0)
            .map_err(|what| wrong_knob(e, "model", &e.model.kind, "model", &what))?;
        let classes = self.data.shape().classes;
        if e.examples()? == Examples::Rows && classes > 2 && model.outputs() == 1 {
            let kind = &e.model.kind;
            let what =
                format!("model {kind} has one output, but {} has {classes} classes", e.dataset);
            bail!(e.error("model.kind", what));
        }
        for trial in &trials {
            if let Err(PlanError::Knob(mut what)) = self.plan(&trial.spec) {
                // What every [[scheme]] takes beside its knobs.
                if what.starts_with("unknown field") {
                    what += ", `dim`, `sharing`, `init`, `label`, `quantize`";
                }
                let at = e.path_of(trial.scheme.label());
                return Err(wrong_knob(e, &at, trial.scheme.label(), "scheme", &what));
            }
        }
        Ok(())
    }

    /// Whether an order is of this data and can run here.
    pub fn check_order(&self, order: &Order) -> Result<()> {
        let (ours, theirs) = (&self.spec, &order.spec.data);
        if ours.content != theirs.content {
            bail!(
                "data set {} has another content here ({}) than the order's ({}): it is another file, or read otherwise",
                order.dataset,
                ours.content,
                theirs.content
            );
        }
        if ours.view != theirs.view {
            bail!(
                "the spec's data.view is not what the registry comes to here: {} instead of {}",
                serde_json::to_string(&ours.view)?,
                serde_json::to_string(&theirs.view)?
            );
        }
        let task = Task::of(self.data.label_kind(), order.examples()?);
        if task != order.spec.task {
            bail!("the spec's task is {:?}, but the data's is {task:?}", order.spec.task);
        }
        if let Some(why) = order.metrics().into_iter().find_map(|metric| task.refuses(metric)) {
            bail!(why);
        }
        match self.plan(&order.spec) {
            Err(PlanError::Knob(what)) => bail!(crate::suggest::key(&what)),
            _ => Ok(()),
        }
    }
}

/// An error about a knob of the table at `path`, at its line if the message quotes it.
fn wrong_knob(e: &Experiment, path: &str, kind: &str, what: &str, message: &str) -> anyhow::Error {
    let key = message.split('`').nth(1).unwrap_or("kind");
    e.error(&format!("{path}.{key}"), format!("{what} {kind}: {}", crate::suggest::key(message)))
}

/// Whether the data has what the experiment asks of it.
fn check_data(e: &Experiment, data: &View) -> Result<()> {
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
    let metric = e.select();
    let protocol = match metric.is_ranking() {
        true => Protocol::Ranking,
        false => Protocol::Rows,
    };
    if !data.has(Split::Valid, protocol) {
        bail!(e.error("train.select", format!(
            "select = \"{metric}\" needs validation rows{}, which the split of {} does not give",
            if metric.is_ranking() { " with an item to find" } else { "" },
            e.dataset
        )));
    }
    if e.embedding.unknown == Unknown::Trained && data.resolved().negatives > 0 {
        bail!(e.error("embedding.unknown", "unknown = \"trained\" and sampled negatives: these are never unknown items, so that an unknown one would give its label away; take \"mean\""));
    }
    if e.embedding.unknown == Unknown::Trained
        && (data.resolved().vocab == VocabRule::All || task == Task::Ranking)
    {
        bail!(e.error("embedding.unknown", "unknown = \"trained\" trains the unknown id, which vocab = \"all\" and models of histories do not have"));
    }
    Ok(())
}
