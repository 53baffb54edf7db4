//! From a draft to the bytes of a mail. Pure: each attempt gives the same bytes, as an MTA's queue does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::words::Pool;
use super::{Draft, Kind, Shares, attachments, draw};

/// Bytes that make a line of 76 characters in base64 (RFC 2045 section 6.8).
const BASE64_LINE: usize = 57;
/// What an attachment's readable part says, at most.
const READABLE: usize = 30_000;

/// Composes mails.
pub(crate) struct Composer {
    seed: u64,
    pool: Pool,
    /// The Date field of every mail: the same in each attempt.
    date: String,
}

impl Composer {
    /// Composes with the texts that the shares name.
    ///
    /// # Errors
    /// When the folder of texts cannot be read.
    pub(crate) fn new(seed: u64, shares: &Shares, date: String) -> anyhow::Result<Self> {
        let pool = match &shares.corpora {
            Some(folder) => Pool::of_folder(folder)?,
            None => Pool::of_languages(),
        };
        Ok(Self { seed, pool, date })
    }

    /// The mail, with the address that wrote it. `id` is what its Message-ID says.
    pub(crate) fn compose(&self, draft: &Draft, id: &str) -> (String, Vec<u8>) {
        let mut random = draw(self.seed, "text", draft.content);
        let from = format!("sender{}@elsewhere.example", random.random_range(0..5000));
        let mut mail = Vec::with_capacity(draft.text + draft.attachment.unwrap_or(0) * 7 / 5 + 2000);
        let subject = match draft.kind {
            Kind::Spam => "YOU HAVE WON $$$ 1,000,000 CLAIM YOUR PRIZE NOW!!!".to_owned(),
            _ => self.pool.subject(&mut random),
        };
        let date = &self.date;
        mail.extend_from_slice(
            format!(
                "From: Some One <{from}>\r\nTo: everybody concerned:;\r\nSubject: {subject}\r\nDate: {date}\r\n\
                 Message-ID: <{id}@loadgen.example>\r\nMIME-Version: 1.0\r\n"
            )
            .as_bytes(),
        );
        let file = self.attached(&mut random, draft);
        let Some((media, name, bytes)) = file else {
            self.text(&mut random, draft, &mut mail);
            return (from, mail);
        };
        let boundary = format!("=_part_{:016x}", random.random::<u64>());
        let head = format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n");
        mail.extend_from_slice(head.as_bytes());
        self.text(&mut random, draft, &mut mail);
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: {media}; name=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment; filename=\"{name}\"\r\n\r\n"
        );
        mail.extend_from_slice(head.as_bytes());
        encode(&bytes, &mut mail);
        mail.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        (from, mail)
    }

    fn attached(&self, random: &mut StdRng, draft: &Draft) -> Option<attachments::File> {
        if draft.kind == Kind::Virus {
            return Some(("application/octet-stream", "note.txt", eicar()));
        }
        let size = draft.attachment?;
        let text = self.pool.take(random, READABLE.min(size / 4));
        Some(attachments::file(random, size, &text))
    }

    /// A part with text, or two that say the same, as most programs write it.
    fn text(&self, random: &mut StdRng, draft: &Draft, mail: &mut Vec<u8>) {
        let plain = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
        if random.random_bool(0.5) {
            mail.extend_from_slice(plain.as_bytes());
            self.say(random, draft, draft.text, mail);
            return;
        }
        let mut text = Vec::new();
        self.say(random, draft, draft.text / 2, &mut text);
        let boundary = format!("=_both_{:016x}", random.random::<u64>());
        let head =
            format!("Content-Type: multipart/alternative; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n{plain}");
        mail.extend_from_slice(head.as_bytes());
        mail.extend_from_slice(&text);
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
             <!DOCTYPE html>\r\n<html><head><title>mail</title></head><body>\r\n<p>"
        );
        mail.extend_from_slice(head.as_bytes());
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            mail.extend_from_slice(if line == b"\r\n" { b"</p>\r\n<p>" } else { line });
        }
        mail.extend_from_slice(format!("</p>\r\n</body></html>\r\n--{boundary}--\r\n").as_bytes());
    }

    fn say(&self, random: &mut StdRng, draft: &Draft, size: usize, text: &mut Vec<u8>) {
        if draft.kind == Kind::Spam {
            let host: [u8; 3] = random.random();
            let [a, b, c] = host;
            text.extend_from_slice(b"Dear friend, act now! Verify your account to claim 1,000,000 USD, 100% free:\r\n");
            text.extend_from_slice(
                format!("http://10.{a}.{b}.{c}/claim/{:08x}\r\n", random.random::<u32>()).as_bytes(),
            );
        }
        text.extend_from_slice(&self.pool.take(random, size));
        // Lines that begin with dots are where a chain shows whether it stuffs them right.
        if random.random_bool(0.1) {
            text.extend_from_slice(b".\r\n..two\r\n.one\r\n");
        }
        text.extend_from_slice(b"-- \r\nSome One\r\n");
    }
}

fn encode(bytes: &[u8], mail: &mut Vec<u8>) {
    let mut line = [0; 76];
    for part in bytes.chunks(BASE64_LINE) {
        let length = STANDARD.encode_slice(part, &mut line).expect("57 bytes take 76 characters");
        mail.extend_from_slice(&line[..length]);
        mail.extend_from_slice(b"\r\n");
    }
}

/// The EICAR test file; put together here so that no scanner takes this source, or a program made of it, for a virus.
fn eicar() -> Vec<u8> {
    let parts = ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS", "-TEST-FILE!$H+H*"];
    parts.concat().into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::mix::Mix;
    use crate::mix::tests::shares;

    fn composer() -> Composer {
        Composer::new(7, &shares(&[]), "Wed, 25 Nov 2026 03:00:00 +0000".into()).unwrap()
    }

    #[test]
    fn mails_are_well_formed_and_the_same_each_time() {
        let (composer, mix) = (composer(), Mix::new(7, 100, shares(&["--virus", "0.1", "--attachments", "0.05"])));
        for number in 0..300 {
            let draft = mix.draft(number);
            let (from, mail) = composer.compose(&draft, "id");
            assert_eq!(composer.compose(&draft, "id"), (from, mail.clone()));
            assert!(mail.ends_with(b"\r\n") && mail.windows(4).any(|part| part == b"\r\n\r\n"));
            for (at, byte) in mail.iter().enumerate() {
                assert_eq!(*byte == b'\n', at > 0 && mail[at - 1] == b'\r', "a lone CR or LF at {at}");
            }
            assert!(mail.split(|byte| *byte == b'\n').all(|line| line.len() < 998));
            let wanted = draft.text + draft.attachment.filter(|_| draft.kind != Kind::Virus).unwrap_or(0) * 78 / 57;
            assert!(mail.len().abs_diff(wanted) < 1500 + wanted / 10, "{} for {wanted}", mail.len());
        }
    }

    #[test]
    fn a_virus_is_a_virus() {
        let draft = Mix::new(7, 1, shares(&["--virus", "1"])).draft(0);
        let (_, mail) = composer().compose(&draft, "id");
        let encoded = STANDARD.encode(eicar());
        let flat: Vec<u8> = mail.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect();
        assert!(flat.windows(encoded.len()).any(|part| part == encoded.as_bytes()));
    }
}
