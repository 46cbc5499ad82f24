//! From the spec's authorities and the truststore of now to the next truststore. Pure and total: whatever comes in, a truststore
//! comes out that no living leaf misses its issuer in, unless somebody said Distrusted or overlap.

use super::certificate::Certificate;
use super::lint::{Finding, MAX_BYTES, MAX_CERTIFICATES, Reason, Severity, SourceError, lint};
use super::truststore::{Bundle, Entry, identity};
use jiff::{SignedDuration, Timestamp};

/// One authority of the spec.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name in the spec; with `/` and the object's name where it selects several objects.
    pub authority: String,
    pub state: State,
    /// Leaves may be issued with the key of its first certificate from now on.
    pub issues: bool,
    /// The longest life of any leaf that may be issued under it; kept in the truststore before the first such leaf is.
    pub longest_leaf: Option<SignedDuration>,
    /// The issuing certificate first, then its chain up to the root; for trust-only authorities in any order.
    pub certificates: Result<Vec<Certificate>, SourceError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Active,
    /// Out of the truststore at once, whatever hangs on it.
    Distrusted,
}

/// Everything that decides what a truststore holds.
#[derive(Clone, Debug)]
pub struct CompileInput<'a> {
    /// In the order of the spec.
    pub sources: &'a [Source],
    /// The truststore that the domain uses now; `None`: there is none yet.
    pub previous: Option<&'a Bundle>,
    /// How long a superseded certificate stays at most; `None`: as long as a leaf under it can live.
    pub overlap: Option<SignedDuration>,
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    pub bundle: Bundle,
    pub findings: Vec<Finding>,
    /// Authorities that must not issue although they could: their issuing certificate is not in the bundle, or on its way out.
    pub refused_issuers: Vec<String>,
    /// The truststore of now holds something that is Distrusted.
    pub distrusts: bool,
}

/// The next truststore. Compiling again with the result as `previous` gives the same bytes, until a certificate begins, expires
/// or its `keep_until` passes.
pub fn compile(input: &CompileInput<'_>) -> Compiled {
    let mut compiled = pass(input);
    // What leaves can be what made something else stay; that then leaves in the next pass, and not at the next look.
    for _ in 0..MAX_PASSES {
        let next = pass(&CompileInput { previous: Some(&compiled.bundle), ..input.clone() });
        let settled = next.bundle == compiled.bundle;
        compiled = Compiled { distrusts: compiled.distrusts, ..next };
        if settled {
            break;
        }
    }
    compiled
}

/// Each pass takes away at least one certificate that only another one kept; more than a chain's length was never seen.
const MAX_PASSES: usize = 8;

