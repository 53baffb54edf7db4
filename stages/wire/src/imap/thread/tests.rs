//! Threads of headers as people and others write them.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// A message: its id, its references, its subject. They are numbered and dated in their order.
type Header = (&'static str, &'static str, &'static str);

fn run(algorithm: Algorithm, messages: impl Iterator<Item = (String, i64)>) -> String {
    let mut threading = Threading::new(algorithm);
    for (uid, (header, received)) in (1..).zip(messages) {
        threading.add(uid, Facts::of(header.as_bytes(), received));
    }
    threading.thread().write(|uid| uid)
}

fn header((id, references, subject): &Header) -> String {
    format!("Message-ID: {id}\r\nReferences: {references}\r\nSubject: {subject}\r\n\r\n")
}

#[track_caller]
fn check(messages: &[Header], want: &str) {
    let messages = messages.iter().map(header).zip(1..);
    assert_eq!(run(Algorithm::References, messages), want);
}

#[test]
fn who_answers_whom() {
    check(&[], "");
    check(&[("<a>", "", "x"), ("<b>", "", "y")], "(1)(2)");
    check(&[("<a>", "", "x"), ("<b>", "<a>", "re: x"), ("<c>", "<a> <b>", "re: x")], "(1 2 3)");
    check(&[("<a>", "", "x"), ("<b>", "<a>", "re: x"), ("<c>", "<a>", "re: x")], "(1 (2)(3))");
    // RFC 5256 section 5: two threads, one with a branch.
    check(
        &[
            ("<a>", "", "x"),
            ("<b>", "", "y"),
            ("<c>", "<b>", "re: y"),
            ("<d>", "<b> <c>", "re: y"),
            ("<e>", "<b> <c> <d>", "re: y"),
            ("<f>", "<b> <c>", "re: y"),
            ("<g>", "<b> <c> <f>", "re: y"),
        ],
        "(1)(2 3 (4 5)(6 7))",
    );
    // The answer is older than what it answers.
    check(&[("<b>", "<a>", "re: x"), ("<a>", "", "x")], "(2 1)");
    // The parent is the last reference, whatever others say.
    check(&[("<c>", "<a> <b>", "x"), ("<b>", "<q> <a>", "x"), ("<a>", "", "x")], "(3 2 1)");
}

#[test]
fn who_is_not_here() {
    // One child of somebody who is missing stands for it, several stand beside each other.
    check(&[("<b>", "<a>", "x")], "(1)");
    check(&[("<b>", "<a>", "x"), ("<c>", "<a>", "y")], "((1)(2))");
    check(&[("<a>", "", "x"), ("<c>", "<a> <b>", "y"), ("<d>", "<a> <b>", "y")], "(1 (2)(3))");
    check(&[("<d>", "<a> <b> <c>", "x"), ("<e>", "<a> <q>", "y")], "((1)(2))");
}

#[test]
fn loops_and_doubles() {
    check(&[("<a>", "<a>", "x")], "(1)");
    check(&[("<a>", "<b>", "x"), ("<b>", "<a>", "y")], "(2 1)");
    check(&[("<a>", "<b> <c>", "x"), ("<b>", "<c> <a>", "y"), ("<c>", "<a> <b>", "z")], "(2 3 1)");
    check(&[("<a>", "", "x"), ("<a>", "", "y"), ("<b>", "<a>", "z")], "(1 3)(2)");
    check(&[("<a>", "", "x"), ("<a>", "<a>", "y")], "(1 2)");
    check(&[("", "", "x"), ("", "", "y")], "(1)(2)");
    check(&[("<b>", "<a> <a> <b> <b>", "x")], "(1)");
}

#[test]
fn one_subject_is_one_thread() {
    check(&[("<a>", "", "x"), ("<b>", "", "re: x")], "(1 2)");
    check(&[("<a>", "", "re: x"), ("<b>", "", "x")], "(2 1)");
    check(&[("<a>", "", "x"), ("<b>", "", "x"), ("<c>", "", "x")], "((1)(2)(3))");
    check(&[("<a>", "", "re: x"), ("<b>", "", "re: x")], "((1)(2))");
    check(&[("<a>", "", ""), ("<b>", "", "re:")], "(1)(2)");
    // Both are answers to somebody who is missing.
    check(&[("<b>", "<a>", "x"), ("<c>", "<a>", "x"), ("<e>", "<d>", "x"), ("<f>", "<d>", "y")], "((1)(2)(3)(4))");
    check(&[("<b>", "<a>", "x"), ("<c>", "<a>", "x"), ("<d>", "", "x")], "((1)(2)(3))");
    check(&[("<d>", "", "re: x"), ("<b>", "<a>", "x"), ("<c>", "<a>", "x")], "((1)(2)(3))");
}

#[test]
fn siblings_stand_by_date() {
    let dated =
        [("<a>", "", 9), ("<b>", "<a>", 5), ("<c>", "<a>", 3), ("<d>", "", 1), ("<f>", "<e>", 4), ("<g>", "<e>", 0)];
    let messages = dated.iter().enumerate().map(|(at, (id, references, date))| {
        (format!("Message-ID: {id}\r\nReferences: {references}\r\nSubject: {at}\r\n\r\n"), *date)
    });
    assert_eq!(run(Algorithm::References, messages), "((6)(5))(4)(1 (3)(2))");
}

#[test]
fn by_subject_alone() {
    let subjects = ["x", "y", "re: x", "x", "re: y", "z"];
    let dates = [5, 2, 3, 4, 1, 9];
    let messages = subjects.iter().zip(dates).map(|(subject, date)| (format!("Subject: {subject}\r\n\r\n"), date));
    assert_eq!(run(Algorithm::OrderedSubject, messages), "(5 2)(3 (4)(1))(6)");
}

/// Each finishes in a bearable time, in a build that is not optimised, and loses nobody.
#[test]
fn what_is_large_or_hostile() {
    let chain = |at: usize| match at {
        0 => String::new(),
        at => (at.saturating_sub(20)..at).map(|before| format!("<{before}>")).collect(),
    };
    let twisted = |at: usize| (0..20).map(|step| format!("<{}>", (at * 7919 + step * 104_729) % 10_007)).collect();
    let wide = |_: usize| "<0>".to_owned();
    for references in [&chain as &dyn Fn(usize) -> String, &twisted, &wide] {
        let begun = Instant::now();
        let messages = (0..10_000).map(|at| {
            (format!("Message-ID: <{at}>\r\nReferences: {}\r\nSubject: {}\r\n\r\n", references(at), at % 100), 1)
        });
        let told = run(Algorithm::References, messages);
        let numbers = told.split(['(', ')', ' ']).filter(|word| !word.is_empty()).count();
        assert_eq!(numbers, 10_000);
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    }
}

proptest! {
    #[test]
    fn everybody_is_there_once(messages in prop::collection::vec(
        ("(<[a-h]>)?", "(<[a-k]>){0,4}", "(re: )?[xy]?", 0_i64..4), 0..12,
    )) {
        let count = messages.len();
        for algorithm in [Algorithm::References, Algorithm::OrderedSubject] {
            let headers = messages.iter().map(|(id, references, subject, date)| {
                (format!("Message-ID: {id}\r\nReferences: {references}\r\nSubject: {subject}\r\n\r\n"), *date)
            });
            let told = run(algorithm, headers);
            let mut numbers: Vec<usize> = told.split(['(', ')', ' ']).filter_map(|word| word.parse().ok()).collect();
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (1..=count).collect::<Vec<_>>(), "{}", told);
        }
    }
}
