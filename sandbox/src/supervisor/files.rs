//! The files by which a prober and a person use the sandbox.

use std::fmt::Write as _;

use uuid::Uuid;

use super::parts::{NAMESPACE, Plan, TASK_QUEUE};
use crate::database::User;
use crate::state::StateError;

/// The users who can sign in. In the config file two of their names stand for tokens that a run signs itself, with
/// ids of its own and the same rights. The addresses are under a
/// reserved domain, the ids are fixed so that a person can recognise them in a table.
pub const USERS: [(&str, User); 3] = [
    (
        "tenant_a",
        User {
            id: Uuid::from_u128(0xa000_0000_0000_4000_8000_0000_0000_0001),
            email: "owner@tenant-a.test",
            org_id: Uuid::from_u128(0xa000_0000_0000_4000_8000_0000_0000_000a),
            user_role: "provider_admin",
            permissions: &["organization.view", "user.invite"],
        },
    ),
    (
        "tenant_b",
        User {
            id: Uuid::from_u128(0xb000_0000_0000_4000_8000_0000_0000_0001),
            email: "owner@tenant-b.test",
            org_id: Uuid::from_u128(0xb000_0000_0000_4000_8000_0000_0000_000b),
            user_role: "provider_admin",
            permissions: &["organization.view", "user.invite"],
        },
    ),
    (
        "org_admin",
        User {
            id: Uuid::from_u128(0xc000_0000_0000_4000_8000_0000_0000_0001),
            email: "admin@platform.test",
            org_id: Uuid::from_u128(0xc000_0000_0000_4000_8000_0000_0000_000c),
            user_role: "super_admin",
            permissions: &["organization.create_root", "organization.view", "user.invite"],
        },
    ),
];

/// Writes secrets, `env` and `throughline.yaml`. `passwords` are those of [`USERS`], in their order.
///
/// # Errors
/// When the state folder cannot be written.
pub fn write(plan: &Plan, passwords: &[String; USERS.len()]) -> Result<(), StateError> {
    let dir = &plan.state_dir;
    dir.write_secret("anon_key", &plan.secrets.anon_key)?;
    dir.write_secret("service_role_key", &plan.secrets.service_role_key)?;
    dir.write_secret("jwt_secret", &plan.secrets.jwt_secret)?;
    dir.write_secret("superuser_db_url", &plan.superuser_db_url())?;
    dir.write_secret("prober_db_url", &plan.prober_db_url())?;
    dir.write_secret("authenticator_db_url", &plan.authenticator_db_url())?;
    dir.write_secret("app_db_url", &plan.app_db_url())?;
    for ((name, _), password) in USERS.iter().zip(passwords) {
        dir.write_secret(&format!("{name}_password"), password)?;
    }
    dir.write_atomically(&dir.env(), &env_file(plan, passwords), 0o600)?;
    dir.write_atomically(&dir.config(), &config_file(plan), 0o644)
}

fn env_file(plan: &Plan, passwords: &[String; USERS.len()]) -> String {
    let mut lines = vec![
        ("SUPABASE_URL".to_owned(), plan.gateway_url()),
        ("SUPABASE_ANON_KEY".to_owned(), plan.secrets.anon_key.clone()),
        (
            "SUPABASE_SERVICE_ROLE_KEY".to_owned(),
            plan.secrets.service_role_key.clone(),
        ),
        ("SUPABASE_DB_URL".to_owned(), plan.superuser_db_url()),
        ("SUPABASE_JWT_SECRET".to_owned(), plan.secrets.jwt_secret.clone()),
        ("THROUGHLINE_DB_URL".to_owned(), plan.prober_db_url()),
        ("AUTHENTICATOR_DB_URL".to_owned(), plan.authenticator_db_url()),
        ("APP_DB_URL".to_owned(), plan.app_db_url()),
        ("TEMPORAL_ADDRESS".to_owned(), plan.addresses.temporal.to_string()),
        ("TEMPORAL_NAMESPACE".to_owned(), NAMESPACE.to_owned()),
        ("TEMPORAL_TASK_QUEUE".to_owned(), TASK_QUEUE.to_owned()),
        (
            "WORKER_URL".to_owned(),
            format!("http://{}", plan.addresses.worker),
        ),
    ];
    for ((name, user), password) in USERS.iter().zip(passwords) {
        let name = name.to_uppercase();
        lines.push((format!("{name}_EMAIL"), user.email.to_owned()));
        lines.push((format!("{name}_PASSWORD"), password.clone()));
    }
    lines.into_iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name}={value}");
        text
    })
}

fn config_file(plan: &Plan) -> String {
    let mut identities = String::new();
    for (name, user) in &USERS {
        // A tenant that each run has for itself, so that runs side by side do not see each other's rows.
        let _ = if name.starts_with("tenant_") {
            writeln!(
                identities,
                "      {name}:
        minted:
          secret: {{file: secrets/jwt_secret}}
          claims: {{role: authenticated, sub: \"${{uuid}}\", org_id: \"${{uuid}}\", user_role: {}, permissions: [{}]}}",
                user.user_role,
                user.permissions.join(", ")
            )
        } else {
            writeln!(
                identities,
                "      {name}: {{password: {{email: {}, password: {{file: secrets/{name}_password}}}}}}",
                user.email
            )
        };
    }
    format!(
        "# The sandbox as a target like any other. Written at its start; secrets are in files beside this one.
targets:
  sandbox:
    supabase:
      url: {gateway}
      api_key: {{file: secrets/anon_key}}
    database:
      url: {{file: secrets/prober_db_url}}
      authenticator_url: {{file: secrets/authenticator_db_url}}
    temporal: {{address: \"{temporal}\", namespace: {NAMESPACE}, task_queue: {TASK_QUEUE}}}
    worker: {{url: \"http://{worker}\"}}
    guard: {{synthetic: true, prefix: tl-}}
    identities:
      anon: {{token: {{file: secrets/anon_key}}}}
      service_role: {{token: {{file: secrets/service_role_key}}}}
{identities}      app_role: {{database: {{url: {{file: secrets/app_db_url}}}}}}
probes:
  org-bootstrap-events:
    kind: bootstrap
    target: sandbox
    chain: org-bootstrap-events
    deadline: 30s
  org-visibility: {{kind: visibility, target: sandbox, matrix: org-visibility, deadline: 60s}}
",
        gateway = plan.gateway_url(),
        temporal = plan.temporal_url(),
        worker = plan.addresses.worker,
    )
}
