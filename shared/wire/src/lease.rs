//! `POST /edge/v1/leases`: how an edge takes from a limit whose count an authority keeps.

use meridian_engine::ruleset::{LimitAlgorithm, LimitScope};
use meridian_engine::step::{Lease, Take};
use serde::{Deserialize, Serialize};

use crate::limits::LEASE_AMOUNT_MAX;

/// Units that an edge asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// Tenant of the limit.
    pub tenant: String,
    /// Name of the `RateLimit` document.
    pub limit: String,
    /// Whom it counts, as a keyed hash.
    pub key: String,
    /// Units that are needed at the least.
    pub cost: u32,
    /// Whether one authority counts for all regions.
    #[serde(default)]
    pub global: bool,
    /// Region whose authority counts.
    pub region: String,
    /// Whether what passed in the window that ends now is counted, and not the generic cell rate.
    #[serde(default)]
    pub sliding: bool,
    /// Units in a window.
    pub quota: u32,
    /// Length of the window.
    pub window_ms: u64,
    /// Units that may be taken at once.
    pub burst: u32,
    /// Units that the edge would like to hold.
    pub amount: u32,
}

/// Units that the authority grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseReply {
    /// Units that the edge may spend; 0 where the limit is reached.
    pub granted: u32,
    /// Units that are left.
    pub remaining: u32,
    /// Until at least one more unit is there than those; 0 where all are.
    pub reset_ms: u64,
    /// Until as many are there as `cost` says, where the limit is reached; 0 where it is not. An authority of before this was
    /// said tells it in `reset_ms`.
    #[serde(default)]
    pub wait_ms: u64,
    /// When unspent units lapse, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
}

/// Why a request for units makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {expected}")]
pub struct InvalidLease {
    /// The field.
    pub field: &'static str,
    /// What was expected of it.
    pub expected: &'static str,
}

impl LeaseRequest {
    /// What an authority checks before it counts.
    ///
    /// # Errors
    /// Names the field that is out of range.
    pub fn check(&self) -> Result<(), InvalidLease> {
        let rules = [
            ((1..=63).contains(&self.tenant.len()), "tenant", "a slug"),
            ((1..=253).contains(&self.limit.len()), "limit", "a name"),
            ((1..=128).contains(&self.key.len()), "key", "1 to 128 characters"),
            ((1..=63).contains(&self.region.len()), "region", "the id of a region"),
            (self.quota >= 1, "quota", "at least 1"),
            (self.window_ms >= 1, "window_ms", "at least 1"),
            (self.cost >= 1 && self.cost <= self.burst, "cost", "at least 1 and at most the burst"),
            (
                (self.cost..=self.cost.max(LEASE_AMOUNT_MAX)).contains(&self.amount),
                "amount",
                "at least the cost, and no more than a million or the cost",
            ),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, expected)) => Err(InvalidLease { field, expected }),
            None => Ok(()),
        }
    }
}

impl From<&Take> for LeaseRequest {
    fn from(take: &Take) -> Self {
        Self {
            tenant: take.tenant.clone(),
            limit: take.limit.clone(),
            key: take.key.clone(),
            cost: take.cost,
            global: take.scope == LimitScope::Global,
            region: take.region.to_string(),
            sliding: take.algorithm == LimitAlgorithm::SlidingWindow,
            quota: take.quota,
            window_ms: take.window_ms,
            burst: take.burst,
            amount: take.amount,
        }
    }
}

impl From<LeaseRequest> for Take {
    fn from(request: LeaseRequest) -> Self {
        let LeaseRequest {
            tenant,
            limit,
            key,
            cost,
            global,
            region,
            sliding,
            quota,
            window_ms,
            burst,
            amount,
        } = request;
        Self {
            tenant,
            limit,
            key,
            amount,
            cost,
            scope: if global { LimitScope::Global } else { LimitScope::Region },
            region: region.into(),
            others: Vec::new(),
            algorithm: if sliding { LimitAlgorithm::SlidingWindow } else { LimitAlgorithm::Gcra },
            quota,
            window_ms,
            burst,
        }
    }
}

impl From<LeaseReply> for Lease {
    fn from(reply: LeaseReply) -> Self {
        let LeaseReply { granted, remaining, reset_ms, wait_ms, expires_ms } = reply;
        Self { granted, remaining, reset_ms, wait_ms, expires_ms }
    }
}

impl From<Lease> for LeaseReply {
    fn from(lease: Lease) -> Self {
        let Lease { granted, remaining, reset_ms, wait_ms, expires_ms } = lease;
        Self { granted, remaining, reset_ms, wait_ms, expires_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_named() {
        let take = Take {
            tenant: "acme".into(),
            limit: "per-subject".into(),
            key: "ab".into(),
            amount: 10,
            cost: 1,
            scope: LimitScope::Global,
            region: "us-east-1".into(),
            others: Vec::new(),
            algorithm: LimitAlgorithm::SlidingWindow,
            quota: 300,
            window_ms: 60_000,
            burst: 300,
        };
        let request = LeaseRequest::from(&take);
        assert_eq!(request.check(), Ok(()));
        assert_eq!(Take::from(request.clone()), take);
        let wrong = LeaseRequest { cost: 301, ..request.clone() };
        assert_eq!(wrong.check().unwrap_err().to_string(), "cost must be at least 1 and at most the burst");
        for amount in [0, LEASE_AMOUNT_MAX + 1] {
            let wrong = LeaseRequest { amount, ..request.clone() };
            assert_eq!(
                wrong.check().unwrap_err().to_string(),
                "amount must be at least the cost, and no more than a million or the cost"
            );
        }
    }

    #[test]
    fn a_reply_that_only_says_when_there_is_more_is_read() {
        let before = r#"{"granted":0,"remaining":2,"reset_ms":6000,"expires_ms":1800000000000}"#;
        let reply: LeaseReply = serde_json::from_str(before).unwrap();
        assert_eq!((reply.reset_ms, reply.wait_ms), (6_000, 0));
    }

    #[test]
    fn a_request_may_cost_whatever_the_burst_bears() {
        let ask = |cost, burst, amount| LeaseRequest {
            tenant: "acme".into(),
            limit: "bytes".into(),
            key: "ab".into(),
            cost,
            global: false,
            region: "us-east-1".into(),
            sliding: false,
            quota: burst,
            window_ms: 60_000,
            burst,
            amount,
        };
        let dear = LEASE_AMOUNT_MAX + 1;
        assert_eq!(ask(dear, dear, dear).check(), Ok(()));
        assert_eq!(ask(u32::MAX, u32::MAX, u32::MAX).check(), Ok(()));
        assert_eq!(ask(dear, dear, dear + 1).check().unwrap_err().field, "amount");
        assert_eq!(ask(dear + 1, dear, dear + 1).check().unwrap_err().field, "cost");
    }
}
