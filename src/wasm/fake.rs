//! A host in memory, with the signatures of the host functions: what the shell runs against natively.
//!
//! It can be told to answer any function with any status, which no real Envoy can be made to do.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::abi;
use super::wire;
use crate::http::whole;
use crate::worker::host::HostStatus;

/// A local reply that the filter sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub stream: u32,
    pub status: u32,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Sent {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name);
        values.next().map(|(_, value)| value.as_str())
    }
}

/// A callout that the filter made.
#[derive(Clone, Debug)]
pub struct Callout {
    pub token: u32,
    /// The context that the SDK delivers the reply to, if it still exists then.
    pub owner: u32,
    pub path: String,
    pub body: String,
}

#[derive(Default)]
pub struct FakeHost {
    pub configuration: Vec<u8>,
    pub now: Duration,
    /// The wall clock.
    pub unix: Duration,
    /// The effective context.
    pub context: u32,
    /// The context that was called back. The SDK takes each callout for this one's.
    pub active: u32,
    pub requests: HashMap<u32, Vec<(String, Vec<u8>)>>,
    pub responses: HashMap<u32, Vec<(String, Vec<u8>)>>,
    pub shared: HashMap<String, (Vec<u8>, u32)>,
    pub sent: Vec<Sent>,
    pub continued: Vec<u32>,
    pub callouts: Vec<Callout>,
    /// The cluster that takes no callouts, as one whose circuit breaker is open.
    pub closed_cluster: String,
    /// The cluster that there is not.
    pub unknown_cluster: String,
    pub reply_status: Option<Vec<u8>>,
    pub reply_body: Vec<u8>,
    pub tick: u32,
    /// Bytes of bodies that were taken out of their requests.
    pub dropped: usize,
    pub metrics: BTreeMap<String, u64>,
    pub logs: Vec<String>,
    pub log_level: u32,
    /// Functions that answer with a status of their own.
    pub broken: HashMap<&'static str, u32>,
    /// How often each function was called.
    pub calls: BTreeMap<&'static str, u32>,
    metric_names: Vec<String>,
    tokens: u32,
}

thread_local! {
    static HOST: RefCell<FakeHost> = RefCell::new(FakeHost::default());
}

/// Looks at the host of this test's thread, or changes it.
pub fn host<T>(f: impl FnOnce(&mut FakeHost) -> T) -> T {
    HOST.with(|host| f(&mut host.borrow_mut()))
}

fn call(name: &'static str, f: impl FnOnce(&mut FakeHost) -> u32) -> u32 {
    host(|host| {
        *host.calls.entry(name).or_default() += 1;
        match host.broken.get(name) {
            Some(status) => *status,
            None => f(host),
        }
    })
}

unsafe fn bytes<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if size == 0 {
        return &[];
    }
    // SAFETY: the shell passes pointer and length of one slice.
    unsafe { std::slice::from_raw_parts(data, size) }
}

unsafe fn text<'a>(data: *const u8, size: usize) -> &'a str {
    // SAFETY: as `bytes`.
    std::str::from_utf8(unsafe { bytes(data, size) }).unwrap()
}

unsafe fn give(value: Vec<u8>, data: *mut *mut u8, size: *mut usize) {
    let value = value.into_boxed_slice();
    // SAFETY: the shell passes two out-pointers that outlive the call.
    unsafe {
        *size = value.len();
        *data = if value.is_empty() {
            std::ptr::null_mut()
        } else {
            Box::into_raw(value).cast()
        };
    }
}

pub unsafe fn proxy_log(_: u32, message: *const u8, size: usize) -> u32 {
    let message = unsafe { text(message, size) }.to_owned();
    call("proxy_log", |host| {
        host.logs.push(message);
        0
    })
}

pub unsafe fn proxy_get_log_level(level: *mut u32) -> u32 {
    call("proxy_get_log_level", |host| {
        unsafe { *level = host.log_level };
        0
    })
}

pub unsafe fn clock_time_get(clock: u32, _: u64, time: *mut u64) -> u16 {
    let status = call("clock_time_get", |host| {
        let now = if clock == 0 { host.unix } else { host.now };
        unsafe { *time = now.as_nanos() as u64 };
        0
    });
    status as u16
}

pub unsafe fn proxy_set_tick_period_milliseconds(period: u32) -> u32 {
    call("proxy_set_tick_period_milliseconds", |host| {
        host.tick = period;
        0
    })
}

pub unsafe fn proxy_get_buffer_bytes(
    kind: u32,
    _: usize,
    _: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    call("proxy_get_buffer_bytes", |host| {
        let value = match kind {
            4 => host.reply_body.clone(),
            7 => host.configuration.clone(),
            _ => return 2,
        };
        unsafe { give(value, data, size) };
        0
    })
}

pub unsafe fn proxy_set_buffer_bytes(
    kind: u32,
    start: usize,
    length: usize,
    _: *const u8,
    size: usize,
) -> u32 {
    call("proxy_set_buffer_bytes", |host| {
        assert_eq!((kind, start, size), (0, 0, 0), "the whole body");
        host.dropped += length;
        0
    })
}

pub unsafe fn proxy_get_header_map_value(
    map: u32,
    name: *const u8,
    name_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    let name = unsafe { text(name, name_size) };
    call("proxy_get_header_map_value", |host| {
        let value = match map {
            6 if name == ":status" => host.reply_status.clone(),
            0 => host
                .requests
                .get(&host.context)
                .and_then(|fields| fields.iter().find(|(n, _)| n == name))
                .map(|(_, value)| value.clone()),
            _ => None,
        };
        let Some(value) = value else { return 1 };
        unsafe { give(value, data, size) };
        0
    })
}

