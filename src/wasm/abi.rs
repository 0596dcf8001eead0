//! The host functions that the filter uses, each with every status it can return.
//!
//! The SDK's own wrappers panic on statuses that they do not expect, which would take a worker's VM down;
//! its getters panic on bytes that are not UTF-8.
//!
//! One call goes through the SDK: starting a callout, because the SDK's dispatcher drops the VM on a reply
//! whose token it does not know, and only its own wrapper can tell it. That wrapper takes "ok",
//! "bad argument" and "internal failure", and these are all that Envoy returns (proxy-wasm-cpp-host:
//! `Context::httpCall`; a call that the VM may not make is an internal failure). The linker cannot put
//! anything in between: rustc gives imports with a module a name of their own.

#![allow(unsafe_code)]

use std::time::Duration;

use crate::time::UnixMillis;
use crate::worker::host::{HostStatus, MetricKind};

#[cfg(test)]
use super::fake as sys;

/// There is none (proxy-wasm ABI 0.2.1, `proxy_status_t`).
pub const NOT_FOUND: HostStatus = HostStatus(1);
/// Of a callout: Envoy does not know the cluster.
pub const BAD_ARGUMENT: HostStatus = HostStatus(2);
/// Somebody else was first.
pub const CAS_MISMATCH: HostStatus = HostStatus(8);

const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;
const CALLOUT_HEADERS: u32 = 6;
const CALLOUT_BODY: u32 = 4;
const REQUEST_BODY: u32 = 0;
const PLUGIN_CONFIGURATION: u32 = 7;
const REQUEST_STREAM: u32 = 0;
const NO_GRPC_STATUS: i32 = -1;

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Trace = 0,
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
    Critical = 5,
}

fn check(status: u32) -> Result<(), HostStatus> {
    match status {
        0 => Ok(()),
        other => Err(HostStatus(other)),
    }
}

/// Bytes that the host allocated in the VM's memory, through the SDK's allocator.
struct HostBytes {
    data: *mut u8,
    size: usize,
}

impl HostBytes {
    const fn new() -> Self {
        Self {
            data: std::ptr::null_mut(),
            size: 0,
        }
    }

    /// Takes them over. The host returns no pointer for no bytes.
    fn take(self) -> Vec<u8> {
        if self.data.is_null() || self.size == 0 {
            return Vec::new();
        }
        // SAFETY: the host obtained `data` from the SDK's `proxy_on_memory_allocate(size)`, which leaks a
        // boxed slice of exactly `size` bytes, filled it, and hands it over once.
        unsafe { Vec::from_raw_parts(self.data, self.size, self.size) }
    }
}

/// Writes a log line.
pub fn log(severity: Severity, message: &str) -> Result<(), HostStatus> {
    // SAFETY: pointer and length describe `message`.
    check(unsafe { sys::proxy_log(severity as u32, message.as_ptr(), message.len()) })
}

/// The least severe level that Envoy writes for this plugin; a number of [`Severity`].
pub fn log_level() -> Result<u32, HostStatus> {
    let mut level = 0u32;
    // SAFETY: `level` outlives the call.
    check(unsafe { sys::proxy_get_log_level(&raw mut level) })?;
    Ok(level)
}

/// Reads the monotonic clock: one for all VMs of the process.
pub fn now() -> Result<Duration, HostStatus> {
    const CLOCK_MONOTONIC: u32 = 1;
    clock(CLOCK_MONOTONIC).map(Duration::from_nanos)
}

/// Reads the wall clock.
pub fn unix() -> Result<UnixMillis, HostStatus> {
    const CLOCK_REALTIME: u32 = 0;
    clock(CLOCK_REALTIME).map(UnixMillis::from_nanos)
}

fn clock(clock: u32) -> Result<u64, HostStatus> {
    let mut nanos = 0u64;
    // SAFETY: `nanos` outlives the call.
    let errno = unsafe { sys::clock_time_get(clock, 1, &raw mut nanos) };
    check(u32::from(errno))?;
    Ok(nanos)
}

/// Sets the period of `on_tick`.
pub fn set_tick_period(period: Duration) -> Result<(), HostStatus> {
    let millis = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: takes a number.
    check(unsafe { sys::proxy_set_tick_period_milliseconds(millis) })
}

