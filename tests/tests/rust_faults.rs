//! Rust panics, as `helloops run` tells of them.

use anyhow::{Result, ensure};
use helloops_tests::{Report, Watch, frame, functions, own_functions, place, victim, watch};
use serde_json::{Value, json};

const SOURCE: &str = "rust_panics.rs";
/// The crate that the victim's functions are in, whichever way it was built.
const CRATE: &str = "rust_panics::";

fn rust_panics(mode: &str) -> Result<Watch> {
    Ok(watch(victim("rust_panics")?).args([mode]))
}

fn rust_panics_abort(mode: &str) -> Result<Watch> {
    Ok(watch(victim("rust_panics_abort")?).args([mode]))
}

/// The only fault of a run, which must be a Rust panic at the text in the victim's source.
fn panic_at<'a>(report: &'a Report, text: &str) -> Result<&'a Value> {
    let fault = report.fault("panic")?;
    is_panic_at(fault, text)?;
    Ok(fault)
}

fn is_panic_at(fault: &Value, text: &str) -> Result<()> {
    ensure!(fault["runtime"] == "rust", "{fault:#}");
    place(SOURCE, text)?.is_exactly_of(&fault["location"])
}

/// The program's own functions in the stack, without their crate.
fn own(fault: &Value) -> Vec<&str> {
    own_functions(fault)
        .into_iter()
        .map(|function| function.strip_prefix(CRATE).unwrap_or(function))
        .collect()
}

#[test]
fn a_panic_of_the_main_thread_shows_its_message_location_stack_and_exit_code() -> Result<()> {
    let report = rust_panics("main")?.run()?;
    let text = "panic!(\"main panicked\")";
    let fault = panic_at(&report, text)?;
    assert_eq!(fault["message"], "main panicked");
    assert_eq!(fault["caught"], false);
    assert_eq!(fault["exit_code"], 101);
    assert_eq!(fault["signal"], Value::Null);
    assert_eq!(fault["pid"], report.json["pid"]);
    assert_eq!(fault["tid"], fault["pid"]);
    assert_eq!(fault["comm"], "rust_panics");
    assert_eq!(fault["exe"], json!(victim("rust_panics")?.canonicalize()?));
    assert_eq!(own(fault), ["in_main", "main"]);
    let in_main = frame(fault, "rust_panics::in_main")?;
    place(SOURCE, text)?.is_exactly_of(in_main)?;
    assert_eq!(in_main["inlined"], false);
    ensure!(
        in_main["build_id"].is_string(),
        "no build ID in {in_main:#}"
    );
    assert_eq!(report.json["exit"], json!({"code": 101}));
    assert_eq!(report.ended.code(), Some(101));
    Ok(())
}

#[test]
fn a_panicking_thread_shows_its_name_message_location_and_stack() -> Result<()> {
    let report = rust_panics("named_thread")?.run()?;
    let fault = panic_at(&report, "panic!(\"invoice {invoice} has no customer\")")?;
    assert_eq!(fault["message"], "invoice 42 has no customer");
    assert_eq!(fault["comm"], "billing-worker");
    assert_ne!(fault["tid"], fault["pid"]);
    // It ended its thread, and not the process.
    assert_eq!(fault["caught"], false);
    assert_eq!(fault["exit_code"], Value::Null);
    assert_eq!(own(fault).first(), Some(&"bill"));
    ensure!(functions(fault).contains(&"start_thread"), "{fault:#}");
    assert_eq!(report.ended.code(), Some(0));
    Ok(())
}

#[test]
fn a_panic_in_inlined_functions_shows_each_of_them_with_its_line() -> Result<()> {
    let report = rust_panics("inlined")?.args(["3"]).run()?;
    let fault = panic_at(&report, "panic!(\"innermost got {number}\")")?;
    assert_eq!(fault["message"], "innermost got 8");
    assert_eq!(
        own(fault),
        [
            "innermost",
            "middle",
            "outermost",
            "through_inlined_functions",
            "main"
        ]
    );
    let calls = [
        ("innermost", "panic!(\"innermost got", true),
        ("middle", "innermost(number * 2)", true),
        ("outermost", "middle(number + 1)", true),
        ("through_inlined_functions", "outermost(number);", false),
    ];
    for (function, call, inlined) in calls {
        let frame = frame(fault, &format!("{CRATE}{function}"))?;
        place(SOURCE, call)?.is_exactly_of(frame)?;
        assert_eq!(frame["inlined"], inlined, "{frame:#}");
    }
    Ok(())
}

