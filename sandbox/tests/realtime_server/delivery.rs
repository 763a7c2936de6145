//! What of a change is delivered, in which order, and past which filters.

use serde_json::{Value, json};

use crate::lab::{Lab, notes};

fn plain(filter: &str) -> Value {
    json!([{"event": "*", "schema": "public", "table": "rt_plain", "filter": filter}])
}

fn on(table: &str) -> Value {
    json!([{"event": "*", "schema": "public", "table": table}])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_arrives_whole_in_order_and_with_one_commit_time() {
    let lab = Lab::start().await;
    let mut socket = lab.client("service_role").await;
    socket.subscribe("a", on("rt_pair_a")).await;
    lab.run("insert into rt_pair_a (note) select 'row ' || n from generate_series(1, 250) n")
        .await;
    let mut times = Vec::new();
    for n in 1..=250 {
        let change = socket.change().await;
        assert_eq!(change["record"]["note"], format!("row {n}"));
        times.push(change["commit_timestamp"].clone());
    }
    times.dedup();
    assert_eq!(times.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_let_through_what_postgresql_says_they_do() {
    let lab = Lab::start().await;
    let mut socket = lab.client("service_role").await;
    let cases: &[(&str, &[&str])] = &[
        ("n=eq.2", &["two"]),
        ("n=neq.2", &["one", "ten, and"]),
        ("n=lt.2", &["one"]),
        ("n=lte.2", &["one", "two"]),
        ("n=gt.2", &["ten, and"]), // as numbers, not as text
        ("n=gte.2", &["two", "ten, and"]),
        ("n=in.(1,10)", &["one", "ten, and"]),
        ("n=not.in.(1,10)", &["two"]),
        ("note=like.t%", &["two", "ten, and"]),
        ("note=ilike.T%", &["two", "ten, and"]),
        ("note=match.^t.o$", &["two"]),
        ("note=imatch.^T.O$", &["two"]),
        ("note=eq.\"ten, and\"", &["ten, and"]),
        ("n=is.null", &["none"]),
        ("n=not.is.null", &["one", "two", "ten, and"]),
        ("ok=is.true", &["one"]),
        ("n=isdistinct.2", &["one", "ten, and", "none"]),
        ("n=gt.1,n=lt.5", &["two"]),
        ("m=eq.busy", &["two"]),
        ("", &["one", "two", "ten, and", "none"]),
    ];
    for (index, (filter, _)) in cases.iter().enumerate() {
        socket.subscribe(&index.to_string(), plain(filter)).await;
    }
    let mut sentinel = lab.sentinel().await;
    lab.run(
        "insert into rt_plain (note, n, ok, m) values
           ('one', 1, true, 'calm'), ('two', 2, false, 'busy'), ('ten, and', 10, null, null),
           ('none', null, null, null)",
    )
    .await;
    sentinel.pass(&lab).await;
    let frames = socket.drain().await;
    for (index, (filter, expected)) in cases.iter().enumerate() {
        let topic = format!("realtime:{index}");
        let of_case: Vec<Value> = frames
            .iter()
            .filter(|frame| frame["topic"] == *topic)
            .cloned()
            .collect();
        let expected: Vec<String> = expected.iter().map(|note| format!("INSERT {note}")).collect();
        assert_eq!(notes(&of_case), expected, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_are_filtered_on_the_new_row_and_deletes_on_the_identity() {
    let lab = Lab::start().await;
    let mut socket = lab.client("service_role").await;
    let mut sentinel = lab.sentinel().await;
    socket.subscribe("n", plain("n=eq.7")).await;
    socket.subscribe("id", plain("id=gt.0")).await;
    lab.run("insert into rt_plain (note, n) values ('a', 7); update rt_plain set n = 8, note = 'b'")
        .await;
    lab.run("update rt_plain set n = 7, note = 'c'; delete from rt_plain")
        .await;
    sentinel.pass(&lab).await;
    let frames = socket.drain().await;
    let of = |topic: &str| {
        notes(
            &frames
                .iter()
                .filter(|frame| frame["topic"] == *topic)
                .cloned()
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(of("realtime:n"), ["INSERT a", "UPDATE c"]);
    assert_eq!(
        of("realtime:id"),
        ["INSERT a", "UPDATE b", "UPDATE c", "DELETE -"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn truncate_is_never_delivered() {
    let lab = Lab::start().await;
    let mut socket = lab.client("service_role").await;
    let mut sentinel = lab.sentinel().await;
    socket.subscribe("a", on("rt_pair_a")).await;
    lab.run("insert into rt_pair_a (note) values ('a')").await;
    lab.run("truncate rt_pair_a").await;
    sentinel.pass(&lab).await;
    assert_eq!(notes(&socket.drain().await), ["INSERT a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_out_of_line_value_is_missing_and_its_filter_loses_the_update() {
    let lab = Lab::start().await;
    let mut socket = lab.client("service_role").await;
    let mut sentinel = lab.sentinel().await;
    // Incompressible, so that it is really stored out of line.
    lab.run(
        "insert into rt_toast (note)
         select string_agg(md5(n::text), '') from generate_series(1, 400) n",
    )
    .await;
    sentinel.pass(&lab).await;
    socket.subscribe("a", on("rt_toast")).await;
    let filtered = json!([{"event": "*", "schema": "public", "table": "rt_toast", "filter": "note=neq.z"}]);
    socket.subscribe("filtered", filtered).await;
    lab.run("update rt_toast set x = 1").await;
    sentinel.pass(&lab).await;
    let changes = socket.drain().await;
    assert_eq!(changes.len(), 1);
    let data = &changes[0]["payload"]["data"];
    assert_eq!(data["record"], json!({"id": 1, "x": 1}));
    assert_eq!(data["columns"].as_array().unwrap().len(), 3);
    assert_eq!(data["old_record"], json!({"id": 1}));

    lab.run("alter table rt_toast replica identity full; update rt_toast set x = 2")
        .await;
    let data = socket.change().await;
    assert_eq!(data["record"]["note"].as_str().unwrap().len(), 12_800);
    assert_eq!(data["old_record"]["x"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_over_the_limit_keeps_only_its_small_values() {
    let lab = Lab::with(|options| options.limits.record_bytes = 10_000).await;
    let mut socket = lab.client("service_role").await;
    socket.subscribe("a", on("rt_toast")).await;
    lab.run("insert into rt_toast (note, x) values (repeat('x', 10000), 7)")
        .await;
    let data = socket.change().await;
    assert_eq!(data["errors"], json!(["Error 413: Payload Too Large"]));
    assert_eq!(data["record"], json!({"id": 1, "x": 7}));
    assert!(data["commit_timestamp"].is_string());
    lab.run("insert into rt_toast (note) values (repeat('x', 5000))")
        .await;
    assert_eq!(socket.change().await["errors"], json!(null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_shows_the_new_row_and_the_old_key() {
    let lab = Lab::start().await;
    let mut socket = lab.client("service_role").await;
    socket.subscribe("a", on("rt_pair_a")).await;
    lab.run("insert into rt_pair_a (note) values ('a')").await;
    socket.change().await;
    lab.run("update rt_pair_a set id = default").await;
    let data = socket.change().await;
    assert_eq!(
        (&data["record"]["id"], &data["old_record"]),
        (&json!(2), &json!({"id": 1}))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_columns_come_with_the_key_and_nothing_else() {
    let lab = Lab::start().await;
    let mut socket = lab.client("service_role").await;
    let chosen = json!([{"event": "*", "schema": "public", "table": "rt_plain", "select": ["note"]}]);
    socket.subscribe("a", chosen).await;
    lab.run("insert into rt_plain (note, n) values ('a', 7)").await;
    let data = socket.change().await;
    assert_eq!(data["record"], json!({"id": 1, "note": "a"}));
    assert_eq!(
        data["columns"],
        json!([{"name": "id", "type": "int8"}, {"name": "note", "type": "text"}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_all_its_published_tables() {
    let lab = Lab::start().await;
    let mut socket = lab.client("service_role").await;
    socket
        .subscribe("a", json!([{"event": "*", "schema": "public"}]))
        .await;
    lab.run("insert into rt_pair_a (note) values ('a')").await;
    lab.run("insert into app.rt_priv (note) values ('hidden')").await;
    lab.run("insert into rt_full (note) values ('b')").await;
    let tables = [socket.change().await, socket.change().await].map(|data| data["table"].clone());
    assert_eq!(tables, [json!("rt_pair_a"), json!("rt_full")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_many_types_become_json() {
    let lab = Lab::start().await;
    lab.run(
        "create domain positive as numeric check (value > 0);
         create domain names as text[];
         create table many (id uuid primary key, f float8, d date, t timestamp, iv interval, p positive, ns names,
                            grid int[][], ds jsonb[], i inet, bad float8);
         grant select on many to service_role;
         alter publication supabase_realtime add table many",
    )
    .await;
    let mut socket = lab.client("service_role").await;
    socket.subscribe("a", on("many")).await;
    lab.run(
        "insert into many values ('33333333-3333-4333-8333-333333333333', 0.5, '2026-03-01', '2026-03-01 10:00',
           '1 day 02:00', 3.25, '{a,\"b c\"}', '{{1,2},{3,4}}', array['{\"a\": 1}', 'null']::jsonb[], '10.0.0.1', 'NaN')",
    )
    .await;
    assert_eq!(
        socket.change().await["record"],
        json!({
            "id": "33333333-3333-4333-8333-333333333333", "f": 0.5, "d": "2026-03-01",
            "t": "2026-03-01T10:00:00", "iv": "1 day 02:00:00", "p": 3.25, "ns": ["a", "b c"],
            "grid": [[1, 2], [3, 4]], "ds": [{"a": 1}, null], "i": "10.0.0.1", "bad": null,
        })
    );
}
