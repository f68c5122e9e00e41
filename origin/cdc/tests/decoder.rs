//! The decoder on what a real PostgreSQL writes, and on what none ever would.
//!
//! `tests/corpus/*.hex` holds messages captured from PostgreSQL, one a line. To capture them anew, run these tests
//! with `MERIDIAN_WRITE_CORPUS=1`.

#[path = "../../store/tests/cluster/mod.rs"]
mod cluster;

use std::path::PathBuf;
use std::sync::LazyLock;

use cluster::Cluster;
use meridian_cdc::decode::{Message, Value, read};
use meridian_store::sqlx::{self, AssertSqlSafe, Executor};
use proptest::prelude::*;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let lines = files.iter().flat_map(|file| {
        std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    });
    lines
        .map(|line| {
            (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
        })
        .collect()
});

/// What is captured, by file: every kind of message, value and replica identity that matters here.
const CASES: [(&str, &str); 6] = [
    ("insert", "insert into meridian.record (tenant, collection, id, fields) values
        ('acme', 'orders', '01900000-0000-7000-8000-000000000001', '{\"grün\": [1, null, \"x\"]}'),
        ('acme', 'orders', '01900000-0000-7000-8000-000000000002', '{}')"),
    ("update", "update meridian.record set fields = '{\"a\": 2}' where id = '01900000-0000-7000-8000-000000000001'"),
    ("bury", "delete from meridian.record where id = '01900000-0000-7000-8000-000000000002'"),
    ("full", "insert into meridian.tenant (slug, name, state, home_region, allowed_regions, created_at_ms, updated_at_ms)
              values ('acme', 'Acme', 'active', 'us-east-1', '{us-east-1}', 1, 1);
              update meridian.tenant set allowed_regions = '{us-east-1,eu-west-1}'"),
    ("toast", "insert into meridian.record (tenant, collection, id, fields)
               select 'acme', 'large', '01900000-0000-7000-8000-000000000003',
                      jsonb_build_object('large', string_agg(md5(n::text), '')) from generate_series(1, 200) n;
               update meridian.record set updated_at = created_at where collection = 'large'"),
    ("origin", "select pg_replication_origin_create('meridian_eu-west-1');
                select pg_replication_origin_session_setup('meridian_eu-west-1');
                begin;
                select pg_replication_origin_xact_setup('0/99', now());
                insert into meridian.collection (tenant, name, json_schema) values ('acme', 'orders', '{}');
                commit;
                select pg_replication_origin_session_reset()"),
];

#[tokio::test(flavor = "multi_thread")]
async fn reads_everything_that_postgresql_writes() {
    let cluster = Cluster::start("us-east-1", 1).await;
    let mut sql = cluster.superuser().await;
    sql.execute("select pg_create_logical_replication_slot('corpus', 'pgoutput')").await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for (name, statements) in CASES {
        sqlx::raw_sql(statements).execute(&mut sql).await.unwrap();
        let messages: Vec<Vec<u8>> = sqlx::query_scalar(
            "select data from pg_logical_slot_get_binary_changes('corpus', null, null,
                 'proto_version', '1', 'publication_names', 'meridian')",
        )
        .fetch_all(&mut sql)
        .await
        .unwrap();
        assert!(messages.len() >= 3, "{name}");
        for message in &messages {
            let read = read(message).unwrap_or_else(|error| panic!("{name}: {error}"));
            seen.insert(kind(&read));
        }
        if std::env::var_os("MERIDIAN_WRITE_CORPUS").is_some() {
            let hex =
                |message: &Vec<u8>| message.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let text: Vec<String> = messages.iter().map(hex).collect();
            std::fs::create_dir_all(directory()).unwrap();
            std::fs::write(directory().join(format!("{name}.hex")), text.join("\n") + "\n").unwrap();
        }
    }
    let expected = [
        "begin",
        "commit",
        "insert",
        "origin",
        "relation",
        "update",
        "update with old row",
        "update with unchanged",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
    let gone = sqlx::query(AssertSqlSafe("select pg_drop_replication_slot('corpus')".to_owned()))
        .execute(&mut sql)
        .await;
    assert!(gone.is_ok());
}

fn kind(message: &Message<'_>) -> &'static str {
    match message {
        Message::Begin { .. } => "begin",
        Message::Commit { .. } => "commit",
        Message::Origin { .. } => "origin",
        Message::Relation(_) => "relation",
        Message::Insert { .. } => "insert",
        Message::Update { old: Some(_), .. } => "update with old row",
        Message::Update { new, .. } if new.contains(&Value::Unchanged) => "update with unchanged",
        Message::Update { .. } => "update",
        Message::Delete { .. } => "delete",
        Message::Other => "other",
    }
}

#[test]
fn the_corpus_still_reads() {
    assert!(CORPUS.len() > 25, "{} messages", CORPUS.len());
    for message in CORPUS.iter() {
        read(message).unwrap();
        for cut in 0..message.len() {
            assert!(read(&message[..cut]).is_err(), "a message cut at {cut} is not whole");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// A captured message with bytes changed, taken away and put in: read or refused, never a panic.
    #[test]
    fn no_bytes_make_it_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..12),
    ) {
        let mut message = CORPUS[which.index(CORPUS.len())].clone();
        for (at, byte, what) in changes {
            if message.is_empty() {
                break;
            }
            let at = at.index(message.len());
            match what {
                0 => message[at] = byte,
                1 => message[at] ^= 1 << (byte % 8),
                2 => { message.remove(at); }
                _ => message.insert(at, byte),
            }
        }
        let _ = read(&message);
    }

    #[test]
    fn nor_does_noise(message in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&message);
    }
}