fn buffer(kind: u32, most: usize) -> Result<Vec<u8>, HostStatus> {
    let mut bytes = HostBytes::new();
    // SAFETY: both out-pointers outlive the call.
    check(unsafe {
        sys::proxy_get_buffer_bytes(kind, 0, most, &raw mut bytes.data, &raw mut bytes.size)
    })?;
    Ok(bytes.take())
}

/// The plugin configuration; only inside `on_configure`. None was given: no bytes.
pub fn plugin_configuration(size: usize) -> Result<Vec<u8>, HostStatus> {
    if size == 0 {
        return Ok(Vec::new());
    }
    buffer(PLUGIN_CONFIGURATION, size)
}

/// The body of a callout's reply; only inside `on_http_call_response`.
pub fn callout_body(size: usize) -> Result<Vec<u8>, HostStatus> {
    if size == 0 {
        return Ok(Vec::new());
    }
    buffer(CALLOUT_BODY, size)
}

/// The request's body, as far as it is there, of which this is the length.
///
/// # Errors
/// When there is none.
pub fn request_body(size: usize) -> Result<Vec<u8>, HostStatus> {
    if size == 0 {
        return Ok(Vec::new());
    }
    buffer(REQUEST_BODY, size)
}

/// Takes the body of a request, as far as the host has it, out of what goes on.
pub fn drop_request_body(size: usize) -> Result<(), HostStatus> {
    // SAFETY: takes numbers, and no bytes.
    check(unsafe { sys::proxy_set_buffer_bytes(REQUEST_BODY, 0, size, std::ptr::null(), 0) })
}

fn header(map: u32, name: &str) -> Result<Option<Vec<u8>>, HostStatus> {
    let mut bytes = HostBytes::new();
    // SAFETY: pointer and length describe `name`, both out-pointers outlive the call.
    let status = unsafe {
        sys::proxy_get_header_map_value(
            map,
            name.as_ptr(),
            name.len(),
            &raw mut bytes.data,
            &raw mut bytes.size,
        )
    };
    match check(status) {
        Ok(()) => Ok(Some(bytes.take())),
        Err(NOT_FOUND) => Ok(None),
        Err(status) => Err(status),
    }
}

/// The first request header of this name.
pub fn request_header(name: &str) -> Result<Option<Vec<u8>>, HostStatus> {
    header(REQUEST_HEADERS, name)
}

/// A header of a callout's reply; only inside `on_http_call_response`.
pub fn callout_header(name: &str) -> Result<Option<Vec<u8>>, HostStatus> {
    header(CALLOUT_HEADERS, name)
}

/// All request headers, in the ABI's encoding ([`super::wire::fields`]).
pub fn request_headers() -> Result<Vec<u8>, HostStatus> {
    let mut bytes = HostBytes::new();
    // SAFETY: both out-pointers outlive the call.
    check(unsafe {
        sys::proxy_get_header_map_pairs(REQUEST_HEADERS, &raw mut bytes.data, &raw mut bytes.size)
    })?;
    Ok(bytes.take())
}

/// Sets a request header to one value, whatever was there.
pub fn set_request_header(name: &str, value: &str) -> Result<(), HostStatus> {
    set_header(REQUEST_HEADERS, name, value)
}

/// Sets a response header to one value, whatever was there.
pub fn set_response_header(name: &str, value: &str) -> Result<(), HostStatus> {
    set_header(RESPONSE_HEADERS, name, value)
}

