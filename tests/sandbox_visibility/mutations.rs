//! The probe is tested by breaking what it watches: every policy of the sandbox is dropped, opened and closed. What
//! each mutation changes is found out by an oracle that has no part in the probe: rows of its own, read as each role
//! with its claims before and after.

use std::collections::BTreeMap;

use throughline::record::Verdict;

use super::{assert_all_match, wrong};
use crate::harness::Sandbox;
use crate::harness::database::Database;

/// Rows of two tenants in every table that a policy guards, and who is asked.
const OWN: &str = "a1111111-1111-4111-8111-111111111111";
const OTHERS: &str = "b2222222-2222-4222-8222-222222222222";

const ROWS: &str = "
    insert into public.organizations_projection (id, name, type, subdomain, subdomain_status, status)
        select id, 'Oracle', 'provider', 'oracle', 'pending', 'provisioning' from unnest(array['OWN'::uuid, 'OTHERS'::uuid]) id;
    insert into public.invitations_projection (id, organization_id, email, token, status, expires_at)
        select id, id, 'oracle@example.com', 'x', 'pending', now() from unnest(array['OWN'::uuid, 'OTHERS'::uuid]) id;
    insert into public.services (id, organization_id, name)
        select id, id, 'Oracle' from unnest(array['OWN'::uuid, 'OTHERS'::uuid]) id;
    insert into public.workflow_queue_projection (id, event_id, event_type, event_data, stream_id, stream_type, status)
        select id, id, 'oracle', '{}', id, 'organization', 'failed' from unnest(array['OWN'::uuid, 'OTHERS'::uuid]) id;";

/// Who sees which of the rows: role and table to ids.
async fn oracle(database: &Database) -> BTreeMap<(String, String), Vec<String>> {
    let mut seen = BTreeMap::new();
    for role in ["anon", "authenticated", "service_role", "app_backend"] {
        for table in [
            "organizations_projection",
            "invitations_projection",
            "services",
            "workflow_queue_projection",
        ] {
            if role == "app_backend" && table == "workflow_queue_projection" {
                continue;
            }
            let rows = database
                .texts(&format!(
                    "select set_config('role', '{role}', true), \
                     set_config('request.jwt.claims', '{{\"role\": \"{role}\", \"org_id\": \"{OWN}\"}}', true); \
                     select id::text from public.{table} where id in ('{OWN}', '{OTHERS}') order by 1"
                ))
                .await;
            // The first row is that of the settings.
            let ids = rows[1..].iter().map(|row| row[0].clone().unwrap()).collect();
            seen.insert((role.to_owned(), table.to_owned()), ids);
        }
    }
    seen
}

#[tokio::test]
async fn every_mutation_of_a_policy_that_changes_who_sees_what_is_noticed_and_no_other() {
    let sandbox = Sandbox::start(&[]).await;
    let database = sandbox.database().await;
    let policies = database
        .texts(
            "select policyname, tablename, array_to_string(roles, ', '), qual from pg_policies \
             where schemaname = 'public' and policyname not like 'throughline%' order by 1",
        )
        .await;
    assert!(policies.len() >= 7, "{policies:?}");
    let rows = ROWS.replace("OWN", OWN).replace("OTHERS", OTHERS);
    database.execute(&rows.replace("'{}'", "'{}'::jsonb")).await;
    let before = oracle(&database).await;
    let mut changed = 0;
    for policy in &policies {
        let [name, table, roles, using] = policy.as_slice() else {
            panic!("{policy:?}")
        };
        let (name, table) = (name.as_deref().unwrap(), table.as_deref().unwrap());
        let (roles, using) = (roles.as_deref().unwrap(), using.as_deref().unwrap());
        let on = format!("{name} on public.{table}");
        for mutation in [
            format!("drop policy {on}"),
            format!("alter policy {on} using (true)"),
            format!("alter policy {on} using (false)"),
        ] {
            database.execute(&mutation).await;
            let changes = oracle(&database).await != before;
            let record = sandbox.look().record().await;
            let verdict = if changes { Verdict::Fail } else { Verdict::Pass };
            assert_eq!(
                record.verdict,
                verdict,
                "{mutation}: {}\n{:?}",
                record.headline,
                wrong(&record)
            );
            if changes {
                changed += 1;
            } else {
                assert_all_match(&record, &mutation);
            }
            database
                .execute(&format!(
                    "drop policy if exists {on}; create policy {on} for select to {roles} using ({using})"
                ))
                .await;
        }
    }
    assert!(changed >= 12, "only {changed} mutations changed anything");
    assert_all_match(&sandbox.look().record().await, "after all mutations");
}
