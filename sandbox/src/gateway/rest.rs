//! `/rest/v1`: PostgREST behind an API key.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};

use super::{ANSWER_TIMEOUT, Shared, read_body, upstream_failed};

/// Headers that concern one connection and not the message (RFC 9110, 7.6.1), and those that we set.
const NOT_FORWARDED: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
];

/// Passes a request on and streams the answer back, its headers (`Date` among them) untouched.
pub(super) async fn forward(State(gateway): State<Shared>, request: Request) -> Response {
    let query = request.uri().query().map(str::to_owned);
    let key = match gateway.require_api_key(request.headers(), query.as_deref()) {
        Ok(key) => key,
        Err(refusal) => return *refusal,
    };
    let path = request.uri().path().strip_prefix("/rest/v1").unwrap_or_default();
    let url = upstream_url(&gateway.options.postgrest_url, path, query.as_deref());
    let method = request.method().clone();
    let headers = forwarded(request.headers(), &key);
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let sent = gateway
        .http
        .request(method, url)
        .headers(headers)
        .body(body)
        .send();
    match tokio::time::timeout(ANSWER_TIMEOUT, sent).await {
        Ok(Ok(answer)) => relay(answer),
        Ok(Err(error)) => upstream_failed("PostgREST", &error),
        Err(_) => super::reply(
            axum::http::StatusCode::GATEWAY_TIMEOUT,
            &serde_json::json!({"message": "PostgREST did not answer in time"}),
        ),
    }
}

/// An answer as it came, less what belongs to its connection.
pub(super) fn relay(answer: reqwest::Response) -> Response {
    let status = answer.status();
    let mut headers = answer.headers().clone();
    for name in &NOT_FORWARDED {
        headers.remove(name);
    }
    (status, headers, Body::from_stream(answer.bytes_stream())).into_response()
}

/// PostgREST would take the key in the query for a filter on a column.
fn upstream_url(base: &str, path: &str, query: Option<&str>) -> String {
    let path = if path.is_empty() { "/" } else { path };
    let kept: Vec<&str> = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter(|pair| !pair.is_empty() && !pair.starts_with("apikey="))
        .collect();
    match kept.is_empty() {
        true => format!("{base}{path}"),
        false => format!("{base}{path}?{}", kept.join("&")),
    }
}

fn forwarded(headers: &HeaderMap, key: &str) -> HeaderMap {
    let mut forwarded = headers.clone();
    for name in &NOT_FORWARDED {
        forwarded.remove(name);
    }
    // The body is sent whole, under its own length.
    forwarded.remove(header::CONTENT_LENGTH);
    if !forwarded.contains_key(header::AUTHORIZATION)
        && let Ok(value) = HeaderValue::from_str(&format!("Bearer {key}"))
    {
        forwarded.insert(header::AUTHORIZATION, value);
    }
    forwarded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_taken_out_of_the_query_and_nothing_else_is_touched() {
        let url = |path, query| upstream_url("http://p", path, query);
        assert_eq!(
            url("/t", Some("select=*&apikey=k&id=eq.%20a")),
            "http://p/t?select=*&id=eq.%20a"
        );
        assert_eq!(url("/t", Some("apikey=k")), "http://p/t");
        assert_eq!(url("", None), "http://p/");
    }

    #[test]
    fn a_token_of_the_callers_own_wins_over_the_key() {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("gateway"));
        headers.insert("traceparent", HeaderValue::from_static("00-1"));
        assert_eq!(forwarded(&headers, "key")["authorization"], "Bearer key");
        headers.insert("authorization", HeaderValue::from_static("Bearer mine"));
        let out = forwarded(&headers, "key");
        assert_eq!(out["authorization"], "Bearer mine");
        assert_eq!(out["traceparent"], "00-1");
        assert!(!out.contains_key("host"));
    }
}
