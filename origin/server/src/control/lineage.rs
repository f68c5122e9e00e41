//! What a tenant has of those above it: it is served only while all of them are.
//!
//! A tenant is released at its own home region, and those above it may have others. So nobody reaches down: each region
//! compares, every second, the rows of the tenants at home there with those above them, wherever these were changed, and
//! where one is to be suspended or served again it writes that down and releases the tenant anew, in one transaction. What
//! else makes a release of a tenant (its state, its plan, its hostnames) is changed at its home alone, together with the
//! release, so that who suspends it is all that can differ. Who was not there at a change sees to it later, and several
//! processes at one database don't do it twice: the row is locked, and looked at again.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use meridian_engine::ruleset::Target;
use meridian_store::limits::TENANT_DEPTH_MAX;
use meridian_store::tenant::Tenant;
use meridian_store::{Access, Fault, Scope as Transaction, tenant};
use tokio::sync::watch;

use super::auth::Operator;
use super::{home, invalid, tenants};
use crate::limits::{LINEAGE_AT_ONCE_MAX, LINEAGE_INTERVAL, LINEAGE_PAUSE, LINEAGE_ROWS_MAX};
use crate::problem::Problem;
use crate::serve::told_to_stop;
use crate::state::Origin;

/// Sees to the tenants at home here until told to stop.
pub(crate) async fn keep(origin: Arc<Origin>, mut stopping: watch::Receiver<bool>) {
    tokio::select! {
        () = see_to_all(&origin) => {}
        () = told_to_stop(&mut stopping) => {}
    }
}

/// Who suspends a new tenant below this one, if anybody.
///
/// # Errors
/// 422 where there is no such parent, or as many above it as there may be.
pub(super) async fn below(transaction: &mut Transaction, parent: &str) -> Result<Option<String>, Problem> {
    let above = tenant::above(transaction, Some(parent)).await?;
    if above.is_empty() {
        return Err(invalid("parent", parent, "the slug of a tenant"));
    }
    if above.len() >= TENANT_DEPTH_MAX {
        let levels = TENANT_DEPTH_MAX - 2;
        let expected =
            format!("a tenant with at most {levels} above it: TENANT_DEPTH_MAX is {TENANT_DEPTH_MAX}");
        return Err(invalid("parent", parent, &expected));
    }
    Ok(suspends(&above))
}

/// The nearest of those above that is suspended.
fn suspends(above: &[Tenant]) -> Option<String> {
    above.iter().find(|tenant| tenant.state == "suspended").map(|tenant| tenant.slug.clone())
}

async fn see_to_all(origin: &Arc<Origin>) {
    loop {
        let all_done = round(origin).await.unwrap_or_else(|fault| {
            tracing::warn!(%fault, "tenants below others could not be looked at now");
            false
        });
        // What failed a moment ago most likely fails again.
        tokio::time::sleep(if all_done { LINEAGE_INTERVAL } else { LINEAGE_PAUSE }).await;
    }
}

/// Looks at every tenant at home here, a page at a time, and releases some at once, each in a transaction of its own: what one
/// needs of those above it is read, never locked. Whether all that had to be done is done.
async fn round(origin: &Arc<Origin>) -> Result<bool, Fault> {
    let (region, mut after, mut all_done) = (&origin.config.identity.region, String::new(), true);
    loop {
        let mut transaction = origin.store.begin(Access::Control).await?;
        let slugs = tenant::unsettled(&mut transaction, region, &after, LINEAGE_ROWS_MAX).await?;
        transaction.commit().await?;
        let is_full = i64::try_from(slugs.len()).is_ok_and(|many| many >= LINEAGE_ROWS_MAX);
        let last = slugs.last().filter(|_| is_full).cloned();
        let settling = slugs.into_iter().map(|slug| async move {
            let settled = settle(origin, &slug).await;
            (slug, settled)
        });
        let mut settled = stream::iter(settling).buffer_unordered(LINEAGE_AT_ONCE_MAX);
        while let Some((slug, settled)) = settled.next().await {
            // One that can't be released must not keep others from it.
            if let Err(problem) = settled {
                tracing::warn!(tenant = %slug, status = %problem.status(), ?problem,
                    "a tenant could not be released as those above it have it");
                all_done = false;
            }
        }
        match last {
            Some(last) => after = last,
            None => return Ok(all_done),
        }
    }
}

async fn settle(origin: &Arc<Origin>, slug: &str) -> Result<(), Problem> {
    let target = Target::Tenant(slug.to_owned());
    let mut transaction = origin.store.begin(Access::Control).await?;
    let before = tenant::get_for_update(&mut transaction, slug).await?;
    home::confirm(origin, &mut transaction, &target).await?;
    let above = tenant::above(&mut transaction, before.parent.as_deref()).await?;
    let after = Tenant { suspended_by: suspends(&above), ..before.clone() };
    if after != before {
        tenants::save(origin, &mut transaction, &Operator::system(), &before, after).await?;
        transaction.commit().await?;
        origin.residences.invalidate(slug).await;
    }
    Ok(())
}