fn pass(input: &CompileInput<'_>) -> Compiled {
    let now = input.now;
    let before: &[Entry] = input.previous.map_or(&[], |bundle| &bundle.entries);
    let distrusted = Distrusted::find(input.sources, before);
    let is_distrusted = |certificate: &Certificate| distrusted.holds(certificate);
    // What is there now and may stay.
    let living: Vec<&Entry> =
        before.iter().filter(|entry| now < entry.certificate.not_after && !is_distrusted(&entry.certificate)).collect();

    let mut findings = Vec::new();
    let mut offers: Vec<Offer<'_>> = input
        .sources
        .iter()
        .filter(|source| source.state == State::Active)
        .map(|source| Offer::new(source, &is_distrusted, &mut findings))
        .collect();
    let everything = accepted(&offers);
    for offer in &mut offers {
        offer.lint(&everything, &living, now, &mut findings);
    }
    refuse_reused_subjects(&mut offers, &living, input, &mut findings);
    refuse_broken_chains(&mut offers, &mut findings);

    let listed = accepted(&offers);
    let mut entries = Entries::default();
    for offer in &offers {
        if offer.verdict == Verdict::Accepted {
            for certificate in &offer.certificates {
                entries.offer(offer, certificate, &living, now);
            }
        } else {
            let carried = with_issuers(offer.last_good(&living), &living);
            // Another authority lists it: it stands there.
            for entry in carried.into_iter().filter(|entry| !contains(&listed, &entry.certificate)) {
                let max_leaf = offer.max_leaf().filter(|_| offer.lists(&entry.certificate));
                entries.keep(Entry { max_leaf: entry.max_leaf.max(max_leaf), ..entry.clone() });
            }
        }
    }
    let placed = entries.list.len();
    for entry in &living {
        if let Some(keep_until) = keep_until(entry, input).filter(|until| now < *until) {
            entries.keep(Entry { keep_until: Some(keep_until), ..(*entry).clone() });
        }
    }
    // No certificate without its chain, as long as the truststore of now has it.
    let kept =
        living.iter().copied().filter(|entry| entries.list.iter().any(|kept| kept.certificate == entry.certificate));
    for entry in with_issuers(kept.collect::<Vec<_>>().into_iter(), &living) {
        entries.keep(entry.clone());
    }
    if entries.list.is_empty() && !living.is_empty() {
        entries.list = living.iter().copied().cloned().collect();
        findings.push(whole(Reason::WouldBeEmpty, "nothing would be left: the last certificates stay".to_owned()));
    }
    entries.settle(input.sources, placed);
    let mut bundle = Bundle { entries: entries.list };
    if bundle.entries.len() > MAX_CERTIFICATES || bundle.render().len() > MAX_BYTES {
        bundle.entries.retain(|entry| living.iter().any(|there| there.identity() == entry.identity()));
        let message = format!(
            "more than {MAX_CERTIFICATES} certificates or {MAX_BYTES} bytes: nothing new is added. Remove authorities"
        );
        findings.push(whole(Reason::TooLarge, message));
    }
    let published: Vec<Certificate> = bundle.entries.iter().map(|entry| entry.certificate.clone()).collect();
    let may_issue = |source: &Source| {
        let head = source.certificates.as_ref().ok().and_then(|own| own.first());
        head.filter(|head| now < head.not_after)
            .and_then(|head| bundle.find(head))
            .is_some_and(|entry| entry.keep_until.is_none() && entry.certificate.chain(&published).is_ok())
    };
    let refused = input.sources.iter().filter(|source| source.issues && !may_issue(source));
    let refused_issuers = refused.map(|source| source.authority.clone()).collect();
    for finding in findings.iter_mut().filter(|finding| finding.severity == Severity::Refused) {
        if living.iter().any(|entry| entry.authority == finding.authority) {
            finding.message.push_str(". What is trusted of this authority already stays");
        }
    }
    let distrusts = before.iter().any(|entry| is_distrusted(&entry.certificate));
    Compiled { bundle, findings, refused_issuers, distrusts }
}

/// One Active authority on its way into the bundle.
struct Offer<'a> {
    source: &'a Source,
    /// Without what is distrusted; expired ones are taken out by [`Offer::lint`].
    certificates: Vec<Certificate>,
    verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// Broken, or refused by lint: what was good last stays as it is.
    LastGood,
    /// Its key was replaced under the same subject: what was good last stays as long as leaves under it can live.
    Reused,
}

