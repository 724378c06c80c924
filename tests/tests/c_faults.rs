//! What the C library ends a program for, and fatal signals, as `helloops run` tells of them.

use anyhow::{Result, ensure};
use helloops_tests::{Report, Watch, frame, functions, own_functions, place, victim, watch};
use serde_json::{Value, json};

const SOURCE: &str = "c_faults.c";

fn c_faults(mode: &str) -> Result<Watch> {
    Ok(watch(victim("c_faults")?).args([mode]))
}

/// The only fault of a run, which must be an abort that the C library called at the text in the
/// victim's source.
fn abort_at<'a>(report: &'a Report, kind: &str, text: &str) -> Result<&'a Value> {
    let fault = report.fault(kind)?;
    assert_eq!(fault["runtime"], "c", "{fault:#}");
    place(SOURCE, text)?.is_of(&fault["location"])?;
    assert_eq!(fault["caught"], false);
    assert_eq!(fault["signal"]["name"], "SIGABRT", "{fault:#}");
    assert_eq!(report.json["exit"]["signal"], libc::SIGABRT);
    assert_eq!(report.ended.signal(), Some(libc::SIGABRT));
    Ok(fault)
}

/// The only fault of a run, which must be a signal that the instruction at the text in the victim's
/// source caused.
fn signal_at<'a>(report: &'a Report, number: i32, text: &str) -> Result<&'a Value> {
    let fault = report.fault("signal")?;
    place(SOURCE, text)?.is_of(&fault["location"])?;
    assert_eq!(fault["caught"], false);
    assert_eq!(fault["signal"]["number"], number, "{fault:#}");
    assert_eq!(fault["signal"]["sender_pid"], Value::Null, "{fault:#}");
    assert_eq!(report.json["exit"]["signal"], number);
    assert_eq!(report.ended.signal(), Some(number));
    Ok(fault)
}

#[test]
fn a_call_of_abort_shows_where_it_was_made() -> Result<()> {
    let report = c_faults("abort")?.run()?;
    let fault = abort_at(&report, "abort", "abort(); }")?;
    assert_eq!(fault["message"], "abort()");
    assert_eq!(own_functions(fault), ["call_abort", "main"]);
    place(SOURCE, "call_abort();\n    else if (MODE(\"assert\"))")?.is_of(frame(fault, "main")?)
}

#[test]
fn a_failed_assertion_shows_its_expression_function_file_and_line() -> Result<()> {
    let report = c_faults("assert")?.run()?;
    let fault = abort_at(&report, "assert", "assert(balance >= 0)")?;
    assert_eq!(
        fault["message"],
        "assertion `balance >= 0` failed in `withdraw`"
    );
    assert_eq!(own_functions(fault), ["withdraw", "main"]);
    Ok(())
}

#[test]
fn a_smashed_stack_shows_the_function_that_smashed_it() -> Result<()> {
    let report = c_faults("stack_smash")?.run()?;
    // The check is in the last line of the function.
    let fault = abort_at(&report, "abort", "}\n\n/* __fortify_fail")?;
    assert_eq!(fault["message"], "stack smashing detected");
    assert_eq!(own_functions(fault).first(), Some(&"overrun"));
    // Its caller's address was overwritten by what smashed the stack.
    let truncated = fault["stack_truncated"].as_str().unwrap_or_default();
    ensure!(truncated.contains("0x7878787878787878"), "{fault:#}");
    Ok(())
}

#[test]
fn a_buffer_overflow_that_fortify_detects_shows_the_call() -> Result<()> {
    let report = c_faults("fortify")?.run()?;
    let fault = abort_at(&report, "abort", "memcpy(buffer, name, length)")?;
    assert_eq!(fault["message"], "buffer overflow detected");
    assert_eq!(own_functions(fault), ["copy_name", "main"]);
    Ok(())
}

#[test]
fn a_statically_linked_program_shows_the_same() -> Result<()> {
    let program = victim("c_faults_static")?;
    let report = watch(&program).args(["assert"]).run()?;
    let fault = abort_at(&report, "assert", "assert(balance >= 0)")?;
    assert_eq!(own_functions(fault), ["withdraw", "main"]);

    let report = watch(&program).args(["abort"]).run()?;
    let fault = abort_at(&report, "abort", "abort(); }")?;
    assert_eq!(own_functions(fault), ["call_abort", "main"]);

    let report = watch(&program).args(["segv_addr"]).run()?;
    let fault = signal_at(&report, libc::SIGSEGV, "volatile)address = 1")?;
    assert_eq!(own_functions(fault), ["write_to", "main"]);
    Ok(())
}

