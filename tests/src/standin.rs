//! A stand-in for the Kubernetes API: create, get, list, put with compare-and-swap, delete and watch on
//! Leases, get and watch on Nodes, just enough for the real `kube` client. It keeps the rules that
//! ownership depends on: every stored write gets a new resourceVersion, a PUT on another version is
//! refused with 409, and a PUT that changes nothing is answered with 200 and stores nothing. Where the
//! real one may do either of two things (410 for a watch from a forgotten version), a setting chooses.

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{broadcast, watch};

/// The resourceVersion of the first object.
const FIRST_VERSION: u64 = 100;
/// Where Nodes are.
const NO_NAMESPACE: &str = "";

/// Why the API does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outage {
    /// Nothing.
    #[default]
    None,
    /// Connections are accepted, and requests wait; they are carried out when the outage ends.
    Hangs,
    /// Nothing listens: connections are refused, and open ones are closed.
    Refuses,
}

/// How a watch from a forgotten version is refused; the real API does either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gone {
    /// 200, and an ERROR as the first event.
    #[default]
    Event,
    /// HTTP 410.
    Status,
}

/// Faults that apply to requests.
#[derive(Clone, Copy, Debug, Default)]
struct Behaviour {
    /// Every request is refused with this status.
    refuses: Option<u16>,
    /// Requests without this token are refused.
    token: Option<&'static str>,
    /// Every watch ends as soon as it has begun.
    cuts_watches: bool,
    /// Every watch begins with an ERROR of this status.
    fails_watches: Option<u16>,
    gone: Gone,
}

/// The store; cheap to clone.
#[derive(Clone)]
pub struct StandIn {
    behaviour: Arc<Mutex<Behaviour>>,
    store: Arc<Mutex<Store>>,
    changes: broadcast::Sender<(u64, Value)>,
    latency_ms: Arc<AtomicU64>,
    outage: Arc<watch::Sender<Outage>>,
    requests: Arc<AtomicU64>,
}

#[derive(Default)]
struct Store {
    version: u64,
    /// Older versions are forgotten: a watch from there gets an error.
    oldest: u64,
    uids: u64,
    /// By namespace and name: Leases, and Nodes, which have no namespace.
    objects: BTreeMap<(String, String), Value>,
    history: Vec<(u64, Value)>,
    reports: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListParams {
    watch: Option<String>,
    resource_version: Option<String>,
    field_selector: Option<String>,
    timeout_seconds: Option<u64>,
}

impl Default for StandIn {
    fn default() -> Self {
        Self {
            behaviour: Arc::default(),
            store: Arc::new(Mutex::new(Store {
                version: FIRST_VERSION,
                oldest: FIRST_VERSION,
                ..Store::default()
            })),
            changes: broadcast::channel(1024).0,
            latency_ms: Arc::default(),
            outage: Arc::new(watch::channel(Outage::None).0),
            requests: Arc::default(),
        }
    }
}

impl StandIn {
    /// Serves until dropped together with the runtime.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn serve(self, address: SocketAddr) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        self.serve_on(listener).await
    }

