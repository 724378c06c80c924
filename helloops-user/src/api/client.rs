//! Asks an instance through its socket.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::server::VERSION_HEADER;
use super::types::{ErrorBody, FaultQuery, Faults, HistogramQuery, Histograms, Status};
use crate::fault::Fault;

/// The longest that an answer may take, and a connection.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Why an instance could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No instance listens.
    #[error(
        "no agent answers at {}: start one with `helloops agent --exe PATH` (or --pid, --comm, \
         --cgroup), or name another one's socket with --socket", path.display()
    )]
    NoAgent {
        /// The socket.
        path: PathBuf,
    },
    /// The socket's file does not let this user in.
    #[error("no permission to ask the agent at {}: use sudo{group_hint}", path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
        /// Which group to join.
        group_hint: String,
    },
    /// The connection failed or broke.
    #[error(
        "cannot ask the agent at {}: {source}; see whether it still runs, and in its log why not",
        path.display()
    )]
    Connection {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer came in time.
    #[error(
        "the agent at {} does not answer within {} s; see whether it is stopped or overloaded",
        path.display(), TIMEOUT.as_secs()
    )]
    Timeout {
        /// The socket.
        path: PathBuf,
    },
    /// The instance refused.
    #[error("the agent at {} refuses: {}; {}", path.display(), body.error, body.next_step)]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What it said.
        body: ErrorBody,
    },
    /// The instance is of another version, which answers differently.
    #[error(
        "the agent at {} is helloops {theirs} and this command is {}: restart the agent with this \
         version, or use that version's command", path.display(), env!("CARGO_PKG_VERSION")
    )]
    OtherVersion {
        /// The socket.
        path: PathBuf,
        /// The instance's version.
        theirs: String,
    },
    /// Whatever answers speaks something else.
    #[error(
        "what answers at {} does not speak HelloOps's API ({reason}): name an agent's socket with \
         --socket", path.display()
    )]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// What was wrong with the answer.
        reason: String,
    },
}

/// A client of the instance that serves on one socket. Each request is a connection of its own, so
/// an instance may be restarted between two of them.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client for the socket at `path`; it is not connected to yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the instance is doing.
    ///
    /// # Errors
    /// As all methods: if the instance cannot be reached, refuses, or is of another version.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// The faults that match.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn faults(&self, query: &FaultQuery) -> Result<Faults, ClientError> {
        self.get(&with_query("/v1/faults", query)).await
    }

    /// One fault.
    ///
    /// # Errors
    /// See [`Client::status`]; also if there is no such fault, or it is no longer kept.
    pub async fn fault(&self, id: u64) -> Result<Fault, ClientError> {
        self.get(&format!("/v1/faults/{id}")).await
    }

    /// The distributions that match.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn histograms(&self, query: &HistogramQuery) -> Result<Histograms, ClientError> {
        self.get(&with_query("/v1/histograms", query)).await
    }

    /// The faults that match as they happen from now on. `query.limit` does not matter.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn follow_faults(&self, query: &FaultQuery) -> Result<FaultStream, ClientError> {
        let query = FaultQuery {
            limit: None,
            ..query.clone()
        };
        let response = self.send(&with_query("/v1/faults/stream", &query)).await?;
        Ok(FaultStream {
            client: self.clone(),
            version: version_of(&response),
            body: response.into_body(),
            received: Vec::new(),
            event: String::new(),
        })
    }

    async fn get<T: DeserializeOwned>(&self, path_and_query: &str) -> Result<T, ClientError> {
        let answer = async {
            let response = self.send(path_and_query).await?;
            let version = version_of(&response);
            let body = self.read(response).await?;
            serde_json::from_slice(&body).map_err(|error| self.unreadable(version, &error))
        };
        match timeout(TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Timeout {
                path: self.path.clone(),
            }),
        }
    }

    /// Sends a request and returns the head of a successful answer.
    async fn send(&self, path_and_query: &str) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|error| self.refused(error))?;
        let (mut requests, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        // It ends with the answer's body, or with the instance.
        tokio::spawn(connection);
        let request = Request::get(path_and_query)
            .header("host", "helloops")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.broken(error))?;
        let response = match timeout(TIMEOUT, requests.send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_parse() => return Err(self.foreign(error.to_string())),
            Ok(Err(error)) => return Err(self.broken(error)),
            Err(_) => {
                return Err(ClientError::Timeout {
                    path: self.path.clone(),
                });
            }
        };
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let (status, version) = (response.status(), version_of(&response));
        let body = self.read(response).await?;
        match (serde_json::from_slice::<ErrorBody>(&body), version) {
            // A path or parameter that only the newer of two versions knows.
            (_, Some(theirs)) if theirs != env!("CARGO_PKG_VERSION") => {
                Err(ClientError::OtherVersion {
                    path: self.path.clone(),
                    theirs,
                })
            }
            (Ok(body), Some(_)) => Err(ClientError::Refused {
                path: self.path.clone(),
                body,
            }),
            _ => Err(self.foreign(format!("it says {status}"))),
        }
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| self.broken(error))?;
        Ok(body.to_bytes())
    }

    fn refused(&self, error: io::Error) -> ClientError {
        let path = self.path.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoAgent { path }
            }
            io::ErrorKind::PermissionDenied => {
                let group_hint = group_of(&path)
                    .map(|group| format!(", or join the group `{group}`"))
                    .unwrap_or_default();
                ClientError::Permission { path, group_hint }
            }
            _ => self.broken(error),
        }
    }

    fn broken(&self, error: impl std::error::Error + Send + Sync + 'static) -> ClientError {
        ClientError::Connection {
            path: self.path.clone(),
            source: Box::new(error),
        }
    }

    fn foreign(&self, reason: String) -> ClientError {
        ClientError::Foreign {
            path: self.path.clone(),
            reason,
        }
    }

    fn unreadable(&self, version: Option<String>, error: &serde_json::Error) -> ClientError {
        match version {
            Some(theirs) if theirs != env!("CARGO_PKG_VERSION") => ClientError::OtherVersion {
                path: self.path.clone(),
                theirs,
            },
            _ => self.foreign(error.to_string()),
        }
    }
}

