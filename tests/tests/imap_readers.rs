//! IMAP as people's programs speak it: mbsync, mutt, curl, Python's imaplib and imapflow. What counts is what they have
//! afterwards, in their own folders, and what the next one finds.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::chain::{Chain, Clamd, program, root, wait_for};
use tests::imaptest::Session;
use tests::people::{Person, mail, send, subject};

/// A chain that takes no mail for spam: what is spam is not asked here.
fn chain(clamd: &Clamd) -> Chain {
    Chain::start_all_with(clamd, &[("/stages/score/junk", json!(1000)), ("/stages/score/reject", json!(1000))])
}

fn login(port: u16) -> Session {
    let mut session = Session::connect(port).unwrap();
    session.must(format!("LOGIN {} {}", Person::ADDRESS, Person::PASSWORD).as_bytes()).unwrap();
    session
}

/// What is in a mailbox: the subjects in order, each with its flags as FETCH writes them.
fn contents(port: u16, mailbox: &str) -> Vec<(String, String)> {
    let mut session = login(port);
    session.must(format!("EXAMINE {mailbox}").as_bytes()).unwrap();
    let replies = session.must(b"UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])").unwrap();
    let fetched = replies.iter().map(|reply| String::from_utf8_lossy(reply)).filter(|reply| reply.contains("FETCH ("));
    let read = |reply: std::borrow::Cow<'_, str>| {
        let flags = reply.split_once("FLAGS (").and_then(|(_, rest)| rest.split_once(')')).map(|(flags, _)| flags);
        let mut flags: Vec<&str> = flags.unwrap().split_whitespace().filter(|flag| *flag != "\\Recent").collect();
        flags.sort_unstable();
        (subject(&reply), flags.join(" "))
    };
    fetched.map(read).collect()
}

/// The same, from pairs.
fn are(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    wanted.iter().map(|(subject, flags)| ((*subject).to_owned(), (*flags).to_owned())).collect()
}

fn append(port: u16, mailbox: &str, subject: &str) {
    let text = mail(subject);
    login(port).must(format!("APPEND {mailbox} {{{}}}\r\n{text}", text.len()).as_bytes()).unwrap();
}

fn store(port: u16, mailbox: &str, commands: &[&str]) {
    let mut session = login(port);
    session.must(format!("SELECT {mailbox}").as_bytes()).unwrap();
    for command in commands {
        session.must(command.as_bytes()).unwrap();
    }
}

/// Brings both sides to the same.
fn sync(person: &Person, port: u16) {
    let near = person.path("near");
    std::fs::create_dir_all(&near).unwrap();
    let rc = person.write(
        "mbsyncrc",
        &format!(
            "IMAPStore far\nHost 127.0.0.1\nPort {port}\nUser {}\nPass {}\nSSLType None\nAuthMechs LOGIN\n\n\
             MaildirStore near\nPath {near}/\nInbox {near}/INBOX\nSubFolders Verbatim\n\n\
             Channel all\nFar :far:\nNear :near:\nPatterns INBOX Junk\nCreate Near\nExpunge Both\n\
             Sync All\nSyncState *\n",
            Person::ADDRESS,
            Person::PASSWORD,
            near = near.display(),
        ),
    );
    person.must(&program("mbsync"), &["-c", rc.to_str().unwrap(), "all"]);
}

/// A file of the maildir, by the subject of its mail.
fn file(person: &Person, folder: &str, subject: &str) -> std::path::PathBuf {
    let found = ["new", "cur"].into_iter().find_map(|part| {
        let folder = format!("near/{folder}/{part}");
        person.mails(&folder).get(subject).map(|(name, _)| person.path(&folder).join(name))
    });
    found.unwrap_or_else(|| panic!("no file for {subject}"))
}

/// Gives a mail of the maildir these flags, as a mail reader does.
fn mark(person: &Person, folder: &str, subject: &str, flags: &str) {
    let old = file(person, folder, subject);
    let name = old.file_name().unwrap().to_str().unwrap().split(":2,").next().unwrap().to_owned();
    std::fs::rename(&old, person.path(&format!("near/{folder}/cur/{name}:2,{flags}"))).unwrap();
}

