//! What the sandbox promises to whoever probes it, held against a running one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod sandbox_support;

use std::collections::BTreeSet;
use std::time::Instant;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use sandbox_support::{PATIENCE, Sandbox, descendants, is_running, within};

/// The organization of tenant A, as its tokens say.
const ORG_A: &str = "a0000000-0000-4000-8000-00000000000a";

const CHAIN: [&str; 5] = [
    "organization.bootstrap.initiated",
    "workflow.queue.pending",
    "workflow.queue.claimed",
    "organization.bootstrap.workflow_started",
    "workflow.queue.completed",
];

fn bootstrap_payload(organization_id: &str) -> Value {
    json!({
        "organizationId": organization_id,
        "subdomain": "tl-contract",
        "orgData": {"name": "Contract", "type": "provider"},
        "users": [
            {"email": "one@example.com", "firstName": "One", "lastName": "User", "role": "admin"},
            {"email": "two@example.com", "firstName": "Two", "lastName": "User", "role": "member"},
        ],
        "tags": ["throughline:run:contract"],
        "source": "synthetic",
    })
}

fn emit(stream_id: &str, version: i32, event_type: &str) -> Value {
    json!({
        "p_stream_id": stream_id, "p_stream_type": "test", "p_stream_version": version,
        "p_event_type": event_type, "p_event_data": {}, "p_event_metadata": {},
    })
}

/// Asks for the organization's story until it has ended.
async fn story_of(sandbox: &Sandbox, correlation_id: &str) -> Vec<Value> {
    let key = sandbox.env("SUPABASE_SERVICE_ROLE_KEY");
    let begun = Instant::now();
    loop {
        let arguments = json!({"p_correlation_id": correlation_id});
        let answer = sandbox
            .rpc("get_events_by_correlation", Some(key), &arguments)
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        let events = answer.body.as_array().unwrap().clone();
        let has = |event_type: &str| events.iter().any(|event| event["event_type"] == event_type);
        if has("organization.bootstrap.completed") && has("workflow.queue.completed") {
            return events;
        }
        assert!(begun.elapsed() < PATIENCE, "the story did not end: {events:#?}");
    }
}

