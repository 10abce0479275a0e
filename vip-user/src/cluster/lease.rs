//! Reads and writes the Lease, and converts between its JSON and the model.

use super::{endpoints::Endpoints, lenient::Lenient, words::words};
use crate::{
    metrics::Metrics,
    model::{
        fitness::Fitness,
        lease::{
            admission::{Guarded, Strike},
            election::Written,
            offers::Offer,
            record::{LeaseWrite, Record, TenureNote, Version},
        },
    },
};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use vip_common::mac::Mac;

/// The annotation that carries the tenure: a [`TenureText`].
pub const TENURE: &str = "xvip.io/tenure";
/// The annotation of a release. It names the tenure that was released.
pub const RELEASED: &str = "xvip.io/released";
/// The annotation in which the holder states its fitness.
pub const FITNESS: &str = "xvip.io/fitness";
/// The annotation in which the holder states where the VIPs should be.
pub const PREFERENCE: &str = "xvip.io/preference";
/// The annotation in which a candidate offers to serve better.
pub const OFFER: &str = "xvip.io/offer";
/// The annotation with the MAC addresses that the holder answers with.
pub const MACS: &str = "xvip.io/macs";
/// The annotation that names the VIPs that the holder guards.
pub const VIPS: &str = "xvip.io/vips";
/// How many objects are remembered: one for each write in flight, and those that the watch shows
/// meanwhile.
const RECENT: usize = 8;
/// How often [`LeaseApi::strip`] tries: another program may write at the same time.
const STRIP_ATTEMPTS: usize = 10;
/// Field manager of our writes.
const MANAGER: &str = "xvip";

/// One Lease on all API servers. Cheap to clone.
#[derive(Clone)]
pub struct LeaseApi {
    pub(super) endpoints: Endpoints,
    namespace: String,
    name: String,
    pub(super) timeout: Duration,
    /// The last objects read or written. A PUT keeps what other programs have put into its base.
    recent: Arc<Mutex<VecDeque<Lease>>>,
    pub(super) metrics: Metrics,
}

/// A failed request, worded for log and status.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// No server has answered in time.
    #[error("{endpoint}: {verb}: no answer within {limit:?}")]
    Timeout {
        /// The server that was asked first.
        endpoint: String,
        /// The API verb, such as `get` or `watch`.
        verb: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// A server refused the request, or it could not be reached.
    #[error("{endpoint}: {verb}: {what}")]
    Request {
        /// The server that was asked.
        endpoint: String,
        /// The API verb, such as `get` or `watch`.
        verb: &'static str,
        /// The message of the server or of the connection.
        what: String,
        /// How long the server asks the client to wait.
        wanted: Option<Duration>,
        /// The server refused it because this user lacks the right (HTTP 403).
        forbidden: bool,
    },
}

/// How long the server asks the client to wait, if it does.
fn retry_after(error: &kube::Error) -> Option<Duration> {
    let kube::Error::Api(status) = error else { return None };
    let seconds = status.details.as_ref()?.retry_after_seconds;
    (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
}

/// Whether a server refused a request because this user lacks the right (HTTP 403).
pub(super) fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

impl LeaseError {
    /// How long the server asks the client to wait, if it does.
    pub(super) fn wanted(&self) -> Option<Duration> {
        match self {
            Self::Timeout { .. } => None,
            Self::Request { wanted, .. } => *wanted,
        }
    }

    /// Whether the server refused the request because this user lacks the right (HTTP 403).
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Request { forbidden: true, .. })
    }

    pub(super) fn of(endpoint: String, verb: &'static str, error: &kube::Error) -> Self {
        let forbidden = is_forbidden(error);
        Self::Request { endpoint, verb, what: words(error), wanted: retry_after(error), forbidden }
    }
}

impl LeaseApi {
    /// The Lease `namespace/name`. A request that is not answered within `timeout` counts as failed.
    pub fn new(endpoints: Endpoints, namespace: &str, name: &str, timeout: Duration) -> Self {
        Self {
            endpoints,
            namespace: namespace.into(),
            name: name.into(),
            timeout,
            recent: Arc::default(),
            metrics: Metrics::default(),
        }
    }

