//! The views on made-up data: what they must show, on terminals of any width.

use jiff::Timestamp;
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

use super::fault_text::{self, Frames};
use super::terminal::Screen;
use super::{faults, hist, loss, series_table, status, summary, top};
use crate::agent::State;
use crate::api::{Exit, Faults, Feature, Histograms, Report, TargetStatus};
use crate::fault::{Fault, Filter, sample};
use crate::histogram::{Call, Delta, Query, SeriesKey, bucket::slot_of};
use crate::target::NamePattern;

/// A shop that reads fast from memory and slowly from disk, and mostly waits.
fn state() -> State {
    let state = State::default();
    let key = |call| SeriesKey {
        target: "shop".into(),
        pid: None,
        call: Call(call),
    };
    let read = [
        (slot_of(2_100), 900),
        (slot_of(2_400), 50),
        (slot_of(4_000_000), 50),
    ];
    let errors = [(11, 7), (512, 3)];
    state.record_latencies([
        (
            key(0),
            Delta {
                counts: &read,
                errors: &errors,
                unfinished: 1,
            },
        ),
        (
            key(232),
            Delta {
                counts: &[(slot_of(70_000_000), 40)],
                ..Delta::default()
            },
        ),
        (
            key(231),
            Delta {
                unfinished: 1,
                ..Delta::default()
            },
        ),
    ]);
    state.set_targets(vec![TargetStatus {
        name: "shop".to_owned(),
        selector: "exe /srv/shop/bin/shop".to_owned(),
        processes: 3,
        faults: 0,
    }]);
    state.set_features(vec![Feature {
        name: "mappings".to_owned(),
        available: false,
        detail: "no BTF: boot a kernel that has it".to_owned(),
    }]);
    state.add_lost("events", 3);
    state.add_lost("stacks", 0);
    for fault in [
        sample::panic(),
        sample::segfault(),
        sample::exit(3),
        sample::panic(),
    ] {
        state.record_fault(fault);
    }
    state
}

/// Every view at once.
fn all_views(state: &State, screen: &Screen) -> String {
    let now = Timestamp::now();
    let histograms = Histograms::of(state, &Query::default());
    let found = Faults::of(state, &Filter::default());
    let one_call = hist::Options {
        call: Some("*".to_owned()),
        ..hist::Options::default()
    };
    let report = Report {
        version: "0".to_owned(),
        command: vec!["./shop".to_owned()],
        pid: 1,
        exit: Exit::Signal {
            signal: 6,
            core: true,
        },
        started: now,
        ended: now,
        faults: found.faults.clone(),
        dropped: 2,
        syscalls: histograms.series.clone(),
        flows: Vec::new(),
        lost: found.lost.clone(),
    };
    [
        status::render(&state.status(), now, screen),
        faults::render(&found, Frames::InApp, screen),
        faults::render_groups(&found, Frames::All, screen),
        hist::render(&histograms, &hist::Options::default(), screen),
        hist::render(&histograms, &one_call, screen),
        top::render(
            &state.status(),
            &histograms,
            "10s".parse().unwrap(),
            now,
            screen,
        ),
        summary::render(&report, &found.groups, screen),
    ]
    .join("\n----\n")
}

#[test]
fn a_fault_shows_what_happened_where_and_to_whom() {
    let mut fault = sample::panic();
    fault.message.push_str("\n  left: 1");
    fault.caught = Some(false);
    (fault.id, fault.fingerprint, fault.count) = ("8".to_owned(), "3fa9".to_owned(), 3);
    let text = fault_text::render(&fault, Frames::InApp, &Screen::PLAIN);
    let shown: Vec<&str> = text.lines().collect();
    assert!(
        shown[0].starts_with("panic  order 47: price must be positive "),
        "{text}"
    );
    assert!(shown[0].ends_with(" caught: no"), "{text}");
    assert_eq!(shown[1], "         left: 1");
    assert!(
        shown[2].starts_with("  shop (pid 4711, thread worker-2 4715) at 2026-11-22 "),
        "{text}"
    );
    assert!(
        shown[2].ends_with(".123   fault 8, fingerprint 3fa9, 3rd time"),
        "{text}"
    );
    assert_eq!(
        shown[3..],
        [
            "  at src/billing.rs:42:9",
            "    … 2 runtime frames (--all shows them)",
            "    2 shop::billing::validate       src/billing.rs:42:9   (inlined)",
            "    3 shop::billing::charge         src/billing.rs:17:9",
            "    4 shop::checkout::{closure#0}   src/checkout.rs:108:9",
            "    … 3 runtime frames (--all shows them)",
        ]
    );
    let all = fault_text::render(&fault, Frames::All, &Screen::PLAIN);
    assert!(
        all.contains("    0 std::panicking::begin_panic_handler"),
        "{all}"
    );
    assert!(!all.contains("runtime frame"), "{all}");
}

#[test]
fn a_fault_without_source_lines_shows_functions_and_modules() {
    let text = fault_text::render(&sample::segfault(), Frames::InApp, &Screen::PLAIN);
    assert!(
        text.contains("signal SIGSEGV (11), SEGV_MAPERR, address 0xdeadbeef"),
        "{text}"
    );
    assert!(
        text.contains("    0 crash+0x10   in /usr/bin/victim\n"),
        "{text}"
    );
    assert!(
        text.contains("    1 0x401200     in /usr/bin/victim at 0x1200\n"),
        "{text}"
    );
    assert!(text.contains("the copy of the stack ended here"), "{text}");
}

