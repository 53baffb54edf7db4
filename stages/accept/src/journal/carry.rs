//! Carrying over: what is still pending in an old segment of which hardly anything is alive is written again into the
//! current one, so that the old one can go. Without that one mail that waits for its operator would keep a whole segment,
//! and a few hundred of them would fill the journal.
//!
//! First the marks that say what became of the mail so far are synced beside the current segment, then its record; from
//! there on its marks go to the new place. A crash leaves the old record, or both: a second record with its marks is the
//! same mail in another place. Marks without a record say nothing.

use std::io::{self, IoSlice};

use bytes::BytesMut;
use proto::MailId;

use super::mark::Mark;
use super::record::{self, Place};
use super::{Mail, writer::Writer};

/// Bytes that are carried over in one go; whoever wants to append waits for that.
const PORTION: u64 = 8 << 20;

impl Writer {
    /// Carries a portion over, if there is a segment that is worth it and the disk has room.
    pub(super) fn carry(&mut self) {
        let current = self.current_number();
        let (now, after) = (runtime::clock::now(), self.config.carry_after);
        let (moving, number) = {
            let mut index = self.index();
            let Some(number) = index.sparse(current, now, after) else { return };
            if index.free < 2 * PORTION {
                return;
            }
            (index.begin_move(number, PORTION), number)
        };
        let mails = self.read_moving(number, &moving);
        let carried = self.try_carry(&moving, &mails);
        if let Err(error) = &carried {
            tracing::warn!(segment = number, %error, "its mail cannot be carried over yet");
            // Marks that went before must not be followed by others of the same mail.
            self.close();
        }
        let places = carried.unwrap_or_default();
        let mut late = Vec::new();
        let mut index = self.index();
        for (id, _) in &moving {
            let place = places.iter().find(|(carried, _)| carried == id).map(|(_, place)| *place);
            let marks = index.end_move(*id, place);
            late.push((*id, place, marks));
        }
        drop(index);
        // What ended meanwhile: its own marks may still be on their way to the old segment.
        for (id, place, marks) in late {
            if let Some(place) = place.filter(|_| !marks.is_empty()) {
                let _ = self.write_marks(place.segment, &self.encoded(id, &marks), false);
            }
        }
        if !places.is_empty() {
            tracing::debug!(segment = number, mails = places.len(), "carried over");
        }
    }

    /// The records that are to move. A damaged one stays, and its segment with it.
    fn read_moving(&self, number: u64, moving: &[(MailId, Vec<Mark>)]) -> Vec<Mail> {
        let mut mails = Vec::with_capacity(moving.len());
        for (id, _) in moving {
            let found = self.index().record(*id);
            let Some((place, key)) = found else { continue };
            match record::read(&self.config.folder, place, &key, *id) {
                Ok((head, envelope, body)) => {
                    mails.push(Mail { id: *id, recipients: head.recipients, envelope, body, doubt: head.doubt });
                }
                Err(error) => {
                    tracing::error!(mail = %id, error = format!("{error:#}"), "the journal is damaged here");
                    self.index().keep_segment(number);
                }
            }
        }
        mails
    }

    fn try_carry(&mut self, moving: &[(MailId, Vec<Mark>)], mails: &[Mail]) -> io::Result<Vec<(MailId, Place)>> {
        if mails.is_empty() {
            return Ok(Vec::new());
        }
        let (number, mut offset) = self.open_segment()?;
        let mut marks = BytesMut::new();
        for (id, states) in moving {
            marks.extend_from_slice(&self.encoded(*id, states));
        }
        if !marks.is_empty() {
            self.write_marks(number, &marks, true)?;
        }
        let heads: Vec<_> = mails.iter().map(|mail| record::head(mail, &self.key)).collect();
        let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(3 * mails.len());
        for (mail, head) in mails.iter().zip(&heads) {
            pieces.extend(record::pieces(head, mail));
        }
        self.append_synced(&mut pieces)?;
        let place = |mail: &Mail| {
            let envelope = u32::try_from(mail.envelope.len()).unwrap_or(u32::MAX);
            let place = Place { segment: number, offset, envelope, body: mail.body.len() as u64 };
            offset += place.length();
            (mail.id, place)
        };
        Ok(mails.iter().map(place).collect())
    }
}
