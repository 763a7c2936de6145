//! The Kubernetes manifests: they build, every Kubernetes in support accepts them, the restricted Pod Security
//! profile holds, and what they say about the prober is what the prober says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use serde_json::{Value, json};
use throughline::cli::{Cli, Command as Verb};
use throughline::config::model::Config;
use throughline::config::{self, SecretMode};
use throughline::exit::Exit;
use throughline::render::kubernetes::prometheus_rule;
use throughline::shard::Shard;

/// Everything that is meant to be built as it stands.
const OVERLAYS: [&str; 3] = ["cronjob", "cronjob-sharded", "daemon"];

/// Each component, and the overlay that it is meant for.
const COMPONENTS: [(&str, &str); 5] = [
    ("pushgateway", "cronjob"),
    ("sharded", "cronjob"),
    ("prometheus-operator/pushgateway", "cronjob"),
    ("prometheus-operator/daemon", "daemon"),
    ("external-secrets", "daemon"),
];

/// The component whose rules are generated.
const RULES: &str = "prometheus-operator/rules";
const RULES_COMPONENT: &str = "# For the Prometheus operator: the alert rules of the shipped example. Generated from alerts/.\n\
                               apiVersion: kustomize.config.k8s.io/v1alpha1\n\
                               kind: Component\n\
                               resources:\n  - prometheusrule.yaml\n";

/// From the first in which exit codes of a pod are a stable part of a Job to the newest that has a schema here.
const KUBERNETES: [&str; 7] = ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"];

/// What the Pod Security standard calls restricted, by the name of its control. Those of the baseline profile that
/// concern what our pods could have at all are in it.
type Control = (&'static str, fn(&Value, &Value) -> bool);
const RESTRICTED: [Control; 13] = [
    ("host namespaces", |pod, _| {
        ["hostNetwork", "hostPID", "hostIPC"]
            .iter()
            .all(|key| pod.get(key).is_none_or(|on| on == false))
    }),
    ("volume types", |pod, _| {
        let volumes = pod["volumes"].as_array().cloned().unwrap_or_default();
        volumes
            .iter()
            .flat_map(|volume| volume.as_object().unwrap().keys())
            .all(|key| {
                [
                    "name",
                    "configMap",
                    "csi",
                    "downwardAPI",
                    "emptyDir",
                    "ephemeral",
                    "persistentVolumeClaim",
                    "projected",
                    "secret",
                ]
                .contains(&key.as_str())
            })
    }),
    ("host ports", |_, container| {
        let ports = container["ports"].as_array().cloned().unwrap_or_default();
        ports.iter().all(|port| port.get("hostPort").is_none())
    }),
    ("privileged containers", |_, container| {
        container
            .pointer("/securityContext/privileged")
            .is_none_or(|on| on == false)
    }),
    ("privilege escalation", |_, container| {
        container.pointer("/securityContext/allowPrivilegeEscalation") == Some(&json!(false))
    }),
    ("running as non-root", |pod, _| {
        pod.pointer("/securityContext/runAsNonRoot") == Some(&json!(true))
    }),
    ("running as non-root user", |pod, container| {
        let users = [pod, container].map(|of| of.pointer("/securityContext/runAsUser").cloned());
        users
            .iter()
            .flatten()
            .all(|user| user.as_u64().is_some_and(|user| user > 0))
    }),
    ("seccomp", |pod, _| {
        pod.pointer("/securityContext/seccompProfile/type") == Some(&json!("RuntimeDefault"))
    }),
    ("capabilities", |_, container| {
        container.pointer("/securityContext/capabilities") == Some(&json!({"drop": ["ALL"]}))
    }),
    // Ours, beyond the profile.
    ("read-only root", |_, container| {
        container.pointer("/securityContext/readOnlyRootFilesystem") == Some(&json!(true))
    }),
    ("no token", |pod, _| pod["automountServiceAccountToken"] == false),
    ("a memory limit and no CPU limit", |_, container| {
        let limits = &container["resources"]["limits"];
        limits.get("memory").is_some() && limits.get("cpu").is_none()
    }),
    ("no secret in a variable", |_, container| {
        let env = container["env"].as_array().cloned().unwrap_or_default();
        container.get("envFrom").is_none()
            && env
                .iter()
                .all(|one| one.pointer("/valueFrom/secretKeyRef").is_none())
    }),
];

#[test]
fn every_kubernetes_in_support_accepts_every_overlay() {
    for overlay in OVERLAYS {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("manifests.yaml");
        std::fs::write(&file, build(&root().join("k8s/overlays").join(overlay))).unwrap();
        for version in KUBERNETES {
            let said = validate(&file, version);
            assert!(said.0, "{overlay} on {version}: {}", said.1);
        }
    }
}

#[test]
fn the_validation_sees_a_key_that_kubernetes_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifests.yaml");
    let good = build(&root().join("k8s/overlays/cronjob"));
    let bad = good.replace("concurrencyPolicy: Forbid", "concurrencyPolice: Forbid");
    assert_ne!(good, bad);
    std::fs::write(&file, bad).unwrap();
    let (accepted, said) = validate(&file, KUBERNETES[0]);
    assert!(!accepted && said.contains("concurrencyPolice"), "{said}");
}

