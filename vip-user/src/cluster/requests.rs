//! The requests of a follower: quorum reads and watches.

use super::{
    lease::LeaseError,
    scope::{Followed, Scope},
};
use crate::model::lease::record::Version;
use futures::{Stream, StreamExt as _};
use kube::{
    Resource,
    api::{ListParams, ObjectList, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, pin::Pin};

/// HTTP status of a request for a version that the API server no longer knows.
pub(super) const GONE: u16 = 410;

/// The events of a watch.
type Events<K> = Pin<Box<dyn Stream<Item = Result<WatchEvent<K>, kube::Error>> + Send>>;

impl<K> Followed<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// A linearizable read: GET without `resourceVersion`.
    pub(super) async fn get(&self, name: &str) -> Result<Option<K>, LeaseError> {
        let get = |client| {
            let objects = (self.of)(&self.api, client);
            async move { objects.get_opt(name).await }
        };
        let (_, object) = self.api.ask("get", 0, get).await?;
        Ok(object)
    }

    /// A linearizable read of all objects, or of the one with this name: LIST without
    /// `resourceVersion`. Also returns the version that the list shows.
    pub(super) async fn list(&self, name: Option<&str>) -> Result<(Vec<K>, Version), LeaseError> {
        let params = ListParams { field_selector: name.map(named), ..ListParams::default() };
        let list = |client| {
            let (objects, params) = ((self.of)(&self.api, client), params.clone());
            async move { objects.list(&params).await }
        };
        let (endpoint, list) = self.api.ask("list", 0, list).await?;
        let ObjectList { metadata, items, .. } = list;
        // A watch without a version would begin with what exists, which may be older than the list.
        let Some(version) = metadata.resource_version.filter(|version| !version.is_empty()) else {
            let what = "the list has no version".into();
            let (wanted, forbidden) = (None, false);
            return Err(LeaseError::Request { endpoint, verb: "list", what, wanted, forbidden });
        };
        Ok((items, Version(version)))
    }

    /// Opens a watch at the endpoint that answers first. `None`: the version is no longer known there.
    pub(super) async fn open(&self, version: &str) -> Result<Option<(String, Events<K>)>, LeaseError> {
        let field_selector = match &self.scope {
            Scope::Named(name) => Some(named(name)),
            Scope::All => None,
        };
        let timeout = Some(self.pace.watch_s);
        let params = WatchParams { field_selector, timeout, ..WatchParams::default() };
        let watch = |client| {
            let (objects, params) = ((self.of)(&self.api, client), params.clone());
            async move {
                match objects.watch(&params, version).await {
                    Ok(events) => Ok(Some(events.boxed())),
                    Err(error) if is_gone(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        };
        let (endpoint, events) = self.api.ask("watch", 0, watch).await?;
        Ok(events.map(|events| (endpoint, events as Events<K>)))
    }
}

/// Whether an API server refused a version because it no longer knows it.
pub(super) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == GONE)
}

fn named(name: &str) -> String {
    format!("metadata.name={name}")
}
