//! Sites of real binaries, and properties of patterns.
#![allow(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::env;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::symbol::Mapping;
use crate::symbol::tests::compile::Workshop;

fn pattern(text: &str) -> ProbePattern {
    ProbePattern::parse(text).expect("a pattern")
}

/// The library of this process whose file name starts like this.
fn library(name: &str) -> Image {
    let mappings = Mapping::of_process(std::process::id()).expect("own maps");
    let is_meant = |mapping: &&Mapping| {
        mapping
            .path
            .file_name()
            .is_some_and(|file| file.to_string_lossy().starts_with(name))
    };
    let mapping = mappings
        .iter()
        .find(is_meant)
        .expect("the library is mapped");
    Image::open(&mapping.path).expect("an image")
}

fn kinds(sites: &[Site]) -> Vec<SiteKind> {
    let mut kinds: Vec<SiteKind> = sites.iter().map(|site| site.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// Each site is code that a function starts with, and the two numbers for its place agree.
fn assert_well_placed(image: &Image, sites: &[Site]) {
    for site in sites {
        assert_eq!(
            image.address_of_offset(site.file_offset),
            Some(site.virtual_address)
        );
        assert_eq!(image.code_at(site.virtual_address, 4).len(), 4);
    }
}

#[test]
fn this_rust_program_has_each_rust_site_once() {
    let image = Image::open(&env::current_exe().expect("own path")).expect("an image");
    let sites = runtime_sites(&image);
    assert_well_placed(&image, &sites);
    for (kind, function) in [
        (SiteKind::RustBeginPanic, "std::panicking::panic_with_hook"),
        (SiteKind::RustPanic, "__rustc::rust_panic"),
        (SiteKind::RustAllocError, "alloc::alloc::handle_alloc_error"),
    ] {
        let found: Vec<_> = sites.iter().filter(|site| site.kind == kind).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].function, function);
        assert!(!found[0].in_library);
    }
    assert!(
        !kinds(&sites).contains(&SiteKind::Abort),
        "`abort` is only imported: {sites:?}"
    );
}

#[test]
fn the_c_library_has_the_c_sites() {
    let image = library("libc.so");
    let sites = runtime_sites(&image);
    assert_well_placed(&image, &sites);
    assert_eq!(
        kinds(&sites),
        [
            SiteKind::Abort,
            SiteKind::AssertFail,
            SiteKind::StackCheckFail,
            SiteKind::FortifyFail
        ]
    );
    assert_eq!(sites.len(), 5, "{sites:?}");
    assert!(sites.iter().all(|site| site.in_library));
}

const CPP: &str = r#"
#include <exception>
namespace shop {
struct Order { __attribute__((noinline)) int total(int n) const { return n + 1; } };
template <typename T> __attribute__((noinline)) T twice(T value) { return value * 2; }
}
extern "C" __attribute__((noinline)) int report_error(const char *text, int code) { return text[0] + code; }
int main(int argc, char **argv) {
    if (argc > 3) std::terminate();
    return shop::Order().total(argc) + shop::twice<int>(argc) + shop::twice<long>(argc)
        + report_error(argv[0], argc);
}
"#;

#[test]
fn a_static_cpp_program_has_the_cpp_and_c_sites_itself() {
    let workshop = Workshop::new();
    let image =
        Image::open(&workshop.compile("shop.cpp", CPP, &["-O1", "-static"])).expect("an image");
    let sites = runtime_sites(&image);
    assert_well_placed(&image, &sites);
    assert!(
        kinds(&sites).starts_with(&[SiteKind::CppTerminate, SiteKind::Abort]),
        "{sites:?}"
    );
    assert!(sites.iter().any(|site| site.function == "std::terminate()"));
}

#[test]
fn cpp_functions_are_found_by_symbol_by_path_and_by_glob() {
    let workshop = Workshop::new();
    let program = workshop.compile("shop.cpp", CPP, &["-O1"]);
    let image = Image::open(&program).expect("an image");
    let found = |text: &str| -> Vec<String> {
        let sites = user_sites(&image, &pattern(text)).expect("a match");
        assert_well_placed(&image, &sites);
        let mut names: Vec<String> = sites.into_iter().map(|site| site.function).collect();
        names.sort();
        names
    };
    assert_eq!(found("report_error"), ["report_error"]);
    assert_eq!(
        found("_ZNK4shop5Order5totalEi(int)"),
        ["shop::Order::total(int) const"]
    );
    assert_eq!(
        found("shop::Order::total"),
        ["shop::Order::total(int) const"]
    );
    assert_eq!(
        found("shop::twice"),
        ["shop::twice<int>(int)", "shop::twice<long>(long)"]
    );
    assert_eq!(
        found("shop::twice<long>(int)").len(),
        2,
        "generic arguments are not compared"
    );
    assert_eq!(found("shop::*").len(), 3);
    assert_eq!(found("report_?rror"), ["report_error"]);
}

