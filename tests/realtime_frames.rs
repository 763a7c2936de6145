//! Every recorded frame of a real Realtime server (supabase/realtime 2.129.8) decodes to what it means and
//! survives a round trip.
//!
//! `THROUGHLINE_FRAMES=<file>` checks another recording of the same form (one JSON object per line with
//! `case`, `dir`, `t_ms`, `frame`) instead of `tests/fixtures/realtime-frames.jsonl`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use throughline::access::realtime::frame::{ClientBinary, Envelope, ServerBinary};
use throughline::access::realtime::message::{Body, Incoming, Wire};
use throughline::access::realtime::{
    BroadcastPayload, Change, ChangeErrorCode, ChangeKind, Extension, JoinConfig, RefusalCode,
    RejectionCause, Status, Vsn,
};

const FIXTURE: &str = "tests/fixtures/realtime-frames.jsonl";

/// Events that our decoder may leave untyped. None of a real server's so far.
const UNTYPED_EVENTS: &[&str] = &[];

/// Sent text that was broken on purpose, to see what the server does with it.
const BROKEN_ON_PURPOSE: &[(&str, &str)] = &[
    ("client-protocol-errors", "not json"),
    (
        "client-protocol-errors",
        r#"{"topic":"phoenix","event":"heartbeat"}"#,
    ),
];

/// Joins whose `config` our types refuse to express, because each is a mistake that the server punishes.
const JOINS_WE_CANNOT_MAKE: &[&str] = &[
    "join-null-filter",
    "join-bogus-event",
    "join-lowercase-event",
    "join-bad-payload",
];

#[test]
fn recorded_frames_decode_to_what_they_mean_and_survive_a_round_trip() {
    let path = std::env::var_os("THROUGHLINE_FRAMES").map_or_else(fixture, PathBuf::from);
    let tally = check(&path).unwrap_or_else(|problems| panic!("{}", problems.join("\n")));
    assert!(
        tally.values().sum::<u32>() > 0,
        "{}: no frame at all",
        path.display()
    );
    for (kind, count) in &tally {
        println!("{count:5} {kind}");
    }
}

#[test]
fn committed_frames_are_all_there_kind_by_kind() {
    let expected = [
        ("close", 127),
        ("http", 10),
        ("note", 154),
        ("recv binary broadcast", 3),
        ("recv broadcast", 5),
        ("recv change DELETE", 56),
        ("recv change INSERT", 125),
        ("recv change UPDATE", 40),
        ("recv change error NoPrimaryKey", 2),
        ("recv change error PayloadTooLarge", 1),
        ("recv change error Unauthorized", 21),
        ("recv legacy change", 1),
        ("recv phx_close", 8),
        ("recv rejection BadBinding", 3),
        ("recv rejection BadFilter", 3),
        ("recv rejection InvalidColumn", 1),
        ("recv rejection NotInPublication", 13),
        ("recv rejection TooManyTimeouts", 2),
        ("recv rejection UnknownRole", 1),
        ("recv reply Error", 10),
        ("recv reply Ok", 179),
        ("recv system live", 97),
        ("recv system ok", 1),
        ("recv system error", 5),
        ("send access_token", 9),
        ("send broadcast", 4),
        ("send broken on purpose", 2),
        ("send heartbeat", 54),
        ("send phx_join", 129),
        ("send phx_leave", 2),
    ];
    let expected: Tally = expected
        .into_iter()
        .map(|(kind, count)| (kind.to_owned(), count))
        .collect();
    let tally = check(&fixture()).unwrap_or_else(|problems| panic!("{}", problems.join("\n")));
    assert_eq!(tally, expected);
}