pub unsafe fn proxy_get_header_map_pairs(_: u32, data: *mut *mut u8, size: *mut usize) -> u32 {
    call("proxy_get_header_map_pairs", |host| {
        let Some(fields) = host.requests.get(&host.context) else {
            return 2;
        };
        let fields = fields
            .iter()
            .map(|(name, value)| Some((name.as_str(), whole(value))));
        unsafe { give(wire::encode(&fields.collect::<Vec<_>>()), data, size) };
        0
    })
}

pub unsafe fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32 {
    let name = unsafe { text(name, name_size) };
    call("proxy_remove_header_map_value", |host| {
        let context = host.context;
        let headers = match map {
            0 => &mut host.requests,
            _ => &mut host.responses,
        };
        if let Some(fields) = headers.get_mut(&context) {
            fields.retain(|(n, _)| n != name);
        }
        0
    })
}

pub unsafe fn proxy_replace_header_map_value(
    map: u32,
    name: *const u8,
    name_size: usize,
    value: *const u8,
    value_size: usize,
) -> u32 {
    let name = unsafe { text(name, name_size) }.to_owned();
    let value = unsafe { bytes(value, value_size) }.to_vec();
    call("proxy_replace_header_map_value", |host| {
        let context = host.context;
        let headers = match map {
            0 => host.requests.entry(context).or_default(),
            _ => host.responses.entry(context).or_default(),
        };
        headers.retain(|(n, _)| *n != name);
        headers.push((name, value));
        0
    })
}

pub unsafe fn proxy_get_shared_data(
    key: *const u8,
    key_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
    cas: *mut u32,
) -> u32 {
    let key = unsafe { text(key, key_size) };
    call("proxy_get_shared_data", |host| {
        let Some((value, version)) = host.shared.get(key) else {
            return 1;
        };
        unsafe {
            *cas = *version;
            give(value.clone(), data, size);
        }
        0
    })
}

pub unsafe fn proxy_set_shared_data(
    key: *const u8,
    key_size: usize,
    value: *const u8,
    value_size: usize,
    cas: u32,
) -> u32 {
    let key = unsafe { text(key, key_size) }.to_owned();
    let value = unsafe { bytes(value, value_size) }.to_vec();
    call("proxy_set_shared_data", |host| {
        let version = host.shared.get(&key).map(|(_, version)| *version);
        if cas != 0 && version.is_some_and(|version| version != cas) {
            return abi::CAS_MISMATCH.0;
        }
        host.shared.insert(key, (value, version.unwrap_or(0) + 1));
        0
    })
}

#[allow(clippy::too_many_arguments)]
pub unsafe fn proxy_send_local_response(
    status: u32,
    _: *const u8,
    _: usize,
    body: *const u8,
    body_size: usize,
    headers: *const u8,
    headers_size: usize,
    _: i32,
) -> u32 {
    let body = unsafe { bytes(body, body_size) }.to_vec();
    let headers = wire::fields(unsafe { bytes(headers, headers_size) })
        .unwrap()
        .map(|(name, value)| {
            (
                String::from_utf8_lossy(name).into_owned(),
                String::from_utf8_lossy(value).into_owned(),
            )
        })
        .collect();
    call("proxy_send_local_response", |host| {
        host.sent.push(Sent {
            stream: host.context,
            status,
            headers,
            body,
        });
        0
    })
}

pub unsafe fn proxy_continue_stream(_: u32) -> u32 {
    call("proxy_continue_stream", |host| {
        host.continued.push(host.context);
        0
    })
}

pub unsafe fn proxy_set_effective_context(context: u32) -> u32 {
    call("proxy_set_effective_context", |host| {
        host.context = context;
        0
    })
}

pub unsafe fn proxy_define_metric(_: u32, name: *const u8, size: usize, id: *mut u32) -> u32 {
    let name = unsafe { text(name, size) }.to_owned();
    call("proxy_define_metric", |host| {
        host.metrics.entry(name.clone()).or_default();
        unsafe { *id = host.metric_names.len() as u32 };
        host.metric_names.push(name);
        0
    })
}

pub unsafe fn proxy_increment_metric(id: u32, by: i64) -> u32 {
    call("proxy_increment_metric", |host| {
        let name = host.metric_names[id as usize].clone();
        let metric = host.metrics.entry(name).or_default();
        *metric = metric.checked_add_signed(by).unwrap();
        0
    })
}

pub unsafe fn proxy_record_metric(id: u32, value: u64) -> u32 {
    call("proxy_record_metric", |host| {
        let name = host.metric_names[id as usize].clone();
        host.metrics.insert(name, value);
        0
    })
}

pub fn http_call(
    cluster: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    _: Duration,
) -> Result<u32, HostStatus> {
    let mut token = 0;
    let path = headers.iter().find(|(name, _)| *name == ":path");
    let path = path.map_or_else(String::new, |(_, path)| (*path).to_owned());
    let status = call("proxy_http_call", |host| {
        if host.closed_cluster == cluster {
            return 10;
        }
        if host.unknown_cluster == cluster {
            return 2;
        }
        host.tokens += 1;
        token = host.tokens;
        host.callouts.push(Callout {
            token,
            owner: host.active,
            path,
            body: String::from_utf8_lossy(body).into_owned(),
        });
        0
    });
    match status {
        0 => Ok(token),
        status => Err(HostStatus(status)),
    }
}
