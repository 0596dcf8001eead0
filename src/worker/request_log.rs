//! One structured log line for each refused or failed request, as JSON at level `info`. A flood of them is
//! bounded, so that a client cannot fill a disk; what was left out is said in the next line.

use std::time::Duration;

use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Most lines of one worker in [`WINDOW`].
const LINES: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);

/// The lines of one worker.
#[derive(Debug, Default)]
pub struct RequestLog {
    began: Monotonic,
    lines: u32,
    suppressed: u64,
}

impl RequestLog {
    /// Notes an answer. The tenant, and what its surface calls it, are given once it is proven.
    pub fn note(
        &mut self,
        status: u16,
        reason: &'static str,
        tenant: Option<(&str, Tenant)>,
        now: Monotonic,
    ) {
        if !log::log_enabled!(log::Level::Info) {
            return;
        }
        if let Some(line) = self.line(status, reason, tenant, now) {
            log::info!("{line}");
        }
    }

    fn line(
        &mut self,
        status: u16,
        reason: &'static str,
        tenant: Option<(&str, Tenant)>,
        now: Monotonic,
    ) -> Option<String> {
        if now.since(self.began) >= WINDOW {
            self.began = now;
            self.lines = 0;
        }
        if self.lines >= LINES {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.lines += 1;
        let event = if status < 500 { "refused" } else { "failed" };
        let mut line = format!(r#"{{"event":"{event}","status":{status},"reason":"{reason}""#);
        if let Some((word, tenant)) = tenant {
            line.push_str(&format!(r#","{word}":{tenant}"#));
        }
        let suppressed = std::mem::take(&mut self.suppressed);
        if suppressed > 0 {
            line.push_str(&format!(r#","suppressed":{suppressed}"#));
        }
        line.push('}');
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_line_is_json_with_status_reason_and_team() {
        let mut log = RequestLog::default();
        let now = Monotonic::from_millis(5_000);
        let line = log.line(402, "quota_limited", Some(("team", Tenant(7))), now);
        let expected = r#"{"event":"refused","status":402,"reason":"quota_limited","team":7}"#;
        assert_eq!(line.as_deref(), Some(expected));
        let line = log.line(500, "payload_undecodable", None, now).unwrap();
        assert!(line.contains(r#""event":"failed","status":500"#));
    }

    #[test]
    fn a_flood_is_bounded_and_says_what_was_left_out() {
        let mut log = RequestLog::default();
        let mut lines = |millis| {
            let now = Monotonic::from_millis(millis);
            let lines = (0..150).filter_map(|_| log.line(401, "token_invalid", None, now));
            lines.collect::<Vec<_>>()
        };
        assert_eq!(lines(5_000).len(), 100);
        let next = lines(6_000);
        assert_eq!(next.len(), 100);
        assert!(next[0].contains(r#""suppressed":50"#));
        assert!(!next[1].contains("suppressed"));
    }
}
