//! Plays the conversations of `recorded.jsonl`, taken from a real server (v2.129.8), against this one and
//! compares every frame. Only what must differ from run to run is levelled: times, row ids, binding ids.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};
use throughline_sandbox::jwt;
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest as _, http};

use crate::lab::{DEADLINE, Lab, OWNER, SECRET, Sentinel, Socket, token, token_for};

const SOMEBODY_ELSE: &str = "22222222-2222-4222-8222-222222222222";

/// One line of the file.
struct Line {
    direction: String,
    frame: Value,
}

fn conversations(prefix: &str) -> BTreeMap<String, Vec<Line>> {
    let mut cases: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for line in include_str!("recorded.jsonl").lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let case = line["case"].as_str().unwrap().to_owned();
        if case.starts_with(prefix) {
            let direction = line["dir"].as_str().unwrap().to_owned();
            cases.entry(case).or_default().push(Line {
                direction,
                frame: line["frame"].take(),
            });
        }
    }
    assert!(!cases.is_empty());
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_handshakes_are_answered_as_recorded() {
    let lab = Lab::start().await;
    for (case, lines) in conversations("connect-") {
        let Some(expected) = lines.iter().find(|line| line.direction == "http") else {
            continue;
        };
        let url = real_tokens(&case, lines[0].frame.as_str().unwrap());
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let Err(tungstenite::Error::Http(response)) = lab.open(query).await else {
            panic!("{case}: not refused")
        };
        let body = String::from_utf8(response.body().clone().unwrap_or_default()).unwrap();
        assert_eq!(
            json!(response.status().as_u16()),
            expected.frame["status"],
            "{case}"
        );
        assert_eq!(json!(body), expected.frame["body"], "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_may_come_in_a_header_and_wins_there() {
    let lab = Lab::start().await;
    let url = format!("ws://{}/socket/websocket?apikey=garbage", lab.address);
    let mut request = url.into_client_request().unwrap();
    request
        .headers_mut()
        .insert("x-api-key", http::HeaderValue::from_str(&token("anon")).unwrap());
    assert!(tokio_tungstenite::connect_async(request).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_are_answered_as_recorded() {
    play("join-").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_basic_conversations_go_as_recorded() {
    play("basic-").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn protocol_errors_are_answered_as_recorded() {
    play("client-protocol-errors").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_bindings_and_a_rejoin_go_as_recorded() {
    play("two-bindings").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_sees_on_every_table_what_was_recorded() {
    play("matrix/").await;
}

async fn play(prefix: &str) {
    let lab = Lab::start().await;
    let mut sentinel = lab.sentinel().await;
    for (case, lines) in conversations(prefix) {
        play_one(&lab, &mut sentinel, &case, &lines).await;
    }
}

async fn play_one(lab: &Lab, sentinel: &mut Sentinel, case: &str, lines: &[Line]) {
    let is_v2 = lines
        .iter()
        .any(|line| line.direction == "send" && line.frame.is_array());
    let api_key = lines[0]
        .frame
        .as_str()
        .and_then(|note| note.split_once("apikey="));
    let key = real_tokens("", api_key.map_or("<jwt role=service_role>", |(_, rest)| rest));
    let key = key.split('&').next().unwrap_or_default();
    let mut socket = lab
        .connect(if is_v2 { "2.0.0" } else { "1.0.0" }, key)
        .await
        .unwrap();
    let mut statements = Some(statements(case));
    let (mut expected, mut received) = (Vec::new(), Vec::new());
    for line in lines {
        match line.direction.as_str() {
            "send" => {
                // What was said before this has been heard before it.
                receive(&mut socket, &mut received, expected.len(), case).await;
                let text = match &line.frame {
                    Value::String(text) => text.clone(),
                    frame => real_tokens(case, &frame.to_string()),
                };
                socket.send_text(&text).await;
            }
            "recv" => {
                let is_change = [&line.frame["event"], &line.frame[3]]
                    .iter()
                    .any(|event| *event == "postgres_changes" || *event == "INSERT");
                if let (true, Some(statements)) = (is_change, statements.take_if(|_| is_change)) {
                    receive(&mut socket, &mut received, expected.len(), case).await;
                    execute(lab, sentinel, statements).await;
                }
                expected.push(line.frame.clone());
            }
            _ => {}
        }
    }
    receive(&mut socket, &mut received, expected.len(), case).await;
    if let Some(statements) = statements {
        execute(lab, sentinel, statements).await;
    }
    received.extend(rest(&mut socket).await);
    let (expected, received) = (level(expected), level(received));
    assert_eq!(
        received,
        expected,
        "{case}\nreceived {}\nexpected {}",
        json!(received),
        json!(expected)
    );
}

/// Each statement is polled before the next one runs, as in the recording.
async fn execute(lab: &Lab, sentinel: &mut Sentinel, statements: Vec<String>) {
    for statement in statements {
        lab.run(&statement).await;
        sentinel.pass(lab).await;
    }
}

async fn receive(socket: &mut Socket, received: &mut Vec<Value>, count: usize, case: &str) {
    while received.len() < count {
        let frame = tokio::time::timeout(DEADLINE, socket.raw()).await;
        received.push(frame.unwrap_or_else(|_| panic!("{case}: {} of {count} frames came", received.len())));
    }
}

/// What is still on its way, up to the answer of a heartbeat.
async fn rest(socket: &mut Socket) -> Vec<Value> {
    socket.say("phoenix", "heartbeat", json!({}), "rest").await;
    let mut frames = Vec::new();
    loop {
        let frame = socket.raw().await;
        if frame["ref"] == "rest" || frame[1] == "rest" {
            return frames;
        }
        frames.push(frame);
    }
}

/// What the laboratory did to the table while a conversation was recorded.
fn statements(case: &str) -> Vec<String> {
    let list = |statements: &[&str]| statements.iter().map(|&statement| statement.to_owned()).collect();
    if case.starts_with("basic-") {
        return list(&[
            "insert into rt_plain (note, n, amount, ok, tags, doc, blob, m, u) values ('first', 7, 12.50, true, \
             '{a,b}', '{\"k\":[1,null]}', '\\xdeadbeef', 'busy', '33333333-3333-4333-8333-333333333333')",
            "update rt_plain set note = 'second', doc = null where note = 'first'",
            "delete from rt_plain where note = 'second'",
        ]);
    }
    if case == "join-no-config" {
        return list(&["insert into rt_plain (note) values ('legacy')"]);
    }
    if case.starts_with("two-bindings") {
        return list(&["insert into rt_pair_a (note) values ('multi')"]);
    }
    let Some(table) = case
        .strip_prefix("matrix/")
        .and_then(|rest| rest.split('/').nth(1))
    else {
        return Vec::new();
    };
    match table {
        "public.rt_part" => Vec::new(),
        "public.rt_nopk" => list(&["insert into rt_nopk (note) values ('x')"]),
        _ => {
            let (columns, values) = match table {
                "public.rt_rls_owner" => ("note, owner", format!("'x', '{OWNER}'")),
                "public.rt_part_1" => ("note, id", "'x', 205542".to_owned()),
                _ => ("note", "'x'".to_owned()),
            };
            vec![
                format!("insert into {table} ({columns}) values ({values})"),
                format!("update {table} set note = 'y'"),
                format!("delete from {table}"),
            ]
        }
    }
}

/// Puts real tokens in the place of the recording's placeholders.
fn real_tokens(case: &str, text: &str) -> String {
    let mut real = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once("<jwt role=") {
        let (what, after) = from.split_once('>').unwrap();
        real.push_str(before);
        real.push_str(&real_token(case, what));
        rest = after;
    }
    real + rest
}

fn real_token(case: &str, what: &str) -> String {
    let signed = |secret: &str, claims: Value| jwt::mint(secret.as_bytes(), &claims);
    let later = chrono::Utc::now().timestamp() + 3_600;
    match what.split_once(' ') {
        Some((role, "expired")) => token_for(role, OWNER, -19),
        _ if what == "None" => signed(SECRET, json!({"exp": later})),
        _ if case.contains("wrong-signature") => {
            signed("another secret", json!({"role": what, "exp": later}))
        }
        _ if case.contains("no-exp") => signed(SECRET, json!({"role": what})),
        _ if case.contains("authed_other") => token_for(what, SOMEBODY_ELSE, 3_600),
        _ => token(what),
    }
}

/// Levels what must differ from run to run.
fn level(frames: Vec<Value>) -> Vec<Value> {
    let mut ids = HashMap::new();
    frames
        .into_iter()
        .map(|frame| level_value("", frame, &mut ids))
        .collect()
}

fn level_value(key: &str, value: Value, ids: &mut HashMap<u64, usize>) -> Value {
    let mut nth = |id: &Value| {
        let next = ids.len();
        json!(*ids.entry(id.as_u64().expect("an id")).or_insert(next))
    };
    match (key, value) {
        ("ids", Value::Array(list)) => list.iter().map(nth).collect(),
        ("postgres_changes", Value::Array(list)) => list
            .into_iter()
            .map(|mut echo| {
                echo["id"] = nth(&echo["id"]);
                echo
            })
            .collect(),
        ("record" | "old_record", Value::Object(mut record)) => {
            if let Some(id) = record.get_mut("id") {
                assert!(id.is_number());
                *id = json!("<row>");
            }
            Value::Object(level_object(record, ids))
        }
        ("commit_timestamp", Value::String(time)) => {
            assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
            json!("<time>")
        }
        ("at", Value::String(time)) => {
            assert!(time.contains('T') && time.ends_with("+00:00"), "{time}");
            json!("<time>")
        }
        ("reason", Value::String(reason)) if reason.contains("has expired") => {
            json!(reason.replace(|c: char| c.is_ascii_digit(), ""))
        }
        (_, Value::Object(object)) => Value::Object(level_object(object, ids)),
        (_, Value::Array(list)) => list.into_iter().map(|item| level_value("", item, ids)).collect(),
        (_, other) => other,
    }
}

fn level_object(object: Map<String, Value>, ids: &mut HashMap<u64, usize>) -> Map<String, Value> {
    object
        .into_iter()
        .map(|(key, value)| {
            let value = level_value(&key, value, ids);
            (key, value)
        })
        .collect()
}
