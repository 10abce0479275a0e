//! Makes objects readable whose times cannot be computed with. An API server accepts any time up to the
//! end of the year 9999, and its last 26 hours leave no room for time zones. Such a time must not make
//! a Lease unreadable, nor the list of all Leases.

use jiff::Timestamp;
use kube::Resource;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned, de::Error as _};
use serde_json::Value;
use std::borrow::Cow;

/// An object whose times have been made readable.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Lenient<K>(pub K);

impl<'de, K: DeserializeOwned> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        let mut object = Value::deserialize(json)?;
        mend(&mut object);
        serde_json::from_value(object).map(Self).map_err(D::Error::custom)
    }
}

/// Mends the times that programs other than the API server write. Values in labels and annotations are
/// text, whatever their names. `managedFields` is removed because xvip does not need it.
fn mend(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for time in ["/spec/acquireTime", "/spec/renewTime"] {
        object.pointer_mut(time).into_iter().for_each(mend_time);
    }
    let conditions = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        condition
            .iter_mut()
            .filter(|(name, _)| name.ends_with("Time"))
            .for_each(|(_, time)| mend_time(time));
    }
}

/// Replaces a time that is too late by one two days earlier, so that two such times still differ. Any
/// other unreadable time becomes null.
fn mend_time(time: &mut Value) {
    let readable = |text: &str| text.parse::<Timestamp>().is_ok();
    if let Value::String(text) = time
        && !readable(text)
    {
        let earlier = text.replacen("-12-31T", "-12-29T", 1).replacen("-12-30T", "-12-28T", 1);
        *time = if readable(&earlier) { earlier.into() } else { Value::Null };
    }
}

impl<K: Resource> Resource for Lenient<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &kube::core::ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut kube::core::ObjectMeta {
        self.0.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
    use serde_json::json;

    fn renewed(time: &str) -> Option<Timestamp> {
        let metadata = json!({"name": "x", "annotations": {"ops/maintenanceTime": "tonight"}});
        let lease = json!({"metadata": metadata, "spec": {"holderIdentity": "kcm", "renewTime": time}});
        let Lenient(lease): Lenient<Lease> = serde_json::from_value(lease).unwrap();
        assert_eq!(lease.metadata.annotations.unwrap()["ops/maintenanceTime"], "tonight");
        let spec = lease.spec.unwrap();
        assert_eq!(spec.holder_identity.as_deref(), Some("kcm"));
        spec.renew_time.map(|time| time.0)
    }

    #[test]
    fn times_at_the_end_of_time_are_read_and_differ() {
        let late = [
            "9999-12-30T22:00:01.000000Z",
            "9999-12-31T22:00:01.000000Z",
            "9999-12-31T23:59:59.999999Z",
        ];
        for time in late {
            assert!(time.parse::<Timestamp>().is_err(), "{time} is no test");
            assert!(renewed(time).is_some(), "{time}");
        }
        assert_ne!(renewed(late[1]), renewed(late[2]));
        assert_eq!(
            renewed("2026-01-02T03:04:05.000006Z").unwrap().to_string(),
            "2026-01-02T03:04:05.000006Z"
        );
        assert_eq!(renewed("soon"), None);
    }

    #[test]
    fn so_are_those_of_other_objects() {
        let condition =
            json!({"type": "Ready", "status": "True", "lastHeartbeatTime": "9999-12-31T00:00:00Z"});
        let node = json!({"metadata": {"name": "n"}, "status": {"conditions": [condition]}});
        let Lenient(node): Lenient<Node> = serde_json::from_value(node).unwrap();
        assert_eq!(node.status.unwrap().conditions.unwrap()[0].status, "True");
    }
}
