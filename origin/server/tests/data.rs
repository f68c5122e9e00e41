//! The data API over HTTP: who may, what is answered, what stays consistent.

mod support;

use http::{Method, StatusCode};
use meridian_origin::context::now_ms;
use meridian_wire::context::Context;
use meridian_wire::session::Session;
use serde_json::{Value, json};
use support::{Region, Reply, context, context_keys};

const RECORDS: &str = "/v1/collections/orders/records";

async fn create(region: &Region, tenant: &str, fields: Value) -> Reply {
    let made = region.as_tenant(tenant, Method::POST, RECORDS, Some(&fields)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    made
}

fn location(made: &Reply) -> String {
    made.header("location").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_valid_context_is_let_in() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let good = || context("acme", &["orders:read"]);
    let ask = async |context: &Context,
                     change: fn(&mut http::Request<http_body_util::Full<bytes::Bytes>>)| {
        let mut request = region.forwarded(context, Method::GET, RECORDS, None);
        change(&mut request);
        region.send(request).await
    };
    let used = good();
    assert_eq!(ask(&used, |_| {}).await.status, StatusCode::OK);
    let again = ask(&used, |_| {}).await;
    assert_eq!((again.status, again.problem().as_str()), (StatusCode::CONFLICT, "context-replayed"));
    let retried = ask(&Context { attempt: 1, ..used.clone() }, |_| {}).await;
    assert_eq!(retried.status, StatusCode::OK, "the next attempt of the same decision is another use");

    let missing = ask(&good(), |request| drop(request.headers_mut().remove("meridian-context"))).await;
    assert_eq!((missing.status, missing.problem().as_str()), (StatusCode::UNAUTHORIZED, "context-missing"));
    let old = ask(&Context { issued_ms: now_ms() - 31_000, ..good() }, |_| {}).await;
    assert_eq!((old.status, old.problem().as_str()), (StatusCode::UNAUTHORIZED, "context-expired"));
    let early = ask(&Context { issued_ms: now_ms() + 7_000, ..good() }, |_| {}).await;
    assert_eq!((early.status, early.problem().as_str()), (StatusCode::UNAUTHORIZED, "context-not-yet"));
    for (what, change) in [
        ("method", (|request| *request.method_mut() = Method::POST) as fn(&mut http::Request<_>)),
        ("path", |request| *request.uri_mut() = http::Uri::from_static("/v1/whoami")),
        ("query", |request| {
            *request.uri_mut() = http::Uri::from_static("/v1/collections/orders/records?limit=1");
        }),
        ("authority", |request| {
            request.headers_mut().insert("host", "127.0.0.1:1".parse().expect("a host"));
        }),
    ] {
        let forged = ask(&good(), change).await;
        assert_eq!(forged.status, StatusCode::UNAUTHORIZED, "{what}: {forged:?}");
        assert_eq!(forged.problem(), "context-bad-signature", "{what}");
    }
    let other = ask(&Context { scopes: vec!["customers:read".into()], ..good() }, |_| {}).await;
    assert_eq!((other.status, other.problem().as_str()), (StatusCode::FORBIDDEN, "insufficient-scope"));
    let signed = good();
    let nobody = ask(&Context { tenant: Some("nobody".into()), ..signed.clone() }, |_| {}).await;
    assert_eq!((nobody.status, nobody.problem().as_str()), (StatusCode::FORBIDDEN, "unknown-tenant"));
    assert_eq!(nobody.json()["decision"], signed.decision.as_str(), "a problem names the decision");
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_made_read_changed_and_deleted() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let made = create(&region, "acme", json!({"status": "open", "total": 12.5, "labels": ["b", "a"]})).await;
    let record = made.json();
    assert_eq!(location(&made), format!("{RECORDS}/{}", record["id"].as_str().unwrap()));
    assert_eq!((&record["status"], &record["labels"]), (&json!("open"), &json!(["a", "b"])));
    let path = location(&made);

    let read = region.as_tenant("acme", Method::GET, &path, None).await;
    assert_eq!(read.json(), record);
    assert_eq!(read.header("etag"), made.header("etag"));
    assert_eq!(read.header("cache-tag"), format!("orders/{}", record["id"].as_str().unwrap()));
    let freshness = "public, max-age=0, s-maxage=60, stale-while-revalidate=30, no-transform";
    assert_eq!(read.header("cache-control"), freshness);
    assert_eq!(made.header("cache-control"), "no-store, no-transform");
    assert_eq!((read.header("vary"), read.header("meridian-region")), ("Accept", "us-east-1"));

    let conditional = async |name: &'static str, etag: &str, method: Method, body: Option<&Value>| {
        let context = context("acme", &["orders:read", "orders:write"]);
        let mut request = region.forwarded(&context, method, &path, body);
        request.headers_mut().insert(name, etag.parse().expect("an entity tag"));
        region.send(request).await
    };
    let first = read.header("etag").to_owned();
    let unchanged = conditional("if-none-match", &first, Method::GET, None).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (StatusCode::NOT_MODIFIED, 0));

    let patch = json!({"status": "paid", "total": null, "reprints": {"$add": 2}, "labels": {"$add": ["c"], "$remove": ["a"]}});
    let changed = conditional("if-match", &first, Method::PATCH, Some(&patch)).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    let changed_record = changed.json();
    assert_eq!((&changed_record["status"], &changed_record["reprints"]), (&json!("paid"), &json!(2)));
    assert_eq!((&changed_record["labels"], changed_record.get("total")), (&json!(["b", "c"]), None));
    assert_ne!(changed.header("etag"), first);
    let read = region.as_tenant("acme", Method::GET, &path, None).await;
    assert_eq!(read.json(), changed_record, "what was kept in memory went stale with the write");

    let stale = conditional("if-match", &first, Method::PATCH, Some(&json!({"status": "open"}))).await;
    assert_eq!(
        (stale.status, stale.problem().as_str()),
        (StatusCode::PRECONDITION_FAILED, "version-differs")
    );
    let weak = format!("W/{}", changed.header("etag"));
    let weak = conditional("if-match", &weak, Method::DELETE, None).await;
    assert_eq!(weak.status, StatusCode::PRECONDITION_FAILED, "RFC 9110 13.1.1: a strong comparison");
    let stale = conditional("if-match", "\"odd\"", Method::DELETE, None).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    let wrong = region.as_tenant("acme", Method::PATCH, &path, Some(&json!({"status": "lost"}))).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(wrong.json()["errors"][0]["path"], "/status");

    let gone = conditional("if-match", changed.header("etag"), Method::DELETE, None).await;
    assert_eq!((gone.status, gone.body.len()), (StatusCode::NO_CONTENT, 0));
    let read = region.as_tenant("acme", Method::GET, &path, None).await;
    assert_eq!((read.status, read.problem().as_str()), (StatusCode::NOT_FOUND, "not-found"));
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_never_see_one_another() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    region.tenant("globex").await;
    let path = location(&create(&region, "acme", json!({"status": "open"})).await);
    // Twice: the second answer would come from memory.
    for _ in 0..2 {
        assert_eq!(region.as_tenant("acme", Method::GET, &path, None).await.status, StatusCode::OK);
        assert_eq!(
            region.as_tenant("acme", Method::GET, RECORDS, None).await.json()["records"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        assert_eq!(region.as_tenant("globex", Method::GET, &path, None).await.status, StatusCode::NOT_FOUND);
        assert_eq!(region.as_tenant("globex", Method::GET, RECORDS, None).await.json()["records"], json!([]));
    }
    let patched = region.as_tenant("globex", Method::PATCH, &path, Some(&json!({"status": "paid"}))).await;
    assert_eq!(patched.status, StatusCode::NOT_FOUND);
    assert_eq!(region.as_tenant("globex", Method::DELETE, &path, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(region.as_tenant("acme", Method::GET, &path, None).await.json()["status"], "open");

    let session = region.as_tenant("acme", Method::GET, RECORDS, None).await;
    let token = session.header("meridian-session");
    assert!(Session::verify(token, &context_keys(), "acme").is_ok());
    assert!(Session::verify(token, &context_keys(), "globex").is_err(), "a session is of one tenant");
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_is_done_once() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let send = async |subject: &str, key: &str, fields: Value| {
        let context = Context { subject: Some(subject.to_owned()), ..context("acme", &["orders:write"]) };
        let mut request = region.forwarded(&context, Method::POST, RECORDS, Some(&fields));
        request.headers_mut().insert("idempotency-key", key.parse().expect("a key"));
        region.send(request).await
    };
    // At once: whoever comes second waits for the first and gets its answer.
    let order = || json!({"status": "open", "total": 1});
    let answers = futures_util::future::join_all((0..5).map(|_| send("ada", "k1", order()))).await;
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        assert_eq!(answer.json(), answers[0].json());
        assert_eq!(answer.header("location"), answers[0].header("location"));
        assert_eq!(answer.header("etag"), answers[0].header("etag"));
    }
    let other = send("ada", "k1", json!({"status": "paid"})).await;
    assert_eq!(
        (other.status, other.problem().as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused")
    );
    assert_ne!(
        send("bob", "k1", order()).await.json()["id"],
        answers[0].json()["id"],
        "a key is its subject's"
    );
    let of_issuer = async |issuer: &str| {
        let signed = context("acme", &["orders:write"]);
        let context = Context { issuer: Some(issuer.to_owned()), subject: Some("ada".to_owned()), ..signed };
        let mut request = region.forwarded(&context, Method::POST, RECORDS, Some(&order()));
        request.headers_mut().insert("idempotency-key", "k3".parse().expect("a key"));
        region.send(request).await.json()["id"].clone()
    };
    let (one, other) = (of_issuer("https://a.example").await, of_issuer("https://b.example").await);
    assert_ne!(one, other, "one subject of two issuers is two people");
    assert_eq!(of_issuer("https://a.example").await, one);
    // What failed was not done and may be tried again with the same key.
    assert_eq!(send("ada", "k2", json!({"status": "lost"})).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(send("ada", "k2", order()).await.status, StatusCode::CREATED);
    let all = region.as_tenant("acme", Method::GET, RECORDS, None).await.json();
    assert_eq!(all["records"].as_array().unwrap().len(), 5);
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_batches() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let operations: Vec<_> =
        (0..30).map(|total| json!({"op": "create", "record": {"status": "open", "total": total}})).collect();
    let batch = json!({"operations": operations});
    let done = region.as_tenant("acme", Method::POST, "/v1/collections/orders/batch", Some(&batch)).await;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
    assert_eq!(done.json()["results"].as_array().unwrap().len(), 30);

    let mut totals = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("{RECORDS}?order=-total&limit=7&total%5Bgte%5D=5{cursor}");
        let page = region.as_tenant("acme", Method::GET, &path, None).await.json();
        totals.extend(
            page["records"].as_array().unwrap().iter().map(|record| record["total"].as_i64().unwrap()),
        );
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(totals, (5..30).rev().collect::<Vec<_>>());
    let wrong = region.as_tenant("acme", Method::GET, &format!("{RECORDS}?limit=201"), None).await;
    assert_eq!((wrong.status, wrong.problem().as_str()), (StatusCode::BAD_REQUEST, "bad-query"));

    // All or nothing, and the answer says which operation it was.
    let id = done.json()["results"][0]["record"]["id"].clone();
    let batch = json!({"operations": [
        {"op": "patch", "id": id, "record": {"status": "paid"}},
        {"op": "delete", "id": "00000000-0000-7000-8000-000000000000"},
    ]});
    let failed = region.as_tenant("acme", Method::POST, "/v1/collections/orders/batch", Some(&batch)).await;
    assert_eq!(
        (failed.status, &failed.json()["operation"]),
        (StatusCode::NOT_FOUND, &json!(1)),
        "{failed:?}"
    );
    let path = format!("{RECORDS}/{}", id.as_str().unwrap());
    assert_eq!(region.as_tenant("acme", Method::GET, &path, None).await.json()["status"], "open");
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_never_older_than_a_write_that_was_answered() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let path = location(&create(&region, "acme", json!({"status": "open", "total": 0})).await);
    let writer = async {
        for total in 1..=60 {
            let done = region.as_tenant("acme", Method::PATCH, &path, Some(&json!({"total": total}))).await;
            assert_eq!(done.status, StatusCode::OK);
            for read in [RECORDS, path.as_str()] {
                let body = region.as_tenant("acme", Method::GET, read, None).await.json();
                let found = body.get("records").map_or(&body, |records| &records[0])["total"].as_i64();
                assert_eq!(found, Some(total), "{read} after the write of {total}");
            }
        }
    };
    // Others read all the time, so that old answers are kept in memory at every moment.
    let readers = (0..4).map(|_| async {
        for _ in 0..150 {
            region.as_tenant("acme", Method::GET, RECORDS, None).await;
            region.as_tenant("acme", Method::GET, &path, None).await;
        }
    });
    tokio::join!(writer, futures_util::future::join_all(readers));
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let large = json!({"status": "x".repeat(2 * 1024 * 1024)});
    let batch = json!({"operations": [{"op": "create", "record": large}]});
    for (path, body) in [(RECORDS, &large), ("/v1/collections/orders/batch", &batch)] {
        let refused = region.as_tenant("acme", Method::POST, path, Some(body)).await;
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (StatusCode::PAYLOAD_TOO_LARGE, "too-large")
        );
    }
    for path in ["/v1/collections/%FF/records", "/v1/collections/orders/records/%FF"] {
        let refused = region.as_tenant("acme", Method::GET, path, None).await;
        assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::BAD_REQUEST, "bad-request"));
    }
    for path in ["/tenants?limit=many", "/domains?limit=many", "/audit?limit=many", "/decisions/a?local=so"] {
        let refused = region.control(Method::GET, path, None).await;
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (StatusCode::BAD_REQUEST, "bad-request"),
            "{path}"
        );
    }
    let text = region.as_tenant("acme", Method::POST, RECORDS, Some(&json!([1]))).await;
    assert_eq!((text.status, text.problem().as_str()), (StatusCode::BAD_REQUEST, "bad-request"));
    region.serving.stop().await;
}
