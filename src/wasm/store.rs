//! Envoy's shared data as a [`Store`].

use super::abi;
use crate::shared::{Cas, Store, StoreError, Versioned};
use crate::worker::host::HostStatus;

/// Envoy's shared data.
#[derive(Clone, Copy, Debug)]
pub struct SharedData;

impl Store for SharedData {
    fn read(&self, key: &str) -> Result<Versioned, StoreError> {
        match abi::shared_data(key) {
            Ok(Some((value, cas))) => Ok(Versioned {
                value,
                cas: Cas(cas),
            }),
            Ok(None) => Ok(Versioned {
                value: Vec::new(),
                cas: Cas::ABSENT,
            }),
            Err(HostStatus(status)) => Err(StoreError { status }),
        }
    }

    fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError> {
        match abi::set_shared_data(key, value, cas.0) {
            Ok(()) => Ok(true),
            Err(abi::CAS_MISMATCH) => Ok(false),
            Err(HostStatus(status)) => Err(StoreError { status }),
        }
    }
}
