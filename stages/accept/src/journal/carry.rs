//! Carrying over: what is still pending in an old segment of which hardly anything is alive is written again into the
//! current one, so that the old one can go. Without that one mail that waits for its operator would keep a whole
//! segment, and a few hundred of them would fill the journal.
//!
//! First the marks that say what became of the mail so far are synced beside the current segment, then its record; from
//! there on its marks go to the new place. A crash leaves the old record, or both: a second record with its marks is
//! the same mail in another place. Marks without a record say nothing. A segment with a carried record goes no sooner
//! than the one where that comes from.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use proto::{MailId, Millis};

use super::mark::Mark;
use super::record::{self, Place, ReadError};
use super::{Mail, writer::Writer};

/// Bytes that are carried over in one go; whoever wants to append waits for that.
const PORTION: u64 = 8 << 20;
/// How often it is looked whether there is anything to carry over.
const LOOK: Duration = Duration::from_millis(250);
/// How long after an attempt that failed the next is made.
const AGAIN: Duration = Duration::from_secs(60);

/// A mail that moves, and the marks that say what became of it.
type Moving = (MailId, Vec<Mark>);

impl Writer {
    /// Carries a portion over, if there is a segment that is worth it and the disk has room.
    pub(super) fn carry(&mut self) {
        let (now, after, current) = (runtime::clock::now(), self.config.carry_after, self.current_number());
        if Instant::now() < self.carries_from {
            return;
        }
        self.carries_from = Instant::now() + LOOK;
        let (moving, number) = {
            let mut index = self.index();
            let Some(number) = index.sparse(current, now, after) else { return };
            (index.begin_move(number, PORTION), number)
        };
        let mails = self.read_moving(number, &moving, now);
        let carried = self.try_carry(&mails);
        if let Err(error) = &carried {
            tracing::warn!(segment = number, %error, "its mail cannot be carried over yet");
            self.carries_from = Instant::now() + AGAIN;
            // Marks that went before must not be followed by others of the same mail.
            self.close();
        }
        self.settle_moves(&moving, &carried.unwrap_or_default());
    }

    /// Each mail is in its new place from now on, or stays where it was.
    fn settle_moves(&mut self, moving: &[Moving], places: &HashMap<MailId, Place>) {
        let mut late = Vec::new();
        let mut index = self.index();
        for (id, _) in moving {
            let place = places.get(id).copied();
            let marks = index.end_move(*id, place);
            late.extend(place.filter(|_| !marks.is_empty()).map(|place| (place.segment, *id, marks)));
        }
        drop(index);
        // What ended meanwhile: its own marks may still be on their way to the old segment.
        for (segment, id, marks) in late {
            if let Err(error) = self.write_marks(segment, &self.encoded(id, &marks), false) {
                tracing::warn!(segment, %error, "marks were not written; a restart repeats what they say");
            }
        }
    }

    /// The records that are to move. One that cannot be read stays, and its segment with it.
    fn read_moving(&self, number: u64, moving: &[Moving], now: Millis) -> Vec<(Mail, Vec<Mark>)> {
        let mut mails = Vec::with_capacity(moving.len());
        for (id, marks) in moving {
            let found = self.index().record(*id);
            let Some((place, key)) = found else { continue };
            match record::read(&self.config.folder, place, &key, *id) {
                Ok((head, envelope, body)) => {
                    let (recipients, doubt) = (head.recipients, head.doubt);
                    let mail = Mail { id: *id, recipients, envelope, body, doubt, each: Vec::new() };
                    mails.push((mail, marks.clone()));
                }
                Err(error @ ReadError::Io(..)) => {
                    tracing::warn!(mail = %id, %error, "it cannot be carried over yet");
                    self.index().stays_until(number, now.plus(AGAIN));
                }
                Err(error @ ReadError::Damaged(_)) => {
                    tracing::error!(mail = %id, %error, "the journal is damaged here");
                    let mut index = self.index();
                    index.note_damage(number);
                    index.stays_until(number, Millis(u64::MAX));
                }
            }
        }
        mails
    }

    fn try_carry(&mut self, mails: &[(Mail, Vec<Mark>)]) -> io::Result<HashMap<MailId, Place>> {
        if mails.is_empty() {
            return Ok(HashMap::new());
        }
        let bytes: u64 = mails.iter().map(|(mail, _)| (mail.envelope.len() + mail.body.len()) as u64).sum();
        // Of what is kept free for such work, half stays for the books.
        if self.index().free < self.config.min_free.0 / 2 + 2 * bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (number, mut offset) = self.open_segment()?;
        let mut marks = BytesMut::new();
        for (mail, states) in mails {
            marks.extend_from_slice(&self.encoded(mail.id, states));
        }
        if !marks.is_empty() {
            self.write_marks(number, &marks, true)?;
        }
        let heads: Vec<_> = mails.iter().map(|(mail, _)| record::head(mail, &self.key)).collect();
        let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(3 * mails.len());
        for ((mail, _), head) in mails.iter().zip(&heads) {
            pieces.extend(record::pieces(head, mail));
        }
        self.append_synced(&mut pieces)?;
        let place = |(mail, _): &(Mail, Vec<Mark>)| {
            let envelope = u32::try_from(mail.envelope.len()).unwrap_or(u32::MAX);
            let place = Place { segment: number, offset, envelope, body: mail.body.len() as u64 };
            offset += place.length();
            (mail.id, place)
        };
        Ok(mails.iter().map(place).collect())
    }
}
