//! How a release comes about: by a push, a rollback, or because a tenant or hostname changed.
//!
//! Whoever makes one holds the target's lock, at the target's home region, from reading the head until the commit, so that
//! of two writers one sees what the other did. A bundle is the pushed documents and those that are made of the tables, compiled whole;
//! what does not compile is never released.

use http::StatusCode;
use meridian_engine::ruleset::Target;
use meridian_store::domain::{self, Domain};
use meridian_store::release::{self, Contents, Release};
use meridian_store::{Fault, Scope as Transaction, tenant};
use meridian_wire::document::{Body, Document, Metadata, PlanSpec, Source, TenantSpec, TenantStateSpec};
use meridian_wire::signature::Ticket;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::audit::{self, Change};
use super::auth::Operator;
use super::compile::{Compiled, compile, reach, renew, test, warn_of_reach};
use super::home;
use crate::context::{now_ms, now_ms_i64};
use crate::problem::Problem;
use crate::state::Origin;

/// A file of documents, as a platform engineer wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Path relative to what is pushed.
    pub path: String,
    /// YAML or JSON; a list of networks or of autonomous systems; of a component (`.wasm`), base64.
    pub content: String,
}

/// A release that was made, or the head that is the same already.
pub(super) struct Published {
    pub release: Release,
    /// Whether it was made now.
    pub new: bool,
    /// What is allowed but looks wrong.
    pub warnings: Vec<Value>,
}

type Head = Option<(Release, Contents)>;

/// Releases pushed documents.
///
/// # Errors
/// 421 where this is not the target's home, 409 where the parent is not the head, 422 where the documents or their tests
/// are wrong, or more than the tenant's plan allows.
pub(super) async fn push(
    origin: &Origin,
    transaction: &mut Transaction,
    operator: &Operator,
    target: &Target,
    parent: Option<String>,
    files: Vec<File>,
    note: Option<String>,
) -> Result<Published, Problem> {
    let head = lock(transaction, target).await?;
    home::confirm(origin, transaction, target).await?;
    follows(&head, parent.as_deref())?;
    let generated = generated(transaction, target).await?;
    let compiled = compile(target, &files, generated).await?;
    compiled.within_plan()?;
    reach(origin, transaction, &compiled).await?;
    test(transaction, &compiled).await?;
    let made = Making { origin, operator, target, kind: "push", note };
    made.release(transaction, head, files, compiled).await
}

/// Releases the documents of an earlier release again, with the tenant and its hostnames as they are now. What they name and is
/// not there any longer is a warning: going back must not depend on what others have changed since.
///
/// # Errors
/// 421 where this is not the target's home, 404 where there is no such release, 409 where the parent is not the head, 422
/// where it is more than the tenant's plan allows.
pub(super) async fn rollback(
    origin: &Origin,
    transaction: &mut Transaction,
    operator: &Operator,
    target: &Target,
    parent: String,
    to: &str,
    note: Option<String>,
) -> Result<Published, Problem> {
    let head = lock(transaction, target).await?;
    home::confirm(origin, transaction, target).await?;
    follows(&head, Some(&parent))?;
    let (_, contents) = release::get(transaction, &target.to_string(), to).await?;
    let files = files(&contents)?;
    let generated = generated(transaction, target).await?;
    // Their tests passed when they were pushed, and going back must not depend on what tests mean today.
    let mut compiled = compile(target, &files, generated).await?;
    compiled.within_plan()?;
    warn_of_reach(origin, transaction, &mut compiled).await?;
    let made = Making { origin, operator, target, kind: "rollback", note };
    made.release(transaction, head, files, compiled).await
}

/// Releases the documents of the head with the tenant and its hostnames as they are now. The caller has made the tenant, or
/// has locked its row and knows that this is its home.
///
/// # Errors
/// 422 where the rules don't hold together with them.
pub(super) async fn regenerate(
    origin: &Origin,
    transaction: &mut Transaction,
    operator: &Operator,
    target: &Target,
) -> Result<Published, Problem> {
    let head = lock(transaction, target).await?;
    let files = head.as_ref().map(|(_, contents)| files(contents)).transpose()?.unwrap_or_default();
    let generated = generated(transaction, target).await?;
    let compiled = match (compile(target, &files, generated.clone()).await, &head) {
        (Err(problem), Some((_, contents))) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            renew(target, &contents.bundle, generated).await.map_err(|_| problem)?
        }
        (compiled, _) => compiled?,
    };
    let made = Making { origin, operator, target, kind: "generated", note: None };
    made.release(transaction, head, files, compiled).await
}

async fn lock(transaction: &mut Transaction, target: &Target) -> Result<Head, Fault> {
    let target = target.to_string();
    release::lock(transaction, &target).await?;
    release::head(transaction, &target).await
}