impl<'a> Offer<'a> {
    fn new(source: &'a Source, is_distrusted: &dyn Fn(&Certificate) -> bool, findings: &mut Vec<Finding>) -> Offer<'a> {
        let mut offer = Offer { source, certificates: Vec::new(), verdict: Verdict::Accepted };
        match &source.certificates {
            Err(error) => {
                findings.push(error.finding(&source.authority));
                offer.verdict = Verdict::LastGood;
            }
            Ok(certificates) => {
                for certificate in certificates {
                    if is_distrusted(certificate) {
                        findings.push(Finding {
                            severity: Severity::Dropped,
                            authority: source.authority.clone(),
                            subject: certificate.subject.clone(),
                            reason: Reason::Distrusted,
                            message: "is left out: another entry of the spec distrusts it, or its issuer".to_owned(),
                        });
                    } else {
                        offer.certificates.push(certificate.clone());
                    }
                }
            }
        }
        offer
    }

    fn max_leaf(&self) -> Option<SignedDuration> {
        self.source.longest_leaf.filter(|_| self.source.issues).map(whole_seconds)
    }

    /// Whether the spec lists this name and key, still valid, published or not.
    fn lists(&self, certificate: &Certificate) -> bool {
        contains(&self.certificates, certificate)
    }

    fn lint(&mut self, pool: &[Certificate], living: &[&Entry], now: Timestamp, findings: &mut Vec<Finding>) {
        if self.verdict != Verdict::Accepted {
            return;
        }
        let found = lint(&self.source.authority, &self.certificates, pool, self.max_leaf(), now);
        self.certificates.retain(|certificate| now < certificate.not_after);
        // Nothing of it is valid any more: as if it were broken, so that a slip does not shut out whoever is in now.
        let slip = self.certificates.is_empty() && self.last_good(living).next().is_some();
        if slip || found.iter().any(|finding| finding.severity == Severity::Refused) {
            self.verdict = Verdict::LastGood;
        }
        findings.extend(found);
    }

    /// What this authority has in the truststore now and nobody has replaced yet.
    fn last_good<'e>(&self, living: &[&'e Entry]) -> impl Iterator<Item = &'e Entry> {
        living.iter().copied().filter(|entry| {
            let superseded =
                self.verdict == Verdict::Reused && entry.max_leaf.is_some() && !self.lists(&entry.certificate);
            let own = entry.authority == self.source.authority || self.lists(&entry.certificate);
            own && entry.keep_until.is_none() && !superseded
        })
    }
}

