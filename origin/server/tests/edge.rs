//! The edge API over HTTP.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use meridian_origin::serve::start;
use meridian_origin::traces::Traces;
use meridian_wire::authored::File;
use meridian_wire::context::Context;
use meridian_wire::signature::Ticket;
use serde_json::{Value, json};
use support::cluster::Cluster;
use support::{
    CONTROL_TOKEN, METRICS_TOKEN, Region, Reply, bundle_keys, config, context, context_keys, free_port, until,
};

/// The least that is a function's component.
const COMPONENT: &[u8] = include_bytes!("../../../tests/corpus/rules/shop/shop/pass.wasm");

#[tokio::test(flavor = "multi_thread")]
async fn edges_prove_to_be_edges() {
    let region = Region::alone().await;
    for (method, path) in [
        (Method::POST, "/edge/v1/sync"),
        (Method::GET, "/edge/v1/hosts/acme.localhost"),
        (Method::GET, "/edge/v1/bundles/platform"),
        (Method::GET, "/edge/v1/bundles/tenant:acme/00/functions/00"),
        (Method::POST, "/edge/v1/leases"),
        (Method::POST, "/edge/v1/events"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Full::default()).expect("a request");
        let refused = region.send(request).await;
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (StatusCode::UNAUTHORIZED, "context-missing"),
            "{path}"
        );
    }
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_for_one_url_of_an_origin_is_for_no_other() {
    let cluster = Cluster::start("us-east-1", 1).await;
    let mut config = config(&cluster, free_port(), vec![]);
    let urls = ["https://us.origin.example", "https://us-2.origin.example:8443"];
    config.public_urls = urls.map(|url| url.parse().expect("a URL")).to_vec();
    let region = Region::of(cluster, start(config, Traces::default()).await.expect("the origin starts"));
    let path = "/edge/v1/sync";
    let own = region.authority();
    for (signed_for, host, status) in [
        ("us.origin.example", "us.origin.example", StatusCode::OK),
        ("us-2.origin.example:8443", "us-2.origin.example:8443", StatusCode::OK),
        ("us.origin.example", "us-2.origin.example:8443", StatusCode::UNAUTHORIZED),
        ("us-2.origin.example:8443", "us.origin.example", StatusCode::UNAUTHORIZED),
        ("us-2.origin.example", "us-2.origin.example:8443", StatusCode::UNAUTHORIZED),
        // A server in front may name another host: then it is the first.
        ("us.origin.example", "behind.example", StatusCode::OK),
        ("us-2.origin.example:8443", "behind.example", StatusCode::UNAUTHORIZED),
        ("eu.origin.example", "eu.origin.example", StatusCode::UNAUTHORIZED),
        // Where it listens says nothing of who it is.
        (own.as_str(), own.as_str(), StatusCode::UNAUTHORIZED),
    ] {
        let edge = Context { tenant: None, subject: None, ..context("", &[]) };
        let request = Request::post(path)
            .header(HOST, host)
            .header("meridian-context", edge.sign(&context_keys(), "POST", signed_for, path))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(json!({"edge": "e", "targets": {}, "purge_cursor": null}).to_string()))
            .expect("a request");
        let reply = region.send(request).await;
        assert_eq!(reply.status, status, "{signed_for} at {host}: {reply:?}");
    }
    region.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostname_makes_a_new_release_that_edges_see() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let sync = async |cursor: Value| {
        let ask =
            json!({"edge": "e", "targets": {"tenant:acme": 0, "tenant:nobody": 0}, "purge_cursor": cursor});
        let reply = region.as_edge(Method::POST, "/edge/v1/sync", Some(&ask)).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        reply.json()
    };
    let before = sync(json!(null)).await;
    assert_eq!(before["heads"]["tenant:acme"]["sequence"], 1, "a tenant has a release from the start");
    assert!(before["heads"].get("tenant:nobody").is_none());
    assert_eq!(
        region.as_edge(Method::GET, "/edge/v1/hosts/acme.localhost", None).await.status,
        StatusCode::NOT_FOUND
    );

    for hostname in ["acme.localhost", "*.acme.example"] {
        let domain = json!({"hostname": hostname, "tenant": "acme"});
        let made = region.control(Method::POST, "/domains", Some(&domain)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    }
    let after = sync(before["purge_cursor"].clone()).await;
    assert_eq!(after["heads"]["tenant:acme"]["sequence"], 3);
    for (host, matched) in [("acme.localhost", "acme.localhost"), ("SHOP.acme.example", "*.acme.example")] {
        let found = region.as_edge(Method::GET, &format!("/edge/v1/hosts/{host}"), None).await.json();
        assert_eq!((&found["tenant"], &found["matched"]), (&json!("acme"), &json!(matched)));
    }

    let bundle = region.as_edge(Method::GET, "/edge/v1/bundles/tenant:acme", None).await;
    let version = after["heads"]["tenant:acme"]["version"].as_str().unwrap();
    assert_eq!(bundle.header("etag"), format!("\"{version}\""));
    let ticket = Ticket::verify(bundle.header("meridian-ticket"), &bundle_keys()).expect("a ticket");
    assert_eq!((ticket.sequence, ticket.sha256), (3, meridian_wire::encoding::sha256_hex(&bundle.body)));
    let text = String::from_utf8(bundle.body.to_vec()).unwrap();
    assert!(text.contains("acme.localhost") && text.contains("*.acme.example"), "{text}");

    let edge = Context { tenant: None, subject: None, ..context("", &[]) };
    let mut request = region.forwarded(&edge, Method::GET, "/edge/v1/bundles/tenant:acme", None);
    request.headers_mut().insert("if-none-match", format!("\"{version}\"").parse().unwrap());
    let unchanged = region.send(request).await;
    assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED);
    assert_eq!(unchanged.header("meridian-ticket"), bundle.header("meridian-ticket"));
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_found_by_the_release_that_names_it() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    region.tenant("globex").await;
    let head = async |tenant: &str| {
        let head = region.control(Method::GET, &format!("/targets/tenant:{tenant}/head"), None).await.json();
        head["version"].as_str().expect("a version").to_owned()
    };
    let before = head("acme").await;
    let rules =
        "apiVersion: meridian/v1\nkind: Function\nmetadata: {name: pass}\nspec: {component: f/pass.wasm}\n";
    let file = File::of("f/pass.wasm".to_owned(), COMPONENT.to_vec()).expect("bytes are bytes");
    let push = json!({
        "parent": before,
        "files": [
            {"path": "rules.yaml", "content": rules},
            {"path": file.path, "content": file.content},
        ],
        "note": null,
    });
    let made = region.control(Method::POST, "/targets/tenant:acme/releases", Some(&push)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let (after, other) = (head("acme").await, head("globex").await);
    let digest = meridian_wire::encoding::sha256_hex(COMPONENT);
    let get = async |target: &str, version: &str, digest: &str| {
        let path = format!("/edge/v1/bundles/{target}/{version}/functions/{digest}");
        region.as_edge(Method::GET, &path, None).await
    };
    let found = get("tenant:acme", &after, &digest).await;
    assert_eq!((found.status, &found.body[..]), (StatusCode::OK, COMPONENT));
    assert!(found.header("cache-control").contains("immutable"));
    for (target, version, digest) in [
        ("tenant:acme", before.as_str(), digest.as_str()),
        ("tenant:acme", after.as_str(), &digest.replace('6', "7")),
        ("tenant:globex", after.as_str(), &digest),
        ("tenant:globex", other.as_str(), &digest),
        ("platform", after.as_str(), &digest),
        ("nothing", after.as_str(), &digest),
    ] {
        let refused = get(target, version, digest).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{target} {version} {digest}");
    }
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_edge_forwards_for_a_client_reaches_the_data_api_alone() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let ask = async |context: &Context, method: Method, path: &str| {
        let mut request = region.forwarded(context, method, path, None);
        request.headers_mut().insert("authorization", format!("Bearer {CONTROL_TOKEN}").parse().unwrap());
        region.send(request).await
    };
    let absent = ask(&context("acme", &[]), Method::GET, "/nowhere").await;
    assert_eq!((absent.status, absent.problem().as_str()), (StatusCode::NOT_FOUND, "not-found"));
    // Whatever paths the rules of a tenant let through, and whatever else the client knows.
    for (method, path) in [
        (Method::GET, "/metrics"),
        (Method::GET, "/openapi.json"),
        (Method::GET, "/healthz"),
        (Method::GET, "/readyz"),
        (Method::POST, "/metrics"),
        (Method::GET, "/control/v1/tenants"),
        (Method::PUT, "/control/v1/tenants"),
        (Method::GET, "/replication/v1/stream"),
        (Method::GET, "/edge/v1/bundles/tenant:globex"),
        (Method::GET, "/edge/v1/bundles/tenant:acme/00/functions/00"),
        (Method::GET, "/edge/v1/hosts/acme.localhost"),
        (Method::GET, "/edge/v1/sync"),
        (Method::POST, "/edge/v1/sync"),
    ] {
        let client = context("acme", &["orders:read"]);
        let refused = ask(&client, method.clone(), path).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{method} {path}: {refused:?}");
        let titles = |reply: &Reply| (reply.json()["title"].clone(), reply.json()["detail"].clone());
        assert_eq!(titles(&refused), titles(&absent), "{method} {path}: as if it were not there");
    }
    // Nor does an edge ask anything but the edge API for itself.
    let edge = || Context { tenant: None, subject: None, ..context("", &[]) };
    for path in ["/metrics", "/control/v1/tenants", "/replication/v1/stream"] {
        assert_eq!(ask(&edge(), Method::GET, path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    // Nor does what an edge sends to an upstream of a tenant, wherever that leads.
    let direct = async |path: &str, loops: &str, token: &str| {
        let request = Request::get(path.to_owned()).header("cdn-loop", loops);
        let request = request.header("authorization", format!("Bearer {token}"));
        region.send(request.body(Full::default()).expect("a request")).await.status
    };
    for (path, token) in [
        ("/metrics", METRICS_TOKEN),
        ("/control/v1/tenants", CONTROL_TOKEN),
        ("/openapi.json", ""),
        ("/healthz", ""),
    ] {
        assert_eq!(
            direct(path, "other.example, Meridian; a=b", token).await,
            StatusCode::NOT_FOUND,
            "{path}"
        );
        assert_eq!(direct(path, "other.example", token).await, StatusCode::OK, "{path}");
    }
    assert_eq!(direct("/metrics", "other.example", CONTROL_TOKEN).await, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&edge(), Method::GET, "/v1/whoami").await.status, StatusCode::FORBIDDEN);
    assert_eq!(ask(&context("acme", &[]), Method::GET, "/v1/whoami").await.status, StatusCode::OK);
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_never_exceed_the_limit() {
    let region = Region::alone().await;
    let granted = AtomicU64::new(0);
    let edge = async || {
        for _ in 0..20 {
            let ask = json!({"tenant": "acme", "limit": "per-subject", "key": "ab", "region": "us-east-1", "cost": 1, "quota": 100,
                "window_ms": 3_600_000, "burst": 100, "amount": 7});
            let reply = region.as_edge(Method::POST, "/edge/v1/leases", Some(&ask)).await;
            assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
            granted.fetch_add(reply.json()["granted"].as_u64().unwrap(), Ordering::SeqCst);
        }
    };
    futures_util::future::join_all((0..10).map(|_| edge())).await;
    let granted = granted.load(Ordering::SeqCst);
    assert!((95..=101).contains(&granted), "{granted} units of 100 within an hour");
    let odd = json!({"tenant": "acme", "limit": "l", "key": "k", "region": "us-east-1", "cost": 0, "quota": 1, "window_ms": 1, "burst": 1, "amount": 1});
    let refused = region.as_edge(Method::POST, "/edge/v1/leases", Some(&odd)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_found_by_their_decision() {
    let region = Region::alone().await;
    let event = |id: &str| {
        json!({"id": id, "at_ms": meridian_origin::context::now_ms(), "tenant": "acme", "bundle": null, "route": "orders",
            "outcome": "forwarded", "status": 200, "region": "us-east-1", "subject_hash": null, "cache": null,
            "method": "GET", "host": "acme.localhost", "path": "/v1/whoami", "country": "DE", "elapsed_ms": 3,
            "explanation": [{"stage": "host", "rule": null, "outcome": "matched", "inputs": {}}]})
    };
    // The same decision twice, as when an edge did not get the answer to its first report.
    for _ in 0..2 {
        let batch = json!({"edge": "e", "events": [event("01A"), event("01B")]});
        let taken = region.as_edge(Method::POST, "/edge/v1/events", Some(&batch)).await;
        assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    }
    let found = loop {
        let found = region.control(Method::GET, "/decisions/01A", None).await;
        if found.status == StatusCode::OK {
            break found.json();
        }
        assert_eq!(found.status, StatusCode::NOT_FOUND);
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (&found["event"]["explanation"][0]["stage"], &found["edge"]),
        (&json!("host"), &json!("test-edge"))
    );
    // One that the database will not have takes none of the others with it.
    let mut bad = event("bad");
    bad["path"] = json!("/\u{0}");
    let batch = json!({"edge": "e", "events": [event("01C"), bad, event("01D"), event("01E")]});
    let taken = region.as_edge(Method::POST, "/edge/v1/events", Some(&batch)).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    for id in ["01C", "01D", "01E"] {
        until("the good events of a batch", async || {
            let found = region.control(Method::GET, &format!("/decisions/{id}"), None).await;
            (found.status == StatusCode::OK).then_some(())
        })
        .await;
    }
    let metrics = region.metrics().await;
    assert!(metrics.contains("meridian_events_dropped_total 1\n"), "{metrics}");
    let many: Vec<_> = (0..501).map(|number| event(&format!("m{number}"))).collect();
    let refused =
        region.as_edge(Method::POST, "/edge/v1/events", Some(&json!({"edge": "e", "events": many}))).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_by_hand_reaches_the_journal() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let sync = async |cursor: &Value| {
        let ask = json!({"edge": "e", "targets": {}, "purge_cursor": cursor});
        region.as_edge(Method::POST, "/edge/v1/sync", Some(&ask)).await.json()
    };
    // The collection's own declaration is journalled a moment after it is made.
    let before = until("the purge of the declaration", async || {
        let before = sync(&json!(null)).await;
        before["purges"].as_array()?.iter().any(|purge| purge["source"] == 1).then_some(before)
    })
    .await;
    let purge = json!({"tenant": "acme", "tags": ["orders", "*"]});
    let done = region.control(Method::POST, "/purges", Some(&purge)).await;
    assert_eq!(
        (done.status, &done.json()["regions"]),
        (StatusCode::ACCEPTED, &json!({"us-east-1": "purged"}))
    );
    let after = sync(&before["purge_cursor"]).await;
    assert_eq!(after["reset"], false);
    let tags: Vec<_> = after["purges"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|purge| purge["source"] == 0)
        .map(|purge| &purge["tag"])
        .collect();
    assert_eq!(tags, ["orders", "*"], "{after}");
    assert_eq!(sync(&after["purge_cursor"]).await["purges"], json!([]));
    // An edge that asks for the first time hears what happened lately; one that is ahead of the journal starts anew.
    let first = sync(&json!(null)).await;
    assert_eq!((&first["reset"], &first["purge_cursor"]), (&json!(false), &after["purge_cursor"]));
    assert!(first["purges"].as_array().unwrap().iter().any(|purge| purge["tag"] == "*"), "{first}");
    assert_eq!(sync(&json!({"us-east-1": 1_000_000})).await["reset"], true);
    let wrong =
        region.control(Method::POST, "/purges", Some(&json!({"tenant": "acme", "tags": ["a b"]}))).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    // Whoever asks for one region alone is written down too.
    let here = json!({"tenant": "acme", "tags": ["here"]});
    let done = region.control(Method::POST, "/purges?local=true", Some(&here)).await;
    assert_eq!(done.status, StatusCode::ACCEPTED);
    let audit = region.control(Method::GET, "/audit?tenant=acme", None).await.json();
    let lines = audit["audit"].as_array().unwrap().iter().filter(|line| line["action"] == "cache.purge");
    let details: Vec<_> = lines.map(|line| &line["detail"]).collect();
    let expected = [["here"].as_slice(), &["orders", "*"]]
        .map(|tags| json!({"region": "us-east-1", "tags": tags, "soft": false}));
    assert_eq!(details, expected.iter().collect::<Vec<_>>(), "{audit}");
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn purges_are_soft_by_url_or_of_everybody_and_only_what_is_right() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let claimed = json!({"hostname": "*.acme.example", "tenant": "acme"});
    assert_eq!(region.control(Method::POST, "/domains", Some(&claimed)).await.status, StatusCode::CREATED);
    let sync = async |cursor: &Value| {
        let ask = json!({"edge": "e", "targets": {}, "purge_cursor": cursor});
        region.as_edge(Method::POST, "/edge/v1/sync", Some(&ask)).await.json()
    };
    let mut cursor = sync(&json!(null)).await["purge_cursor"].clone();
    let mut journalled = async || {
        let news = sync(&cursor).await;
        cursor = news["purge_cursor"].clone();
        let by_hand = |purge: &&Value| purge["source"] == 0;
        let told = |purge: &Value| json!([purge["tenant"], purge["tag"], purge["soft"] == true]);
        news["purges"].as_array().unwrap().iter().filter(by_hand).map(told).collect::<Value>()
    };
    for (purge, expected) in [
        (json!({"tenant": "acme", "tags": ["a"], "soft": true}), json!([["acme", "a", true]])),
        (
            json!({"urls": ["https://Shop.acme.example/a?b=1,2", "http://shop.acme.example"]}),
            json!([["acme", "=shop.acme.example/a?b=1,2", false], ["acme", "=shop.acme.example/", false]]),
        ),
        (json!({"everything": true, "soft": true}), json!([["*", "*", true]])),
    ] {
        let done = region.control(Method::POST, "/purges", Some(&purge)).await;
        assert_eq!(done.status, StatusCode::ACCEPTED, "{purge}: {done:?}");
        assert_eq!(journalled().await, expected, "{purge}");
    }
    for (purge, path) in [
        (json!({}), "tags"),
        (json!({"tags": ["a"]}), "tenant"),
        (json!({"tenant": "acme"}), "tags"),
        (json!({"everything": true, "tenant": "acme"}), "everything"),
        (json!({"urls": ["/a"]}), "urls"),
        (json!({"urls": ["https://acme.test/a"]}), "urls"),
        (json!({"urls": ["https://shop.acme.example/a b"]}), "urls"),
    ] {
        let refused = region.control(Method::POST, "/purges", Some(&purge)).await;
        let errors = refused.json()["errors"].clone();
        assert_eq!(
            (refused.status, &errors[0]["path"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!(path)),
            "{purge}: {refused:?}"
        );
    }
    assert_eq!(journalled().await, json!([]), "what is refused is not journalled");
    // Everybody's cache is for those who may do everything.
    let wanted = json!({"name": "purger", "scopes": ["purges:write"], "expires_in_s": 3600});
    let token = region.control(Method::POST, "/tokens", Some(&wanted)).await.json()["token"].clone();
    let token = token.as_str().unwrap();
    let all = region.control_as(token, Method::POST, "/purges", Some(&json!({"everything": true}))).await;
    assert_eq!((all.status, &all.json()["scope"]), (StatusCode::FORBIDDEN, &json!("*")));
    let own = json!({"tenant": "acme", "tags": ["*"]});
    let own = region.control_as(token, Method::POST, "/purges", Some(&own)).await;
    assert_eq!(own.status, StatusCode::ACCEPTED);
    let audit = region.control(Method::GET, "/audit", None).await.json();
    let lines = audit["audit"].as_array().unwrap().iter().filter(|line| line["action"] == "cache.purge");
    let lines: Vec<_> =
        lines.map(|line| json!([line["subject"], line["tenant"], line["detail"]["soft"]])).collect();
    assert_eq!(
        json!(lines),
        json!([["acme", "acme", false], ["*", null, true], ["acme", "acme", false], ["acme", "acme", true]]),
        "{audit}"
    );
    region.serving.stop().await;
}