/// Compare-and-set: what is pushed was made from the head, or it is refused.
fn follows(head: &Head, parent: Option<&str>) -> Result<(), Problem> {
    let head = head.as_ref().map(|(release, _)| release.version.as_str());
    if head == parent {
        return Ok(());
    }
    let name = |version: Option<&str>| version.unwrap_or("none").to_owned();
    Err(Problem::new(StatusCode::CONFLICT, "parent-differs", "The parent is not the newest release")
        .detail(format!("the parent is {}, the newest release is {}", name(parent), name(head)))
        .member("parent", parent)
        .member("head", head))
}

fn files(contents: &Contents) -> Result<Vec<File>, Problem> {
    serde_json::from_value(contents.files.clone()).map_err(|error| Problem::internal(&error))
}

/// The documents that are made of the tables.
async fn generated(transaction: &mut Transaction, target: &Target) -> Result<Vec<Document>, Problem> {
    let Target::Tenant(slug) = target else { return Ok(Vec::new()) };
    let owner = tenant::get(transaction, slug).await?;
    let state = if owner.is_served() { TenantStateSpec::Active } else { TenantStateSpec::Suspended };
    let plan: Option<PlanSpec> =
        owner.plan.map(serde_json::from_value).transpose().map_err(|error| Problem::internal(&error))?;
    let spec = TenantSpec {
        state,
        home_region: owner.home_region,
        allowed_regions: owner.allowed_regions,
        parent: owner.parent,
        suspended_by: owner.suspended_by,
        plan: plan.unwrap_or_default(),
    };
    let mut documents = vec![document(Body::Tenant(spec), slug.clone())];
    for domain in domain::of_tenant(transaction, slug).await? {
        let Domain { hostname, tenant, verification, tls, .. } = domain;
        let spec = json!({"tenant": tenant, "verification": verification, "tls": tls});
        let spec = serde_json::from_value(spec).map_err(|error| Problem::internal(&error))?;
        documents.push(document(Body::Domain(spec), hostname));
    }
    Ok(documents)
}

fn document(body: Body, name: String) -> Document {
    let source = Source { file: "control-plane".to_owned(), line: 1 };
    Document { body, metadata: Metadata { name, description: None }, source }
}

/// What a release is made with.
struct Making<'a> {
    origin: &'a Origin,
    operator: &'a Operator,
    target: &'a Target,
    kind: &'static str,
    note: Option<String>,
}

impl Making<'_> {
    async fn release(
        self,
        transaction: &mut Transaction,
        head: Head,
        files: Vec<File>,
        compiled: Compiled,
    ) -> Result<Published, Problem> {
        let version = compiled.version;
        let files = serde_json::to_value(files).map_err(|error| Problem::internal(&error))?;
        let before = head.as_ref().map(|(release, _)| release.version.clone());
        // Comments and tests are in the files but not in the bundle: both must be the same.
        if let Some((release, contents)) = &head
            && release.version == version
            && contents.files == files
        {
            return Ok(Published { release: release.clone(), new: false, warnings: compiled.warnings });
        }
        let sequence = head.as_ref().map_or(0, |(release, _)| release.sequence) + 1;
        let key = self.origin.config.bundle_signing_key.as_ref().ok_or_else(|| {
            let title = "This origin has no key to sign bundles with";
            Problem::new(StatusCode::NOT_IMPLEMENTED, "no-signing-key", title)
        })?;
        let number = u64::try_from(sequence).unwrap_or(0);
        let ticket = Ticket::of(self.target, number, compiled.bundle.as_bytes(), before.as_deref(), now_ms());
        let release = Release {
            target: self.target.to_string(),
            sequence,
            version,
            parent: before.clone(),
            kind: self.kind.to_owned(),
            note: self.note,
            created_by: self.operator.name.clone(),
            created_at_ms: now_ms_i64(),
        };
        let contents = Contents { files, bundle: compiled.bundle, ticket: ticket.sign(key) };
        release::add(transaction, &release, &contents).await?;
        let tenant = match self.target {
            Target::Platform => None,
            Target::Tenant(slug) => Some(slug.as_str()),
        };
        let action = format!("release.{}", self.kind);
        let (before, after) = (before.map(Value::from), Value::from(release.version.as_str()));
        let change = Change {
            action: &action,
            subject: &release.target,
            tenant,
            before: before.as_ref(),
            after: Some(&after),
            detail: json!({"sequence": sequence, "version": release.version, "note": release.note}),
        };
        audit::write(transaction, self.operator, change).await?;
        Ok(Published { release, new: true, warnings: compiled.warnings })
    }
}