    /// Serves for ever on a new thread, except while it refuses.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn serve_unless_refusing(&self, address: SocketAddr) -> std::io::Result<()> {
        loop {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut outage = self.outage.subscribe();
                tokio::select! {
                    served = self.clone().serve(address) => served,
                    _ = outage.wait_for(|outage| *outage == Outage::Refuses) => Ok(()),
                }
            })?;
            // The connections end with the runtime.
            drop(runtime);
            while *self.outage.borrow() == Outage::Refuses {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Begins or ends an outage for all clients.
    pub fn set_outage(&self, outage: Outage) {
        self.outage.send_replace(outage);
    }

    async fn while_hanging(&self) {
        let mut outage = self.outage.subscribe();
        // The sender lives as long as `self`.
        let _ = outage.wait_for(|outage| *outage != Outage::Hangs).await;
    }

    /// Serves on a bound listener.
    ///
    /// # Errors
    /// If accepting fails for good.
    pub async fn serve_on(self, listener: tokio::net::TcpListener) -> std::io::Result<()> {
        let base = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases";
        let router = Router::new()
            .route("/apis/events.k8s.io/v1/namespaces/{namespace}/events", post(report))
            .route(base, get(list).post(create))
            .route(&format!("{base}/{{name}}"), get(read).put(replace).delete(remove))
            .route("/api/v1/nodes", get(watch_nodes))
            .route("/api/v1/nodes/{name}", get(read_node))
            .layer(axum::middleware::from_fn_with_state(self.clone(), refuse_or_go_on))
            .with_state(self);
        axum::serve(listener, router).await
    }

    /// Gives a Node these labels.
    pub fn set_labels(&self, node: &str, labels: &[(&str, &str)]) {
        let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
        self.put_node(node, json!({"metadata": {"name": node, "labels": labels}}));
    }

    /// Cordons or uncordons a Node.
    pub fn cordon(&self, node: &str, cordoned: bool) {
        let spec = json!({"unschedulable": cordoned});
        self.put_node(node, json!({"metadata": {"name": node}, "spec": spec}));
    }

    fn put_node(&self, name: &str, mut node: Value) {
        node["apiVersion"] = json!("v1");
        node["kind"] = json!("Node");
        let key = (NO_NAMESPACE.to_owned(), name.to_owned());
        let mut store = self.lock();
        let kind = if store.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        let event = store.put(key, node, kind);
        self.tell(event);
    }

    /// Removes a Node as `kubectl delete` would.
    pub fn delete_node(&self, name: &str) {
        self.delete(NO_NAMESPACE, name);
    }

    /// Forgets all versions up to now, as an API server that restarted while other objects were
    /// written. Then a watch can only start from now on.
    pub fn forget(&self, gone: Gone) {
        self.behave(|behaviour| behaviour.gone = gone);
        let mut store = self.lock();
        store.version += 1;
        store.oldest = store.version;
    }

    /// Refuses every request with this status; `None`: stops refusing.
    pub fn refuse_all(&self, status: Option<u16>) {
        self.behave(|behaviour| behaviour.refuses = status);
    }

    /// Refuses requests without this token with 403, as a server refuses a user without rights.
    pub fn forbid_all_without(&self, token: &'static str) {
        self.behave(|behaviour| behaviour.token = Some(token));
    }

    /// Ends every watch as soon as it has begun.
    pub fn cut_watches(&self, cut: bool) {
        self.behave(|behaviour| behaviour.cuts_watches = cut);
    }

    /// Lets every watch begin with an ERROR of this status, or none any more.
    pub fn fail_watches(&self, status: Option<u16>) {
        self.behave(|behaviour| behaviour.fails_watches = status);
    }

    fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn behaviour(&self) -> Behaviour {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delays every answer.
    pub fn set_latency(&self, latency: Duration) {
        self.latency_ms.store(latency.as_millis() as u64, Ordering::Relaxed);
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Kubernetes Events so far.
    pub fn reports(&self) -> Vec<Value> {
        self.lock().reports.clone()
    }

    /// A Lease as it is stored.
    pub fn lease(&self, namespace: &str, name: &str) -> Option<Value> {
        self.lock().objects.get(&(namespace.into(), name.into())).cloned()
    }

    /// Writes a Lease as another program would.
    pub fn put(&self, namespace: &str, name: &str, mut lease: Value) {
        let mut store = self.lock();
        store.uids += 1;
        lease["apiVersion"] = json!("coordination.k8s.io/v1");
        lease["kind"] = json!("Lease");
        lease["metadata"]["uid"] = json!(format!("00000000-0000-0000-0000-{:012}", store.uids));
        let event = store.put((namespace.into(), name.into()), lease, "ADDED");
        self.tell(event);
    }

    /// Changes a Lease as `kubectl edit` would.
    pub fn edit(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut store = self.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let Some(mut lease) = store.objects.get(&key).cloned() else { return };
        change(&mut lease);
        let event = store.put(key, lease, "MODIFIED");
        self.tell(event);
    }

    /// Deletes a Lease as `kubectl delete` would.
    pub fn delete(&self, namespace: &str, name: &str) {
        let mut store = self.lock();
        if let Some(event) = store.delete(&(namespace.into(), name.into())) {
            self.tell(event);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: (u64, Value)) {
        // An error means that no client watches.
        let _ = self.changes.send(event);
    }

    async fn arrive(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.while_hanging().await;
        let latency = self.latency_ms.load(Ordering::Relaxed);
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency)).await;
        }
    }
}

impl Store {
    fn create(&mut self, key: (String, String), mut lease: Value) -> (u64, Value) {
        self.uids += 1;
        lease["apiVersion"] = json!("coordination.k8s.io/v1");
        lease["kind"] = json!("Lease");
        lease["metadata"]["namespace"] = json!(key.0);
        lease["metadata"]["uid"] = json!(format!("00000000-0000-0000-0000-{:012}", self.uids));
        self.put(key, lease, "ADDED")
    }

