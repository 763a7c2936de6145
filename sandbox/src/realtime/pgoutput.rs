//! Decodes `pgoutput`, PostgreSQL's own logical replication format, protocol version 1.
//!
//! The messages are described in the PostgreSQL manual, chapter "Logical Replication Message Formats".
//! The decoder is total: any bytes give a message or a [`DecodeError`], never a panic, and a length in the
//! data never makes it reserve more memory than the message is long.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

/// 2000-01-01T00:00:00Z, PostgreSQL's epoch, in microseconds since the Unix epoch.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Why a message could not be decoded. PostgreSQL (or a plugin other than `pgoutput` on the slot) is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// The message ends before its last field.
    #[error("the message ends in the middle of a field")]
    Truncated,
    /// Bytes are left after the last field.
    #[error("{0} bytes are left over after the last field")]
    LeftOver(usize),
    /// A message or tuple kind this protocol version does not have.
    #[error("unknown {what} kind {kind:#04x}; is the slot's plugin pgoutput?")]
    UnknownKind {
        /// Which kind of kind byte.
        what: &'static str,
        /// The byte itself.
        kind: u8,
    },
    /// Text that is not UTF-8: the database has another encoding.
    #[error("text is not UTF-8; this server serves UTF-8 databases only")]
    Encoding,
    /// A change names a relation that no relation message has described.
    #[error("a change of relation {0}, which was not described before")]
    UnknownRelation(u32),
    /// A change outside of any transaction.
    #[error("a change outside of a transaction")]
    OutsideTransaction,
    /// A tuple with another number of columns than its relation.
    #[error("a tuple of {tuple} columns for a relation of {relation}")]
    ColumnCount {
        /// Columns in the tuple.
        tuple: usize,
        /// Columns in the relation.
        relation: usize,
    },
}

/// A table as it was when the change was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) columns: Vec<Column>,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    /// Part of the replica identity. With `REPLICA IDENTITY FULL` every column is.
    pub(crate) in_identity: bool,
}

/// One value of a tuple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    Null,
    /// An out-of-line value that the UPDATE did not touch, so that it is not in the WAL.
    UnchangedToast,
    Text(String),
}

/// One message of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Begin {
        /// Microseconds since PostgreSQL's epoch.
        committed_at_us: i64,
    },
    Commit,
    Relation(Relation),
    Insert {
        relation: u32,
        new: Vec<Cell>,
    },
    Update {
        relation: u32,
        old: Option<Vec<Cell>>,
        new: Vec<Cell>,
    },
    Delete {
        relation: u32,
        old: Vec<Cell>,
    },
    /// Origin, type, truncate and logical messages: Realtime delivers none of them.
    Ignored,
}

/// What happened to one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Row {
    Insert { new: Vec<Cell> },
    Update { old: Option<Vec<Cell>>, new: Vec<Cell> },
    Delete { old: Vec<Cell> },
}

impl Row {
    /// `INSERT`, `UPDATE` or `DELETE`, as frames spell it.
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::Insert { .. } => "INSERT",
            Self::Update { .. } => "UPDATE",
            Self::Delete { .. } => "DELETE",
        }
    }
}

/// One change of one row, with its table and the commit time of its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) relation: Arc<Relation>,
    pub(crate) committed_at: DateTime<Utc>,
    pub(crate) row: Row,
}

/// Turns the messages of one read of the slot into changes, in commit order.
///
/// Every read starts a new decoding session in which PostgreSQL describes each relation again before its
/// first change, so nothing is remembered from one call to the next.
///
/// # Errors
/// The first message that cannot be decoded fails the whole read.
pub(crate) fn changes<'a>(messages: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Change>, DecodeError> {
    let mut relations: HashMap<u32, Arc<Relation>> = HashMap::new();
    let mut committed_at = None;
    let mut changes = Vec::new();
    for bytes in messages {
        let (oid, row) = match decode(bytes)? {
            Message::Begin { committed_at_us } => {
                committed_at = Some(timestamp(committed_at_us));
                continue;
            }
            Message::Commit => {
                committed_at = None;
                continue;
            }
            Message::Relation(relation) => {
                relations.insert(relation.oid, Arc::new(relation));
                continue;
            }
            Message::Ignored => continue,
            Message::Insert { relation, new } => (relation, Row::Insert { new }),
            Message::Update { relation, old, new } => (relation, Row::Update { old, new }),
            Message::Delete { relation, old } => (relation, Row::Delete { old }),
        };
        let relation = relations.get(&oid).ok_or(DecodeError::UnknownRelation(oid))?;
        let committed_at = committed_at.ok_or(DecodeError::OutsideTransaction)?;
        check_widths(relation, &row)?;
        changes.push(Change {
            relation: Arc::clone(relation),
            committed_at,
            row,
        });
    }
    Ok(changes)
}