#[test]
fn a_write_through_a_null_pointer_shows_its_address_and_stack() -> Result<()> {
    let report = c_faults("segv_null")?.run()?;
    let fault = signal_at(&report, libc::SIGSEGV, "volatile)address = 1")?;
    assert_eq!(
        fault["signal"],
        json!({
            "number": 11,
            "name": "SIGSEGV",
            "code": "SEGV_MAPERR",
            "address": 0,
            "sender_pid": null,
            "sender_comm": null,
        })
    );
    assert_eq!(fault["message"], "SIGSEGV (SEGV_MAPERR) at address 0x0");
    assert_eq!(own_functions(fault), ["write_to", "main"]);
    assert_eq!(functions(fault).last(), Some(&"_start"));
    Ok(())
}

#[test]
fn a_write_to_a_wild_address_shows_the_address() -> Result<()> {
    let report = c_faults("segv_addr")?.run()?;
    let fault = signal_at(&report, libc::SIGSEGV, "volatile)address = 1")?;
    assert_eq!(fault["signal"]["code"], "SEGV_MAPERR");
    assert_eq!(fault["signal"]["address"], 0xdead_0000_u32);
    Ok(())
}

#[test]
fn a_division_by_zero_shows_its_instruction() -> Result<()> {
    let report = c_faults("fpe")?.run()?;
    let fault = signal_at(&report, libc::SIGFPE, "return a / b;")?;
    assert_eq!(fault["signal"]["code"], "FPE_INTDIV");
    assert_eq!(fault["signal"]["address"], fault["stack"][0]["address"]);
    assert_eq!(own_functions(fault), ["divide", "main"]);
    Ok(())
}

#[test]
fn an_illegal_instruction_shows_where_it_is() -> Result<()> {
    let report = c_faults("ill")?.run()?;
    let fault = signal_at(&report, libc::SIGILL, "__builtin_trap()")?;
    assert_eq!(fault["signal"]["code"], "ILL_ILLOPN");
    assert_eq!(own_functions(fault), ["call_trap", "main"]);
    Ok(())
}

#[test]
fn a_read_behind_the_end_of_a_mapped_file_shows_its_address() -> Result<()> {
    let report = c_faults("bus")?.run()?;
    let fault = signal_at(&report, libc::SIGBUS, "return map[0];")?;
    assert_eq!(fault["signal"]["code"], "BUS_ADRERR");
    ensure!(fault["signal"]["address"].as_u64() > Some(0), "{fault:#}");
    assert_eq!(own_functions(fault), ["read_past_end", "main"]);
    Ok(())
}

#[test]
fn a_stack_overflow_shows_what_recursed() -> Result<()> {
    let report = c_faults("stack_overflow")?.run()?;
    let fault = report.fault("signal")?;
    assert_eq!(fault["signal"]["name"], "SIGSEGV");
    assert_eq!(fault["signal"]["code"], "SEGV_MAPERR");
    assert_eq!(report.ended.signal(), Some(libc::SIGSEGV));
    // The stack pointer is below the stack's end, and the frames are above it.
    let own = own_functions(fault);
    ensure!(own.len() > 10, "{own:?}");
    ensure!(own.iter().all(|function| *function == "recurse"), "{own:?}");
    // 8 MiB of it are more than a fault takes along.
    ensure!(fault["stack_truncated"].is_string(), "{fault:#}");
    Ok(())
}

#[test]
fn a_handler_that_raises_its_signal_again_leaves_one_fault_with_the_first_cause() -> Result<()> {
    let report = c_faults("handler_reraise")?.run()?;
    let fault = signal_at(&report, libc::SIGSEGV, "volatile)address = 1")?;
    assert_eq!(fault["signal"]["code"], "SEGV_MAPERR");
    assert_eq!(fault["signal"]["address"], 0xbeef_0000_u32);
    assert_eq!(
        own_functions(fault),
        ["write_to", "handler_reraises", "main"]
    );
    Ok(())
}

#[test]
fn a_signal_that_the_program_handles_is_no_fault() -> Result<()> {
    let report = c_faults("handled_segv")?.run()?;
    assert_eq!(report.faults(), [] as [Value; 0]);
    assert_eq!(report.ended.code(), Some(0));
    Ok(())
}

#[test]
fn a_program_that_ends_well_has_no_fault() -> Result<()> {
    let report = watch("/bin/true").run()?;
    assert_eq!(report.faults(), [] as [Value; 0]);
    assert_eq!(report.json["exit"], json!({"code": 0}));
    assert_eq!(report.ended.code(), Some(0));
    Ok(())
}

#[test]
fn an_abort_after_the_main_thread_has_ended_is_that_threads() -> Result<()> {
    let report = c_faults("leader_exits_abort")?.run()?;
    let fault = abort_at(&report, "abort", "abort(); }")?;
    assert_ne!(fault["tid"], fault["pid"]);
    assert_eq!(own_functions(fault), ["call_abort", "abort_later"]);
    Ok(())
}