#[test]
fn every_component_builds_with_the_overlay_that_it_is_for() {
    for (component, overlay) in COMPONENTS {
        let objects = with(component, overlay);
        let plain = objects_of(&build(&root().join("k8s/overlays").join(overlay)));
        if overlay != "cronjob" || component != "pushgateway" {
            assert_ne!(objects, plain, "{component} adds nothing to {overlay}");
        }
        for object in objects.iter().filter(|object| object["kind"] != "Namespace") {
            assert_eq!(
                object["metadata"]["namespace"], "throughline",
                "{component}: {}",
                object["kind"]
            );
        }
    }
    let mut folders = BTreeSet::new();
    let mut open = vec![root().join("k8s/components")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if entry.file_name() == "kustomization.yaml" {
                let path = entry.path().parent().unwrap().to_path_buf();
                let name = path.strip_prefix(root().join("k8s/components")).unwrap();
                folders.insert(name.to_str().unwrap().to_owned());
            }
        }
    }
    // It has a test of its own.
    folders.remove(RULES);
    let known: BTreeSet<_> = COMPONENTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders, known, "a component that no test builds");
}

#[test]
fn every_pod_keeps_to_the_restricted_profile() {
    let mut pods = 0;
    for overlay in OVERLAYS {
        for (name, pod) in pods_of(overlay) {
            for container in pod["containers"].as_array().unwrap() {
                pods += 1;
                for (control, holds) in RESTRICTED {
                    assert!(holds(&pod, container), "{overlay}: {name}: {control}");
                }
            }
        }
        let namespace = find(overlay, "Namespace", "throughline");
        let enforced = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
        assert_eq!(enforced, "restricted");
        assert_eq!(
            find(overlay, "ServiceAccount", "throughline")["automountServiceAccountToken"],
            false
        );
    }
    assert!(pods >= 5, "only {pods} containers were seen");
}

