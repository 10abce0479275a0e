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
    let mut ticks = interval(question.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut client, mut made) = (None, Instant::now());
    let mut last: Option<Ailment> = None;
    loop {
        ticks.tick().await;
        let asked = clock::boot();
        let answer = question.ask(&mut client).await;
        if answer != Answer::Good && made.elapsed() >= RECONNECT_EVERY {
            (client, made) = (None, Instant::now());
        }
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

impl Question {
    async fn ask(&self, client: &mut Option<Client>) -> Answer {
        let asked = timeout(self.limit, async {
            let connected = match client.clone() {
                Some(connected) => connected,
                None => client.insert(self.connect().await.map_err(|error| no_client(&error))?).clone(),
            };
            let request = Request::get(self.url.path()).body(Body::empty());
            let request = request.map_err(|error| Answer::Slow(error.to_string()))?;
            connected.send(request).await.map_err(|error| failed(&error))
        });
        let answered = match asked.await {
            Ok(answered) => answered,
            Err(_) => Err(Answer::Slow(format!("no answer within {} ms", self.limit.as_millis()))),
        };
        match answered {
            Ok(response) => judge_status(response.status()),
            Err(answer) => answer,
        }
    }

    async fn connect(&self) -> Result<Client, ClientError> {
        let server = server_of(&self.url);
        if let (Some(access), None) = (&self.access, &self.ca) {
            let access = Access { endpoints: vec![server], ..access.clone() };
            let clients = client::connect_aside(access, Vec::new(), self.limit).await?;
            return clients.into_iter().next().map(|(_, client)| client).ok_or(ClientError::OnlyVips);
        }
        let build = |why: String| ClientError::Build { endpoint: server.clone(), why };
        let kubeconfig = without_credentials(&server, self.ca.as_ref());
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let mut config = config.map_err(|error| build(error.to_string()))?;
        config.connect_timeout = Some(self.limit);
        config.tls_server_name = self.access.as_ref().and_then(|access| access.tls_server_name.clone());
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

fn no_client(error: &ClientError) -> Answer {
    Answer::Slow(error.to_string())
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
