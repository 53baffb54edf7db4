//! What the rules look at: the mail and its envelope, read once into plain values. Reading never fails; what cannot be
//! read is a fact of its own.

use mail_parser::{Address, HeaderName, HeaderValue, Message, MessagePart, MimeHeaders as _, PartType};
use proto::{Envelope, Listing};
use runtime::dns;

use crate::authenticate::Authentication;
use crate::fields::fields;
use crate::html::{self, Page};

/// Text and HTML of a mail are looked at up to so many bytes each; what spam says, it says at the top.
const LOOK: usize = 256 * 1024;
/// Mails within mails are followed so deep.
const DEPTH: usize = 20;

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
    /// Reads a mail. `parsed` is none when it cannot be parsed.
    pub fn read(envelope: &Envelope, host: &str, parsed: Option<&Message<'_>>, raw: &[u8]) -> Self {
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
            header: header(parsed, raw),
            content: parsed.map(content),
            authentication: Authentication::default(),
            forged_results: 0,
        }
    }
}

fn header(parsed: Option<&Message<'_>>, raw: &[u8]) -> Header {
    let mut header = Header::default();
    for field in fields(raw) {
        header.is_8bit |= !field.raw.is_ascii() && std::str::from_utf8(field.raw).is_err();
        header.names.push(String::from_utf8_lossy(field.name).to_ascii_lowercase());
    }
    let Some(parsed) = parsed else { return header };
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

fn content(parsed: &Message<'_>) -> Content {
    let mut content = Content::default();
    count(parsed, 0, &mut content);
    let mut pages = String::new();
    for &id in &parsed.text_body {
        if let Some(PartType::Text(text)) = parsed.part(id).map(|part| &part.body) {
            add(&mut content.text, text);
        }
    }
    for &id in &parsed.html_body {
        if let Some(PartType::Html(page)) = parsed.part(id).map(|part| &part.body) {
            add(&mut pages, page);
        }
    }
    content.links = html::links_of_text(&content.text);
    if !pages.is_empty() {
        let page = html::read(&pages);
        content.links.extend(page.links.iter().cloned());
        content.page = Some(page);
    }
    content
}

fn add(all: &mut String, text: &str) {
    let mut room = LOOK.saturating_sub(all.len()).min(text.len());
    while !text.is_char_boundary(room) {
        room -= 1;
    }
    all.push_str(&text[..room]);
}

fn count(mail: &Message<'_>, depth: usize, content: &mut Content) {
    content.depth = content.depth.max(depth);
    content.parts += mail.parts.len();
    for (id, part) in (0_u32..).zip(&mail.parts) {
        content.broken += usize::from(part.is_encoding_problem);
        let attached = mail.attachments.contains(&id);
        if let Some(name) = part.attachment_name() {
            content.attachments.push(name.to_owned());
        }
        content.attached_pages += usize::from(attached && matches!(part.body, PartType::Html(_)));
        content.hides_ascii |= hides_ascii(part);
        if let PartType::Message(inner) = &part.body
            && depth < DEPTH
        {
            count(inner, depth + 1, content);
        }
    }
}

/// Base64 is for what ASCII cannot say; around a short plain text it is there to hide it from filters.
fn hides_ascii(part: &MessagePart<'_>) -> bool {
    let (PartType::Text(text) | PartType::Html(text)) = &part.body else { return false };
    part.encoding == mail_parser::Encoding::Base64 && !text.is_empty() && text.len() < LOOK && text.is_ascii()
}