/// The table would prove nothing if a pod that breaks a rule passed it.
#[test]
fn each_rule_of_the_profile_is_broken_by_what_breaks_it() {
    let (_, pod) = pods_of("daemon").remove(0);
    let container = pod["containers"][0].clone();
    let breaks: [(&str, &str, Value); 13] = [
        ("host namespaces", "pod/hostNetwork", json!(true)),
        (
            "volume types",
            "pod/volumes",
            json!([{"name": "x", "hostPath": {"path": "/"}}]),
        ),
        (
            "host ports",
            "container/ports",
            json!([{"containerPort": 1, "hostPort": 1}]),
        ),
        (
            "privileged containers",
            "container/securityContext/privileged",
            json!(true),
        ),
        (
            "privilege escalation",
            "container/securityContext/allowPrivilegeEscalation",
            json!(true),
        ),
        (
            "running as non-root",
            "pod/securityContext/runAsNonRoot",
            json!(false),
        ),
        (
            "running as non-root user",
            "container/securityContext/runAsUser",
            json!(0),
        ),
        (
            "seccomp",
            "pod/securityContext/seccompProfile/type",
            json!("Unconfined"),
        ),
        (
            "capabilities",
            "container/securityContext/capabilities",
            json!({"drop": []}),
        ),
        (
            "read-only root",
            "container/securityContext/readOnlyRootFilesystem",
            json!(false),
        ),
        ("no token", "pod/automountServiceAccountToken", json!(true)),
        (
            "a memory limit and no CPU limit",
            "container/resources/limits/cpu",
            json!("1"),
        ),
        (
            "no secret in a variable",
            "container/envFrom",
            json!([{"secretRef": {"name": "x"}}]),
        ),
    ];
    let broken: BTreeMap<&str, _> = breaks
        .iter()
        .map(|(name, place, value)| (*name, (place, value)))
        .collect();
    for (control, holds) in RESTRICTED {
        let (place, value) = broken[control];
        let (whose, path) = place.split_once('/').unwrap();
        let (mut pod, mut container) = (pod.clone(), container.clone());
        let object = if whose == "pod" { &mut pod } else { &mut container };
        let mut at = object;
        for key in path.split('/') {
            at = &mut at[key];
        }
        *at = value.clone();
        assert!(
            !holds(&pod, &container),
            "{control} does not see {place} = {value}"
        );
    }
}

#[test]
fn the_prober_takes_the_command_line_and_the_config_of_each_overlay() {
    for overlay in OVERLAYS {
        let config = config_of(overlay);
        let container = prober_of(overlay);
        let args = args(&container, "0");
        let cli = Cli::try_parse_from(std::iter::once("throughline".to_owned()).chain(args)).unwrap();
        match cli.command {
            Verb::Run(run) => {
                assert!(run.all, "{overlay}");
                assert_eq!(run.exit, throughline::cli::run::ExitOf::Prober, "{overlay}");
                let told = run.termination_log.unwrap();
                assert_eq!(
                    told.to_str(),
                    container["terminationMessagePath"].as_str(),
                    "{overlay}"
                );
                assert!(
                    config.export.pushgateway_url.is_some(),
                    "{overlay}: nobody would hear of the runs"
                );
            }
            Verb::Serve(_) => {
                assert!(
                    config.probes.iter().all(|probe| probe.schedule.is_some()),
                    "{overlay}"
                );
            }
            other => panic!("{overlay}: {other:?}"),
        }
    }
}

#[test]
fn the_variables_are_those_that_the_prober_reads() {
    let mut cli = Cli::command();
    cli.build();
    let read: BTreeSet<String> = cli
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned))
        // The variable of Indexed Jobs is put into the command line by Kubernetes.
        .chain(["JOB_COMPLETION_INDEX".to_owned()])
        .collect();
    for overlay in OVERLAYS {
        let container = prober_of(overlay);
        let env = container["env"].as_array().unwrap();
        for variable in env {
            let name = variable["name"].as_str().unwrap();
            assert!(read.contains(name), "{overlay}: the prober does not read {name}");
        }
        let config = env
            .iter()
            .find(|variable| variable["name"] == "THROUGHLINE_CONFIG")
            .unwrap();
        let (mount, file) = config["value"].as_str().unwrap().rsplit_once('/').unwrap();
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(
            mounts
                .iter()
                .any(|one| one["mountPath"] == mount && one["name"] == "config"),
            "{overlay}"
        );
        assert!(
            config_map(overlay)["data"].get(file).is_some(),
            "{overlay}: no {file}"
        );
    }
}

