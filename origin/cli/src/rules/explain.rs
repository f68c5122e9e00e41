//! `meridian rules explain`: a decision that was made, by its id, or one that would be made, by a described request.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use meridian_engine::decision::{Decision, Persons};
use meridian_engine::ruleset::Target;
use meridian_wire::authored::{
    Answered, IdentitySpec, OriginAnswer, OriginWord, PlaceSpec, RequestSpec, Trial,
};
use meridian_wire::event::{Event, ExplainedStage, Seen};
use serde_json::{Value, json};

use super::{Regions, Set, offline, show, target};
use crate::client::encode;
use crate::failure::Failure;
use crate::print::{self, cell};
use crate::profile::Server;

#[derive(Args)]
pub struct Explain {
    /// Id of a decision, from the header Meridian-Decision of a reply.
    #[arg(conflicts_with = "request", required_unless_present = "request")]
    decision: Option<String>,
    /// A request, as `METHOD /path?query`; it is decided by the rules of `--rules`, without a server.
    #[arg(long, value_name = "REQUEST", requires = "rules")]
    request: Option<String>,
    /// Folder or file of rules.
    #[arg(long, value_name = "PATH")]
    rules: Option<PathBuf>,
    /// Target of the rules. Without it, what they themselves say.
    #[arg(long, value_name = "TARGET", value_parser = target)]
    target: Option<Target>,
    #[command(flatten)]
    regions: Regions,
    /// Host of the request.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Header field of the request, as `Name: value`.
    #[arg(long, value_name = "FIELD")]
    header: Vec<String>,
    /// Body of the request.
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// Address of the client.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// Country of the client.
    #[arg(long, value_name = "CODE")]
    country: Option<String>,
    /// Where the client is, as LATITUDE,LONGITUDE.
    #[arg(long, value_name = "DEGREES", allow_hyphen_values = true)]
    coordinates: Option<String>,
    /// Subject of the request's token. Without it, the request has no token.
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Scopes of the token, separated by commas.
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    scope: Vec<String>,
    /// Name of the Issuer document that the token is of.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// A region that is down.
    #[arg(long, value_name = "REGION")]
    down: Vec<String>,
}

impl Explain {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        match (&self.decision, &self.request, &self.rules) {
            (Some(decision), ..) => made(decision, server, json),
            (None, Some(request), Some(rules)) => self.described(request, rules, json),
            _ => Err(Failure::Usage("a decision's id, or --request with --rules, is needed".to_owned())),
        }
    }

    fn described(&self, request: &str, rules: &std::path::Path, json: bool) -> Result<(), Failure> {
        let set = Set { path: rules.to_owned(), target: self.target.clone() };
        let (ruleset, platform) = offline::for_trial(&set, &self.regions)?;
        let request = self.spec(request)?;
        let down = |region: &String| (region.clone(), OriginAnswer::Word(OriginWord::Down));
        let origins: BTreeMap<String, OriginAnswer> = self.down.iter().map(down).collect();
        let mut trial = Trial::new(Arc::new(ruleset), Arc::new(platform));
        let answered = trial.send(&request, &origins).map_err(|failure| {
            Failure::Usage(format!(
                "{}: found {}, expected {}",
                failure.path, failure.found, failure.expected
            ))
        })?;
        show_answer(&request, &answered, json)
    }

    fn spec(&self, request: &str) -> Result<RequestSpec, Failure> {
        let (method, path) = request.trim().split_once(' ').unwrap_or(("GET", request.trim()));
        let field = |text: &String| match text.split_once(':') {
            Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
            None => Err(Failure::Usage(format!("--header {text}: expected Name: value"))),
        };
        let (latitude, longitude) = match &self.coordinates {
            None => (None, None),
            Some(text) => {
                let wrong = || Failure::Usage(format!("--coordinates {text}: expected LATITUDE,LONGITUDE"));
                let (latitude, longitude) = text.split_once(',').ok_or_else(wrong)?;
                let degrees = |text: &str| text.trim().parse::<f64>().map_err(|_| wrong());
                (Some(degrees(latitude)?), Some(degrees(longitude)?))
            }
        };
        let identity = self.subject.as_ref().map(|subject| IdentitySpec {
            issuer: self.issuer.clone(),
            subject: subject.clone(),
            scopes: self.scope.clone(),
            claims: BTreeMap::new(),
            signed: true,
            expired: false,
        });
        Ok(RequestSpec {
            method: method.to_owned(),
            host: self.host.clone(),
            path: path.trim().to_owned(),
            headers: self.header.iter().map(field).collect::<Result<_, _>>()?,
            body: self.body.clone(),
            client: self.client.clone(),
            place: Some(PlaceSpec {
                country: self.country.clone(),
                latitude,
                longitude,
                ..PlaceSpec::default()
            }),
            identity,
        })
    }
}

/// A decision that was made.
pub fn made(id: &str, server: &Server, json: bool) -> Result<(), Failure> {
    let found = server.client()?.get(&format!("/decisions/{}", encode(id)))?.body;
    if json {
        print::json(&found);
        return Ok(());
    }
    let event = found.get("event").unwrap_or(&found);
    print::line(&format!(
        "{} {}{} -> {} {}",
        cell(event, "method"),
        cell(event, "host"),
        cell(event, "path"),
        cell(event, "status"),
        cell(event, "outcome")
    ));
    let names = ["id", "tenant", "bundle", "route", "region", "cache", "country", "personal", "elapsed_ms"];
    for name in names.iter().filter(|name| event.get(**name).is_some_and(|value| !value.is_null())) {
        print::line(&format!("{name}: {}", cell(event, name)));
    }
    if let Some(weight) = event.get("weight") {
        print::line(&format!("stands for {weight} decisions, of which the others were sampled out"));
    }
    if let Some(trace) = event.get("trace") {
        let followed = if cell(trace, "sampled") == "true" { "followed" } else { "not followed" };
        print::line(&format!("trace: {} ({followed})", cell(trace, "id")));
    }
    let stages: Vec<ExplainedStage> = event
        .get("explanation")
        .and_then(|stages| serde_json::from_value(stages.clone()).ok())
        .unwrap_or_default();
    show::stages(&stages);
    Ok(())
}

fn show_answer(request: &RequestSpec, answered: &Answered, json: bool) -> Result<(), Failure> {
    let seen = Seen { method: request.method.clone(), path: request.path.clone(), ..Seen::default() };
    // It goes nowhere: who asks is told all of it.
    let decision = Decision { persons: Persons::default(), ..answered.decision.clone() };
    let event = Event::of(&decision, &seen)
        .map_err(|error| Failure::Server(format!("the decision can't be shown: {error}")))?;
    if json {
        let headers: BTreeMap<&str, Vec<&str>> =
            answered.headers.iter().fold(BTreeMap::new(), |mut all, (name, value)| {
                all.entry(name).or_insert_with(Vec::new).push(value);
                all
            });
        let stages = serde_json::to_value(&event.explanation).unwrap_or(Value::Null);
        print::json(&json!({
            "status": answered.status,
            "outcome": event.outcome,
            "route": event.route,
            "region": event.region,
            "variants": event.variants,
            "headers": headers,
            "explanation": stages,
        }));
        return Ok(());
    }
    let route = event.route.as_deref().unwrap_or("no route");
    let region = event.region.as_deref().unwrap_or("edge");
    print::line(&format!(
        "{} {} -> {} {} by {route}, answered by {region}",
        request.method, request.path, answered.status, event.outcome
    ));
    show::stages(&event.explanation);
    Ok(())
}
