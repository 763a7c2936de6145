//! What a matrix of one's own can ask: columns that a role may not see, the error records that Realtime sends instead
//! of rows, rows that are too large, and writes that are let through.

use throughline::record::{CellOutcome, RunRecord, Seen, Verdict};

use super::{cells, wrong};
use crate::harness::Sandbox;
use crate::harness::database::Database;

/// A table of the test's own, guarded like the others, with one column that only the service may read.
const NOTES: &str = "
    create table public.notes (
        id uuid primary key,
        owner uuid not null,
        text text not null,
        secret text,
        tags text[] not null default '{}');
    alter table public.notes enable row level security;
    create policy notes_own on public.notes for all to authenticated
        using (owner::text = (select auth.jwt() ->> 'org_id'))
        with check (owner::text = (select auth.jwt() ->> 'org_id'));
    grant select (id, owner, text, tags), insert (id, owner, text, tags), update (text, tags), delete
        on public.notes to authenticated;
    grant all on public.notes to service_role;
    grant select, delete on public.notes to throughline_prober;
    create policy throughline_read on public.notes for select to throughline_prober using (true);
    create policy throughline_clean on public.notes for delete to throughline_prober
        using (exists (select from unnest(tags) tag where starts_with(tag, 'throughline:')));
    alter publication supabase_realtime add table public.notes;
    notify pgrst, 'reload schema';";

const MATRIX: &str = r#"
matrix: notes
identities: {tenant_a: {}, tenant_b: {}, service_role: {}}
ids: {note_id: uuid}
rows:
  note:
    table: notes
    key: {id: "${note_id}"}
    FILTER
    make: {as: service_role, insert: {id: "${note_id}", owner: "${tenant_a.org_id}", text: hello, secret: x, tags: ["${tag}"]}}
    change: {as: service_role, update: {text: changed}}
    insert: {id: "${fresh}", owner: "${tenant_a.org_id}", text: hello, tags: ["${tag}"]}
    update: {text: "by ${run_short}"}
expect:
  - is: {tenant_a: {visible: [id, owner, text, tags]}, tenant_b: hidden, service_role: visible}
  - operations: [insert]
    is: {tenant_a: allowed, tenant_b: denied, service_role: allowed}
  - operations: [update, delete]
    is: {tenant_a: allowed, tenant_b: hidden, service_role: allowed}
  - paths: [realtime]
    operations: [insert, update]
    is: {tenant_a: {visible: [id, owner, text, tags]}, tenant_b: hidden, service_role: visible}
  - paths: [realtime]
    operations: [delete]
    is: {others: {exception: visible, because: Realtime sends the key to everybody}}
"#;

struct Notes {
    sandbox: Sandbox,
    database: Database,
}

impl Notes {
    async fn start() -> Self {
        let sandbox = Sandbox::start(&[]).await;
        let database = sandbox.database().await;
        database.execute(NOTES).await;
        // PostgREST and Realtime take notice of a new table when they get to it.
        let notes = Self { sandbox, database };
        let asked = std::time::Instant::now();
        while notes.look("").await.verdict != Verdict::Pass {
            assert!(
                asked.elapsed().as_secs() < 60,
                "{:?}",
                notes.look("").await.findings
            );
        }
        notes
    }

    async fn look(&self, filter: &str) -> RunRecord {
        self.look_at(&MATRIX.replace("    FILTER\n", filter)).await
    }

    async fn look_at(&self, matrix: &str) -> RunRecord {
        std::fs::write(self.sandbox.state_dir().join("notes.yaml"), matrix).unwrap();
        let config = self
            .sandbox
            .shipped()
            .part("matrix: org-visibility", "matrix: notes.yaml");
        self.sandbox
            .look_with(&config, "notes-config.yaml")
            .record()
            .await
    }

    async fn left(&self) -> i64 {
        self.database.value("select count(*) from public.notes").await
    }
}

