//! The rows that notices name, read again.
//!
//! Nothing that a notice says is announced: what is announced was read. A hash is gone only if no row has it any more,
//! whatever the notice claims.

use flag_definitions_filter::hash::Sha256Hash;
use tokio_postgres::types::Type;

use super::notice::{Burst, Subject};
use super::position::Lsn;
use super::records::{Gathered, secure_value};
use super::schema::Schema;
use super::session::{Fault, Session};
use super::tables::Table;
use crate::sources::Announcement;

// Teams are not indexed by hash: this looks at every team, about 0.2 s for 100 000. It is asked only when a hash that a
// row held is not in that row any more.
const TEAM_HOLDS: &str = "encode(sha256(convert_to(k.api_token, 'UTF8')), 'hex') = ANY ($1) \
     OR encode(sha256(convert_to(k.secret_api_token, 'UTF8')), 'hex') = ANY ($1) \
     OR encode(sha256(convert_to(k.secret_api_token_backup, 'UTF8')), 'hex') = ANY ($1)";

const KEY_HOLDS: &str = "k.secure_value = ANY ($1)";

/// Reads again what a burst names.
pub(super) fn reread(
    session: &Session<'_>,
    schema: Schema,
    burst: &Burst,
) -> Result<Announcement, Fault> {
    session.begin()?;
    let mut now = Gathered::default();
    read_subjects(session, schema, burst, &mut now)?;
    let missing = |now: &Gathered| -> Vec<Sha256Hash> {
        let held = burst.held.iter();
        held.filter(|hash| !now.records.contains_key(hash))
            .copied()
            .collect()
    };
    read_holders(session, schema, &missing(&now), &mut now)?;
    session.commit()?;
    let position = Lsn::read_after(session)?;
    let gone = missing(&now).into_iter().map(|hash| (hash, None));
    let mut changed: Vec<_> = gone.collect();
    changed.extend(
        now.records
            .into_iter()
            .map(|(hash, record)| (hash, Some(record))),
    );
    Ok(Announcement {
        changed,
        position: position.into(),
    })
}

fn read_subjects(
    session: &Session<'_>,
    schema: Schema,
    burst: &Burst,
    now: &mut Gathered,
) -> Result<(), Fault> {
    for (subject, table, column, key) in [
        (Subject::Team, Table::Team, "id", Some(schema.team)),
        (
            Subject::ProjectKey,
            Table::ProjectKey,
            "id",
            schema.project_key,
        ),
        (
            Subject::PersonalKey,
            Table::PersonalKey,
            "id",
            Some(schema.personal_key),
        ),
        (
            Subject::User,
            Table::PersonalKey,
            "user_id",
            Some(schema.user),
        ),
    ] {
        let ids = burst.ids(subject);
        if let Some(key) = key.filter(|_| !ids.is_empty()) {
            let condition = format!("k.{column} = ANY ($1::text[]::{}[])", key.sql());
            gather(session, table, &condition, &ids, now)?;
        }
    }
    Ok(())
}

/// Finds the rows that have hashes, wherever they are.
fn read_holders(
    session: &Session<'_>,
    schema: Schema,
    hashes: &[Sha256Hash],
    now: &mut Gathered,
) -> Result<(), Fault> {
    if hashes.is_empty() {
        return Ok(());
    }
    let hex: Vec<String> = hashes.iter().map(|hash| hash.to_hex()).collect();
    let stored: Vec<String> = hashes.iter().map(|hash| secure_value(*hash)).collect();
    gather(session, Table::Team, TEAM_HOLDS, &hex, now)?;
    if schema.project_key.is_some() {
        gather(session, Table::ProjectKey, KEY_HOLDS, &stored, now)?;
    }
    gather(session, Table::PersonalKey, KEY_HOLDS, &stored, now)
}

fn gather<S: tokio_postgres::types::ToSql + Sync>(
    session: &Session<'_>,
    table: Table,
    condition: &str,
    texts: &[S],
    now: &mut Gathered,
) -> Result<(), Fault> {
    for row in session.query(&table.rows_where(condition), &[(&texts, Type::TEXT_ARRAY)])? {
        now.add(table, &row);
    }
    Ok(())
}
