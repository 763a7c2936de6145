//! The worker against a real Temporal server: what it does with a row, in which order, and what it undoes.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod worker_support;

use std::collections::HashMap;

use serde_json::{Value, json};
use temporalio_client::{UntypedWorkflow, WorkflowListOptions, WorkflowStartOptions};
use temporalio_common::data_converters::RawValue;
use temporalio_common::protos::temporal::api::common::v1::{Header, Payload};
use throughline_sandbox::worker::contract::{BootstrapResult, workflow_id};
use throughline_sandbox::worker::providers::ProviderKind;
use uuid::Uuid;

use worker_support::{
    Gateway, activities_of, beside_worker, options, result_of, set_faults, temporal_client, until_ready_is,
};

const FORWARD: [&str; 6] = [
    "createOrganization",
    "configureDNS",
    "verifyDNS",
    "generateInvitations",
    "sendInvitationEmails",
    "activateOrganization",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_row_becomes_an_active_organization() {
    let (gateway, client, organization) = (Gateway::start().await, temporal_client().await, Uuid::new_v4());
    let row = gateway.initiate(organization, bootstrap("tl-happy"), metadata());
    beside_worker(options(&gateway), async {
        gateway.until_event("organization.bootstrap.completed").await;
        let expected = BootstrapResult {
            org_id: organization,
            domain: "tl-happy.sandbox.test".to_owned(),
            dns_configured: true,
            invitations_sent: 2,
            errors: vec![],
        };
        assert_eq!(result_of(&client, organization).await, expected);
    })
    .await;

    let activities = activities_of(&client, organization).await;
    assert_eq!(activities, FORWARD.map(|name| (name.to_owned(), 1)));
    assert_eq!(
        gateway.bootstrap_events(),
        [
            "organization.created",
            "organization.dns.configured",
            "organization.dns.verified",
            "user.invited",
            "user.invited",
            "invitation.email.sent",
            "invitation.email.sent",
            "organization.activated",
            "organization.bootstrap.completed",
        ]
    );
    assert_eq!(gateway.row(row)["status"], "completed");
    assert_eq!(gateway.row(row)["workflow_id"], json!(workflow_id(organization)));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_carries_the_trace_of_the_request_and_every_activity_its_run() {
    let (gateway, organization) = (Gateway::start().await, Uuid::new_v4());
    temporal_client().await;
    gateway.initiate(organization, bootstrap("tl-trace"), metadata());
    beside_worker(
        options(&gateway),
        gateway.until_event("organization.bootstrap.completed"),
    )
    .await;

    for event in gateway.events() {
        if event.event_type == "organization.bootstrap.workflow_started" {
            continue; // its metadata is the database function's
        }
        for key in ["correlation_id", "traceparent", "tags", "source"] {
            assert_eq!(
                event.metadata[key],
                metadata()[key],
                "{} in {}",
                key,
                event.event_type
            );
        }
        if gateway.bootstrap_events().contains(&event.event_type) {
            assert_eq!(event.metadata["workflow_id"], json!(workflow_id(organization)));
            assert_eq!(event.metadata["workflow_type"], "organizationBootstrapWorkflow");
            assert!(
                event.metadata["workflow_run_id"].is_string() && event.metadata["activity_id"].is_string()
            );
            assert!(event.metadata["timestamp"].is_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_kind_of_event_can_be_made_to_lose_its_correlation_id() {
    let (gateway, organization) = (Gateway::start().await, Uuid::new_v4());
    temporal_client().await;
    let options = options(&gateway);
    let health = options.health_listen;
    beside_worker(options, async {
        gateway.until_subscribed(1).await;
        set_faults(health, json!({"drop_correlation": "organization.dns.configured"})).await;
        gateway.initiate(organization, bootstrap("tl-lose"), metadata());
        gateway.until_event("organization.bootstrap.completed").await;
    })
    .await;
    let started = "organization.bootstrap.workflow_started"; // its metadata is the database function's
    let events = gateway
        .events()
        .into_iter()
        .filter(|event| event.event_type != started);
    let lost: Vec<_> = events
        .filter(|event| event.metadata["correlation_id"].is_null())
        .map(|event| event.event_type)
        .collect();
    assert_eq!(lost, ["organization.dns.configured"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_token_has_256_bits_and_is_not_in_the_workflow_history() {
    let (gateway, organization) = (Gateway::start().await, Uuid::new_v4());
    let client = temporal_client().await;
    gateway.initiate(organization, bootstrap("tl-token"), metadata());
    beside_worker(
        options(&gateway),
        gateway.until_event("organization.bootstrap.completed"),
    )
    .await;

    use futures_util::TryStreamExt as _;
    let handle = client.get_workflow_handle::<UntypedWorkflow>(workflow_id(organization));
    let history: Vec<_> = handle
        .fetch_history(Default::default())
        .try_collect()
        .await
        .unwrap();
    let history = format!("{history:?}");
    let invited = gateway
        .events()
        .into_iter()
        .filter(|event| event.event_type == "user.invited");
    for event in invited {
        let token = event.data["token"].as_str().unwrap();
        assert_eq!(token.len(), 43, "32 bytes in base64 without padding");
        assert!(!history.contains(token));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_dns_is_retried_then_undone_and_the_workflow_still_completes() {
    let (gateway, client, organization) = (Gateway::start().await, temporal_client().await, Uuid::new_v4());
    let options = options(&gateway);
    let health = options.health_listen;
    let result = beside_worker(options, async {
        gateway.until_subscribed(1).await;
        set_faults(health, json!({"dns_fails": true})).await;
        gateway.initiate(organization, bootstrap("tl-dns"), metadata());
        gateway.until_event("organization.bootstrap.failed").await;
        result_of(&client, organization).await
    })
    .await;

    assert_eq!(
        result.errors,
        [
            "configureDNS: ProviderRefused: the DNS provider answered 403: the zone does not accept a record for \
          tl-dns.sandbox.test"
        ]
    );
    assert!(!result.dns_configured);
    assert_eq!(
        activities_of(&client, organization).await,
        [
            ("createOrganization", 1),
            ("configureDNS", 3),
            ("removeDNS", 1),
            ("deactivateOrganization", 1)
        ]
        .map(|(name, attempt)| (name.to_owned(), attempt))
    );
    assert_eq!(
        gateway.bootstrap_events(),
        [
            "organization.created",
            "organization.deactivated",
            "organization.bootstrap.failed"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_input_may_shorten_the_dns_retries() {
    let (gateway, client, organization) = (Gateway::start().await, temporal_client().await, Uuid::new_v4());
    let options = options(&gateway);
    let health = options.health_listen;
    beside_worker(options, async {
        gateway.until_subscribed(1).await;
        set_faults(health, json!({"dns_unresolvable": true})).await;
        let mut data = bootstrap("tl-retry");
        data["retryConfig"] = json!({"maximumAttempts": 2, "initialIntervalMs": 20});
        gateway.initiate(organization, data, metadata());
        gateway.until_event("organization.bootstrap.failed").await;
        result_of(&client, organization).await
    })
    .await;
    let activities = activities_of(&client, organization).await;
    assert_eq!(activities[2], ("verifyDNS".to_owned(), 2));
    assert_eq!(
        gateway.bootstrap_events(),
        [
            "organization.created",
            "organization.dns.configured",
            "organization.dns.removed",
            "organization.deactivated",
            "organization.bootstrap.failed",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_the_end_undoes_everything_last_first() {
    let (gateway, client, organization) = (Gateway::start().await, temporal_client().await, Uuid::new_v4());
    gateway.refuse("organization.activated");
    gateway.initiate(organization, bootstrap("tl-end"), metadata());
    let result = beside_worker(options(&gateway), async {
        gateway.until_event("organization.bootstrap.failed").await;
        result_of(&client, organization).await
    })
    .await;

    assert_eq!(result.errors.len(), 1, "{:?}", result.errors);
    assert!(
        result.errors[0].starts_with("activateOrganization: EventStoreRefused:"),
        "{:?}",
        result.errors
    );
    assert!(result.errors[0].contains("42501"), "{:?}", result.errors);
    assert!(!result.dns_configured);
    let activities: Vec<_> = activities_of(&client, organization)
        .await
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        activities[6..],
        ["revokeInvitations", "removeDNS", "deactivateOrganization"]
    );
    assert_eq!(
        gateway.bootstrap_events()[7..],
        [
            "invitation.revoked",
            "invitation.revoked",
            "organization.dns.removed",
            "organization.deactivated",
            "organization.bootstrap.failed",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compensation_that_fails_is_reported_and_does_not_stop_the_next() {
    let (gateway, client, organization) = (Gateway::start().await, temporal_client().await, Uuid::new_v4());
    let options = options(&gateway);
    let health = options.health_listen;
    let result = beside_worker(options, async {
        gateway.until_subscribed(1).await;
        set_faults(health, json!({"compensation_fails": true})).await;
        gateway.initiate(organization, bootstrap("tl-half"), metadata());
        gateway.until_event("organization.bootstrap.failed").await;
        result_of(&client, organization).await
    })
    .await;
    assert!(
        result.errors[0].starts_with("verifyDNS: DnsNotVisible:"),
        "{:?}",
        result.errors
    );
    assert!(
        result.errors[1].starts_with("removeDNS: ProviderRefused:"),
        "{:?}",
        result.errors
    );
    assert_eq!(gateway.count("organization.dns.removed"), 0);
    assert_eq!(gateway.count("organization.deactivated"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_message_lands_in_the_errors_and_the_organization_goes_live() {
    let (gateway, client, organization) = (Gateway::start().await, temporal_client().await, Uuid::new_v4());
    let mut data = bootstrap("tl-mail");
    data["users"][0]["email"] = json!("no-at-sign");
    gateway.initiate(organization, data, metadata());
    let result = beside_worker(options(&gateway), async {
        gateway.until_event("organization.bootstrap.completed").await;
        result_of(&client, organization).await
    })
    .await;
    assert_eq!(result.invitations_sent, 1);
    assert_eq!(result.errors.len(), 1, "{:?}", result.errors);
    assert!(
        result.errors[0].contains("the e-mail provider answered 422"),
        "{:?}",
        result.errors
    );
    assert!(
        !result.errors[0].contains("no-at-sign"),
        "an address is a personal datum: {:?}",
        result.errors
    );
    assert_eq!(gateway.count("organization.activated"), 1);
    assert_eq!(gateway.count("invitation.email.sent"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unverified_mail_domain_refuses_every_message() {
    let (gateway, client, organization) = (Gateway::start().await, temporal_client().await, Uuid::new_v4());
    let options = options(&gateway);
    let health = options.health_listen;
    let result = beside_worker(options, async {
        gateway.until_subscribed(1).await;
        set_faults(health, json!({"email_403": true})).await;
        gateway.initiate(organization, bootstrap("tl-403"), metadata());
        gateway.until_event("organization.bootstrap.completed").await;
        result_of(&client, organization).await
    })
    .await;
    assert_eq!(result.invitations_sent, 0);
    assert_eq!(result.errors.len(), 2);
    assert!(
        result
            .errors
            .iter()
            .all(|error| error.ends_with("403: domain is not verified")),
        "{:?}",
        result.errors
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_on_the_way_doubles_no_event() {
    let (gateway, client, organization) = (Gateway::start().await, temporal_client().await, Uuid::new_v4());
    let lost = [
        "workflow.queue.claimed",
        "organization.bootstrap.workflow_started",
        "workflow.queue.completed",
        "organization.created",
        "user.invited",
        "invitation.email.sent",
        "organization.activated",
    ];
    for event_type in lost {
        gateway.lose_answer_of(event_type);
    }
    gateway.initiate(organization, bootstrap("tl-lost"), metadata());
    let result = beside_worker(options(&gateway), async {
        gateway.until_event("organization.bootstrap.completed").await;
        result_of(&client, organization).await
    })
    .await;
    assert_eq!((result.invitations_sent, result.errors), (2, vec![]));
    let mut counts: HashMap<String, usize> = HashMap::new();
    for event in gateway.events() {
        *counts.entry(event.event_type).or_default() += 1;
    }
    for event_type in lost {
        let expected = if event_type.contains("invit") { 2 } else { 1 };
        assert_eq!(counts[event_type], expected, "{event_type}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_bootstrap_of_the_same_organization_meets_the_first_run() {
    let (gateway, client, organization) = (Gateway::start().await, temporal_client().await, Uuid::new_v4());
    beside_worker(options(&gateway), async {
        gateway.until_subscribed(1).await;
        let first = gateway.initiate(organization, bootstrap("tl-twice"), metadata());
        gateway
            .until("the first row", |gateway| {
                gateway.row(first)["status"] == "completed"
            })
            .await;
        let running = gateway.initiate(organization, bootstrap("tl-twice"), metadata());
        gateway
            .until("the second row", |gateway| {
                gateway.row(running)["status"] == "completed"
            })
            .await;
        gateway.until_event("organization.bootstrap.completed").await;
        result_of(&client, organization).await;
        let closed = gateway.initiate(organization, bootstrap("tl-twice"), metadata());
        gateway
            .until("the third row", |gateway| {
                gateway.row(closed)["status"] == "completed"
            })
            .await;

        let run = &gateway.row(first)["workflow_run_id"];
        assert!(run.is_string());
        assert_eq!(&gateway.row(running)["workflow_run_id"], run);
        assert_eq!(&gateway.row(closed)["workflow_run_id"], run);
    })
    .await;
    assert_eq!(gateway.count("organization.created"), 1);
    assert_eq!(gateway.count("organization.bootstrap.workflow_started"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_workers_that_hear_the_same_row_one_takes_it() {
    let (gateway, organization) = (Gateway::start().await, Uuid::new_v4());
    temporal_client().await;
    let (mut one, mut two) = (options(&gateway), options(&gateway));
    two.task_queue.clone_from(&one.task_queue);
    // Activities of one run land on both workers, and each mock has a zone of its own.
    one.dns_provider = ProviderKind::Logging;
    two.dns_provider = ProviderKind::Logging;
    let row = beside_worker(
        one,
        beside_worker(two, async {
            gateway.until_subscribed(2).await;
            let row = gateway.initiate(organization, bootstrap("tl-race"), metadata());
            gateway.until_event("organization.bootstrap.completed").await;
            row
        }),
    )
    .await;
    assert_eq!(gateway.row(row)["status"], "completed");
    assert_eq!(gateway.count("workflow.queue.completed"), 1);
    assert_eq!(gateway.count("organization.bootstrap.workflow_started"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_delivered_twice_is_taken_once() {
    let (gateway, organization) = (Gateway::start().await, Uuid::new_v4());
    temporal_client().await;
    beside_worker(options(&gateway), async {
        gateway.until_subscribed(1).await;
        let row = gateway.initiate(organization, bootstrap("tl-double"), metadata());
        gateway.notify_again(row);
        gateway.until_event("organization.bootstrap.completed").await;
        gateway.notify_again(row);
        let sentinel = gateway.initiate(Uuid::new_v4(), bootstrap("tl-sentinel"), metadata());
        gateway
            .until("the sentinel", |gateway| {
                gateway.row(sentinel)["status"] == "completed"
            })
            .await;
    })
    .await;
    let claims = gateway
        .events()
        .into_iter()
        .filter(|event| event.event_type == "workflow.queue.claimed");
    assert_eq!(claims.count(), 2, "one for the row and one for the sentinel");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_worker_stays_ready_and_takes_nothing_until_it_hears_again() {
    let (gateway, organization) = (Gateway::start().await, Uuid::new_v4());
    temporal_client().await;
    let options = options(&gateway);
    let health = options.health_listen;
    beside_worker(options, async {
        until_ready_is(health, 200).await;
        set_faults(health, json!({"deaf": true})).await;
        let row = gateway.initiate(organization, bootstrap("tl-deaf"), metadata());
        gateway.cut_sockets();
        gateway.until_subscribed(0).await;
        let ready = until_ready_is(health, 200).await;
        assert_eq!(ready["realtime"], "subscribed");
        assert_eq!(gateway.row(row)["status"], "pending");
        set_faults(health, json!({"deaf": false})).await;
        gateway
            .until("the row", |gateway| gateway.row(row)["status"] == "completed")
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_only_claims_leaves_the_row_processing() {
    let (gateway, client, organization) = (Gateway::start().await, temporal_client().await, Uuid::new_v4());
    let options = options(&gateway);
    let health = options.health_listen;
    let row = beside_worker(options, async {
        gateway.until_subscribed(1).await;
        set_faults(health, json!({"claim_only": true})).await;
        let row = gateway.initiate(organization, bootstrap("tl-claim"), metadata());
        gateway.until_event("organization.bootstrap.completed").await;
        result_of(&client, organization).await;
        row
    })
    .await;
    assert_eq!(gateway.row(row)["status"], "processing");
    assert_eq!(gateway.count("workflow.queue.completed"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_queued_while_the_socket_was_away_are_taken_after_the_reconnect() {
    let gateway = Gateway::start().await;
    temporal_client().await;
    beside_worker(options(&gateway), async {
        gateway.until_subscribed(1).await;
        gateway.cut_sockets();
        let row = gateway.initiate(Uuid::new_v4(), bootstrap("tl-away"), metadata());
        gateway
            .until("the row", |gateway| gateway.row(row)["status"] == "completed")
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_activity_is_retried_without_end_until_the_fault_is_cleared() {
    let (gateway, client, organization) = (Gateway::start().await, temporal_client().await, Uuid::new_v4());
    let options = options(&gateway);
    let health = options.health_listen;
    beside_worker(options, async {
        gateway.until_subscribed(1).await;
        set_faults(health, json!({"stuck_activity": "verifyDNS"})).await;
        gateway.initiate(organization, bootstrap("tl-stuck"), metadata());
        gateway.until_event("organization.dns.configured").await;
        let handle = client.get_workflow_handle::<UntypedWorkflow>(workflow_id(organization));
        let beyond_the_last_attempt = async {
            loop {
                let description = handle.describe(Default::default()).await.unwrap();
                if let Some(activity) = description.raw().pending_activities.first()
                    && activity.attempt > 4
                {
                    let failure = activity.last_failure.clone().unwrap().message;
                    assert!(failure.contains("503"), "{failure}");
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(worker_support::DEADLINE, beyond_the_last_attempt)
            .await
            .unwrap();
        set_faults(health, json!({"stuck_activity": null})).await;
        gateway.until_event("organization.bootstrap.completed").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_initiating_event_fails_the_row_and_starts_nothing() {
    let gateway = Gateway::start().await;
    temporal_client().await;
    let row = gateway.initiate(Uuid::new_v4(), json!({"subdomain": "tl-bad"}), metadata());
    beside_worker(options(&gateway), gateway.until_event("workflow.queue.failed")).await;
    assert_eq!(gateway.row(row)["status"], "failed");
    assert!(
        gateway.row(row)["error_message"]
            .as_str()
            .unwrap()
            .contains("missing field `orgData`")
    );
    assert_eq!(gateway.count("organization.bootstrap.workflow_started"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_faults_start_what_nobody_can_run() {
    let (gateway, client) = (Gateway::start().await, temporal_client().await);
    let options = options(&gateway);
    let health = options.health_listen;
    beside_worker(options, async {
        gateway.until_subscribed(1).await;
        for (fault, value) in [
            ("workflow_type", json!("noSuchWorkflow")),
            ("task_queue", json!("nobody")),
            ("bad_input", json!(true)),
        ] {
            set_faults(health, json!({fault: value})).await;
            let organization = Uuid::new_v4();
            let row = gateway.initiate(organization, bootstrap("tl-start"), metadata());
            gateway
                .until(fault, |gateway| gateway.row(row)["status"] == "completed")
                .await;
            let handle = client.get_workflow_handle::<UntypedWorkflow>(workflow_id(organization));
            let description = handle.describe(Default::default()).await.unwrap();
            assert!(
                format!("{:?}", description.status()).contains("Running"),
                "{fault}"
            );
            set_faults(health, json!({fault: null_of(&value)})).await;
        }
        assert_eq!(gateway.count("organization.created"), 0);

        set_faults(health, json!({"duplicate_start": true})).await;
        let organization = Uuid::new_v4();
        gateway.initiate(organization, bootstrap("tl-start"), metadata());
        gateway
            .until("both runs", |gateway| {
                gateway.count("organization.bootstrap.completed") == 2
            })
            .await;
        use futures_util::TryStreamExt as _;
        let query = format!("WorkflowId STARTS_WITH '{}'", workflow_id(organization));
        let two = async {
            loop {
                let listed = client.list_workflows(query.clone(), WorkflowListOptions::default());
                let found: Vec<_> = listed.try_collect().await.unwrap();
                if found.len() == 2 {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(worker_support::DEADLINE, two).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_header_of_a_direct_start_reaches_the_activities() {
    let (gateway, client, organization) = (Gateway::start().await, temporal_client().await, Uuid::new_v4());
    let options = options(&gateway);
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut input = bootstrap("tl-direct");
    input["organizationId"] = json!(organization);
    let start = WorkflowStartOptions::new(options.task_queue.clone(), workflow_id(organization))
        .execution_timeout(std::time::Duration::from_secs(60))
        .header(Header {
            fields: HashMap::from([(
                "_tracer-data".to_owned(),
                payload(&json!({"traceparent": traceparent})),
            )]),
        })
        .build();
    beside_worker(options, async {
        let workflow = UntypedWorkflow::new("organizationBootstrapWorkflow");
        client
            .start_workflow(workflow, RawValue::new(vec![payload(&input)]), start)
            .await
            .unwrap();
        gateway.until_event("organization.bootstrap.completed").await;
    })
    .await;
    let events = gateway.events();
    assert!(
        events
            .iter()
            .all(|event| event.metadata["traceparent"] == traceparent),
        "{events:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_temporal_the_worker_waits_says_so_and_stops_when_told() {
    let gateway = Gateway::start().await;
    let mut options = options(&gateway);
    options.temporal_address = format!("http://{}", worker_support::free_address())
        .parse()
        .unwrap();
    let health = options.health_listen;
    let row = gateway.initiate(Uuid::new_v4(), bootstrap("tl-wait"), metadata());
    let said = beside_worker(options, async {
        let unreachable = async {
            loop {
                let said = until_ready_is(health, 503).await;
                if said["temporal"] == "unreachable" {
                    return said;
                }
            }
        };
        tokio::time::timeout(worker_support::DEADLINE, unreachable)
            .await
            .unwrap()
    })
    .await;
    assert_eq!(said["status"], "not_ready");
    assert_eq!(said["build"], "test-build");
    assert_eq!(
        gateway.row(row)["status"],
        "pending",
        "a worker without Temporal must not claim"
    );
}

fn bootstrap(subdomain: &str) -> Value {
    json!({
        "subdomain": subdomain,
        "orgData": {"name": "Throughline Test", "type": "provider", "contacts": [], "addresses": [], "phones": []},
        "users": [
            {"email": "ada@example.com", "firstName": "Ada", "lastName": "Test", "role": "admin"},
            {"email": "bob@example.com", "firstName": "Bob", "lastName": "Test", "role": "viewer"},
        ],
    })
}

fn metadata() -> Value {
    json!({
        "correlation_id": "7d3bf7b6-1a0c-4b3e-9d6e-0d6c2b8a4f10",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tags": ["throughline:test"],
        "source": "synthetic",
    })
}

/// What clears a switch that was set to this.
fn null_of(value: &Value) -> Value {
    if value.is_boolean() {
        json!(false)
    } else {
        Value::Null
    }
}

fn payload(value: &Value) -> Payload {
    Payload {
        metadata: HashMap::from([("encoding".to_owned(), b"json/plain".to_vec())]),
        data: value.to_string().into_bytes(),
        ..Payload::default()
    }
}