#[tokio::test]
async fn a_table_that_is_not_there_costs_no_other_row_its_answer() {
    let notes = Notes::start().await;
    let row = |table: &str, id: &str| {
        format!(
            "  {table}:
    table: {table}
    key: {{id: \"${{{id}}}\"}}
    make: {{as: service_role, insert: {{id: \"${{{id}}}\", owner: \"${{tenant_a.org_id}}\", text: hello, tags: [\"${{tag}}\"]}}}}\n"
        )
    };
    let matrix = format!(
        "matrix: notes
identities: {{tenant_a: {{}}, tenant_b: {{}}, service_role: {{}}}}
ids: {{note_id: uuid, gone_id: uuid}}
rows:
{}{}expect:
  - {{paths: [sql, postgrest], is: {{tenant_a: visible, tenant_b: hidden, service_role: visible}}}}
",
        row("gone", "gone_id"),
        row("notes", "note_id")
    );
    let record = notes.look_at(&matrix).await;
    assert_eq!(record.verdict, Verdict::Inconclusive, "{}", record.headline);
    assert_eq!(cells(&record).len(), 12);
    for cell in cells(&record) {
        if cell.subject == "gone" {
            assert_eq!(cell.outcome, CellOutcome::Undecidable, "{cell:?}");
            assert!(cell.detail.contains("42P01"), "{cell:?}");
        } else {
            assert_eq!(cell.outcome, CellOutcome::Match, "{cell:?}");
        }
    }
    assert_eq!(notes.left().await, 0);
}

#[tokio::test]
async fn columns_that_a_role_may_not_see_are_asked_for_on_every_path() {
    let notes = Notes::start().await;
    assert_eq!(notes.left().await, 0, "writes that were let through are removed");

    notes
        .database
        .execute("grant select on public.notes to authenticated")
        .await;
    let record = notes.look("").await;
    let mut seen = wrong(&record);
    seen.sort();
    let leaks = ["postgrest read", "realtime insert", "realtime update", "sql read"];
    let expected: Vec<String> = leaks
        .iter()
        .map(|way| format!("note {way} tenant_a: leak cross_tenant_leak"))
        .collect();
    assert_eq!(seen, expected, "{}", record.headline);
    let cell = cells(&record)
        .iter()
        .find(|cell| cell.outcome == CellOutcome::Leak)
        .unwrap();
    assert_eq!(cell.through.as_deref(), Some("SELECT on secret"), "{cell:?}");
    assert_eq!(notes.left().await, 0);
}

#[tokio::test]
async fn a_write_that_a_policy_lets_through_is_a_leak_and_is_removed() {
    let notes = Notes::start().await;
    notes
        .database
        .execute("alter policy notes_own on public.notes using (true) with check (true)")
        .await;
    let record = notes.look("").await;
    let mut seen = wrong(&record);
    seen.sort();
    let mut expected: Vec<String> = Vec::new();
    for path in ["postgrest", "sql"] {
        for operation in ["delete", "insert", "read", "update"] {
            expected.push(format!(
                "note {path} {operation} tenant_b: leak cross_tenant_leak"
            ));
        }
    }
    for operation in ["insert", "update"] {
        expected.push(format!(
            "note realtime {operation} tenant_b: leak cross_tenant_leak"
        ));
    }
    expected.sort();
    assert_eq!(seen, expected, "{}", record.headline);
    assert!(record.cleanup.leftovers.is_empty(), "{:?}", record.cleanup);
    assert_eq!(notes.left().await, 0);
}

#[tokio::test]
async fn realtime_s_refusals_are_told_from_silence() {
    let notes = Notes::start().await;
    // Without a filter the subscription is taken, and each change comes as an error record.
    notes
        .database
        .execute("revoke select on public.notes from service_role")
        .await;
    notes
        .database
        .execute("alter policy throughline_read on public.notes using (true)")
        .await;
    let record = notes.look("    filter: none\n").await;
    let refused: Vec<_> = cells(&record)
        .iter()
        .filter(|cell| cell.path.as_str() == "realtime" && cell.identity == "service_role")
        .filter(|cell| matches!(&cell.seen, Seen::Refused { code, .. } if code == "401"))
        .collect();
    assert_eq!(refused.len(), 2, "{:?}", wrong(&record));
    for cell in refused {
        assert_eq!(cell.outcome, CellOutcome::OwnDenied);
        assert_eq!(cell.code.unwrap().as_str(), "grant_missing");
    }
}

#[tokio::test]
async fn a_row_that_is_too_large_for_realtime_still_counts_as_heard() {
    let notes = Notes::start().await;
    notes
        .database
        .execute(
            "create function public.fill() returns trigger language plpgsql as \
             $$ begin new.secret := repeat('x', 1200000); return new; end $$; \
             create trigger fill before insert on public.notes for each row execute function public.fill()",
        )
        .await;
    let record = notes.look("").await;
    let heard = cells(&record)
        .iter()
        .find(|cell| {
            cell.path.as_str() == "realtime"
                && cell.operation.as_str() == "insert"
                && cell.identity == "service_role"
        })
        .unwrap();
    // Its long columns did not come, its key did.
    let Seen::Row { columns } = &heard.seen else {
        panic!("{heard:?}")
    };
    assert!(
        columns.contains(&"id".to_owned()) && !columns.contains(&"secret".to_owned()),
        "{columns:?}"
    );
    assert_eq!(heard.outcome, CellOutcome::Match);
}
