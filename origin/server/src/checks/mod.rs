//! Active health checks of tenants' upstreams: each region's origin asks those that are named for its own region, and tells
//! edges (news of the regions) and the other origins (`/readyz`) which of them fail.
//!
//! What is asked is written by tenants, so that it must not reach what they could not: nothing but a `GET` is sent, no
//! redirect is followed, an answer counts by its status alone, and unless whoever runs the origin says otherwise
//! ([`UpstreamChecks`]), only public addresses are asked. Where several processes are the origin of a region, each checks.

mod checked;
mod probe;
pub mod verdict;
mod watched;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use meridian_store::release::Head;
use meridian_store::{Access, Fault, release};
use meridian_wire::limits::SYNC_UNHEALTHY_MAX;
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::checked::{Checked, checked};
use self::probe::{Outcome, Probe};
use self::watched::{Begun, LeftOut, Watched};
use crate::config::UpstreamChecks;
use crate::limits::{
    CHECK_FOLLOW_INTERVAL, CHECK_TICK, CHECKED_BUNDLES_MAX, CHECKED_PAGE_ROWS, CHECKS_AT_ONCE_MAX,
    CHECKS_PER_TICK_MAX,
};
use crate::state::Origin;

/// What is known of the upstreams that are checked here.
#[derive(Clone, Default)]
pub struct Checks(Arc<Mutex<Watched>>);

impl Checks {
    /// All upstreams of this region that are unhealthy, as `tenant/name`, in this order: no more than are checked.
    #[must_use]
    pub fn unhealthy(&self) -> Vec<String> {
        self.watched().unhealthy().collect()
    }

    /// The same of these tenants alone, and at most [`SYNC_UNHEALTHY_MAX`].
    #[must_use]
    pub fn unhealthy_of(&self, tenants: &BTreeSet<&str>) -> Vec<String> {
        self.watched().unhealthy_of(tenants).take(SYNC_UNHEALTHY_MAX).collect()
    }

    /// How many upstreams are checked, and how many of them are unhealthy.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let watched = self.watched();
        (watched.len(), watched.unhealthy().count())
    }

    /// Follows what tenants want checked and checks it, until `stop` says so. `tls` says whom to trust.
    pub async fn watch(self, origin: Arc<Origin>, tls: Arc<ClientConfig>, mut stop: watch::Receiver<bool>) {
        let config = &origin.config;
        if config.upstream_checks == UpstreamChecks::Off {
            return;
        }
        let probe = Probe::new(tls, &config.name_servers, config.upstream_checks);
        tokio::select! {
            () = self.follow(&origin) => {}
            () = self.check(&origin, &probe) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks again and again for new releases of those tenants that have checks, a page of them at a time.
    async fn follow(&self, origin: &Origin) {
        let mut clock = tokio::time::interval(CHECK_FOLLOW_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut after = String::new();
        loop {
            clock.tick().await;
            let next = self.page(origin, &after).await;
            match next {
                Ok(next) => after = next,
                Err(fault) => {
                    tracing::warn!(%fault, "what tenants want checked could not be looked up now");
                }
            }
        }
    }

    /// Takes what is new of a page, and says where the next one begins.
    async fn page(&self, origin: &Origin, after: &str) -> Result<String, Fault> {
        let mut scope = origin.store.begin(Access::Control).await?;
        let heads = release::checked(&mut scope, after, CHECKED_PAGE_ROWS).await?;
        scope.commit().await?;
        let is_last = i64::try_from(heads.len()).is_ok_and(|rows| rows < CHECKED_PAGE_ROWS);
        let end = heads.last().filter(|_| !is_last).map(|head| head.target.clone());
        let mut new: Vec<Head> = {
            let watched = self.watched();
            heads.into_iter().filter(|head| watched.wants(slug(head), head.sequence)).collect()
        };
        // The next look goes on with those that this one does not come to.
        let rest = new.split_off(new.len().min(CHECKED_BUNDLES_MAX));
        let end = if rest.is_empty() { end } else { new.last().map(|head| head.target.clone()) };
        for head in new {
            // One at a time: together they would be too large, and no transaction waits for one to be parsed.
            let mut scope = origin.store.begin(Access::Control).await?;
            let bundle = release::bundle(&mut scope, &head.target, head.sequence).await?;
            scope.commit().await?;
            self.take(origin, &head, bundle).await;
        }
        Ok(end.unwrap_or_default())
    }

    async fn take(&self, origin: &Origin, head: &Head, bundle: String) {
        let (tenant, region) = (slug(head).to_owned(), origin.config.identity.region.clone());
        // A bundle may be of some megabytes.
        let read = {
            let tenant = tenant.clone();
            move || checked(bundle.as_bytes(), &tenant, &region)
        };
        let wanted = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(wanted)) => wanted,
            Ok(Err(error)) => {
                tracing::warn!(tenant, %error, "what a tenant wants checked can't be read: nothing of it is");
                Vec::new()
            }
            Err(error) => {
                tracing::error!(tenant, %error, "reading what a tenant wants checked ended badly");
                Vec::new()
            }
        };
        let left_out = self.watched().take(&tenant, head.sequence, wanted, Instant::now());
        if let Some(LeftOut { count, limit }) = left_out {
            tracing::warn!(
                tenant,
                left_out = count,
                limit,
                "no room to check these upstreams: they count as healthy until there is some"
            );
        }
    }

    /// Checks what is due, again and again.
    async fn check(&self, origin: &Origin, probe: &Probe) {
        let mut clock = tokio::time::interval(CHECK_TICK);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked: JoinSet<(Begun, Outcome)> = JoinSet::new();
        loop {
            tokio::select! {
                _ = clock.tick() => {
                    let room = CHECKS_AT_ONCE_MAX.saturating_sub(asked.len()).min(CHECKS_PER_TICK_MAX);
                    let due = self.watched().due(Instant::now(), room);
                    for begun in due {
                        let probe = probe.clone();
                        asked.spawn(async move {
                            let outcome = probe.ask(&begun.checked).await;
                            (begun, outcome)
                        });
                    }
                }
                Some(ended) = asked.join_next() => match ended {
                    Ok((begun, outcome)) => self.ended(origin, &begun.checked, outcome),
                    Err(error) => tracing::error!(%error, "a health check ended badly"),
                },
            }
        }
    }

    fn ended(&self, origin: &Origin, checked: &Arc<Checked>, outcome: Outcome) {
        origin.metrics.upstream_checked(outcome.label());
        let changed = self.watched().ended(checked, outcome.passed());
        let (tenant, upstream) = (checked.tenant.as_str(), checked.name.as_str());
        let region = origin.config.identity.region.as_str();
        match changed {
            Some(true) => tracing::info!(tenant, upstream, region, "an upstream is healthy again"),
            Some(false) => tracing::warn!(tenant, upstream, region, ?outcome, "an upstream is unhealthy"),
            None => {}
        }
    }
}

/// The tenant of a release; those of the platform are not among them.
fn slug(head: &Head) -> &str {
    head.target.strip_prefix("tenant:").unwrap_or(&head.target)
}
