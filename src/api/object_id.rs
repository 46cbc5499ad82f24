//! Identity of an object: its namespace and name.

use std::fmt;

use kube::{
    ResourceExt,
    runtime::reflector::{Lookup, ObjectRef},
};

/// Namespace and name of an object whose kind the context tells. Displayed as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    pub namespace: String,
    pub name: String,
}

impl ObjectId {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> ObjectId {
        ObjectId {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Returns the identity of a namespaced object.
    pub fn of(object: &impl ResourceExt) -> ObjectId {
        ObjectId::new(object.namespace().unwrap_or_default(), object.name_any())
    }

    /// Reads `namespace/name`; `None` for a text without a slash.
    pub fn parse(text: &str) -> Option<ObjectId> {
        let (namespace, name) = text.split_once('/')?;
        Some(ObjectId::new(namespace, name))
    }

    /// Returns the reference by which the controllers and the caches of the watches know the object.
    pub fn to_ref<K: Lookup<DynamicType = ()>>(&self) -> ObjectRef<K> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use k8s_openapi::api::core::v1::Secret;
    use kube::{api::ObjectMeta, runtime::reflector::ObjectRef};

    #[test]
    fn an_identity_is_the_same_from_an_object_its_text_and_its_reference() {
        for (text, expected) in [
            ("shop/partners", Some(("shop", "partners"))),
            ("a/b/c", Some(("a", "b/c"))),
            ("/partners", Some(("", "partners"))),
            ("partners", None),
            ("", None),
        ] {
            let id = ObjectId::parse(text);
            assert_eq!(
                id,
                expected.map(|(namespace, name)| ObjectId::new(namespace, name)),
                "{text}"
            );
            let Some(id) = id else { continue };
            assert_eq!(id.to_string(), text);
            let metadata = ObjectMeta {
                namespace: Some(id.namespace.clone()),
                name: Some(id.name.clone()),
                ..ObjectMeta::default()
            };
            let object = Secret {
                metadata,
                ..Secret::default()
            };
            assert_eq!(ObjectId::of(&object), id);
            assert_eq!(id.to_ref::<Secret>(), ObjectRef::from_obj(&object));
        }
    }
}
