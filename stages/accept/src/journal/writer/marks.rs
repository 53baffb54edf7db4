//! How marks are written: those for one segment in one go, synced when somebody waits for that. What a failed write has
//! left is cut off before anything stands behind it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

use bytes::BytesMut;
use proto::MailId;

use super::super::mark::Mark;
use super::super::segment;
use super::{Effect, Marking, Writer};

impl Writer {
    /// Writes marks, those for one segment in one go.
    pub(super) fn mark(&mut self, marked: Vec<Marking>) {
        let mut segments: HashMap<u64, Vec<Marking>> = HashMap::new();
        let index = self.index();
        for mut marking in marked {
            // The store is ahead of what is known here, so a refusal may still come too late; but not knowingly.
            if marking.marks.contains(&Mark::Refused) && index.is_begun(marking.id) {
                if let Some(wait) = marking.synced.take() {
                    let _ = wait.send(Ok(Effect::Begun));
                }
                continue;
            }
            // A mail that was carried over meanwhile has its marks where its record is.
            let segment = index.segment_of(marking.id).unwrap_or(marking.segment);
            segments.entry(segment).or_default().push(marking);
        }
        drop(index);
        for (segment, marked) in segments {
            let mut bytes = BytesMut::new();
            for marking in &marked {
                bytes.extend_from_slice(&self.encoded(marking.id, &marking.marks));
            }
            let sync = marked.iter().any(|marking| marking.synced.is_some());
            let written = self.write_marks(segment, &bytes, sync);
            if let Err(error) = &written {
                tracing::warn!(segment, %error, "marks were not written; a restart repeats what they say");
                self.doubt_refusals(segment, &marked);
            }
            for marking in marked {
                self.answer(marking, written.as_ref());
            }
        }
    }

    /// As long as the marks of a failed write may be on disk, nobody may rely on these mails, and nobody on their
    /// refusal.
    fn doubt_refusals(&self, segment: u64, marked: &[Marking]) {
        if self.spoiled_marks.contains_key(&segment) {
            let refused = marked.iter().filter(|marking| marking.marks.contains(&Mark::Refused));
            self.index().note_unsure(segment, refused.map(|marking| marking.id));
        }
    }

    /// What had to be synced takes effect now, and before anything else is written of that mail: no later record of it
    /// may lack the mark.
    fn answer(&self, marking: Marking, written: Result<&(), &io::Error>) {
        let Some(wait) = marking.synced else { return };
        let changed = written.map(|()| {
            let mut index = self.index();
            let changed = marking.marks.into_iter().filter(|mark| index.apply(marking.id, mark.clone())).count();
            if changed > 0 { Effect::Changed } else { Effect::Nothing }
        });
        let _ = wait.send(changed.map_err(|error| io::Error::new(error.kind(), error.to_string())));
    }

    /// The marks of one mail as the journal has them.
    pub(in super::super) fn encoded(&self, id: MailId, marks: &[Mark]) -> BytesMut {
        let mut bytes = BytesMut::new();
        marks.iter().for_each(|mark| mark.encode(id, &self.key, &mut bytes));
        bytes
    }

    pub(in super::super) fn write_marks(&mut self, number: u64, bytes: &[u8], sync: bool) -> io::Result<()> {
        if !self.index().segments.contains_key(&number) {
            // The segment went in the meantime: everything in it had ended.
            return Ok(());
        }
        self.cut_marks(number)?;
        let file = match self.marks.entry(number) {
            std::collections::hash_map::Entry::Occupied(file) => file.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let path = segment::marks_path(&self.config.folder, number);
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                File::open(&self.config.folder)?.sync_all()?;
                place.insert(file)
            }
        };
        let before = file.metadata()?.len();
        let written = file.write_all(bytes).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
        if written.is_err() {
            // Half a mark would hide those behind it, and a whole one come true at the next start, although nobody
            // relied on it.
            self.marks.remove(&number);
            self.spoiled_marks.insert(number, before);
            let _ = self.cut_marks(number);
        }
        written
    }

    /// Cuts off what a failed write of marks has left, and syncs that. Until it is done nothing is written behind it.
    fn cut_marks(&mut self, number: u64) -> io::Result<()> {
        let Some(length) = self.spoiled_marks.get(&number) else { return Ok(()) };
        let file = OpenOptions::new().write(true).open(segment::marks_path(&self.config.folder, number))?;
        file.set_len(*length)?;
        file.sync_all()?;
        self.spoiled_marks.remove(&number);
        self.index().note_sure(number);
        Ok(())
    }

    /// Says whether nothing is left to be cut. A mail that is carried over leaves its marks behind: not such ones.
    pub(super) fn cut_all_marks(&mut self) -> bool {
        let numbers: Vec<u64> = self.spoiled_marks.keys().copied().collect();
        numbers.into_iter().filter(|number| self.cut_marks(*number).is_err()).count() == 0
    }
}