#[tokio::test]
async fn a_bootstrap_leaves_its_trail_and_everybody_sees_what_is_theirs() {
    let sandbox = Sandbox::start(&[]);
    let service = sandbox.env("SUPABASE_SERVICE_ROLE_KEY").to_owned();
    let (a, b, admin) = (
        sandbox.sign_in("tenant_a").await,
        sandbox.sign_in("tenant_b").await,
        sandbox.sign_in("org_admin").await,
    );

    // Who may not begin, and with what.
    let function = "/functions/v1/organization-bootstrap";
    let call = |token, body| {
        let sandbox = &sandbox;
        async move {
            sandbox
                .request(Method::POST, function, token, "public", Some(&body))
                .await
        }
    };
    let unsigned = call(None, bootstrap_payload(ORG_A)).await;
    assert_eq!(unsigned.status, StatusCode::UNAUTHORIZED);
    let forbidden = call(Some(a.as_str()), bootstrap_payload(ORG_A)).await;
    assert_eq!(forbidden.status, StatusCode::FORBIDDEN);
    assert_eq!(forbidden.body["permission"], "organization.create_root");
    let mut broken = bootstrap_payload(ORG_A);
    broken["users"][1]["email"] = json!("nowhere");
    let refused = call(Some(admin.as_str()), broken).await;
    assert_eq!(
        (refused.status, &refused.body["field"]),
        (StatusCode::BAD_REQUEST, &json!("users[1].email"))
    );

    // The five events, and what the activities did.
    let answer = call(Some(admin.as_str()), bootstrap_payload(ORG_A)).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert_eq!(answer.body["organizationId"], ORG_A);
    assert_eq!(answer.body["status"], "initiated");
    let events = story_of(&sandbox, answer.body["correlationId"].as_str().unwrap()).await;
    for event in &events {
        assert_eq!(event["processing_error"], Value::Null, "{event:#}");
        assert_ne!(event["processed_at"], Value::Null, "{event:#}");
        assert_eq!(
            event["event_metadata"]["tags"],
            json!(["throughline:run:contract"]),
            "{event:#}"
        );
    }
    let types: Vec<&str> = events
        .iter()
        .map(|event| event["event_type"].as_str().unwrap())
        .collect();
    let chain: Vec<&str> = types
        .iter()
        .copied()
        .filter(|event_type| CHAIN.contains(event_type))
        .collect();
    assert_eq!(chain, CHAIN);
    assert_eq!(types.iter().filter(|one| **one == "user.invited").count(), 2);
    assert_eq!(events[0]["id"], answer.body["eventId"]);

    let queue = sandbox
        .get("/rest/v1/workflow_queue_projection", Some(&service))
        .await
        .body;
    assert_eq!(queue[0]["status"], "completed");
    assert_eq!(queue[0]["event_id"], answer.body["eventId"]);
    assert_eq!(queue[0]["workflow_id"], format!("org-bootstrap-{ORG_A}"));
    let organization = sandbox
        .get("/rest/v1/organizations_projection", Some(&service))
        .await
        .body;
    assert_eq!(
        (&organization[0]["status"], &organization[0]["subdomain_status"]),
        (&json!("active"), &json!("verified"))
    );

    // The matrix: hidden is an empty list, denied is 42501.
    let service_row = json!({"organization_id": ORG_A, "name": "billing"});
    let created = sandbox
        .request(
            Method::POST,
            "/rest/v1/services",
            Some(&service),
            "public",
            Some(&service_row),
        )
        .await;
    assert_eq!(created.status, StatusCode::CREATED, "{:?}", created.body);
    let identities = [
        ("anon", None),
        ("tenant_a", Some(a.as_str())),
        ("tenant_b", Some(b.as_str())),
        ("service_role", Some(service.as_str())),
    ];
    for (table, visible_to) in [
        (
            "organizations_projection",
            ["tenant_a", "service_role"].as_slice(),
        ),
        ("invitations_projection", &["tenant_a", "service_role"]),
        ("workflow_queue_projection", &["service_role"]),
        ("services", &["tenant_a", "service_role"]),
    ] {
        for (name, token) in identities {
            let answer = sandbox.get(&format!("/rest/v1/{table}"), token).await;
            assert_eq!(answer.status, StatusCode::OK, "{table} as {name}");
            let is_visible = !answer.body.as_array().unwrap().is_empty();
            assert_eq!(is_visible, visible_to.contains(&name), "{table} as {name}");
        }
    }
    for (name, token) in identities {
        let events = sandbox.get("/rest/v1/domain_events?limit=1", token).await;
        let emitted = sandbox
            .rpc(
                "emit_domain_event",
                token,
                &emit(&Uuid::new_v4().to_string(), 1, "test.matrix"),
            )
            .await;
        let status = sandbox
            .rpc(
                "get_bootstrap_status",
                token,
                &json!({"p_organization_id": ORG_A}),
            )
            .await;
        let (read, call) = match name {
            "anon" => (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED),
            "service_role" => (StatusCode::OK, StatusCode::OK),
            _ => (StatusCode::FORBIDDEN, StatusCode::FORBIDDEN),
        };
        assert_eq!((events.status, emitted.status), (read, call), "{name}");
        match name {
            "anon" => assert_eq!(status.body["code"], "42501"),
            "tenant_b" => assert_eq!(status.body, json!([])),
            _ => assert_eq!(status.body[0]["queue_status"], "completed", "{name}"),
        }
    }
    let forged = json!({"organization_id": ORG_A, "name": "forged"});
    let denied = sandbox
        .request(
            Method::POST,
            "/rest/v1/services",
            Some(&a),
            "public",
            Some(&forged),
        )
        .await;
    assert_eq!(denied.body["code"], "42501");

    // The state of the workflow: by body only, and to its owner.
    let status = |path: &'static str, token, body| {
        let sandbox = &sandbox;
        async move {
            let path = format!("/functions/v1/workflow-status{path}");
            sandbox
                .request(Method::POST, &path, Some(token), "public", Some(&body))
                .await
        }
    };
    let id = json!({"workflowId": format!("org-bootstrap-{ORG_A}")});
    assert_eq!(
        status("", a.as_str(), id.clone()).await.body["status"],
        "COMPLETED"
    );
    assert_eq!(status("", b.as_str(), id).await.status, StatusCode::FORBIDDEN);
    let by_query = status("?workflowId=x", service.as_str(), json!({})).await;
    assert_eq!(by_query.status, StatusCode::BAD_REQUEST);
    assert_eq!(by_query.body["error"], "Missing workflowId parameter");
    let unknown = status("", service.as_str(), json!({"workflowId": "nobody"})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);

    the_prober_reads_everything_and_deletes_what_is_tagged(&sandbox).await;
    sandbox.stop();
}