#[test]
fn a_bad_recording_is_named_by_file_and_line() {
    let lines = [
        json!({"case": "a", "dir": "recv", "t_ms": 1.0, "frame": [null, null, "t", "system", {"status": "ok"}]}).to_string(),
        json!({"case": "a", "dir": "recv", "t_ms": 1.0, "frame": {"binary_hex": "0413"}}).to_string(),
        "{".to_owned(),
        json!({"case": "a", "dir": "recv", "t_ms": 1.0, "frame": [null, null, "t", "phx_new", {}]}).to_string(),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let problems = check(&path).unwrap_err();
    let expected = [
        "payload of `system` has an unexpected shape (missing field `extension`)",
        "binary frame ends inside `user_event`",
        "not a recording line",
        "untyped event `phx_new`",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (index, (problem, expected)) in problems.iter().zip(expected).enumerate() {
        assert!(
            problem.starts_with(&format!("{}:{}: ", path.display(), index + 1)),
            "{problem}"
        );
        assert!(problem.contains(expected), "{problem}");
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(FIXTURE)
}

#[derive(Deserialize)]
struct Line {
    case: String,
    dir: String,
    frame: Value,
}

type Tally = BTreeMap<String, u32>;

/// Checks a recording; all problems, each with file and line.
fn check(path: &Path) -> Result<Tally, Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|error| vec![format!("{}: {error}", path.display())])?;
    let mut tally = Tally::new();
    let mut problems = Vec::new();
    for (index, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        if let Err(problem) = check_line(line, &mut tally) {
            problems.push(format!("{}:{}: {problem}", path.display(), index + 1));
        }
    }
    if problems.is_empty() {
        Ok(tally)
    } else {
        Err(problems)
    }
}

fn check_line(line: &str, tally: &mut Tally) -> Result<(), String> {
    let line: Line = serde_json::from_str(line).map_err(|error| format!("not a recording line: {error}"))?;
    let checked = match line.dir.as_str() {
        "recv" => check_received(&line.frame, tally),
        "send" => check_sent(&line, tally),
        "close" => ensure(
            line.frame["code"].is_u64() && line.frame["reason"].is_string(),
            || "not a close".to_owned(),
        ),
        "http" => ensure(line.frame["status"].is_u64(), || {
            "an HTTP response without status".to_owned()
        }),
        "note" => ensure(line.frame.is_string(), || "a note that is no text".to_owned()),
        other => Err(format!("unknown direction `{other}`")),
    };
    if !["recv", "send"].contains(&line.dir.as_str()) {
        count(tally, &line.dir);
    }
    checked.map_err(|problem| format!("case {}: {problem}", line.case))
}

fn check_received(frame: &Value, tally: &mut Tally) -> Result<(), String> {
    if let Some(bytes) = binary(frame)? {
        let decoded = ServerBinary::decode(&bytes).map_err(|error| error.to_string())?;
        ensure_same(
            "re-encoded binary frame",
            &decoded.encode().map_err(|error| error.to_string())?,
            &bytes,
        )?;
        let incoming = Incoming::decode(Vsn::V2, Wire::Binary(&bytes)).map_err(|error| error.to_string())?;
        return match incoming.body {
            Body::Broadcast(broadcast) => {
                ensure(matches!(broadcast.payload, BroadcastPayload::Json(_)), || {
                    "payload is not JSON".to_owned()
                })?;
                ensure(broadcast.meta.is_some_and(|meta| meta.contains_key("id")), || {
                    "no meta.id".to_owned()
                })?;
                count(tally, "recv binary broadcast");
                Ok(())
            }
            other => Err(format!("a binary frame became {other:?}")),
        };
    }
    let vsn = vsn_of(frame)?;
    let text = frame.to_string();
    let envelope = Envelope::decode(vsn, &text).map_err(|error| error.to_string())?;
    ensure_same("re-encoded frame", &envelope.to_json(vsn), frame)?;
    let incoming = Incoming::decode(vsn, Wire::Text(&text)).map_err(|error| error.to_string())?;
    let payload = &envelope.payload;
    match incoming.body {
        Body::Reply(reply) => {
            ensure_same("response", &reply.response, &payload["response"])?;
            count(tally, &format!("recv reply {:?}", reply.status));
            if reply.status == Status::Error {
                let (code, text) = RefusalCode::parse(&reply.reason());
                ensure(!matches!(code, RefusalCode::Other(_)), || {
                    format!("unknown refusal {code:?}: {text}")
                })?;
            }
        }
        Body::System(system) => {
            ensure_same(
                "message",
                &Value::from(system.message.clone()),
                &payload["message"],
            )?;
            let kind = match (&system.extension, &system.status) {
                (Extension::PostgresChanges, Status::Ok) => "recv system live".to_owned(),
                (Extension::PostgresChanges, Status::Error) => {
                    let cause = RejectionCause::parse(&system.message);
                    ensure(cause != RejectionCause::Other, || {
                        format!("unknown rejection: {}", system.message)
                    })?;
                    let cause = format!("{cause:?}");
                    format!(
                        "recv rejection {}",
                        cause.split([' ', '{']).next().unwrap_or_default()
                    )
                }
                (Extension::System, Status::Ok) => "recv system ok".to_owned(),
                (Extension::System, Status::Error) => "recv system error".to_owned(),
                other => return Err(format!("untyped system message {other:?}")),
            };
            count(tally, &kind);
        }
        Body::Changes(set) => {
            ensure_same("ids", &json!(set.ids), &payload["ids"])?;
            check_change(&set.change, &payload["data"])?;
            let kind = serde_json::from_value::<String>(payload["data"]["type"].clone()).unwrap_or_default();
            count(tally, &format!("recv change {kind}"));
            for error in &set.change.errors {
                ensure(error.code != ChangeErrorCode::Other, || {
                    format!("unknown error {}", error.text)
                })?;
                count(tally, &format!("recv change error {:?}", error.code));
            }
        }
        Body::LegacyChange(change) => {
            check_change(&change, payload)?;
            count(tally, "recv legacy change");
        }
        Body::Broadcast(broadcast) => {
            ensure_same("event", &json!(broadcast.event), &payload["event"])?;
            ensure(
                broadcast.payload == BroadcastPayload::Json(payload["payload"].clone()),
                || "the broadcast's payload changed".to_owned(),
            )?;
            count(tally, "recv broadcast");
        }
        Body::Close => count(tally, "recv phx_close"),
        Body::Crash => count(tally, "recv phx_error"),
        Body::Presence { .. } => count(tally, "recv presence"),
        Body::Unknown { event, .. } if UNTYPED_EVENTS.contains(&event.as_str()) => {
            count(tally, "recv untyped")
        }
        Body::Unknown { event, .. } => return Err(format!("untyped event `{event}`")),
        other @ (Body::BinaryPush { .. } | Body::BinaryReply { .. }) => {
            return Err(format!("a text frame became {other:?}"));
        }
    }
    Ok(())
}

fn check_change(change: &Change, data: &Value) -> Result<(), String> {
    let kind = match change.kind {
        ChangeKind::Insert => "INSERT",
        ChangeKind::Update => "UPDATE",
        ChangeKind::Delete => "DELETE",
    };
    let errors: Vec<&str> = change.errors.iter().map(|error| error.text.as_str()).collect();
    let stamp = change
        .commit_timestamp
        .map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
    let columns: Vec<Value> = change
        .columns
        .iter()
        .map(|column| json!({"name": column.name, "type": column.type_name}))
        .collect();
    ensure_same("type", &json!(kind), &data["type"])?;
    ensure_same("schema", &json!(change.schema), &data["schema"])?;
    ensure_same("table", &json!(change.table), &data["table"])?;
    ensure_same("commit_timestamp", &json!(stamp), &data["commit_timestamp"])?;
    ensure_same("columns", &json!(columns), &data["columns"])?;
    ensure_same("record", &json!(change.record), &data["record"])?;
    ensure_same("old_record", &json!(change.old_record), &data["old_record"])?;
    ensure_same(
        "errors",
        &if errors.is_empty() {
            Value::Null
        } else {
            json!(errors)
        },
        &data["errors"],
    )
}

fn check_sent(line: &Line, tally: &mut Tally) -> Result<(), String> {
    let text = match &line.frame {
        Value::String(text) => text.clone(),
        frame => frame.to_string(),
    };
    if BROKEN_ON_PURPOSE.contains(&(line.case.as_str(), text.as_str())) {
        count(tally, "send broken on purpose");
        return Ok(());
    }
    if let Some(bytes) = binary(&line.frame)? {
        let decoded = ClientBinary::decode(&bytes).map_err(|error| error.to_string())?;
        ensure_same(
            "re-encoded binary frame",
            &decoded.encode().map_err(|error| error.to_string())?,
            &bytes,
        )?;
        count(tally, "send binary");
        return Ok(());
    }
    let vsn = vsn_of(&line.frame)?;
    let envelope = Envelope::decode(vsn, &text).map_err(|error| error.to_string())?;
    let encoded: Value = serde_json::from_str(&envelope.encode(vsn)).map_err(|error| error.to_string())?;
    ensure_same("re-encoded frame", &encoded, &line.frame)?;
    if envelope.event == "phx_join" && !JOINS_WE_CANNOT_MAKE.contains(&line.case.as_str()) {
        let config = envelope
            .payload
            .get("config")
            .cloned()
            .unwrap_or_else(|| json!({}));
        let typed: JoinConfig =
            serde_json::from_value(config.clone()).map_err(|error| format!("join: {error}"))?;
        ensure_same("re-encoded join config", &json!(typed), &config)?;
    }
    count(tally, &format!("send {}", envelope.event));
    Ok(())
}

/// Bytes of a binary frame, which a recording writes as `{"binary_hex": "..."}`.
fn binary(frame: &Value) -> Result<Option<Vec<u8>>, String> {
    let Some(hex) = frame.get("binary_hex") else {
        return Ok(None);
    };
    let hex = hex
        .as_str()
        .filter(|hex| hex.is_ascii() && hex.len() % 2 == 0)
        .ok_or("binary_hex is no hex")?;
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).map_err(|error| format!("binary_hex: {error}"));
    (0..hex.len())
        .step_by(2)
        .map(byte)
        .collect::<Result<_, _>>()
        .map(Some)
}

fn vsn_of(frame: &Value) -> Result<Vsn, String> {
    match frame {
        Value::Object(_) => Ok(Vsn::V1),
        Value::Array(_) => Ok(Vsn::V2),
        other => Err(format!("neither object nor array: {other}")),
    }
}

fn count(tally: &mut Tally, kind: &str) {
    *tally.entry(kind.to_owned()).or_default() += 1;
}

fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}

fn ensure_same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, recorded: &T) -> Result<(), String> {
    ensure(got == recorded, || {
        format!("{what} is {got:?}, recorded was {recorded:?}")
    })
}