#[test]
fn mbsync_keeps_both_sides_the_same() {
    let clamd = Clamd::start();
    let chain = chain(&clamd);
    let person = Person::default();
    let near = |folder: &str| person.maildir(&format!("near/{folder}"));
    let held = |wanted: &[(&str, &str)]| are(wanted).into_iter().collect::<BTreeMap<_, _>>();
    send(&chain, &["one", "two", "three", "four"]);
    append(chain.imap, "Junk", "junk");
    sync(&person, chain.imap);
    assert_eq!(near("INBOX"), held(&[("four", ""), ("one", ""), ("three", ""), ("two", "")]));
    assert_eq!(near("Junk"), held(&[("junk", "")]));

    // Flags both ways, a new mail from here, one that goes there and one that goes here.
    mark(&person, "INBOX", "one", "FS");
    std::fs::remove_file(file(&person, "INBOX", "two")).unwrap();
    std::fs::write(person.path("near/INBOX/cur/100.own.here:2,S"), mail("own").replace("\r\n", "\n")).unwrap();
    store(chain.imap, "INBOX", &["STORE 3 +FLAGS (\\Answered)", "STORE 4 +FLAGS (\\Deleted)", "EXPUNGE"]);
    sync(&person, chain.imap);
    let both = [("one", "\\Flagged \\Seen"), ("three", "\\Answered"), ("own", "\\Seen")];
    assert_eq!(contents(chain.imap, "INBOX"), are(&both));
    assert_eq!(near("INBOX"), held(&[("one", "FS"), ("own", "S"), ("three", "R")]));

    // Changed on both sides: each side's flags come to the other, and neither's are lost.
    mark(&person, "INBOX", "three", "FR");
    store(chain.imap, "INBOX", &["STORE 2 +FLAGS (\\Seen)"]);
    // Deleted here, flagged there.
    mark(&person, "Junk", "junk", "ST");
    store(chain.imap, "Junk", &["STORE 1 +FLAGS (\\Flagged)"]);
    sync(&person, chain.imap);
    let both = [("one", "\\Flagged \\Seen"), ("three", "\\Answered \\Flagged \\Seen"), ("own", "\\Seen")];
    assert_eq!(contents(chain.imap, "INBOX"), are(&both));
    assert_eq!(near("INBOX"), held(&[("one", "FS"), ("own", "S"), ("three", "FRS")]));
    assert_eq!((contents(chain.imap, "Junk"), near("Junk")), (are(&[]), held(&[])));
    // Once more changes nothing.
    sync(&person, chain.imap);
    assert_eq!(contents(chain.imap, "INBOX"), are(&both));
    assert_eq!(near("INBOX").len(), 3);
}

/// Presses keys in mutt, which insists on a terminal.
fn mutt(person: &Person, port: u16, keys: &str) {
    let rc = person.write(
        "muttrc",
        &format!(
            "set ssl_starttls=no ssl_force_tls=no imap_user={} imap_pass={} imap_authenticators=login\n\
             set folder=imap://127.0.0.1:{port}/ spoolfile=imap://127.0.0.1:{port}/INBOX record=\"\" mbox_type=mbox\n\
             set confirmappend=no confirmcreate=no delete=yes quit=yes move=no wait_key=no pager_stop=yes\n\
             set sort=mailbox-order beep=no mark_old=no timeout=5 header_cache=\"\" resolve=no\npush \"{keys}\"\n",
            Person::ADDRESS,
            Person::PASSWORD,
        ),
    );
    let run = format!("mutt -n -F {}", rc.display());
    let mut command = Command::new("script");
    command.args(["-qec", &run, "/dev/null"]).current_dir(person.path("")).env("HOME", person.path(""));
    let log = std::fs::File::create(person.path("screen")).unwrap();
    // Its standard input stays open: the end of it would be a key of its own.
    let mut child = command.env("TERM", "xterm").stdin(Stdio::piped()).stdout(log).spawn().unwrap();
    let _keyboard = child.stdin.take();
    let mut ended = None;
    let screen = || String::from_utf8_lossy(&std::fs::read(person.path("screen")).unwrap()).into_owned();
    wait_for("mutt to end", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success(), "{}", screen());
}

