//! `spin:key-value/key-value@3.0.0`: what a component sees of the stores.

use std::sync::Arc;

use wasmtime::{
    Result,
    component::{
        Accessor, ComponentType, FutureReader, Lift, Linker, Lower, Resource, ResourceType, StreamReader,
    },
};

use super::{Store, StoreError};
use crate::{instance::Guest, limits};

/// What a component holds for a store that it opened.
struct Handle(Arc<Store>);

#[derive(Clone, ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "store-table-full")]
    StoreTableFull,
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Other(error.to_string())
    }
}

/// Gives the component `spin:key-value/key-value@3.0.0`.
pub fn link(linker: &mut Linker<Guest>) -> Result<()> {
    let mut instance = linker.instance("spin:key-value/key-value@3.0.0")?;
    instance.resource("store", ResourceType::host::<Handle>(), |mut guest, rep| {
        guest.data_mut().table.delete(Resource::<Handle>::new_own(rep))?;
        Ok(())
    })?;
    instance.func_wrap_concurrent("[static]store.open", |accessor, (label,): (String,)| {
        let opened = accessor.with(|mut guest| {
            let guest = guest.get();
            let Some(store) = guest.stores.get(&label) else { return Err(Error::AccessDenied) };
            guest.table.push(Handle(Arc::clone(store))).map_err(|_| Error::StoreTableFull)
        });
        Box::pin(async move { Ok((opened,)) })
    })?;
    instance.func_wrap_concurrent(
        "[method]store.get",
        |accessor, (store, key): (Resource<Handle>, String)| {
            let store = opened(accessor, &store);
            Box::pin(async move {
                let store = store?;
                let value = match store.at_hand(&key) {
                    Some(value) => value,
                    None => tokio::task::spawn_blocking(move || store.get(&key)).await?,
                };
                Ok((Ok::<_, Error>(value),))
            })
        },
    )?;
    instance.func_wrap_concurrent(
        "[method]store.set",
        |accessor, (store, key, value): (Resource<Handle>, String, Vec<u8>)| {
            let store = opened(accessor, &store);
            Box::pin(async move {
                let store = store?;
                let written = match value.len() > limits::VALUE_MEMORY_BYTES_MAX {
                    true => tokio::task::spawn_blocking(move || store.set(key, value)).await?,
                    false => store.set(key, value),
                };
                Ok((written.map_err(Error::from),))
            })
        },
    )?;
    instance.func_wrap_concurrent(
        "[method]store.delete",
        |accessor, (store, key): (Resource<Handle>, String)| {
            let store = opened(accessor, &store);
            Box::pin(async move {
                store?.delete(&key);
                Ok((Ok::<(), Error>(()),))
            })
        },
    )?;
    instance.func_wrap_concurrent(
        "[method]store.exists",
        |accessor, (store, key): (Resource<Handle>, String)| {
            let store = opened(accessor, &store);
            Box::pin(async move { Ok((Ok::<bool, Error>(store?.exists(&key)),)) })
        },
    )?;
    instance.func_wrap_concurrent("[method]store.get-keys", |accessor, (store,): (Resource<Handle>,)| {
        let streams = opened(accessor, &store).and_then(|store| {
            accessor.with(|mut guest| {
                let keys = StreamReader::new(&mut guest, store.keys())?;
                let result =
                    FutureReader::new(&mut guest, async { wasmtime::error::Ok(Ok::<(), Error>(())) })?;
                Ok((keys, result))
            })
        });
        Box::pin(async move { Ok((streams?,)) })
    })
}

/// The store that a component's handle stands for.
fn opened(accessor: &Accessor<Guest>, handle: &Resource<Handle>) -> Result<Arc<Store>> {
    accessor.with(|mut guest| Ok(Arc::clone(&guest.get().table.get(handle)?.0)))
}
