//! Serves the API: HTTP/1.1 with JSON on a Unix socket.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{self, Query};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use super::socket::{self, SocketError, SocketFile};
use super::types::{ErrorBody, FaultQuery, Faults, HistogramQuery, Histograms};
use crate::agent::State;

/// The header that carries HelloOps's version in every answer.
pub(super) const VERSION_HEADER: &str = "helloops-version";

/// Connections that are served at once; a follower holds one for as long as it follows.
const CONNECTIONS: usize = 64;

/// The longest a client may take to send a request's head, or to send the next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest a client may take before it reads more of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest that a refusal of a connection may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest head of a request, in bytes.
const HEAD_SIZE: usize = 16 << 10;

/// An instance's API, bound to its socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    file: SocketFile,
    state: Arc<State>,
}

impl Server {
    /// Takes the socket at `path`, creating its directory where it is missing, and replacing the
    /// socket of an instance that is gone. Root, the caller's own user and members of `group` (the
    /// caller's own group if none is given) may talk to it.
    ///
    /// # Errors
    /// If another instance serves there, or the path cannot be listened on.
    pub async fn bind(
        path: &Path,
        group: Option<u32>,
        state: Arc<State>,
    ) -> Result<Self, SocketError> {
        let (listener, file) = socket::listen(path, group).await?;
        Ok(Self {
            listener,
            file,
            state,
        })
    }

    /// Serves until `shutdown` is ready, then closes all connections and removes the socket.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let api = router(Arc::clone(&self.state));
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Mostly too many open files; trying at once would only burn time.
                    log::warn!("cannot accept a connection on the API's socket: {error}");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if !self.file.admission.admits(&stream) {
                connections.spawn(refuse(stream, router_of_refusal(denied)));
            } else if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
                let api = api.clone();
                connections.spawn(async move {
                    serve(stream, api).await;
                    drop(slot);
                });
            } else {
                connections.spawn(refuse(stream, router_of_refusal(busy)));
            }
        }
    }
}

async fn serve(stream: UnixStream, router: Router) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(
            TokioIo::new(Box::pin(stream)),
            TowerToHyperService::new(router),
        )
        .await;
    if let Err(error) = served {
        log::debug!("a connection to the API ended early: {error}");
    }
}

async fn refuse(stream: UnixStream, router: Router) {
    // A client that does not even read the refusal needs no other.
    let _ = timeout(REFUSAL_TIMEOUT, serve(stream, router)).await;
}

fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/faults", get(faults))
        .route("/v1/faults/stream", get(fault_stream))
        .route("/v1/faults/{id}", get(fault))
        .route("/v1/histograms", get(histograms))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .with_state(state)
        .layer(axum::middleware::map_response(with_version))
}

fn router_of_refusal(answer: fn() -> Failure) -> Router {
    Router::new()
        .fallback(move || async move { answer() })
        .layer(axum::middleware::map_response(with_version))
}

async fn with_version(mut response: Response) -> Response {
    let version = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));
    response.headers_mut().insert(VERSION_HEADER, version);
    response
}

async fn status(extract::State(state): extract::State<Arc<State>>) -> Response {
    Json(state.status()).into_response()
}

async fn faults(
    extract::State(state): extract::State<Arc<State>>,
    query: Result<Query<FaultQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query?;
    Ok(Json(Faults::of(&state, &query.into())).into_response())
}

async fn fault(
    extract::State(state): extract::State<Arc<State>>,
    extract::Path(id): extract::Path<String>,
) -> Result<Response, Failure> {
    let fault = state.fault(&id).ok_or_else(|| Failure::no_fault(&id))?;
    Ok(Json(fault).into_response())
}

async fn histograms(
    extract::State(state): extract::State<Arc<State>>,
    query: Result<Query<HistogramQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query?;
    Ok(Json(Histograms::of(&state, &query.into())).into_response())
}

/// New faults as events named `fault`. A follower that is too slow gets an event `missed` with the
/// number of faults that it did not see.
async fn fault_stream(
    extract::State(state): extract::State<Arc<State>>,
    query: Result<Query<FaultQuery>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let Query(query) = query?;
    let filter = crate::fault::Filter::from(query);
    let faults = state.follow_faults();
    let events = stream::unfold((faults, filter), |(mut faults, filter)| async move {
        let event = loop {
            match faults.recv().await {
                Ok(fault) if !filter.matches(&fault) => {}
                Ok(fault) => match Event::default().event("fault").json_data(&*fault) {
                    Ok(event) => break event,
                    Err(error) => log::error!("a fault cannot be written as JSON: {error}"),
                },
                Err(RecvError::Lagged(missed)) => {
                    break Event::default().event("missed").data(missed.to_string());
                }
                Err(RecvError::Closed) => return None,
            }
        };
        Some((Ok(event), (faults, filter)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

async fn unknown_path(uri: Uri) -> Failure {
    Failure::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {}", uri.path()),
        "ask for /v1/status, /v1/faults, /v1/faults/ID, /v1/faults/stream or /v1/histograms",
    )
}

async fn unknown_method() -> Failure {
    let error = "the API is only for looking".to_owned();
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, error, "use GET")
}

fn denied() -> Failure {
    Failure::new(
        StatusCode::FORBIDDEN,
        "this user may not ask this instance".to_owned(),
        "use sudo, or join the group that the socket belongs to",
    )
}

fn busy() -> Failure {
    Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("{CONNECTIONS} clients are connected already"),
        "end some of those that follow, then try again",
    )
}

/// An answer that is not a success.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    body: ErrorBody,
}

impl Failure {
    fn new(status: StatusCode, error: String, next_step: &str) -> Self {
        Self {
            status,
            body: ErrorBody {
                error,
                next_step: next_step.to_owned(),
            },
        }
    }

    fn no_fault(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("there is no fault {id}, or it is no longer kept"),
            "look at `helloops faults` for those that are",
        )
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        let next_step = "correct the parameters; those of faults are target, kind and limit, those \
                         of histograms target, pid, call and window";
        Self::new(StatusCode::BAD_REQUEST, rejection.body_text(), next_step)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