    /// Another Lease of the same namespace on the same API servers.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self { name: name.into(), recent: Arc::default(), ..self.clone() }
    }

    /// A Lease of another namespace on the same API servers.
    #[must_use]
    pub fn of(&self, namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), ..self.named(name) }
    }

    /// Counts requests in these metrics.
    #[must_use]
    pub fn counted_by(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// A linearizable read: GET without `resourceVersion`. `first` is the index of the first endpoint
    /// to ask, in the order of preference.
    pub async fn get(&self, first: usize) -> Result<Option<Record>, LeaseError> {
        let read = |client| {
            let api = self.leases(client);
            async move { api.get_opt(&self.name).await }
        };
        let (_, lease) = self.ask("get", first, read).await?;
        let lease = lease.map(|Lenient(lease)| lease);
        let record = lease.as_ref().map(record);
        self.remember(lease);
        Ok(record)
    }

    /// Makes one attempt to write. Attempts in flight at the same time go to different endpoints, and
    /// always over different connections: HTTP/1.1 carries one request at a time. An endpoint that has
    /// failed is no longer tried first.
    ///
    /// If the base is not remembered, the write counts as a conflict.
    pub async fn write(&self, write: LeaseWrite) -> (Written, Option<LeaseError>) {
        let current = match &write.base {
            Some(base) => self.remembered(base),
            None => Some(Lease::default()),
        };
        let Some(current) = current else { return (Written::Conflict, None) };
        match self.put(write.in_flight, self.object(&write, current)).await {
            Ok(Some(lease)) => {
                let stored = record(&lease);
                self.remember(Some(lease));
                (Written::Stored(stored), None)
            }
            Ok(None) => (Written::Conflict, None),
            Err(error) => (Written::Failed, Some(error)),
        }
    }

    /// Creates the Lease without a holder. Returns `None` if it exists already.
    ///
    /// # Errors
    /// If the request failed. The Lease may have been created all the same.
    pub async fn create(&self, duration_s: u32) -> Result<Option<Record>, LeaseError> {
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: i32::try_from(duration_s).ok(),
            ..LeaseSpec::default()
        };
        let metadata = self.named_metadata(ObjectMeta::default());
        let lease = Lenient(Lease { metadata, spec: Some(spec) });
        let params = parameters();
        let create = |client| {
            let (api, params, lease) = (self.leases(client), params.clone(), lease.clone());
            async move {
                match api.create(&params, &lease).await {
                    Ok(Lenient(created)) => Ok(Some(created)),
                    // Another node has created it, or our own request to another server has.
                    Err(error) if is_conflict(&error, false) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        };
        let (_, created) = self.ask("put", 0, create).await?;
        let created_record = created.as_ref().map(record);
        self.remember(created);
        Ok(created_record)
    }

    /// Writes an offer into exactly this version of the Lease, and leaves the rest as it is. Nothing
    /// depends on the offer being stored: the candidate sees on its watch whether it was.
    pub async fn offer(&self, base: Version, offer: &Offer) -> Option<LeaseError> {
        let mut lease = self.remembered(&base)?;
        lease.metadata.managed_fields = None;
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(OFFER.into(), serde_json::to_string(offer).unwrap_or_default());
        self.put(0, lease).await.err()
    }

    /// All Leases of the namespace with their names. A LIST without `resourceVersion` is linearizable.
    ///
    /// # Errors
    /// If the request failed.
    pub async fn list(&self) -> Result<Vec<(String, Record)>, LeaseError> {
        let list = |client| async move {
            let api = self.leases(client);
            api.list(&ListParams::default()).await
        };
        let (_, leases) = self.ask("list", 0, list).await?;
        let named = |Lenient(lease): &Lenient<Lease>| {
            (lease.metadata.name.clone().unwrap_or_default(), record(lease))
        };
        Ok(leases.items.iter().map(named).collect())
    }

    /// Strikes VIPs out of another Lease, if it is still at this version. The election that asked for
    /// it sees in its next list whether that was stored.
    pub async fn strike(&self, strike: &Strike) -> Option<LeaseError> {
        let other = self.named(&strike.lease);
        match other.get(0).await {
            Ok(Some(record)) if record.version == strike.base => {}
            Ok(_) => return None,
            Err(error) => return Some(error),
        }
        let mut lease = other.remembered(&strike.base)?;
        lease.metadata.managed_fields = None;
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(VIPS.into(), serde_json::to_string(&strike.guarded).unwrap_or_default());
        other.put(0, lease).await.err()
    }

    /// Takes the note of a tenure of this node out of the Lease, if it is there. kube-vip may hold the
    /// Lease under the same name then, and does not pass for xvip. Returns whether something was changed.
    ///
    /// # Errors
    /// If a request failed, or others change the Lease all the time.
    pub async fn strip(&self, node: &str) -> Result<bool, LeaseError> {
        for _ in 0..STRIP_ATTEMPTS {
            let Some(record) = self.get(0).await? else { return Ok(false) };
            if !record.note.is_some_and(|note| note.holder.eq_ignore_ascii_case(node)) {
                return Ok(false);
            }
            let Some(mut lease) = self.remembered(&record.version) else { continue };
            lease.metadata.managed_fields = None;
            lease.metadata.annotations.get_or_insert_default().remove(TENURE);
            if self.put(0, lease).await?.is_some() {
                return Ok(true);
            }
        }
        let (endpoint, _) = self.endpoints.get(0);
        let what = "others change the Lease all the time".into();
        Err(LeaseError::Request { endpoint, verb: "put", what, wanted: None, forbidden: false })
    }

    /// Replaces the Lease, or creates it if `lease` has no version. Returns `None` on a conflict.
    async fn put(&self, attempt: usize, lease: Lease) -> Result<Option<Lease>, LeaseError> {
        let (endpoint, client) = self.endpoints.get(attempt);
        let (api, params) = (self.leases(client), parameters());
        let replaces = lease.metadata.resource_version.is_some();
        let lease = Lenient(lease);
        let request = async {
            if replaces {
                api.replace(&self.name, &params, &lease).await
            } else {
                api.create(&params, &lease).await
            }
        };
        let begun = Instant::now();
        let answer = tokio::time::timeout(self.timeout, request).await;
        let (outcome, result) = match answer {
            Err(_) => ("timeout", Err(self.timed_out("put", &endpoint))),
            Ok(Ok(Lenient(stored))) => ("ok", Ok(Some(stored))),
            Ok(Err(error)) if is_conflict(&error, replaces) => ("conflict", Ok(None)),
            Ok(Err(error)) => ("error", Err(LeaseError::of(endpoint.clone(), "put", &error))),
        };
        self.metrics.request("put", outcome, begun.elapsed());
        if result.is_err() {
            self.endpoints.failed(&endpoint);
        }
        result
    }

    /// The Lease's name as `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The Lease's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn namespaced_name(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    /// A client for other objects in the Lease's namespace: its endpoint, the client, and the
    /// namespace.
    pub(super) fn client(&self, attempt: usize) -> (String, Client, &str) {
        let (endpoint, client) = self.endpoints.get(attempt);
        (endpoint, client, &self.namespace)
    }

    pub(super) fn leases(&self, client: Client) -> Api<Lenient<Lease>> {
        Api::namespaced(client, &self.namespace)
    }

    pub(super) fn remember(&self, lease: Option<Lease>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.extend(lease);
        while recent.len() > RECENT {
            recent.pop_front();
        }
    }

    /// The object of this version, if it was read or written lately. It is the base of a PUT, which
    /// must name its uid. If there is no Lease, API servers create one from a PUT without a uid
    /// (`AllowCreateOnUpdate`), whatever version it names.
    fn remembered(&self, version: &Version) -> Option<Lease> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let current = |lease: &&Lease| lease.metadata.resource_version.as_ref() == Some(&version.0);
        recent.iter().rfind(current).filter(|lease| lease.metadata.uid.is_some()).cloned()
    }

    fn named_metadata(&self, metadata: ObjectMeta) -> ObjectMeta {
        let (namespace, name) = (Some(self.namespace.clone()), Some(self.name.clone()));
        ObjectMeta { namespace, name, ..metadata }
    }

    pub(super) fn timed_out(&self, verb: &'static str, endpoint: &str) -> LeaseError {
        LeaseError::Timeout { endpoint: endpoint.into(), verb, limit: self.timeout }
    }

    /// The object to send: `lease`, which is the last known object, with our fields set. It always
    /// names the version on which the model has decided.
    fn object(&self, write: &LeaseWrite, mut lease: Lease) -> Lease {
        lease.metadata = ObjectMeta {
            resource_version: write.base.as_ref().map(|version| version.0.clone()),
            managed_fields: None,
            ..self.named_metadata(lease.metadata)
        };
        let tenure = TenureText { note: write.note.clone(), renew_us: Some(write.renew_us) };
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(TENURE.into(), serde_json::to_string(&tenure).unwrap_or_default());
        if write.release {
            annotations.insert(RELEASED.into(), serde_json::to_string(&write.note).unwrap_or_default());
        } else {
            annotations.remove(RELEASED);
        }
        // The holder has seen the offer before it writes, and has decided about it.
        annotations.remove(OFFER);
        // Older versions of xvip do not know `impaired`. `PREFERENCE` says so.
        let known = if write.fitness == Fitness::Impaired { Fitness::Doubtful } else { write.fitness };
        annotations.insert(FITNESS.into(), fitness_text(known));
        match &write.preference {
            Some(preference) => {
                let text = serde_json::to_string(preference).unwrap_or_default();
                annotations.insert(PREFERENCE.into(), text);
            }
            None => drop(annotations.remove(PREFERENCE)),
        }
        annotations.insert(MACS.into(), macs_text(&write.macs));
        if let Some(guarded) = write.guarded() {
            annotations.insert(VIPS.into(), serde_json::to_string(&guarded).unwrap_or_default());
        }
        let holder = if write.release { "" } else { write.note.holder.as_str() };
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: i32::try_from(write.duration_s).ok(),
            lease_transitions: i32::try_from(write.note.transitions).ok(),
            acquire_time: micro_time(write.note.acquire_us),
            renew_time: micro_time(write.renew_us),
            ..lease.spec.unwrap_or_default()
        });
        lease
    }
}