    fn put(&mut self, key: (String, String), mut lease: Value, kind: &str) -> (u64, Value) {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key, lease.clone());
        self.event(kind, lease)
    }

    fn delete(&mut self, key: &(String, String)) -> Option<(u64, Value)> {
        let mut lease = self.objects.remove(key)?;
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        Some(self.event("DELETED", lease))
    }

    fn event(&mut self, kind: &str, lease: Value) -> (u64, Value) {
        let event = (self.version, json!({"type": kind, "object": lease}));
        self.history.push(event.clone());
        event
    }
}

async fn read(State(api): State<StandIn>, Path((namespace, name)): Path<(String, String)>) -> Response {
    api.arrive().await;
    match api.lease(&namespace, &name) {
        Some(lease) => Json(lease).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "NotFound", &name),
    }
}

async fn create(
    State(api): State<StandIn>,
    Path(namespace): Path<String>,
    Json(lease): Json<Value>,
) -> Response {
    api.arrive().await;
    let name = text(&lease, "name");
    let mut store = api.lock();
    let key = (namespace.clone(), name.clone());
    if let Some(why) = impossible(&lease) {
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, why, &name);
    }
    if store.objects.contains_key(&key) {
        return refuse(StatusCode::CONFLICT, "AlreadyExists", &name);
    }
    let event = store.create(key, lease);
    api.tell(event.clone());
    (StatusCode::CREATED, Json(event.1["object"].clone())).into_response()
}

async fn read_node(State(api): State<StandIn>, Path(name): Path<String>) -> Response {
    read(State(api), Path((NO_NAMESPACE.into(), name))).await
}

/// Refuses requests as set, before anything else.
async fn refuse_or_go_on(
    State(api): State<StandIn>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let Behaviour { refuses, token, .. } = api.behaviour();
    let named = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if token.is_some_and(|token| named.and_then(|named| named.strip_prefix("Bearer ")) != Some(token)) {
        return refuse(StatusCode::FORBIDDEN, "Forbidden", "this user");
    }
    let Some(code) = refuses.and_then(|code| StatusCode::from_u16(code).ok()) else {
        return next.run(request).await;
    };
    api.requests.fetch_add(1, Ordering::Relaxed);
    // API priority and fairness answers in plain text.
    (code, [("retry-after", "1")], "refused by order\n").into_response()
}

async fn watch_nodes(State(api): State<StandIn>, Query(params): Query<ListParams>) -> Response {
    list(State(api), Path(NO_NAMESPACE.into()), Query(params)).await
}

/// Stores an Event.
async fn report(State(api): State<StandIn>, Json(event): Json<Value>) -> Response {
    api.arrive().await;
    api.lock().reports.push(event.clone());
    (StatusCode::CREATED, Json(event)).into_response()
}

async fn replace(
    State(api): State<StandIn>,
    Path((namespace, name)): Path<(String, String)>,
    Json(mut lease): Json<Value>,
) -> Response {
    api.arrive().await;
    let mut store = api.lock();
    let key = (namespace, name.clone());
    let uid = text(&lease, "uid");
    let Some(current) = store.objects.get(&key).cloned() else {
        if !uid.is_empty() {
            return refuse(StatusCode::CONFLICT, "Conflict", &name);
        }
        // Like the real one (AllowCreateOnUpdate), whatever version the PUT names.
        let event = store.create(key, lease);
        api.tell(event.clone());
        return (StatusCode::CREATED, Json(event.1["object"].clone())).into_response();
    };
    let base = text(&lease, "resourceVersion");
    if base.is_empty() || impossible(&lease).is_some() {
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &name);
    }
    let same = uid.is_empty() || uid == text(&current, "uid");
    if !same || base != text(&current, "resourceVersion") {
        return refuse(StatusCode::CONFLICT, "Conflict", &name);
    }
    for kept in ["uid", "resourceVersion", "namespace", "creationTimestamp"] {
        lease["metadata"][kept] = current["metadata"][kept].clone();
    }
    lease["apiVersion"] = current["apiVersion"].clone();
    lease["kind"] = current["kind"].clone();
    if lease["spec"] == current["spec"]
        && lease["metadata"]["annotations"] == current["metadata"]["annotations"]
        && lease["metadata"]["labels"] == current["metadata"]["labels"]
    {
        return Json(current).into_response();
    }
    let event = store.put(key, lease, "MODIFIED");
    api.tell(event.clone());
    Json(event.1["object"].clone()).into_response()
}

