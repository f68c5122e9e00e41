//! What lasts for a while, by a clock that may be set back.
//!
//! Hosts correct their clocks, and of two requests at once the later may be told the earlier time. A moment that lies in the
//! future was noted before such a step: it counts as if it lay as far in the past. So nothing goes on for more than twice as
//! long as it was to, however far the clock was set back.

/// A moment that was noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Since(pub(crate) u64);

impl Since {
    /// How long ago it was.
    pub(crate) fn age_ms(self, now_ms: u64) -> u64 {
        now_ms.abs_diff(self.0)
    }

    /// Whether less than that has passed.
    pub(crate) fn is_within(self, span_ms: u64, now_ms: u64) -> bool {
        self.age_ms(now_ms) < span_ms
    }
}

/// The end of what lasts for a while from a moment on. The default has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Until {
    at_ms: u64,
    span_ms: u64,
}

impl Until {
    /// `span_ms` after `since_ms`.
    pub(crate) fn after(since_ms: u64, span_ms: u64) -> Self {
        Self::at(since_ms.saturating_add(span_ms), span_ms)
    }

    /// At this time, which was no more than `span_ms_max` ahead when it was noted.
    pub(crate) fn at(at_ms: u64, span_ms_max: u64) -> Self {
        Self { at_ms, span_ms: span_ms_max }
    }

    /// The one that comes first.
    pub(crate) fn earlier(self, other: Self) -> Self {
        if other.at_ms < self.at_ms { other } else { self }
    }

    /// Whether it is still to come.
    pub(crate) fn is_ahead(self, now_ms: u64) -> bool {
        let left_ms = self.at_ms.saturating_sub(now_ms);
        left_ms > 0 && left_ms < self.span_ms.saturating_mul(2)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_lasts_ends_on_time() {
        let until = Until::after(1_000, 50);
        for (now_ms, ahead) in
            [(1_000, true), (1_049, true), (1_050, false), (999, true), (951, true), (950, false), (0, false)]
        {
            assert_eq!(until.is_ahead(now_ms), ahead, "{now_ms}");
        }
        assert_eq!(Until::at(1_050, 50), until);
        let later = Until::after(1_040, 50);
        assert_eq!((until.earlier(later), later.earlier(until)), (until, until));
        assert!(!Until::default().is_ahead(0));
    }

    proptest! {
        #[test]
        fn nothing_goes_on_for_more_than_twice_as_long_as_it_was_to(
            since_ms in 0u64..1 << 50,
            span_ms in 0u64..1 << 40,
            now_ms in 0u64..1 << 50,
        ) {
            let until = Until::after(since_ms, span_ms);
            prop_assert!(!(until.is_ahead(now_ms) && until.is_ahead(now_ms + 2 * span_ms)));
            let since = Since(since_ms);
            prop_assert!(!(since.is_within(span_ms, now_ms) && since.is_within(span_ms, now_ms + 2 * span_ms)));
        }
    }
}
