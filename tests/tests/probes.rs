//! `--probe`: functions that the user names as error sites.

use anyhow::{Result, ensure};
use helloops_tests::{Report, functions, own_functions, victim, watch};
use serde_json::{Value, json};

fn probe(pattern: &str, program: &str, mode: &str) -> Result<Report> {
    watch(victim(program)?)
        .options(["--probe", pattern])
        .args([mode])
        .run()
}

/// Checks what `c_faults report` tells its error function.
fn expect_three_reports(report: &Report, arguments: impl Fn(usize) -> Value) {
    assert_eq!(report.faults().len(), 3, "{:#}", report.json["faults"]);
    for (disk, fault) in (1..).zip(report.faults()) {
        assert_eq!(fault["kind"], "error");
        assert_eq!(fault["arguments"], arguments(disk), "{fault:#}");
        // Nobody knows what a program makes of its own errors.
        assert_eq!(fault["caught"], Value::Null);
        assert_eq!(
            own_functions(fault),
            ["report_failure", "reports", "main"],
            "{fault:#}"
        );
        assert_eq!(fault["count"], disk, "they have one cause");
    }
    assert_eq!(report.ended.code(), Some(0));
}

#[test]
fn each_call_of_a_named_function_is_a_fault_with_its_arguments() -> Result<()> {
    let report = probe("report_failure(int,cstr)", "c_faults", "report")?;
    expect_three_reports(&report, |disk| {
        json!([
            format!("{}", 100 + disk),
            format!("\"disk {disk} is full\"")
        ])
    });
    assert_eq!(
        report.faults()[1]["message"],
        "report_failure(102, \"disk 2 is full\")"
    );
    Ok(())
}

#[test]
fn a_glob_names_functions_too() -> Result<()> {
    let report = probe("*rt_fail*(uint)", "c_faults", "report")?;
    expect_three_reports(&report, |disk| json!([(100 + disk).to_string()]));
    Ok(())
}

#[test]
fn without_types_all_argument_registers_are_shown_in_hexadecimal() -> Result<()> {
    let report = probe("report_failure", "c_faults", "report")?;
    assert_eq!(report.faults().len(), 3);
    for (disk, fault) in (1..).zip(report.faults()) {
        let arguments = fault["arguments"].as_array().cloned().unwrap_or_default();
        assert_eq!(arguments.len(), 6);
        assert_eq!(arguments[0], format!("{:#x}", 100 + disk));
    }
    Ok(())
}

#[test]
fn a_rust_function_is_named_by_its_path_and_its_str_is_read() -> Result<()> {
    let report = probe("rust_panics::fail_with(str)", "rust_panics", "caught")?;
    let error = report.only("error")?;
    assert_eq!(
        error["message"],
        "rust_panics::fail_with(\"caught on purpose\")"
    );
    assert_eq!(error["runtime"], "rust");
    ensure!(
        own_functions(error).starts_with(&["rust_panics::fail_with"]),
        "{error:#}"
    );
    // What the function then does is a fault of its own.
    assert_eq!(report.only("panic")?["message"], "caught on purpose");
    assert_eq!(report.faults().len(), 2);
    Ok(())
}

#[test]
fn a_cpp_function_is_named_by_its_path() -> Result<()> {
    let report = probe("shop::take(cstr)", "cpp_faults", "custom")?;
    let error = report.only("error")?;
    assert_eq!(error["arguments"], json!(["\"tea\""]));
    assert_eq!(own_functions(error), ["shop::take(char const*)", "main"]);
    // It did not lead to the exception, which is a fault beside it.
    let exception = report.only("exception")?;
    assert_eq!(exception["message"], "shop::out_of_stock: no more tea");
    assert_eq!(exception["signal"]["name"], "SIGABRT");
    Ok(())
}

#[test]
fn a_function_in_a_library_can_be_named() -> Result<()> {
    let report = probe("libc.so.6:execvp(cstr)", "c_faults", "exec_other")?;
    let error = report.only("error")?;
    assert_eq!(error["arguments"], json!(["\"/bin/sh\""]));
    assert_eq!(own_functions(error), ["exec_other", "main"]);
    ensure!(
        functions(error)
            .first()
            .is_some_and(|function| function.contains("execvp")),
        "{error:#}"
    );
    assert_eq!(report.only("exit")?["exit_code"], 5);
    Ok(())
}

#[test]
fn a_name_that_matches_nothing_is_refused_with_the_nearest_one() -> Result<()> {
    let ended = watch(victim("c_faults")?)
        .options(["--probe", "report_failur"])
        .args(["exit3"])
        .start()?
        .running
        .wait()?;
    // Not 3: the command never ran.
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    ensure!(ended.stderr.contains("`report_failur`"), "{}", ended.stderr);
    ensure!(
        ended.stderr.contains("did you mean report_failure"),
        "{}",
        ended.stderr
    );
    Ok(())
}

#[test]
fn an_argument_type_that_does_not_exist_is_refused_with_those_that_do() -> Result<()> {
    let ended = watch(victim("c_faults")?)
        .options(["--probe", "report_failure(float)"])
        .args(["exit3"])
        .start()?
        .running
        .wait()?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    ensure!(
        ended.stderr.contains("int, uint, ptr, cstr and str"),
        "{}",
        ended.stderr
    );
    Ok(())
}
