//! The names that a run gives and invents.

use opentelemetry::trace::TraceId;
use uuid::Uuid;

use crate::chain::model::IdRule;
use crate::chain::template::Scope;
use crate::clock::Timebase;
use crate::config::model::Target;
use crate::testdata;
use crate::trace::root_span_id;

/// The names that a run gives and invents.
pub(super) struct Names {
    pub(super) run_id: String,
    pub(super) correlation_id: String,
    pub(super) trace_id: String,
    pub(super) tag: String,
    pub(super) scope: Scope,
}

impl Names {
    /// Invents them.
    pub(super) fn invent(target: &Target, ids: &[(String, IdRule)], time: &Timebase) -> Self {
        let run = Uuid::now_v7();
        let run_id = run.to_string();
        let correlation_id = Uuid::new_v4().to_string();
        let trace_id = TraceId::from_bytes(Uuid::new_v4().into_bytes()).to_string();
        let tag = testdata::tag(&run_id);
        let mut scope = Scope::default();
        let short = run.simple().to_string();
        scope.set("run_id", run_id.clone());
        // The last twelve digits are random; the first would be equal for runs of one millisecond.
        scope.set("run_short", short[short.len() - 12..].to_owned());
        scope.set("correlation_id", correlation_id.clone());
        scope.set(
            "traceparent",
            format!("00-{trace_id}-{}-01", root_span_id(&trace_id)),
        );
        scope.set("tag", tag.clone());
        scope.set(
            "prefix",
            target
                .guard
                .as_ref()
                .map(|guard| guard.prefix.clone())
                .unwrap_or_default(),
        );
        scope.set(
            "now",
            time.started_at()
                .to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        );
        if let Some(temporal) = &target.temporal {
            scope.set("task_queue", temporal.task_queue.clone());
        }
        let mut names = Self {
            run_id,
            correlation_id,
            trace_id,
            tag,
            scope,
        };
        names.invent_more(ids);
        names
    }

    /// Invents names that may use those that are known by now.
    pub(super) fn invent_more(&mut self, ids: &[(String, IdRule)]) {
        for (name, rule) in ids {
            let value = match rule {
                IdRule::Uuid => Uuid::new_v4().to_string(),
                // The loader has checked that every name is there.
                IdRule::Text(template) => template.resolve(&self.scope).unwrap_or_default(),
            };
            self.scope.set(name.clone(), value);
        }
    }
}