#[test]
fn nothing_that_a_target_wrote_reaches_the_terminal_unescaped() {
    let state = state();
    let evil = "\x1b[2J\u{9b}31m\u{202e}";
    let poison = |text: &mut String| text.push_str(evil);
    let mut fault = sample::segfault();
    for text in [&mut fault.message, &mut fault.target, &mut fault.comm] {
        poison(text);
    }
    fault.exe = evil.into();
    fault.arguments = vec![evil.to_owned()];
    for frame in &mut fault.stack {
        (frame.module, frame.function) = (Some(evil.into()), Some(evil.to_owned()));
    }
    if let Some(signal) = &mut fault.signal {
        (signal.sender_pid, signal.sender_comm) = (Some(1), Some(evil.to_owned()));
    }
    state.record_fault(fault);
    state.add_lost(evil, 1);
    let text = all_views(&state, &Screen::PLAIN);
    assert!(!text.contains(['\x1b', '\u{9b}', '\u{202e}']), "{text:?}");
}

#[test]
fn a_table_keeps_work_apart_from_waits_and_shows_failures() {
    let histograms = Histograms::of(&state(), &Query::default());
    let text = series_table::render(&histograms.series, Some(10.0), &Screen::PLAIN);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].contains("calls/s") && lines[0].contains("p99.9"),
        "{text}"
    );
    assert!(
        lines[1].starts_with("read") && lines[1].contains("7 EAGAIN "),
        "{text}"
    );
    assert!(lines[1].contains("1,000"), "{text}");
    assert!(lines[0].contains("unfinished"), "{text}");
    assert_eq!(lines[2], "waiting for something to happen:");
    assert!(lines[3].starts_with("epoll_wait"), "{text}");
    assert_eq!(
        lines.len(),
        4,
        "exit_group never returns, which is no news: {text}"
    );
}

#[test]
fn a_drawing_shows_both_modes_and_the_percentiles() {
    let read = Query {
        call: Some(NamePattern::new("read")),
        ..Query::default()
    };
    let histograms = Histograms::of(&state(), &read);
    let options = hist::Options {
        call: Some("read".to_owned()),
        ..hist::Options::default()
    };
    let text = hist::render(&histograms, &options, &Screen::PLAIN);
    assert!(text.contains("shop  read: 1,000 calls"), "{text}");
    assert!(text.contains("1 never returned"), "{text}");
    assert!(text.contains("EAGAIN 7, ERESTARTSYS 3"), "{text}");
    let row = |beginning: &str| {
        let found = text
            .lines()
            .find(|line| line.trim_start().starts_with(beginning));
        found
            .unwrap_or_else(|| panic!("no row {beginning}: {text}"))
            .to_owned()
    };
    assert!(row("2.00 µs").contains("950  95.0 %  p50 p90"), "{text}");
    assert!(
        row("3.00 ms").contains("50   5.0 %  p99 p99.9 max"),
        "{text}"
    );
    assert!(text.contains("p50 2.11 µs"), "{text}");
}

#[test]
fn losses_show_only_when_there_are_any() {
    let lost = [("events".to_owned(), 1_234), ("stacks".to_owned(), 0)].into();
    assert_eq!(loss::render(&lost, &Screen::PLAIN), "lost: 1,234 events\n");
    assert_eq!(loss::render(&Default::default(), &Screen::PLAIN), "");
}

#[test]
fn colours_stay_within_their_lines() {
    let text = all_views(
        &state(),
        &Screen {
            width: Some(120),
            colour: true,
        },
    );
    for line in text.lines() {
        assert_eq!(
            line.matches("\x1b[0m").count() * 2,
            line.matches("\x1b[").count(),
            "{line:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_width_will_do(width in 0_usize..250) {
        let screen = Screen { width: Some(width), colour: false };
        all_views(&state(), &screen);
        let histograms = Histograms::of(&state(), &Query::default());
        for line in series_table::render(&histograms.series, Some(1.0), &screen).lines() {
            prop_assert!(line.width() <= width, "{} > {width}: {line}", line.width());
        }
    }

    #[test]
    fn any_distribution_can_be_drawn(counts in prop::collection::vec((any::<u64>(), 1_u64..u64::MAX / 64), 1..40)) {
        let state = State::default();
        let counts: Vec<_> = counts.iter().map(|&(value, count)| (slot_of(value >> (count % 64)), count)).collect();
        let key = SeriesKey { target: "x".into(), pid: Some(1), call: Call(9_999) };
        state.record_latencies([(key, Delta { counts: &counts, ..Delta::default() })]);
        let text = all_views(&state, &Screen::PLAIN);
        prop_assert!(text.contains("syscall_9999"));
    }

    #[test]
    fn any_text_in_a_fault_can_be_shown(message: String, function: String, count: u64) {
        let mut fault: Fault = sample::panic();
        fault.message = message;
        fault.count = count;
        for frame in &mut fault.stack {
            frame.function = Some(function.clone());
        }
        fault_text::render(&fault, Frames::All, &Screen { width: Some(20), colour: true });
    }
}