#[test]
fn mutt_reads_flags_and_saves() {
    let clamd = Clamd::start();
    let chain = chain(&clamd);
    let person = Person::default();
    send(&chain, &["one", "two", "three", "four"]);
    let copy = person.path("copied");
    let keys = format!(
        "<first-entry><display-message><exit><copy-message><kill-line>{}<enter>\
         <next-entry><flag-message><next-entry><save-message><kill-line>=Junk<enter>\
         <next-entry><delete-message><sync-mailbox><quit>",
        copy.display()
    );
    mutt(&person, chain.imap, &keys);
    assert_eq!(contents(chain.imap, "INBOX"), are(&[("one", "\\Seen"), ("two", "\\Flagged")]));
    assert_eq!(contents(chain.imap, "Junk").iter().map(|(subject, _)| subject.as_str()).collect::<Vec<_>>(), ["three"]);
    let copied = std::fs::read_to_string(copy).unwrap();
    assert!(copied.starts_with("From ") && copied.contains("\n\nHello from one\n.\n"), "{copied}");
}

fn curl(person: &Person, port: u16, path: &str, arguments: &[&str]) -> String {
    let user = format!("{}:{}", Person::ADDRESS, Person::PASSWORD);
    let url = format!("imap://127.0.0.1:{port}/{path}");
    person.must(&program("curl"), &[&["-sS", "--user", &user, &url], arguments].concat())
}

#[test]
fn curl_puts_finds_and_gets() {
    let clamd = Clamd::start();
    let chain = chain(&clamd);
    let person = Person::default();
    let port = chain.imap;
    for subject in ["one", "two"] {
        let file = person.write(subject, &mail(subject));
        curl(&person, port, "INBOX", &["-T", file.to_str().unwrap()]);
    }
    assert!(curl(&person, port, "", &[]).contains("INBOX"));
    assert_eq!(curl(&person, port, "INBOX?SUBJECT%20two", &[]).trim_end(), "* SEARCH 2");
    assert_eq!(curl(&person, port, "INBOX;MAILINDEX=2", &[]), mail("two"));
    assert_eq!(curl(&person, port, "INBOX;UID=1;SECTION=TEXT", &[]), mail("one").split_once("\r\n\r\n").unwrap().1);
    curl(&person, port, "INBOX", &["-X", "STORE 1 +FLAGS \\Flagged"]);
    assert_eq!(contents(port, "INBOX")[0].1, "\\Flagged \\Seen");
}

/// Waits for news by hand: imaplib of Python before 3.14 has no IDLE.
const IMAPLIB: &str = r#"
import imaplib, sys, time
port, user, password = int(sys.argv[1]), sys.argv[2], sys.argv[3]
mail = lambda subject: f'From: a@b.example\r\nSubject: {subject}\r\n\r\nHello {subject}\r\n'.encode()
def login():
    c = imaplib.IMAP4('127.0.0.1', port)
    c.login(user, password)
    return c
c = login()
assert c.append('INBOX', r'(\Seen $Work)', imaplib.Time2Internaldate(86400 * 365), mail('one'))[0] == 'OK'
assert c.append('INBOX', None, None, mail('two'))[0] == 'OK'
kind, count = c.select('INBOX')
print('count', count[0].decode())
asked = [('SUBJECT', '"two"'), ('KEYWORD', '$Work'), ('UNSEEN',), ('BEFORE', '02-Jan-1980'), ('TEXT', '"Hello one"')]
for words in asked:
    print('search', c.search(None, *words)[1][0].decode())
print('fetch', c.fetch('1', '(FLAGS RFC822.SIZE)')[1][0].decode().replace('\\Recent', '').replace('  ', ' '))
if 'IDLE' in c.capabilities:
    tag = c._new_tag()
    c.send(tag + b' IDLE\r\n')
    assert c.readline().startswith(b'+')
    other = login()
    assert other.append('INBOX', None, None, mail('three'))[0] == 'OK'
    other.select('INBOX')
    other.store('1', '+FLAGS', r'(\Flagged)')
    heard = b''
    while b'3 EXISTS' not in heard or b'Flagged' not in heard:
        heard += c.readline()
    c.send(b'DONE\r\n')
    while not c.readline().startswith(tag + b' OK'):
        pass
    other.store('2', '+FLAGS', r'(\Deleted)')
    other.expunge()
    other.logout()
    print('idle', 'heard')
    print('gone', c.noop()[0], c.response('EXPUNGE')[1][0].decode())
c.close()
c.logout()
"#;

