//! People read their mail with the programs they have. What counts is what they have afterwards, in their own folders.
#![allow(clippy::unwrap_used)]

use serde_json::json;
use tests::chain::{Chain, Clamd, program};
use tests::people::{Person, send};

/// A chain that takes no mail for spam: what is spam is not asked here.
fn chain(clamd: &Clamd) -> Chain {
    Chain::start_all_with(clamd, &[("/stages/score/junk", json!(1000)), ("/stages/score/reject", json!(1000))])
}

/// The body, as files have it.
fn body(subject: &str) -> String {
    format!("\n\nHello from {subject}\n.\nFrom here on\n")
}

/// fetchmail exits with 1 where there is nothing new.
fn fetchmail(person: &Person, chain: &Chain, keeps: &str) -> bool {
    person.write("deliver", "#!/bin/sh\ncat >\"$(mktemp fetched/XXXXXX)\"\n");
    let _ = std::fs::create_dir(person.path("fetched"));
    let settings = format!(
        "set no bouncemail\nset idfile \"{}\"\npoll 127.0.0.1 protocol pop3 port {} uidl no dns\n  \
         user \"{}\" password \"{}\" sslproto '' {keeps} mda \"./deliver\"\n",
        person.path("ids").display(),
        chain.pop3,
        Person::ADDRESS,
        Person::PASSWORD,
    );
    let rc = person.write("fetchmailrc", &settings);
    std::fs::set_permissions(&rc, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let pid = person.path("pid");
    let done =
        person.run(&program("fetchmail"), &["-v", "--pidfile", pid.to_str().unwrap(), "-f", rc.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    match done.status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => panic!("{}: {said}", done.status),
    }
}

#[test]
fn fetchmail_fetches_what_is_new_and_leaves_it_or_not() {
    let clamd = Clamd::start();
    let chain = chain(&clamd);
    let person = Person::default();
    send(&chain, &["one", "two"]);
    assert!(fetchmail(&person, &chain, "keep"));
    let mails = person.mails("fetched");
    for subject in ["one", "two"] {
        let text = &mails[subject].1;
        assert!(text.ends_with(&body(subject)), "{text}");
        assert!(text.contains("\nX-Chainmail-Scan: clean\n"), "{text}");
    }
    assert!(!fetchmail(&person, &chain, "keep"), "it knows them by their UIDL");
    send(&chain, &["three"]);
    assert!(fetchmail(&person, &chain, "keep"));
    assert_eq!(std::fs::read_dir(person.path("fetched")).unwrap().count(), 3, "only what was new");
    assert_eq!(person.subjects("fetched"), ["one", "three", "two"]);
    assert_eq!(chain.read(Person::ADDRESS).len(), 3, "all was kept");
    // Another folder, another memory: this one takes everything away.
    let person = Person::default();
    assert!(fetchmail(&person, &chain, "nokeep"));
    assert_eq!(person.subjects("fetched"), ["one", "three", "two"]);
    assert_eq!(chain.read(Person::ADDRESS).len(), 0);
    assert!(!fetchmail(&person, &chain, "nokeep"));
}

/// getmail delivers nothing as root.
fn getmail(person: &Person, chain: &Chain, deletes: bool) {
    for part in ["new", "cur", "tmp"] {
        let part = person.path("Maildir").join(part);
        std::fs::create_dir_all(&part).unwrap();
        person.give(&part, "nobody");
    }
    let settings = format!(
        "[retriever]\ntype = SimplePOP3Retriever\nserver = 127.0.0.1\nport = {}\nusername = {}\npassword = {}\n\
         [destination]\ntype = Maildir\npath = {}/\nuser = nobody\n[options]\nread_all = false\ndelete = {deletes}\n\
         received = false\ndelivered_to = false\n",
        chain.pop3,
        Person::ADDRESS,
        Person::PASSWORD,
        person.path("Maildir").display(),
    );
    let rc = person.write("getmailrc", &settings);
    let folder = person.path("");
    person.must(&program("getmail"), &["--getmaildir", folder.to_str().unwrap(), "--rcfile", rc.to_str().unwrap()]);
}

#[test]
fn getmail_fetches_what_is_new_and_leaves_it_or_not() {
    let clamd = Clamd::start();
    let chain = chain(&clamd);
    let person = Person::default();
    send(&chain, &["one", "two"]);
    getmail(&person, &chain, false);
    assert_eq!(person.subjects("Maildir/new"), ["one", "two"]);
    assert!(person.mails("Maildir/new")["one"].1.ends_with(&body("one")));
    send(&chain, &["three"]);
    getmail(&person, &chain, false);
    assert_eq!(std::fs::read_dir(person.path("Maildir/new")).unwrap().count(), 3, "only what was new");
    assert_eq!(chain.read(Person::ADDRESS).len(), 3, "all was kept");
    send(&chain, &["four"]);
    getmail(&person, &chain, true);
    assert_eq!(person.subjects("Maildir/new"), ["four", "one", "three", "two"]);
    assert_eq!(chain.read(Person::ADDRESS).len(), 0);
}
