//! The full read: every team and credential, as of one moment.

use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;

use super::position::Lsn;
use super::records::Gathered;
use super::schema::{KeyType, Schema};
use super::session::{Fault, Runner, Session};
use super::tables::Table;
use super::url::Endpoint;
use crate::sources::Reading;

/// Rows asked for at once.
const PAGE: usize = 10_000;

/// How long a replica may take to see what its primary had written.
const CATCH_UP: Duration = Duration::from_secs(30);

/// How often it is looked whether it has.
const CATCH_UP_CHECK: Duration = Duration::from_millis(100);

/// A full read comes to its end: nobody asks it to stop.
static GO_ON: AtomicBool = AtomicBool::new(false);

pub(super) fn read_all(
    endpoint: &Endpoint,
    from: Lsn,
    progress: &mut dyn FnMut(u64),
) -> Result<Reading, Fault> {
    let runner = Runner::new(&GO_ON)?;
    let session = Session::open(&runner, endpoint)?;
    let schema = Schema::read(&session)?;
    let position = position_from(&session, from)?;
    session.begin()?;
    let mut gathered = Gathered::default();
    let mut rows = 0;
    for (table, key) in [
        (Table::Team, Some(schema.team)),
        (Table::ProjectKey, schema.project_key),
        (Table::PersonalKey, Some(schema.personal_key)),
    ] {
        let Some(key) = key else { continue };
        read_table(&session, table, key, |page| {
            for row in page {
                gathered.add(table, row);
            }
            rows += page.len() as u64;
            progress(rows);
        })?;
    }
    session.commit()?;
    Ok(Reading {
        records: gathered.records,
        counts: gathered.counts,
        skipped: gathered.skipped,
        left_out: gathered.left_out,
        lacks_project_keys: schema.project_key.is_none(),
        position: position.into(),
        team_ids: gathered.team_ids,
    })
}

/// The position of the server, once it is at least `from`.
fn position_from(session: &Session<'_>, from: Lsn) -> Result<Lsn, Fault> {
    let deadline = Instant::now() + CATCH_UP;
    loop {
        let position = Lsn::read(session)?;
        if position >= from {
            return Ok(position);
        }
        if Instant::now() >= deadline {
            return Err(Fault::Behind(from.0.saturating_sub(position.0)));
        }
        sleep(CATCH_UP_CHECK);
    }
}

fn read_table(
    session: &Session<'_>,
    table: Table,
    key: KeyType,
    mut take: impl FnMut(&[tokio_postgres::Row]),
) -> Result<(), Fault> {
    let mut page = session.query(&table.first_page(PAGE), &[])?;
    let next = table.next_page(key.sql(), PAGE);
    loop {
        take(&page);
        let Some(last) = page.last().filter(|_| page.len() == PAGE) else {
            return Ok(());
        };
        let last: String = last.try_get(0)?;
        // Never two pages in memory.
        drop(page);
        page = session.query(&next, &[(&last, Type::TEXT)])?;
    }
}