/// Faults as they happen.
#[derive(Debug)]
pub struct FaultStream {
    client: Client,
    version: Option<String>,
    body: Incoming,
    /// What was received of the line that is not complete yet.
    received: Vec<u8>,
    /// The name of the event whose lines are being received.
    event: String,
}

/// What a follower of faults gets to know.
#[derive(Debug)]
pub enum Followed {
    /// A new fault.
    Fault(Box<Fault>),
    /// So many faults that it was too slow to see.
    Missed(u64),
}

impl FaultStream {
    /// The next fault; `None` once the instance has ended.
    ///
    /// # Errors
    /// If the connection breaks, or the instance is of another version.
    pub async fn next(&mut self) -> Result<Option<Followed>, ClientError> {
        loop {
            while let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                if let Some(followed) = self.take_line(line.trim_ascii_end())? {
                    return Ok(Some(followed));
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.received.extend_from_slice(bytes);
                    }
                }
                Some(Err(error)) if is_end(&error) => return Ok(None),
                Some(Err(error)) => return Err(self.client.broken(error)),
                None => return Ok(None),
            }
        }
    }

    /// One line of server-sent events. axum writes each event's data as one line.
    fn take_line(&mut self, line: &[u8]) -> Result<Option<Followed>, ClientError> {
        if let Some(event) = line.strip_prefix(b"event:") {
            self.event = String::from_utf8_lossy(event.trim_ascii()).into_owned();
        }
        let Some(data) = line.strip_prefix(b"data:") else {
            return Ok(None);
        };
        let unreadable = |error| self.client.unreadable(self.version.clone(), &error);
        match self.event.as_str() {
            "fault" => serde_json::from_slice(data)
                .map(|fault| Some(Followed::Fault(Box::new(fault))))
                .map_err(unreadable),
            "missed" => serde_json::from_slice(data)
                .map(|missed| Some(Followed::Missed(missed)))
                .map_err(unreadable),
            _ => Ok(None),
        }
    }
}

/// Whether the instance went away in the middle of an answer that has no end of its own.
fn is_end(error: &hyper::Error) -> bool {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    let ends = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
    error.is_incomplete_message() || cause.is_some_and(|cause| ends.contains(&cause.kind()))
}

fn with_query(path: &str, query: &impl Serialize) -> String {
    match serde_urlencoded::to_string(query) {
        Ok(query) if !query.is_empty() => format!("{path}?{query}"),
        _ => path.to_owned(),
    }
}

fn version_of(response: &Response<Incoming>) -> Option<String> {
    let version = response.headers().get(VERSION_HEADER)?;
    version.to_str().ok().map(str::to_owned)
}

/// The group that owns a file, by name where it has one.
fn group_of(path: &Path) -> Option<String> {
    let gid = std::fs::metadata(path).ok()?.gid();
    let group = nix::unistd::Group::from_gid(gid.into()).ok().flatten();
    Some(group.map_or_else(|| gid.to_string(), |group| group.name))
}