#[test]
fn a_name_that_is_nearly_right_is_corrected() {
    let workshop = Workshop::new();
    let image = Image::open(&workshop.compile("shop.cpp", CPP, &["-O1"])).expect("an image");
    for wrong in ["report_eror", "shop::report_error", "Report_Error"] {
        let error = user_sites(&image, &pattern(wrong)).expect_err("no match");
        let SiteError::NoMatch { nearest, .. } = &error else {
            panic!("{error}")
        };
        assert!(nearest.len() <= SHOWN);
        assert!(
            nearest.contains(&"report_error".to_owned()),
            "{wrong}: {error}"
        );
    }
    let error = user_sites(&image, &pattern("qqqqqqqq")).expect_err("no match");
    assert!(error.to_string().contains("nm -C"), "{error}");
}

#[test]
fn rust_functions_are_found_by_path_without_hash_and_generics() {
    let image = Image::open(&env::current_exe().expect("own path")).expect("an image");
    let this = "helloops::target::site::runtime_sites";
    let sites = user_sites(&image, &pattern(this)).expect("a match");
    assert_eq!(sites.len(), 1);
    assert_eq!(sites[0].function, this);
    assert_eq!(
        user_sites(&image, &pattern(&sites[0].symbol)).expect("a match"),
        sites
    );
    let generic = user_sites(&image, &pattern("core::ptr::read_volatile")).expect("a match");
    assert!(!generic.is_empty());
    let globbed = user_sites(&image, &pattern("helloops::target::site::runtime_*")).expect("some");
    assert!(globbed.iter().any(|site| site.function == this));
}

#[test]
fn a_pattern_for_thousands_is_refused_with_examples() {
    let image = Image::open(&env::current_exe().expect("own path")).expect("an image");
    let error = user_sites(&image, &pattern("core::*")).expect_err("too many");
    let SiteError::TooMany { count, first, .. } = &error else {
        panic!("{error}")
    };
    assert!(*count > MAX_MATCHES && first.len() == SHOWN, "{error}");
}

#[test]
fn a_stripped_program_says_that_it_is_stripped() {
    let workshop = Workshop::new();
    let program = workshop.compile(
        "bare.c",
        "int main(void) { return 0; }",
        &["-s", "-static-pie"],
    );
    let image = Image::open(&program).expect("an image");
    let error = user_sites(&image, &pattern("main")).expect_err("no symbols");
    assert!(matches!(error, SiteError::NoSymbols { .. }), "{error}");
    assert_eq!(runtime_sites(&image), []);
}

#[test]
fn a_site_lies_behind_an_endbr64_that_a_push_follows() {
    let workshop = Workshop::new();
    let source = r#"
        __asm__(".text\n"
            ".globl marked\n.type marked,@function\nmarked: endbr64\npush %rbp\npop %rbp\nret\n.size marked,.-marked\n"
            ".globl wide\n.type wide,@function\nwide: endbr64\npush %r12\npop %r12\nret\n.size wide,.-wide\n"
            ".globl other\n.type other,@function\nother: endbr64\nsub $8,%rsp\nadd $8,%rsp\nret\n.size other,.-other\n"
            ".globl plain\n.type plain,@function\nplain: push %rbp\npop %rbp\nret\n.size plain,.-plain\n");
        int main(void) { return 0; }
    "#;
    let image = Image::open(&workshop.compile("marks.c", source, &[])).expect("an image");
    for (name, distance) in [("marked", 4), ("wide", 4), ("other", 0), ("plain", 0)] {
        let start = functions(&image)
            .find(|f| f.name == name.as_bytes())
            .expect("a symbol")
            .address;
        let sites = user_sites(&image, &pattern(name)).expect("a match");
        assert_eq!(sites[0].virtual_address - start, distance, "{name}");
    }
}

#[test]
fn runtime_symbols_of_all_toolchains_are_known_and_lookalikes_are_not() {
    for (symbol, kind) in [
        (
            "_RNvNtCsfLfy6EI15iL_3std9panicking15panic_with_hook",
            SiteKind::RustBeginPanic,
        ),
        (
            "_RNvNtCsfLfy6EI15iL_3std9panicking15panic_with_hook.llvm.12345",
            SiteKind::RustBeginPanic,
        ),
        (
            "_ZN3std9panicking20rust_panic_with_hook17h0123456789abcdefE",
            SiteKind::RustBeginPanic,
        ),
        (
            "_ZN3std9panicking15panic_with_hook17h0123456789abcdefE",
            SiteKind::RustBeginPanic,
        ),
        (
            "_RNvCseulmdZsCeCG_7___rustc10rust_panic",
            SiteKind::RustPanic,
        ),
        ("rust_panic", SiteKind::RustPanic),
        (
            "_ZN5alloc5alloc18handle_alloc_error17h0123456789abcdefE",
            SiteKind::RustAllocError,
        ),
        ("_ZN10__cxxabiv111__terminateEPFvvE", SiteKind::CppTerminate),
        ("abort", SiteKind::Abort),
    ] {
        assert_eq!(runtime_kind(symbol.as_bytes()), Some(kind), "{symbol}");
    }
    for symbol in [
        "_RNvNtCsfLfy6EI15iL_5mystd9panicking15panic_with_hook",
        "_RNvCsfLfy6EI15iL_4shop10rust_panic",
        "_ZN4shop9panicking15panic_with_hook17h0123456789abcdefE",
        "abort_order",
        "my_abort",
        "",
        "_R",
    ] {
        assert_eq!(runtime_kind(symbol.as_bytes()), None, "{symbol}");
    }
}

