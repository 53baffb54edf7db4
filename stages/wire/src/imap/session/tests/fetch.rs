//! FETCH: what counts as seen, and names of header fields.

use super::*;

fn selected(world: &mut World) -> ImapSession {
    let mut session = session();
    run(&mut session, world, b"1 LOGIN alice secret\r\n2 SELECT INBOX\r\n", usize::MAX);
    session
}

fn seen(world: &World) -> Vec<bool> {
    world.rows.iter().map(|row| row.flags & flags::SEEN != 0).collect()
}

/// All messages were marked before the first was sent: a connection that broke left thousands read that nobody had
/// seen.
#[test]
fn only_what_was_sent_is_seen() {
    let mut world = World::new();
    let mut session = selected(&mut world);
    session.input(b"a FETCH 1:* BODY[]\r\n");
    loop {
        match session.next() {
            Step::Output(bytes) if bytes.starts_with(b"* 1 FETCH") => break,
            Step::Output(_) => {}
            Step::Ask(question) => session.answer(world.answer(question)),
            _ => panic!("it did not end"),
        }
    }
    assert_eq!(seen(&world), [false, false]);
    let rest = run(&mut session, &mut world, b"", usize::MAX);
    assert!(rest.contains("* 2 FETCH (BODY[] {24}") && rest.ends_with("a OK FETCH done\r\n"), "{rest}");
    assert_eq!(seen(&world), [true, true]);
}

#[test]
fn what_cannot_be_told_stays_unseen() {
    let mut world = World::new();
    world.own = Some("Content-Transfer-Encoding: strange\r\n\r\nx\r\n");
    let mut session = selected(&mut world);
    let heard = run(&mut session, &mut world, b"a FETCH 1:* BINARY[1]\r\n", usize::MAX);
    assert_eq!(heard, "a NO [UNKNOWN-CTE] it is not known how the part is encoded\r\n");
    assert_eq!(seen(&world), [false, false]);
}

/// A name came back as it was: as two, or as lines of its own.
#[test]
fn names_of_fields_come_back_as_they_were_meant() {
    for (name, told) in [
        ("subject", "SUBJECT"),
        ("\"a b\"", "\"A B\""),
        ("\"a\\\"b\"", "\"A\\\"B\""),
        ("{11}\r\nx\r\na OK bye", "{11}\r\nX\r\nA OK BYE"),
    ] {
        let mut world = World::new();
        let mut session = selected(&mut world);
        let said = format!("b FETCH 2 BODY.PEEK[HEADER.FIELDS ({name})]\r\n");
        let heard = run(&mut session, &mut world, said.as_bytes(), usize::MAX);
        let begin = format!("* 2 FETCH (BODY[HEADER.FIELDS ({told})] {{");
        assert!(heard.contains(&begin), "{heard}");
    }
}
