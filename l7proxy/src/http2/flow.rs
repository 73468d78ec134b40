//! What is known of one request, and its record.

use tokio::time::Instant;

use super::forward::Head;
use crate::relay::{Host, Outcome, Record};

/// A request that was judged. It is recorded once, whatever becomes of it.
pub(super) struct Flow<'h, H: Host> {
    pub(super) host: &'h H,
    pub(super) head: Head,
    pub(super) id: String,
    pub(super) note: H::Note,
    since: Instant,
    is_recorded: bool,
}

impl<'h, H: Host> Flow<'h, H> {
    pub(super) fn new(host: &'h H, head: Head, id: String, note: H::Note) -> Self {
        Self { host, head, id, note, since: Instant::now(), is_recorded: false }
    }

    /// Whether its client has an answer, or never gets one.
    pub(super) const fn is_recorded(&self) -> bool {
        self.is_recorded
    }

    /// Takes note of what became of it.
    pub(super) fn record(&mut self, outcome: Outcome, status: Option<u16>) {
        if !self.is_recorded {
            self.is_recorded = true;
            self.write(outcome, status, &self.note);
        }
    }

    /// Takes note of a tunnel's end, of which there is a record already.
    pub(super) fn record_revoked(&mut self, note: &H::Note) {
        self.is_recorded = true;
        self.write(Outcome::Revoked, None, note);
    }

    fn write(&self, outcome: Outcome, status: Option<u16>, note: &H::Note) {
        self.host.record(Record {
            flow: &self.id,
            method: self.head.method.as_str(),
            path: &self.head.path,
            authority: &self.head.authority,
            status,
            latency: self.since.elapsed(),
            outcome,
            note,
        });
    }
}

impl<H: Host> Drop for Flow<'_, H> {
    /// Nobody waits for an answer any more.
    fn drop(&mut self) {
        self.record(Outcome::Failed, None);
    }
}
