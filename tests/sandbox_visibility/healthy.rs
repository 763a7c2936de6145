//! Without a fault every cell is as declared, over and over, and nothing stays.

use throughline::matrix::model::{AccessPath, Expected};
use throughline::record::{Seen, Verdict};

use super::{assert_all_match, cells};
use crate::harness::Sandbox;

#[tokio::test]
async fn every_cell_of_the_shipped_matrix_is_as_declared_and_nothing_is_left() {
    let sandbox = Sandbox::start(&[]).await;
    let record = sandbox.look().record().await;
    assert_all_match(&record, "healthy");
    assert_eq!(record.verdict, Verdict::Pass, "{}", record.headline);
    assert!(record.findings.is_empty(), "{:?}", record.findings);

    // All four paths were asked, by all five identities, with every kind of expectation.
    for path in AccessPath::ALL {
        assert!(cells(&record).iter().any(|cell| cell.path == path), "{path:?}");
    }
    for expected in ["visible", "hidden", "denied 42501", "allowed", "empty"] {
        assert!(
            cells(&record)
                .iter()
                .any(|cell| cell.expected.to_string() == expected),
            "{expected}"
        );
    }
    let visibility = record.visibility.as_ref().unwrap();
    let roles: Vec<_> = visibility
        .identities
        .iter()
        .map(|identity| identity.role.as_deref().unwrap())
        .collect();
    assert_eq!(
        roles,
        [
            "anon",
            "authenticated",
            "authenticated",
            "service_role",
            "app_backend"
        ]
    );
    let bad: Vec<_> = visibility
        .checklist
        .iter()
        .filter(|check| check.good != Some(true))
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert!(!visibility.checklist.is_empty());

    // What Realtime tells everybody is a declared exception with its reason, and carries the key alone.
    let deleted = cells(&record)
        .iter()
        .find(|cell| {
            cell.identity == "tenant_b"
                && cell.operation.as_str() == "delete"
                && cell.path == AccessPath::Realtime
        })
        .unwrap();
    assert!(deleted.exception.is_some());
    assert_eq!(deleted.expected, Expected::Visible { columns: None });
    assert_eq!(
        deleted.seen,
        Seen::Row {
            columns: vec!["id".to_owned()]
        }
    );

    assert!(record.cleanup.leftovers.is_empty(), "{:?}", record.cleanup);
    sandbox.assert_nothing_left("a healthy run").await;
    sandbox.assert_no_workflow_runs("a healthy run").await;
}

#[tokio::test]
async fn runs_side_by_side_do_not_disturb_each_other() {
    let sandbox = Sandbox::start(&[]).await;
    let (one, other) = tokio::join!(sandbox.look().record(), async {
        sandbox.look_with(&sandbox.shipped(), "other.yaml").record().await
    });
    assert_all_match(&one, "beside another run");
    assert_all_match(&other, "beside another run");
    sandbox.assert_nothing_left("two runs").await;
}
