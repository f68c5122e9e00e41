//! What a reply's content becomes on its way out: first its HTML is changed, then it is coded.

use super::Exchange;
use crate::headers::Headers;
use crate::policy::transform::{detach, edits, is_in_coding_of_runtimes, judge, make_private, recode, unfit};
use crate::ruleset::{Coding, PageChanges, Transform};
use crate::step::ReplyBody;

impl Exchange {
    /// Whether one of the route's transforms that are for this request has something of a kind.
    fn any_transform(&self, has: impl Fn(&Transform) -> bool) -> bool {
        let Some(rules) = &self.rules else { return false };
        let mut transforms = rules.transforms(self.route);
        transforms.any(|transform| has(transform) && transform.is_for(&self.inputs()) == Ok(true))
    }

    /// Asks the cache and the target for what can be changed: pages whose HTML is changed whole and in no coding, and no
    /// part of a page to go with parts that the client has of a coded one. A server may ignore `Range` (RFC 9110, section
    /// 14.2), and conditions by validators that its answers do not have.
    pub(super) fn ask_for_whole(&mut self) {
        let rewrites = self.any_transform(Transform::changes_pages);
        let is_read = matches!(self.facts.method.as_str(), "GET" | "HEAD");
        let fields = &mut self.facts.headers;
        if rewrites {
            self.asked_codings = Some(fields.joined("accept-encoding").unwrap_or_default());
            fields.set("accept-encoding", "identity");
        }
        if !is_read {
            return;
        }
        // A strong entity tag is of the content as it is; anything else may stand for the coded one.
        let may_be_of_coded =
            fields.get("if-range").is_some_and(|condition| !condition.trim().starts_with('"'));
        if rewrites || (may_be_of_coded && self.any_transform(|transform| transform.compress.is_some())) {
            self.facts.headers.remove("range");
            self.facts.headers.remove("if-range");
        }
        if rewrites {
            self.facts.headers.remove("if-none-match");
            self.facts.headers.remove("if-modified-since");
        }
    }

    /// Makes the head of a reply fit what a host does that codes anew what it stores or counts: on a route of whose answers one
    /// may be stored all have one form of the entity tag, whoever gets it first.
    pub(super) fn fit_recoded(&self, headers: &mut Headers) {
        let is_counted = self.upstream().is_some_and(|upstream| {
            upstream.response_bytes_max.is_some() || upstream.body_timeout_ms.is_some()
        });
        let stored = self.confirms.as_ref().map_or(&*headers, |(_, content)| content);
        if (self.lookup.is_some() || is_counted) && is_in_coding_of_runtimes(stored) {
            recode(headers);
        }
    }

    /// What the host does to the body of a reply, with the head made to fit.
    pub(super) fn rework(
        &mut self,
        status: u16,
        headers: &mut Headers,
        body: &ReplyBody,
    ) -> (PageChanges, Option<Coding>) {
        let html = self.rewrite(status, headers);
        let length = match body {
            _ if !html.is_empty() => None,
            ReplyBody::Bytes(bytes) => u64::try_from(bytes.len()).ok(),
            _ => {
                let declared = headers.get("content-length").and_then(|length| length.trim().parse().ok());
                self.served_bytes.or(declared)
            }
        };
        let coding = self.compress(status, headers, length);
        // A head that stands alone says what the body would have been.
        match *body == ReplyBody::Empty || self.facts.method == "HEAD" || status == 304 {
            true => (PageChanges::default(), None),
            false => (html, coding),
        }
    }

    fn rewrite(&mut self, status: u16, headers: &mut Headers) -> PageChanges {
        let mut page = PageChanges::default();
        let Some(rules) = self.rules.clone() else { return page };
        let mut is_personal = false;
        for transform in rules.transforms(self.route).filter(|transform| transform.changes_pages()) {
            if !self.applies(transform) {
                continue;
            }
            let outcome = match unfit(&self.facts.headers, status, headers) {
                Some(why) => format!("left as it is: {why}"),
                None => {
                    let (edits, left_out) = edits(&transform.html, &self.inputs());
                    is_personal |= (!edits.is_empty() || transform.minify) && transform.is_personal();
                    page.edits.extend(edits);
                    page.minify |= transform.minify;
                    let applied = match left_out.is_empty() {
                        true => "applied".to_owned(),
                        false => format!("applied but for {}", left_out.join("; ")),
                    };
                    match (transform.minify, transform.html.is_empty()) {
                        (false, _) => applied,
                        (true, false) => format!("minified, {applied}"),
                        (true, true) => "minified".to_owned(),
                    }
                }
            };
            self.explain("html", Some(&transform.rule), outcome, Vec::new());
        }
        if !page.is_empty() {
            detach(headers);
        }
        if is_personal {
            make_private(headers);
        }
        page
    }

    /// The coding of the first rule that is for the request.
    fn compress(&mut self, status: u16, headers: &mut Headers, length: Option<u64>) -> Option<Coding> {
        let rules = self.rules.clone()?;
        for transform in rules.transforms(self.route) {
            let Some(rule) = transform.compress.as_ref().filter(|_| self.applies(transform)) else {
                continue;
            };
            let asked = self.asked_codings.clone();
            let asked = asked.or_else(|| self.facts.headers.joined("accept-encoding")).unwrap_or_default();
            // A 304 tells what the 200 in its place would (RFC 9110, section 15.4.5), which is known where that is stored.
            let stored = self.confirms.take().map(|(of, content)| (of, beside(headers, &content)));
            let (of, judged) = stored.as_ref().map_or((status, &*headers), |(of, stored)| (*of, stored));
            let verdict = judge(rule, &self.facts.headers, &asked, of, judged, length);
            verdict.apply(status, headers);
            let outcome = match verdict.coding {
                Some(coding) => coding.token().to_owned(),
                None => format!("left as it is: {}", verdict.outcome),
            };
            self.explain("compress", Some(&transform.rule), outcome, Vec::new());
            return verdict.coding;
        }
        None
    }
}

/// A head with those of other fields that it does not have.
fn beside(headers: &Headers, others: &Headers) -> Headers {
    let mut all = headers.clone();
    for (name, value) in others.iter().filter(|(name, _)| headers.get(name).is_none()) {
        all.append(name, value);
    }
    all
}
