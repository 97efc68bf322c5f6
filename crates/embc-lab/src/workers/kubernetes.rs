//! Kubernetes: an Indexed Job on a volume that many nodes mount.
//!
//! An eviction is no failure. What ends with exit code 2, a wrong config, would end so again and again:
//! its index fails at once, as does one whose trials failed, since these are recorded.

use super::{Job, Starter};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

pub(super) struct Kubernetes;

/// What may be said after `--`.
const KEYS: [&str; 5] = ["image", "claim", "mount", "cpu", "memory"];

impl Starter for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }
    fn doc(&self) -> &'static str {
        "prints an Indexed Job for `kubectl apply -f -`; after -- come image=IMAGE and claim=NAME, the volume claim with this folder, and if need be mount=PATH (this folder), cpu=N, memory=SIZE"
    }

    fn text(&self, job: &Job) -> Result<String> {
        let value = |key: &str| {
            let all = job.extra.iter().filter_map(|word| word.split_once('='));
            all.filter(|(of, _)| *of == key).map(|(_, value)| value).next_back()
        };
        for word in &job.extra {
            let known = word.split_once('=').is_some_and(|(key, _)| KEYS.contains(&key));
            if !known {
                bail!(
                    "{word}: --on kubernetes takes {} after --, each as KEY=VALUE",
                    KEYS.join(", ")
                );
            }
        }
        let needed = |key: &str| {
            value(key).with_context(|| {
                format!("--on kubernetes: name the {key} after --, such as `-- image=registry/embc:1 claim=shared`")
            })
        };
        let resources: Value =
            ["cpu", "memory"].iter().filter_map(|key| Some((*key, value(key)?))).collect();
        let folder = job.folder()?;
        let mount = value("mount").unwrap_or(folder);
        if !job.folder.starts_with(mount) {
            bail!("mount={mount}: this folder, {folder}, must lie in it");
        }
        // The image's own program, where the folder is mounted.
        let command: Vec<&str> =
            ["embc"].into_iter().chain(job.line[1..].iter().map(|word| &word[..])).collect();
        let container = json!({
            "name": "embc",
            "image": needed("image")?,
            "command": command,
            "workingDir": folder,
            "resources": { "requests": resources, "limits": resources },
            "volumeMounts": [{ "name": "shared", "mountPath": mount }],
        });
        let volume =
            json!({ "name": "shared", "persistentVolumeClaim": { "claimName": needed("claim")? } });
        let job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": { "name": job.plain_name(), "labels": { "app": "embc" } },
            "spec": {
                "completionMode": "Indexed",
                "completions": job.workers,
                "parallelism": job.workers,
                "backoffLimitPerIndex": 3,
                "maxFailedIndexes": job.workers,
                "podFailurePolicy": { "rules": [
                    { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
                    { "action": "FailIndex", "onExitCodes": { "containerName": "embc", "operator": "In", "values": [1, 2] } },
                ] },
                "template": {
                    "metadata": { "labels": { "app": "embc" } },
                    "spec": {
                        "restartPolicy": "Never",
                        // For a checkpoint.
                        "terminationGracePeriodSeconds": 180,
                        "containers": [container],
                        "volumes": [volume],
                    },
                },
            },
        });
        // YAML, as all JSON is.
        Ok(serde_json::to_string_pretty(&job)? + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::tests::job;

    #[test]
    fn an_indexed_job() {
        let text = Kubernetes.text(&job(&["image=embc:1", "claim=disk", "cpu=4"])).unwrap();
        let yaml: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(yaml["spec"]["completions"], 8);
        let pod = &yaml["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["command"][2], "--config");
        assert_eq!(pod["containers"][0]["resources"]["limits"], json!({ "cpu": "4" }));
        for (extra, why) in [
            (&["claim=x"][..], "name the image"),
            (&["imgae=x"], "takes image"),
            (&["image=x", "claim=y", "mount=/other"], "must lie in it"),
        ] {
            assert!(Kubernetes.text(&job(extra)).unwrap_err().to_string().contains(why));
        }
    }
}
