//! What a case expects, compared with what came.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What has to come of one request; what is not said may be anything. Texts have to be contained in what came.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Expect {
    status: Option<u16>,
    outcome: Option<String>,
    tenant: Option<String>,
    route: Option<String>,
    region: Option<String>,
    subject: Option<String>,
    /// Header fields; an empty text is any value.
    headers: BTreeMap<String, String>,
    /// Texts that a header must not hold.
    no_header_text: BTreeMap<String, String>,
    without_headers: Vec<String>,
    /// The whole body where it is empty, else a part of it.
    body: Option<String>,
    /// Content coding that the host applies; an empty text is none.
    coding: Option<String>,
    /// In this order, with anything between them.
    steps: Vec<String>,
    /// In any order.
    any_steps: Vec<String>,
    no_steps: Vec<String>,
    after: Vec<String>,
    no_after: Vec<String>,
    /// Lines of the explanation.
    why: Vec<String>,
    no_why: Vec<String>,
    /// Stages of the explanation.
    stages: Vec<String>,
    /// Lines of what experiments are to count.
    counted: Vec<String>,
    no_counted: Vec<String>,
    /// The same as with the request of this number in the case, from 0.
    counted_same_as: Option<usize>,
    variant_count: Option<usize>,
    /// The same variants as the request of this number in the case, from 0.
    variant_same_as: Option<usize>,
}

/// What is wrong with an outcome (the JSON that a host returned), a line each.
#[must_use]
pub fn differences(expect: &[Value], outcome: &[u8]) -> Vec<String> {
    let outcome: Value = match serde_json::from_slice(outcome) {
        Ok(outcome) => outcome,
        Err(error) => {
            return vec![format!("the outcome is no JSON: {error}: {}", String::from_utf8_lossy(outcome))];
        }
    };
    if let Some(error) = outcome["error"].as_str() {
        return vec![error.to_owned()];
    }
    let requests = outcome["requests"].as_array().cloned().unwrap_or_default();
    if requests.len() != expect.len() {
        return vec![format!("{} outcomes of {} requests", requests.len(), expect.len())];
    }
    let mut wrong = Vec::new();
    for (index, (expect, got)) in expect.iter().zip(&requests).enumerate() {
        match Expect::deserialize(expect) {
            _ if expect.is_null() => {}
            Ok(expect) => {
                let lines = expect.differences(got, &requests);
                wrong.extend(lines.into_iter().map(|line| format!("request {index}: {line}")));
            }
            Err(error) => wrong.push(format!("request {index}: expect: {error}")),
        }
    }
    wrong
}

impl Expect {
    fn differences(&self, got: &Value, all: &[Value]) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(status) = self.status
            && got["status"] != status
        {
            wrong.push(format!("status {} instead of {status}", got["status"]));
        }
        for (name, expected) in [
            ("outcome", &self.outcome),
            ("tenant", &self.tenant),
            ("route", &self.route),
            ("region", &self.region),
            ("subject", &self.subject),
        ] {
            if let Some(expected) = expected
                && got[name] != **expected
            {
                wrong.push(format!("{name} {} instead of {expected}", got[name]));
            }
        }
        self.headers(got, &mut wrong);
        self.lines(got, &mut wrong);
        let body = got["body"].as_str().unwrap_or_default();
        if let Some(expected) = &self.body
            && !(body.contains(expected.as_str()) && body.is_empty() == expected.is_empty())
        {
            wrong.push(format!("body {body:?} instead of {expected:?}"));
        }
        if let Some(expected) = &self.coding
            && got["coding"].as_str().unwrap_or_default() != expected
        {
            wrong.push(format!("coding {} instead of {expected:?}", got["coding"]));
        }
        if let Some(count) = self.variant_count
            && got["variants"].as_array().map(Vec::len) != Some(count)
        {
            wrong.push(format!("variants {} instead of {count} of them", got["variants"]));
        }
        if let Some(other) = self.variant_same_as
            && all.get(other).map(|other| &other["variants"]) != Some(&got["variants"])
        {
            wrong.push(format!("variants {} differ from request {other}", got["variants"]));
        }
        if let Some(other) = self.counted_same_as
            && all.get(other).map(|other| &other["counted"]) != Some(&got["counted"])
        {
            wrong.push(format!("counted {} differs from request {other}", got["counted"]));
        }
        wrong
    }

    fn headers(&self, got: &Value, wrong: &mut Vec<String>) {
        let values = |name: &str| -> Vec<String> {
            let fields = got["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
            let lines = fields.iter().filter_map(Value::as_str).filter_map(|line| line.split_once(": "));
            lines.filter(|(of, _)| *of == name).map(|(_, value)| value.to_owned()).collect()
        };
        for (name, expected) in &self.headers {
            if !values(name).iter().any(|value| value.contains(expected.as_str())) {
                wrong.push(format!("header {name} is {:?}, expected {expected:?} in it", values(name)));
            }
        }
        for (name, text) in &self.no_header_text {
            if values(name).iter().any(|value| value.contains(text.as_str())) {
                wrong.push(format!("header {name} is {:?}, with {text:?} in it", values(name)));
            }
        }
        for name in &self.without_headers {
            if !values(name).is_empty() {
                wrong.push(format!("header {name} is there: {:?}", values(name)));
            }
        }
    }

    fn lines(&self, got: &Value, wrong: &mut Vec<String>) {
        let lines = |name: &str| -> Vec<String> {
            let lines = got[name].as_array().map(Vec::as_slice).unwrap_or_default();
            lines.iter().filter_map(|line| line.as_str().map(str::to_owned)).collect()
        };
        let steps = lines("steps");
        let mut rest = steps.iter();
        for expected in &self.steps {
            if !rest.any(|step| step.contains(expected.as_str())) {
                wrong.push(format!("no step {expected:?} (in this order) in {steps:#?}"));
            }
        }
        let explanation = lines("explanation");
        let stages: Vec<String> =
            explanation.iter().filter_map(|line| line.split([':', ' ']).next().map(str::to_owned)).collect();
        for (what, expected, lines) in [
            ("step", &self.any_steps, &steps),
            ("after", &self.after, &lines("after")),
            ("explanation", &self.why, &explanation),
            ("stage", &self.stages, &stages),
            ("count", &self.counted, &lines("counted")),
        ] {
            for expected in expected.iter().filter(|expected| !contains(lines, expected)) {
                wrong.push(format!("no {what} {expected:?} in {lines:#?}"));
            }
        }
        for (what, unwanted, lines) in [
            ("step", &self.no_steps, &steps),
            ("after", &self.no_after, &lines("after")),
            ("explanation", &self.no_why, &explanation),
            ("count", &self.no_counted, &lines("counted")),
        ] {
            for unwanted in unwanted.iter().filter(|unwanted| contains(lines, unwanted)) {
                wrong.push(format!("{what} {unwanted:?} in {lines:#?}"));
            }
        }
    }
}

fn contains(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| line.contains(text))
}