#[test]
fn imaplib_appends_searches_and_waits() {
    let clamd = Clamd::start();
    let chain = chain(&clamd);
    let script = ["-c", IMAPLIB, &chain.imap.to_string(), Person::ADDRESS, Person::PASSWORD];
    let said = Person::default().must(&program("python3"), &script);
    let wanted = "count 2\nsearch 2\nsearch 1\nsearch 2\nsearch 1\nsearch 1\n\
                  fetch 1 (FLAGS (\\Seen $Work) RFC822.SIZE 46)\nidle heard\ngone OK 2\n";
    assert_eq!(said, wanted);
    assert_eq!(contents(chain.imap, "INBOX"), are(&[("one", "$Work \\Flagged \\Seen"), ("three", "")]));
}

/// After ENABLE imaplib says and reads everything in UTF-8.
const UTF8: &str = r#"
import imaplib, sys
c = imaplib.IMAP4('127.0.0.1', int(sys.argv[1]))
c.login(sys.argv[2], sys.argv[3])
assert c.create('"Entw&APw-rfe"')[0] == 'OK'
mail = 'From: a@b.example\r\nSubject: Gr\u00fc\u00dfe\r\n\r\nHello\r\n'.encode()
# Before it enables anything: what imaplib appends after that has "UTF8 (" in it, and is no mail.
assert c.append('"Entw&APw-rfe"', None, None, mail)[0] == 'OK'
assert c.enable('UTF8=ACCEPT')[0] == 'OK'
print(c.list('""', 'Entw*')[1][0].decode())
print('count', c.select('"Entw\u00fcrfe"')[1][0].decode())
print('search', c.search(None, 'SUBJECT', '"GR\u00dc"')[1][0].decode())
print(c.fetch('1', '(BODY.PEEK[])')[1][0][1] == mail, c.fetch('1', '(ENVELOPE)')[1][0][1].decode())
assert c.rename('"Entw\u00fcrfe"', '"\u65e5\u672c"')[0] == 'OK'
print(c.status('"\u65e5\u672c"', '(MESSAGES)')[1][0].decode())
c.logout()
c = imaplib.IMAP4('127.0.0.1', int(sys.argv[1]))
c.login(sys.argv[2], sys.argv[3])
print(c.list('""', '"&ZeVnLA-"')[1][0].decode())
c.logout()
"#;

#[test]
fn imaplib_names_mailboxes_in_utf8() {
    let clamd = Clamd::start();
    let chain = chain(&clamd);
    let script = ["-X", "utf8", "-c", UTF8, &chain.imap.to_string(), Person::ADDRESS, Person::PASSWORD];
    let said = Person::default().must(&program("python3"), &script);
    let wanted = "(\\HasNoChildren) \"/\" \"Entw\u{fc}rfe\"\ncount 1\nsearch 1\nTrue Gr\u{fc}\u{df}e\n\
                  \"\u{65e5}\u{672c}\" (MESSAGES 1)\n(\\HasNoChildren) \"/\" \"&ZeVnLA-\"\n";
    assert_eq!(said, wanted);
}

#[test]
fn imapflow_does_all_that_a_web_mailer_does() {
    let clamd = Clamd::start();
    let chain = chain(&clamd);
    let folder = root().join("var/imapflow");
    assert!(folder.join("node_modules/imapflow").is_dir(), "imapflow is not installed: run ops/setup --for test");
    // A script finds its modules beside itself.
    let script = folder.join("read.mjs");
    let port = chain.imap.to_string();
    let arguments = [script.to_str().unwrap(), "127.0.0.1", &port, Person::ADDRESS, Person::PASSWORD, "Junk"];
    let said = Person::default().must(&program("node"), &arguments);
    let heard = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let heard: BTreeMap<String, Value> =
        heard.map(|line| (line["what"].as_str().unwrap().to_owned(), line["value"].clone())).collect();
    assert!(heard["folders"].as_array().unwrap().contains(&json!("Junk")), "{said}");
    let is = |what: &str, wanted: Value| assert_eq!(heard[what], wanted, "{what} in {said}");
    is("secure", json!(true));
    is("exists", json!(3));
    is(
        "fetched",
        json!([
            ["one", [], true, "text/plain"],
            ["two", ["$Work", "\\Seen"], true, "text/plain"],
            ["three", [], true, "text/plain"]
        ]),
    );
    is("searched", json!([2]));
    is("unseen", json!([1, 3]));
    is("heard", json!(4));
    is("moved", json!(true));
    is("copied", json!(true));
    is("left", json!([["one", ["\\Flagged", "\\Seen"]], ["four", []]]));
    is("status", json!([2, 0]));
}
