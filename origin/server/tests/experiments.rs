//! What edges tell of experiments, counted and compared.

mod support;

use http::{Method, StatusCode};
use meridian_origin::context::now_ms;
use serde_json::{Value, json};
use support::{Region, until};

const RESULTS: &str = "/targets/tenant:acme/experiments/checkout/results";
const RULES: &str = "
apiVersion: meridian/v1
kind: Experiment
metadata: { name: checkout }
spec:
  variants: [{ name: classic, weight: 1 }, { name: express, weight: 1 }, { name: hidden, weight: 0 }]
  goals: [{ name: ordered, when: 'request.method == \"POST\"' }]
---
apiVersion: meridian/v1
kind: Route
metadata: { name: orders }
spec: { match: { path: /v1/orders }, auth: { mode: anonymous }, experiments: [checkout] }
";

async fn release(region: &Region, rules: &str) {
    let head = region.control(Method::GET, "/targets/tenant:acme/head", None).await.json();
    let push =
        json!({"parent": head["version"], "files": [{"path": "rules.yaml", "content": rules}], "note": null});
    let made = region.control(Method::POST, "/targets/tenant:acme/releases", Some(&push)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
}

async fn results(region: &Region) -> Value {
    let reply = region.control(Method::GET, RESULTS, None).await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    reply.json()
}

/// Tells of decisions made at a time.
async fn tell(region: &Region, at_ms: u64, told: &[(&str, Value)]) {
    for part in told.chunks(200) {
        let event = |(id, part): &(&str, Value)| {
            let mut event = json!({
                "id": id, "at_ms": at_ms, "tenant": "acme", "outcome": "forwarded", "status": 200,
                "method": "GET", "host": "acme.example", "path": "/", "elapsed_ms": 1,
            });
            let members = part.as_object().expect("members").clone();
            event.as_object_mut().expect("an event").extend(members);
            event
        };
        let batch = json!({"edge": "e", "events": part.iter().map(event).collect::<Vec<_>>()});
        let taken = region.as_edge(Method::POST, "/edge/v1/events", Some(&batch)).await;
        assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    }
}

fn exposed(version: &str, unit: &str, variant: &str) -> Value {
    json!({"exposures": [{"experiment": "checkout", "version": version, "unit": unit, "variant": variant}]})
}

fn reached(version: &str, unit: &str) -> Value {
    json!({"conversions": [{"experiment": "checkout", "version": version, "unit": unit, "goal": "ordered"}]})
}

/// Exposes this many units to a variant, of which some reach the goal a second later.
async fn take_part(region: &Region, version: &str, variant: &str, units: usize, conversions: usize) {
    let at_ms = now_ms() - 60_000;
    let ids = |kind: &str| -> Vec<String> {
        (0..units.max(conversions)).map(|number| format!("{kind}-{variant}-{number}")).collect()
    };
    let (see, buy, unit) = (ids("see"), ids("buy"), ids("unit"));
    let told = |ids: &[String], told: &dyn Fn(&str) -> Value| -> Vec<Value> {
        ids.iter().zip(&unit).map(|(_, unit)| told(unit)).collect()
    };
    let seen = told(&see[..units], &|unit| exposed(version, unit, variant));
    let bought = told(&buy[..conversions], &|unit| reached(version, unit));
    for (at_ms, ids, told) in [(at_ms, &see, seen), (at_ms + 1_000, &buy, bought)] {
        let told: Vec<(&str, Value)> = ids.iter().map(String::as_str).zip(told).collect();
        tell(region, at_ms, &told).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_compare_each_variant_with_the_first() {
    let region = Region::alone().await;
    region.tenant("acme").await;
    for (path, detail) in [
        (RESULTS, "no such experiment"),
        ("/targets/platform/experiments/checkout/results", "the platform has no experiments"),
    ] {
        let missing = region.control(Method::GET, path, None).await;
        assert_eq!(
            (missing.status, missing.problem().as_str()),
            (StatusCode::NOT_FOUND, "not-found"),
            "{path}"
        );
        assert!(missing.json()["detail"].as_str().unwrap().contains(detail), "{missing:?}");
    }
    release(&region, RULES).await;
    let empty = results(&region).await;
    assert_eq!((&empty["units"], &empty["sample_ratio"]), (&json!(0), &json!(null)));
    assert_eq!(empty["goals"][0]["variants"][1]["rate"], json!(null));
    assert_eq!(empty["newcomers"], "onReturn");
    let version = empty["version"].as_str().unwrap().to_owned();

    take_part(&region, &version, "classic", 400, 80).await;
    take_part(&region, &version, "express", 420, 210).await;
    // Told again, seen again, of another version, without an exposure, before the exposure: none of that counts.
    let at_ms = now_ms() - 60_000;
    tell(&region, at_ms, &[("see-classic-0", exposed(&version, "unit-classic-0", "classic"))]).await;
    let told = [
        ("again", exposed(&version, "unit-classic-0", "classic")),
        ("old", exposed("0000000000000000", "unit-classic-1000", "classic")),
        ("stranger", reached(&version, "unit-nobody")),
    ];
    tell(&region, at_ms + 2_000, &told).await;
    tell(&region, at_ms - 5_000, &[("before", reached(&version, "unit-classic-399"))]).await;
    tell(&region, at_ms + 3_000, &[("last", exposed(&version, "unit-last", "express"))]).await;

    let all = until("all of it is counted", async || {
        let all = results(&region).await;
        let written = region.control(Method::GET, "/decisions/last", None).await;
        (all["units"] == 821 && written.status == StatusCode::OK).then_some(all)
    })
    .await;
    let variants = json!([
        {"name": "classic", "weight": 1, "units": 400},
        {"name": "express", "weight": 1, "units": 421},
        {"name": "hidden", "weight": 0, "units": 0},
    ]);
    assert_eq!(all["variants"], variants);
    assert_eq!(all["sample_ratio"]["mismatch"], false, "{all}");
    let ordered = &all["goals"][0]["variants"];
    assert_eq!((&ordered[0]["conversions"], &ordered[0]["rate"]), (&json!(80), &json!(0.2)));
    assert_eq!((&ordered[0]["lift"], &ordered[2]["lift"]), (&json!(null), &json!(null)));
    let lift = |member: &str| ordered[1]["lift"][member].as_f64().unwrap();
    assert!((lift("estimate") - (210.0 / 421.0 / 0.2 - 1.0)).abs() < 1e-9, "{ordered}");
    assert!(
        0.0 < lift("low") && lift("low") < lift("estimate") && lift("estimate") < lift("high"),
        "{ordered}"
    );
    assert!(lift("p_value") < 0.001, "{ordered}");

    // What was reached before the exposure is reached once more after it.
    tell(&region, at_ms + 4_000, &[("after", reached(&version, "unit-classic-399"))]).await;
    take_part(&region, &version, "express", 600, 0).await;
    until("the alarm of a spread that is not that of the weights", async || {
        let all = results(&region).await;
        let first = &all["goals"][0]["variants"][0];
        (first["conversions"] == 81 && all["sample_ratio"]["mismatch"] == true).then_some(())
    })
    .await;

    // Other weights are another version, of which nobody has a part yet.
    release(&region, &RULES.replace("express, weight: 1", "express, weight: 2")).await;
    let other = results(&region).await;
    assert!(other["version"] != json!(version) && other["units"] == 0, "{other}");
    // So is another way to count newcomers.
    release(&region, &RULES.replace("\nspec:\n  variants", "\nspec:\n  newcomers: atOnce\n  variants")).await;
    let other = results(&region).await;
    assert_eq!((&other["newcomers"], &other["units"]), (&json!("atOnce"), &json!(0)));
    assert_ne!(other["version"], json!(version));
    region.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_counts_once_whatever_regions_saw_it() {
    let [us, eu] = Region::all([("us-east-1", 1), ("eu-west-1", 2)]).await;
    let tenant = json!({"slug": "acme", "name": "acme", "home_region": "us-east-1",
        "allowed_regions": ["us-east-1", "eu-west-1"]});
    let made = us.control(Method::POST, "/tenants", Some(&tenant)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    release(&us, RULES).await;
    let version = results(&us).await["version"].as_str().unwrap().to_owned();
    until("the other region has the rules", async || {
        (eu.control(Method::GET, RESULTS, None).await.status == StatusCode::OK).then_some(())
    })
    .await;
    let at_ms = now_ms() - 60_000;
    tell(&us, at_ms, &[("see-1", exposed(&version, "unit-1", "classic"))]).await;
    tell(&us, at_ms, &[("see-2", exposed(&version, "unit-2", "express"))]).await;
    tell(&eu, at_ms + 1_000, &[("see-3", exposed(&version, "unit-1", "classic"))]).await;
    tell(&eu, at_ms + 2_000, &[("buy-1", reached(&version, "unit-1"))]).await;
    for region in [&us, &eu] {
        until("both regions have counted both", async || {
            let reply = region.control(Method::GET, RESULTS, None).await;
            let all = reply.json();
            let units = [&all["variants"][0]["units"], &all["variants"][1]["units"]];
            let done = all["goals"][0]["variants"][0]["conversions"] == 1;
            (reply.status == StatusCode::OK && done && units == [&json!(1), &json!(1)]).then_some(())
        })
        .await;
    }
    us.serving.stop().await;
    eu.serving.stop().await;
}
