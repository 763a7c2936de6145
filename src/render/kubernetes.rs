//! What Kubernetes needs of the generated files.

/// The rules of Prometheus as the object that the Prometheus operator takes: the same text, moved into its `spec`.
///
/// Kustomize cannot put a file into an object, and rules that were written twice would not stay the same.
#[must_use]
pub fn prometheus_rule(rules: &str) -> String {
    let mut text = String::from(
        "# The rules of alerts/throughline.rules.yaml, for the Prometheus operator. Generated.\n\
         apiVersion: monitoring.coreos.com/v1\n\
         kind: PrometheusRule\n\
         metadata:\n  name: throughline\n  labels:\n    app.kubernetes.io/name: throughline\n\
         spec:\n",
    );
    for line in rules.lines().filter(|line| *line != "---") {
        // Spaces at the end of an empty line would be part of a block text.
        let indent = if line.is_empty() { "" } else { "  " };
        text.push_str(indent);
        text.push_str(line);
        text.push('\n');
    }
    text
}
