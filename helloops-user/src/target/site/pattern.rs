//! How a user names functions to probe: `[LIBRARY:]NAME[(TYPE,…)]`.
//!
//! `NAME` is a symbol, a path as a person writes it (`shop::billing::report_error`), or a glob over
//! either. Hashes, generic arguments and C++ parameters need not be given.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use regex::Regex;

use crate::symbol::demangle;

/// How many registers pass integer arguments (System V ABI for x86-64, 3.2.3).
const ARGUMENT_REGISTERS: usize = 6;

/// The shortest literal that is worth a search before demangling, in bytes.
const MIN_LITERAL: usize = 3;

/// Names that C++ mangling abbreviates, or that demangling makes up: not in the symbol as such.
const NOT_LITERAL: [&str; 11] = [
    "std",
    "allocator",
    "basic_string",
    "string",
    "istream",
    "ostream",
    "iostream",
    "operator",
    "anonymous",
    "namespace",
    "impl",
];

/// What compilers put between a function's symbol and the number of one variant of it.
const VARIANTS: [&str; 3] = [".constprop.", ".isra.", ".llvm."];

/// How to show an argument of a probed function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArgumentType {
    /// A signed 64-bit integer.
    Int,
    /// An unsigned 64-bit integer.
    Uint,
    /// An address, in hexadecimal.
    Ptr,
    /// A pointer to bytes that a zero ends, as in C.
    Cstr,
    /// A pointer and a length in bytes, in two registers, as Rust and Go pass strings.
    Str,
}

impl ArgumentType {
    /// How many registers it takes.
    pub fn registers(self) -> usize {
        match self {
            Self::Int | Self::Uint | Self::Ptr | Self::Cstr => 1,
            Self::Str => 2,
        }
    }
}

impl FromStr for ArgumentType {
    type Err = PatternError;

    fn from_str(name: &str) -> Result<Self, PatternError> {
        Ok(match name {
            "int" => Self::Int,
            "uint" => Self::Uint,
            "ptr" => Self::Ptr,
            "cstr" => Self::Cstr,
            "str" => Self::Str,
            _ => {
                return Err(PatternError::UnknownType {
                    name: name.to_owned(),
                });
            }
        })
    }
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No function is named.
    #[error("`{text}` names no function; write [LIBRARY:]FUNCTION[(TYPE,...)]")]
    NoName {
        /// The pattern.
        text: String,
    },
    /// An argument's type is not one of the known ones.
    #[error("`{name}` is no argument type; the types are int, uint, ptr, cstr and str")]
    UnknownType {
        /// What was written.
        name: String,
    },
    /// The arguments do not fit the registers.
    #[error(
        "the arguments in `{text}` take {registers} registers, and only the first \
         {ARGUMENT_REGISTERS} can be shown (`str` takes two); leave some out at the end"
    )]
    TooManyArguments {
        /// The pattern.
        text: String,
        /// How many registers they take.
        registers: usize,
    },
    /// A glob became too large an expression.
    #[error("`{text}` is too long a pattern")]
    TooLong {
        /// The pattern.
        text: String,
    },
}

#[derive(Debug, Clone)]
enum Name {
    /// As it is, and without its generic arguments.
    Exact {
        full: String,
        plain: String,
    },
    Glob(Regex),
}

/// Functions to probe, and how to show their arguments.
#[derive(Debug, Clone)]
pub struct ProbePattern {
    text: String,
    library: Option<String>,
    name: Name,
    literal: Option<String>,
    /// The function's name as written.
    written: String,
    arguments: Vec<ArgumentType>,
}

impl ProbePattern {
    /// Parses `[LIBRARY:]NAME[(TYPE,…)]`.
    ///
    /// # Errors
    /// No name, an unknown argument type, or more arguments than registers.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        let (library, rest) = match single_colon(text) {
            Some((library, rest)) if !library.is_empty() => (Some(library.to_owned()), rest),
            Some((_, rest)) => (None, rest),
            None => (None, text),
        };
        let (name, arguments) = match argument_list(rest) {
            Some((name, list)) => (name.trim_end(), parse_arguments(text, list)?),
            None => (rest, vec![ArgumentType::Ptr; ARGUMENT_REGISTERS]),
        };
        if name.is_empty() {
            return Err(PatternError::NoName {
                text: text.to_owned(),
            });
        }
        let is_glob = name.contains(['*', '?']);
        Ok(Self {
            library,
            name: if is_glob {
                Name::Glob(glob(name).map_err(|_| PatternError::TooLong {
                    text: text.to_owned(),
                })?)
            } else {
                Name::Exact {
                    full: name.to_owned(),
                    plain: without_generics(name),
                }
            },
            literal: longest_literal(name),
            written: name.to_owned(),
            arguments,
            text: text.to_owned(),
        })
    }

    /// The library to look in, by path or file name; nothing for the executable.
    pub fn library(&self) -> Option<&str> {
        self.library.as_deref()
    }

    /// Whether the library that the pattern names, if any, is the file at the path. A file name
    /// without its version names any version: `libshop.so` is `/opt/lib/libshop.so.2`.
    pub fn is_in_library(&self, path: &Path) -> bool {
        let Some(library) = self.library.as_deref() else {
            return false;
        };
        if library.contains('/') {
            return path == Path::new(library);
        }
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return false;
        };
        name.strip_prefix(library).is_some_and(|version| {
            version.is_empty()
                || (version.starts_with('.')
                    && version.chars().all(|c| c == '.' || c.is_ascii_digit()))
        })
    }

    /// How to show the arguments, in order; all six argument registers as addresses where the
    /// pattern has no list.
    pub fn arguments(&self) -> &[ArgumentType] {
        &self.arguments
    }

    /// What any matching symbol contains, if something is certain.
    pub(super) fn literal(&self) -> Option<&str> {
        self.literal.as_deref()
    }

    /// Whether a symbol (without a version) is one of those that are meant.
    pub(super) fn matches(&self, symbol: &str) -> bool {
        // Parts that the compiler split off a function are not its beginning.
        if symbol.contains(".cold") || symbol.contains(".part.") {
            return false;
        }
        let is_meant = |name: &str| match &self.name {
            Name::Exact { full, plain } => name == full || name == plain,
            Name::Glob(glob) => glob.is_match(name),
        };
        is_meant(symbol) || is_meant(&demangle(symbol)) || is_meant(&path_of(symbol))
    }

    /// How alike a function's path is to the one that is looked for, from 0 to 1.
    pub(super) fn likeness(&self, path: &str) -> f64 {
        let last = |path: &str| path.rsplit("::").next().unwrap_or_default().to_owned();
        let whole = strsim::jaro_winkler(&self.written, path);
        // The right function in the wrong module is nearer than the reverse.
        let function = strsim::jaro_winkler(&last(&self.written), &last(path));
        0.4 * whole + 0.6 * function
    }
}