#[test]
fn the_exit_codes_of_the_job_are_those_that_speak_of_the_prober() {
    // With --exit=prober a told verdict is 0; what else a run can end with, signals aside.
    let mut codes = [
        Exit::Usage,
        Exit::Error,
        Exit::Inconclusive,
        Exit::GuardRefused,
        Exit::Leftovers,
    ]
    .map(Exit::code);
    codes.sort_unstable();
    for (overlay, action) in [("cronjob", "FailJob"), ("cronjob-sharded", "FailIndex")] {
        let job = find(overlay, "CronJob", "throughline")["spec"]["jobTemplate"]["spec"].clone();
        let rules = job["podFailurePolicy"]["rules"].as_array().unwrap();
        assert_eq!(
            rules[0]["action"], "Ignore",
            "{overlay}: a drained node is nobody's fault"
        );
        assert_eq!(
            rules[0]["onPodConditions"],
            json!([{"type": "DisruptionTarget", "status": "True"}])
        );
        assert_eq!(rules[1]["action"], action, "{overlay}");
        assert_eq!(rules[1]["onExitCodes"]["values"], json!(codes), "{overlay}");
        assert_eq!(rules[1]["onExitCodes"]["containerName"], "throughline");
        // The API server takes exit codes of such pods only.
        assert_eq!(job["template"]["spec"]["restartPolicy"], "Never");
        // And a limit for each index only where the job as a whole has none that would come first.
        assert_eq!(
            job.get("backoffLimit").is_some(),
            action == "FailJob",
            "{overlay}"
        );
        assert_eq!(
            job.get("backoffLimitPerIndex").is_some(),
            action == "FailIndex",
            "{overlay}"
        );
    }
}

#[test]
fn a_job_may_take_longer_than_its_runs_and_ends_before_the_next_one() {
    for overlay in ["cronjob", "cronjob-sharded"] {
        let cron = find(overlay, "CronJob", "throughline");
        assert_eq!(cron["spec"]["concurrencyPolicy"], "Forbid");
        assert_eq!(cron["spec"]["schedule"], "*/5 * * * *");
        assert!(
            cron["metadata"]["name"].as_str().unwrap().len() <= 52,
            "jobs' names get a suffix"
        );
        let job = &cron["spec"]["jobTemplate"]["spec"];
        let limit = Duration::from_secs(job["activeDeadlineSeconds"].as_u64().unwrap());
        let config = config_of(overlay);
        let count = usize::try_from(job["completions"].as_u64().unwrap_or(1)).unwrap();
        for index in 0..count {
            let shard: Shard = format!("{index}/{count}").parse().unwrap();
            let runs: Duration = shard.of(&config.probes).iter().map(|probe| probe.deadline).sum();
            // The image has to be pulled, too.
            assert!(
                runs + Duration::from_secs(60) <= limit,
                "{overlay}: part {index} may take {runs:?}"
            );
        }
        assert!(limit < Duration::from_secs(300), "{overlay}: two jobs at once");
        for key in [
            "successfulJobsHistoryLimit",
            "failedJobsHistoryLimit",
            "startingDeadlineSeconds",
        ] {
            assert!(cron["spec"][key].is_u64(), "{overlay}: {key}");
        }
    }
}

#[test]
fn the_parts_of_an_indexed_job_are_a_whole() {
    let cron = find("cronjob-sharded", "CronJob", "throughline");
    let job = &cron["spec"]["jobTemplate"]["spec"];
    assert_eq!(job["completionMode"], "Indexed");
    assert_eq!(job["completions"], job["parallelism"]);
    let container = &job["template"]["spec"]["containers"][0];
    let index = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "JOB_COMPLETION_INDEX");
    assert!(
        index.is_some(),
        "an argument can only use a variable of the container"
    );
    let probes = config_of("cronjob-sharded").probes;
    let count = job["completions"].as_u64().unwrap();
    let mut run = Vec::new();
    for index in 0..count {
        let args = args(container, &index.to_string());
        let cli = Cli::try_parse_from(std::iter::once("throughline".to_owned()).chain(args)).unwrap();
        let Verb::Run(flags) = cli.command else {
            panic!("it does not run")
        };
        let part = flags.shard.unwrap().of(&probes);
        assert!(!part.is_empty(), "part {index} has nothing to do");
        run.extend(part.iter().map(|probe| probe.name.clone()));
    }
    run.sort();
    let mut all: Vec<_> = probes.iter().map(|probe| probe.name.clone()).collect();
    all.sort();
    assert_eq!(run, all);
}

