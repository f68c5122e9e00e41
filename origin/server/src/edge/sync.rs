//! `POST /edge/v1/sync`

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use meridian_store::purge::{self, Purge, Purges};
use meridian_store::{Access, Fault, release};
use meridian_wire::limits::{SYNC_ADDRESSES_MAX, SYNC_PURGES_MAX, SYNC_TARGETS_MAX};
use meridian_wire::sync::{Head, PurgeEntry, SyncReply, SyncRequest};

use super::regions;
use crate::context::{Signed, now_ms};
use crate::limits::SYNC_FIRST_MS;
use crate::problem::Problem;
use crate::request::Body;
use crate::state::Origin;

/// What is new since an edge last asked: heads of its targets, the purge journal, news of the regions.
///
/// Purges of all tenants are told, not only of those in the edge's memory: its cache outlives what it remembers, and the
/// cursor moves on.
#[utoipa::path(
    post,
    path = "/edge/v1/sync",
    tag = "edge",
    request_body(
        content = Object,
        description = "{edge, targets: {TARGET: SEQUENCE}, purge_cursor: {REGION: SEQ} or null, addresses: [ADDRESS]}",
        content_type = "application/json"
    ),
    responses((
        status = 200,
        description = "{region, now_ms, heads, purges, purge_cursor, reset, regions, names}",
        body = Object
    )),
    security(("context" = []))
)]
pub(super) async fn sync(
    State(origin): State<Arc<Origin>>,
    _signed: Signed,
    Body(asked): Body<SyncRequest>,
) -> Result<Json<SyncReply>, Problem> {
    if asked.targets.len() > SYNC_TARGETS_MAX {
        return Err(Problem::bad_request(format!("at most {SYNC_TARGETS_MAX} targets")));
    }
    if asked.addresses.len() > SYNC_ADDRESSES_MAX {
        return Err(Problem::bad_request(format!("at most {SYNC_ADDRESSES_MAX} addresses")));
    }
    // Before the journal is read: whatever is written to it later has a later time.
    let now_ms = now_ms();
    let region = origin.config.identity.region.clone();
    let cursor = asked.purge_cursor.as_ref().and_then(|cursor| cursor.get(&region)).copied();
    let targets: Vec<String> = asked.targets.into_keys().collect();
    let tenants: BTreeSet<&str> =
        targets.iter().filter_map(|target| target.strip_prefix("tenant:")).collect();
    let (purges, heads, regions) = tokio::join!(
        purges(&origin, cursor, now_ms),
        heads(&origin, &targets),
        regions::status(&origin, &tenants)
    );
    let Purges { rows, next, reset } = purges?;
    Ok(Json(SyncReply {
        now_ms,
        heads: heads?,
        purges: rows.into_iter().map(entry).collect(),
        purge_cursor: BTreeMap::from([(region.clone(), u64::try_from(next).unwrap_or(0))]),
        reset,
        names: origin.names.of(&asked.addresses),
        regions: regions.map_err(|fault| Problem::unavailable(&*fault))?,
        region,
    }))
}

/// What the journal holds beyond the cursor, as much as one reply carries; the rest comes with the next one. Without a
/// cursor, what was written lately: the edge takes older entries of its cache as stale.
async fn purges(origin: &Origin, cursor: Option<u64>, now_ms: u64) -> Result<Purges, Fault> {
    let since = match cursor {
        Some(seq) => i64::try_from(seq).unwrap_or(i64::MAX),
        None => {
            let lately_ms = i64::try_from(now_ms).unwrap_or(i64::MAX) - SYNC_FIRST_MS;
            purge::cursor_at(&origin.store, lately_ms).await?
        }
    };
    let mut purges = purge::since(&origin.store, Some(since)).await?;
    if purges.rows.len() > SYNC_PURGES_MAX {
        if cursor.is_none() {
            return purge::since(&origin.store, None).await;
        }
        purges.rows.truncate(SYNC_PURGES_MAX);
        purges.next = purges.rows.last().map_or(since, |row| row.seq);
    }
    Ok(purges)
}

async fn heads(origin: &Origin, targets: &[String]) -> Result<BTreeMap<String, Head>, Fault> {
    let mut scope = origin.store.begin(Access::Control).await?;
    let heads = release::heads(&mut scope, targets).await?;
    let head = |head: release::Head| {
        let sequence = u64::try_from(head.sequence).unwrap_or(0);
        (head.target, Head { sequence, version: head.version })
    };
    Ok(heads.into_iter().map(head).collect())
}

fn entry(row: Purge) -> PurgeEntry {
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    PurgeEntry {
        seq: number(row.seq),
        tenant: row.tenant,
        tag: row.tag,
        source: u16::try_from(row.source).unwrap_or(0),
        position: number(row.position),
        at_ms: number(row.at_ms),
        soft: row.soft,
    }
}