async fn remove(
    State(api): State<StandIn>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    api.arrive().await;
    api.delete(&namespace, &name);
    Json(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})).into_response()
}

/// LIST, or WATCH from a version: first the changes since that version, then new ones.
async fn list(
    State(api): State<StandIn>,
    Path(namespace): Path<String>,
    Query(params): Query<ListParams>,
) -> Response {
    api.arrive().await;
    let selected = params.field_selector.unwrap_or_default().replace("metadata.name=", "");
    let wanted = move |event: &Value| {
        let object = &event["object"];
        text(object, "namespace") == namespace
            && (selected.is_empty() || text(object, "name") == selected)
    };
    if params.watch.as_deref() != Some("true") && params.watch.as_deref() != Some("1") {
        let store = api.lock();
        let items: Vec<&Value> =
            store.objects.values().filter(|lease| wanted(&json!({"object": lease}))).collect();
        return Json(json!({
            "kind": "LeaseList", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"resourceVersion": store.version.to_string()}, "items": items,
        }))
        .into_response();
    }
    let from: u64 = params.resource_version.and_then(|version| version.parse().ok()).unwrap_or(0);
    let behaviour = api.behaviour();
    let oldest = api.lock().oldest;
    if (1..oldest).contains(&from) {
        return gone(behaviour.gone, from, oldest);
    }
    if behaviour.cuts_watches {
        return Body::empty().into_response();
    }
    if let Some(code) = behaviour.fails_watches {
        return error_event(&failure(code, "InternalError", "broken by order"));
    }
    let (past, changes) = {
        let store = api.lock();
        let past: Vec<(u64, Value)> = if from == 0 {
            store
                .objects
                .values()
                .map(|object| (store.version, json!({"type": "ADDED", "object": object})))
                .collect()
        } else {
            store.history.iter().filter(|(version, _)| *version > from).cloned().collect()
        };
        (past, api.changes.subscribe())
    };
    let limit = Duration::from_secs(params.timeout_seconds.unwrap_or(300));
    let end = tokio::time::Instant::now() + limit;
    let stream = futures::stream::unfold((past.into_iter(), changes, false), move |state| {
        let ((mut past, mut changes, ended), wanted, api) = (state, wanted.clone(), api.clone());
        async move {
            if ended {
                return None;
            }
            loop {
                let event = if let Some((_, event)) = past.next() {
                    event
                } else {
                    let Ok(event) = tokio::time::timeout_at(end, changes.recv()).await else {
                        let line = Bytes::from(format!("{}\n", bookmark(api.lock().version)));
                        return Some((Ok(line), (past, changes, true)));
                    };
                    event.ok()?.1
                };
                if wanted(&event) {
                    api.while_hanging().await;
                    let line = Bytes::from(format!("{event}\n"));
                    return Some((Ok::<_, std::convert::Infallible>(line), (past, changes, false)));
                }
            }
        }
    });
    ([("content-type", "application/json")], Body::from_stream(stream)).into_response()
}

/// The answer to a watch from a forgotten version.
fn gone(gone: Gone, from: u64, oldest: u64) -> Response {
    let status = failure(410, "Expired", &format!("too old resource version: {from} ({oldest})"));
    match gone {
        Gone::Event => error_event(&status),
        Gone::Status => (StatusCode::GONE, Json(status)).into_response(),
    }
}

/// A watch that begins with an error, and ends.
fn error_event(status: &Value) -> Response {
    format!("{}\n", json!({"type": "ERROR", "object": status})).into_response()
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

/// How far a watch has come, told before it ends.
fn bookmark(version: u64) -> Value {
    json!({"type": "BOOKMARK", "object": {
        "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null}, "spec": {},
    }})
}

/// Why the API server's validation refuses a Lease, if it does.
fn impossible(lease: &Value) -> Option<&'static str> {
    let number = |field: &str| lease["spec"][field].as_i64();
    let bad = number("leaseDurationSeconds").is_some_and(|seconds| seconds <= 0)
        || number("leaseTransitions").is_some_and(|transitions| transitions < 0);
    bad.then_some("Invalid")
}

fn text(object: &Value, field: &str) -> String {
    object["metadata"][field].as_str().unwrap_or_default().to_owned()
}

fn refuse(code: StatusCode, reason: &str, name: &str) -> Response {
    let message = format!("leases.coordination.k8s.io \"{name}\": {reason}");
    (code, Json(failure(code.as_u16(), reason, &message))).into_response()
}