#[test]
fn patterns_are_read_in_their_parts() {
    use ArgumentType::{Cstr, Int, Ptr, Str};
    let plain = pattern("shop::billing::report_error");
    assert_eq!(plain.library(), None);
    assert_eq!(plain.arguments(), [Ptr; 6]);
    let full = pattern(" libshop.so:report_error(int, str,cstr,ptr) ");
    assert_eq!(full.library(), Some("libshop.so"));
    assert_eq!(full.arguments(), [Int, Str, Cstr, Ptr]);
    assert!(full.is_in_library(Path::new("/opt/libshop.so")));
    assert!(full.is_in_library(Path::new("/opt/libshop.so.1.2")));
    assert!(!full.is_in_library(Path::new("/opt/libshop.so.old")));
    assert!(!full.is_in_library(Path::new("/opt/mylibshop.so")));
    let by_path = pattern("/opt/libshop.so:shop::fail()");
    assert!(by_path.is_in_library(Path::new("/opt/libshop.so")));
    assert!(!by_path.is_in_library(Path::new("/usr/libshop.so")));
    assert_eq!(by_path.arguments(), []);
    assert!(pattern("Till::operator()").matches("_ZN4TillclEi"));

    let error = |text: &str| ProbePattern::parse(text).expect_err("an error");
    for nameless in ["", "  ", "libshop.so:", "(int)", ":"] {
        assert!(
            matches!(error(nameless), PatternError::NoName { .. }),
            "{nameless}"
        );
    }
    assert_eq!(
        error("f(char)"),
        PatternError::UnknownType {
            name: "char".into()
        }
    );
    assert!(matches!(
        error("f(str,str,str,int)"),
        PatternError::TooManyArguments { registers: 7, .. }
    ));
}

#[test]
fn paths_leave_out_what_a_person_would_not_write() {
    for (symbol, path) in [
        ("_ZN4shop8checkoutISt6vectorIiSaIiEEEEvT_", "shop::checkout"),
        ("_ZNK4shop5OrderIiE5totalEi", "shop::Order::total"),
        ("_ZN12_GLOBAL__N_14failEv", "(anonymous namespace)::fail"),
        ("_ZN4shoplsERSoi", "shop::operator<<"),
        ("_ZN4shop4failEi.constprop.0", "shop::fail"),
        ("fail.isra.0", "fail"),
        ("main.report", "main.report"),
        (
            "_ZN50_$LT$shop..Order$u20$as$u20$core..fmt..Display$GT$3fmt17h0123456789abcdefE",
            "<shop::Order as core::fmt::Display>::fmt",
        ),
        ("_RINvCs1234_4shop5twicejE", "shop::twice"),
    ] {
        assert_eq!(pattern::path_of(symbol), path, "{symbol}");
        assert!(pattern(path).matches(symbol), "{path}");
    }
    assert!(!pattern("shop::fail").matches("_ZN4shop4failEi.cold"));
}

proptest! {
    #[test]
    fn any_text_is_a_pattern_or_an_error(text in "[a-z:(),*?<>_{}# .]{0,60}") {
        if let Ok(parsed) = ProbePattern::parse(&text) {
            let registers: usize = parsed.arguments().iter().map(|a| a.registers()).sum();
            prop_assert!(registers <= 6);
            prop_assert_eq!(parsed.to_string(), text.trim());
            let _ = parsed.matches(&text);
        }
    }

    #[test]
    fn an_exact_name_matches_itself_and_only_itself(
        name in "[a-z_]{1,10}(::[a-z_]{1,10}){0,3}",
        other in "[a-z_]{1,10}(::[a-z_]{1,10}){0,3}",
    ) {
        prop_assert!(pattern(&name).matches(&name));
        prop_assert_eq!(pattern(&name).matches(&other), name == other);
        prop_assert!(pattern(&name).literal().is_none_or(|literal| name.contains(literal)));
    }

    #[test]
    fn a_glob_matches_whatever_stands_for_its_stars(
        first in "[a-z_]{1,8}",
        rest in prop::collection::vec(("[a-zA-Z0-9_:<>]{0,8}", "[a-z_]{0,8}"), 1..5),
    ) {
        let (mut written, mut name) = (first.clone(), first);
        for (filling, part) in &rest {
            written += &format!("*{part}");
            name += &format!("{filling}{part}");
        }
        prop_assert!(pattern(&written).matches(&name), "{} {}", written, name);
    }
}