impl fmt::Display for ProbePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ProbePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

/// A function's path without hash, generic arguments, C++ parameters and what the compiler appended
/// to name a variant.
pub(super) fn path_of(symbol: &str) -> String {
    let base = VARIANTS
        .iter()
        .filter_map(|variant| symbol.split_once(variant))
        .map(|(base, _)| base)
        .min_by_key(|base| base.len())
        .unwrap_or(symbol);
    let name = demangle(base);
    // Only C++ has a mangling that starts with `_Z` and parameters in the name.
    match name != base && symbol.starts_with("_Z") {
        true => without_generics(without_parameters(&name)),
        false => without_generics(&name),
    }
}

/// At the first colon that is not half of a `::`.
fn single_colon(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let is_colon = |at: Option<usize>| at.and_then(|at| bytes.get(at)) == Some(&b':');
    let at = (0..bytes.len()).find(|at| {
        is_colon(Some(*at)) && !is_colon(Some(at + 1)) && !is_colon(at.checked_sub(1))
    })?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// The name and what is in the parentheses at the end, if there are any. Those of C++'s
/// `operator()` are a part of the name.
fn argument_list(text: &str) -> Option<(&str, &str)> {
    let (name, list) = text.strip_suffix(')')?.rsplit_once('(')?;
    (!name.ends_with("operator")).then_some((name, list))
}

fn parse_arguments(text: &str, list: &str) -> Result<Vec<ArgumentType>, PatternError> {
    if list.trim().is_empty() {
        return Ok(Vec::new());
    }
    let arguments: Vec<ArgumentType> = list
        .split(',')
        .map(|name| name.trim().parse())
        .collect::<Result<_, _>>()?;
    let registers = arguments.iter().map(|argument| argument.registers()).sum();
    if registers > ARGUMENT_REGISTERS {
        return Err(PatternError::TooManyArguments {
            text: text.to_owned(),
            registers,
        });
    }
    Ok(arguments)
}

/// `*` for any text, `?` for any one character.
fn glob(pattern: &str) -> Result<Regex, regex::Error> {
    let mut expression = String::from("^(?s:");
    for character in pattern.chars() {
        match character {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            other => expression.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    expression.push_str(")$");
    Regex::new(&expression)
}

/// The name without generic arguments: `twice::<u32>` and `twice<int>` are `twice`. What stands in
/// angle brackets at the start of a path, as in `<shop::Order as Display>::fmt`, is kept.
fn without_generics(name: &str) -> String {
    let mut kept = String::with_capacity(name.len());
    let mut depth = 0_usize;
    let mut previous = ' ';
    for character in name.chars() {
        let opens = character == '<' && !kept.ends_with("operator") && !kept.ends_with("operator<");
        let begins_arguments =
            previous.is_alphanumeric() || previous == '_' || previous == ':' || depth > 0;
        if opens && begins_arguments {
            depth += 1;
        } else if depth > 0 {
            if character == '>' && previous != '-' && previous != '=' {
                depth -= 1;
                if depth == 0 {
                    // Rust writes `::` before the arguments of a function.
                    let length = kept.trim_end_matches("::").len();
                    kept.truncate(length);
                }
            }
        } else {
            kept.push(character);
        }
        previous = character;
    }
    kept
}

/// The C++ name before its parameters, and without what follows them (`const`, `[clone …]`).
fn without_parameters(name: &str) -> &str {
    let Some(close) = name.rfind(')') else {
        return name;
    };
    let mut depth = 0_usize;
    for (at, byte) in name
        .bytes()
        .enumerate()
        .take(close + 1)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        match byte {
            b')' => depth += 1,
            b'(' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return name.get(..at).unwrap_or(name);
        }
    }
    name
}

/// The longest run of identifier characters that any matching symbol must contain as it is, in
/// either mangling. Only ASCII is written literally, and what stands in brackets of any kind may be
/// abbreviated.
fn longest_literal(name: &str) -> Option<String> {
    if !name.is_ascii() {
        return None;
    }
    let mut depth = 0_i32;
    let mut run = String::new();
    let mut longest = String::new();
    for character in name.chars().chain([' ']) {
        match character {
            '<' | '(' | '{' | '[' => depth += 1,
            '>' | ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 && (character.is_ascii_alphanumeric() || character == '_') {
            run.push(character);
            continue;
        }
        if run.len() > longest.len() && !NOT_LITERAL.contains(&run.as_str()) {
            longest.clone_from(&run);
        }
        run.clear();
    }
    (longest.len() >= MIN_LITERAL).then_some(longest)
}
