//! The answers of the API, the report of `helloops run`, and what can be asked.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::agent::State;
pub use crate::agent::{Feature, Lost, Status, TargetStatus};
pub use crate::fault::FaultGroup;
use crate::fault::{Fault, Filter, Kind};
use crate::histogram::{LONGEST_WINDOW, Query, Series};
use crate::target::NamePattern;

/// Faults one by one and by cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// The latest faults, oldest first.
    pub faults: Vec<Arc<Fault>>,
    /// Faults by fingerprint, the group seen latest last.
    pub groups: Vec<FaultGroup>,
    /// Older faults that are no longer kept one by one, of all targets and kinds.
    pub dropped: u64,
    /// What was lost since the start.
    pub lost: Lost,
}

impl Faults {
    /// The faults of an instance that match.
    pub fn of(state: &State, filter: &Filter) -> Self {
        Self {
            faults: state.faults(filter),
            groups: state.fault_groups(filter),
            dropped: state.dropped_faults(),
            lost: state.lost(),
        }
    }
}

/// Latency distributions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histograms {
    /// One per target (or process) and call, by the time they took in all, longest first.
    pub series: Vec<Series>,
    /// What was lost since the start.
    pub lost: Lost,
}

impl Histograms {
    /// The distributions of an instance that match.
    pub fn of(state: &State, query: &Query) -> Self {
        Self {
            series: state.series(query),
            lost: state.lost(),
        }
    }
}

/// What `helloops run` found out about one command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// HelloOps's version.
    pub version: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Its process.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
    /// When it was started.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// The faults of the command and its children, oldest first.
    pub faults: Vec<Arc<Fault>>,
    /// Older faults that no longer fit in.
    #[serde(default)]
    pub dropped: u64,
    /// System-call latencies since the start.
    pub syscalls: Vec<Series>,
    /// Network flows; none are recorded yet.
    pub flows: Vec<Flow>,
    /// What was lost.
    pub lost: Lost,
}

/// A network flow; none are recorded yet, so there is no value of this type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flow {}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Exit {
    /// By itself.
    Code {
        /// Its exit code.
        code: i32,
    },
    /// By a signal.
    Signal {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel dumped a core.
        core: bool,
    },
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What failed, and why.
    pub error: String,
    /// What to do about it.
    pub next_step: String,
}

/// Which faults to show: the parameters of `GET /v1/faults`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultQuery {
    /// Those of targets with this name; `*` and `?` are wildcards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Those of one kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Only the latest so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl From<FaultQuery> for Filter {
    fn from(query: FaultQuery) -> Self {
        Self {
            target: query.target.as_deref().map(NamePattern::new),
            kind: query.kind,
            limit: query.limit,
        }
    }
}

/// Which distributions to show: the parameters of `GET /v1/histograms`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistogramQuery {
    /// Those of targets with this name; `*` and `?` are wildcards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Those of one process, where histograms are kept per process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Those of system calls with this name; `*` and `?` are wildcards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// The time that ends now, such as `1m`; none for all since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

impl From<HistogramQuery> for Query {
    fn from(query: HistogramQuery) -> Self {
        Self {
            target: query.target.as_deref().map(NamePattern::new),
            pid: query.pid,
            call: query.call.as_deref().map(NamePattern::new),
            window: query.window.map(Window::length),
        }
    }
}

/// A stretch of time that ends now: from a second to 24 hours, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Window(u32);

/// A text that is no [`Window`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// It is no length of time.
    #[error("`{0}` is no length of time; write it like 30s, 5m, 1h30m or 24h")]
    Unreadable(String),
    /// It is shorter or longer than windows are.
    #[error(
        "a window of `{0}` cannot be shown: windows are from 1s to 24h; leave the window away for \
         all since the start"
    )]
    OutOfRange(String),
}

impl Window {
    /// How long it is.
    pub fn length(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }
}

impl std::str::FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let length: SignedDuration = text
            .parse()
            .map_err(|_| WindowError::Unreadable(text.to_owned()))?;
        u32::try_from(length.as_secs())
            .ok()
            .filter(|&seconds| seconds >= 1 && u64::from(seconds) <= LONGEST_WINDOW.as_secs())
            .map(Self)
            .ok_or_else(|| WindowError::OutOfRange(text.to_owned()))
    }
}

impl TryFrom<String> for Window {
    type Error = WindowError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [
            (self.0 / 3_600, 'h'),
            (self.0 / 60 % 60, 'm'),
            (self.0 % 60, 's'),
        ];
        for (amount, unit) in units.into_iter().filter(|&(amount, _)| amount > 0) {
            write!(formatter, "{amount}{unit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_as_people_write_them() {
        for (text, seconds) in [("10s", 10), ("1m", 60), ("1h30m", 5_400), ("24h", 86_400)] {
            let window: Window = text.parse().unwrap();
            assert_eq!(window.length().as_secs(), seconds);
            assert_eq!(window.to_string(), text);
        }
        for text in ["", "1", "ten", "-1m"] {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
        for text in ["0s", "25h", "500ms", "4294967297s"] {
            assert_eq!(
                text.parse::<Window>(),
                Err(WindowError::OutOfRange(text.to_owned()))
            );
        }
    }

    #[test]
    fn an_exit_is_told_by_its_fields() {
        let code = serde_json::to_value(Exit::Code { code: 3 }).unwrap();
        assert_eq!(code, serde_json::json!({"code": 3}));
        let signal = serde_json::json!({"signal": 11, "core": true});
        let exit: Exit = serde_json::from_value(signal).unwrap();
        assert_eq!(
            exit,
            Exit::Signal {
                signal: 11,
                core: true
            }
        );
    }

    #[test]
    fn queries_survive_the_way_through_a_url() {
        let query = HistogramQuery {
            target: Some("a b&*".to_owned()),
            pid: Some(7),
            window: Some("1m".parse().unwrap()),
            ..HistogramQuery::default()
        };
        let text = serde_urlencoded::to_string(&query).unwrap();
        assert_eq!(
            serde_urlencoded::from_str::<HistogramQuery>(&text).unwrap(),
            query
        );
        assert!(serde_urlencoded::from_str::<FaultQuery>("targte=shop").is_err());
    }
}