fn check_widths(relation: &Relation, row: &Row) -> Result<(), DecodeError> {
    let (first, second) = match row {
        Row::Insert { new } => (Some(new), None),
        Row::Update { old, new } => (Some(new), old.as_ref()),
        Row::Delete { old } => (Some(old), None),
    };
    for tuple in [first, second].into_iter().flatten() {
        if tuple.len() != relation.columns.len() {
            return Err(DecodeError::ColumnCount {
                tuple: tuple.len(),
                relation: relation.columns.len(),
            });
        }
    }
    Ok(())
}

fn timestamp(since_postgres_epoch_us: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(since_postgres_epoch_us.saturating_add(POSTGRES_EPOCH_US))
        .unwrap_or_default()
}

/// Decodes one message.
///
/// # Errors
/// [`DecodeError`] when the bytes are not exactly one message.
pub(crate) fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    let mut reader = Reader { rest: bytes };
    let message = match reader.u8()? {
        b'B' => {
            reader.skip(8)?;
            let committed_at_us = reader.i64()?;
            reader.skip(4)?;
            Message::Begin { committed_at_us }
        }
        b'C' => {
            reader.skip(1 + 8 + 8 + 8)?;
            Message::Commit
        }
        b'R' => Message::Relation(reader.relation()?),
        b'I' => {
            let relation = reader.u32()?;
            reader.expect(b'N')?;
            Message::Insert {
                relation,
                new: reader.tuple()?,
            }
        }
        b'U' => {
            let relation = reader.u32()?;
            let old = match reader.u8()? {
                b'K' | b'O' => {
                    let old = reader.tuple()?;
                    reader.expect(b'N')?;
                    Some(old)
                }
                b'N' => None,
                kind => return Err(DecodeError::UnknownKind { what: "tuple", kind }),
            };
            Message::Update {
                relation,
                old,
                new: reader.tuple()?,
            }
        }
        b'D' => {
            let relation = reader.u32()?;
            match reader.u8()? {
                b'K' | b'O' => Message::Delete {
                    relation,
                    old: reader.tuple()?,
                },
                kind => return Err(DecodeError::UnknownKind { what: "tuple", kind }),
            }
        }
        b'O' | b'Y' | b'T' | b'M' => return Ok(Message::Ignored),
        kind => {
            return Err(DecodeError::UnknownKind {
                what: "message",
                kind,
            });
        }
    };
    match reader.rest.len() {
        0 => Ok(message),
        left => Err(DecodeError::LeftOver(left)),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Result<(), DecodeError> {
        self.take(count).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    fn expect(&mut self, kind: u8) -> Result<(), DecodeError> {
        match self.u8()? {
            found if found == kind => Ok(()),
            kind => Err(DecodeError::UnknownKind { what: "tuple", kind }),
        }
    }

    fn text(&mut self) -> Result<String, DecodeError> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(DecodeError::Truncated)?;
        let bytes = self.take(end)?;
        self.skip(1)?;
        utf8(bytes)
    }

    fn relation(&mut self) -> Result<Relation, DecodeError> {
        let oid = self.u32()?;
        let schema = self.text()?;
        let table = self.text()?;
        self.skip(1)?; // The identity setting; what counts are the columns' own flags.
        let count = self.u16()?;
        let mut columns = Vec::new();
        for _ in 0..count {
            let in_identity = self.u8()? & 1 == 1;
            let name = self.text()?;
            let type_oid = self.u32()?;
            self.skip(4)?;
            columns.push(Column {
                name,
                type_oid,
                in_identity,
            });
        }
        // PostgreSQL writes its own catalog's schema as the empty string.
        let schema = if schema.is_empty() {
            "pg_catalog".to_owned()
        } else {
            schema
        };
        Ok(Relation {
            oid,
            schema,
            table,
            columns,
        })
    }

    fn tuple(&mut self) -> Result<Vec<Cell>, DecodeError> {
        let count = self.u16()?;
        let mut cells = Vec::new();
        for _ in 0..count {
            cells.push(match self.u8()? {
                b'n' => Cell::Null,
                b'u' => Cell::UnchangedToast,
                b't' => {
                    let length = usize::try_from(self.u32()?).map_err(|_| DecodeError::Truncated)?;
                    Cell::Text(utf8(self.take(length)?)?)
                }
                kind => return Err(DecodeError::UnknownKind { what: "column", kind }),
            });
        }
        Ok(cells)
    }
}