#[test]
fn a_panic_that_the_program_catches_is_told_as_caught() -> Result<()> {
    let report = rust_panics("caught")?.run()?;
    let fault = panic_at(&report, "panic!(\"{message}\")")?;
    assert_eq!(fault["message"], "caught on purpose");
    assert_eq!(fault["caught"], true);
    assert_eq!(fault["exit_code"], Value::Null);
    assert_eq!(report.ended.code(), Some(0));
    Ok(())
}

#[test]
fn a_panic_in_a_tokio_task_is_told_as_caught_by_the_runtime() -> Result<()> {
    let report = rust_panics("tokio_task")?.run()?;
    let fault = panic_at(&report, "panic!(\"task {number} failed\")")?;
    assert_eq!(fault["message"], "task 9 failed");
    assert_eq!(fault["comm"], "tokio-rt-worker");
    assert_eq!(fault["caught"], true);
    // Of all of tokio's frames none is the program's own.
    assert_eq!(own(fault), ["work_on_task::{{closure}}"]);
    assert_eq!(report.ended.code(), Some(0));
    Ok(())
}

#[test]
fn a_panic_that_is_thrown_on_shows_where_it_was_caught_and_where_it_went_on() -> Result<()> {
    let report = rust_panics("resume_unwind")?.run()?;
    let [first, resumed] = report.faults() else {
        panic!("expected two faults:\n{:#}", report.json["faults"]);
    };
    is_panic_at(first, "panic!(\"{message}\")")?;
    assert_eq!(first["message"], "first panic");
    assert_eq!(first["caught"], true);
    assert_eq!(resumed["kind"], "panic");
    place(SOURCE, "panic::resume_unwind(payload);")?.is_exactly_of(&resumed["location"])?;
    assert_eq!(resumed["caught"], false);
    assert_eq!(resumed["exit_code"], 101);
    assert_eq!(own(resumed), ["resume_unwind", "main"]);
    Ok(())
}

#[test]
fn messages_read_as_rust_prints_them() -> Result<()> {
    let cases = [
        (
            "literal",
            "panic!(\"a literal without arguments\")",
            "a literal without arguments",
        ),
        (
            "formatted",
            "panic!(\"{number} items",
            "1 items, 2.50 each, \"tea\"",
        ),
        (
            "index",
            "items[at]",
            "index out of bounds: the len is 3 but the index is 7",
        ),
        (
            "unwrap",
            "unwrap());",
            "called `Result::unwrap()` on an `Err` value: ParseIntError { kind: InvalidDigit }",
        ),
        // A payload of any other type than a text.
        ("panic_any", "panic::panic_any(4711_u32)", "Box<dyn Any>"),
        ("start_then_panic", "panic!(\"at once\")", "at once"),
    ];
    for (mode, text, message) in cases {
        let report = rust_panics(mode)?.run()?;
        let fault = panic_at(&report, text)?;
        assert_eq!(fault["message"], message, "{mode}");
        assert_eq!(fault["exit_code"], 101, "{mode}");
        assert_eq!(own(fault).last(), Some(&"main"), "{mode}");
    }
    Ok(())
}

#[test]
fn a_panic_in_a_destructor_that_runs_for_another_panic_is_a_second_fault_and_no_third() -> Result<()>
{
    let report = rust_panics("nested")?.run()?;
    let [first, second] = report.faults() else {
        panic!("expected two faults:\n{:#}", report.json["faults"]);
    };
    is_panic_at(first, "panic!(\"{message}\")")?;
    assert_eq!(first["message"], "the first of two");
    is_panic_at(second, "panic!(\"the second, in drop\")")?;
    assert_eq!(second["message"], "the second, in drop");
    // The runtime gives up at the second.
    assert_eq!(second["caught"], false);
    assert_eq!(second["signal"]["name"], "SIGABRT");
    assert_eq!(report.ended.signal(), Some(libc::SIGABRT));
    Ok(())
}

#[test]
fn a_panic_hook_that_leaves_the_program_loses_neither_message_nor_exit_code() -> Result<()> {
    for program in [rust_panics("exit_hook")?, rust_panics_abort("exit_hook")?] {
        let report = program.run()?;
        let fault = panic_at(&report, "panic!(\"{message}\")")?;
        assert_eq!(fault["message"], "left by the hook");
        assert_eq!(fault["caught"], false);
        assert_eq!(fault["exit_code"], 3);
        assert_eq!(own(fault), ["fail_with", "exit_hook", "main"]);
        assert_eq!(report.ended.code(), Some(3));
    }
    Ok(())
}