async fn the_prober_reads_everything_and_deletes_what_is_tagged(sandbox: &Sandbox) {
    let prober = sandbox.database_as_prober().await;
    let count = async |table: &str| -> i64 {
        let sql = format!("select count(*) from {table}");
        prober.query_one(&sql, &[]).await.unwrap().get(0)
    };
    assert!(count("public.domain_events").await > 10);
    for table in [
        "domain_events",
        "workflow_queue_projection",
        "organizations_projection",
        "invitations_projection",
        "services",
    ] {
        prober
            .execute(&format!("delete from public.{table}"), &[])
            .await
            .unwrap();
    }
    // What nobody tagged is still there: the service and the event that the matrix wrote.
    assert_eq!(count("public.domain_events").await, 1);
    assert_eq!(count("public.services").await, 1);
    assert_eq!(count("public.organizations_projection").await, 0);
    assert_eq!(count("public.workflow_queue_projection").await, 0);
    for forbidden in [
        "update public.domain_events set retry_count = 1",
        "insert into public.services (organization_id, name) values (gen_random_uuid(), 'x')",
        "select * from auth.users",
        "select api.get_events_by_correlation('x')",
        "set role service_role",
    ] {
        let refused = prober.batch_execute(forbidden).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{forbidden}");
    }
    for catalog in [
        "pg_replication_slots",
        "pg_publication_tables",
        "realtime.subscription",
    ] {
        assert!(count(catalog).await > 0, "{catalog}");
    }
}

