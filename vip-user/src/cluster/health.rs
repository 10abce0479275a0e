//! Asks the services of this node whether they are well: the API server and the kubelet. Each is asked
//! over and over by a task of its own, and every question has a time limit.

use super::{
    client::{self, Access},
    client_error::ClientError,
    words::words,
};
use crate::{
    clock,
    model::health::{Ailment, Answer, Judge, Limits, Service},
    sources,
};
use http::{Request, StatusCode, Uri};
use kube::{
    Client,
    client::Body,
    config::{Cluster, Context, KubeConfigOptions, Kubeconfig, NamedCluster, NamedContext},
};
use std::{io, path::PathBuf, time::Duration};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// After a bad answer a new connection is made, with credentials that are read again, at most this
/// often.
const RECONNECT_EVERY: Duration = Duration::from_secs(5);

/// How a service of this node is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Which one.
    pub service: Service,
    /// Where it is asked.
    pub url: Uri,
    /// The credentials; `None`: it is asked without any.
    pub access: Option<Access>,
    /// A file with the CA of its certificate, instead of that of the credentials. Then it is asked
    /// without credentials.
    pub ca: Option<PathBuf>,
    /// The time between two questions.
    pub every: Duration,
    /// How long an answer may take.
    pub limit: Duration,
    /// How long it may be ill before that counts.
    pub limits: Limits,
}

/// Asks until the receiver is gone. Sends what ails the service on every change.
pub async fn follow<T: Send + 'static>(
    question: Question,
    items: mpsc::Sender<T>,
    item: fn(Service, Option<Ailment>) -> T,
) {
    let mut judge = Judge::new(question.service, question.limits);
    let mut line = Line::default();
    let mut ticks = interval(question.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<Ailment> = None;
    loop {
        ticks.tick().await;
        let asked = clock::boot();
        let answer = line.ask(&question).await;
        let ailment = judge.hear(asked, clock::boot(), &answer).cloned();
        if ailment.as_ref().map(|ailment| ailment.fitness) == last.as_ref().map(|last| last.fitness) {
            continue;
        }
        last.clone_from(&ailment);
        if items.send(item(question.service, ailment)).await.is_err() {
            return;
        }
    }
}

/// Asks once.
pub async fn once(question: &Question) -> Answer {
    Line::default().ask(question).await
}

/// The client of a service. It is made again after bad answers, with credentials that are read again.
/// That may run a program for credentials, so at most one attempt is under way.
#[derive(Default)]
struct Line {
    client: Option<Client>,
    connecting: Option<JoinHandle<Result<Client, ClientError>>>,
    begun: Option<Instant>,
}

impl Line {
    async fn ask(&mut self, question: &Question) -> Answer {
        let answer = match self.client(question).await {
            Ok(client) => question.ask(client).await,
            Err(answer) => answer,
        };
        if answer != Answer::Good {
            self.connect(question);
        }
        answer
    }

    /// Begins to make a client, unless an attempt is under way or was begun a short time ago.
    fn connect(&mut self, question: &Question) {
        let may_begin = self.begun.is_none_or(|begun| begun.elapsed() >= RECONNECT_EVERY);
        if self.connecting.is_none() && may_begin {
            self.begun = Some(Instant::now());
            self.connecting = Some(tokio::spawn(question.clone().connect()));
        }
    }

    /// The newest client. The first one is waited for.
    async fn client(&mut self, question: &Question) -> Result<Client, Answer> {
        if self.client.is_none() {
            self.connect(question);
        }
        let Some(connecting) = &mut self.connecting else {
            let none = || Answer::Slow("no connection could be made".into());
            return self.client.clone().ok_or_else(none);
        };
        if let (Some(client), false) = (&self.client, connecting.is_finished()) {
            return Ok(client.clone());
        }
        let slow = || Answer::Slow(format!("no connection within {} ms", question.limit.as_millis()));
        let made = timeout(question.limit, connecting).await.map_err(|_| slow())?;
        self.connecting = None;
        let failed = |why: String| Answer::Slow(why);
        let client = made.map_err(|error| failed(error.to_string()));
        let client = client.and_then(|client| client.map_err(|error| failed(error.to_string())));
        match (client, &self.client) {
            (Ok(client), _) => Ok(self.client.insert(client).clone()),
            // The old one may still work.
            (Err(_), Some(old)) => Ok(old.clone()),
            (Err(answer), None) => Err(answer),
        }
    }
}

impl Question {
    async fn ask(&self, client: Client) -> Answer {
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let request = match Request::get(path).body(Body::empty()) {
            Ok(request) => request,
            Err(error) => return Answer::Slow(error.to_string()),
        };
        match timeout(self.limit, client.send(request)).await {
            Ok(Ok(response)) => judge_status(response.status()),
            Ok(Err(error)) => failed(&error),
            Err(_) => Answer::Slow(format!("no answer within {} ms", self.limit.as_millis())),
        }
    }

    async fn connect(self) -> Result<Client, ClientError> {
        let server = server_of(&self.url);
        // Any process may listen on a port of loopback. Without TLS it would get the token.
        let is_proven = self.url.scheme_str() == Some("https");
        if let (Some(access), None, true) = (&self.access, &self.ca, is_proven) {
            return client::direct(access.clone(), server, self.limit).await;
        }
        let build = |why: String| ClientError::Build { endpoint: server.clone(), why };
        let kubeconfig = without_credentials(&server, self.ca.as_ref());
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let mut config = config.map_err(|error| build(error.to_string()))?;
        config.connect_timeout = Some(self.limit);
        // The service is on this node.
        config.proxy_url = None;
        config.tls_server_name = match &self.access {
            Some(access) => client::server_name(access, None),
            None => None,
        };
        config.root_cert.get_or_insert_default();
        Client::try_from(config).map_err(|error| build(words(&error)))
    }
}

/// 401 and 403 come from a server that works.
fn judge_status(status: StatusCode) -> Answer {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Answer::Good,
        status if status.is_success() => Answer::Good,
        status => Answer::Slow(format!("HTTP {status}")),
    }
}

fn failed(error: &kube::Error) -> Answer {
    let refused = sources::of(error).any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
    });
    if refused { Answer::Refused("connection refused".into()) } else { Answer::Slow(words(error)) }
}

fn server_of(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or("https");
    format!("{scheme}://{}", url.authority().map_or("", |authority| authority.as_str()))
}

fn without_credentials(server: &str, ca: Option<&PathBuf>) -> Kubeconfig {
    let cluster = Cluster {
        server: Some(server.into()),
        certificate_authority: ca.map(|path| path.display().to_string()),
        ..Cluster::default()
    };
    let context = Context { cluster: "it".into(), ..Context::default() };
    Kubeconfig {
        clusters: vec![NamedCluster {
            name: "it".into(),
            cluster: Some(cluster),
            ..NamedCluster::default()
        }],
        contexts: vec![NamedContext {
            name: "it".into(),
            context: Some(context),
            ..NamedContext::default()
        }],
        current_context: Some("it".into()),
        ..Kubeconfig::default()
    }
}
