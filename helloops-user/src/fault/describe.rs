//! Says in words what a site's registers and texts mean.

use std::path::PathBuf;

use super::{
    capture::{Capture, text},
    record::{Kind, Location, Runtime, Signal},
    signal,
};
use crate::{kernel::abi::SiteKind, symbol};

/// What a capture says by itself, without its stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// What went wrong.
    pub kind: Kind,
    /// The runtime whose site it is; `None` for one that tells nothing of it.
    pub runtime: Option<Runtime>,
    /// The message.
    pub message: String,
    /// Where the program says it is.
    pub location: Option<Location>,
    /// The signal, if it is one.
    pub signal: Option<Signal>,
}

/// Describes a capture. `None` if its site is of an unknown kind.
pub fn describe(capture: &Capture) -> Option<Description> {
    let plain = |kind, runtime, message: String| Description {
        kind,
        runtime: Some(runtime),
        message,
        location: None,
        signal: None,
    };
    Some(match capture.site_kind()? {
        SiteKind::RustPanicHook | SiteKind::RustPanic => Description {
            location: rust_location(capture),
            ..plain(Kind::Panic, Runtime::Rust, rust_message(capture))
        },
        SiteKind::RustAllocError => {
            let bytes = capture.event.numbers[1];
            plain(
                Kind::Abort,
                Runtime::Rust,
                format!("memory allocation of {bytes} bytes failed"),
            )
        }
        SiteKind::CppTerminate => match exception(capture) {
            Some(message) => plain(Kind::Exception, Runtime::Cpp, message),
            None => plain(
                Kind::Abort,
                Runtime::Cpp,
                "std::terminate without an active exception".to_owned(),
            ),
        },
        SiteKind::Abort => plain(Kind::Abort, Runtime::C, "abort()".to_owned()),
        SiteKind::AssertFail => assertion(capture),
        SiteKind::StackCheckFail => plain(
            Kind::Abort,
            Runtime::C,
            "stack smashing detected".to_owned(),
        ),
        SiteKind::FortifyFail => {
            let message = event_text(capture, 0).unwrap_or_else(|| "fortify failure".to_owned());
            plain(Kind::Abort, Runtime::C, message)
        }
        SiteKind::User => Description {
            runtime: None,
            ..plain(Kind::Error, Runtime::Unknown, String::new())
        },
        SiteKind::FatalSignal => {
            let signal = signal::describe(&capture.event.signal, capture.event.header.tgid);
            Description {
                kind: Kind::Signal,
                runtime: None,
                message: signal::message(&signal),
                location: None,
                signal: Some(signal),
            }
        }
    })
}

/// A text of the site's event.
pub fn event_text(capture: &Capture, index: usize) -> Option<String> {
    let from = capture.event.texts.get(index)?;
    text(from.length, from.truncated, &from.bytes)
}

fn rust_message(capture: &Capture) -> String {
    capture
        .message
        .clone()
        .or_else(|| event_text(capture, 1))
        // What Rust prints itself for a payload that is not a text.
        .unwrap_or_else(|| "Box<dyn Any>".to_owned())
}

fn rust_location(capture: &Capture) -> Option<Location> {
    let [line, column, ..] = capture.event.numbers;
    let file = event_text(capture, 0).filter(|file| !file.is_empty())?;
    Some(Location {
        file: PathBuf::from(file),
        line: u32::try_from(line).ok().filter(|line| *line > 0)?,
        column: u32::try_from(column).ok().filter(|column| *column > 0),
    })
}

fn assertion(capture: &Capture) -> Description {
    let expression = event_text(capture, 0).unwrap_or_default();
    let function = event_text(capture, 2).unwrap_or_default();
    let location = event_text(capture, 1).map(|file| Location {
        file: PathBuf::from(file),
        line: capture.event.numbers[0] as u32,
        column: None,
    });
    Description {
        kind: Kind::Assert,
        runtime: Some(Runtime::C),
        message: format!("assertion `{expression}` failed in `{function}`"),
        location,
        signal: None,
    }
}

/// The type and text of the C++ exception that was found at `std::terminate` or `abort`; `None` if
/// none was.
pub fn exception(capture: &Capture) -> Option<String> {
    let [found, first, second, ..] = capture.event.numbers;
    if found == 0 {
        return None;
    }
    let mangled = event_text(capture, 0)?;
    let value = match mangled.as_str() {
        "i" => Some((first as i32).to_string()),
        "j" => Some((first as u32).to_string()),
        "l" | "x" => Some((first as i64).to_string()),
        "m" | "y" => Some(first.to_string()),
        "b" => Some((first & 1 != 0).to_string()),
        "c" => Some(format!("{:?}", char::from(first as u8))),
        "f" => Some(f32::from_bits(first as u32).to_string()),
        "d" => Some(f64::from_bits(first).to_string()),
        "PKc" | "Pc" => event_text(capture, 2),
        name if name.starts_with("NSt7__cxx1112basic_string") || name == "Ss" => {
            event_text(capture, 3).or((second == 0).then(String::new))
        }
        // A class: std::logic_error, std::runtime_error and what derives from them keep their text
        // behind the vtable. In other classes the same place may hold anything.
        _ => event_text(capture, 1).filter(|text| is_prose(text)),
    };
    let name = type_name(&mangled);
    Some(match value {
        Some(value) => format!("{name}: {value}"),
        None => name,
    })
}

/// Whether memory that was read as text looks like one.
fn is_prose(text: &str) -> bool {
    text.chars().count() >= 2
        && text.chars().all(|c| {
            c != char::REPLACEMENT_CHARACTER && (!c.is_control() || c == '\n' || c == '\t')
        })
}

/// A readable type name. `std::type_info` holds the mangled type alone, which a demangler knows as
/// the type of a `_ZTS` symbol.
fn type_name(mangled: &str) -> String {
    // libstdc++ marks types that must be compared by address with a star.
    let mangled = mangled.trim_start_matches('*');
    let symbol = format!("_ZTS{mangled}");
    let name = symbol::demangle(&symbol);
    match name.strip_prefix("typeinfo name for ") {
        Some("std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >") => {
            "std::string".to_owned()
        }
        Some(name) => name.to_owned(),
        None => mangled.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_as_in_the_source() {
        assert_eq!(type_name("St13runtime_error"), "std::runtime_error");
        assert_eq!(type_name("i"), "int");
        assert_eq!(type_name("PKc"), "char const*");
        assert_eq!(type_name("*N4shop5ErrorE"), "shop::Error");
        assert_eq!(type_name("no type"), "no type");
        assert_eq!(
            type_name("NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"),
            "std::string"
        );
    }
}