/// The text of [`TENURE`]. Older versions of xvip do not write `renewUs`, and ignore it.
#[derive(Serialize, Deserialize)]
struct TenureText {
    #[serde(flatten)]
    note: TenureNote,
    /// `spec.renewTime` of the write that set this text. A client-go program under our node name that
    /// renews our tenure leaves the text as it was.
    #[serde(rename = "renewUs", default, skip_serializing_if = "Option::is_none")]
    renew_us: Option<i64>,
}

/// What the model sees of a Lease. Missing, negative or unreadable parts become neutral values. So a
/// Lease full of garbage belongs to a stranger, and is waited out.
pub fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let annotation = |key: &str| lease.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let tenure: Option<TenureText> =
        annotation(TENURE).and_then(|text| serde_json::from_str(text).ok());
    let record = Record {
        uid: lease.metadata.uid.clone().unwrap_or_default(),
        version: Version(lease.metadata.resource_version.clone().unwrap_or_default()),
        holder: spec.holder_identity.unwrap_or_default(),
        duration_s: spec.lease_duration_seconds.and_then(|d| u32::try_from(d).ok()).unwrap_or(0),
        transitions: spec.lease_transitions.map_or(0, i64::from).max(0),
        acquire_us: spec.acquire_time.map(|time| time.0.as_microsecond()),
        renew_us: spec.renew_time.map(|time| time.0.as_microsecond()),
        noted_renew_us: tenure.as_ref().and_then(|tenure| tenure.renew_us),
        note: tenure.map(|tenure| tenure.note),
        released: annotation(RELEASED).and_then(|text| serde_json::from_str(text).ok()),
        fitness: annotation(FITNESS)
            .and_then(|text| serde_json::from_value(text.into()).ok())
            .unwrap_or_default(),
        offer: annotation(OFFER).and_then(|text| serde_json::from_str(text).ok()),
        preference: annotation(PREFERENCE).and_then(|text| serde_json::from_str(text).ok()),
        macs: annotation(MACS).map(macs).unwrap_or_default(),
        guarded: annotation(VIPS).and_then(|text| serde_json::from_str::<Guarded>(text).ok()),
    };
    let impaired = record.fitness == Fitness::Doubtful && record.says_impaired();
    Record { fitness: if impaired { Fitness::Impaired } else { record.fitness }, ..record }
}

fn fitness_text(fitness: Fitness) -> String {
    let value = serde_json::to_value(fitness).unwrap_or_default();
    value.as_str().unwrap_or_default().into()
}

/// The most MAC addresses of a holder that are written and read.
const MAX_MACS: usize = 16;

fn macs_text(macs: &[Mac]) -> String {
    macs.iter().take(MAX_MACS).map(Mac::to_string).collect::<Vec<_>>().join(",")
}

fn macs(text: &str) -> Vec<Mac> {
    text.split(',').filter_map(|mac| mac.trim().parse().ok()).take(MAX_MACS).collect()
}

fn micro_time(us: i64) -> Option<MicroTime> {
    Timestamp::from_microsecond(us).ok().map(MicroTime)
}

/// Whether the Lease has changed since it was read. 409: another version or uid is current, or the
/// Lease exists. 404 to a PUT: the Lease is gone. 404 to a POST means that the namespace does not
/// exist.
fn is_conflict(error: &kube::Error, replaces: bool) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 || (status.code == 404 && replaces))
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() }
}

#[cfg(test)]
mod tests;
