//! What the rules look at: the mail and its envelope, read once into plain values. Reading never fails; what cannot be
//! read is a fact of its own.

use mail_parser::{Address, HeaderName, HeaderValue, MessageParser, MimeHeaders as _};
use proto::{Envelope, Listing};
use runtime::dns;
use wire::mime::{self, Encoding, Kind, Part, Text};

use crate::authenticate::Authentication;
use crate::fields::{fields, strays};
use crate::html::{self, Page};

/// Text and HTML of a mail are looked at up to so many bytes each, and of each part; what spam says, it says at the
/// top.
const LOOK: usize = 256 * 1024;

/// Everything that is known of a mail.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// From the envelope.
    pub sender: Sender,
    /// From the header.
    pub header: Header,
    /// From the structure and the content; none when the mail cannot be parsed.
    pub content: Option<Content>,
    /// From DNS.
    pub authentication: Authentication,
    /// Fields in our own name that were cut out.
    pub forged_results: usize,
}

/// Who handed the mail to us.
#[derive(Debug, Clone, Default)]
pub struct Sender {
    /// What it calls itself.
    pub helo: String,
    /// What we call ourselves.
    pub host: String,
    /// Whether the client is on the public net.
    pub is_public: bool,
    /// MAIL FROM.
    pub reverse_path: String,
    /// How many recipients this mail has.
    pub recipients: usize,
    /// DNS lists that name it.
    pub listings: Vec<Listing>,
    /// When the mail arrived, in seconds since 1970.
    pub arrived: i64,
}

/// The header.
#[derive(Debug, Clone, Default)]
pub struct Header {
    /// Names of the fields, in lower case, in their order.
    pub names: Vec<String>,
    /// Display name and address of each author.
    pub from: Vec<(String, String)>,
    /// Where answers go.
    pub reply_to: Vec<String>,
    /// In seconds since 1970.
    pub date: Option<i64>,
    /// Without the angle brackets.
    pub message_id: String,
    /// Decoded.
    pub subject: String,
    /// Lines that are no fields.
    pub strays: usize,
    /// Whether bytes above 127 stand in it although no field says that it is UTF-8.
    pub is_8bit: bool,
}

/// Structure and content.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Parts, those of mails within it included.
    pub parts: usize,
    /// How deep mails lie within mails.
    pub depth: usize,
    /// Parts whose encoding is broken.
    pub broken: usize,
    /// Names of the attachments.
    pub attachments: Vec<String>,
    /// Parts of type text/html that are attached.
    pub attached_pages: usize,
    /// Whether a part of plain ASCII text hides in base64.
    pub hides_ascii: bool,
    /// The plain text.
    pub text: String,
    /// The HTML.
    pub page: Option<Page>,
    /// Links of text and HTML.
    pub links: Vec<html::Link>,
}

impl Facts {
    /// Reads a mail.
    pub fn read(envelope: &Envelope, host: &str, raw: &[u8]) -> Self {
        Self {
            sender: Sender {
                helo: envelope.client.helo.clone(),
                host: host.to_owned(),
                is_public: !dns::is_private(envelope.client.address),
                reverse_path: envelope.reverse_path.clone(),
                recipients: envelope.recipients.len(),
                listings: envelope.gate.listings.clone(),
                arrived: i64::try_from(envelope.arrived.0 / 1000).unwrap_or(i64::MAX),
            },
            header: header(raw),
            content: content(raw),
            authentication: Authentication::default(),
            forged_results: 0,
        }
    }
}