#[test]
fn a_panic_under_two_hundred_frames_shows_all_of_them() -> Result<()> {
    let report = rust_panics("deep")?.run()?;
    let fault = panic_at(&report, "panic!(\"bottom reached\")")?;
    let own = own(fault);
    let deep = own.iter().filter(|function| **function == "deep").count();
    assert_eq!(deep, 201);
    assert_eq!(own.last(), Some(&"main"));
    assert_eq!(functions(fault).last(), Some(&"_start"));
    assert_eq!(fault["stack_truncated"], Value::Null);
    Ok(())
}

#[test]
fn a_failed_allocation_shows_its_size_and_where_it_was_asked_for() -> Result<()> {
    let report = rust_panics("alloc_error")?.run()?;
    let fault = report.fault("abort")?;
    assert_eq!(fault["runtime"], "rust");
    assert_eq!(
        fault["message"],
        format!("memory allocation of {} bytes failed", isize::MAX / 2)
    );
    assert_eq!(own(fault), ["alloc_error", "main"]);
    assert_eq!(fault["signal"]["name"], "SIGABRT");
    assert_eq!(report.ended.signal(), Some(libc::SIGABRT));
    Ok(())
}

#[test]
fn a_panic_of_a_program_that_aborts_on_panics_is_one_fault() -> Result<()> {
    let report = rust_panics_abort("main")?.run()?;
    let fault = panic_at(&report, "panic!(\"main panicked\")")?;
    assert_eq!(fault["message"], "main panicked");
    assert_eq!(fault["caught"], false);
    assert_eq!(fault["signal"]["name"], "SIGABRT");
    assert_eq!(fault["exit_code"], Value::Null);
    assert_eq!(own(fault), ["in_main", "main"]);
    assert_eq!(report.ended.signal(), Some(libc::SIGABRT));
    Ok(())
}

#[test]
fn catch_unwind_catches_nothing_in_a_program_that_aborts_on_panics() -> Result<()> {
    let report = rust_panics_abort("caught")?.run()?;
    let fault = panic_at(&report, "panic!(\"{message}\")")?;
    assert_eq!(fault["message"], "caught on purpose");
    assert_eq!(fault["caught"], false);
    assert_eq!(fault["signal"]["name"], "SIGABRT");
    Ok(())
}

#[test]
fn a_thread_whose_panic_aborts_the_program_keeps_its_name() -> Result<()> {
    let report = rust_panics_abort("named_thread")?.run()?;
    let fault = panic_at(&report, "panic!(\"invoice {invoice} has no customer\")")?;
    assert_eq!(fault["message"], "invoice 42 has no customer");
    assert_eq!(fault["comm"], "billing-worker");
    assert_ne!(fault["tid"], fault["pid"]);
    assert_eq!(fault["signal"]["name"], "SIGABRT");
    Ok(())
}

#[test]
fn each_of_many_panics_of_one_thread_is_a_fault_with_its_own_message() -> Result<()> {
    let report = rust_panics("many")?.args(["300"]).run()?;
    assert_eq!(report.faults().len(), 300);
    for (number, fault) in (1..).zip(report.faults()) {
        assert_eq!(fault["message"], format!("panic {number} of 300"));
        assert_eq!(fault["caught"], true);
        assert_eq!(fault["count"], number, "they have one cause: {fault:#}");
        assert_eq!(own(fault).first(), Some(&"fail_with"));
    }
    Ok(())
}

#[test]
fn threads_that_panic_at_once_keep_their_messages_and_names_apart() -> Result<()> {
    let report = rust_panics("many_threads")?.args(["60"]).run()?;
    assert_eq!(report.faults().len(), 60);
    let mut seen: Vec<_> = report
        .faults()
        .iter()
        .map(|fault| (fault["comm"].as_str(), fault["message"].as_str()))
        .collect();
    seen.sort_unstable();
    let names: Vec<_> = (1..=60)
        .map(|number| (format!("worker-{number}"), format!("panic {number} of 60")))
        .collect();
    let mut wanted: Vec<_> = names
        .iter()
        .map(|(name, message)| (Some(name.as_str()), Some(message.as_str())))
        .collect();
    wanted.sort_unstable();
    assert_eq!(seen, wanted);
    Ok(())
}

/// It panics as soon as it runs, and nobody has run it before: it must be probed by then.
#[test]
fn a_program_that_a_shells_script_names_is_probed_before_it_starts() -> Result<()> {
    let script = format!(
        "{} start_then_panic; exit 0",
        victim("rust_panics")?.display()
    );
    for _ in 0..5 {
        let report = watch("sh").args(["-c", &script]).run()?;
        let fault = report.fault("panic")?;
        frame(fault, "rust_panics::main")?;
    }
    Ok(())
}
