//! What Alertmanager needs: routes, inhibitions, and the page.

use crate::finding::FindingCode;

/// A whole config with receivers to fill in, so that it can be checked as it is.
pub(super) fn config() -> String {
    include_str!("alertmanager.yaml").to_owned()
}

/// The template of a page, with the meaning of each finding code in it: a phone has no catalogue.
pub(super) fn template() -> String {
    let mut meanings = String::new();
    for code in FindingCode::ALL {
        let branch = if meanings.is_empty() { "if" } else { "else if" };
        meanings.push_str(&format!(
            "{{{{- {branch} eq . \"{code}\" }}}}: {}\n",
            code.meaning()
        ));
    }
    meanings.push_str("{{- end }}");
    include_str!("page.tmpl").replace("@MEANINGS@", &meanings)
}
