use proptest::prelude::*;

use super::*;
use crate::audit::chain::seal;
use crate::audit::event::{Event, Stage};

/// A process that wrote `lines` lines, the first a start and the last a stop, as files of `per_file` lines each.
struct Written {
    process: ProcessId,
    files: Vec<Vec<String>>,
    head: Head,
}

fn written(lines: usize, per_file: usize, stops: bool) -> Written {
    let process = ProcessId::random();
    let mut link = Link::START;
    let mut all = Vec::new();
    for at in 1..=lines {
        let what = match at {
            1 => "start",
            last if last == lines && stops => "stop",
            _ => "searchById",
        };
        let event = Event::of_server(what);
        let object = event.object(link.seq + 1, process, "r", link.hash).unwrap();
        let (line, next) = seal(object, link);
        all.push(line);
        link = next;
    }
    let head = Head {
        process,
        replica: "r".to_owned(),
        seq: link.seq,
        hash: link.hash,
        time: "2026-11-30T00:00:00Z".parse().unwrap(),
    };
    let files = all.chunks(per_file).map(<[String]>::to_vec).collect();
    Written { process, files, head }
}

fn check(files: &[(ProcessId, u32, Vec<u8>)], heads: &[Head]) -> Report {
    let mut verifier = Verifier::new(heads, None);
    for (process, number, bytes) in files {
        verifier
            .file(&format!("f{number}"), *process, *number, &bytes[..])
            .unwrap();
    }
    verifier.finish()
}

#[test]
fn a_process_that_the_archive_does_not_know_was_made_up() {
    let (known, made_up, killed) = (written(5, 5, true), written(5, 5, true), written(5, 5, false));
    let found = |replicas: &[String], of: &Written| {
        let heads = std::slice::from_ref(&known.head);
        let mut verifier = Verifier::new(&[], None).vouched(heads, replicas);
        for (process, number, bytes) in files_of(of) {
            verifier.file("f", process, number, &bytes[..]).unwrap();
        }
        let kinds = verifier.finish().findings.into_iter().map(|finding| finding.kind);
        kinds.collect::<Vec<_>>()
    };
    assert_eq!(found(&[], &made_up), ["unknown-process"]);
    assert_eq!(found(&["r".to_owned()], &made_up), ["unknown-process"]);
    assert_eq!(found(&["another".to_owned()], &made_up), [""; 0]);
    assert_eq!(found(&[], &known), [""; 0]);
    // It was killed before its first head.
    assert_eq!(found(&[], &killed), [""; 0]);
}

fn files_of(written: &Written) -> Vec<(ProcessId, u32, Vec<u8>)> {
    let texts = written.files.iter().map(|lines| lines.concat().into_bytes());
    (1..)
        .zip(texts)
        .map(|(number, text)| (written.process, number, text))
        .collect()
}

/// What is found after a change to the lines of the only file.
fn after(change: impl FnOnce(&mut Vec<String>)) -> Vec<(Option<u64>, &'static str)> {
    let mut written = written(6, 10, true);
    change(&mut written.files[0]);
    let report = check(&files_of(&written), &[written.head]);
    report
        .findings
        .iter()
        .map(|finding| (finding.line, finding.kind))
        .collect()
}

#[test]
fn what_was_written_is_whole_over_several_files() {
    let written = written(20, 6, true);
    let report = check(&files_of(&written), std::slice::from_ref(&written.head));
    assert!(report.is_whole() && report.notes.is_empty(), "{report:?}");
    assert_eq!(
        (report.files, report.lines, report.processes, report.heads_met),
        (4, 20, 1, 1)
    );
}

#[test]
fn each_kind_of_tampering_is_named_with_its_line() {
    assert_eq!(after(|_| ()), []);
    assert_eq!(
        after(|lines| lines[2] = lines[2].replace("searchById", "searchByID")),
        [(Some(3), "edited")]
    );
    assert_eq!(after(|lines| drop(lines.remove(2))), [(Some(3), "missing-lines")]);
    assert_eq!(after(|lines| lines.swap(2, 3))[0], (Some(3), "missing-lines"));
    assert_eq!(
        after(|lines| lines.insert(3, lines[2].clone()))[0],
        (Some(4), "out-of-place")
    );
    assert_eq!(
        after(|lines| lines.insert(3, "{}\n".to_owned())),
        [(Some(4), "no-line")]
    );
    assert_eq!(after(|lines| lines.truncate(4)), [(None, "cut")]);
    assert_eq!(after(|lines| lines.clear()), [(None, "cut")]);
    // Whoever can compute hashes changes a line and its hash, and is found by the next; or all that follow, and is found by the head.
    let again = |lines: &mut Vec<String>, to: usize| {
        let (prefix, rest) = lines.split_at_mut(2);
        let mut prev = serde_json::from_str::<serde_json::Value>(&prefix[1]).unwrap()["hash"]
            .as_str()
            .unwrap()
            .to_owned();
        for (at, line) in rest.iter_mut().take(to).enumerate() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let old = value["prev"].as_str().unwrap();
            let text = line.replace(old, &prev).replace("searchById", "searchByID");
            let object = format!("{}}}", text.split(",\"hash\":").next().unwrap());
            let link = Link {
                seq: 2 + at as u64,
                hash: prev.parse().unwrap(),
            };
            let (sealed, next) = seal(object, link);
            *line = sealed;
            prev = next.hash.to_string();
        }
    };
    assert_eq!(after(|lines| again(lines, 1)), [(Some(4), "unchained")]);
    assert_eq!(after(|lines| again(lines, 4)), [(Some(6), "rewritten")]);
}