#[test]
fn the_daemon_s_port_and_paths_are_the_prober_s() {
    let config = config_of("daemon");
    let container = prober_of("daemon");
    let port = &container["ports"][0];
    assert_eq!(port["containerPort"], config.serve.listen.port());
    assert!(
        config.serve.listen.ip().is_unspecified(),
        "nobody outside of the pod could read it"
    );
    let pages = std::fs::read_to_string(root().join("src/serve/http.rs")).unwrap();
    for (probe, path) in [
        ("startupProbe", "/healthz"),
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(
            container[probe]["httpGet"],
            json!({"path": path, "port": port["name"]}),
            "{probe}"
        );
        assert!(pages.contains(&format!("\"{path}\" =>")), "there is no {path}");
    }
    let monitors = with("prometheus-operator/daemon", "daemon");
    let monitor = monitors
        .iter()
        .find(|object| object["kind"] == "PodMonitor")
        .unwrap();
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!(
        (endpoint["port"].as_str(), endpoint["path"].as_str()),
        (port["name"].as_str(), Some("/metrics"))
    );
    assert!(pages.contains("\"/metrics\""));
    let labels = &find("daemon", "Deployment", "throughline")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&monitor["spec"]["selector"]["matchLabels"], labels);
    let stop = find("daemon", "Deployment", "throughline")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        .as_u64()
        .unwrap();
    assert!(
        Duration::from_secs(stop) >= config.serve.grace + Duration::from_secs(10),
        "runs would be killed"
    );
}

#[test]
fn the_pushgateway_is_where_the_config_says_and_its_labels_are_honoured() {
    for overlay in ["cronjob", "cronjob-sharded"] {
        let service = find(overlay, "Service", "throughline-pushgateway");
        let url = config_of(overlay).export.pushgateway_url.unwrap();
        assert_eq!(
            url,
            format!(
                "http://throughline-pushgateway:{}",
                service["spec"]["ports"][0]["port"]
            )
        );
    }
    let objects = with("prometheus-operator/pushgateway", "cronjob");
    let monitor = objects
        .iter()
        .find(|object| object["kind"] == "ServiceMonitor")
        .unwrap();
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!(endpoint["honorLabels"], true);
    let service = find("cronjob", "Service", "throughline-pushgateway");
    assert_eq!(endpoint["port"], service["spec"]["ports"][0]["name"]);
    assert_eq!(
        monitor["spec"]["selector"]["matchLabels"],
        service["metadata"]["labels"]
    );
}

/// The rules are generated into `alerts/`; here they are the same in the operator's form.
#[test]
fn the_operator_s_rules_are_the_generated_ones() {
    let Ok(rules) = std::fs::read_to_string(root().join("alerts/throughline.rules.yaml")) else {
        assert!(
            !root().join("k8s/components").join(RULES).exists(),
            "rules without their source"
        );
        return;
    };
    let folder = root().join("k8s/components").join(RULES);
    let file = folder.join("prometheusrule.yaml");
    let text = prometheus_rule(&rules);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&file, &text).unwrap();
        std::fs::write(folder.join("kustomization.yaml"), RULES_COMPONENT).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == text,
        "{} is stale: UPDATE_EXPECT=1 cargo test --test manifests",
        file.display()
    );
    let objects = with(RULES, "daemon");
    let object = objects
        .iter()
        .find(|object| object["kind"] == "PrometheusRule")
        .unwrap();
    let source: Value = serde_saphyr::from_str(&rules).unwrap();
    assert_eq!(object["spec"]["groups"], source["groups"]);
}

#[test]
fn rules_are_moved_and_not_changed() {
    let rules = "groups:\n- name: one\n  rules:\n  - alert: A\n    expr: |\n      vector(1)\n\n      == 1\n";
    let object: Value = serde_saphyr::from_str(&prometheus_rule(rules)).unwrap();
    let source: Value = serde_saphyr::from_str(rules).unwrap();
    assert_eq!(object["spec"], source);
    assert_eq!(object["kind"], "PrometheusRule");
}