fn header(raw: &[u8]) -> Header {
    let mut header = Header { strays: strays(raw), ..Header::default() };
    for field in fields(raw) {
        header.is_8bit |= !field.raw.is_ascii() && std::str::from_utf8(field.raw).is_err();
        header.names.push(String::from_utf8_lossy(field.name).to_ascii_lowercase());
    }
    // Only the header: a whole mail is more than this parser has bounds for.
    let lines = &raw[mime::parse_header(raw).header];
    let Some(parsed) = MessageParser::default().parse_headers(lines) else { return header };
    for value in parsed.header_values(HeaderName::From) {
        if let HeaderValue::Address(addresses) = value {
            header.from.extend(named(addresses));
        }
    }
    header.reply_to =
        parsed.reply_to().map(|list| named(list).map(|(_, address)| address).collect()).unwrap_or_default();
    header.date = parsed.date().filter(|date| date.is_valid()).map(mail_parser::DateTime::to_timestamp);
    header.message_id = parsed.message_id().unwrap_or_default().to_owned();
    header.subject = parsed.subject().unwrap_or_default().to_owned();
    header
}

fn named<'a>(addresses: &'a Address<'_>) -> impl Iterator<Item = (String, String)> + use<'a> {
    let text = |part: &Option<std::borrow::Cow<'_, str>>| part.as_deref().unwrap_or_default().to_owned();
    let all: Vec<_> = addresses.iter().map(|each| (text(&each.name), text(&each.address).to_lowercase())).collect();
    all.into_iter()
}

/// What is in a mail; none when it has no header, so that nothing says what is in it.
fn content(raw: &[u8]) -> Option<Content> {
    fields(raw).next()?;
    let mut found = Found::default();
    found.look(raw, &mime::parse(raw), 0);
    let Found { mut content, pages } = found;
    content.links = html::links_of_text(&content.text);
    if !pages.is_empty() {
        let page = html::read(&pages);
        content.links.extend(page.links.iter().cloned());
        content.page = Some(page);
    }
    Some(content)
}

/// What has been found so far.
#[derive(Default)]
struct Found {
    content: Content,
    pages: String,
}

impl Found {
    fn look(&mut self, raw: &[u8], part: &Part, depth: usize) {
        self.content.parts += 1;
        self.content.depth = self.content.depth.max(depth);
        match &part.kind {
            Kind::Multipart(parts) => parts.iter().for_each(|part| self.look(raw, part, depth)),
            Kind::Message(inner) => {
                self.name(&raw[part.header.clone()]);
                self.look(raw, inner, depth + 1);
            }
            Kind::Leaf => self.look_at_leaf(&raw[part.header.clone()], &raw[part.body.clone()], depth),
        }
    }

    /// Notes the name of an attachment. Says whether the part is one.
    fn name(&mut self, header: &[u8]) -> bool {
        let Some(header) = MessageParser::default().parse_headers(header) else { return false };
        let part = header.root_part();
        let name = part.attachment_name();
        self.content.attachments.extend(name.map(str::to_owned));
        let is_attachment = part.content_disposition().is_some_and(|disposition| disposition.is_attachment());
        // A text with a name is there to be read only if nothing was before it.
        is_attachment || (name.is_some() && self.content.parts > 2)
    }

    fn look_at_leaf(&mut self, header: &[u8], body: &[u8], depth: usize) {
        let is_attached = self.name(header);
        let Some(text) = mime::text(header, body, LOOK) else { return };
        self.content.broken += usize::from(text.is_broken);
        self.content.hides_ascii |= hides_ascii(&text, body.len());
        match text.media.as_str() {
            "text/html" if is_attached => self.content.attached_pages += 1,
            "text/html" if depth == 0 => add(&mut self.pages, &text.content),
            "text/plain" if depth == 0 && !is_attached => add(&mut self.content.text, &text.content),
            _ => {}
        }
    }
}

fn add(all: &mut String, text: &str) {
    let mut room = LOOK.saturating_sub(all.len()).min(text.len());
    while !text.is_char_boundary(room) {
        room -= 1;
    }
    all.push_str(&text[..room]);
}

/// Base64 is for what ASCII cannot say; around a short plain text it is there to hide it from filters.
fn hides_ascii(text: &Text, length: usize) -> bool {
    text.encoding == Encoding::Base64
        && !text.is_broken
        && length < LOOK
        && !text.content.is_empty()
        && text.content.is_ascii()
}