#[tokio::test]
async fn refusals_have_the_documented_status_and_body() {
    let sandbox = Sandbox::start(&[]);
    let service = sandbox.env("SUPABASE_SERVICE_ROLE_KEY").to_owned();
    let code = async |answer: sandbox_support::Answer| {
        let code = answer.body["code"].as_str().unwrap_or_default().to_owned();
        (answer.status.as_u16(), code)
    };
    let expect = |status: u16, code: &str| (status, code.to_owned());

    let stream = Uuid::new_v4().to_string();
    let first = sandbox
        .rpc(
            "emit_domain_event",
            Some(&service),
            &emit(&stream, 1, "test.happened"),
        )
        .await;
    assert_eq!(first.status, StatusCode::OK, "{:?}", first.body);
    let again = sandbox
        .rpc(
            "emit_domain_event",
            Some(&service),
            &emit(&stream, 1, "test.happened"),
        )
        .await;
    assert_eq!(code(again).await, expect(409, "23505"));
    let bad_type = sandbox
        .rpc(
            "emit_domain_event",
            Some(&service),
            &emit(&stream, 2, "TestHappened"),
        )
        .await;
    assert_eq!(code(bad_type).await, expect(400, "23514"));
    let unknown = sandbox.rpc("emit_nothing", Some(&service), &json!({})).await;
    assert_eq!(code(unknown).await, expect(404, "PGRST202"));
    let path = "/rest/v1/rpc/emit_domain_event";
    let no_profile = sandbox
        .request(
            Method::POST,
            path,
            Some(&service),
            "public",
            Some(&emit(&stream, 2, "a.b")),
        )
        .await;
    assert_eq!(code(no_profile).await, expect(404, "PGRST202"));
    let hidden_schema = sandbox
        .request(Method::GET, "/rest/v1/users", Some(&service), "auth", None)
        .await;
    assert_eq!(code(hidden_schema).await, expect(406, "PGRST106"));
    let forged = sandbox.get("/rest/v1/services", Some("a.b.c")).await;
    assert_eq!(code(forged).await, expect(401, "PGRST301"));

    // The aggregate-based signature is idempotent on the event's id.
    let event = json!({
        "p_event_id": Uuid::new_v4(), "p_event_type": "test.retried", "p_aggregate_type": "test",
        "p_aggregate_id": stream, "p_event_data": {}, "p_event_metadata": {},
    });
    for _ in 0..2 {
        let answer = sandbox.rpc("emit_domain_event", Some(&service), &event).await;
        assert_eq!(answer.body, event["p_event_id"]);
    }
    let stored = sandbox
        .get(
            &format!("/rest/v1/domain_events?stream_id=eq.{stream}&order=stream_version"),
            Some(&service),
        )
        .await;
    assert_eq!(stored.body.as_array().unwrap().len(), 2);
    assert_eq!(stored.body[1]["stream_version"], 2);

    // The gateway's own.
    let bare = reqwest::Client::new()
        .get(format!("{}/rest/v1/services", sandbox.env("SUPABASE_URL")))
        .send()
        .await
        .unwrap();
    assert_eq!(bare.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        bare.json::<Value>().await.unwrap()["message"],
        "No API key found in request"
    );
    let by_query = reqwest::Client::new()
        .get(format!(
            "{}/rest/v1/services?apikey={service}&select=id",
            sandbox.env("SUPABASE_URL")
        ))
        .send()
        .await
        .unwrap();
    assert_eq!(by_query.status(), StatusCode::OK);
    let wrong_password = sandbox
        .request(
            Method::POST,
            "/auth/v1/token?grant_type=password",
            None,
            "public",
            Some(&json!({"email": sandbox.env("TENANT_A_EMAIL"), "password": "guess"})),
        )
        .await;
    assert_eq!(wrong_password.status, StatusCode::BAD_REQUEST);
    assert_eq!(wrong_password.body["error_code"], "invalid_credentials");
    let token = sandbox.sign_in("tenant_a").await;
    let me = sandbox.get("/auth/v1/user", Some(&token)).await;
    assert_eq!(me.body["email"], sandbox.env("TENANT_A_EMAIL"));

    sandbox.tell(&["part", "stop", "postgrest"]);
    let down = sandbox.get("/rest/v1/services", None).await;
    assert_eq!(down.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(down.body["message"].as_str().unwrap().contains("PostgREST"));
    sandbox.tell(&["part", "start", "postgrest"]);
    assert_eq!(
        sandbox.get("/rest/v1/services", None).await.status,
        StatusCode::OK
    );
    sandbox.stop();
}

/// Everything in the catalogs that a fault of the database changes.
const CATALOG: &str = "
    select 'function ' || pg_get_functiondef(p.oid) from pg_proc p
      where pronamespace in ('public'::regnamespace, 'api'::regnamespace, 'auth'::regnamespace)
    union all select 'execute ' || p.oid::regprocedure || ' ' || a.grantee::regrole from pg_proc p, aclexplode(p.proacl) a
      where pronamespace = 'api'::regnamespace
    union all select 'trigger ' || tgenabled::text || pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
    union all select 'policy ' || p::text from pg_policies p
    union all select 'grant ' || g::text from information_schema.role_table_grants g where table_schema = 'public'
    union all select 'published ' || t::text from pg_publication_tables t
    union all select 'role ' || rolname || rolbypassrls || coalesce(rolconfig::text, '') from pg_roles
    union all select 'constraint ' || conname || pg_get_constraintdef(oid) from pg_constraint
    union all select 'identity ' || relname || relreplident::text from pg_class where relnamespace = 'public'::regnamespace";

async fn catalog(database: &tokio_postgres::Client) -> BTreeSet<String> {
    database
        .query(CATALOG, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[tokio::test]
async fn every_fault_can_be_injected_and_leaves_no_trace_when_cleared() {
    let sandbox = Sandbox::start(&[]);
    let database = sandbox.database().await;
    let healthy = catalog(&database).await;
    for fault in throughline_sandbox::faults::FAULTS {
        sandbox.tell(&["fault", "inject", fault.id]);
        assert_eq!(sandbox.state()["faults"], json!([fault.id]));
        let of_database = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("faults/{}.sql", fault.id))
            .exists();
        if of_database {
            assert_ne!(catalog(&database).await, healthy, "{} changed nothing", fault.id);
        }
        sandbox.tell(&["fault", "clear", fault.id]);
        let after = catalog(&database).await;
        let difference: Vec<_> = after.symmetric_difference(&healthy).collect();
        assert!(difference.is_empty(), "{} left {difference:#?}", fault.id);
    }
    assert_eq!(sandbox.state()["faults"], json!([]));
    assert!(
        !sandbox
            .try_tell(&["fault", "inject", "no-such-fault"])
            .status
            .success()
    );
    assert!(!sandbox.try_tell(&["fault", "clear", "wk-down"]).status.success());

    // After all of them, and Temporal's restart, the chain still works.
    drop(database);
    let admin = sandbox.sign_in("org_admin").await;
    let answer = sandbox
        .request(
            Method::POST,
            "/functions/v1/organization-bootstrap",
            Some(&admin),
            "public",
            Some(&bootstrap_payload(&Uuid::new_v4().to_string())),
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let events = story_of(&sandbox, answer.body["correlationId"].as_str().unwrap()).await;
    assert!(events.iter().all(|event| event["processing_error"].is_null()));
    sandbox.stop();
}

#[tokio::test]
async fn faults_act_where_they_acted_in_life() {
    let sandbox = Sandbox::start(&["--fault", "db-handler-failed", "--fault", "auth-claims-empty"]);
    let service = sandbox.env("SUPABASE_SERVICE_ROLE_KEY").to_owned();
    let function = "/functions/v1/organization-bootstrap";

    // Signed in, and yet without the permission.
    let admin = sandbox.sign_in("org_admin").await;
    let payload = bootstrap_payload(&Uuid::new_v4().to_string());
    let denied = sandbox
        .request(Method::POST, function, Some(&admin), "public", Some(&payload))
        .await;
    assert_eq!(denied.status, StatusCode::FORBIDDEN);

    // 200, the workflow completes, and the organization's row never appears.
    let answer = sandbox
        .request(Method::POST, function, Some(&service), "public", Some(&payload))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let events = story_of(&sandbox, answer.body["correlationId"].as_str().unwrap()).await;
    let created = events
        .iter()
        .find(|event| event["event_type"] == "organization.created")
        .unwrap();
    assert_eq!(created["processed_at"], Value::Null);
    let error = created["processing_error"].as_str().unwrap();
    assert!(
        error.contains("org_type") && error.contains("does not exist"),
        "{error}"
    );
    let organizations = sandbox
        .get("/rest/v1/organizations_projection", Some(&service))
        .await;
    assert_eq!(organizations.body, json!([]));
    sandbox.tell(&["fault", "clear", "db-handler-failed"]);

    // The API's two: what PostgREST says at once, without a restart.
    let arguments = emit(&Uuid::new_v4().to_string(), 1, "test.happened");
    for (fault, status, code) in [
        ("api-schema-prefix", 406, "PGRST106"),
        ("api-signature-changed", 404, "PGRST202"),
    ] {
        sandbox.tell(&["fault", "inject", fault]);
        let refused = sandbox.rpc("emit_domain_event", Some(&service), &arguments).await;
        assert_eq!(refused.status.as_u16(), status, "{fault}");
        assert_eq!(refused.body["code"], code, "{fault}");
        sandbox.tell(&["fault", "clear", fault]);
    }
    let works = sandbox.rpc("emit_domain_event", Some(&service), &arguments).await;
    assert_eq!(works.status, StatusCode::OK);

    // A collision inside the trigger fails the whole insert.
    sandbox.tell(&["fault", "inject", "db-version-conflict"]);
    let mut initiated = emit(&Uuid::new_v4().to_string(), 1, "organization.bootstrap.initiated");
    initiated["p_stream_type"] = json!("organization");
    let conflict = sandbox.rpc("emit_domain_event", Some(&service), &initiated).await;
    assert_eq!(
        (conflict.status, &conflict.body["code"]),
        (StatusCode::CONFLICT, &json!("23505"))
    );
    sandbox.stop();
}

#[tokio::test]
async fn sandboxes_live_side_by_side_and_die_without_leaving_a_process() {
    let (one, other) = tokio::join!(
        tokio::task::spawn_blocking(|| Sandbox::start(&[])),
        tokio::task::spawn_blocking(|| Sandbox::start(&[])),
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    let urls = |sandbox: &Sandbox| -> BTreeSet<String> {
        let state = sandbox.state();
        let urls = state["urls"].as_object().unwrap().values();
        urls.map(|url| url.as_str().unwrap().to_owned()).collect()
    };
    assert!(urls(&one).is_disjoint(&urls(&other)));
    let stranger = one
        .get("/rest/v1/services", Some(other.env("SUPABASE_SERVICE_ROLE_KEY")))
        .await;
    assert_eq!(
        stranger.status,
        StatusCode::UNAUTHORIZED,
        "each has secrets of its own"
    );

    let supervisor = u32::try_from(one.state()["supervisor_pid"].as_u64().unwrap()).unwrap();
    let family = descendants(supervisor);
    assert!(
        family.len() > 6,
        "six parts and PostgreSQL's own children: {family:?}"
    );
    // Also one that cannot hear any signal but the last.
    one.tell(&["part", "pause", "temporal"]);
    one.kill();
    within(PATIENCE, || {
        family.iter().all(|pid| !is_running(*pid)).then_some(())
    });

    let alive = other.get("/rest/v1/services", None).await;
    assert_eq!(alive.status, StatusCode::OK, "the other one is not concerned");
    let family = descendants(u32::try_from(other.state()["supervisor_pid"].as_u64().unwrap()).unwrap());
    other.stop();
    assert!(family.iter().all(|pid| !is_running(*pid)));
}