/// API Gateway refuses two certificates with one subject. Whoever is in the truststore and stays has the subject, then whoever
/// comes first in the spec.
fn refuse_reused_subjects(
    offers: &mut [Offer<'_>],
    living: &[&Entry],
    input: &CompileInput<'_>,
    findings: &mut Vec<Finding>,
) {
    let stays = |entry: &Entry| {
        let listed =
            offers.iter().any(|o| o.verdict == Verdict::Accepted && contains(&o.certificates, &entry.certificate));
        let carried =
            offers.iter().any(|o| o.verdict == Verdict::LastGood && o.last_good(living).any(|kept| kept == entry));
        listed || carried || keep_until(entry, input).is_some_and(|until| input.now < until)
    };
    let staying = living.iter().copied().filter(|entry| stays(entry));
    let mut taken: Vec<Certificate> =
        with_issuers(staying, living).into_iter().map(|entry| entry.certificate.clone()).collect();
    for offer in offers.iter_mut().filter(|offer| offer.verdict == Verdict::Accepted) {
        for certificate in &offer.certificates {
            let (subject, key) = identity(certificate);
            let holder = taken.iter().find(|other| other.subject_key == subject);
            if holder.is_some_and(|holder| holder.spki_sha256 != key) && !contains(&taken, certificate) {
                offer.verdict = Verdict::Reused;
                let message = "is the subject of another certificate that is trusted already, with another key, and API Gateway \
                               refuses two: the old one stays, the new one is not published. Give the new authority another subject";
                findings.push(Finding {
                    severity: Severity::Refused,
                    authority: offer.source.authority.clone(),
                    subject: certificate.subject.clone(),
                    reason: Reason::SubjectReused,
                    message: message.to_owned(),
                });
            }
        }
        if offer.verdict == Verdict::Accepted {
            taken.extend(offer.certificates.iter().cloned());
        }
    }
}

/// An authority may lean on another's root; when that one is not published, its own chain is broken.
fn refuse_broken_chains(offers: &mut [Offer<'_>], findings: &mut Vec<Finding>) {
    loop {
        let pool = accepted(offers);
        let stop = |certificate: &Certificate| certificate.chain(&pool).err().and_then(|mut chain| chain.pop());
        let mut broken = offers.iter_mut().filter(|offer| offer.verdict == Verdict::Accepted).filter_map(|offer| {
            let (certificate, stop) = offer.certificates.iter().find_map(|c| Some((c.clone(), stop(c)?)))?;
            Some((offer, certificate, stop))
        });
        let Some((offer, certificate, stop)) = broken.next() else {
            return;
        };
        offer.verdict = Verdict::LastGood;
        findings.push(Finding {
            severity: Severity::Refused,
            authority: offer.source.authority.clone(),
            subject: certificate.subject,
            reason: Reason::ChainIncomplete,
            message: format!(
                "has no whole chain to its root: the issuer of {}, {}, is not published; see what is said of that one",
                stop.subject, stop.issuer
            ),
        });
    }
}

/// What chains may go through: all that the spec lists and nothing speaks against. What is only carried forward does not count:
/// nobody shall begin to lean on it.
fn accepted(offers: &[Offer<'_>]) -> Vec<Certificate> {
    let accepting = offers.iter().filter(|offer| offer.verdict == Verdict::Accepted);
    accepting.flat_map(|offer| offer.certificates.clone()).collect()
}

/// These entries, each followed by its issuers among `living`.
fn with_issuers<'e>(entries: impl Iterator<Item = &'e Entry>, living: &[&'e Entry]) -> Vec<&'e Entry> {
    let mut all: Vec<&Entry> = entries.collect();
    let mut at = 0;
    while at < all.len() {
        let certificate = &all[at].certificate;
        at += 1;
        if certificate.self_signed || all.iter().any(|entry| certificate.is_issued_by(&entry.certificate)) {
            continue;
        }
        all.extend(living.iter().find(|entry| certificate.is_issued_by(&entry.certificate)).copied());
    }
    all
}

/// When an entry leaves that nothing issues under any more: once the longest leaf under it, given out at the last moment, is
/// over. Set once; only `overlap` makes it earlier. `None`: no leaf of ours hangs on it.
fn keep_until(entry: &Entry, input: &CompileInput<'_>) -> Option<Timestamp> {
    let max_leaf = entry.max_leaf?;
    let until = entry.keep_until.unwrap_or_else(|| end_of(input.now, max_leaf));
    Some(input.overlap.map_or(until, |overlap| until.min(end_of(input.now, overlap))))
}

/// `now + life`, rounded up by at most 1% of the life and one hour: a compile that has to be repeated gives the same bytes.
fn end_of(now: Timestamp, life: SignedDuration) -> Timestamp {
    let step = (life.as_secs() / 100).clamp(1, 3600);
    let Ok(end) = now.checked_add(life) else {
        return Timestamp::MAX;
    };
    let whole = end.as_second() + i64::from(end.subsec_nanosecond() > 0);
    Timestamp::from_second(whole + (step - whole.rem_euclid(step)) % step).unwrap_or(Timestamp::MAX)
}

/// Certificates that must go.
#[derive(Default)]
struct Distrusted {
    /// Those of Distrusted authorities, in whatever certificate their name and key come. An issuer above them stays when an Active
    /// authority needs it too.
    listed: Vec<Certificate>,
    /// What was issued under those; another authority may have issued a twin that stays.
    hanging: Vec<Certificate>,
}

impl Distrusted {
    fn find(sources: &[Source], before: &[Entry]) -> Distrusted {
        let active = || sources.iter().filter(|source| source.state == State::Active);
        let mut others: Vec<Certificate> =
            active().flat_map(|source| source.certificates.clone().unwrap_or_default()).collect();
        let (mut heads, mut above) = (Vec::new(), Vec::new());
        for source in sources.iter().filter(|source| source.state == State::Distrusted) {
            let own = source.certificates.clone().unwrap_or_default();
            // What it brought earlier goes too, unless that is listed by another one by now.
            let there = before.iter().filter(|entry| entry.authority == source.authority);
            let earlier = there.map(|entry| &entry.certificate).filter(|c| !contains(&others, c) && !contains(&own, c));
            let all: Vec<Certificate> = own.iter().chain(earlier).cloned().collect();
            for (at, certificate) in all.iter().enumerate() {
                // What is listed is judged by what is listed with it.
                let below = if at < own.len() { &own } else { &all };
                let is_above = below.iter().any(|other| !other.self_signed && other.is_issued_by(certificate));
                if is_above { &mut above } else { &mut heads }.push(certificate.clone());
            }
        }
        if heads.is_empty() {
            return Distrusted::default();
        }
        let carried = before.iter().filter(|entry| active().any(|source| source.authority == entry.authority));
        others.extend(carried.map(|entry| entry.certificate.clone()));
        above.retain(|certificate| {
            !others.iter().any(|other| {
                identity(other) == identity(certificate)
                    || (!contains(&heads, other) && other.is_issued_by(certificate))
            })
        });
        others.extend(before.iter().map(|entry| entry.certificate.clone()));
        let mut gone = Distrusted { listed: heads.clone(), hanging: Vec::new() };
        gone.listed.extend(above);
        while let Some(head) = heads.pop() {
            for certificate in &others {
                if !certificate.self_signed && !gone.holds(certificate) && certificate.is_issued_by(&head) {
                    gone.hanging.push(certificate.clone());
                    heads.push(certificate.clone());
                }
            }
        }
        gone
    }

    fn holds(&self, certificate: &Certificate) -> bool {
        contains(&self.listed, certificate) || self.hanging.contains(certificate)
    }
}

/// The bundle in the making: each subject once.
#[derive(Default)]
struct Entries {
    list: Vec<Entry>,
}

impl Entries {
    /// A certificate that the spec lists. Of two certificates of one name and key, the one that lives longer counts: leaves need it.
    fn offer(&mut self, offer: &Offer<'_>, certificate: &Certificate, living: &[&Entry], now: Timestamp) {
        let max_leaf = offer.max_leaf();
        if let Some(entry) = self.list.iter_mut().find(|entry| entry.identity() == identity(certificate)) {
            entry.max_leaf = entry.max_leaf.max(max_leaf);
            entry.keep_until = None;
            entry.certificate = longer(&entry.certificate, certificate, now).clone();
            return;
        }
        // Carried forward for want of better; what the spec lists goes first.
        self.list.retain(|entry| entry.certificate.subject_key != certificate.subject_key);
        let there = living.iter().find(|entry| entry.identity() == identity(certificate));
        self.list.push(Entry {
            authority: offer.source.authority.clone(),
            certificate: there.map_or(certificate, |entry| longer(certificate, &entry.certificate, now)).clone(),
            max_leaf: max_leaf.max(there.and_then(|entry| entry.max_leaf)),
            keep_until: None,
        });
    }

    /// An entry of the truststore of now that stays.
    fn keep(&mut self, entry: Entry) {
        if !self.list.iter().any(|other| other.certificate.subject_key == entry.certificate.subject_key) {
            self.list.push(entry);
        }
    }

    /// What outlives a Distrusted authority stands under the name of the one that needs it, else it would go with the next look.
    /// And whatever no authority of the spec has placed is put in order, by name and subject.
    fn settle(&mut self, sources: &[Source], placed: usize) {
        let distrusted =
            |name: &str| sources.iter().any(|source| source.state == State::Distrusted && source.authority == name);
        while let Some((at, name)) = self.list.iter().enumerate().find_map(|(at, entry)| {
            let certificate = &entry.certificate;
            let needs = |other: &&Entry| !distrusted(&other.authority) && other.certificate.is_issued_by(certificate);
            let by = self.list.iter().filter(|_| distrusted(&entry.authority)).find(needs)?;
            Some((at, by.authority.clone()))
        }) {
            self.list[at].authority = name;
        }
        self.list[placed..].sort_by(|one, other| one.order().cmp(&other.order()));
        self.list.retain(|entry| !distrusted(&entry.authority));
    }
}

fn longer<'c>(one: &'c Certificate, other: &'c Certificate, now: Timestamp) -> &'c Certificate {
    let rank = |certificate: &Certificate| (certificate.not_before <= now, certificate.not_after);
    if rank(other) > rank(one) { other } else { one }
}

fn contains(certificates: &[Certificate], certificate: &Certificate) -> bool {
    certificates.iter().any(|other| identity(other) == identity(certificate))
}

pub(super) fn whole_seconds(duration: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(duration.as_secs() + i64::from(duration.subsec_nanos() > 0))
}

fn whole(reason: Reason, message: String) -> Finding {
    Finding { severity: Severity::Refused, authority: String::new(), subject: String::new(), reason, message }
}

#[cfg(test)]
mod tests;