#[test]
fn missing_files_and_processes_are_named() {
    let written = written(12, 3, true);
    let all = files_of(&written);
    let head = std::slice::from_ref(&written.head);
    for gone in 0..4 {
        let mut files = all.clone();
        files.remove(gone);
        let kinds: Vec<_> = check(&files, head)
            .findings
            .iter()
            .map(|finding| finding.kind)
            .collect();
        assert_eq!(kinds, [if gone == 3 { "cut" } else { "missing-file" }], "{gone}");
    }
    let nothing = check(&[], head);
    assert_eq!(nothing.findings[0].kind, "missing-process");
    assert!(nothing.findings[0].to_string().contains(&written.process.to_string()));
    // What is said to be elsewhere is not missed.
    let mut later = Verifier::new(head, Some("2026-12-01T00:00:00Z".parse().unwrap()));
    later.file("f3", written.process, 3, &all[2].2[..]).unwrap();
    later.file("f4", written.process, 4, &all[3].2[..]).unwrap();
    let report = later.finish();
    assert!(
        report.is_whole() && report.notes[0].contains("2 earlier files"),
        "{report:?}"
    );
    let foreign = [(ProcessId::random(), 1, all[0].2.clone())];
    assert_eq!(check(&foreign, &[]).findings[0].kind, "foreign");
}

#[test]
fn a_killed_process_and_what_it_left_are_told_and_no_fault() {
    let written = written(5, 10, false);
    let mut files = files_of(&written);
    files[0].2.extend(b"{\"seq\":6,");
    let report = check(&files, std::slice::from_ref(&written.head));
    assert!(report.is_whole(), "{report:?}");
    assert!(report.notes[0].contains("was killed") && report.notes[0].contains("middle of a line"));
    // Behind a stop it is one.
    let stopped = self::written(5, 10, true);
    let mut files = files_of(&stopped);
    files[0].2.extend(b"{\"seq\":6,");
    assert_eq!(check(&files, &[]).findings[0].kind, "torn");
}

#[test]
fn lost_events_and_changes_without_an_end_are_told() {
    let process = ProcessId::random();
    let mut link = Link::START;
    let mut text = String::new();
    let stages = [Stage::Whole, Stage::Begun, Stage::Begun, Stage::Ended(2), Stage::Whole];
    for (at, stage) in stages.into_iter().enumerate() {
        let event = Event {
            stage,
            lost: (at == 4).then_some(7),
            ..Event::of_server("addImage")
        };
        let (line, next) = seal(event.object(link.seq + 1, process, "r", link.hash).unwrap(), link);
        text.push_str(&line);
        link = next;
    }
    let report = check(&[(process, 1, text.into_bytes())], &[]);
    assert!(report.is_whole());
    assert!(
        report.notes.iter().any(|note| note.contains("7 events have no line")),
        "{:?}",
        report.notes
    );
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("1 changes were begun") && note.ends_with("lines 3 of the process"))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_change_of_a_byte_any_lost_line_and_any_swap_is_found(
        lines in 2_usize..12, per_file in 1_usize..5, at in any::<prop::sample::Index>(), bit in 0_u8..8, one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(),
    ) {
        let written = written(lines, per_file, true);
        let head = std::slice::from_ref(&written.head);
        let whole = files_of(&written);
        prop_assert!(check(&whole, head).is_whole());

        let mut changed = whole.clone();
        let file = one.index(changed.len());
        let byte = at.index(changed[file].2.len());
        changed[file].2[byte] ^= 1 << bit;
        prop_assert!(!check(&changed, head).is_whole(), "bit {bit} of byte {byte} of file {file}");

        let mut removed = whole.clone();
        let byte = at.index(removed[file].2.len());
        removed[file].2.remove(byte);
        prop_assert!(!check(&removed, head).is_whole(), "byte {byte} of file {file} is gone");

        let spots: Vec<(usize, usize)> = written.files.iter().enumerate()
            .flat_map(|(file, lines)| (0..lines.len()).map(move |line| (file, line))).collect();
        let (a, b) = (spots[one.index(spots.len())], spots[other.index(spots.len())]);
        let with = |files: Vec<Vec<String>>| files_of(&Written { process: written.process, files, head: written.head.clone() });
        let mut gone = written.files.clone();
        gone[a.0].remove(a.1);
        prop_assert!(!check(&with(gone), head).is_whole(), "line {a:?} is gone");
        if a != b {
            let mut swapped = written.files.clone();
            let line = swapped[a.0][a.1].clone();
            swapped[a.0][a.1] = std::mem::replace(&mut swapped[b.0][b.1], line);
            prop_assert!(!check(&with(swapped), head).is_whole(), "{a:?} and {b:?} are swapped");
        }
    }
}
