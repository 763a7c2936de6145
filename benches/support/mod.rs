//! What both benches need: the spread of a set of measurements, and what else the machine was doing.

/// Where a figure was taken: the cores, and how many processes wanted one in the last minute. Above the
/// number of cores, the figure is also of what else ran.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // Linux's own; elsewhere the line says less.
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    match load.as_deref().and_then(|load| load.split(' ').next()) {
        Some(load) => format!("{cores} cores, load {load}"),
        None => format!("{cores} cores"),
    }
}

/// Measurements in ascending order.
#[derive(Debug, Clone)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    /// None of an empty set: it has no median to speak of.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        (!values.is_empty()).then_some(Self(values))
    }

    /// The smallest measurement that `percent` of them do not exceed (nearest rank): always one that was
    /// really measured, never one between two.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0[rank - 1]
    }
}
