//! C++ exceptions that nothing catches, as `helloops run` tells of them.

use anyhow::{Result, ensure};
use helloops_tests::{Report, frame, functions, own_functions, place, victim, watch};
use serde_json::Value;

const SOURCE: &str = "cpp_faults.cpp";

fn run(mode: &str) -> Result<Report> {
    watch(victim("cpp_faults")?).args([mode]).run()
}

/// The only fault of a run, which must have ended by `std::terminate` at the text in the victim's
/// source.
fn terminated_at<'a>(report: &'a Report, kind: &str, text: &str) -> Result<&'a Value> {
    let fault = report.fault(kind)?;
    assert_eq!(fault["runtime"], "cpp", "{fault:#}");
    place(SOURCE, text)?.is_of(&fault["location"])?;
    assert_eq!(fault["caught"], false);
    assert_eq!(fault["signal"]["name"], "SIGABRT", "{fault:#}");
    assert_eq!(report.ended.signal(), Some(libc::SIGABRT));
    Ok(fault)
}

#[test]
fn an_uncaught_exception_shows_its_type_its_text_and_where_it_was_thrown() -> Result<()> {
    let report = run("runtime_error")?;
    let fault = terminated_at(&report, "exception", "throw std::runtime_error(")?;
    assert_eq!(fault["message"], "std::runtime_error: order 7 is lost");
    assert_eq!(own_functions(fault), ["shop::find_order(int)", "main"]);
    place(SOURCE, "shop::find_order(7);")?.is_of(frame(fault, "main")?)?;
    ensure!(functions(fault).contains(&"__cxa_throw"), "{fault:#}");
    Ok(())
}

#[test]
fn an_exception_of_the_programs_own_type_shows_that_type() -> Result<()> {
    let report = run("custom")?;
    let fault = terminated_at(&report, "exception", "throw out_of_stock(")?;
    assert_eq!(fault["message"], "shop::out_of_stock: no more tea");
    assert_eq!(own_functions(fault), ["shop::take(char const*)", "main"]);
    Ok(())
}

#[test]
fn an_exception_that_is_a_number_or_a_string_shows_its_value() -> Result<()> {
    let report = run("int")?;
    let fault = terminated_at(&report, "exception", "throw value;")?;
    assert_eq!(fault["message"], "int: 42");

    let report = run("string")?;
    let fault = terminated_at(&report, "exception", "throw std::string(")?;
    let text = "std::string: just a string, long enough for the heap";
    assert_eq!(fault["message"], text);
    Ok(())
}

#[test]
fn an_exception_that_meets_a_noexcept_function_shows_who_threw_it_and_who_would_not_let_it()
-> Result<()> {
    let report = run("noexcept")?;
    let fault = terminated_at(&report, "exception", "throw std::runtime_error(")?;
    assert_eq!(fault["message"], "std::runtime_error: order 8 is lost");
    assert_eq!(
        own_functions(fault),
        ["shop::find_order(int)", "shop::never_throws()", "main"]
    );
    Ok(())
}

#[test]
fn a_call_of_terminate_without_an_exception_says_so() -> Result<()> {
    let report = run("terminate")?;
    let fault = terminated_at(&report, "abort", "std::terminate(); }")?;
    assert_eq!(
        fault["message"],
        "std::terminate without an active exception"
    );
    assert_eq!(own_functions(fault), ["shop::give_up()", "main"]);
    Ok(())
}

#[test]
fn an_uncaught_exception_in_a_thread_is_that_threads() -> Result<()> {
    let report = run("thread")?;
    let fault = terminated_at(&report, "exception", "throw std::runtime_error(")?;
    assert_eq!(fault["message"], "std::runtime_error: order 9 is lost");
    assert_ne!(fault["tid"], fault["pid"]);
    // What the standard library puts between is not the program's own, though it is in its file.
    assert_eq!(own_functions(fault), ["shop::find_order(int)"]);
    Ok(())
}

#[test]
fn an_exception_that_is_caught_is_no_fault() -> Result<()> {
    let report = run("caught")?;
    assert_eq!(report.faults(), [] as [Value; 0]);
    assert_eq!(report.ended.code(), Some(0));
    Ok(())
}

#[test]
fn an_exception_that_is_caught_and_thrown_on_is_one_fault() -> Result<()> {
    let report = run("rethrown")?;
    let fault = terminated_at(&report, "exception", "throw;")?;
    assert_eq!(fault["message"], "std::runtime_error: order 11 is lost");
    assert_eq!(own_functions(fault), ["shop::rethrown()", "main"]);
    Ok(())
}

#[test]
fn a_call_of_a_pure_virtual_function_shows_who_made_it() -> Result<()> {
    let report = run("pure_virtual")?;
    let fault = terminated_at(&report, "abort", "area(); }")?;
    assert_eq!(fault["message"], "pure virtual method called");
    let own = own_functions(fault);
    assert_eq!(own.first(), Some(&"shop::shape::measure()"));
    assert_eq!(frame(fault, "shop::square::square()")?["inlined"], true);
    Ok(())
}