fn utf8(bytes: &[u8]) -> Result<String, DecodeError> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| DecodeError::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn begin() -> Vec<u8> {
        let mut bytes = vec![b'B'];
        bytes.extend(7_i64.to_be_bytes());
        bytes.extend(1_000_123_i64.to_be_bytes());
        bytes.extend(42_u32.to_be_bytes());
        bytes
    }

    fn commit() -> Vec<u8> {
        let mut bytes = vec![b'C'];
        bytes.extend([0; 25]);
        bytes
    }

    fn relation() -> Vec<u8> {
        let mut bytes = vec![b'R'];
        bytes.extend(16_400_u32.to_be_bytes());
        bytes.extend(b"public\0jobs\0d\0\x02");
        bytes.extend(b"\x01id\0");
        bytes.extend(20_u32.to_be_bytes());
        bytes.extend((-1_i32).to_be_bytes());
        bytes.extend(b"\x00note\0");
        bytes.extend(25_u32.to_be_bytes());
        bytes.extend((-1_i32).to_be_bytes());
        bytes
    }

    fn row(kind: u8, tuples: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(16_400_u32.to_be_bytes());
        for tuple in tuples {
            bytes.extend(*tuple);
        }
        bytes
    }

    const NEW: &[u8] = b"N\0\x02t\0\0\0\x017t\0\0\0\x02hi";

    fn read(messages: &[Vec<u8>]) -> Result<Vec<Change>, DecodeError> {
        changes(messages.iter().map(Vec::as_slice))
    }

    #[test]
    fn a_transaction_gives_its_changes_with_one_commit_time() {
        let changes = read(&[
            begin(),
            relation(),
            row(b'I', &[NEW]),
            row(b'U', &[b"N\0\x02t\0\0\0\x017u"]),
            row(b'U', &[b"K\0\x02t\0\0\0\x017n", NEW]),
            row(b'D', &[b"K\0\x02t\0\0\0\x017n"]),
            row(b'T', &[b"whatever"]),
            commit(),
        ])
        .unwrap();
        let actions: Vec<_> = changes.iter().map(|change| change.row.action()).collect();
        assert_eq!(actions, ["INSERT", "UPDATE", "UPDATE", "DELETE"]);
        assert!(
            changes
                .iter()
                .all(|c| c.committed_at.to_rfc3339() == "2000-01-01T00:00:01.000123+00:00")
        );
        assert_eq!(changes[0].relation.columns[0].name, "id");
        assert!(changes[0].relation.columns[0].in_identity && !changes[0].relation.columns[1].in_identity);
        assert_eq!(
            changes[1].row,
            Row::Update {
                old: None,
                new: vec![Cell::Text("7".into()), Cell::UnchangedToast]
            }
        );
    }

    #[test]
    fn what_is_out_of_place_is_refused() {
        assert_eq!(
            read(&[begin(), row(b'I', &[NEW])]),
            Err(DecodeError::UnknownRelation(16_400))
        );
        assert_eq!(
            read(&[begin(), relation(), commit(), row(b'I', &[NEW])]),
            Err(DecodeError::OutsideTransaction)
        );
        assert_eq!(
            read(&[begin(), relation(), row(b'I', &[b"N\0\x01n"])]),
            Err(DecodeError::ColumnCount {
                tuple: 1,
                relation: 2
            })
        );
        assert_eq!(decode(b""), Err(DecodeError::Truncated));
        assert_eq!(
            decode(b"{}"),
            Err(DecodeError::UnknownKind {
                what: "message",
                kind: b'{'
            })
        );
        assert_eq!(
            decode(&row(b'I', &[b"N\0\x01t\0\0\0\x01\xff"])),
            Err(DecodeError::Encoding)
        );
        assert_eq!(decode(&row(b'I', &[NEW, b"!"])), Err(DecodeError::LeftOver(1)));
        assert_eq!(
            decode(&row(b'I', &[b"N\0\x01t\xff\xff\xff\xff"])),
            Err(DecodeError::Truncated)
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_damaged_stream_never_panics(
            which in 0_usize..4, at in 0_usize..40, byte in any::<u8>(), cut in 0_usize..60,
        ) {
            let mut messages = vec![begin(), relation(), row(b'U', &[b"K\0\x02t\0\0\0\x017n", NEW]), commit()];
            let message = &mut messages[which];
            if let Some(target) = message.get_mut(at) {
                *target = byte;
            }
            message.truncate(cut);
            let _ = read(&messages);
        }
    }
}
