use crate::access::catalog::{Asked, Catalog};
use crate::finding::Finding;
use crate::matrix::model::Matrix;
use crate::record::{CellRecord, CheckRecord, IdentityRecord};
pub fn of_matrix(_: &Matrix, _: &[IdentityRecord], _: &Catalog) -> Vec<CheckRecord> {
    Vec::new()
}
pub fn observe(_: &mut [CheckRecord], _: &[CellRecord], _: &[IdentityRecord]) {}
pub fn findings(_: &[CheckRecord]) -> Vec<Finding> {
    Vec::new()
}
pub fn asked(matrix: &Matrix, identities: &[IdentityRecord]) -> Asked {
    Asked {
        tables: matrix.rows.iter().map(|row| row.table.clone()).collect(),
        functions: matrix
            .functions
            .iter()
            .map(|f| (f.schema.clone(), f.function.clone()))
            .collect(),
        roles: identities
            .iter()
            .filter_map(|identity| identity.role.clone())
            .collect(),
    }
}
