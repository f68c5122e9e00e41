//! `GET /control/v1/targets/{target}/experiments/{name}/results`

mod statistics;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use meridian_engine::ruleset::{Experiment, Newcomers, Target};
use meridian_store::experiment::{Tally, tallies};
use meridian_store::{Access, Fault, release};
use meridian_wire::bundle::{Bundle, Rules};
use meridian_wire::sync::parse_target;
use serde::Serialize;
use utoipa::ToSchema;

use self::statistics::{Counted, compare, sample_ratio};
use super::auth::{Operator, Scope};
use crate::problem::Problem;
use crate::request::Path;
use crate::state::Origin;

/// An alarm below this p-value: the units are not spread by the weights, so that something other than the variant tells
/// them apart and no comparison can be trusted. One sound experiment in a thousand raises it, however often it is looked at.
const SAMPLE_RATIO_ALARM: f64 = 0.001;

/// What came of an experiment, as far as this region has heard.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Results {
    target: String,
    experiment: String,
    /// The version that the newest release has: salt, unit, newcomers, variants and weights. Others are not counted in.
    version: String,
    /// When new units count that have no subject: `onReturn`, where these are people who stayed, or `atOnce`, where clients
    /// that keep no cookies count with each request.
    newcomers: String,
    /// Units of all variants.
    units: u64,
    /// Variants in their order; the first is the control.
    variants: Vec<Variant>,
    /// Whether units are spread by the weights; nothing where there is no choice, or nobody yet.
    sample_ratio: Option<SampleRatio>,
    goals: Vec<Goal>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Variant {
    name: String,
    weight: u32,
    /// Units that were given it.
    units: u64,
}

/// Test of the units against the weights, safe to look at at any time and as often as one likes. Where newcomers count on their
/// return, it also tells of variants that drive them away.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SampleRatio {
    p_value: f64,
    /// An alarm: the p-value is below 0.001.
    mismatch: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Goal {
    name: String,
    /// As in the experiment.
    variants: Vec<Reached>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Reached {
    variant: String,
    /// Units that reached the goal with their exposure or after it.
    conversions: u64,
    /// Share of the units.
    rate: Option<f64>,
    /// Compared with the control; nothing for the control itself and before there is enough to compare.
    lift: Option<Lift>,
}

/// How much more often the goal is reached than with the control.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Lift {
    /// 0.1 is a tenth more often.
    estimate: f64,
    /// Lower end of the 95% confidence interval.
    low: f64,
    /// Its upper end.
    high: f64,
    /// Safe to look at at any time and as often as one likes, and so is the interval.
    p_value: f64,
}

/// Results of an experiment of a tenant.
#[utoipa::path(
    get,
    path = "/control/v1/targets/{target}/experiments/{name}/results",
    tag = "control",
    params(
        ("target" = String, Path, description = "tenant:SLUG"),
        ("name" = String, Path, description = "Name of the Experiment document"),
    ),
    responses(
        (status = 200, description = "The results", body = Results),
        (status = 404, description = "The newest release has no such experiment"),
    ),
    security(("token" = []))
)]
pub(super) async fn get(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Path((target, name)): Path<(String, String)>,
) -> Result<Json<Results>, Problem> {
    operator.may(Scope::Read)?;
    let parsed = parse_target(&target).map_err(|invalid| Problem::not_found(invalid.to_string()))?;
    let Target::Tenant(tenant) = &parsed else {
        return Err(Problem::not_found("the platform has no experiments"));
    };
    let mut transaction = origin.store.begin(Access::Control).await?;
    let head = release::head(&mut transaction, &target).await?;
    let (row, contents) = head.ok_or(Fault::NotFound { what: "release" })?;
    drop(transaction);
    let rules = Bundle::parse(contents.bundle.as_bytes(), &parsed, row.sequence.unsigned_abs())
        .map_err(|invalid| Problem::internal(&invalid))?;
    let Rules::Tenant(ruleset) = rules else { return Err(Problem::not_found("no experiments")) };
    let experiment = ruleset.experiments.iter().find(|experiment| *experiment.rule.name == *name);
    let experiment =
        experiment.ok_or_else(|| Problem::not_found("the newest release has no such experiment"))?;
    let mut transaction = origin.store.begin(Access::Tenant(tenant)).await?;
    let tallies = tallies(&mut transaction, tenant, &name, &experiment.version).await?;
    let tally = |variant: &str| tallies.get(variant).cloned().unwrap_or_default();
    Ok(Json(results(target, experiment, tally)))
}

fn results(target: String, experiment: &Experiment, tally: impl Fn(&str) -> Tally) -> Results {
    let counted: Vec<Tally> = experiment.variants.iter().map(|variant| tally(&variant.name)).collect();
    let weighted = experiment.variants.iter().zip(&counted).filter(|(variant, _)| variant.weight > 0);
    let spread: Vec<(u64, u32)> = weighted.map(|(variant, tally)| (tally.units, variant.weight)).collect();
    let variant = |(variant, tally): (&meridian_engine::ruleset::Variant, &Tally)| Variant {
        name: variant.name.to_string(),
        weight: variant.weight,
        units: tally.units,
    };
    Results {
        target,
        experiment: experiment.rule.name.to_string(),
        version: experiment.version.to_string(),
        newcomers: match experiment.newcomers {
            Newcomers::OnReturn => "onReturn".to_owned(),
            Newcomers::AtOnce => "atOnce".to_owned(),
        },
        units: counted.iter().map(|tally| tally.units).sum(),
        variants: experiment.variants.iter().zip(&counted).map(variant).collect(),
        sample_ratio: sample_ratio(&spread)
            .map(|p_value| SampleRatio { p_value, mismatch: p_value < SAMPLE_RATIO_ALARM }),
        goals: experiment.goals.iter().map(|goal| self::goal(&goal.name, experiment, &counted)).collect(),
    }
}

fn goal(name: &str, experiment: &Experiment, counted: &[Tally]) -> Goal {
    let reached = |tally: &Tally| Counted {
        units: tally.units,
        conversions: tally.goals.get(name).copied().unwrap_or(0),
    };
    let control = counted.first().map(reached);
    let variants = experiment.variants.iter().zip(counted).enumerate().map(|(place, (variant, tally))| {
        let counted = reached(tally);
        let compared = control.filter(|_| place > 0).and_then(|control| compare(control, counted));
        Reached {
            variant: variant.name.to_string(),
            conversions: counted.conversions,
            rate: counted.rate(),
            lift: compared.map(|compared| Lift {
                estimate: compared.lift,
                low: compared.low,
                high: compared.high,
                p_value: compared.p_value,
            }),
        }
    });
    Goal { name: name.to_owned(), variants: variants.collect() }
}
