//! Compare-and-set of releases across three regions: each target is released at its home region alone.

mod support;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Region, Reply, until};

const REGIONS: [(&str, u16); 3] = [("us-east-1", 1), ("eu-west-1", 2), ("ap-southeast-1", 3)];
const RELEASES: &str = "/targets/tenant:acme/releases";

fn push(parent: &str, path: &str) -> Value {
    let route = format!(
        "apiVersion: meridian/v1\nkind: Route\nmetadata: {{ name: orders }}\nspec:\n  match: {{ path: {path} }}\n  auth: {{ mode: anonymous }}\n"
    );
    json!({"parent": parent, "files": [{"path": "routes.yaml", "content": route}]})
}

fn platform() -> Value {
    let region = "apiVersion: meridian/v1\nkind: Region\nmetadata: { name: us-east-1 }\nspec: { ordinal: 1, coordinates: { latitude: 39.0, longitude: -77.5 }, origins: [\"http://127.0.0.1:1\"] }\n";
    json!({"parent": null, "files": [{"path": "regions.yaml", "content": region}]})
}

async fn head(region: &Region) -> Option<(u64, String)> {
    let head = region.control(Method::GET, "/targets/tenant:acme/head", None).await;
    let found = || Some((head.json()["sequence"].as_u64()?, head.json()["version"].as_str()?.to_owned()));
    found().filter(|_| head.status == StatusCode::OK)
}

/// Three regions, and the tenant `acme` at home in Europe, made by way of Asia.
async fn three() -> ([Region; 3], String) {
    let regions = Region::all(REGIONS).await;
    let tenant = json!({"slug": "acme", "name": "Acme", "home_region": "eu-west-1"});
    let made = regions[2].control(Method::POST, "/tenants", Some(&tenant)).await;
    assert_eq!((made.status, made.header("meridian-region")), (StatusCode::CREATED, "us-east-1"), "{made:?}");
    let mut version = String::new();
    for region in &regions {
        let first = until("the first release everywhere", async || head(region).await).await;
        assert_eq!(first.0, 1);
        version = first.1;
    }
    (regions, version)
}

