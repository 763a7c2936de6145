//! The visibility probe.

use super::engine::Run;
use crate::matrix::model::Matrix;
use crate::record::RunRecord;

/// Makes a run of a matrix.
pub(super) async fn look(_matrix: &Matrix, _run: Run<'_>) -> RunRecord {
    std::future::pending().await
}
