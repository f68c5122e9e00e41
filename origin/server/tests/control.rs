//! The control API over HTTP.

mod support;

use http::{Method, StatusCode};
use meridian_origin::limits::PUSH_BYTES_MAX;
use meridian_origin::router::describe;
use serde_json::{Value, json};
use support::{CONTROL_TOKEN, Region, Reply};

const ROUTES: &str = "apiVersion: meridian/v1
kind: Route
metadata: { name: orders }
spec:
  match: { path: /v1/orders }
  auth: { mode: anonymous }
";

fn push(parent: Option<&str>, files: &[(&str, &str)]) -> Value {
    let files: Vec<_> =
        files.iter().map(|(path, content)| json!({"path": path, "content": content})).collect();
    json!({"parent": parent, "files": files, "note": "a test"})
}

fn version(reply: &Reply) -> String {
    reply.json()["version"].as_str().unwrap_or_else(|| panic!("no version: {reply:?}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_valid_token_is_let_in() {
    let region = Region::alone().await;
    let me = region.control(Method::GET, "/whoami", None).await;
    assert_eq!((me.status, &me.json()["name"]), (StatusCode::OK, &json!("bootstrap")));
    for wrong in ["", "wrong", &CONTROL_TOKEN[1..]] {
        let refused = region.control_as(wrong, Method::GET, "/tenants", None).await;
        assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::UNAUTHORIZED, "unauthorized"));
        assert!(refused.header("www-authenticate").starts_with("Bearer"));
    }
    let wanted = json!({"name": "reader", "scopes": ["read"], "expires_in_s": 3600});
    let made = region.control(Method::POST, "/tokens", Some(&wanted)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let token = made.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(region.control_as(&token, Method::GET, "/tenants", None).await.status, StatusCode::OK);
    for path in ["/tenants", "/domains", "/tokens", "/purges", "/targets/platform/releases"] {
        let body = json!({"slug": "a", "name": "a", "home_region": "us-east-1", "hostname": "a.example", "tenant": "a",
            "scopes": ["read"], "tags": ["a"], "parent": null, "files": []});
        let keys: &[&str] = match path {
            "/tenants" => &["slug", "name", "home_region"],
            "/domains" => &["hostname", "tenant"],
            "/tokens" => &["name", "scopes"],
            "/purges" => &["tenant", "tags"],
            _ => &["parent", "files"],
        };
        let body: Value = keys
            .iter()
            .map(|key| ((*key).to_owned(), body[*key].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let refused = region.control_as(&token, Method::POST, path, Some(&body)).await;
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (StatusCode::FORBIDDEN, "insufficient-scope"),
            "{path}"
        );
    }
    let lapsed = json!({"name": "short", "scopes": ["read"], "expires_in_s": 0});
    let lapsed = region.control(Method::POST, "/tokens", Some(&lapsed)).await.json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        region.control_as(&lapsed, Method::GET, "/whoami", None).await.status,
        StatusCode::UNAUTHORIZED
    );
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        region.control(Method::DELETE, &format!("/tokens/{id}"), None).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        region.control_as(&token, Method::GET, "/whoami", None).await.status,
        StatusCode::UNAUTHORIZED,
        "revoked"
    );
    let listed = region.control(Method::GET, "/tokens", None).await;
    assert!(!String::from_utf8(listed.body.to_vec()).unwrap().contains(&token), "a token is shown once");
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_hostnames_are_checked_and_audited() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let tenant = |slug: &str, home: &str| json!({"slug": slug, "name": "N", "home_region": home});
    let again = region.control(Method::POST, "/tenants", Some(&tenant("acme", "us-east-1"))).await;
    assert_eq!((again.status, again.problem().as_str()), (StatusCode::CONFLICT, "exists"));
    for (slug, home) in [("Acme", "us-east-1"), ("-a", "us-east-1"), ("b", "mars-1")] {
        let refused = region.control(Method::POST, "/tenants", Some(&tenant(slug, home))).await;
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            "{slug}"
        );
    }
    let domain = |hostname: &str, tenant: &str| json!({"hostname": hostname, "tenant": tenant});
    let made = region.control(Method::POST, "/domains", Some(&domain("Shop.acme.example", "acme"))).await;
    assert_eq!((made.status, &made.json()["hostname"]), (StatusCode::CREATED, &json!("shop.acme.example")));
    region.tenant("globex").await;
    let taken = region.control(Method::POST, "/domains", Some(&domain("shop.acme.example", "globex"))).await;
    assert_eq!(taken.status, StatusCode::CONFLICT, "{taken:?}");
    for (hostname, tenant) in
        [("a b", "acme"), ("*.com", "acme"), ("192.0.2.1", "acme"), ("a.example", "nobody")]
    {
        let refused = region.control(Method::POST, "/domains", Some(&domain(hostname, tenant))).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{hostname}: {refused:?}");
    }

    let suspended =
        region.control(Method::PATCH, "/tenants/acme", Some(&json!({"state": "suspended"}))).await;
    assert_eq!((suspended.status, &suspended.json()["state"]), (StatusCode::OK, &json!("suspended")));
    let head = region.control(Method::GET, "/targets/tenant:acme/head", None).await.json();
    assert_eq!((&head["sequence"], &head["kind"]), (&json!(3), &json!("generated")));
    let refused = region.as_tenant("acme", Method::GET, "/v1/collections/orders/records", None).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::FORBIDDEN, "tenant-suspended"));

    let audit = region.control(Method::GET, "/audit?tenant=acme", None).await.json();
    let lines = audit["audit"].as_array().unwrap();
    let actions: Vec<_> = lines.iter().rev().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        [
            "tenant.create",
            "release.generated",
            "collection.declare",
            "domain.create",
            "release.generated",
            "tenant.change",
            "release.generated",
        ]
    );
    let change = lines.iter().find(|line| line["action"] == "tenant.change").unwrap();
    assert_eq!(
        (&change["actor"], change["before_sha256"] == change["after_sha256"]),
        (&json!("bootstrap"), false)
    );
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_compare_and_set_and_goes_back() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let releases = "/targets/tenant:acme/releases";
    let first = version(&region.control(Method::GET, "/targets/tenant:acme/head", None).await);
    let made =
        region.control(Method::POST, releases, Some(&push(Some(&first), &[("routes.yaml", ROUTES)]))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!((&made.json()["sequence"], &made.json()["parent"]), (&json!(2), &json!(first)));
    let second = version(&made);

    let stale =
        region.control(Method::POST, releases, Some(&push(Some(&first), &[("routes.yaml", ROUTES)]))).await;
    assert_eq!((stale.status, stale.problem().as_str()), (StatusCode::CONFLICT, "parent-differs"));
    assert_eq!((&stale.json()["parent"], &stale.json()["head"]), (&json!(first), &json!(second)));
    let same =
        region.control(Method::POST, releases, Some(&push(Some(&second), &[("routes.yaml", ROUTES)]))).await;
    assert_eq!((same.status, version(&same)), (StatusCode::OK, second.clone()), "nothing to release");

    // Many at once from one parent: one gets through.
    let pushes = (0..6).map(|number| {
        let content = ROUTES.replace("/v1/orders", &format!("/v1/orders/{number}"));
        let body = push(Some(&second), &[("routes.yaml", &content)]);
        let region = &region;
        async move { region.control(Method::POST, releases, Some(&body)).await.status }
    });
    let mut answers = futures_util::future::join_all(pushes).await;
    answers.sort_unstable();
    assert_eq!(answers, [vec![StatusCode::CREATED], vec![StatusCode::CONFLICT; 5]].concat());
    let third = version(&region.control(Method::GET, "/targets/tenant:acme/head", None).await);

    let back = json!({"parent": third, "to": second});
    let made = region.control(Method::POST, "/targets/tenant:acme/rollback", Some(&back)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!((&made.json()["sequence"], version(&made)), (&json!(4), second.clone()));
    let gone = json!({"parent": second, "to": "0123456789abcdef"});
    let refused = region.control(Method::POST, "/targets/tenant:acme/rollback", Some(&gone)).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);

    let all = region.control(Method::GET, releases, None).await.json();
    let kinds: Vec<_> =
        all["releases"].as_array().unwrap().iter().map(|release| release["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["rollback", "push", "push", "generated"]);
    let one = region.control(Method::GET, &format!("{releases}/{second}"), None).await.json();
    assert_eq!(one["files"][0]["path"], "routes.yaml");
    // The edge gets what was pushed, whoever added it to the tables meanwhile.
    let bundle = region.as_edge(Method::GET, "/edge/v1/bundles/tenant:acme", None).await;
    assert_eq!(bundle.header("etag"), format!("\"{second}\""));
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_tells_what_is_odd_with_its_place() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let head = version(&region.control(Method::GET, "/targets/tenant:acme/head", None).await);
    let shadowed = format!(
        "{ROUTES}---\n{}",
        ROUTES.replace("name: orders", "name: others").replace("path:", "priority: -1, path:")
    );
    let body = push(Some(&head), &[("routes.yaml", &shadowed)]);
    let made = region.control(Method::POST, "/targets/tenant:acme/releases", Some(&body)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let what = "Route \"others\" gets no request: Route \"orders\" at routes.yaml:1 takes all that it could";
    let odd = json!([{ "file": "routes.yaml", "line": 8, "what": what }]);
    assert_eq!(made.json()["warnings"], odd, "{made:?}");
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_to_what_is_not_there_any_longer_is_possible_and_told() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let release = async |target: &str, files: &[(&str, &str)]| {
        let head = region.control(Method::GET, &format!("/targets/{target}/head"), None).await;
        let parent = (head.status == StatusCode::OK).then(|| version(&head));
        let body = push(parent.as_deref(), files);
        let made = region.control(Method::POST, &format!("/targets/{target}/releases"), Some(&body)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        version(&made)
    };
    let place = "apiVersion: meridian/v1
kind: Region
metadata: { name: us-east-1 }
spec: { ordinal: 1, coordinates: { latitude: 39.0, longitude: -77.5 }, origins: [\"http://127.0.0.1:1\"] }
";
    let lent = "apiVersion: meridian/v1
kind: Upstream
metadata: { name: lent }
spec: { regions: { us-east-1: \"https://lent.example\" }, tenants: all }
";
    release("platform", &[("regions.yaml", place), ("lent.yaml", lent)]).await;
    let named = ROUTES.to_owned() + "  upstream: \"platform:lent\"\n";
    let named = release("tenant:acme", &[("routes.yaml", &named)]).await;
    let plain = release("tenant:acme", &[("routes.yaml", ROUTES)]).await;
    let back = async |parent: &str, to: &str| {
        let body = json!({"parent": parent, "to": to});
        let made = region.control(Method::POST, "/targets/tenant:acme/rollback", Some(&body)).await;
        assert_eq!((made.status, version(&made).as_str()), (StatusCode::CREATED, to), "{made:?}");
        made.json()["warnings"].clone()
    };
    assert_eq!(back(&plain, &named).await, json!([]));
    assert_eq!(back(&named, &plain).await, json!([]));
    release("platform", &[("regions.yaml", place)]).await;
    let what =
        "spec.upstream: found \"platform:lent\", expected an upstream that the platform has for this tenant";
    let told = json!([{"file": "routes.yaml", "line": 1, "what": what}]);
    assert_eq!(back(&plain, &named).await, told);
    region.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_never_released() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    let releases = "/targets/tenant:acme/releases";
    let head = version(&region.control(Method::GET, "/targets/tenant:acme/head", None).await);
    let misspelt = ROUTES.replace("anonymous", "anonymus").replace("auth:", "  limits: [gone]\n  auth:");
    let misspelt = misspelt.replace("    limits", "  limits");
    let refused =
        region.control(Method::POST, releases, Some(&push(Some(&head), &[("routes.yaml", &misspelt)]))).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
    let error = refused.json()["errors"][0].clone();
    assert_eq!(
        (&error["file"], &error["suggestion"]),
        (&json!("routes.yaml"), &json!("anonymous")),
        "{error}"
    );
    assert!(error["line"].as_u64() > Some(1) && error["column"].as_u64() > Some(0), "{error}");

    let test = "apiVersion: meridian/v1
kind: RuleTest
metadata: { name: nothing else is served }
spec:
  request: { method: GET, url: \"http://acme.localhost/other\" }
  expect: { status: 200 }
";
    let failing = push(Some(&head), &[("routes.yaml", ROUTES), ("tests.yaml", test)]);
    let refused = region.control(Method::POST, releases, Some(&failing)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
    assert_eq!(refused.json()["errors"][0]["file"], "tests.yaml", "{refused:?}");
    assert_eq!(version(&region.control(Method::GET, "/targets/tenant:acme/head", None).await), head);

    let own = region.authority().replace("127.0.0.1", "localhost");
    let inward = format!(
        "apiVersion: meridian/v1\nkind: Upstream\nmetadata: {{ name: inward }}\n\
         spec: {{ regions: {{ us-east-1: \"http://{own}/v1\" }} }}\n"
    );
    let inward = push(Some(&head), &[("routes.yaml", ROUTES), ("upstreams.yaml", &inward)]);
    let refused = region.control(Method::POST, releases, Some(&inward)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
    let error = refused.json()["errors"][0].clone();
    assert_eq!(
        (&error["file"], &error["path"]),
        (&json!("upstreams.yaml"), &json!("spec.regions.us-east-1")),
        "{error}"
    );

    let nobody =
        region.control(Method::POST, "/targets/tenant:nobody/releases", Some(&push(None, &[]))).await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND, "{nobody:?}");
    let odd = region.control(Method::GET, "/targets/odd/head", None).await;
    assert_eq!(odd.status, StatusCode::NOT_FOUND);
    let large = push(Some(&head), &[("large.yaml", &"#".repeat(PUSH_BYTES_MAX))]);
    let refused = region.control(Method::POST, releases, Some(&large)).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "too-large"));
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_described() {
    let described = serde_json::to_value(describe()).unwrap();
    let paths = described["paths"].as_object().unwrap();
    let expected = [
        "/control/v1/audit",
        "/control/v1/conflicts",
        "/control/v1/decisions/{id}",
        "/control/v1/domains",
        "/control/v1/domains/{hostname}",
        "/control/v1/logs",
        "/control/v1/purges",
        "/control/v1/replication",
        "/control/v1/targets/{target}/experiments/{name}/results",
        "/control/v1/targets/{target}/head",
        "/control/v1/targets/{target}/releases",
        "/control/v1/targets/{target}/releases/{version}",
        "/control/v1/targets/{target}/rollback",
        "/control/v1/tenants",
        "/control/v1/tenants/{slug}",
        "/control/v1/tenants/{slug}/collections",
        "/control/v1/tokens",
        "/control/v1/tokens/{id}",
        "/control/v1/top",
        "/control/v1/whoami",
        "/edge/v1/bundles/{target}",
        "/edge/v1/bundles/{target}/{version}/functions/{sha256}",
        "/edge/v1/events",
        "/edge/v1/hosts/{host}",
        "/edge/v1/leases",
        "/edge/v1/sync",
        "/edge/v1/tls/ask",
        "/healthz",
        "/metrics",
        "/readyz",
        "/replication/v1/stream",
        "/v1/collections/{name}/batch",
        "/v1/collections/{name}/records",
        "/v1/collections/{name}/records/{id}",
        "/v1/whoami",
    ];
    assert_eq!(paths.keys().map(String::as_str).collect::<Vec<_>>(), expected);
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let described = operation["summary"].as_str().is_some_and(|summary| !summary.is_empty());
            assert!(described, "{method} {path} has no summary");
            let guarded = operation.get("security").is_some();
            let open = matches!(path.as_str(), "/healthz" | "/readyz" | "/edge/v1/tls/ask");
            assert_ne!(guarded, open, "{method} {path}: who may ask is part of the description");
        }
    }
}