fn refused(reply: &Reply) -> (StatusCode, String, Value) {
    (reply.status, reply.problem(), reply.json()["home_region"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_pushes_in_all_regions_at_once_one_gets_through() {
    let (regions, mut version) = three().await;
    for round in 0..4_u64 {
        // From one parent, two in each region, each of other rules.
        let pushes = (0..6).map(|number| {
            let body = push(&version, &format!("/v1/{round}/{number}"));
            let region = &regions[number % 3];
            async move { region.control(Method::POST, RELEASES, Some(&body)).await }
        });
        let answers = join_all(pushes).await;
        let mut released = answers.iter().filter(|answer| answer.status == StatusCode::CREATED);
        let one = released.next().unwrap_or_else(|| panic!("none got through: {answers:?}"));
        assert!(released.next().is_none(), "two got through: {answers:?}");
        assert_eq!((&one.json()["sequence"], &one.json()["parent"]), (&json!(round + 2), &json!(version)));
        assert_eq!(one.header("meridian-region"), "eu-west-1");
        version = one.json()["version"].as_str().unwrap().to_owned();
        for other in answers.iter().filter(|answer| answer.status != StatusCode::CREATED) {
            assert_eq!((other.status, other.problem().as_str()), (StatusCode::CONFLICT, "parent-differs"));
            assert_eq!(other.json()["head"], version.as_str());
        }
    }
    for region in &regions {
        until("the last release everywhere", async || {
            head(region).await.filter(|head| *head == (5, version.clone()))
        })
        .await;
    }
    // Nothing was resolved afterwards, for nothing had to be.
    for region in &regions {
        assert_eq!(region.control(Method::GET, "/conflicts", None).await.json()["conflicts"], json!([]));
    }
    // A slug is given once, wherever it is asked for.
    let makers = regions.iter().map(|region| async {
        let home = &region.cluster.node.region;
        let tenant = json!({"slug": "globex", "name": "Globex", "home_region": home});
        region.control(Method::POST, "/tenants", Some(&tenant)).await.status
    });
    let mut answers = join_all(makers).await;
    answers.sort_unstable();
    assert_eq!(answers, [StatusCode::CREATED, StatusCode::CONFLICT, StatusCode::CONFLICT]);
    join_all(regions.map(Region::stop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_moves_and_takes_every_release_with_it() {
    let ([us, eu, ap], first) = three().await;
    let made = us.control(Method::POST, RELEASES, Some(&push(&first, "/v1/orders"))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    // What is made in one region and asked of another at once is waited for there: a token, a hostname.
    let token = json!({"name": "ci", "scopes": ["*"]});
    let token = ap.control(Method::POST, "/tokens", Some(&token)).await.json()["token"].clone();
    let token = token.as_str().unwrap().to_owned();
    let domain = json!({"hostname": "acme.localhost", "tenant": "acme"});
    let added = until("a token's arrival", async || {
        let added = ap.control_as(&token, Method::POST, "/domains", Some(&domain)).await;
        (added.status != StatusCode::SERVICE_UNAVAILABLE).then_some(added)
    })
    .await;
    assert_eq!(
        (added.status, added.header("meridian-region")),
        (StatusCode::CREATED, "eu-west-1"),
        "{added:?}"
    );

    let moved = ap.control(Method::PATCH, "/tenants/acme", Some(&json!({"home_region": "us-east-1"}))).await;
    assert_eq!((moved.status, moved.header("meridian-region")), (StatusCode::OK, "eu-west-1"), "{moved:?}");
    // The old home passes on to the new one, which has heard of the move before it answers.
    let (sequence, fourth) = head(&eu).await.unwrap();
    assert_eq!(sequence, 4, "push, hostname, move");
    let back = json!({"parent": fourth, "to": first});
    let back = eu.control(Method::POST, "/targets/tenant:acme/rollback", Some(&back)).await;
    assert_eq!((back.status, back.header("meridian-region")), (StatusCode::CREATED, "us-east-1"), "{back:?}");
    assert_eq!(back.json()["sequence"], 5);
    for region in [&us, &eu, &ap] {
        until("the rollback everywhere", async || head(region).await.filter(|head| head.0 == 5)).await;
        let all = region.control(Method::GET, RELEASES, None).await.json();
        let kinds: Vec<_> =
            all["releases"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["rollback", "generated", "generated", "push", "generated"]);
    }
    let made = ap.control(Method::POST, "/targets/platform/releases", Some(&platform())).await;
    assert_eq!((made.status, made.header("meridian-region")), (StatusCode::CREATED, "us-east-1"), "{made:?}");
    join_all([us, eu, ap].map(Region::stop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_cannot_decide_says_who_can() {
    let ([us, eu, ap], first) = three().await;
    let there = push(&first, "/v1/orders");
    for (method, path, body) in [
        (Method::POST, format!("{RELEASES}?local=true"), there.clone()),
        (Method::POST, "/targets/tenant:acme/rollback?local=true".into(), json!({"parent": "a", "to": "b"})),
        (Method::PATCH, "/tenants/acme?local=true".into(), json!({"name": "A"})),
        (Method::POST, "/domains?local=true".into(), json!({"hostname": "a.example", "tenant": "acme"})),
    ] {
        let answer = us.control(method, &path, Some(&body)).await;
        let expected = (StatusCode::MISDIRECTED_REQUEST, "home-elsewhere".to_owned(), json!("eu-west-1"));
        assert_eq!(refused(&answer), expected, "{path}");
        assert_eq!(answer.json()["home_url"], format!("http://{}", eu.authority()), "{path}");
    }
    // A home that this origin is not told of.
    us.cluster.tenant("far", &["mars-1"]).await;
    let answer = us.control(Method::POST, "/targets/tenant:far/releases", Some(&there)).await;
    let expected = (StatusCode::MISDIRECTED_REQUEST, "home-elsewhere".to_owned(), json!("mars-1"));
    assert_eq!(refused(&answer), expected);
    assert_eq!(answer.json()["home_url"], Value::Null);

    // A home that is away: nothing is released in its place, and what others decide goes on.
    eu.serving.stop().await;
    let answer = us.control(Method::POST, RELEASES, Some(&there)).await;
    let expected = (StatusCode::SERVICE_UNAVAILABLE, "home-away".to_owned(), json!("eu-west-1"));
    assert_eq!(refused(&answer), expected);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(head(&us).await, Some((1, first)));
    let made = ap.control(Method::POST, "/targets/platform/releases", Some(&platform())).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    join_all([us, ap].map(Region::stop)).await;
}