fn set_header(map: u32, name: &str, value: &str) -> Result<(), HostStatus> {
    // SAFETY: pointers and lengths describe `name` and `value`.
    check(unsafe {
        sys::proxy_replace_header_map_value(
            map,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Takes a response header out.
pub fn remove_response_header(name: &str) -> Result<(), HostStatus> {
    // SAFETY: pointer and length describe `name`.
    check(unsafe {
        sys::proxy_remove_header_map_value(RESPONSE_HEADERS, name.as_ptr(), name.len())
    })
}

/// Reads an entry of shared data with its version; `None` when it is absent.
pub fn shared_data(key: &str) -> Result<Option<(Vec<u8>, u32)>, HostStatus> {
    let mut bytes = HostBytes::new();
    let mut cas = 0u32;
    // SAFETY: pointer and length describe `key`, all out-pointers outlive the call.
    let status = unsafe {
        sys::proxy_get_shared_data(
            key.as_ptr(),
            key.len(),
            &raw mut bytes.data,
            &raw mut bytes.size,
            &raw mut cas,
        )
    };
    match check(status) {
        Ok(()) => Ok(Some((bytes.take(), cas))),
        Err(NOT_FOUND) => Ok(None),
        Err(status) => Err(status),
    }
}

/// Writes an entry of shared data if it still has this version.
pub fn set_shared_data(key: &str, value: &[u8], cas: u32) -> Result<(), HostStatus> {
    // SAFETY: pointers and lengths describe `key` and `value`.
    check(unsafe {
        sys::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas)
    })
}

/// Answers the request of the effective context, with a header map of [`super::wire::encode`].
pub fn send_local_response(
    status: u16,
    details: &str,
    headers: &[u8],
    body: &[u8],
) -> Result<(), HostStatus> {
    // SAFETY: pointers and lengths describe `details`, `body` and `headers`.
    check(unsafe {
        sys::proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        )
    })
}

/// Lets the paused request of the effective context go on to the upstream.
pub fn continue_request() -> Result<(), HostStatus> {
    // SAFETY: takes a number.
    check(unsafe { sys::proxy_continue_stream(REQUEST_STREAM) })
}

/// Makes the following calls act on another context.
pub fn set_effective_context(context: u32) -> Result<(), HostStatus> {
    // SAFETY: takes a number.
    check(unsafe { sys::proxy_set_effective_context(context) })
}

/// Defines a metric, or finds the one of that name.
pub fn define_metric(kind: MetricKind, name: &str) -> Result<u32, HostStatus> {
    let mut id = 0u32;
    // SAFETY: pointer and length describe `name`, `id` outlives the call.
    check(unsafe {
        sys::proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id)
    })?;
    Ok(id)
}

/// Adds to a counter.
pub fn increment_metric(id: u32, by: i64) -> Result<(), HostStatus> {
    // SAFETY: takes numbers.
    check(unsafe { sys::proxy_increment_metric(id, by) })
}

/// Sets a gauge.
pub fn record_metric(id: u32, value: u64) -> Result<(), HostStatus> {
    // SAFETY: takes numbers.
    check(unsafe { sys::proxy_record_metric(id, value) })
}

/// Starts a callout; its reply carries the returned token. With `:method`, `:path` and `:authority` among the headers,
/// [`BAD_ARGUMENT`] says that Envoy does not know the cluster.
pub fn http_call(
    cluster: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> Result<u32, HostStatus> {
    sys::http_call(cluster, headers, body, timeout)
}

#[cfg(not(test))]
mod sys {
    use std::time::Duration;

    use super::HostStatus;

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub unsafe fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
        pub unsafe fn proxy_get_log_level(level: *mut u32) -> u32;
        pub unsafe fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub unsafe fn proxy_get_buffer_bytes(
            kind: u32,
            start: usize,
            most: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub unsafe fn proxy_get_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub unsafe fn proxy_get_header_map_pairs(
            map: u32,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub unsafe fn proxy_remove_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
        ) -> u32;
        pub unsafe fn proxy_replace_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub unsafe fn proxy_get_shared_data(
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
            cas: *mut u32,
        ) -> u32;
        pub unsafe fn proxy_set_shared_data(
            key: *const u8,
            key_size: usize,
            value: *const u8,
            value_size: usize,
            cas: u32,
        ) -> u32;
        pub unsafe fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub unsafe fn proxy_set_buffer_bytes(
            kind: u32,
            start: usize,
            length: usize,
            data: *const u8,
            size: usize,
        ) -> u32;
        pub unsafe fn proxy_continue_stream(stream: u32) -> u32;
        pub unsafe fn proxy_set_effective_context(context: u32) -> u32;
        pub unsafe fn proxy_define_metric(
            kind: u32,
            name: *const u8,
            size: usize,
            id: *mut u32,
        ) -> u32;
        pub unsafe fn proxy_increment_metric(id: u32, by: i64) -> u32;
        pub unsafe fn proxy_record_metric(id: u32, value: u64) -> u32;
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub unsafe fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u16;
    }

    pub fn http_call(
        cluster: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<u32, HostStatus> {
        proxy_wasm::hostcalls::dispatch_http_call(
            cluster,
            headers.to_vec(),
            Some(body),
            Vec::new(),
            timeout,
        )
        .map_err(|status| HostStatus(status as u32))
    }
}