/// Custom resources have no schema here: these are the keys that we use, and no others.
#[test]
fn custom_resources_have_the_keys_that_their_operators_know() {
    let known: [(&str, &str, &str, &[&str]); 3] = [
        (
            "prometheus-operator/daemon",
            "daemon",
            "PodMonitor",
            &["podMetricsEndpoints", "selector"],
        ),
        (
            "prometheus-operator/pushgateway",
            "cronjob",
            "ServiceMonitor",
            &["endpoints", "selector"],
        ),
        (
            "external-secrets",
            "daemon",
            "ExternalSecret",
            &["data", "refreshInterval", "secretStoreRef", "target"],
        ),
    ];
    for (component, overlay, kind, keys) in known {
        let objects = with(component, overlay);
        let object = objects.iter().find(|object| object["kind"] == kind).unwrap();
        let mut found: Vec<_> = object["spec"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        found.sort_unstable();
        assert_eq!(found, keys, "{kind}");
    }
}

#[test]
fn every_secret_of_a_config_is_a_file_of_the_secret_that_is_mounted() {
    let external = with("external-secrets", "daemon");
    let external = external
        .iter()
        .find(|object| object["kind"] == "ExternalSecret")
        .unwrap();
    let fetched: BTreeSet<&str> = external["spec"]["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["secretKey"].as_str().unwrap())
        .collect();
    for overlay in OVERLAYS {
        let text = config_map(overlay)["data"]["throughline.yaml"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(!text.contains("{env:"), "{overlay}: a secret in a variable");
        let container = prober_of(overlay);
        let mounts = container["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|one| one["name"] == "secrets").unwrap();
        let folder = format!("{}/", mount["mountPath"].as_str().unwrap());
        let files = text
            .split("{file: ")
            .skip(1)
            .map(|rest| rest.split('}').next().unwrap());
        for file in files {
            let key = file
                .strip_prefix(&folder)
                .unwrap_or_else(|| panic!("{overlay}: {file} is not mounted"));
            let known = fetched.contains(key) || overlay == "cronjob-sharded";
            assert!(
                known,
                "{overlay}: the component external-secrets does not fetch {key}"
            );
        }
        let (_, pod) = pods_of(overlay)
            .into_iter()
            .find(|(name, _)| name == "throughline")
            .unwrap();
        let volumes = pod["volumes"].as_array().unwrap();
        let secret = volumes.iter().find(|volume| volume["name"] == "secrets").unwrap();
        assert_eq!(secret["secret"]["secretName"], external["spec"]["target"]["name"]);
        assert_eq!(secret["secret"]["defaultMode"], 0o440, "{overlay}");
    }
}

#[test]
fn a_pod_may_talk_to_what_its_config_names_and_to_nobody_within_the_cluster_besides() {
    for overlay in OVERLAYS {
        let policy = find(overlay, "NetworkPolicy", "throughline");
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["spec"]["ingress"], json!([]), "{overlay}");
        let egress = policy["spec"]["egress"].as_array().unwrap();
        let open: Vec<_> = egress
            .iter()
            .filter(|rule| rule.get("to").is_none() || rule.get("ports").is_none())
            .collect();
        assert!(open.is_empty(), "{overlay}: {open:?}");
        let ports: BTreeSet<u64> = egress
            .iter()
            .flat_map(|rule| rule["ports"].as_array().unwrap())
            .map(|port| port["port"].as_u64().unwrap())
            .collect();
        for target in config_of(overlay).targets.values() {
            let urls = [
                target.temporal.as_ref().map(|temporal| temporal.address.clone()),
                target.worker_url.clone(),
                target.supabase.as_ref().map(|supabase| supabase.url.clone()),
            ];
            for url in urls.into_iter().flatten() {
                let port = url
                    .rsplit_once(':')
                    .and_then(|(_, port)| port.parse().ok())
                    .unwrap_or(443);
                assert!(ports.contains(&port), "{overlay}: no way to {url}");
            }
        }
    }
}

/// The overlay with one more component, built where nobody else looks.
fn with(component: &str, overlay: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    copy(&root().join("k8s"), &folder.path().join("k8s"));
    let file = folder
        .path()
        .join("k8s/overlays")
        .join(overlay)
        .join("kustomization.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let line = format!("  - ../../components/{component}\n");
    let text = if text.contains(&format!("\n{line}")) {
        text
    } else if text.contains("\ncomponents:\n") {
        text.replace("\ncomponents:\n", &format!("\ncomponents:\n{line}"))
    } else {
        text + "components:\n" + &line
    };
    std::fs::write(&file, text).unwrap();
    objects_of(&build(file.parent().unwrap()))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn build(folder: &Path) -> String {
    let program = std::env::var("KUSTOMIZE_BIN").unwrap_or_else(|_| "kustomize".into());
    let output = Command::new(&program)
        .arg("build")
        .arg(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "cannot run `{program}` ({error}): `cargo xtask setup --all` builds it, or set KUSTOMIZE_BIN"
            )
        });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{}: {said}",
        folder.display()
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Whether that Kubernetes takes the file, and what the validator says.
fn validate(file: &Path, version: &str) -> (bool, String) {
    let program = std::env::var("KUBERNETES_VALIDATE").unwrap_or_else(|_| "kubernetes-validate".into());
    let output = Command::new(&program)
        .args(["--strict", "--quiet", "-k", version])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("cannot run `{program}` ({error}): `cargo xtask setup --all` installs it, or set KUBERNETES_VALIDATE")
        });
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.success(), said.concat())
}

fn objects_of(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

fn find(overlay: &str, kind: &str, name: &str) -> Value {
    let objects = objects_of(&build(&root().join("k8s/overlays").join(overlay)));
    let found = objects
        .into_iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("{overlay} has no {kind} {name}"))
}

/// The pods that an overlay brings about, by the name of what makes them.
fn pods_of(overlay: &str) -> Vec<(String, Value)> {
    objects_of(&build(&root().join("k8s/overlays").join(overlay)))
        .into_iter()
        .filter_map(|object| {
            let place = match object["kind"].as_str()? {
                "CronJob" => "/spec/jobTemplate/spec/template/spec",
                "Deployment" => "/spec/template/spec",
                _ => return None,
            };
            let name = object["metadata"]["name"].as_str()?.to_owned();
            Some((name, object.pointer(place)?.clone()))
        })
        .collect()
}

fn prober_of(overlay: &str) -> Value {
    let (_, pod) = pods_of(overlay)
        .into_iter()
        .find(|(name, _)| name == "throughline")
        .unwrap();
    pod["containers"][0].clone()
}

/// The command line as Kubernetes makes it in the pod of that index.
fn args(container: &Value, index: &str) -> Vec<String> {
    let args = container["args"].as_array().unwrap().iter();
    args.map(|one| one.as_str().unwrap().replace("$(JOB_COMPLETION_INDEX)", index))
        .collect()
}

fn config_map(overlay: &str) -> Value {
    let objects = objects_of(&build(&root().join("k8s/overlays").join(overlay)));
    let map = objects
        .into_iter()
        .find(|object| object["kind"] == "ConfigMap")
        .unwrap();
    let (_, pod) = pods_of(overlay)
        .into_iter()
        .find(|(name, _)| name == "throughline")
        .unwrap();
    let volumes = pod["volumes"].as_array().unwrap();
    let mounted = volumes.iter().find(|volume| volume["name"] == "config").unwrap();
    // A changed config gets a new name, so that pods take it.
    assert_eq!(mounted["configMap"]["name"], map["metadata"]["name"], "{overlay}");
    map
}

fn config_of(overlay: &str) -> Config {
    let map = config_map(overlay);
    let text = map["data"]["throughline.yaml"].as_str().unwrap();
    let path = root().join("k8s/overlays").join(overlay).join("throughline.yaml");
    match config::load_text(&path, text, &|_| None, SecretMode::Placeholder) {
        Ok(loaded) => loaded.config,
        Err(errors) => panic!("{errors}"),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}
